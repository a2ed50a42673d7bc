//! Medians of the API server over TLS with a durable store, in one process with its clients:
//! `cargo run --release -p control --example api-bench`. The reference is Kubernetes on the same class of machine: creates of
//! ConfigMaps with 16 clients 935/s, GET 1.46 ms, LIST of 1 000 pods 38 to 52 ms.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::OpenOptionsExt, net::UnixListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::Request;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("run"))?;
    fs::create_dir_all(path("control"))?;
    let config = control::Config {
        data_dir: path("control"),
        run_dir: path("run"),
        kubeconfig: fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path("kubeconfig"))?,
        tls: TcpListener::bind("127.0.0.1:0")?,
        tls_for_pods: None,
        audit: None,
        admin: UnixListener::bind(path("run/control.sock"))?,
        nodes: Vec::new(),
        service_cidrs: vec!["10.96.0.0/16".into()],
        cluster_id: "bench".into(),
        name_service: None,
        pod_security: Default::default(),
    };
    let mut serving = tokio::spawn(control::run(config));
    while fs::read_to_string(path("kubeconfig"))?.is_empty() {
        if serving.is_finished() {
            (&mut serving).await??;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let kubeconfig = Kubeconfig::read_from(path("kubeconfig"))?;
    let client = || async {
        let config =
            Config::from_custom_kubeconfig(kubeconfig.clone(), &KubeConfigOptions::default()).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Client::try_from(config)?)
    };
    let one = client().await?;
    report("floor: fdatasync of an append of 1.3 kB", &floor(&path("floor"))?);
    // The default ServiceAccount comes from a controller; the first pod waits for it.
    pods(&one, 1000).await?;

    creates(1, Duration::from_secs(3), &client).await?;
    creates(16, Duration::from_secs(5), &client).await?;
    let target = "/api/v1/namespaces/default/pods/bench-0";
    report("GET one pod", &times(&one, target, 2000).await?);
    let target = "/api/v1/namespaces/default/pods";
    report("LIST 1 000 pods", &times(&one, target, 60).await?);
    let target = "/api/v1/pods?labelSelector=half%3D1";
    report("LIST 500 of 1 000 pods by label", &times(&one, target, 60).await?);
    pod_security(&one).await?;
    field_owners(&one).await?;
    Ok(())
}

/// The share of `metadata.managedFields` in a pod's POST and in an agent's report. Dry runs, so that the disk has none.
async fn field_owners(client: &Client) -> Outcome<()> {
    let pods = "/api/v1/namespaces/default/pods";
    for name in ["kept", "unkept"] {
        let pod = json!({"metadata": {"name": name}, "spec": {"schedulerName": "nobody",
            "containers": [{"name": "main", "image": "registry.example/some/image:v1.2.3"}]}});
        post(client, &format!("{pods}?fieldManager=bench"), pod.to_string()).await?;
        let status = report_of("False");
        patch(client, &format!("{pods}/{name}/status?fieldManager=kubelet"), &status).await?;
    }
    // Of an object without owners none are kept until somebody applies.
    patch(client, &format!("{pods}/unkept"), &json!({"metadata": {"managedFields": [{}]}})).await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        for (name, taken) in [("unkept", &mut without), ("kept", &mut with)] {
            let start = Instant::now();
            let target = format!("{pods}/{name}/status?fieldManager=kubelet&dryRun=All");
            patch(client, &target, &report_of("True")).await?;
            taken.push(start.elapsed());
        }
    }
    report("PATCH of a pod's status, dry run, owners not kept", &without);
    report("PATCH of a pod's status, dry run, owners kept", &with);

    let text = client.request_text(Request::get(format!("{pods}/kept")).body(Vec::new())?).await?;
    let mut pod: serde_json::Value = serde_json::from_str(&text)?;
    let owners = pod["metadata"]["managedFields"].to_string().len();
    println!("bytes of a pod: {}, of which owners {owners}", text.len());
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let ty = api::schema::by_kind("v1", "Pod").ok_or("no type of pods")?;
    let convert = |_: &serde_json::Value, _: &str| None;
    let scope = api::apply::Scope { ty, reach: api::apply::Reach::AllBut("status"), convert: &convert };
    let writer = api::apply::Writer {
        manager: "bench",
        subresource: "",
        api_version: "v1",
        now: "2026-01-01T00:00:00Z",
    };
    let mut taken = Vec::new();
    for _ in 0..1000 {
        let start = Instant::now();
        let managed = api::apply::write(None, &pod, &scope, api::apply::Managed::default(), &writer);
        assert!(managed.into_value().is_some());
        taken.push(start.elapsed());
    }
    report("owners of a new pod, decided", &taken);
    Ok(())
}

fn report_of(ready: &str) -> serde_json::Value {
    let now = "2026-01-01T00:00:00Z";
    let condition =
        |kind: &str| json!({"type": kind, "status": ready, "lastTransitionTime": now, "lastProbeTime": null});
    json!({"status": {"phase": "Running", "hostIP": "10.88.0.2", "podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}], "startTime": now,
        "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady")],
        "containerStatuses": [{"name": "main", "image": "x", "imageID": "y", "ready": ready == "True", "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": now}}}]}})
}

