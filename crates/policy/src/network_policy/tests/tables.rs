use serde_json::json;

use super::*;
use crate::network_policy::ir::{Change, Element, SetKind, Verdict};

pub(super) fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod(namespace: &str, name: &str, address: &str, labels: serde_json::Value) -> Pod {
    let node = if address.ends_with(['1', '3', '5', '7', '9']) { "node-1" } else { "node-2" };
    from(json!({
        "metadata": { "namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"), "labels": labels },
        "spec": { "nodeName": node, "containers": [{ "name": "c", "ports": [
            { "name": "web", "containerPort": if name == "db" { 8080 } else { 80 } },
            { "name": "dns", "containerPort": 53, "protocol": "UDP" },
        ]}]},
        "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
                    "hostIP": if node == "node-1" { "10.88.0.2" } else { "10.88.0.3" } },
    }))
}

pub(super) fn policy(namespace: &str, spec: serde_json::Value) -> NetworkPolicy {
    from(json!({ "metadata": { "namespace": namespace, "name": "p" }, "spec": spec }))
}

/// foo: web .11, db .12; shop: cart .13 (namespace tenant=manning); bar: other .14; outside 192.0.2.9.
pub(super) fn cluster(policies: Vec<NetworkPolicy>) -> Objects {
    let namespace =
        |name: &str, labels: serde_json::Value| from(json!({"metadata": {"name": name, "labels": labels}}));
    Objects {
        pods: vec![
            pod("foo", "web", "10.244.1.11", json!({"app": "webserver"})),
            pod("foo", "db", "10.244.2.12", json!({"app": "database"})),
            pod("shop", "cart", "10.244.1.13", json!({"app": "shopping-cart"})),
            pod("bar", "other", "10.244.2.14", json!({"app": "webserver"})),
        ],
        namespaces: vec![
            namespace("foo", json!({})),
            namespace("shop", json!({"tenant": "manning"})),
            namespace("bar", json!({"tenant": "other"})),
        ],
        policies,
        ..Objects::default()
    }
}

fn flow(client: &str, server: &str, port: &str) -> Flow {
    let address = |name: &str| match name {
        "web" => ip("10.244.1.11"),
        "db" => ip("10.244.2.12"),
        "cart" => ip("10.244.1.13"),
        "other" => ip("10.244.2.14"),
        "world" => ip("192.0.2.9"),
        text => ip(text),
    };
    let layer4 = match port.split_once('/') {
        Some((protocol, port)) => Layer4::Port(Protocol::parse(protocol).unwrap(), port.parse().unwrap()),
        None => Layer4::Other(1),
    };
    Flow { client: address(client), server: address(server), layer4 }
}

/// Each row: client, server, port, may pass. Said by the evaluator and by the nodes' rule sets.
pub(super) fn check(objects: &Objects, rows: &[(&str, &str, &str, bool)]) {
    for (client, server, port, expected) in rows {
        let flow = flow(client, server, port);
        let explanation = reasons(&objects.cluster(), &flow);
        assert_eq!(explanation.allowed, *expected, "{client} -> {server} {port}: {explanation:?}");
        assert_eq!(objects.judged_by_nodes(&flow), *expected, "rule sets: {client} -> {server} {port}");
    }
}

#[test]
fn without_policies_everything_passes() {
    let objects = cluster(vec![]);
    check(
        &objects,
        &[("web", "db", "TCP/5432", true), ("world", "db", "ICMP", true), ("db", "world", "UDP/53", true)],
    );
    assert_eq!(objects.rule_set("node-1"), RuleSet::default());
}

#[test]
fn default_deny_shuts_ingress_from_inside_and_outside_the_namespace() {
    let objects = cluster(vec![policy("foo", json!({ "podSelector": {} }))]);
    check(
        &objects,
        &[
            ("web", "db", "TCP/5432", false),
            ("cart", "db", "TCP/5432", false),
            ("world", "db", "TCP/5432", false),
            ("web", "db", "ICMP", false),
            ("db", "cart", "TCP/80", true),
            ("db", "world", "TCP/80", true),
        ],
    );
}

#[test]
fn a_pod_reaches_itself_whatever_policies_say() {
    let all = json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] });
    check(
        &cluster(vec![policy("foo", all)]),
        &[("db", "db", "TCP/5432", true), ("db", "web", "TCP/80", false)],
    );
}

