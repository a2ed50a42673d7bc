//! The supervisor: builds the fabric and the nodes, starts the control process, and starts again what ends. It does
//! nothing else as root but carry connections from 127.0.0.1 to the ports that pods and services declare.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use node::net::fabric::{Fabric, FabricConfig};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
};

use super::{
    layout::{Cluster, Layout, NodeFile, make_dir, node_name, write_atomically},
    listener,
    processes::{self, Role},
    restarts::Restarts,
};

/// Runs until killed. Prints `started` on standard output once every part runs.
pub fn run(layout: &Layout) -> Result<()> {
    // The nodes' inits are left behind by the process that made their namespaces: they become ours.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
        .context("prctl PR_SET_CHILD_SUBREAPER")?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(supervise(layout))
}

/// Listens for the API server, which inherits the socket: connections wait while it starts again. A new cluster whose
/// port somebody took meanwhile gets another.
fn listen(layout: &Layout) -> Result<(Cluster, TcpListener)> {
    let mut cluster = layout.read()?;
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, cluster.port)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && !layout.kubeconfig().exists() => {
            let listener =
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port on 127.0.0.1")?;
            cluster.port = listener.local_addr().context("find a free port on 127.0.0.1")?.port();
            layout.write(&cluster)?;
            listener
        }
        bound => bound.with_context(|| format!("listen on 127.0.0.1:{}", cluster.port))?,
    };
    Ok((cluster, listener))
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Control,
    Node(u32),
}

async fn supervise(layout: &Layout) -> Result<()> {
    let (cluster, tls) = listen(layout)?;
    let fabric = open_fabric(layout, &cluster)?;
    let mut supervisor = Supervisor {
        layout: layout.clone(),
        tls,
        tls_for_pods: fabric.listen().context("listen for pods on the fabric's address")?,
        fabric,
        cluster,
        ended: mpsc::channel(16),
        restarts: HashMap::new(),
    };
    supervisor.start_control()?;
    for index in 1..=supervisor.cluster.nodes {
        supervisor.start_or_adopt_node(index)?;
    }
    listener::start(layout, &supervisor.cluster, supervisor.fabric.netns())?;
    let started = Instant::now();
    println!("started");
    std::io::stdout().flush().context("report the start")?;

    let mut resting = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(part) = supervisor.ended.1.recv() => {
                let restarts = supervisor.restarts.entry(part).or_insert_with(|| Restarts::new(started));
                let pause = restarts.ended(Instant::now());
                // The others are not held up by one that rests.
                resting.push(tokio::time::sleep(pause).map(move |()| part));
            }
            Some(part) = resting.next() => match part {
                Part::Control => supervisor.start_control()?,
                Part::Node(index) => {
                    eprintln!("{} ended; starting it again", node_name(index));
                    supervisor.start_node(index)?;
                }
            },
        }
    }
}

/// The fabric that surviving nodes hold, else a new one.
fn open_fabric(layout: &Layout, cluster: &Cluster) -> Result<Fabric> {
    let (v4, v6) = cluster.ranges()?;
    let config = FabricConfig { cluster_id: cluster.id.clone(), v4, v6 };
    if let Some(netns) = find_fabric(layout)? {
        return Fabric::adopt(config, netns).context("take over the fabric");
    }
    let fabric = Fabric::create(config).context("make the fabric")?;
    for warning in &fabric.warnings {
        eprintln!("{warning}");
    }
    Ok(fabric)
}

/// The fabric's network namespace, if any node of the cluster runs.
pub fn find_fabric(layout: &Layout) -> Result<Option<OwnedFd>> {
    for process in processes::find(layout.data())?.into_iter().filter(|p| p.role == Role::NodeInit) {
        if let Some(netns) = held_fabric(process.pid)? {
            return Ok(Some(netns));
        }
    }
    Ok(None)
}

