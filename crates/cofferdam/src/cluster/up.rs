//! Starts a cluster: decides its name, ports and ranges, starts the supervisor and waits until every node is Ready.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    os::unix::{fs::chown, process::CommandExt},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};

use super::{
    layout::{CONTROL_UID, Cluster, Layout, make_dir, write_atomically},
    processes::{self, Role},
    ranges,
    ranges_v6::AskedV6,
    reach,
};

/// The port of Kubernetes' API server; taken when it is free.
const USUAL_PORT: u16 = 6443;
/// A cluster that is not up after this long has failed; the logs say why.
const LONGEST: Duration = Duration::from_secs(60);

pub struct Options {
    pub nodes: u32,
    pub foreground: bool,
    /// The text of a `PodSecurityConfiguration`, which has been parsed. `None`: as the cluster has it.
    pub pod_security: Option<String>,
    pub v4: ranges::Asked,
    pub v6: AskedV6,
    /// Whether a new cluster gets a name service.
    pub dns: bool,
}

/// What `up` found or made, to be told to the user.
pub struct Up {
    pub cluster: Cluster,
    pub took: Duration,
    pub was_running: bool,
    /// What of the machine's network pods cannot reach, a line each.
    pub hidden: Vec<String>,
}

pub fn up(layout: &Layout, options: &Options) -> Result<Up> {
    let began = Instant::now();
    // Every mode below is chosen; what the user's shell takes away from new files is not for a cluster's parts.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    reach::check(layout.data(), CONTROL_UID)?;
    make_dir(layout.data(), 0o755)?;
    let lock = File::open(layout.data()).context("open the data directory")?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another command is changing the cluster in {}", layout.data().display()))?;

    let cluster = match layout.read_if_any()? {
        Some(cluster) => cluster,
        None => {
            let v4 = options.v4.for_new(options.nodes)?;
            let cluster = Cluster {
                id: random_id()?,
                nodes: options.nodes,
                port: free_port()?,
                node_cidr: v4.nodes.to_string(),
                pod_cidr: v4.pods.to_string(),
                service_cidr: v4.services.to_string(),
                v6: options.v6.for_new(options.nodes)?,
                dns: options.dns,
            };
            if cluster.dns && !cluster.dns_address().is_some_and(|address| v4.services.contains(address)) {
                bail!(
                    "the range of Services {} has no tenth address for the name service: a larger one, or --no-dns",
                    v4.services
                );
            }
            layout.write(&cluster)?;
            cluster
        }
    };
    if cluster.nodes != options.nodes {
        bail!(
            "the cluster in {} has {} node(s), not {}: `cofferdam down` it first",
            layout.data().display(),
            cluster.nodes,
            options.nodes
        );
    }
    let (v4, v6) = cluster.ranges()?;
    options.v4.agree_with(&v4)?;
    options.v6.agree_with(v6.as_ref())?;
    let was_running = processes::find(layout.data())?.iter().any(|process| process.role == Role::Supervisor);
    if let Some(text) = &options.pod_security {
        let path = layout.pod_security();
        if was_running && fs::read_to_string(&path).ok().as_ref() != Some(text) {
            bail!(
                "the cluster in {} runs with another Pod Security configuration: `cofferdam down --keep-data` it first",
                layout.data().display()
            );
        }
        write_atomically(&path, text.as_bytes())?;
    }
    let mut hidden = Vec::new();
    if !was_running {
        hidden = ranges::hidden(&v4)?;
        if let Some(v6) = &v6 {
            hidden.extend(ranges::hidden(v6)?);
        }
        prepare(layout, &cluster)?;
        start_supervisor(layout, options.foreground)?;
    }
    // The supervisor may have found another port.
    let cluster = layout.read()?;
    wait_ready(layout, &cluster)?;
    Ok(Up { cluster, took: began.elapsed(), was_running, hidden })
}

fn prepare(layout: &Layout, cluster: &Cluster) -> Result<()> {
    make_dir(&layout.data().join("log"), 0o700)?;
    make_dir(&layout.run(), 0o755)?;
    make_dir(&layout.images(), 0o700)?;
    make_dir(&layout.control(), 0o700)?;
    make_dir(&layout.audit(), 0o700)?;
    for dir in [layout.control(), layout.audit()] {
        chown(dir, Some(CONTROL_UID), Some(CONTROL_UID)).context("give the control process its directory")?;
    }
    for node in cluster.node_names() {
        make_dir(&layout.node_sockets(&node), 0o755)?;
        make_dir(&layout.node_run(&node), 0o755)?;
    }
    Ok(())
}

/// Starts the supervisor in a session of its own and waits for its word that every part runs.
fn start_supervisor(layout: &Layout, foreground: bool) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("cofferdam")
        .args(["internal", Role::Supervisor.name(), "--data-dir"])
        .arg(layout.data())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Ctrl-C is for the command, which ends the cluster in order.
        .process_group(0);
    if !foreground {
        command.stderr(layout.open_log("supervisor")?);
    }
    let mut child = command.spawn().context("start the supervisor")?;
    let mut output = BufReader::new(child.stdout.take().context("the supervisor's output")?);
    let mut word = String::new();
    output.read_line(&mut word).context("wait for the supervisor")?;
    if word.trim() == "started" {
        return Ok(());
    }
    let status = child.wait().context("wait for the supervisor")?;
    // In the foreground it has said so on the terminal already.
    let said = if foreground { String::new() } else { last_words(layout)? };
    bail!("the cluster did not start ({status}){said}")
}

