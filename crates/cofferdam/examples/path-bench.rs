//! Whole paths, measured on a cluster of its own: `up` until Ready, a pod from its POST to its first instruction and to
//! Running as a watch sees it, a burst of 50, a Deployment of 50, deletion, memory. `cargo xtask bench paths` builds the
//! program and runs this; it prints medians beside the published or measured reference of Kubernetes on a machine of this class.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, networking::v1::NetworkPolicy};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;

const PODS: usize = 20;

struct Bench {
    program: PathBuf,
    data: PathBuf,
}

impl Bench {
    fn run(&self, arguments: &[&str]) -> Result<()> {
        let output =
            Command::new(&self.program).arg("--data-dir").arg(&self.data).args(arguments).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down"]) {
            eprintln!("{error:#}");
        }
        // What is ours of it, which `down` leaves alone.
        if let Err(error) = fs::remove_dir_all(&self.data)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("{}: {error}", self.data.display());
        }
    }
}

fn main() -> Result<()> {
    let program = std::env::args_os().nth(1).map(PathBuf::from).context("usage: path-bench PROGRAM")?;
    let bench = Bench { program, data: PathBuf::from(format!("/var/tmp/cfd-bench-{}", std::process::id())) };
    let mut ups = Vec::new();
    for round in 0..5 {
        let began = Instant::now();
        bench.run(&["up"])?;
        ups.push(began.elapsed());
        if round < 4 {
            bench.run(&["down"])?;
        }
    }
    report("up → node Ready", &mut ups, Some((300.0, "budget")));
    let image = bench.data.join("tool.tar");
    fs::write(&image, node::images::tool_image())?;
    bench.run(&["image", "load", image.to_str().context("a path")?])?;
    let socket = bench.data.join("run/control.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { measure(node::client::unix(&socket), &bench.data).await })?;
    bench.run(&["down"])?;
    bench.run(&["up", "--nodes", "3"])?;
    fs::write(&image, node::images::tool_image())?;
    bench.run(&["image", "load", image.to_str().context("a path")?])?;
    runtime.block_on(async { across_nodes(node::client::unix(&socket)).await })
}

/// What it costs a pod's start that other nodes must know it: no policy, then one that means it on another node.
async fn across_nodes(client: Client) -> Result<()> {
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    one_by_one(&pods, "3 nodes, no policy", Duration::ZERO).await?;
    let policies = Api::<NetworkPolicy>::namespaced(client, "default");
    let policy = serde_json::from_value(json!({
        "metadata": { "name": "allow" },
        "spec": { "podSelector": { "matchLabels": { "app": "server" } },
            "ingress": [{ "from": [{ "podSelector": { "matchExpressions": [
                { "key": "app", "operator": "NotIn", "values": ["server"] }] } }] }] },
    }))?;
    policies.create(&PostParams::default(), &policy).await?;
    for node in 1..=3 {
        let name = format!("server-{node}");
        let mut server = pod(&name)?;
        server.metadata.labels = Some([("app".to_owned(), "server".to_owned())].into());
        server.spec.get_or_insert_default().node_name = Some(format!("node-{node}"));
        pods.create(&PostParams::default(), &server).await?;
        kube::runtime::wait::await_condition(pods.clone(), &name, |pod: Option<&Pod>| {
            pod.is_some_and(is_running)
        })
        .await?;
    }
    one_by_one(&pods, "3 nodes, 2 must know it", Duration::ZERO).await
}

async fn measure(client: Client, data: &Path) -> Result<()> {
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    println!("memory, idle, everything: {:.1} MiB (PSS)", mebibytes(data)?);
    one_by_one(&pods, "in a row", Duration::ZERO).await?;
    one_by_one(&pods, "after 1 s idle", Duration::from_secs(1)).await?;
    burst(&pods).await?;
    deployment(client, &pods, data).await
}

fn pod(name: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "cofferdam/tool", "args": ["now"] }] },
    }))?)
}

async fn one_by_one(pods: &Api<Pod>, what: &str, idle: Duration) -> Result<()> {
    let rounds = if idle.is_zero() { PODS } else { PODS / 2 };
    let (mut first, mut running, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        tokio::time::sleep(idle).await;
        let name = format!("one-{round}");
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut events = pods.watch(&params, "0").await?.boxed();
        let (began, clock) = (Instant::now(), now()?);
        pods.create(&PostParams::default(), &pod(&name)?).await?;
        until(&mut events, |event| matches!(event, WatchEvent::Modified(pod) if is_running(pod))).await?;
        running.push(began.elapsed());
        first.push(first_instruction(pods, &name).await?.saturating_sub(clock));
        let began = Instant::now();
        pods.delete(&name, &DeleteParams::default()).await?;
        until(&mut events, |event| matches!(event, WatchEvent::Deleted(_))).await?;
        gone.push(began.elapsed());
    }
    report(&format!("POST → first instruction, {what}"), &mut first, Some((558.0, "Kubernetes")));
    report(&format!("POST → Running in a watch, {what}"), &mut running, Some((1095.0, "Kubernetes")));
    report(&format!("DELETE → gone, {what}"), &mut gone, Some((3025.0, "Kubernetes")));
    Ok(())
}

