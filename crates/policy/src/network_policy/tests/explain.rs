//! The answers to "why?", in words.

use serde_json::json;

use super::tables::{cluster, from, policy};
use super::*;
use crate::network_policy::explain::explain;

fn ask(objects: &Objects, source: &str, destination: &str, port: &str) -> Answer {
    try_ask(objects, source, destination, port).unwrap_or_else(|error| panic!("{error}"))
}

fn try_ask(objects: &Objects, source: &str, destination: &str, port: &str) -> Result<Answer, String> {
    let name = |word: &str| Name::parse(word, "foo").map_err(|error| error.to_string());
    let port = match port {
        "" => None,
        word => Some(PortWord::parse(word).map_err(|error| error.to_string())?),
    };
    explain(&objects.world(), &name(source)?, &name(destination)?, port.as_ref()).map_err(|e| e.to_string())
}

fn database() -> NetworkPolicy {
    let spec = json!({ "podSelector": { "matchLabels": { "app": "database" } }, "ingress": [
        { "from": [{ "podSelector": { "matchLabels": { "app": "webserver" } } }], "ports": [{ "port": 5432 }] },
        { "from": [{ "ipBlock": { "cidr": "192.0.2.0/24", "except": ["192.0.2.8/32"] } },
                   { "namespaceSelector": { "matchLabels": { "tenant": "manning" } },
                     "podSelector": { "matchLabels": { "app": "client" } } }],
          "ports": [{ "port": "web" }, { "port": 9000, "endPort": 9010 }] }] });
    policy("foo", spec)
}

/// What stands behind the only policy of the database.
fn says(objects: &Objects, source: &str, port: &str) -> (bool, String) {
    let answer = ask(objects, source, "db", port);
    let [one] = answer.connections.as_slice() else { panic!("{answer:#?}") };
    let said = match &one.ingress.policies[0].says {
        Says::Matches(at) => format!(
            "{} {}",
            at.peer.as_deref().unwrap_or("anyone"),
            at.port.as_deref().unwrap_or("every port")
        ),
        Says::Misses { nearest, why } => format!("{nearest} {why}"),
        Says::NoRules => "no rules".into(),
        Says::NotAsked => "not asked".into(),
    };
    (one.allowed, said)
}

#[test]
fn the_rule_that_matches_or_the_nearest_and_why_not() {
    let objects = cluster(vec![database()]);
    let table = [
        ("web", "5432", true, "spec.ingress[0].from[0] spec.ingress[0].ports[0]"),
        ("web", "5433", false, "spec.ingress[0] matches the peer but not the port: it is for TCP 5432"),
        (
            "shop/cart",
            "8080",
            false,
            "spec.ingress[1] matches the port but not the peer: from[1]: shop/cart has app=shopping-cart (app=client is asked)",
        ),
        (
            "bar/other",
            "5432",
            false,
            "spec.ingress[0] matches the port but not the peer: from[0]: without a namespaceSelector it means pods of foo \
             only, and bar/other is in bar",
        ),
        ("192.0.2.7", "9005", true, "spec.ingress[1].from[0] spec.ingress[1].ports[1]"),
        (
            "192.0.2.8",
            "8080",
            false,
            "spec.ingress[1] matches the port but not the peer: from[0]: 192.0.2.8 is in 192.0.2.0/24, but excepted by \
             192.0.2.8/32",
        ),
        (
            "192.0.2.7",
            "80",
            false,
            "spec.ingress[1] matches the peer but not the port: it is for TCP web, TCP 9000-9010; web is TCP 8080 of foo/db",
        ),
        (
            "192.0.2.7",
            "icmp",
            false,
            "spec.ingress[1] matches the peer but not the port: it is for TCP web, TCP 9000-9010, and ICMP has no ports",
        ),
    ];
    for (source, port, allowed, words) in table {
        assert_eq!(says(&objects, source, port), (allowed, words.to_string()), "{source} {port}");
    }
    let deny = cluster(vec![policy("foo", json!({ "podSelector": {} }))]);
    assert_eq!(says(&deny, "web", "1"), (false, "no rules".into()));
    let answer = ask(&deny, "web", "db", "1");
    assert_eq!(
        answer.summary,
        "foo/web (10.244.1.11 on node-1) may not reach foo/db (10.244.2.12 on node-2) on TCP 1"
    );
    let one = &answer.connections[0];
    assert_eq!(one.egress.because, "no policy isolates foo/web for egress");
    assert_eq!(one.ingress.because, "foo/p isolates it for ingress, and no rule allows this");
}