/// The fabric's network namespace by the descriptor that a node's init holds it with.
fn held_fabric(pid: i32) -> Result<Option<OwnedFd>> {
    // The process may end while we look.
    let Ok(line) = std::fs::read_to_string(format!("/proc/{pid}/cmdline")) else { return Ok(None) };
    let mut words = line.split('\0').skip_while(|word| *word != "--fabric-fd");
    let Some(number) = words.nth(1) else { return Ok(None) };
    match File::open(format!("/proc/{pid}/fd/{number}")) {
        Ok(file) => Ok(Some(file.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open the fabric held by process {pid}")),
    }
}

struct Supervisor {
    layout: Layout,
    /// The API server's listening sockets: on the machine's 127.0.0.1, and in the fabric, for nodes and pods.
    tls: TcpListener,
    tls_for_pods: TcpListener,
    cluster: Cluster,
    fabric: Fabric,
    ended: (mpsc::Sender<Part>, mpsc::Receiver<Part>),
    restarts: HashMap<Part, Restarts>,
}

impl Supervisor {
    fn role(&self, role: Role, log: &str) -> Result<Command> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("cofferdam")
            .args(["internal", role.name(), "--data-dir"])
            .arg(self.layout.data())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.layout.open_log(log)?)
            .current_dir("/");
        Ok(command)
    }

    fn start_control(&self) -> Result<()> {
        // As its standard input and output: descriptors that a program can take over without a word about them.
        let tls = OwnedFd::from(self.tls.try_clone().context("dup")?);
        let tls_for_pods = OwnedFd::from(self.tls_for_pods.try_clone().context("dup")?);
        let mut role = self.role(Role::Control, "control")?;
        let child = role.stdin(tls).stdout(tls_for_pods).spawn().context("start the control process")?;
        self.watch(child);
        Ok(())
    }

    fn watch(&self, mut child: Child) {
        let sender = self.ended.0.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            eprintln!("the control process ended ({status:?}); starting it again");
            // The receiver is gone only when the supervisor itself ends.
            sender.send(Part::Control).await.ok();
        });
    }

    fn start_or_adopt_node(&self, index: u32) -> Result<()> {
        let name = node_name(index);
        let alive = processes::find(self.layout.data())?
            .into_iter()
            .find(|process| process.role == Role::NodeInit && process.node.as_deref() == Some(&name));
        match alive {
            Some(process) => self.watch_node(process.pid, index),
            None => self.start_node(index),
        }
    }

    fn start_node(&self, index: u32) -> Result<()> {
        let name = node_name(index);
        make_dir(&self.layout.node_sockets(&name), 0o755)?;
        make_dir(&self.layout.node_run(&name), 0o755)?;
        // The node's init holds the fabric too, so that the fabric outlives this process.
        let fabric = rustix::io::dup(self.fabric.netns()).context("dup")?;
        let mut command = std::process::Command::new("/proc/self/exe");
        let mut first = {
            use std::os::unix::process::CommandExt;
            command
                .arg0("cofferdam")
                .args(["internal", Role::NodeInit.name(), "--data-dir"])
                .arg(self.layout.data())
                .args(["--node", &name, "--fabric-fd", &fabric.as_raw_fd().to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(self.layout.open_log(&name)?)
                .spawn()
                .with_context(|| format!("start {name}"))?
        };
        drop(fabric);
        let mut go = first.stdin.take().context("the node's standard input")?;
        let mut line = String::new();
        BufReader::new(first.stdout.take().context("the node's standard output")?)
            .read_line(&mut line)
            .with_context(|| format!("read the PID of {name}"))?;
        let status = first.wait().with_context(|| format!("wait for {name}"))?;
        let Ok(pid) = line.trim().parse::<i32>() else {
            bail!("{name} did not start ({status}): see {}", self.layout.log(&name).display());
        };
        let netns = File::open(format!("/proc/{pid}/ns/net"))
            .with_context(|| format!("open the network of {name}"))?;
        let link = self.fabric.add_node(index, netns.as_fd()).with_context(|| format!("link {name}"))?;
        let file = NodeFile { name: name.clone(), cluster: self.cluster.clone(), index, mtu: link.mtu };
        write_atomically(&self.layout.node_run(&name).join("node.json"), &serde_json::to_vec_pretty(&file)?)?;
        // Hidden by the node's own /run; see `node::agent::files`.
        if let Ok(resolv_conf) = std::fs::read("/run/systemd/resolve/resolv.conf") {
            write_atomically(&self.layout.node_run(&name).join("resolv.conf"), &resolv_conf)?;
        }
        go.write_all(b"go\n").with_context(|| format!("let {name} go ahead"))?;
        self.watch_node(pid, index)
    }

    /// A node's init is not a child that tokio started; its pidfd says when it ends, and we reap it.
    fn watch_node(&self, pid: i32, index: u32) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(pid).context("a process id")?;
        let handle =
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).context("pidfd_open")?;
        let handle = super::readable(handle).context("watch the node's init")?;
        let sender = self.ended.0.clone();
        tokio::spawn(async move {
            if let Err(error) = handle.readable().await {
                eprintln!("cannot watch {}: {error}", node_name(index));
                return;
            }
            // ECHILD: an adopted node is nobody's child here, its own reaper has it.
            match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG) {
                Ok(_) | Err(rustix::io::Errno::CHILD) => {}
                Err(error) => eprintln!("reap {}: {error}", node_name(index)),
            }
            sender.send(Part::Node(index)).await.ok();
        });
        Ok(())
    }
}
