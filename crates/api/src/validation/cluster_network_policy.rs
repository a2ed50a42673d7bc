//! ClusterNetworkPolicies: what the custom resource's schema and its rules refuse, in the words that custom resources
//! are refused with. `domainNames` is refused by name: no packet carries a name.

use super::view::At;
use super::{metadata, names};
use crate::field::{Error, ErrorList};

const MOST: usize = 25;

pub(super) fn cluster_network_policy(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    if !spec.is_set() {
        errors.push(spec.required(""));
        return;
    }
    let tier = spec.child("tier");
    required(errors, &tier);
    tier.one_of_set(errors, &["Admin", "Baseline"]);
    let priority = spec.child("priority");
    required(errors, &priority);
    range(errors, &priority, 0, 1000);
    let subject = spec.child("subject");
    required(errors, &subject);
    if subject.is_set() {
        one_property(errors, &subject, &["namespaces", "pods"]);
        pods(errors, &subject);
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = spec.child(direction);
        most(errors, &rules);
        for at in rules.items() {
            rule(errors, &at, peers);
        }
    }
}

fn rule(errors: &mut ErrorList, at: &At<'_>, peers: &str) {
    let action = at.child("action");
    required(errors, &action);
    action.one_of_set(errors, &["Accept", "Deny", "Pass"]);
    let name = at.child("name");
    if name.str().chars().count() > 100 {
        errors.push(Error::too_long(&name.path, 100));
    }
    let list = at.child(peers);
    required(errors, &list);
    least(errors, &list);
    most(errors, &list);
    let known: &[&str] = match peers {
        "to" => &["namespaces", "pods", "nodes", "networks", "domainNames"],
        _ => &["namespaces", "pods"],
    };
    for peer in list.items() {
        one_property(errors, &peer, known);
        pods(errors, &peer);
        metadata::label_selector(errors, &peer.child("nodes"));
        let networks = peer.child("networks");
        least(errors, &networks);
        most(errors, &networks);
        for network in networks.items() {
            if names::parse_cidr(network.str()).is_none() {
                errors.push(network.invalid("Invalid CIDR format provided"));
            }
        }
        let domains = peer.child("domainNames");
        if domains.is_set() {
            errors.push(domains.forbidden("domain names are not supported: use networks"));
        }
    }
    let protocols = at.child("protocols");
    least(errors, &protocols);
    most(errors, &protocols);
    for protocol in protocols.items() {
        one_property(errors, &protocol, &["tcp", "udp", "sctp", "destinationNamedPort"]);
        for word in ["tcp", "udp", "sctp"] {
            let ports = protocol.child(word);
            if ports.is_set() {
                one_property(errors, &ports, &["destinationPort"]);
                port(errors, &ports.child("destinationPort"));
            }
        }
    }
    let named = protocols.items().iter().any(|p| p.child("destinationNamedPort").is_set());
    let unnamed =
        |peer: &At<'_>| ["networks", "nodes", "domainNames"].iter().any(|field| peer.child(field).is_set());
    if named && list.items().iter().any(unnamed) {
        errors.push(at.invalid(
            "networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for \
             networks/nodes/domainNames",
        ));
    }
}

fn port(errors: &mut ErrorList, at: &At<'_>) {
    if !at.is_set() {
        return;
    }
    one_property(errors, at, &["number", "range"]);
    range(errors, &at.child("number"), 1, 65535);
    let ports = at.child("range");
    if ports.is_set() {
        for field in ["start", "end"] {
            required(errors, &ports.child(field));
            range(errors, &ports.child(field), 1, 65535);
        }
        if let (Some(start), Some(end)) = (ports.child("start").int(), ports.child("end").int())
            && start >= end
        {
            errors.push(ports.invalid("Start port must be less than End port"));
        }
    }
}

/// The selectors of a subject or a peer.
fn pods(errors: &mut ErrorList, at: &At<'_>) {
    metadata::label_selector(errors, &at.child("namespaces"));
    let pods = at.child("pods");
    if pods.is_set() {
        metadata::label_selector(errors, &pods.child("namespaceSelector"));
        required(errors, &pods.child("podSelector"));
        metadata::label_selector(errors, &pods.child("podSelector"));
    }
}

fn required(errors: &mut ErrorList, at: &At<'_>) {
    if !at.is_set() {
        errors.push(at.required(""));
    }
}

fn range(errors: &mut ErrorList, at: &At<'_>, least: i64, most: i64) {
    let Some(value) = at.int() else { return };
    let path = &at.path;
    if value < least {
        errors.push(at.invalid(format!("{path} in body should be greater than or equal to {least}")));
    }
    if value > most {
        errors.push(at.invalid(format!("{path} in body should be less than or equal to {most}")));
    }
}

/// `minItems: 1`
fn least(errors: &mut ErrorList, at: &At<'_>) {
    if at.is_set() && at.items().is_empty() {
        errors.push(Error::invalid(&at.path, 0, format!("{} in body should have at least 1 items", at.path)));
    }
}

/// `maxItems: 25`
fn most(errors: &mut ErrorList, at: &At<'_>) {
    let many = at.items().len();
    if many > MOST {
        errors.push(Error::too_many(&at.path, many, MOST));
    }
}

/// `minProperties: 1` and `maxProperties: 1`
fn one_property(errors: &mut ErrorList, at: &At<'_>, fields: &[&str]) {
    let many = fields.iter().filter(|field| at.child(field).is_set()).count();
    let path = &at.path;
    if many == 0 {
        let detail = format!("{path} in body should have at least 1 properties");
        errors.push(Error::invalid(path, at.value(), detail));
    }
    if many > 1 {
        errors.push(Error::too_many(path, many, 1));
    }
}
