//! The kinds that run nothing: ConfigMap, Secret, Namespace, Node, Event, Endpoints, EndpointSlice.

use super::view::At;
use super::{metadata, names, scheduling, service};
use crate::field::{Error, ErrorList, Path};

/// ConfigMaps and Secrets, all values together: what a store takes in one piece.
const DATA_MAX: usize = 1024 * 1024;

pub(super) fn config_map(errors: &mut ErrorList, root: &At<'_>) {
    let (data, binary) = (root.child("data"), root.child("binaryData"));
    let mut total = 0;
    for (here, other, name) in [(&data, &binary, "binaryData"), (&binary, &data, "data")] {
        for (key, value) in here.entries() {
            config_key(errors, key, &value);
            if other.key(key).is_set() {
                errors.push(Error::invalid(&value.path, key, format!("duplicate of key present in {name}")));
            }
            total += if name == "binaryData" { value.str().len() } else { decoded_len(value.str()) };
        }
    }
    if total > DATA_MAX {
        // The whole object is too large; upstream's path for that prints so.
        errors.push(Error::too_long(&Path::new("[]"), DATA_MAX));
    }
}

fn config_key(errors: &mut ErrorList, key: &str, value: &At<'_>) {
    for message in names::config_key(key) {
        errors.push(Error::invalid(&value.path, key, message));
    }
}

/// Bytes that standard base64 of this length holds.
fn decoded_len(text: &str) -> usize {
    text.len() / 4 * 3 - text.bytes().rev().take(2).filter(|b| *b == b'=').count().min(text.len() / 4 * 3)
}

pub(super) fn secret(errors: &mut ErrorList, root: &At<'_>) {
    let data = root.child("data");
    let mut total = 0;
    for (key, value) in data.entries() {
        config_key(errors, key, &value);
        if !is_base64(value.str()) {
            errors.push(Error::invalid(&value.path, "<base64>", "illegal base64 data"));
        }
        total += decoded_len(value.str());
    }
    if total > DATA_MAX {
        errors.push(Error::too_long(&data.path, DATA_MAX));
    }
    let required: &[&str] = match root.child("type").str() {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            let annotation = root.child("metadata").child("annotations").key(NAME);
            if annotation.str().is_empty() {
                errors.push(annotation.required(""));
            }
            &[]
        }
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/basic-auth" => {
            if !data.key("username").is_set() && !data.key("password").is_set() {
                errors.push(data.key("username").required(""));
                errors.push(data.key("password").required(""));
            }
            &[]
        }
        _ => &[],
    };
    for key in required {
        if !data.key(key).is_set() {
            errors.push(data.key(key).required(""));
        }
    }
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

/// `immutable: true` freezes the data and itself.
pub(super) fn immutable(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>, fields: &[&str]) {
    const FROZEN: &str = "field is immutable when `immutable` is set";
    if !old.child("immutable").bool() {
        return;
    }
    if !new.child("immutable").bool() {
        errors.push(new.child("immutable").forbidden(FROZEN));
    }
    for field in fields {
        let (now, was) = (new.child(field), old.child(field));
        if now.value() != was.value() && !(now.is_empty() && was.is_empty()) {
            errors.push(now.forbidden(FROZEN));
        }
    }
}

pub(super) fn namespace(errors: &mut ErrorList, root: &At<'_>) {
    for item in root.child("spec").child("finalizers").items() {
        metadata::finalizer(errors, &item);
    }
}

pub(super) fn node(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    scheduling::taints(errors, &spec.child("taints"));
    for cidr in spec.child("podCIDRs").items() {
        cidr.invalid_each(errors, names::cidr(cidr.str()));
    }
    let single = spec.child("podCIDR");
    if !single.str().is_empty() {
        single.invalid_each(errors, names::cidr(single.str()));
    }
}

pub(super) fn node_update(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    let (new, old) = (new.child("spec"), old.child("spec"));
    for (field, name) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        let (now, was) = (new.child(field), old.child(field));
        if !was.is_empty() && now.value() != was.value() {
            errors.push(
                now.forbidden(&format!("node updates may not change {name} except from \"\" to valid")),
            );
        }
    }
}

pub(super) fn endpoints(errors: &mut ErrorList, root: &At<'_>) {
    for subset in root.child("subsets").items() {
        let (ready, not_ready) = (subset.child("addresses"), subset.child("notReadyAddresses"));
        if ready.is_empty() && not_ready.is_empty() {
            errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
        }
        for address in ready.items().iter().chain(&not_ready.items()) {
            let ip = address.child("ip");
            for message in names::ip(ip.str()) {
                errors.push(Error::invalid(&ip.path, ip.str(), message));
            }
            service::not_special(errors, &ip);
        }
        let ports = subset.child("ports").items();
        for port in &ports {
            let name = port.child("name");
            if name.str().is_empty() {
                if ports.len() > 1 {
                    errors.push(name.required(""));
                }
            } else {
                name.invalid_each(errors, names::dns_label(name.str()));
            }
            port.child("port").port_number_or_name(errors);
            port.child("protocol").one_of(errors, &["SCTP", "TCP", "UDP"]);
        }
    }
}

