//! Rules that say something else than people usually mean.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;

use super::super::ir::{Cidr, Direction, PortRange, Protocol};
use super::super::model::{AllowRule, Peer, Port};
use super::covers::holds;
use super::{Lint, Subject, field, labels, peers_field};
use crate::selector::Labels;

/// What a rule's peers are, as they are written.
fn written<'a>(policy: &Subject<'a>) -> Vec<(Direction, String, Option<&'a Vec<NetworkPolicyPeer>>)> {
    let Some(spec) = &policy.object.spec else { return Vec::new() };
    let path = |direction, index| format!("spec.{}[{index}].{}", field(direction), peers_field(direction));
    let egress = spec.egress.iter().flatten().enumerate();
    let egress =
        egress.map(|(index, rule)| (Direction::Egress, path(Direction::Egress, index), rule.to.as_ref()));
    let ingress = spec.ingress.iter().flatten().enumerate();
    let ingress = ingress
        .map(|(index, rule)| (Direction::Ingress, path(Direction::Ingress, index), rule.from.as_ref()));
    egress.chain(ingress).collect()
}

/// Two list items are either-or; one item with both selectors is both at once.
pub(super) const SELECTORS_APART: Lint = Lint {
    id: "selectors-apart",
    fix: "If pods with those labels in those namespaces were meant, write both selectors in one item (one dash).",
    run: |_, policy| {
        let mut found = Vec::new();
        for (_, path, peers) in written(policy) {
            for (index, pair) in peers.into_iter().flat_map(|peers| peers.windows(2)).enumerate() {
                let only = |peer: &NetworkPolicyPeer| match (&peer.namespace_selector, &peer.pod_selector) {
                    (Some(_), None) => Some(true),
                    (None, Some(_)) => Some(false),
                    _ => None,
                };
                if let (Some(first), Some(second)) = (only(&pair[0]), only(&pair[1]))
                    && first != second
                {
                    let own = &policy.parsed.namespace;
                    let message = format!(
                        "with the item behind it: every pod of the selected namespaces, and besides the selected pods of namespace {own}"
                    );
                    found.push((format!("{path}[{index}]"), message));
                }
            }
        }
        found
    },
};

/// An empty list of rules allows nobody; an empty list of peers everybody.
pub(super) const EMPTY_LIST: Lint = Lint {
    id: "empty-list-means-everyone",
    fix: "To allow nobody, remove the rule; to allow everyone, leave the field out.",
    run: |_, policy| {
        let empty = written(policy).into_iter().filter(|(_, _, peers)| peers.is_some_and(Vec::is_empty));
        let say = |(_, path, _)| {
            (path, "an empty list here means everyone, inside and outside the cluster".to_owned())
        };
        empty.map(say).collect()
    },
};

pub(super) const TYPE_MISSING: Lint = Lint {
    id: "rules-without-type",
    fix: "Add the direction to spec.policyTypes, or remove its rules.",
    run: |_, policy| {
        let Some(spec) = &policy.object.spec else { return Vec::new() };
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let rules = [
            ("Ingress", Direction::Ingress, spec.ingress.as_ref().is_some_and(|rules| !rules.is_empty())),
            ("Egress", Direction::Egress, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())),
        ];
        let idle = rules
            .into_iter()
            .filter(|(name, _, has)| *has && !types.is_empty() && !types.iter().any(|given| given == name));
        let say = |(name, direction, _)| {
            let message = format!("the rules do nothing: policyTypes does not have {name}");
            (format!("spec.{}", field(direction)), message)
        };
        idle.map(say).collect()
    },
};

/// A name is asked for over UDP first. A policy that allows nothing at all is taken at its word.
pub(super) const EGRESS_WITHOUT_DNS: Lint = Lint {
    id: "egress-without-dns",
    fix: "Add an egress rule to ports 53 UDP and TCP of the pods k8s-app: kube-dns in namespace kube-system.",
    run: |known, policy| {
        let rules = policy.parsed.rules(Direction::Egress).unwrap_or_default();
        if rules.is_empty() || rules.iter().any(allows_dns) {
            return Vec::new();
        }
        // Policies add up: another one may allow it to the same pods.
        let also = |labels: &Labels| {
            known.policies.iter().any(|other| {
                other.parsed.namespace == policy.parsed.namespace
                    && other.parsed.subject.matches(labels)
                    && other.parsed.rules(Direction::Egress).unwrap_or_default().iter().any(allows_dns)
            })
        };
        if !policy.pods.is_empty() && policy.pods.iter().all(|pod| also(&labels(pod))) {
            return Vec::new();
        }
        let message = "its pods cannot resolve names: no egress rule allows port 53 over UDP";
        vec![("spec.egress".to_owned(), message.to_owned())]
    },
};

/// Towards anybody: which server is the cluster's is not written in the policy.
fn allows_dns(rule: &AllowRule) -> bool {
    const DNS: u16 = 53;
    let is_dns = |port: &Port| match port {
        Port::Every(protocol) => *protocol == Protocol::Udp,
        Port::Range(protocol, PortRange { first, last }) => {
            *protocol == Protocol::Udp && (*first..=*last).contains(&DNS)
        }
        Port::Named(protocol, name) => *protocol == Protocol::Udp && name.contains("dns"),
        Port::NamedAny(name) => name.contains("dns"),
    };
    rule.ports.is_empty() || rule.ports.iter().any(is_dns)
}

pub(super) const BLOCK_OF_PODS: Lint = Lint {
    id: "block-of-pods",
    fix: "Select pods by their labels: addresses go from one pod to another.",
    run: |known, policy| {
        let mut found = Vec::new();
        for (direction, path, rule) in policy.rules() {
            for (index, peer) in rule.peers.iter().enumerate() {
                let Peer::Blocks(blocks) = peer else { continue };
                let within = |block: &Cidr| known.pod_ranges.iter().find(|range| holds(range, block));
                if let Some((block, range)) = blocks.iter().find_map(|block| Some((block, within(block)?))) {
                    let message = format!("{block} is within the range of the pods, {range}");
                    found.push((format!("{path}.{}[{index}]", peers_field(direction)), message));
                }
            }
        }
        found
    },
};
