//! Services: ports, addresses, types and what goes with which.

use serde_json::json;

use super::view::At;
use super::{metadata, names};
use crate::field::{Error, ErrorList};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub(super) fn service(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    let at = |field: &str| spec.child(field);
    let kind = at("type").str();
    let headless = at("clusterIP").str() == "None";
    let list = at("ports").items();
    if list.is_empty() && !headless && kind != "ExternalName" {
        errors.push(at("ports").required(""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => errors.push(Error::invalid(
            &at("clusterIPs").path.index(0),
            "None",
            format!("may not be set to 'None' for {kind} services"),
        )),
        "ExternalName" => external_name(errors, &spec),
        _ => {}
    }
    let mut port_names = Vec::new();
    for port in &list {
        self::port(errors, port, list.len() > 1, &mut port_names);
    }
    metadata::labels(errors, &at("selector"));
    at("sessionAffinity").one_of(errors, &["ClientIP", "None"]);
    session_affinity(errors, &spec);
    cluster_ips(errors, &spec);
    for ip in at("externalIPs").items() {
        let wrong = names::ip(ip.str());
        if wrong.is_empty() {
            not_special(errors, &ip);
        } else {
            ip.invalid_each(errors, wrong);
        }
    }
    at("type").one_of(errors, &TYPES);
    unique_ports(errors, &list, kind);
    load_balancer(errors, &spec);
    source_ranges(errors, root, &spec);
    let external =
        matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && !at("externalIPs").is_empty());
    let policy = at("externalTrafficPolicy");
    if external {
        policy.one_of(errors, &["Cluster", "Local"]);
    } else if !policy.str().is_empty() {
        errors.push(policy.invalid("may only be set for externally-accessible services"));
    }
    let health = at("healthCheckNodePort");
    if health.int().unwrap_or(0) != 0 && !(kind == "LoadBalancer" && policy.str() == "Local") {
        errors.push(
            health.invalid(
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            ),
        );
    }
    at("internalTrafficPolicy").one_of_set(errors, &["Cluster", "Local"]);
    at("trafficDistribution").one_of_set(errors, &["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

fn external_name(errors: &mut ErrorList, spec: &At<'_>) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !spec.child(field).is_empty() {
            errors.push(spec.child(field).forbidden("may not be set for ExternalName services"));
        }
    }
    let name = spec.child("externalName");
    let text = name.str().strip_suffix('.').unwrap_or(name.str());
    if text.is_empty() {
        errors.push(name.required(""));
    }
    for message in if text.is_empty() { Vec::new() } else { names::dns_subdomain(text) } {
        errors.push(Error::invalid(&name.path, text, message));
    }
}

fn port<'a>(errors: &mut ErrorList, port: &At<'a>, named: bool, seen: &mut Vec<&'a str>) {
    let name = port.child("name");
    if name.str().is_empty() {
        if named {
            errors.push(name.required(""));
        }
    } else {
        name.invalid_each(errors, names::dns_label(name.str()));
        if seen.contains(&name.str()) {
            errors.push(Error::duplicate(&name.path, name.str()));
        }
        seen.push(name.str());
    }
    let number = port.child("port");
    if !(1..=65535).contains(&number.int().unwrap_or(0)) {
        let value = number.int().unwrap_or(0);
        errors.push(Error::invalid(&number.path, value, "must be between 1 and 65535, inclusive"));
    }
    port.child("protocol").one_of(errors, &["SCTP", "TCP", "UDP"]);
    port.child("targetPort").port_number_or_name(errors);
    let app = port.child("appProtocol");
    if app.is_set() {
        app.invalid_each(errors, names::qualified_name(app.str()));
    }
    let node = port.child("nodePort");
    if node.int().is_some_and(|n| n != 0 && !(0..=65535).contains(&n)) {
        node.in_range(errors, 1, 65535);
    }
}

fn session_affinity(errors: &mut ErrorList, spec: &At<'_>) {
    const DAY: i64 = 86400;
    let config = spec.child("sessionAffinityConfig");
    match spec.child("sessionAffinity").str() {
        "ClientIP" => {
            let client = config.child("clientIP");
            let seconds = client.child("timeoutSeconds");
            for at in [&config, &client, &seconds] {
                if !at.is_set() {
                    errors.push(at.required("when session affinity type is ClientIP"));
                    return;
                }
            }
            if !(1..=DAY).contains(&seconds.int().unwrap_or(0)) {
                errors.push(seconds.invalid(format!("must be greater than 0 and less than {DAY}")));
            }
        }
        "None" if config.is_set() => {
            errors.push(config.forbidden("must not be set when session affinity is None"));
        }
        _ => {}
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`, as far as they concern each other
/// (`ValidateServiceClusterIPsRelatedFields`). Which families there are, the cluster knows.
pub(super) fn cluster_ips(errors: &mut ErrorList, spec: &At<'_>) {
    if spec.child("type").str() == "ExternalName" {
        return;
    }
    let (ip, ips) = (spec.child("clusterIP"), spec.child("clusterIPs"));
    let mut list = ips.items();
    if list.is_empty() && !ip.str().is_empty() {
        // A client that knows only the one; the server makes the other of it.
        list = vec![ip.with_path(ips.path.index(0))];
    } else if ip.str().is_empty() && !list.is_empty() {
        errors.push(ips.invalid("must be empty when `clusterIP` is not specified"));
    } else if list.first().is_some_and(|first| first.str() != ip.str()) {
        errors.push(ips.invalid("first value must match `clusterIP`"));
    }
    let families = spec.child("ipFamilies").items();
    for (i, family) in families.iter().enumerate() {
        family.one_of_set(errors, &["IPv4", "IPv6"]);
        if families[..i].iter().any(|f| f.str() == family.str()) {
            errors.push(Error::duplicate(&family.path, family.str()));
        }
    }
    spec.child("ipFamilyPolicy").one_of_set(errors, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    let headless = list.first().is_some_and(|first| first.str() == "None");
    if headless && list.len() > 1 {
        errors.push(ips.invalid("'None' must be the first and only value"));
    }
    let before = errors.len();
    for address in list.iter().skip(usize::from(headless)) {
        address.invalid_each(errors, names::ip(address.str()));
    }
    if list.len() > 2 {
        errors.push(ips.invalid("may only hold up to 2 values"));
    }
    // What follows says nothing of use about addresses that are none.
    if headless || errors.len() > before {
        return;
    }
    let is_v6 = |address: &At<'_>| address.str().contains(':');
    if let [one, other] = list.as_slice()
        && is_v6(one) == is_v6(other)
    {
        errors.push(ips.invalid("may specify no more than one IP for each IP family"));
    }
    for (i, (address, family)) in list.iter().zip(&families).enumerate() {
        let (expected, name) = if family.str() == "IPv6" { (true, "IPv6") } else { (false, "IPv4") };
        if is_v6(address) != expected {
            errors
                .push(address.invalid(format!("expected an {name} value as indicated by `ipFamilies[{i}]`")));
        }
    }
}

fn unique_ports(errors: &mut ErrorList, ports: &[At<'_>], kind: &str) {
    let (mut node_ports, mut numbers) = (Vec::new(), Vec::new());
    for port in ports {
        let node = port.child("nodePort");
        let protocol = port.child("protocol").str();
        let number = node.int().unwrap_or(0);
        if number != 0 {
            if kind == "ClusterIP" {
                errors.push(node.forbidden("may not be used when `type` is 'ClusterIP'"));
            }
            if node_ports.contains(&(protocol, number)) {
                errors.push(Error::duplicate(&node.path, number));
            }
            node_ports.push((protocol, number));
        }
        let key = (protocol, port.child("port").int().unwrap_or(0));
        if numbers.contains(&key) {
            errors.push(Error::duplicate(&port.path, json!({"protocol": key.0, "port": key.1})));
        }
        numbers.push(key);
    }
}

const BALANCERS_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";

/// Where the list is empty, what came before it is looked at: an annotation, for the balancers' controllers.
fn source_ranges(errors: &mut ErrorList, root: &At<'_>, spec: &At<'_>) {
    let listed = spec.child("loadBalancerSourceRanges").items();
    let annotation = root
        .child("metadata")
        .child("annotations")
        .key("service.beta.kubernetes.io/load-balancer-source-ranges");
    let used = match listed.is_empty() {
        true => annotation.clone(),
        // Upstream's path begins with a capital.
        false => {
            spec.child("loadBalancerSourceRanges").with_path(spec.path.child("LoadBalancerSourceRanges"))
        }
    };
    if used.is_set() && spec.child("type").str() != "LoadBalancer" {
        errors.push(used.forbidden(BALANCERS_ONLY));
    }
    // Each may have spaces around it, as the annotation's always might.
    let text = if listed.is_empty() { annotation.str().trim() } else { "" };
    let annotated = text.split(',').filter(|_| !text.is_empty()).map(|range| (used.path.clone(), range));
    let ranges = used.items().into_iter().map(|range| (range.path.clone(), range.str())).chain(annotated);
    for (path, range) in ranges {
        let wrong = names::cidr(range.trim()).into_iter();
        wrong.for_each(|wrong| errors.push(Error::invalid(&path, range.trim(), wrong)));
    }
}

fn load_balancer(errors: &mut ErrorList, spec: &At<'_>) {
    let is_one = spec.child("type").str() == "LoadBalancer";
    let allocate = spec.child("allocateLoadBalancerNodePorts");
    if allocate.is_set() && !is_one {
        errors.push(allocate.forbidden(BALANCERS_ONLY));
    }
    let class = spec.child("loadBalancerClass");
    if class.is_set() {
        if !is_one {
            errors.push(class.forbidden(BALANCERS_ONLY));
        }
        class.invalid_each(errors, names::qualified_name(class.str()));
    }
}

/// Addresses that no traffic from outside can carry.
pub(super) fn not_special(errors: &mut ErrorList, at: &At<'_>) {
    let Ok(ip) = at.str().parse::<std::net::IpAddr>() else { return };
    let (link_local, link_local_multicast) = match ip {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        errors.push(at.invalid(format!("may not be unspecified ({})", at.str())));
    }
    if ip.is_loopback() {
        errors.push(at.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    if link_local {
        errors.push(at.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
    if link_local_multicast {
        errors.push(at.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"));
    }
}

/// A Service keeps the addresses and families it was given; the second of each comes and goes with the policy
/// (`validateUpgradeDowngradeClusterIPs`, `validateUpgradeDowngradeIPFamilies`).
pub(super) fn update(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    let (new, old) = (new.child("spec"), old.child("spec"));
    let kind = |spec: &At<'_>| spec.child("type").str().to_owned();
    if kind(&new) == "LoadBalancer" && kind(&old) == "LoadBalancer" {
        let class = new.child("loadBalancerClass");
        if class.raw() != old.child("loadBalancerClass").raw() {
            errors.push(class.invalid("may not change once set"));
        }
    }
    if kind(&new) == "ExternalName" || kind(&old) == "ExternalName" {
        return;
    }
    let addresses = |spec: &At<'_>| -> Vec<String> {
        let (ip, ips) = (spec.child("clusterIP").str(), spec.child("clusterIPs").strings());
        let listed = if ips.is_empty() && !ip.is_empty() { vec![ip] } else { ips };
        listed.into_iter().map(str::to_owned).collect()
    };
    let (now, was) = (addresses(&new), addresses(&old));
    let headless = |ips: &[String]| ips == ["None"];
    if !(headless(&now) && headless(&was)) {
        kept(errors, &new, "clusterIPs", (&now, &was), "clusterIP");
    }
    if !headless(&now) && !headless(&was) {
        let families = |spec: &At<'_>| -> Vec<String> {
            spec.child("ipFamilies").strings().into_iter().map(str::to_owned).collect()
        };
        kept(errors, &new, "ipFamilies", (&families(&new), &families(&old)), "ipFamily");
    }
}

fn kept(errors: &mut ErrorList, spec: &At<'_>, field: &str, lists: (&[String], &[String]), one: &str) {
    let (now, was) = lists;
    let path = spec.child(field).path;
    let changed = |i: usize| Error::invalid(&path.index(i), json!(now), "may not change once set");
    if was.is_empty() {
        return;
    }
    if now.is_empty() {
        errors.push(Error::invalid(&path.index(0), json!(now), format!("primary {one} can not be unset")));
        return;
    }
    for (i, (now, was)) in now.iter().zip(was).enumerate() {
        if now != was {
            errors.push(changed(i));
        }
    }
    let policy = spec.child("ipFamilyPolicy");
    if now.len() < was.len() && policy.str() != "SingleStack" {
        errors
            .push(policy.invalid(format!("must be set to 'SingleStack' when releasing the secondary {one}")));
    }
}
