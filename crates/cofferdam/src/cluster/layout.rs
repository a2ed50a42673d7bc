//! What a cluster is called and where its parts lie: the file `cluster.json` and every path below the data directory.

use std::{
    fs,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use node::net::fabric::Ranges;
use serde::{Deserialize, Serialize};

/// The user the control process runs as: it needs no privilege, and owns nothing but its own directory.
pub const CONTROL_UID: u32 = 64790;

/// A cluster, as `up` decided it and every other command reads it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// Six hexadecimal digits: part of the names of links, tables and cgroups, so that clusters do not meet.
    pub id: String,
    pub nodes: u32,
    /// The API server's port on 127.0.0.1.
    pub port: u16,
    pub node_cidr: String,
    pub pod_cidr: String,
    pub service_cidr: String,
    /// The ranges of IPv6; None in a cluster of IPv4 alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Ranges>,
    /// Whether the cluster has a name service of its own.
    #[serde(default)]
    pub dns: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Ranges {
    pub node_cidr: String,
    pub pod_cidr: String,
    pub service_cidr: String,
}

impl Cluster {
    /// The address of the name service: the tenth of the services' range, as kubeadm takes it.
    pub fn dns_address(&self) -> Option<Ipv4Addr> {
        let base: Ipv4Addr = self.service_cidr.split_once('/')?.0.parse().ok()?;
        self.dns.then_some(())?;
        u32::from(base).checked_add(10).map(Ipv4Addr::from)
    }

    /// The addresses of the name service's Service, one in each range of Services.
    pub fn dns_addresses(&self) -> Option<Vec<IpAddr>> {
        let mut addresses: Vec<IpAddr> = vec![self.dns_address()?.into()];
        if let Some(v6) = &self.v6 {
            let base: Ipv6Addr = v6.service_cidr.split_once('/')?.0.parse().ok()?;
            addresses.push(Ipv6Addr::from(u128::from(base).checked_add(10)?).into());
        }
        Some(addresses)
    }

    /// The ranges of Services, that of IPv4 first.
    pub fn service_cidrs(&self) -> impl Iterator<Item = &String> {
        [&self.service_cidr].into_iter().chain(self.v6.iter().map(|v6| &v6.service_cidr))
    }

    pub fn node_names(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.nodes).map(node_name)
    }

    /// The ranges of both families, parsed.
    pub fn ranges(&self) -> Result<(Ranges<Ipv4Addr>, Option<Ranges<Ipv6Addr>>)> {
        let v4 = ranges(&self.node_cidr, &self.pod_cidr, &self.service_cidr)?;
        let v6 = self.v6.as_ref().map(|v6| ranges(&v6.node_cidr, &v6.pod_cidr, &v6.service_cidr));
        Ok((v4, v6.transpose()?))
    }

    /// The path of the cluster's cgroup below each hierarchy's root.
    pub fn cgroup(&self) -> String {
        format!("cofferdam-{}", self.id)
    }
}

fn ranges<A: node::net::Ip>(nodes: &str, pods: &str, services: &str) -> Result<Ranges<A>> {
    let parse = |what: &str, text: &str| {
        text.parse().map_err(|error: node::net::BlockError| anyhow::anyhow!("the range of {what}: {error}"))
    };
    Ok(Ranges {
        nodes: parse("nodes", nodes)?,
        pods: parse("pods", pods)?,
        services: parse("services", services)?,
    })
}

pub fn node_name(index: u32) -> String {
    format!("node-{index}")
}

/// What a node's agent must know, in the node's `/run/cofferdam/node.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeFile {
    pub name: String,
    pub cluster: Cluster,
    pub index: u32,
    pub mtu: u32,
}

/// The paths below a data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    data: PathBuf,
}

impl Layout {
    /// `data` is made absolute, because processes with other working directories use it.
    pub fn new(data: &Path) -> Result<Layout> {
        let data = std::path::absolute(data).with_context(|| format!("data directory {}", data.display()))?;
        // A unix socket's path holds 108 bytes, and ours lie below this directory.
        const LONGEST: usize = 60;
        if data.as_os_str().len() > LONGEST {
            bail!(
                "the data directory's path is longer than {LONGEST} bytes, so sockets below it have no room: {}",
                data.display()
            );
        }
        Ok(Layout { data })
    }

    pub fn data(&self) -> &Path {
        &self.data
    }
    pub fn cluster_file(&self) -> PathBuf {
        self.data.join("cluster.json")
    }
    /// What `up --pod-security-config` was given, as it was given.
    pub fn pod_security(&self) -> PathBuf {
        self.data.join("pod-security.yaml")
    }
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }
    pub fn control(&self) -> PathBuf {
        self.data.join("control")
    }
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }
    pub fn run(&self) -> PathBuf {
        self.data.join("run")
    }
    pub fn admin_socket(&self) -> PathBuf {
        self.run().join("control.sock")
    }
    /// The sockets by which a node and the control process speak. No path within the node leads here: its agent has this
    /// directory by a descriptor, so that no hostPath gives a pod the node's identity.
    pub fn node_sockets(&self, node: &str) -> PathBuf {
        self.run().join("nodes").join(node)
    }
    pub fn node_socket(&self, node: &str) -> PathBuf {
        self.node_sockets(node).join("control.sock")
    }
    /// The node's `/run/cofferdam`.
    pub fn node_run(&self, node: &str) -> PathBuf {
        self.node_data(node).join("run")
    }
    /// Where a node's agent listens.
    pub fn agent_socket(&self, node: &str) -> PathBuf {
        self.node_sockets(node).join("agent.sock")
    }
    pub fn node_data(&self, node: &str) -> PathBuf {
        self.data.join("nodes").join(node)
    }
    pub fn log(&self, part: &str) -> PathBuf {
        self.data.join("log").join(format!("{part}.log"))
    }

    /// Where the control process writes its audit log, and nobody else anything.
    pub fn audit(&self) -> PathBuf {
        self.data.join("log").join("audit")
    }
    pub fn audit_log(&self) -> PathBuf {
        self.audit().join("audit.log")
    }

    /// Reads the cluster, or says that there is none here.
    pub fn read(&self) -> Result<Cluster> {
        match self.read_if_any()? {
            Some(cluster) => Ok(cluster),
            None => bail!("no cluster in {}: start one with `cofferdam up`", self.data.display()),
        }
    }

    pub fn read_if_any(&self) -> Result<Option<Cluster>> {
        let path = self.cluster_file();
        match fs::read(&path) {
            Ok(bytes) => {
                Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    pub fn write(&self, cluster: &Cluster) -> Result<()> {
        write_atomically(&self.cluster_file(), &serde_json::to_vec_pretty(cluster)?)
    }

    /// Opens a part's log file for appending, readable by root alone (pods' errors may stand in it).
    pub fn open_log(&self, part: &str) -> Result<fs::File> {
        let path = self.log(part);
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))
    }
}

/// Creates a directory and those above it; the last gets `mode`.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.with_context(|| format!("create {}", path.display())),
    }
}

/// Replaces a file whole, so that a reader sees the old or the new one.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = path.with_extension("new");
    // Some of these directories are a node's too, and its pods may have put a link there that leads elsewhere.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", draft.display()));
        }
        _ => {}
    }
    let write = || fs::OpenOptions::new().write(true).create_new(true).open(&draft)?.write_all(bytes);
    write().with_context(|| format!("write {}", draft.display()))?;
    fs::rename(&draft, path).with_context(|| format!("rename to {}", path.display()))
}
