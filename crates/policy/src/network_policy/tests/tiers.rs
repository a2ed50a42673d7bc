//! ClusterNetworkPolicies: who is asked first, what passes on, and what fails closed.

use serde_json::json;

use super::tables::{check, cluster, policy};
use super::*;

fn tier(name: &str, tier: &str, priority: i32, rest: serde_json::Value) -> ClusterNetworkPolicy {
    let mut spec = json!({ "tier": tier, "priority": priority, "subject": { "namespaces": {} } });
    spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap()
}

fn with(policies: Vec<NetworkPolicy>, tiers: Vec<ClusterNetworkPolicy>) -> Objects {
    Objects { cluster_policies: tiers, ..cluster(policies) }
}

fn default_deny() -> Vec<NetworkPolicy> {
    vec![policy("foo", json!({ "podSelector": {} }))]
}

#[test]
fn admin_decides_before_network_policies() {
    let web = json!([{ "pods": { "podSelector": { "matchLabels": { "app": "webserver" } } } }]);
    let port = json!([{ "tcp": { "destinationPort": { "number": 5432 } } }]);
    let accept =
        tier("a", "Admin", 1, json!({ "ingress": [{ "action": "Accept", "from": web, "protocols": port }] }));
    check(
        &with(default_deny(), vec![accept]),
        &[
            ("web", "db", "TCP/5432", true),
            ("web", "db", "UDP/5432", false),
            ("web", "db", "TCP/80", false),
            ("cart", "db", "TCP/5432", false),
            ("cart", "other", "TCP/1", true), // no NetworkPolicy there, no rule that matches
        ],
    );
    let open = vec![policy("foo", json!({ "podSelector": {}, "ingress": [{}] }))];
    let deny = tier("a", "Admin", 1, json!({ "ingress": [{ "action": "Deny", "from": web }] }));
    check(&with(open, vec![deny]), &[("web", "db", "TCP/1", false), ("cart", "db", "TCP/1", true)]);
}

#[test]
fn baseline_decides_only_where_no_network_policy_isolates() {
    let deny = || {
        tier("b", "Baseline", 1, json!({ "ingress": [{ "action": "Deny", "from": [{ "namespaces": {} }] }] }))
    };
    let open = vec![policy("foo", json!({ "podSelector": {}, "ingress": [{}] }))];
    check(
        &with(open, vec![deny()]),
        &[("web", "db", "TCP/1", true), ("web", "cart", "TCP/1", false), ("world", "cart", "TCP/1", true)],
    );
    // An egress policy does not isolate ingress.
    let egress = vec![policy("foo", json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{}] }))];
    check(&with(egress, vec![deny()]), &[("web", "db", "TCP/1", false)]);
}

#[test]
fn pass_skips_the_rest_of_its_tier() {
    let all = json!([{ "namespaces": {} }]);
    let foo = json!([{ "pods": { "podSelector": { "matchLabels": { "app": "shopping-cart" } } } }]);
    let pass = tier("a", "Admin", 1, json!({ "ingress": [{ "action": "Pass", "from": foo }] }));
    let deny = tier("z", "Admin", 2, json!({ "ingress": [{ "action": "Deny", "from": all }] }));
    let baseline = tier("b", "Baseline", 0, json!({ "ingress": [{ "action": "Deny", "from": all }] }));
    let objects = with(Vec::new(), vec![deny.clone(), pass.clone()]);
    check(&objects, &[("cart", "db", "TCP/1", true), ("web", "db", "TCP/1", false)]);
    check(&with(default_deny(), vec![deny.clone(), pass.clone()]), &[("cart", "db", "TCP/1", false)]);
    check(&with(Vec::new(), vec![deny, pass, baseline]), &[("cart", "db", "TCP/1", false)]);
    let pass = tier(
        "p",
        "Baseline",
        0,
        json!({ "ingress": [{ "action": "Pass", "from": all }, { "action": "Deny", "from": all }] }),
    );
    check(&with(Vec::new(), vec![pass]), &[("cart", "db", "TCP/1", true)]);
}

#[test]
fn the_lower_priority_is_asked_first_and_rules_in_their_order() {
    let all = json!([{ "namespaces": {} }]);
    let rule = |action: &str| json!({ "ingress": [{ "action": action, "from": all }] });
    let both = |accept, deny| {
        vec![tier("a", "Admin", accept, rule("Accept")), tier("b", "Admin", deny, rule("Deny"))]
    };
    check(&with(Vec::new(), both(5, 6)), &[("web", "db", "TCP/1", true)]);
    check(&with(Vec::new(), both(6, 5)), &[("web", "db", "TCP/1", false)]);
    check(&with(Vec::new(), both(5, 5)), &[("web", "db", "TCP/1", true)]); // by name
    let order = json!({ "ingress": [
        { "action": "Deny", "from": all, "protocols": [{ "tcp": { "destinationPort": { "range": { "start": 1, "end": 9 } } } }] },
        { "action": "Accept", "from": all }, { "action": "Deny", "from": all }] });
    check(
        &with(default_deny(), vec![tier("a", "Admin", 0, order)]),
        &[("web", "db", "TCP/9", false), ("web", "db", "TCP/10", true), ("web", "db", "ICMP", true)],
    );
}

