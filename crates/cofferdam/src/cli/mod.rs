//! The command line: arguments in, text out. Nothing is decided here.

pub mod apply;
pub mod check;
pub mod delete;
pub mod describe;
mod describe_pod;
mod duration;
pub mod exec;
pub mod foreground;
mod get;
pub mod images;
mod kubeconfig;
pub mod logs;
pub mod manifests;
mod netpol;
pub mod out;
mod plan;
mod plan_env;
mod pods;
mod reach;
mod remote;
mod status;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod three_way;
mod why;
mod yaml;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::{Args, CommandFactory, Parser, Subcommand};
use node::net::{Ipv4Net, Ipv6Net};

use crate::{
    cluster::{
        down::{self, Keep},
        layout::Layout,
        node_init, ranges,
        ranges_v6::{AskedV6, IpFamily},
        roles, supervisor, up,
    },
    demo,
};

const DEFAULT_DATA_DIR: &str = "/var/lib/cofferdam";

/// Runs Kubernetes pods with every isolation boundary real, and says what each can reach.
#[derive(Parser)]
#[command(name = "cofferdam", version, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    /// Where the cluster keeps all it has; one directory, one cluster.
    #[arg(long, global = true, env = "COFFERDAM_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    data_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster and wait until its nodes are Ready.
    Up(UpArgs),
    /// End the cluster and take away all it made on this machine.
    Down {
        /// Keep objects and images: the next `up` goes on with them.
        #[arg(long)]
        keep_data: bool,
    },
    /// Run the chapter's manifests on three nodes and hold each against what the kernel shows.
    Demo(demo::DemoArgs),
    /// Apply manifests, as `kubectl apply` does.
    Apply(apply::ApplyArgs),
    /// Show objects, as `kubectl get` does.
    Get(get::GetArgs),
    /// Show everything about an object, its events too.
    Describe(describe::DescribeArgs),
    /// Print a container's log.
    Logs(logs::LogsArgs),
    /// Run a command in a container; its exit code is passed on.
    Exec(exec::ExecArgs),
    /// Delete objects.
    Delete(delete::DeleteArgs),
    /// Which parts of the cluster run, and what is on the nodes; exits 1 if a part does not.
    Status {
        #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
        output: String,
    },
    /// Print the path of the cluster's kubeconfig, or make one for another user.
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// The images that the nodes have.
    Image {
        #[command(subcommand)]
        command: images::ImageCommand,
    },
    /// Hold manifests against the Pod Security Standards, without a cluster.
    Check(check::CheckArgs),
    /// Print who a pod's processes would be and what they may do, without running anything.
    Plan(plan::PlanArgs),
    /// What network policies come to: the table of who reaches whom, and what a change opens or closes.
    Netpol {
        #[command(subcommand)]
        command: netpol::NetpolCommand,
    },
    /// Whether one end may reach another on a port, and which policies and rules say so.
    Why(why::WhyArgs),
    /// What somebody who runs an image of their own in a pod can reach: node, API server and network, each edge with a witness.
    Reach(reach::ReachArgs),
    /// Print shell completions.
    Completions { shell: clap_complete::Shell },
    #[command(hide = true)]
    Internal {
        #[command(subcommand)]
        role: Internal,
    },
}

#[derive(Args)]
#[command(after_help = "Examples:
  cofferdam up                       one node
  cofferdam up --nodes 3             three nodes that behave as three machines
  cofferdam up --ip-family dual      IPv4 and IPv6
  cofferdam up -f pod.yaml           and apply a manifest
  kubectl --kubeconfig $(cofferdam kubeconfig) get nodes")]