#[test]
fn what_policies_are_not_about() {
    let mut objects =
        cluster(vec![policy("foo", json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }))]);
    objects.pods[3].spec.as_mut().unwrap().host_network = Some(true);
    objects.nodes = vec![
        from(
            json!({ "metadata": { "name": "node-1" }, "status": { "addresses": [{ "type": "InternalIP", "address": "10.88.0.2" }] } }),
        ),
        from(
            json!({ "metadata": { "name": "node-2" }, "status": { "addresses": [{ "type": "InternalIP", "address": "10.88.0.3" }] } }),
        ),
    ];
    let sides = |source: &str, destination: &str| {
        let answer = ask(&objects, source, destination, "80");
        let one = &answer.connections[0];
        (one.egress.reason.clone(), one.ingress.reason.clone())
    };
    assert_eq!(sides("node/node-2", "db"), (Reason::NodeNetwork, Reason::FromItsNode));
    assert_eq!(sides("node/node-1", "db"), (Reason::NodeNetwork, Reason::NoRule));
    // A hostNetwork pod is its node.
    assert_eq!(sides("bar/other", "db"), (Reason::NodeNetwork, Reason::FromItsNode));
    assert_eq!(sides("bar/other", "web"), (Reason::NodeNetwork, Reason::NoRule));
    // To its own node a pod is judged by its egress only.
    assert_eq!(sides("web", "node/node-1"), (Reason::NoRule, Reason::NodeNetwork));
    assert_eq!(sides("web", "web"), (Reason::Itself, Reason::Itself));
    assert_eq!(sides("shop/cart", "external"), (Reason::NoPolicy, Reason::Outside));
}

#[test]
fn a_service_is_its_endpoints_after_dnat() {
    let mut objects = cluster(vec![database()]);
    objects.services = vec![
        from(
            json!({ "metadata": { "namespace": "foo", "name": "db" }, "spec": { "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{ "name": "sql", "port": 80, "targetPort": 5432 }, { "name": "http", "port": 81, "targetPort": "web" }],
            "selector": { "app": "database" } } }),
        ),
        from(
            json!({ "metadata": { "namespace": "foo", "name": "none" }, "spec": { "clusterIP": "10.96.0.10", "ports": [{ "port": 80 }],
            "selector": { "app": "nobody" } } }),
        ),
        from(
            json!({ "metadata": { "namespace": "foo", "name": "flat" }, "spec": { "clusterIP": "None", "ports": [{ "port": 80, "targetPort": 5432 }],
            "selector": { "app": "database" } } }),
        ),
        from(
            json!({ "metadata": { "namespace": "foo", "name": "away" }, "spec": { "type": "ExternalName", "externalName": "example.org" } }),
        ),
    ];
    let answer = ask(&objects, "web", "svc/db", "80");
    assert_eq!(answer.verdict, Outcome::Allowed);
    assert_eq!(answer.translations[0].ports, ["TCP 80 (sql) → 10.244.2.12:5432"]);
    assert_eq!(answer.connections[0].port, Layer4::Port(Protocol::Tcp, 5432));
    assert_eq!(ask(&objects, "web", "10.96.0.9", "http").verdict, Outcome::Denied);
    assert_eq!(ask(&objects, "web", "foo/svc/db", "").verdict, Outcome::Partly);
    assert_eq!(ask(&objects, "web", "svc/none", "80").verdict, Outcome::Unreachable);
    assert_eq!(ask(&objects, "external", "svc/db", "80").verdict, Outcome::Unreachable);
    // Nothing translates a headless Service's port.
    assert_eq!(ask(&objects, "web", "svc/flat", "80").verdict, Outcome::Denied);
    assert_eq!(ask(&objects, "web", "svc/flat", "5432").verdict, Outcome::Allowed);
    assert!(try_ask(&objects, "web", "svc/away", "80").unwrap_err().contains("ExternalName"));
    assert!(
        try_ask(&objects, "web", "svc/db", "82").unwrap_err().contains("it has: TCP 80 (sql), TCP 81 (http)")
    );

    // Slices say who is ready.
    let slice = |conditions: serde_json::Value| -> EndpointSlice {
        from(
            json!({ "metadata": { "namespace": "foo", "name": "db-1", "labels": { "kubernetes.io/service-name": "db" } },
            "addressType": "IPv4", "ports": [{ "name": "sql", "port": 5432 }],
            "endpoints": [{ "addresses": ["10.244.2.12"], "conditions": conditions }] }),
        )
    };
    objects.slices = vec![slice(json!({ "ready": false }))];
    assert_eq!(ask(&objects, "web", "svc/db", "80").verdict, Outcome::Unreachable);
    objects.slices = vec![slice(json!({ "ready": false, "serving": true, "terminating": true }))];
    assert_eq!(ask(&objects, "web", "svc/db", "80").verdict, Outcome::Allowed);
}