async fn burst(pods: &Api<Pod>) -> Result<()> {
    let clock = now()?;
    let create = (0..50).map(|number| async move {
        let began = now()?;
        pods.create(&PostParams::default(), &pod(&format!("burst-{number}"))?).await?;
        anyhow::Ok(began)
    });
    let began = futures::future::try_join_all(create).await?;
    let mut first = Vec::new();
    for (number, began) in began.into_iter().enumerate() {
        let name = format!("burst-{number}");
        kube::runtime::wait::await_condition(pods.clone(), &name, |pod: Option<&Pod>| {
            pod.is_some_and(is_running)
        })
        .await?;
        first.push(first_instruction(pods, &name).await?.saturating_sub(began));
    }
    let last = first.iter().max().copied().unwrap_or_default();
    report("POST → first instruction, burst of 50", &mut first, None);
    println!(
        "  the last of 50 began {:.0} ms after the first POST (≤ {:.0})",
        millis(last),
        millis(now()?.saturating_sub(clock))
    );
    pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    drained(pods).await
}

async fn drained(pods: &Api<Pod>) -> Result<()> {
    loop {
        let list = pods.list(&ListParams::default()).await?;
        let Some(pod) = list.items.first() else { return Ok(()) };
        let uid = pod.uid().unwrap_or_default();
        kube::runtime::wait::await_condition(
            pods.clone(),
            &pod.name_any(),
            kube::runtime::conditions::is_deleted(&uid),
        )
        .await?;
    }
}

async fn deployment(client: Client, pods: &Api<Pod>, data: &Path) -> Result<()> {
    let before = mebibytes(data)?;
    let deployments = Api::<Deployment>::namespaced(client, "default");
    let object: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "fifty" },
        "spec": { "replicas": 50, "selector": { "matchLabels": { "app": "fifty" } },
            "template": { "metadata": { "labels": { "app": "fifty" } },
                "spec": { "containers": [{ "name": "c", "image": "cofferdam/tool", "args": ["now"] }] } } },
    }))?;
    let began = Instant::now();
    deployments.create(&PostParams::default(), &object).await?;
    let ready = |deployment: Option<&Deployment>| {
        deployment.and_then(|one| one.status.as_ref()?.ready_replicas) == Some(50)
    };
    kube::runtime::wait::await_condition(deployments.clone(), "fifty", ready).await?;
    report("Deployment of 50 → all Ready", &mut [began.elapsed()], Some((12_700.0, "Kubernetes")));
    println!("memory per pod, everything: {:.2} MiB (PSS)", (mebibytes(data)? - before) / 50.0);
    let began = Instant::now();
    deployments.delete("fifty", &DeleteParams::background()).await?;
    drained(pods).await?;
    report("Deployment of 50 deleted → all gone", &mut [began.elapsed()], Some((8_400.0, "Kubernetes")));
    Ok(())
}

type Events = futures::stream::BoxStream<'static, Result<WatchEvent<Pod>, kube::Error>>;

async fn until(events: &mut Events, is_it: impl Fn(&WatchEvent<Pod>) -> bool) -> Result<()> {
    while let Some(event) = events.try_next().await? {
        if is_it(&event) {
            return Ok(());
        }
    }
    bail!("the watch ended")
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// What the container's clock said at its start: its first line of output.
async fn first_instruction(pods: &Api<Pod>, name: &str) -> Result<Duration> {
    let params = LogParams { follow: true, ..LogParams::default() };
    let mut lines = futures::AsyncBufReadExt::lines(pods.log_stream(name, &params).await?);
    let line = lines.try_next().await?.context("the container printed nothing")?;
    Ok(Duration::from_nanos(line.trim().parse().with_context(|| format!("{line:?} is no time"))?))
}

fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn report(what: &str, times: &mut [Duration], reference: Option<(f64, &str)>) {
    times.sort();
    let median = millis(times[times.len() / 2]);
    let least = millis(times[0]);
    let p90 = millis(times[times.len() * 9 / 10]);
    print!("{what:48} median {median:8.1} ms   min {least:8.1}   p90 {p90:8.1}   n={}", times.len());
    match reference {
        Some((other, whose)) => println!("   {whose} {other:.0} ms, {:.1} times", other / median),
        None => println!(),
    }
}

/// The proportional set size of every process of the cluster: its own roles and all below them.
fn mebibytes(data: &Path) -> Result<f64> {
    let mut parents = BTreeMap::new();
    let mut ours = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent =
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parents.insert(pid, parent.unwrap_or(0));
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        if words.nth(1) == Some("internal") && words.any(|word| Path::new(word) == data) {
            ours.push(pid);
        }
    }
    let is_ours = |mut pid: u32| {
        while pid > 1 {
            if ours.contains(&pid) {
                return true;
            }
            pid = parents.get(&pid).copied().unwrap_or(0);
        }
        false
    };
    let mut total = 0;
    for pid in parents.keys().filter(|pid| is_ours(**pid)) {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        let pss = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<u64>().ok());
        total += pss.unwrap_or(0);
    }
    Ok(total as f64 / 1024.0)
}