struct UpArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32))]
    nodes: u32,
    /// Which addresses pods, nodes and Services have [default: ipv4].
    #[arg(long, value_enum)]
    ip_family: Option<IpFamily>,
    /// Addresses of the pods, a /24 of it for each node [default: 10.244.0.0/16].
    #[arg(long, value_name = "CIDR")]
    pod_cidr: Option<Ipv4Net>,
    /// Addresses of the Services [default: 10.96.0.0/16].
    #[arg(long, value_name = "CIDR")]
    service_cidr: Option<Ipv4Net>,
    /// Addresses of the nodes [default: 10.88.0.0/24].
    #[arg(long, value_name = "CIDR")]
    node_cidr: Option<Ipv4Net>,
    /// IPv6 addresses of the pods of a dual cluster, a /64 of it for each node [default: fd00:cf:244::/56].
    #[arg(long, value_name = "CIDR")]
    pod_cidr_v6: Option<Ipv6Net>,
    /// IPv6 addresses of the Services of a dual cluster [default: fd00:cf:96::/112].
    #[arg(long, value_name = "CIDR")]
    service_cidr_v6: Option<Ipv6Net>,
    /// IPv6 addresses of the nodes of a dual cluster [default: fd00:cf:88::/64].
    #[arg(long, value_name = "CIDR")]
    node_cidr_v6: Option<Ipv6Net>,
    /// Make the cluster without a name service: pods resolve names as the machine does.
    #[arg(long)]
    no_dns: bool,
    /// Apply these manifests when the nodes are Ready (a file or a directory; may be given again).
    #[arg(short, long = "filename", value_name = "FILE|DIR")]
    file: Vec<String>,
    /// What Pod Security asks where a namespace has no labels, and whom it exempts: a PodSecurityConfiguration as Kubernetes'
    /// API server takes it. It is kept with the cluster.
    #[arg(long, value_name = "FILE")]
    pod_security_config: Option<PathBuf>,
    /// Stay, write the supervisor's messages here, and stop the cluster at Ctrl-C (its objects and images are kept).
    #[arg(long)]
    foreground: bool,
}

#[derive(Subcommand)]
enum Internal {
    Supervisor,
    Control,
    NodeInit {
        #[arg(long)]
        node: String,
        #[arg(long)]
        fabric_fd: i32,
        #[arg(long)]
        pid1: bool,
    },
    Agent {
        #[arg(long)]
        node: String,
    },
}

/// Runs the command; what it returns is the process's exit code.
pub fn run(cli: Cli) -> Result<i32> {
    let layout = Layout::new(&cli.data_dir)?;
    match cli.command {
        Command::Up(args) => {
            need_root("up")?;
            for line in up::missing() {
                eprintln!("note: {line}");
            }
            // Before anything starts: what cannot be read is known at once.
            let manifests = manifests::read_all(&args.file, false)?;
            let foreground = args.foreground.then(foreground::Foreground::start).transpose()?;
            let pod_security = args.pod_security_config.as_deref().map(read_pod_security).transpose()?;
            let options = up::Options {
                nodes: args.nodes,
                foreground: args.foreground,
                pod_security,
                v4: ranges::Asked { nodes: args.node_cidr, pods: args.pod_cidr, services: args.service_cidr },
                v6: AskedV6 {
                    family: args.ip_family,
                    nodes: args.node_cidr_v6,
                    pods: args.pod_cidr_v6,
                    services: args.service_cidr_v6,
                },
                dns: !args.no_dns,
            };
            let up = up::up(&layout, &options)?;
            for line in &up.hidden {
                eprintln!("note: {line}");
            }
            tell_up(&layout, &up)?;
            let code = match manifests.is_empty() {
                true => 0,
                false => ask(&layout, |client| async move { apply::apply_read(client, &manifests).await })?,
            };
            if let Some(foreground) = foreground {
                foreground.wait()?;
                down::down(&layout, Keep::Data)?;
                eprintln!("stopped; `cofferdam up` goes on with the same objects and images");
            }
            Ok(code)
        }
        Command::Down { keep_data } => {
            need_root("down")?;
            let keep = if keep_data { Keep::Data } else { Keep::Nothing };
            let mut out = out::stdout();
            match down::down(&layout, keep)? {
                true => writeln!(out, "the cluster in {} is gone", layout.data().display())?,
                false => writeln!(out, "no cluster in {}", layout.data().display())?,
            }
            Ok(0)
        }
        Command::Demo(args) => {
            need_root("demo")?;
            // A cluster of its own, unless the user says where.
            let layout = match cli.data_dir == Path::new(DEFAULT_DATA_DIR) {
                true => Layout::new(Path::new("/var/lib/cofferdam-demo"))?,
                false => layout,
            };
            demo::run(&layout, &args)
        }
        Command::Apply(args) => ask(&layout, |client| apply::apply(client, args)),
        Command::Get(args) => ask(&layout, |client| get::get(client, args)),
        Command::Describe(args) => ask(&layout, |client| describe::describe(client, args)),
        Command::Logs(args) => ask(&layout, |client| logs::logs(client, args)),
        Command::Exec(args) => ask(&layout, |client| exec::exec(client, args)),
        Command::Delete(args) => ask(&layout, |client| delete::delete(client, args)),
        Command::Status { output } => status::run(&layout, output == "json"),
        Command::Image { command } => {
            images::run(&layout, command)?;
            Ok(0)
        }
        Command::Check(args) => check::run(&args, &mut out::stdout(), &mut out::stderr()),
        Command::Plan(args) => {
            plan::run(&layout, &args)?;
            Ok(0)
        }
        Command::Netpol { command } => netpol::run(&layout, &command),
        Command::Why(args) => why::run(&layout, &args),
        Command::Reach(args) => reach::run(&layout, &args),
        Command::Kubeconfig(args) => {
            kubeconfig::run(&layout, &args)?;
            Ok(0)
        }
        Command::Completions { shell } => {
            // Into memory first: what is given a stream that fails, it panics on.
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cofferdam", &mut text);
            out::stdout().write_all(&text)?;
            Ok(0)
        }
        Command::Internal { role } => {
            // The roles run from descriptors and /proc/self/exe: `ps` should still say what they are.
            rustix::thread::set_name(c"cofferdam").context("prctl PR_SET_NAME")?;
            match role {
                Internal::Supervisor => supervisor::run(&layout)?,
                Internal::Control => roles::control(&layout)?,
                Internal::NodeInit { node, pid1: false, .. } => node_init::prepare(&layout, &node)?,
                Internal::NodeInit { node, pid1: true, .. } => node_init::run(&layout, &node)?,
                Internal::Agent { .. } => roles::agent()?,
            }
            Ok(0)
        }
    }
}

