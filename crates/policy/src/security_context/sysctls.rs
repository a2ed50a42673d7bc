//! The pod's sysctls: only namespaced ones, and of those the safe list or what the node allows
//! (kubelet `pkg/kubelet/sysctl`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Sysctl;

use super::{ConfigError, Namespaces};
use crate::node_facts::NodeFacts;

/// Isolated between pods and harmless to the node.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

enum Namespace {
    Ipc,
    Net,
}

/// Which namespace a sysctl belongs to; `None`: it is the whole machine's.
fn namespace(name: &str) -> Option<Namespace> {
    if name == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
    {
        Some(Namespace::Ipc)
    } else if name.starts_with("net.") {
        Some(Namespace::Net)
    } else {
        None
    }
}

/// sysctl(8) takes `net/ipv4/conf/eth0.1/x` for `net.ipv4.conf.eth0/1.x`: the first separator says which is meant.
fn with_dots(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'/' => {
            let swapped = name.chars().map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            });
            swapped.collect()
        }
        _ => name.to_owned(),
    }
}

/// The sysctls to write in the pod's namespaces; a forbidden one rejects the pod, as the kubelet does at admission.
pub fn resolve(
    sysctls: &[Sysctl],
    namespaces: Namespaces,
    node: &NodeFacts,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let forbidden = |name: &str, why: &str| {
        ConfigError::reject("SysctlForbidden", format!("forbidden sysctl: \"{name}\" {why}"))
    };
    let mut resolved = BTreeMap::new();
    for sysctl in sysctls {
        let name = with_dots(&sysctl.name);
        // A path component that climbs would leave /proc/sys.
        if name.split(['.', '/']).any(str::is_empty) {
            return Err(forbidden(&name, "not allowlisted"));
        }
        let allowed_unsafe =
            node.allowed_unsafe_sysctls.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == *pattern,
            });
        let Some(namespace) = namespace(&name).filter(|_| SAFE.contains(&name.as_str()) || allowed_unsafe)
        else {
            return Err(forbidden(&name, "not allowlisted"));
        };
        match namespace {
            Namespace::Ipc if namespaces.host_ipc => {
                return Err(forbidden(&name, "not allowed with host ipc enabled"));
            }
            Namespace::Net if namespaces.host_network => {
                return Err(forbidden(&name, "not allowed with host net enabled"));
            }
            Namespace::Ipc | Namespace::Net => {}
        }
        resolved.insert(name, sysctl.value.clone());
    }
    Ok(resolved)
}