#[test]
fn tiers_say_who_was_asked() {
    let tier = |name: &str, tier: &str, priority: i32, action: &str| -> ClusterNetworkPolicy {
        from(
            json!({ "metadata": { "name": name }, "spec": { "tier": tier, "priority": priority, "subject": { "namespaces": {} },
            "ingress": [{ "name": "r", "action": action, "from": [{ "namespaces": { "matchLabels": { "tenant": "other" } } }] }] } }),
        )
    };
    let mut objects = cluster(vec![database()]);
    objects.cluster_policies = vec![
        tier("late", "Admin", 2, "Accept"),
        tier("early", "Admin", 1, "Deny"),
        tier("base", "Baseline", 0, "Deny"),
    ];
    let one = ask(&objects, "bar/other", "db", "5432").connections.remove(0);
    assert_eq!(one.ingress.because, "early (Admin tier) says Deny in spec.ingress[0].from[0] \"r\"");
    let said: Vec<_> = one.ingress.policies.iter().map(|p| (p.policy.as_str(), &p.says)).collect();
    assert!(
        matches!(
            said[..],
            [("early", Says::Matches(_)), ("late", Says::NotAsked), ("foo/p", Says::NotAsked)]
        ),
        "{said:?}"
    );
    let one = ask(&objects, "web", "db", "5432").connections.remove(0);
    let said: Vec<_> = one.ingress.policies.iter().map(|p| (p.policy.as_str(), &p.says)).collect();
    assert!(
        matches!(
            said[..],
            [("early", Says::Misses { .. }), ("late", Says::Misses { .. }), ("foo/p", Says::Matches(_))]
        ),
        "{said:?}"
    );
    objects.cluster_policies.retain(|p| p.spec.tier == "Baseline");
    assert!(!ask(&objects, "bar/other", "shop/cart", "80").connections[0].allowed);
    let reason = ask(&objects, "web", "shop/cart", "80").connections.remove(0).ingress.reason;
    assert_eq!(reason, Reason::NoTierRule);
}

#[test]
fn without_a_port_the_declared_ones_are_meant() {
    let answer = ask(&cluster(vec![]), "web", "db", "");
    let ports: Vec<String> = answer.connections.iter().map(|c| shown(&c.port)).collect();
    assert_eq!(ports, ["TCP 8080", "UDP 53"]);
    assert_eq!(
        ask(&cluster(vec![]), "web", "db", "dns").connections[0].port,
        Layer4::Port(Protocol::Udp, 53)
    );
}

#[test]
fn bad_questions_are_refused_by_name() {
    let mut objects = cluster(vec![]);
    objects.pods[0].status.as_mut().unwrap().phase = Some("Succeeded".into());
    objects.pods[2].status = None;
    let table = [
        ("cart", "db", "1", "pods \"cart\" not found in namespace foo; there is shop/cart"),
        ("nobody", "db", "1", "pods \"nobody\" not found in namespace foo"),
        ("web", "db", "1", "pod foo/web has finished (Succeeded)"),
        ("shop/cart", "db", "1", "pod shop/cart has no address yet (it is Pending)"),
        ("svc/db", "db", "1", "a Service is no source"),
        ("db", "svc/x", "1", "services \"x\" not found in namespace foo"),
        ("node/n", "db", "1", "nodes \"n\" not found; there are: "),
        ("db", "external", "", "say which port: 192.0.2.1 (outside) declares none"),
        ("db", "a/b/c", "1", "\"a/b/c\" is none of: POD, "),
        ("db", "Db", "1", "\"Db\" is none of: POD, "),
        ("db", "external", "0", "\"0\" is not a port"),
        ("db", "external", "65536", "\"65536\" is not a port"),
        ("db", "external", "80/http", "\"80/http\": unknown protocol \"http\""),
        (
            "db",
            "bar/other",
            "nope",
            "bar/other (10.244.2.14 on node-2) has no port \"nope\"; it has: web (TCP 80), dns (UDP 53)",
        ),
    ];
    for (source, destination, port, words) in table {
        let error = try_ask(&objects, source, destination, port).unwrap_err();
        assert!(error.starts_with(words), "{error}");
    }
}

#[test]
fn names_and_ports_have_one_grammar() {
    let pod = |namespace: &str, name: &str| Name::Pod { namespace: namespace.into(), name: name.into() };
    let service =
        |namespace: &str, name: &str| Name::Service { namespace: namespace.into(), name: name.into() };
    for (word, name) in [
        ("web", pod("foo", "web")),
        ("bar/web", pod("bar", "web")),
        ("pod/web", pod("foo", "web")),
        ("svc/web", service("foo", "web")),
        ("bar/service/web", service("bar", "web")),
        ("svc/pod/web", pod("svc", "web")),
        ("node/n-1", Name::Node("n-1".into())),
        ("fd00::1", Name::Address(ip("fd00::1"))),
        ("external", Name::External),
    ] {
        assert_eq!(Name::parse(word, "foo"), Ok(name), "{word}");
    }
    for word in ["", "/", "a/", "/a", "a/b/c/d", "a b", "a/node/b"] {
        assert!(Name::parse(word, "foo").is_err(), "{word}");
    }
    for (word, port) in [
        ("80", PortWord::Number(Protocol::Tcp, 80)),
        ("53/udp", PortWord::Number(Protocol::Udp, 53)),
        ("7/SCTP", PortWord::Number(Protocol::Sctp, 7)),
        ("http", PortWord::Named(None, "http".into())),
        ("dns/udp", PortWord::Named(Some(Protocol::Udp), "dns".into())),
        ("ICMP", PortWord::Icmp),
    ] {
        assert_eq!(PortWord::parse(word), Ok(port), "{word}");
    }
    for word in ["", "-1", "70000", "80/", "icmp/udp", "a_b", "averyveryverylongname", "Http"] {
        assert!(PortWord::parse(word).is_err(), "{word}");
    }
}
