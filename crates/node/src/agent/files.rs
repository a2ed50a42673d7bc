//! The files every container of a pod gets from its node: /etc/hosts, /etc/resolv.conf, /etc/hostname.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Pod;
use policy::{
    container::PodFiles,
    pod_dns::{self, ClusterDns, ResolvConf},
    security_context::PodEffective,
};

use super::context::Config;

/// Below which the cluster's names are.
const CLUSTER_DOMAIN: &str = "cluster.local";

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

/// Writes them; the warnings are for events: reason and message. The error names the path.
pub fn write(
    config: &Config,
    pod: &Pod,
    effective: &PodEffective,
    ips: &[String],
) -> Result<Vec<(&'static str, String)>, (PathBuf, io::Error)> {
    let dir = config.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    let node_hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let servers: Vec<String> = config.cluster_dns.iter().map(IpAddr::to_string).collect();
    let cluster = (!servers.is_empty()).then(|| ClusterDns { servers, domain: CLUSTER_DOMAIN.to_owned() });
    let dns = pod_dns::resolve(pod, &node_resolv_conf(config), cluster.as_ref());
    let files = [
        ("etc-hosts", hosts(pod, effective, ips, &node_hosts)),
        ("etc-resolv.conf", dns.config.text()),
        ("etc-hostname", format!("{}\n", effective.hostname)),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|error| (path, error))?;
    }
    Ok(dns.events)
}

/// What the node resolves by: the machine's file, as it is now. A name server on the machine's loopback is out of reach
/// from a node, so where there is no other, the one behind systemd-resolved's stub stands in (as kubeadm configures the
/// kubelet), which the supervisor copied beside the node's sockets.
fn node_resolv_conf(config: &Config) -> ResolvConf {
    let read = |path: &Path| {
        let mut read = ResolvConf::parse(&fs::read_to_string(path).unwrap_or_default());
        read.servers.retain(|server| server.parse().is_ok_and(|address: IpAddr| !address.is_loopback()));
        read
    };
    let machine = read(Path::new("/etc/resolv.conf"));
    if !machine.servers.is_empty() {
        return machine;
    }
    let behind = read(&config.run_dir.join("resolv.conf"));
    if behind.servers.is_empty() { machine } else { behind }
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
        let domain = subdomain.map(|subdomain| format!(".{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}"));
        // With setHostnameAsFQDN the host name has the domain already.
        let domain = domain.as_deref().unwrap_or_default();
        let name = effective.hostname.strip_suffix(domain).unwrap_or(&effective.hostname);
        for ip in ips {
            text.push_str(&match domain {
                "" => format!("{ip}\t{name}\n"),
                domain => format!("{ip}\t{name}{domain}\t{name}\n"),
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
    use policy::{node_facts::NodeFacts, security_context::resolve_pod};
    use serde_json::{Value, json};

    use super::*;

    fn hosts_of(spec: &Value) -> String {
        let mut all = json!({"containers": [{"name": "c"}]});
        all.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"namespace": "n", "name": "p"}, "spec": all}))
                .expect("a pod");
        let effective = resolve_pod(&pod, &NodeFacts::default()).expect("a pod that can be");
        hosts(&pod, &effective, &["10.244.0.9".into()], "127.0.0.1 machine\n")
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let subdomain = "10.244.0.9\th.sub.n.svc.cluster.local\th\n";
        for (spec, expected) in [
            (json!({}), "fe00::2\tip6-allrouters\n10.244.0.9\tp\n"),
            (json!({"hostname": "h"}), "10.244.0.9\th\n"),
            (json!({"hostname": "h", "subdomain": "sub"}), subdomain),
            (json!({"hostname": "h", "subdomain": "sub", "setHostnameAsFQDN": true}), subdomain),
            (
                json!({"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["a", "b"]}]}),
                "\n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n",
            ),
            (
                json!({"hostNetwork": true}),
                "# Kubernetes-managed hosts file (host network).\n127.0.0.1 machine\n",
            ),
        ] {
            let text = hosts_of(&spec);
            assert!(text.ends_with(expected), "{spec}: {text}");
        }
    }
}