/// Runs a command's requests against the cluster, as its administrator.
fn ask<T, F: Future<Output = Result<T>>>(
    layout: &Layout,
    command: impl FnOnce(kube::Client) -> F,
) -> Result<T> {
    layout.read()?;
    need_sockets()?;
    let socket = layout.admin_socket();
    runtime()?.block_on(async { command(node::client::unix(socket)).await })
}

fn need_sockets() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the cluster's sockets are root's: run this as root, or use kubectl with a kubeconfig of yours (`cofferdam kubeconfig -o FILE` as root makes one)"
        );
    }
    Ok(())
}

/// A configuration that can be read; the control process reads it again.
fn read_pod_security(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    control::admission::PodSecurityConfig::parse(&text).with_context(|| path.display().to_string())?;
    Ok(text)
}

fn need_root(command: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("`cofferdam {command}` makes namespaces and links: run it as root (sudo cofferdam {command})");
    }
    Ok(())
}

fn tell_up(layout: &Layout, up: &up::Up) -> Result<()> {
    let mut out = out::stdout();
    let nodes = up.cluster.nodes;
    let plural = if nodes == 1 { "node is" } else { "nodes are" };
    match up.was_running {
        true => writeln!(out, "{nodes} {plural} Ready; the cluster was running already")?,
        false => writeln!(out, "{nodes} {plural} Ready after {} ms", up.took.as_millis())?,
    }
    let given = layout.data() != Path::new(DEFAULT_DATA_DIR);
    let option = if given { format!(" --data-dir {}", layout.data().display()) } else { String::new() };
    match kubeconfig::behind_sudo() {
        // The file in the data directory is root's alone.
        Some(_) => writeln!(
            out,
            "  sudo cofferdam{option} kubeconfig -o cofferdam.conf && export KUBECONFIG=$PWD/cofferdam.conf"
        )?,
        None => writeln!(out, "  export KUBECONFIG={}", layout.kubeconfig().display())?,
    }
    writeln!(out, "  kubectl get pods -A                    or: cofferdam{option} get pods -A")?;
    writeln!(out, "  cofferdam{option} image load IMAGE.tar     give the nodes an image")?;
    writeln!(out, "  cofferdam{option} down                     take everything away again")?;
    Ok(())
}

/// A runtime for a command's requests.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")
}
