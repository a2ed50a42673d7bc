//! The resolver configuration of a pod: `dnsPolicy` and `dnsConfig` over what the node has, within the limits of resolvers
//! (kubelet `pkg/kubelet/network/dns`).

use k8s_openapi::api::core::v1::{Pod, PodDNSConfigOption};

use crate::security_context::pod_format;

/// The most name servers glibc asks, and the limits Kubernetes sets for search paths.
const MOST_NAMESERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;
const LONGEST_SEARCH_LINE: usize = 2048;
/// A longer path makes some resolvers abort.
const LONGEST_SEARCH: usize = 255;

/// The cluster's own name service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDns {
    /// Addresses of its Service.
    pub servers: Vec<String>,
    /// `cluster.local`.
    pub domain: String,
}

/// What resolv.conf(5) holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    /// `name` or `name:value`.
    pub options: Vec<String>,
}

/// A pod's configuration, and the warning events of making it: reason and message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDns {
    pub config: ResolvConf,
    pub events: Vec<(&'static str, String)>,
}

impl ResolvConf {
    /// Reads a file; what it does not know is left out, as resolvers do. The last `search` line counts.
    pub fn parse(text: &str) -> ResolvConf {
        let mut config = ResolvConf::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => config.servers.extend(words.next()),
                Some("search") => {
                    config.searches = words
                        .map(|path| match path.strip_suffix('.') {
                            Some(bare) if !bare.is_empty() => bare.to_owned(),
                            _ => path,
                        })
                        .collect();
                }
                Some("options") => config.options.extend(words),
                _ => {}
            }
        }
        config
    }

    /// The file's content.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

/// The pod's configuration. `node` is what the node's own processes use; `cluster` is None in a cluster without DNS.
pub fn resolve(pod: &Pod, node: &ResolvConf, cluster: Option<&ClusterDns>) -> PodDns {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let host_network = spec.and_then(|spec| spec.host_network) == Some(true);
    let mut events = Vec::new();
    let mut config = match (policy, cluster) {
        ("None", _) => ResolvConf::default(),
        // A pod on the node's network resolves as the node does, unless it says otherwise.
        ("Default", _) => node.clone(),
        ("ClusterFirst", _) if host_network => node.clone(),
        (_, Some(cluster)) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            let domain = &cluster.domain;
            let mut searches =
                vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            add(&mut searches, &node.searches);
            ResolvConf { servers: cluster.servers.clone(), searches, options: vec!["ndots:5".to_owned()] }
        }
        (_, None) => {
            events.push((
                "MissingClusterDNS",
                format!(
                    "pod: \"{}\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \
                     \"ClusterFirst\" policy. Falling back to \"Default\" policy.",
                    pod_format(pod)
                ),
            ));
            node.clone()
        }
    };
    if let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        add(&mut config.servers, own.nameservers.as_deref().unwrap_or_default());
        add(&mut config.searches, own.searches.as_deref().unwrap_or_default());
        options(&mut config.options, own.options.as_deref().unwrap_or_default());
    }
    fit(&mut config, &mut events);
    PodDns { config, events }
}