#[test]
fn the_node_of_a_pod_reaches_it_and_other_nodes_do_not() {
    let objects = cluster(vec![policy("foo", json!({ "podSelector": {} }))]);
    assert_eq!(reasons(&objects.cluster(), &flow("10.88.0.3", "db", "TCP/1")).ingress, Side::FromItsNode);
    check(&objects, &[("10.88.0.2", "db", "TCP/1", false)]);
}

#[test]
fn only_the_web_server_reaches_the_database_and_only_on_its_port() {
    let spec = json!({
        "podSelector": { "matchLabels": { "app": "database" } },
        "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "webserver" } } }], "ports": [{ "port": 5432 }] }],
    });
    check(
        &cluster(vec![policy("foo", spec)]),
        &[
            ("web", "db", "TCP/5432", true),
            ("web", "db", "UDP/5432", false),
            ("web", "db", "TCP/5433", false),
            ("other", "db", "TCP/5432", false), // the same label in another namespace
            ("world", "db", "TCP/5432", false),
            ("db", "web", "TCP/80", true),
        ],
    );
}

#[test]
fn selectors_of_one_peer_are_both_asked_and_those_of_two_peers_either() {
    let tenant = json!({ "matchLabels": { "tenant": "manning" } });
    let app = json!({ "matchLabels": { "app": "shopping-cart" } });
    let with = |from: serde_json::Value| {
        cluster(vec![policy("foo", json!({ "podSelector": {}, "ingress": [{ "from": from }] }))])
    };
    let both = with(json!([{ "namespaceSelector": tenant, "podSelector": app }]));
    check(
        &both,
        &[("cart", "db", "TCP/1", true), ("other", "db", "TCP/1", false), ("web", "db", "TCP/1", false)],
    );
    let web = json!({ "matchLabels": { "app": "webserver" } });
    let either = with(json!([{ "namespaceSelector": tenant }, { "podSelector": web }]));
    check(
        &either,
        &[("cart", "db", "TCP/1", true), ("web", "db", "TCP/1", true), ("other", "db", "TCP/1", false)],
    );
    let neither = with(json!([{ "namespaceSelector": tenant, "podSelector": web }]));
    check(&neither, &[("cart", "db", "TCP/1", false), ("web", "db", "TCP/1", false)]);
}

#[test]
fn an_empty_namespace_selector_means_pods_of_all_namespaces_and_nobody_outside() {
    let spec = json!({ "podSelector": {}, "ingress": [{ "from": [{ "namespaceSelector": {} }] }] });
    check(
        &cluster(vec![policy("foo", spec)]),
        &[("other", "db", "TCP/1", true), ("world", "db", "TCP/1", false)],
    );
}

#[test]
fn an_empty_rule_allows_all_and_an_empty_list_nothing() {
    let open = json!({ "podSelector": {}, "ingress": [{}] });
    check(&cluster(vec![policy("foo", open)]), &[("world", "db", "ICMP", true)]);
    let shut = json!({ "podSelector": {}, "ingress": [] });
    check(&cluster(vec![policy("foo", shut)]), &[("world", "db", "ICMP", false)]);
}

#[test]
fn egress_isolates_only_where_it_is_asked_for() {
    let rules = json!([{ "to": [{ "podSelector": { "matchLabels": { "app": "database" } } }], "ports": [{ "port": 5432 }] }]);
    let only = json!({ "podSelector": { "matchLabels": { "app": "webserver" } }, "policyTypes": ["Egress"], "egress": rules });
    check(
        &cluster(vec![policy("foo", only)]),
        &[
            ("web", "db", "TCP/5432", true),
            ("web", "db", "TCP/80", false),
            ("web", "world", "UDP/53", false),
            ("db", "web", "TCP/80", true),
        ],
    );
    // Without policyTypes, egress rules isolate both ways.
    let both = json!({ "podSelector": { "matchLabels": { "app": "webserver" } }, "egress": rules });
    check(
        &cluster(vec![policy("foo", both)]),
        &[("db", "web", "TCP/80", false), ("web", "world", "UDP/53", false)],
    );
    // policyTypes without Ingress: ingress rules are not looked at.
    let ignored = json!({ "podSelector": {}, "policyTypes": ["Egress"], "ingress": [], "egress": [{}] });
    check(
        &cluster(vec![policy("foo", ignored)]),
        &[("world", "web", "TCP/80", true), ("web", "world", "TCP/80", true)],
    );
}

