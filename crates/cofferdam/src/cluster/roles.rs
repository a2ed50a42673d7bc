//! The roles of a cluster's processes that are more than a call: the control process gives its privileges up before it
//! serves; the agent reads where it is.

use std::{
    fs,
    net::TcpListener,
    os::{
        fd::AsRawFd,
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::Path,
};

use anyhow::{Context, Result};

use super::layout::{CONTROL_UID, Cluster, Layout, NodeFile};

/// The control process: opens its sockets as root, becomes a user without privileges, and serves.
pub fn control(layout: &Layout) -> Result<()> {
    let cluster = layout.read()?;
    let (tls, tls_for_pods) = inherited().context("take over the API server's sockets")?;
    let admin = listen(&layout.admin_socket(), 0o600)?;
    let mut nodes = Vec::new();
    for node in cluster.node_names() {
        nodes.push((node.clone(), listen(&layout.node_socket(&node), 0o600)?));
    }
    // Made here, filled by the control process: it has no right to create files beside it.
    let kubeconfig = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(layout.kubeconfig())
        .with_context(|| format!("open {}", layout.kubeconfig().display()))?;
    kubeconfig.set_permissions(fs::Permissions::from_mode(0o600)).context("chmod 0600 the kubeconfig")?;
    // Its directory lies where this process may not walk.
    let audit =
        fs::File::open(layout.audit()).with_context(|| format!("open {}", layout.audit().display()))?;
    let pod_security = pod_security(&layout.pod_security())?;

    drop_privileges().context("give up root")?;
    // After the change of user, which clears it: a control process without supervisor would be nobody's.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("prctl PR_SET_PDEATHSIG")?;
    control::run_blocking(control::Config {
        data_dir: layout.control(),
        run_dir: layout.run(),
        kubeconfig,
        tls,
        tls_for_pods: Some(tls_for_pods),
        audit: Some(audit.into()),
        admin,
        nodes,
        service_cidrs: cluster.service_cidrs().cloned().collect(),
        cluster_id: cluster.id.clone(),
        name_service: name_service(&cluster),
        pod_security,
    })
    .context("serve")
}

/// What the cluster's name service is given, if it is to have one.
fn name_service(cluster: &Cluster) -> Option<control::name_service::NameService> {
    let addresses = cluster.dns_addresses()?;
    let v6 = cluster.v6.iter().flat_map(|v6| [&v6.pod_cidr, &v6.service_cidr]);
    let ranges = [&cluster.pod_cidr, &cluster.service_cidr].into_iter().chain(v6).cloned().collect();
    Some(control::name_service::NameService { addresses, image: node::images::dns_image_name(), ranges })
}

/// The supervisor listens, and hands the sockets over as standard input and output, where /dev/null takes their place.
fn inherited() -> Result<(TcpListener, TcpListener)> {
    use rustix::{io::fcntl_dupfd_cloexec, stdio};
    let tls = TcpListener::from(fcntl_dupfd_cloexec(stdio::stdin(), 3)?);
    let tls_for_pods = TcpListener::from(fcntl_dupfd_cloexec(stdio::stdout(), 3)?);
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    stdio::dup2_stdin(&null)?;
    stdio::dup2_stdout(&null)?;
    Ok((tls, tls_for_pods))
}

/// What Pod Security asks: nothing, unless `up` was given a file.
fn pod_security(path: &Path) -> Result<control::admission::PodSecurityConfig> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
        read => read.with_context(|| format!("read {}", path.display()))?,
    };
    control::admission::PodSecurityConfig::parse(&text).with_context(|| path.display().to_string())
}

/// Becomes a user that nothing else runs as, without a capability and without a way to one.
fn drop_privileges() -> Result<()> {
    use kernel::credentials::{
        CapSet, last_capability, limit_bounding, set_ambient, set_capabilities, set_ids,
    };
    let none = CapSet(0);
    limit_bounding(none, last_capability()?)?;
    set_ambient(none)?;
    set_ids(CONTROL_UID, CONTROL_UID, &[])?;
    set_capabilities(none, none, none)?;
    kernel::process::set_no_new_privs()?;
    Ok(())
}

/// Binds under another name and renames, so that who sees the socket can connect to it.
fn listen(path: &Path, mode: u32) -> Result<UnixListener> {
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", draft.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&draft).with_context(|| format!("listen on {}", path.display()))?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(mode))
        .with_context(|| format!("chmod {}", draft.display()))?;
    fs::rename(&draft, path).with_context(|| format!("rename to {}", path.display()))?;
    Ok(listener)
}

/// The agent of a node, run inside the node. Its standard output is the directory of the sockets, which no path within the
/// node leads to: whatever of the node a pod is shown, it does not find them.
pub fn agent() -> Result<()> {
    let sockets =
        rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).context("take over the sockets")?;
    let null = fs::OpenOptions::new().write(true).open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdout(&null).context("dup2")?;
    let path = Path::new("/run/cofferdam/node.json");
    let file: NodeFile =
        serde_json::from_slice(&fs::read(path).with_context(|| format!("read {}", path.display()))?)
            .with_context(|| format!("read {}", path.display()))?;
    let (v4, v6) = file.cluster.ranges()?;
    node::agent::run(node::agent::Config {
        node: file.name,
        index: file.index,
        v4: v4.node(file.index).context("the node's network")?,
        v6: v6.map(|ranges| ranges.node(file.index)).transpose().context("the node's IPv6 network")?,
        mtu: file.mtu,
        cluster_id: file.cluster.id.clone(),
        nodes: file.cluster.nodes,
        cluster_dns: file.cluster.dns_addresses().unwrap_or_default(),
        sockets_dir: format!("/proc/self/fd/{}", sockets.as_raw_fd()).into(),
        run_dir: "/run/cofferdam".into(),
        pods_dir: "/var/lib/cofferdam/pods".into(),
        logs_dir: "/var/log/pods".into(),
        control_uid: CONTROL_UID,
    })
    .context("run the agent")
}
