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

fn cluster_ips(errors: &mut ErrorList, spec: &At<'_>) {
    if spec.child("type").str() == "ExternalName" {
        return;
    }
    let (ip, ips) = (spec.child("clusterIP"), spec.child("clusterIPs"));
    let list = ips.items();
    if ip.str().is_empty() && !list.is_empty() {
        errors.push(ips.required("must be empty when `clusterIP` is not specified"));
    }
    if let Some(first) = list.first()
        && !ip.str().is_empty()
        && first.str() != ip.str()
    {
        errors.push(ips.invalid("first value must match `clusterIP`"));
    }
    if list.len() > 2 {
        errors.push(ips.invalid("may only hold up to 2 values"));
    }
    for (i, address) in list.iter().enumerate() {
        if address.str() == "None" {
            if i > 0 || list.len() > 1 {
                errors.push(address.invalid("'None' must be the first and only value"));
            }
        } else {
            address.invalid_each(errors, names::ip(address.str()));
        }
    }
    if list.is_empty() && !matches!(ip.str(), "" | "None") {
        ip.invalid_each(errors, names::ip(ip.str()));
    }
    let families = spec.child("ipFamilies");
    let items = families.items();
    if items.len() > 2 {
        errors.push(families.invalid("may only hold up to 2 values"));
    }
    for (i, family) in items.iter().enumerate() {
        family.one_of_set(errors, &["IPv4", "IPv6"]);
        if items[..i].iter().any(|f| f.str() == family.str()) {
            errors.push(Error::duplicate(&family.path, family.str()));
        }
    }
    spec.child("ipFamilyPolicy").one_of_set(errors, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
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

fn load_balancer(errors: &mut ErrorList, spec: &At<'_>) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let is_one = spec.child("type").str() == "LoadBalancer";
    let ranges =
        spec.child("loadBalancerSourceRanges").with_path(spec.path.child("LoadBalancerSourceRanges"));
    if !ranges.is_empty() && !is_one {
        errors.push(ranges.forbidden(ONLY));
    }
    for range in ranges.items() {
        range.invalid_each(errors, names::cidr(range.str().trim()));
    }
    let allocate = spec.child("allocateLoadBalancerNodePorts");
    if allocate.is_set() && !is_one {
        errors.push(allocate.forbidden(ONLY));
    }
    let class = spec.child("loadBalancerClass");
    if class.is_set() {
        if !is_one {
            errors.push(class.forbidden(ONLY));
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

/// A service keeps the address it was given.
pub(super) fn update(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    let (new, old) = (new.child("spec"), old.child("spec"));
    let external = |spec: &At<'_>| spec.child("type").str() == "ExternalName";
    if external(&new) || external(&old) {
        return;
    }
    let (now, was) = (new.child("clusterIP"), old.child("clusterIP"));
    if !was.str().is_empty() && !now.str().is_empty() && now.str() != was.str() {
        let ips = new.child("clusterIPs");
        let value = if ips.is_set() { ips.value() } else { json!([now.str()]) };
        errors.push(Error::invalid(&ips.path.index(0), value, "may not change once set"));
    }
}