/// The last lines of every part's log, each part named: what `up` shows of a start that failed, as the user may have no
/// log left to read (the demo takes its cluster away).
fn last_words(layout: &Layout) -> Result<String> {
    let dir = layout.data().join("log");
    let mut parts = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry.with_context(|| format!("read {}", dir.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            parts.push(path);
        }
    }
    parts.sort();
    let mut said = String::new();
    for path in parts {
        let log = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let part = path.file_stem().unwrap_or_default().display();
        for line in &lines[lines.len().saturating_sub(3)..] {
            said.push_str(&format!("\n  {part}: {line}"));
        }
    }
    Ok(said)
}

fn wait_ready(layout: &Layout, cluster: &Cluster) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let mut seen = std::collections::BTreeSet::new();
    let mut serves = false;
    let ready = async {
        let socket = layout.admin_socket();
        wait_for_socket(&socket).await?;
        serves = true;
        let nodes = Api::<Node>::all(node::client::unix(socket));
        let mut events =
            std::pin::pin!(watcher(nodes, watcher::Config::default()).default_backoff().applied_objects());
        while seen.len() < cluster.nodes as usize {
            let node = match events.next().await {
                Some(Ok(node)) => node,
                // The control process may be starting again: the watch goes on by itself, within our time.
                Some(Err(_)) => continue,
                None => bail!("the watch on the nodes ended"),
            };
            let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
            if conditions
                .into_iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
            {
                seen.extend(node.metadata.name.clone());
            }
        }
        Ok(())
    };
    if let Ok(result) = runtime.block_on(async { tokio::time::timeout(LONGEST, ready).await }) {
        return result;
    }
    let late: Vec<_> = cluster.node_names().filter(|name| !seen.contains(name)).collect();
    let what = if serves {
        format!("{} not Ready", late.join(", "))
    } else {
        "the control process does not serve".to_owned()
    };
    bail!(
        "after {} s {what}: see {}{}",
        LONGEST.as_secs(),
        layout.data().join("log").display(),
        last_words(layout)?
    )
}

/// Waits until the control process listens: told by inotify, not by asking again and again.
async fn wait_for_socket(socket: &std::path::Path) -> Result<()> {
    use rustix::fs::inotify;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .context("inotify_init1")?;
    let dir = socket.parent().context("the socket's directory")?;
    inotify::add_watch(&watch, dir, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)
        .with_context(|| format!("watch {}", dir.display()))?;
    let watch = super::readable(watch).context("watch")?;
    while tokio::net::UnixStream::connect(socket).await.is_err() {
        let mut ready = watch.readable().await.context("wait for the API server's socket")?;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        // What was created does not matter: we look for the socket itself.
        while inotify::Reader::new(ready.get_inner(), &mut buffer).next().is_ok() {}
        ready.clear_ready();
    }
    Ok(())
}

fn random_id() -> Result<String> {
    let mut bytes = [0u8; 3];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("getrandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn free_port() -> Result<u16> {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, USUAL_PORT)).is_ok() {
        return Ok(USUAL_PORT);
    }
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port on 127.0.0.1")?;
    Ok(any.local_addr().context("find a free port on 127.0.0.1")?.port())
}

/// What this machine lacks, a line each, with what follows from it.
pub fn missing() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut missing = Vec::new();
    let filesystems = read("/proc/filesystems");
    for (kind, effect) in
        [("overlay", "images cannot be mounted"), ("tmpfs", "volumes in memory cannot be made")]
    {
        if !filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == kind) {
            missing.push(format!("this kernel has no {kind} file system: {effect}"));
        }
    }
    let cgroups = read("/proc/cgroups");
    let unified = read("/sys/fs/cgroup/cgroup.controllers");
    for (name, effect) in [
        ("cpu", "CPU limits cannot be kept"),
        ("memory", "memory limits cannot be kept"),
        ("pids", "the number of processes cannot be limited"),
    ] {
        let v1 =
            cgroups.lines().any(|line| line.split_whitespace().next() == Some(name) && line.ends_with('1'));
        if !v1 && !unified.split_whitespace().any(|one| one == name) {
            missing.push(format!("this kernel has no {name} cgroup controller: {effect}"));
        }
    }
    if !read("/proc/self/status").contains("Seccomp_filters:") {
        missing
            .push("this kernel has no seccomp filters: pods that ask for a profile are refused".to_owned());
    }
    if !read("/sys/kernel/security/lsm").split(',').any(|one| one.trim() == "apparmor") {
        missing.push("this kernel has no AppArmor: pods that ask for a profile of it are refused".to_owned());
    }
    const SYS_RESOURCE: u64 = 1 << 24;
    let effective = read("/proc/self/status")
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    if effective.is_some_and(|set| set & SYS_RESOURCE == 0) {
        missing.push(
            "CAP_SYS_RESOURCE is missing: oom_score_adj is not lowered for guaranteed pods, hard limits are not raised"
                .to_owned(),
        );
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_start_shows_the_end_of_every_log() {
        let data = std::env::temp_dir().join(format!("cofferdam-last-words-{}", std::process::id()));
        let layout = Layout::new(&data).expect("a data directory");
        fs::create_dir_all(data.join("log/audit")).expect("make a directory");
        fs::write(layout.log("control"), "one\ntwo\nthree\nfour\n").expect("write a log");
        fs::write(layout.log("node-1"), b"not UTF-8: \xff").expect("write a log");
        let said = last_words(&layout);
        fs::remove_dir_all(&data).expect("remove the directory");
        assert_eq!(
            said.expect("read the logs"),
            "\n  control: two\n  control: three\n  control: four\n  node-1: not UTF-8: \u{fffd}"
        );
    }
}
