//! NetworkPolicies: ports, peers, blocks of addresses.

use super::view::At;
use super::{metadata, names};
use crate::field::{Error, ErrorList};

pub(super) fn network_policy(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    metadata::label_selector(errors, &spec.child("podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.child(direction).items() {
            for at in rule.child("ports").items() {
                port(errors, &at);
            }
            for at in rule.child(peers).items() {
                peer(errors, &at);
            }
        }
    }
    let types = spec.child("policyTypes");
    if types.items().len() > 2 {
        errors.push(types.invalid("may not specify more than two policyTypes"));
        return;
    }
    for kind in types.items() {
        kind.one_of_set(errors, &["Ingress", "Egress"]);
    }
}

fn port(errors: &mut ErrorList, at: &At<'_>) {
    at.child("protocol").one_of_set(errors, &["TCP", "UDP", "SCTP"]);
    let (port, end) = (at.child("port"), at.child("endPort"));
    if !port.is_set() {
        if end.is_set() {
            errors.push(end.invalid("may not be specified when `port` is not specified"));
        }
    } else if port.is_string() {
        if end.is_set() {
            errors.push(end.invalid("may not be specified when `port` is non-numeric"));
        }
        port.port_number_or_name(errors);
    } else {
        port.port_number_or_name(errors);
        if let Some(last) = end.int() {
            if last < port.int().unwrap_or(0) {
                errors.push(end.invalid("must be greater than or equal to `port`"));
            }
            end.in_range(errors, 1, 65535);
        }
    }
}

fn peer(errors: &mut ErrorList, at: &At<'_>) {
    let (pods, namespaces, block) =
        (at.child("podSelector"), at.child("namespaceSelector"), at.child("ipBlock"));
    for selector in [&pods, &namespaces] {
        metadata::label_selector(errors, selector);
    }
    if block.is_set() {
        ip_block(errors, &block);
    }
    match (block.is_set(), pods.is_set() || namespaces.is_set()) {
        (false, false) => errors.push(at.required("must specify a peer")),
        (true, true) => errors.push(at.forbidden("may not specify both ipBlock and another peer")),
        _ => {}
    }
}

fn ip_block(errors: &mut ErrorList, block: &At<'_>) {
    let cidr = block.child("cidr");
    if cidr.str().is_empty() {
        errors.push(cidr.required(""));
        return;
    }
    cidr.invalid_each(errors, names::cidr(cidr.str()));
    let Some(outer) = names::parse_cidr(cidr.str()) else { return };
    for except in block.child("except").items() {
        except.invalid_each(errors, names::cidr(except.str()));
        let Some(inner) = names::parse_cidr(except.str()) else { continue };
        if inner.1 <= outer.1 || !contains(outer, inner.0) {
            errors.push(Error::invalid(&except.path, except.str(), "must be a strict subset of `cidr`"));
        }
    }
}

fn contains((network, length): (std::net::IpAddr, u8), address: std::net::IpAddr) -> bool {
    use std::net::IpAddr::{V4, V6};
    // Shifting by the whole width is not defined, so length 0 is its own case.
    match (network, address) {
        _ if network.is_ipv4() != address.is_ipv4() => false,
        _ if length == 0 => true,
        (V4(n), V4(a)) => n.to_bits() >> (32 - length) == a.to_bits() >> (32 - length),
        (V6(n), V6(a)) => n.to_bits() >> (128 - length) == a.to_bits() >> (128 - length),
        _ => false,
    }
}