#[test]
fn policies_add_up() {
    let mut objects = cluster(vec![
        policy("foo", json!({ "podSelector": {} })),
        policy(
            "foo",
            json!({ "podSelector": { "matchLabels": { "app": "database" } },
            "ingress": [{ "ports": [{ "port": 5432 }] }] }),
        ),
        policy(
            "foo",
            json!({ "podSelector": { "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["webserver"] }] },
            "ingress": [{ "from": [{ "ipBlock": { "cidr": "192.0.2.0/24", "except": ["192.0.2.8/32"] } }] }] }),
        ),
    ]);
    for (index, policy) in objects.policies.iter_mut().enumerate() {
        policy.metadata.name = Some(format!("p{index}"));
    }
    check(
        &objects,
        &[
            ("web", "db", "TCP/5432", true),
            ("world", "db", "TCP/22", true),
            ("192.0.2.8", "db", "TCP/22", false),
            ("192.0.2.8", "db", "TCP/5432", true),
            ("web", "db", "TCP/22", false),
            ("db", "web", "TCP/5432", false),
        ],
    );
    let why = reasons(&objects.cluster(), &flow("world", "db", "TCP/5432"));
    let Side::Allowed { isolated_by, by } = why.ingress else { panic!("{why:?}") };
    assert_eq!(isolated_by, ["foo/p0", "foo/p1", "foo/p2"]);
    let by: Vec<_> = by.iter().map(|r| (r.policy.as_str(), r.rule, r.peer, r.port)).collect();
    assert_eq!(by, [("foo/p1", 0, None, Some(0)), ("foo/p2", 0, Some(0), None)]);
    assert_eq!(why.egress, Side::NotAPod);
}

#[test]
fn ranges_protocols_and_named_ports() {
    let spec = json!({ "podSelector": {}, "ingress": [{ "ports": [
        { "port": 1000, "endPort": 2000 }, { "protocol": "UDP" }, { "protocol": "SCTP", "port": 7 }, { "port": "web" } ] }] });
    check(
        &cluster(vec![policy("foo", spec)]),
        &[
            ("cart", "db", "TCP/999", false),
            ("cart", "db", "TCP/1000", true),
            ("cart", "db", "TCP/2000", true),
            ("cart", "db", "TCP/2001", false),
            ("cart", "db", "UDP/9", true),
            ("cart", "db", "SCTP/7", true),
            ("cart", "db", "SCTP/8", false),
            ("cart", "db", "ICMP", false),
            ("cart", "db", "TCP/8080", true), // each pod's own `web`
            ("cart", "db", "TCP/80", false),
            ("cart", "web", "TCP/80", true),
            ("cart", "web", "TCP/8080", false),
        ],
    );
    // In egress a named port is the peer's; outside of the cluster it is nowhere.
    let spec = json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{ "ports": [{ "port": "web" }, { "port": "dns", "protocol": "UDP" }] }] });
    check(
        &cluster(vec![policy("foo", spec)]),
        &[
            ("web", "db", "TCP/8080", true),
            ("web", "db", "TCP/80", false),
            ("db", "cart", "TCP/80", true),
            ("db", "cart", "UDP/53", true),
            ("db", "cart", "TCP/53", false),
            ("db", "world", "TCP/80", false),
        ],
    );
}

#[test]
fn host_network_and_finished_pods_are_nobody_and_terminating_ones_stay_guarded() {
    let spec = json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }] }] });
    let mut objects = cluster(vec![policy("foo", spec)]);
    check(&objects, &[("web", "db", "TCP/1", true)]);
    objects.pods[0].spec.as_mut().unwrap().host_network = Some(true);
    check(&objects, &[("web", "db", "TCP/1", false), ("world", "web", "TCP/1", true)]);
    let mut objects = cluster(objects.policies);
    objects.pods[0].status.as_mut().unwrap().phase = Some("Succeeded".into());
    check(&objects, &[("web", "db", "TCP/1", false)]);
    let mut objects = cluster(objects.policies);
    for pod in &mut objects.pods {
        pod.metadata.deletion_timestamp = Some(from(json!("2026-01-01T00:00:00Z")));
    }
    check(&objects, &[("web", "db", "TCP/1", true), ("world", "db", "TCP/1", false)]);
}