#[test]
fn networks_and_nodes_are_egress_peers_and_named_ports_are_the_servers() {
    let node = |name: &str, address: &str, role: &str| -> Node {
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "role": role } },
            "status": { "addresses": [{ "type": "InternalIP", "address": address }] } }))
        .unwrap()
    };
    let deny = tier(
        "a",
        "Admin",
        0,
        json!({ "egress": [
        { "action": "Accept", "to": [{ "nodes": { "matchLabels": { "role": "api" } } }],
          "protocols": [{ "tcp": { "destinationPort": { "number": 6443 } } }] },
        { "action": "Deny", "to": [{ "nodes": {} }, { "networks": ["192.0.2.0/24", "192.0.2.9/32", "fd00::/8"] }] },
        { "action": "Deny", "to": [{ "namespaces": {} }], "protocols": [{ "destinationNamedPort": "web" }] }] }),
    );
    let mut objects = with(Vec::new(), vec![deny]);
    objects.nodes = vec![node("node-1", "10.88.0.2", "api"), node("node-2", "10.88.0.3", "")];
    check(
        &objects,
        &[
            ("web", "10.88.0.2", "TCP/6443", true),
            ("web", "10.88.0.3", "TCP/6443", false),
            ("web", "10.88.0.2", "TCP/22", false),
            ("web", "world", "ICMP", false),
            ("web", "192.0.3.1", "TCP/1", true),
            ("web", "db", "TCP/8080", false), // the database's `web`
            ("web", "db", "TCP/80", true),
        ],
    );
}

#[test]
fn what_cannot_be_understood_fails_closed() {
    let all = json!([{ "namespaces": {} }]);
    let table = [
        (
            json!({ "ingress": [{ "action": "Accept", "from": [{}] }] }),
            "spec.ingress[0].from[0]: must set",
            true,
        ),
        (
            json!({ "ingress": [{ "action": "Pass", "from": [{}] }] }),
            "spec.ingress[0].from[0]: must set",
            false,
        ),
        (
            json!({ "ingress": [{ "action": "Deny", "from": [{}] }] }),
            "spec.ingress[0].from[0]: must set",
            false,
        ),
        (
            json!({ "ingress": [{ "action": "Maybe", "from": all }] }),
            "spec.ingress[0].action: unknown",
            false,
        ),
        (
            json!({ "ingress": [{ "action": "Deny", "from": [{ "nodes": {} }] }] }),
            "spec.ingress[0].from[0].nodes:",
            false,
        ),
        (json!({ "subject": {}, "ingress": [] }), "spec.subject: must set", false),
        (json!({ "tier": "Middle" }), "spec.tier: unknown", false),
    ];
    for (spec, path, allowed) in table {
        let policy = tier("a", "Admin", 0, spec.clone());
        let error = ClusterPolicy::from_api(&policy).1.unwrap_or_else(|| panic!("{spec}")).to_string();
        assert!(error.starts_with(path), "{error}");
        let rules = with(Vec::new(), vec![policy]).rule_set("node-1");
        let flow = Flow {
            client: ip("10.244.2.14"),
            server: ip("10.244.1.11"),
            layer4: Layer4::Port(Protocol::Tcp, 1),
        };
        assert_eq!(rules.judge(&flow), allowed, "{spec}");
    }
    let names = json!({ "egress": [{ "action": "Accept", "to": [{ "domainNames": ["kubernetes.io"] }] }] });
    let error = ClusterPolicy::from_api(&tier("a", "Admin", 0, names)).1.unwrap().to_string();
    assert_eq!(error, "spec.egress[0].to[0].domainNames: domain names are not supported");
}

#[test]
fn pods_share_chains_and_a_tier_leads_to_the_chain_behind_it() {
    let all = json!([{ "namespaces": {} }]);
    let admin = tier("a", "Admin", 0, json!({ "ingress": [{ "action": "Deny", "from": all }] }));
    let baseline = tier("b", "Baseline", 0, json!({ "ingress": [{ "action": "Deny", "from": all }] }));
    let mut objects = with(default_deny(), vec![admin, baseline]);
    objects.pods.push(objects.pods[0].clone());
    let rules = objects.rule_set("node-1");
    // foo: admin → its NetworkPolicy; shop: admin → baseline. bar has no pod on this node.
    assert_eq!(rules.chains.len(), 4, "{:#?}", rules.chains);
    let ends: Vec<_> = rules.ingress.values().map(|name| &rules.chains[name].end).collect();
    for end in ends {
        let ir::End::Goto(next) = end else { panic!("{end:?}") };
        assert!(rules.chains.contains_key(next));
    }
}