pub(super) fn endpoint_slice(errors: &mut ErrorList, root: &At<'_>) {
    let kind = root.child("addressType");
    kind.one_of(errors, &["FQDN", "IPv4", "IPv6"]);
    let endpoints = root.child("endpoints");
    if endpoints.items().len() > 1000 {
        errors.push(Error::too_many(&endpoints.path, endpoints.items().len(), 1000));
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.child("addresses");
        if addresses.is_empty() {
            errors.push(addresses.required("must contain at least 1 address"));
        }
        for address in addresses.items() {
            match kind.str() {
                "FQDN" => address.invalid_each(errors, names::dns_subdomain(address.str())),
                _ => address.invalid_each(errors, names::ip(address.str())),
            }
        }
    }
    let ports = root.child("ports");
    let mut seen = Vec::new();
    for port in ports.items() {
        let name = port.child("name");
        if !name.str().is_empty() {
            name.invalid_each(errors, names::dns_label(name.str()));
        }
        if seen.contains(&name.str()) {
            errors.push(Error::duplicate(&name.path, name.str()));
        }
        seen.push(name.str());
        port.child("port").in_range(errors, 1, 65535);
        port.child("protocol").one_of(errors, &["SCTP", "TCP", "UDP"]);
    }
}

/// An event lies in the namespace of what it is about; events about cluster objects in `default`. One with an
/// `eventTime` follows the newer, stricter rules.
pub(super) fn event(errors: &mut ErrorList, root: &At<'_>) {
    let namespace = root.child("metadata").child("namespace");
    let involved = root.child("involvedObject").child("namespace");
    let (here, about) = (namespace.str(), involved.str());
    let new_style = root.child("eventTime").is_set();
    let fits = match (new_style, about) {
        (false, "") => matches!(here, "" | "default"),
        (false, _) => here == about,
        (true, "") => matches!(here, "default" | "kube-system"),
        (true, _) => true,
    };
    if !fits {
        errors.push(Error::invalid(&involved.path, about, "does not match event.namespace"));
    }
    if new_style {
        let (by, instance) = (root.child("reportingComponent"), root.child("reportingInstance"));
        if by.str().is_empty() {
            errors.push(by.required(""));
        }
        for message in names::qualified_name(by.str()) {
            errors.push(Error::invalid(&by.path, by.str(), message));
        }
        for (at, limit) in [(instance, 128), (root.child("action"), 128), (root.child("reason"), 128)] {
            if at.str().is_empty() {
                errors.push(at.required(""));
            } else if at.str().len() > limit {
                errors.push(Error::invalid(&at.path, "", format!("can have at most {limit} characters")));
            }
        }
        let message = root.child("message");
        if message.str().len() > 1024 {
            errors.push(Error::invalid(&message.path, "", "can have at most 1024 characters"));
        }
    }
    for message in if here.is_empty() { Vec::new() } else { names::dns_subdomain(here) } {
        errors.push(Error::invalid(&Path::new("namespace"), here, message));
    }
}

/// Counters of a status are not negative, and no more are ready than there are.
pub(super) fn status(errors: &mut ErrorList, group: &str, kind: &str, new: &At<'_>, old: &At<'_>) {
    let status = new.child("status");
    if group == "apps" {
        collisions(errors, &status.child("collisionCount"), &old.child("status").child("collisionCount"));
    }
    if !matches!(
        (group, kind),
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet") | ("", "ReplicationController")
    ) {
        return;
    }
    const COUNTERS: [&str; 9] = [
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "currentReplicas",
        "updatedReplicas",
        "unavailableReplicas",
        "fullyLabeledReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    for counter in COUNTERS {
        status.child(counter).non_negative(errors);
    }
    let count = |field: &str| status.child(field).int().unwrap_or(0);
    let at_most = |errors: &mut ErrorList, field: &str, other: &str| {
        if count(field) > count(other) {
            let path = status.child(field).path;
            let of = if other == "replicas" || kind == "StatefulSet" { "status." } else { "" };
            errors.push(Error::invalid(&path, count(field), format!("cannot be greater than {of}{other}")));
        }
    };
    for field in
        ["readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas", "fullyLabeledReplicas"]
    {
        at_most(errors, field, "replicas");
    }
    at_most(errors, "availableReplicas", "readyReplicas");
}

/// Names that were taken stay taken.
fn collisions(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    if old.int().is_some_and(|old| new.int().is_none_or(|new| new < old)) {
        errors.push(Error::invalid(&new.path, new.int().unwrap_or(0), "cannot be decremented"));
    }
}