/// Adds what is not there yet.
fn add(list: &mut Vec<String>, items: &[String]) {
    for item in items {
        if !item.is_empty() && !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// The pod's options take the place of others of their names.
fn options(list: &mut Vec<String>, own: &[PodDNSConfigOption]) {
    for option in own {
        let Some(name) = option.name.as_deref().filter(|name| !name.is_empty()) else { continue };
        list.retain(|known| known.split(':').next() != Some(name));
        list.push(match option.value.as_deref().filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        });
    }
}

/// Cuts what resolvers would not take, and says so.
fn fit(config: &mut ResolvConf, events: &mut Vec<(&'static str, String)>) {
    if config.servers.len() > MOST_NAMESERVERS {
        config.servers.truncate(MOST_NAMESERVERS);
        events.push((
            "DNSConfigForming",
            format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                config.servers.join(" ")
            ),
        ));
    }
    let before = config.searches.len();
    config.searches.truncate(MOST_SEARCHES);
    config.searches.retain(|path| path.len() <= LONGEST_SEARCH);
    while config.searches.join(" ").len() > LONGEST_SEARCH_LINE {
        config.searches.pop();
    }
    if config.searches.len() < before {
        events.push((
            "DNSConfigForming",
            format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                config.searches.join(" ")
            ),
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NODE: &str =
        "# the machine's\nsearch old\nsearch corp.example. b\nnameserver 10.0.0.1\noptions ndots:1 edns0\n";
    const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example b\nnameserver 10.96.0.10\noptions ndots:5\n";
    const HOST: &str = "search corp.example b\nnameserver 10.0.0.1\noptions ndots:1 edns0\n";

    fn pod(spec: &Value) -> Pod {
        let mut all = json!({"containers": []});
        all.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
        serde_json::from_value(
            json!({"metadata": {"namespace": "shop", "name": "p", "uid": "u"}, "spec": all}),
        )
        .expect("a pod")
    }

    fn cluster() -> ClusterDns {
        ClusterDns { servers: vec!["10.96.0.10".into()], domain: "cluster.local".into() }
    }

    #[test]
    fn policies_and_configurations_give_what_kubelet_writes() {
        let none = json!({"nameservers": ["9.9.9.9"], "searches": ["x", "."],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        for (spec, expected) in [
            (json!({}), CLUSTER.to_owned()),
            (json!({"dnsPolicy": "ClusterFirst"}), CLUSTER.to_owned()),
            (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), HOST.to_owned()),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), CLUSTER.to_owned()),
            (json!({"dnsPolicy": "Default"}), HOST.to_owned()),
            (
                json!({"dnsPolicy": "None", "dnsConfig": none}),
                "search x .\nnameserver 9.9.9.9\noptions ndots:2 edns0\n".to_owned(),
            ),
            (
                json!({"dnsConfig": {"nameservers": ["10.96.0.10", "9.9.9.9"], "searches": ["b", "more"],
                    "options": [{"name": "ndots", "value": "1"}, {"name": "single-request"}]}}),
                CLUSTER
                    .replace(" b\n", " b more\n")
                    .replace("10.96.0.10\n", "10.96.0.10\nnameserver 9.9.9.9\n")
                    .replace("ndots:5", "ndots:1 single-request"),
            ),
        ] {
            let seen = resolve(&pod(&spec), &ResolvConf::parse(NODE), Some(&cluster()));
            assert_eq!((seen.config.text(), seen.events.len()), (expected, 0), "{spec}");
        }
    }

    #[test]
    fn what_resolvers_would_not_take_is_cut_and_told() {
        let node = ResolvConf::parse("nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\n");
        let four = json!({"dnsPolicy": "Default", "dnsConfig": {"nameservers": ["1.1.1.4"]}});
        let many: Vec<String> = (0..40).map(|number| format!("s{number}")).collect();
        let long: Vec<String> = (0..31).map(|number| format!("{number}{}", "x".repeat(99))).collect();
        for (spec, servers, searches, message) in [
            (
                four,
                3,
                0,
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 1.1.1.1 1.1.1.2 1.1.1.3",
            ),
            (
                json!({"dnsConfig": {"searches": many}}),
                1,
                32,
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: shop.svc.cluster.local",
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": long}}),
                1,
                20,
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: 0xxx",
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["y".repeat(256), "a".to_owned()]}}),
                1,
                1,
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: a",
            ),
        ] {
            let seen = resolve(&pod(&spec), &node, Some(&cluster()));
            assert_eq!(
                (seen.config.servers.len(), seen.config.searches.len()),
                (servers, searches),
                "{spec}"
            );
            assert_eq!(seen.events.len(), 1, "{spec}");
            assert_eq!(seen.events[0].0, "DNSConfigForming");
            assert!(seen.events[0].1.starts_with(message), "{}", seen.events[0].1);
        }
    }

    #[test]
    fn a_cluster_without_dns_says_so() {
        let seen = resolve(&pod(&json!({})), &ResolvConf::parse(NODE), None);
        assert_eq!(seen.config.text(), HOST);
        let words = "pod: \"p_shop(u)\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \
                     \"ClusterFirst\" policy. Falling back to \"Default\" policy.";
        assert_eq!(seen.events, [("MissingClusterDNS", words.to_owned())]);
    }
}