#[test]
fn a_policy_that_cannot_be_parsed_isolates_and_allows_nothing() {
    for (spec, path) in [
        (
            json!({ "podSelector": {}, "ingress": [{ "from": [{}] }] }),
            "spec.ingress[0].from[0]: must specify a peer",
        ),
        (
            json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": 0 }] }] }),
            "spec.ingress[0].ports[0].port:",
        ),
        (
            json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": 9, "endPort": 8 }] }] }),
            "spec.ingress[0].ports[0].endPort:",
        ),
        (
            json!({ "podSelector": {}, "ingress": [{ "from": [{ "ipBlock": { "cidr": "10.0.0.0" } }] }] }),
            "spec.ingress[0].from[0].ipBlock.cidr:",
        ),
        (
            json!({ "podSelector": { "matchExpressions": [{ "key": "a", "operator": "Near" }] } }),
            "spec.podSelector:",
        ),
    ] {
        let (closed, error) = Policy::from_api(&policy("foo", spec.clone()));
        let error = error.unwrap_or_else(|| panic!("{spec}")).to_string();
        assert!(error.starts_with(path), "{error}");
        assert_eq!((closed.egress, closed.ingress), (Some(vec![]), Some(vec![])), "{spec}");
    }
}

#[test]
fn a_pod_that_joins_is_one_verdict_and_its_memberships() {
    let spec = json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }], "ports": [{ "port": 5432 }] }] });
    let objects = cluster(vec![policy("foo", spec)]);
    let mut compiler = Compiler::new(&[Family::V4]);
    compiler.apply(objects.events("node-1"));
    let joins = pod("foo", "web-2", "10.244.1.15", json!({"app": "webserver"}));
    let changes = compiler.upsert_pod(PodRecord::from_api(&joins, "node-1"));
    match changes.as_slice() {
        [
            Change::AddElements { elements, .. },
            Change::AddVerdicts { direction: Direction::Ingress, verdicts },
        ] => {
            assert_eq!(elements, &[Element::Address(ip("10.244.1.15"))]);
            assert_eq!(verdicts.len(), 1);
        }
        other => panic!("{other:#?}"),
    }
    let back = compiler.remove_pod("foo-web-2");
    assert_eq!(back.len(), 2, "{back:#?}");
    assert!(compiler.remove_pod("foo-web-2").is_empty());
}

#[test]
fn a_policy_that_changes_replaces_the_rules_and_leaves_the_verdicts() {
    let with =
        |port: u16| policy("foo", json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": port }] }] }));
    let mut compiler = Compiler::new(&[Family::V4]);
    compiler.apply(cluster(vec![with(1)]).events("node-1"));
    let changes = compiler.upsert_policy(Policy::from_api(&with(2)).0);
    assert!(matches!(changes.as_slice(), [Change::ReplaceChain { .. }]), "{changes:#?}");
    assert!(compiler.upsert_policy(Policy::from_api(&with(2)).0).is_empty());
}

#[test]
fn policies_share_sets_and_only_policies_with_local_subjects_are_compiled() {
    let spec = |subject: &str| {
        json!({ "podSelector": { "matchLabels": { "app": subject } },
                "ingress": [{ "from": [{ "namespaceSelector": {} }] }] })
    };
    let mut objects = cluster(vec![policy("foo", spec("webserver")), policy("shop", spec("shopping-cart"))]);
    objects.policies.push(policy("bar", spec("webserver")));
    let rules = objects.rule_set("node-1");
    assert_eq!((rules.sets.len(), rules.chains.len(), rules.ingress.len()), (1, 2, 2));
    let set = rules.sets.values().next().unwrap();
    assert_eq!((&set.of.kind, set.elements.len()), (&SetKind::Pods, 4), "pods of the whole cluster");
    assert_eq!(rules.look_up(Direction::Egress, &flow("web", "db", "TCP/1")), Verdict::NotIsolated);
}

#[test]
fn an_address_given_out_again_is_its_new_pods() {
    let spec = json!({ "podSelector": { "matchLabels": { "app": "database" } } });
    let mut objects = cluster(vec![policy("foo", spec)]);
    objects.pods[1].metadata.creation_timestamp = Some(from(json!("2026-01-01T00:00:00Z")));
    let mut young = pod("foo", "young", "10.244.2.12", json!({"app": "open"}));
    young.metadata.creation_timestamp = Some(from(json!("2026-01-02T00:00:00Z")));
    check(&objects, &[("web", "db", "TCP/1", false)]);
    objects.pods.push(young);
    check(&objects, &[("web", "db", "TCP/1", true)]);
}

#[test]
fn an_ipv6_block_stops_nothing_else_in_a_v4_cluster() {
    let spec = json!({ "podSelector": {}, "ingress": [{ "from": [
        { "ipBlock": { "cidr": "fd00::/8" } }, { "ipBlock": { "cidr": "192.0.2.0/24" } } ] }] });
    check(
        &cluster(vec![policy("foo", spec)]),
        &[("world", "db", "TCP/1", true), ("198.51.100.1", "db", "TCP/1", false)],
    );
}
