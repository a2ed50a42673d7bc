//! The files every container of a pod gets from its node: /etc/hosts, /etc/resolv.conf, /etc/hostname.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};
use policy::{container::PodFiles, security_context::PodEffective};

use super::context::Config;

/// Where they lie.
pub fn paths(config: &Config, uid: &str) -> PodFiles {
    let dir = config.pod_dir(uid);
    PodFiles {
        hosts: Some(dir.join("etc-hosts")),
        resolv_conf: Some(dir.join("etc-resolv.conf")),
        hostname: Some(dir.join("etc-hostname")),
        termination_log: None,
        shm: None,
    }
}

/// Writes them; the error names the path.
pub fn write(
    config: &Config,
    pod: &Pod,
    effective: &PodEffective,
    ips: &[String],
) -> Result<(), (PathBuf, io::Error)> {
    let dir = config.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let files = [
        ("etc-hosts", hosts(pod, effective, ips, &read("/etc/hosts"))),
        ("etc-resolv.conf", resolv_conf(pod, &read("/etc/resolv.conf"))),
        ("etc-hostname", format!("{}\n", effective.hostname)),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|error| (path, error))?;
    }
    Ok(())
}

/// As kubelet writes it: the node's for hostNetwork, else its own; hostAliases after it.
fn hosts(pod: &Pod, effective: &PodEffective, ips: &[String], node: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut text = String::new();
    if effective.namespaces.host_network {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(node);
    } else {
        text.push_str(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let subdomain =
            spec.and_then(|spec| spec.subdomain.as_deref()).filter(|subdomain| !subdomain.is_empty());
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        for ip in ips {
            let name = &effective.hostname;
            text.push_str(&match subdomain {
                Some(subdomain) => {
                    format!("{ip}\t{name}.{subdomain}.{namespace}.svc.cluster.local\t{name}\n")
                }
                None => format!("{ip}\t{name}\n"),
            });
        }
    }
    let aliases = spec.and_then(|spec| spec.host_aliases.as_ref()).filter(|aliases| !aliases.is_empty());
    if let Some(aliases) = aliases {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.clone().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

/// The node's, as long as the cluster has no DNS of its own; `dnsPolicy: None` takes `dnsConfig` alone.
fn resolv_conf(pod: &Pod, node: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut servers = Vec::new();
    let mut searches = Vec::new();
    let mut options = Vec::new();
    if spec.and_then(|spec| spec.dns_policy.as_deref()) != Some("None") {
        for line in node.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => servers.extend(words.next()),
                Some("search") => searches = words.collect(),
                Some("options") => options.extend(words),
                _ => {}
            }
        }
    }
    if let Some(PodDNSConfig { nameservers, options: more, searches: further }) =
        spec.and_then(|spec| spec.dns_config.as_ref())
    {
        let add = |list: &mut Vec<String>, items: &Option<Vec<String>>| {
            for item in items.iter().flatten().filter(|item| !item.is_empty()) {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut servers, nameservers);
        add(&mut searches, further);
        for option in more.iter().flatten() {
            let Some(name) = &option.name else { continue };
            options.retain(|known| known != name && !known.starts_with(&format!("{name}:")));
            options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    let mut text = String::new();
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// The termination message file of one run of a container, made empty and writable by the container's user.
pub fn termination_log(dir: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(dir)?;
    let path = dir.join("termination-log");
    fs::write(&path, "")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "metadata": { "namespace": "n" }, "spec": spec }))
            .expect("a pod")
    }

    #[test]
    fn resolv_conf_follows_dns_policy_and_dns_config() {
        let node = "search a b\nnameserver 10.0.0.1\noptions ndots:1\n";
        let table = [
            (serde_json::json!({ "containers": [] }), "search a b\nnameserver 10.0.0.1\noptions ndots:1\n"),
            (
                serde_json::json!({ "containers": [], "dnsPolicy": "None",
                    "dnsConfig": { "nameservers": ["9.9.9.9"], "searches": ["x"], "options": [{ "name": "ndots", "value": "2" }] } }),
                "search x\nnameserver 9.9.9.9\noptions ndots:2\n",
            ),
            (
                serde_json::json!({ "containers": [],
                    "dnsConfig": { "nameservers": ["10.0.0.1", "9.9.9.9"], "options": [{ "name": "ndots", "value": "5" }] } }),
                "search a b\nnameserver 10.0.0.1\nnameserver 9.9.9.9\noptions ndots:5\n",
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(resolv_conf(&pod(spec.clone()), node), expected, "{spec}");
        }
    }
}