async fn patch(client: &Client, target: &str, body: &serde_json::Value) -> Outcome<()> {
    let request = Request::patch(target)
        .header("content-type", "application/merge-patch+json")
        .body(body.to_string().into_bytes())?;
    client.request_text(request).await?;
    Ok(())
}

/// The share of Pod Security in the POST of a pod. Dry runs, so that the disk has none.
async fn pod_security(client: &Client) -> Outcome<()> {
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted",
        "pod-security.kubernetes.io/audit": "restricted"});
    post(client, "/api/v1/namespaces", json!({"metadata": {"name": "strict", "labels": labels}}).to_string())
        .await?;
    let container = json!({"name": "main", "image": "registry.example/some/image:v1.2.3",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [container],
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}}});
    // Each in turn, so that what else the machine does is in both.
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..1000 {
        for (namespace, taken) in [("default", &mut without), ("strict", &mut with)] {
            let start = Instant::now();
            post(client, &format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"), pod.to_string()).await?;
            // The first waits for the namespace's ServiceAccount.
            if round > 0 {
                taken.push(start.elapsed());
            }
        }
    }
    report("POST of a pod, dry run, no Pod Security", &without);
    report("POST of a pod, dry run, restricted enforced", &with);
    let middle = |mut taken: Vec<Duration>| {
        taken.sort();
        taken.get(taken.len() / 2).copied().unwrap_or_default().as_secs_f64()
    };
    let (without, with) = (middle(without), middle(with));
    println!("share of Pod Security in that POST: {:.1} %", (with - without) / with * 100.0);
    Ok(())
}

/// What a durable write costs on this disk now: no create can be faster.
fn floor(path: &std::path::Path) -> Outcome<Vec<Duration>> {
    use std::io::Write as _;
    let mut file = fs::File::create(path)?;
    let mut taken = Vec::new();
    for _ in 0..200 {
        file.write_all(&[b'x'; 1300])?;
        let start = Instant::now();
        file.sync_data()?;
        taken.push(start.elapsed());
    }
    Ok(taken)
}

async fn post(client: &Client, target: &str, body: String) -> Outcome<()> {
    let request = Request::post(target).header("content-type", "application/json").body(body.into_bytes())?;
    client.request_text(request).await?;
    Ok(())
}

async fn pods(client: &Client, count: usize) -> Outcome<()> {
    let tasks = (0..count).map(|n| {
        let client = client.clone();
        async move {
            let pod = json!({
                "metadata": {"name": format!("bench-{n}"), "labels": {"app": "bench", "half": (n % 2).to_string()}},
                "spec": {
                    "schedulerName": "nobody",
                    "containers": [{
                        "name": "main", "image": "registry.example/some/image:v1.2.3", "args": ["--listen", ":8080"],
                        "ports": [{"containerPort": 8080}],
                        "env": [{"name": "A", "value": "x".repeat(200)}],
                        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                    }],
                },
            });
            post(&client, "/api/v1/namespaces/default/pods", pod.to_string()).await
        }
    });
    use futures::{StreamExt, TryStreamExt};
    futures::stream::iter(tasks).buffer_unordered(16).try_collect::<Vec<()>>().await?;
    Ok(())
}

async fn creates<F>(clients: usize, long: Duration, client: &impl Fn() -> F) -> Outcome<()>
where
    F: Future<Output = Outcome<Client>>,
{
    let done = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..clients {
        let (client, done) = (client().await?, done.clone());
        tasks.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            while began.elapsed() < long {
                let name = format!("c-{clients}-{number}-{}", done.fetch_add(1, Ordering::Relaxed));
                let body = json!({"metadata": {"name": name}, "data": {"v": "x".repeat(1000)}}).to_string();
                let start = Instant::now();
                post(&client, "/api/v1/namespaces/default/configmaps", body).await?;
                taken.push(start.elapsed());
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(taken)
        }));
    }
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await??);
    }
    let rate = taken.len() as f64 / began.elapsed().as_secs_f64();
    println!("creates of 1 kB ConfigMaps, {clients} client(s): {rate:.0}/s");
    report("  one create", &taken);
    Ok(())
}

async fn times(client: &Client, target: &str, count: usize) -> Outcome<Vec<Duration>> {
    let mut taken = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let request = Request::get(target).body(Vec::new())?;
        let text = client.request_text(request).await?;
        taken.push(start.elapsed());
        assert!(text.starts_with('{'), "{text}");
    }
    Ok(taken)
}

fn report(what: &str, taken: &[Duration]) {
    let mut sorted = taken.to_vec();
    sorted.sort();
    let at = |part: f64| sorted.get((sorted.len() as f64 * part) as usize).copied().unwrap_or_default();
    println!("{what}: p50 {:?}, p90 {:?}, n={}", at(0.5), at(0.9), sorted.len());
}
