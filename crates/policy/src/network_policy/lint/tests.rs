use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use super::*;

fn objects(yaml: &str) -> (Vec<Pod>, Vec<Namespace>, Vec<NetworkPolicy>) {
    let (mut pods, mut namespaces, mut policies) = (Vec::new(), Vec::new(), Vec::new());
    let list: Vec<Value> = serde_yaml::from_str(yaml).unwrap();
    for object in list {
        if let Some(labels) = object.get("pod") {
            let namespace = object.get("in").and_then(Value::as_str).unwrap_or("a");
            let host = object.get("host").is_some();
            let pod = json!({
                "metadata": {"name": "p", "namespace": namespace, "labels": labels},
                "spec": {"hostNetwork": host, "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 80}]}]},
            });
            pods.push(serde_json::from_value(pod).unwrap());
        } else if let Some(name) = object.get("namespace") {
            let namespace = json!({"metadata": {"name": name, "labels": object.get("labels")}});
            namespaces.push(serde_json::from_value(namespace).unwrap());
        } else {
            let name = object.get("name").and_then(Value::as_str).unwrap_or("policy");
            let policy = json!({"metadata": {"name": name, "namespace": "a"}, "spec": object["spec"]});
            policies.push(serde_json::from_value(policy).unwrap());
        }
    }
    (pods, namespaces, policies)
}

fn run(yaml: &str) -> Vec<Finding> {
    let (pods, namespaces, policies) = objects(yaml);
    let cluster = Cluster {
        pods: &pods,
        namespaces: &namespaces,
        nodes: &[],
        policies: &policies,
        cluster_policies: &[],
    };
    lint(&cluster, &["10.244.0.0/16", "fd00:cf:244::/56"].map(|range| Cidr::parse(range).unwrap()))
}

/// Pods app=x and app=y in namespace a, app=z in namespace b; b has team=red.
const CLUSTER: &str = "
- {pod: {app: x}}
- {pod: {app: y}}
- {pod: {app: z}, in: b}
- {namespace: a, labels: {team: blue}}
- {namespace: b, labels: {team: red}}
";

/// (what, policies, findings as `id path`)
const TABLE: &[(&str, &str, &[&str])] = &[
    ("a default deny", "- {spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}", &[]),
    (
        "what the chapter shows",
        "- {spec: {podSelector: {matchLabels: {app: x}}, ingress: [{from: [{podSelector: {matchLabels: {app: y}}}], ports: [{port: 80}]}]}}",
        &[],
    ),
    (
        "a wrong label",
        "- {spec: {podSelector: {matchLabels: {app: nobody}}}}",
        &["selects-no-pod spec.podSelector"],
    ),
    (
        "pods of another namespace",
        "- {spec: {podSelector: {matchLabels: {app: z}}}}",
        &["selects-no-pod spec.podSelector"],
    ),
    (
        "pods on the node's network",
        "- {pod: {app: h}, host: true}\n- {spec: {podSelector: {matchLabels: {app: h}}}}",
        &["host-network-only spec.podSelector"],
    ),
    (
        "a peer that is on the node's network",
        "- {pod: {app: h}, host: true}\n- {spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: h}}}]}]}}",
        &["peer-matches-nobody spec.ingress[0].from[0]"],
    ),
    (
        "a block of pods' IPv6 addresses",
        "- {spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 'fd00:cf:244:1::/64'}}]}]}}",
        &["block-of-pods spec.ingress[0].from[0]"],
    ),
    (
        "a peer that is nobody",
        "- {spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: x}}}, {podSelector: {matchLabels: {app: z}}}]}]}}",
        &["peer-matches-nobody spec.ingress[0].from[1]"],
    ),
    (
        "no such namespace",
        "- {spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: green}}}]}]}}",
        &["peer-matches-nobody spec.ingress[0].from[0]"],
    ),
    (
        "nothing left of a block",
        "- {spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/25, 192.0.2.128/25]}}]}]}}",
        &["peer-matches-nobody spec.ingress[0].from[0]"],
    ),
    (
        "a port nobody has",
        "- {spec: {podSelector: {}, ingress: [{ports: [{port: web}, {port: db}]}]}}",
        &["named-port-nowhere spec.ingress[0].ports[1]"],
    ),
    (
        "a name of another protocol",
        "- {spec: {podSelector: {}, ingress: [{ports: [{port: web, protocol: UDP}]}]}}",
        &["named-port-nowhere spec.ingress[0].ports[0]"],
    ),
    (
        "a port of those it leads to",
        "- {spec: {podSelector: {}, policyTypes: [Egress], egress: [{}, {to: [{podSelector: {}}], ports: [{port: db}]}]}}",
        &["named-port-nowhere spec.egress[1].ports[0]", "shadowed spec.egress[1]"],
    ),
    (
        "two items meant as one",
        "- {spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}, {podSelector: {matchLabels: {app: x}}}]}]}}",
        &["selectors-apart spec.ingress[0].from[0]"],
    ),
    (
        "one item with both",
        "- {spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: z}}}]}]}}",
        &[],
    ),
    (
        "an empty list of peers",
        "- {spec: {podSelector: {}, ingress: [{from: []}]}}",
        &["empty-list-means-everyone spec.ingress[0].from"],
    ),
    (
        "rules that do not count",
        "- {spec: {podSelector: {}, policyTypes: [Ingress], egress: [{}]}}",
        &["rules-without-type spec.egress"],
    ),
    (
        "egress but no names",
        "- {spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 80}]}]}}",
        &["egress-without-dns spec.egress"],
    ),
    (
        "names over TCP only",
        "- {spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53}]}]}}",
        &["egress-without-dns spec.egress"],
    ),
    (
        "names by another policy",
        "- {name: dns, spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}]}}\n- {spec: {podSelector: {matchLabels: {app: x}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}}",
        &[],
    ),
    (
        "pods by their addresses",
        "- {spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.1.0/24}}, {ipBlock: {cidr: 0.0.0.0/0}}]}]}}",
        &["block-of-pods spec.ingress[0].from[0]"],
    ),
    (
        "the same rule twice",
        "- {spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}, {ports: [{port: 80}]}]}}",
        &["shadowed spec.ingress[1]"],
    ),
    (
        "a rule within another's ports",
        "- {spec: {podSelector: {}, ingress: [{ports: [{port: 85}]}, {ports: [{port: 80, endPort: 90}]}]}}",
        &["shadowed spec.ingress[0]"],
    ),
    (
        "a rule within another's block",
        "- {spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/25}}]}, {from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}}",
        &["shadowed spec.ingress[0]"],
    ),
    (
        "a rule of a wider policy",
        "- {name: all, spec: {podSelector: {}, ingress: [{}]}}\n- {spec: {podSelector: {matchLabels: {app: x}}, ingress: [{ports: [{port: 80}]}]}}",
        &["shadowed spec.ingress[0]"],
    ),
    (
        "a rule for other pods",
        "- {name: other, spec: {podSelector: {matchLabels: {app: y}}, ingress: [{}]}}\n- {spec: {podSelector: {matchLabels: {app: x}}, ingress: [{ports: [{port: 80}]}]}}",
        &[],
    ),
    (
        "what cannot be read",
        "- {spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: nonsense}}]}]}}",
        &["not-understood spec.ingress[0].from[0].ipBlock.cidr"],
    ),
];

#[test]
fn each_mistake_is_found_where_it_is_and_nothing_else() {
    for (what, policies, want) in TABLE {
        let found: Vec<String> =
            run(&format!("{CLUSTER}{policies}")).iter().map(|f| format!("{} {}", f.id, f.path)).collect();
        assert_eq!(found, *want, "{what}");
    }
}

#[test]
fn no_lint_lacks_a_row() {
    let shown: BTreeSet<&str> =
        TABLE.iter().flat_map(|(_, _, want)| *want).filter_map(|finding| finding.split(' ').next()).collect();
    let all: BTreeSet<&str> = LINTS.iter().map(|lint| lint.id).chain([SHADOWED]).collect();
    assert_eq!(shown, all);
}

#[test]
fn a_selector_that_finds_its_pods_elsewhere_says_where() {
    let found = run(&format!("{CLUSTER}- {{spec: {{podSelector: {{matchLabels: {{app: z}}}}}}}}"));
    assert_eq!(found[0].message, "selects no pod of namespace a (app=z); namespace b has such pods");
}
