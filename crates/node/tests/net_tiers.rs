//! ClusterNetworkPolicies on the wire, in both families: Admin before NetworkPolicies, Baseline behind them, and open
//! connections too.

mod net_common;

use std::net::SocketAddr;

use net_common::*;
use policy::network_policy::{ClusterPolicy, Event};
use testkit::net::{PATIENCE, echoes};
use testkit::wire::{Fate, SCTP, Shot, TCP, UDP, Wire};

fn tier(name: &str, tier: &str, rules: &str) -> Event {
    let text = format!(
        "{{metadata: {{name: {name}}}, spec: {{tier: {tier}, priority: 1, subject: {{namespaces: {{}}}}, {rules}}}}}"
    );
    let object = serde_yaml::from_str(&text).unwrap();
    let (policy, error) = ClusterPolicy::from_api(&object);
    assert_eq!(error, None);
    Event::UpsertClusterPolicy(policy)
}

/// The ends of the wire.
const WEB: usize = 0;
const FAR: usize = 1;
const DB: usize = 2;
const NODE: usize = 3;

#[test]
fn tiers_are_asked_in_their_order_by_every_packet() {
    needs_root!("tiers_are_asked_in_their_order_by_every_packet");
    let cluster = Cluster::dual(2);
    let web = cluster.pod(0, pod("foo", "web", &[("app", "web")]));
    let far = cluster.pod(1, pod("bar", "far", &[("app", "far")]));
    let db = cluster.pod(0, pod("foo", "db", &[("app", "db")]));
    db.netns.echo(&[90], &[]).unwrap();
    cluster.apply(&[namespace("foo", &[]), namespace("bar", &[])]);
    let nodes = [&cluster.nodes[0], &cluster.nodes[1]];
    let ends = [&web.netns, &far.netns, &db.netns, &nodes[0].netns];
    let wire = Wire::new(&ends, nodes.map(|node| (&node.netns, node.addresses.v4.node_ip))).unwrap();
    let mut source = 20_000;
    // To db, one of each protocol in each family.
    let mut shots = |client: usize, port: u16| -> Vec<Shot> {
        let own = match client {
            WEB => web.ips(),
            FAR => far.ips(),
            _ => nodes[0].ips(),
        };
        let mut all = Vec::new();
        for (from, to) in own.into_iter().zip(db.each(port)) {
            for protocol in [TCP, UDP, SCTP] {
                source += 1;
                all.push(Shot { client, from: SocketAddr::new(from, source), server: DB, to, protocol });
            }
        }
        all
    };
    let mut seen = |what: &str, want: [bool; 4]| {
        let probes = [(WEB, 80), (WEB, 81), (FAR, 80), (FAR, 81), (NODE, 80)];
        // The node reaches its own pod whatever is asked.
        let want = [want[0], want[1], want[2], want[3], true];
        let all: Vec<(Shot, bool)> = probes
            .into_iter()
            .zip(want)
            .flat_map(|((client, port), want)| shots(client, port).into_iter().map(move |shot| (shot, want)))
            .collect();
        let fired: Vec<Shot> = all.iter().map(|(shot, _)| *shot).collect();
        for ((shot, want), fate) in all.iter().zip(wire.fire(&fired).unwrap()) {
            let expected = if *want { Fate::Answered } else { Fate::Lost };
            assert_eq!(fate, expected, "{what}: {shot:?}");
        }
        for node in &cluster.nodes {
            assert_eq!(node.net.verify().unwrap(), [""; 0], "{what}");
        }
    };
    let remove = |name: &str| Event::RemoveClusterPolicy(name.into());
    // Rules that name a port name it for each protocol.
    let port = |number: u16| {
        let each = ["tcp", "udp", "sctp"]
            .map(|name| format!("{{{name}: {{destinationPort: {{number: {number}}}}}}}"));
        format!("protocols: [{}]", each.join(", "))
    };
    seen("no policy", [true; 4]);

    let far_pods = "[{pods: {podSelector: {matchLabels: {app: far}}}}]";
    let all = "[{namespaces: {}}]";
    let mut open: Vec<_> =
        db.each(90).into_iter().map(|to| far.netns.connect(to, PATIENCE).unwrap()).collect();
    assert!(open.iter_mut().all(|stream| echoes(stream, PATIENCE)));
    let datagrams: Vec<Shot> = db
        .each(80)
        .into_iter()
        .zip(far.ips())
        .map(|(to, from)| Shot { client: FAR, from: SocketAddr::new(from, 7), server: DB, to, protocol: UDP })
        .collect();
    assert_eq!(wire.fire(&datagrams).unwrap(), [Fate::Answered; 2]);
    cluster.apply(&[tier("base", "Baseline", &format!("ingress: [{{action: Deny, from: {far_pods}}}]"))]);
    seen("Baseline denies where no NetworkPolicy isolates", [true, true, false, false]);
    assert_eq!(wire.follow_up(&datagrams).unwrap(), [false; 2], "open flows end too");
    for stream in &mut open {
        assert!(!echoes(stream, testkit::net::GRACE), "open connections end too: {stream:?}");
    }

    let ports =
        ["TCP", "UDP", "SCTP"].map(|protocol| format!("{{protocol: {protocol}, port: 81}}")).join(", ");
    let only_81 = format!(
        "{{metadata: {{name: np, namespace: foo}}, spec: {{podSelector: {{}}, ingress: [{{ports: [{ports}]}}]}}}}"
    );
    cluster.apply(&[policy(&only_81)]);
    seen("a NetworkPolicy isolates: Baseline is not asked", [false, true, false, true]);

    let accept = format!("ingress: [{{action: Accept, from: {far_pods}, {}}}]", port(80));
    cluster.apply(&[tier("admin", "Admin", &accept)]);
    seen("Admin accepts before the NetworkPolicy", [false, true, true, true]);

    let rules = format!("ingress: [{{action: Pass, from: {far_pods}}}, {{action: Deny, from: {all}}}]");
    cluster.apply(&[tier("admin", "Admin", &rules)]);
    seen("Admin passes one on and denies the rest", [false, false, false, true]);

    let networks = "[{networks: ['fd00:cf:244::/56', '10.244.0.0/16']}]";
    let rules = format!("egress: [{{action: Deny, to: {networks}, {}}}]", port(80));
    cluster.apply(&[tier("admin", "Admin", &rules)]);
    seen("Admin denies egress to networks of both families, to a port", [false, true, false, true]);

    cluster.apply(&[tier("admin", "Admin", &format!("egress: [{{action: Deny, to: {all}, {}}}]", port(80)))]);
    seen("Admin denies egress to a port", [false, true, false, true]);

    cluster.apply(&[remove("admin"), Event::RemovePolicy { namespace: "foo".into(), name: "np".into() }]);
    seen("Baseline is what is left", [true, true, false, false]);
    cluster.apply(&[remove("base")]);
    seen("no policy again", [true; 4]);
    assert_eq!(wire.follow_up(&datagrams).unwrap(), [true; 2], "and open flows go on");
}
