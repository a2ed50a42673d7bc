//! ClusterNetworkPolicies on the wire: Admin before NetworkPolicies, Baseline behind them, and open connections too.

mod net_common;

use net_common::*;
use policy::network_policy::{ClusterPolicy, Event};
use testkit::net::{PATIENCE, echoes};

fn tier(name: &str, tier: &str, rules: &str) -> Event {
    let text = format!(
        "{{metadata: {{name: {name}}}, spec: {{tier: {tier}, priority: 1, subject: {{namespaces: {{}}}}, {rules}}}}}"
    );
    let object = serde_yaml::from_str(&text).unwrap();
    let (policy, error) = ClusterPolicy::from_api(&object);
    assert_eq!(error, None);
    Event::UpsertClusterPolicy(policy)
}

#[test]
fn tiers_are_asked_in_their_order_by_every_packet() {
    needs_root!("tiers_are_asked_in_their_order_by_every_packet");
    let cluster = Cluster::new(2);
    let web = cluster.pod(0, pod("foo", "web", &[("app", "web")]));
    let far = cluster.pod(1, pod("bar", "far", &[("app", "far")]));
    let db = cluster.pod(0, pod("foo", "db", &[("app", "db")]));
    db.netns.echo(&[80, 81], &[]).unwrap();
    cluster.apply(&[namespace("foo", &[]), namespace("bar", &[])]);
    let seen = |what: &str, want: [bool; 4]| {
        let probes = [(&web, 80), (&web, 81), (&far, 80), (&far, 81)];
        assert_eq!(probes.map(|(from, port)| from.netns.connects(db.at(port))), want, "{what}");
        for node in &cluster.nodes {
            assert_eq!(node.net.verify().unwrap(), [""; 0], "{what}");
        }
        assert!(cluster.nodes[0].netns.connects(db.at(80)), "{what}: the node reaches its own pod");
    };
    let remove = |name: &str| Event::RemoveClusterPolicy(name.into());
    seen("no policy", [true; 4]);

    let far_pods = "[{pods: {podSelector: {matchLabels: {app: far}}}}]";
    let all = "[{namespaces: {}}]";
    let mut open = far.netns.connect(db.at(80), PATIENCE).unwrap();
    assert!(echoes(&mut open, PATIENCE));
    cluster.apply(&[tier("base", "Baseline", &format!("ingress: [{{action: Deny, from: {far_pods}}}]"))]);
    seen("Baseline denies where no NetworkPolicy isolates", [true, true, false, false]);
    assert!(!echoes(&mut open, testkit::net::GRACE), "an open connection ends too");

    let only_81 =
        "{metadata: {name: np, namespace: foo}, spec: {podSelector: {}, ingress: [{ports: [{port: 81}]}]}}";
    cluster.apply(&[policy(only_81)]);
    seen("a NetworkPolicy isolates: Baseline is not asked", [false, true, false, true]);

    let port_80 = "protocols: [{tcp: {destinationPort: {number: 80}}}]";
    cluster.apply(&[tier(
        "admin",
        "Admin",
        &format!("ingress: [{{action: Accept, from: {far_pods}, {port_80}}}]"),
    )]);
    seen("Admin accepts before the NetworkPolicy", [false, true, true, true]);

    let rules = format!("ingress: [{{action: Pass, from: {far_pods}}}, {{action: Deny, from: {all}}}]");
    cluster.apply(&[tier("admin", "Admin", &rules)]);
    seen("Admin passes one on and denies the rest", [false, false, false, true]);

    cluster.apply(&[tier("admin", "Admin", &format!("egress: [{{action: Deny, to: {all}, {port_80}}}]"))]);
    seen("Admin denies egress to a port", [false, true, false, true]);

    cluster.apply(&[remove("admin"), Event::RemovePolicy { namespace: "foo".into(), name: "np".into() }]);
    seen("Baseline is what is left", [true, true, false, false]);
    cluster.apply(&[remove("base")]);
    seen("no policy again", [true; 4]);
}
