//! The other kinds.

use super::*;

fn workload() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "a", "image": "nginx"}]}
            }
        }
    })
}

#[test]
fn daemon_sets_replace_or_surge() {
    let rolling = |unavailable: Value, surge: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}});
    table(
        "apps",
        "DaemonSet",
        workload(),
        &[
            ("/spec/updateStrategy", json!({"type": "OnDelete"}), &[]),
            ("/spec/updateStrategy", rolling(json!("10%"), json!(0)), &[]),
            ("/spec/updateStrategy", rolling(json!(0), json!("10%")), &[]),
            (
                "/spec/updateStrategy",
                rolling(json!(0), json!(0)),
                &[
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
                ],
            ),
            (
                "/spec/updateStrategy",
                rolling(json!(1), json!(1)),
                &[
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
                ],
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "Sometimes"}),
                &[
                    "spec.updateStrategy: Unsupported value: {\"type\":\"Sometimes\"}: supported values: \"OnDelete\", \"RollingUpdate\"",
                ],
            ),
            (
                "/spec/selector",
                json!({}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                &[
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            (
                "/spec/minReadySeconds",
                json!(-1),
                &["spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
    let other = with(workload(), "/spec/selector/matchLabels/b", json!("c"));
    let other = with(other, "/spec/template/metadata/labels/b", json!("c"));
    let errors = update("apps", "DaemonSet", "", other, workload());
    assert!(errors.len() == 1 && errors[0].ends_with("field is immutable"), "{errors:?}");

    let revision =
        json!({"metadata": {"name": "r", "namespace": "default"}, "data": {"spec": {}}, "revision": 1});
    table(
        "apps",
        "ControllerRevision",
        revision.clone(),
        &[
            ("/revision", json!(-1), &["revision: Invalid value: -1: must be greater than or equal to 0"]),
            ("/data", json!(null), &["data: Required value: data is mandatory"]),
        ],
    );
    assert_eq!(
        update(
            "apps",
            "ControllerRevision",
            "",
            with(revision.clone(), "/revision", json!(2)),
            revision.clone()
        ),
        [""; 0]
    );
    assert_eq!(
        update("apps", "ControllerRevision", "", with(revision.clone(), "/data", json!({"a": 1})), revision),
        ["data: Invalid value: {\"a\":1}: field is immutable"]
    );
}

#[test]
fn deployments_select_their_own_pods() {
    table(
        "apps",
        "Deployment",
        workload(),
        &[
            (
                "/spec/replicas",
                json!(-1),
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            ("/spec/selector", json!(null), &["spec.selector: Required value"]),
            (
                "/spec/selector",
                json!({}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                "/spec/template/metadata/labels/app",
                json!("x"),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                &[
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            (
                "/spec/template/spec/containers/0/image",
                json!(""),
                &["spec.template.spec.containers[0].image: Required value"],
            ),
            (
                "/spec/strategy",
                json!({"type": "Recreate", "rollingUpdate": {}}),
                &[
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxUnavailable": "101%"}}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                ],
            ),
            (
                "/spec/strategy",
                json!({"type": "x"}),
                &[
                    "spec.strategy: Unsupported value: {\"type\":\"x\"}: supported values: \"Recreate\", \"RollingUpdate\"",
                ],
            ),
            (
                "/spec/progressDeadlineSeconds",
                json!(0),
                &["spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds"],
            ),
            (
                "/spec/selector",
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "x"]}]}),
                &[],
            ),
            (
                "/spec/selector",
                json!({"matchExpressions": [{"key": "app", "operator": "is"}]}),
                &[
                    "spec.selector.matchExpressions[0].operator: Invalid value: \"is\": not a valid selector operator",
                ],
            ),
        ],
    );
    let other = with(
        with(workload(), "/spec/selector/matchLabels", json!({"a": "b"})),
        "/spec/template/metadata/labels",
        json!({"a": "b"}),
    );
    assert_eq!(
        update("apps", "ReplicaSet", "", other, workload()),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: field is immutable"]
    );
    let mut rc = with(workload(), "/spec/selector", json!({"app": "x"}));
    assert_eq!(
        create("", "ReplicationController", rc.clone()),
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
        ]
    );
    rc["spec"]["selector"] = json!({"app": "web"});
    assert!(create("", "ReplicationController", rc).is_empty());
    let status = with(workload(), "/status", json!({"replicas": 1, "readyReplicas": 2}));
    assert_eq!(
        update("apps", "ReplicaSet", "status", status, workload()),
        ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
    );
}

#[test]
fn services() {
    let good = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}});
    table(
        "",
        "Service",
        good.clone(),
        &[
            ("/spec/ports", json!([]), &["spec.ports: Required value"]),
            (
                "/spec/ports",
                json!([{"port": 80}, {"port": 81}]),
                &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
            ),
            (
                "/spec/ports",
                json!([{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]),
                &["spec.ports[1].name: Duplicate value: \"a\""],
            ),
            (
                "/spec/ports",
                json!([{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]),
                &["spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}"],
            ),
            (
                "/spec/ports",
                json!([{"port": 0, "targetPort": 1}]),
                &["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
            (
                "/spec/ports",
                json!([{"port": 80, "nodePort": 30000}]),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                "/spec/ports",
                json!([{"port": 80, "targetPort": "Web"}]),
                &[
                    "spec.ports[0].targetPort: Invalid value: \"Web\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                ],
            ),
            (
                "/spec/type",
                json!("Node"),
                &[
                    "spec.type: Unsupported value: \"Node\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            ("/spec/type", json!("ExternalName"), &["spec.externalName: Required value"]),
            (
                "/spec/sessionAffinity",
                json!("x"),
                &["spec.sessionAffinity: Unsupported value: \"x\": supported values: \"ClientIP\", \"None\""],
            ),
            (
                "/spec/clusterIP",
                json!("10.96.0"),
                &[
                    "spec.clusterIPs[0]: Invalid value: \"10.96.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            ("/spec/clusterIP", json!("None"), &[]),
            (
                "/spec/clusterIPs",
                json!(["10.96.0.1"]),
                &[
                    "spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: must be empty when `clusterIP` is not specified",
                ],
            ),
            (
                "/spec/ipFamilies",
                json!(["IPv4", "IPv4", "IPv5"]),
                &[
                    "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
                    "spec.ipFamilies[2]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
                ],
            ),
            (
                "/spec/ipFamilyPolicy",
                json!("DualStack"),
                &[
                    "spec.ipFamilyPolicy: Unsupported value: \"DualStack\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
                ],
            ),
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                &[
                    "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ],
            ),
            (
                "/spec/externalIPs",
                json!(["127.0.0.1"]),
                &[
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ],
            ),
            (
                "/spec/loadBalancerSourceRanges",
                json!(["10.0.0.0/8"]),
                &["spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"],
            ),
        ],
    );
    const ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    const NO_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let annotated = format!("metadata.annotations[{ANNOTATION}]");
    let (range, annotation) =
        ("spec.LoadBalancerSourceRanges[1]", |text: &str| json!({"annotations": {ANNOTATION: text}}));
    let only = "Forbidden: may only be used when `type` is 'LoadBalancer'";
    let rows = [
        (json!({"spec": {"loadBalancerSourceRanges": [" 10.0.0.0/8 ", "2001:db8::/32"]}}), true, vec![]),
        (
            json!({"spec": {"loadBalancerSourceRanges": ["10.0.0.0/8", " 10.0.0.0/33"]}}),
            true,
            vec![format!("{range}: Invalid value: \"10.0.0.0/33\": {NO_CIDR}")],
        ),
        (json!({"metadata": annotation("10.0.0.0/8, 2001:db8::/32")}), true, vec![]),
        (json!({"metadata": annotation(" ")}), true, vec![]),
        (json!({"metadata": annotation("")}), false, vec![format!("{annotated}: {only}")]),
        (
            json!({"metadata": annotation("10.0.0.0/8,10.9.8.7")}),
            true,
            vec![format!("{annotated}: Invalid value: \"10.9.8.7\": {NO_CIDR}")],
        ),
    ];
    for (changes, balanced, expected) in rows {
        let mut service = good.clone();
        for part in ["metadata", "spec"] {
            let fields = changes[part].as_object().into_iter().flatten();
            fields.for_each(|(field, value)| service[part][field] = value.clone());
        }
        if balanced {
            service["spec"]["type"] = json!("LoadBalancer");
        }
        assert_eq!(create("", "Service", service), expected, "{changes}");
    }
    let has = |ip: &str| with(good.clone(), "/spec/clusterIP", json!(ip));
    assert_eq!(
        update("", "Service", "", has("10.96.0.2"), has("10.96.0.1")),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.2\"]: may not change once set"]
    );
    let ips = |ips: Value| with(has("10.96.0.1"), "/spec/clusterIPs", ips);
    for (list, expected) in [
        (json!(["10.96.0.1", "fd00:96::1"]), ""),
        (
            json!(["10.96.0.1", "10.96.0.2"]),
            "spec.clusterIPs: Invalid value: [\"10.96.0.1\",\"10.96.0.2\"]: may specify no more than one IP for each IP family",
        ),
        (
            json!(["10.96.0.2"]),
            "spec.clusterIPs: Invalid value: [\"10.96.0.2\"]: first value must match `clusterIP`",
        ),
        (
            json!(["10.96.0.1", "fd00:96::1", "fd00:96::2"]),
            "spec.clusterIPs: Invalid value: [\"10.96.0.1\",\"fd00:96::1\",\"fd00:96::2\"]: may only hold up to 2 values",
        ),
    ] {
        assert_eq!(create("", "Service", ips(list)).concat(), expected);
    }
    let both = ips(json!(["10.96.0.1", "fd00:96::1"]));
    assert_eq!(
        update("", "Service", "", has("10.96.0.1"), both.clone()),
        [
            "spec.ipFamilyPolicy: Invalid value: null: must be set to 'SingleStack' when releasing the secondary clusterIP"
        ]
    );
    assert_eq!(
        update("", "Service", "", ips(json!(["10.96.0.1", "fd00:96::2"])), both),
        ["spec.clusterIPs[1]: Invalid value: [\"10.96.0.1\",\"fd00:96::2\"]: may not change once set"]
    );
    let named = with(good, "/metadata/name", json!("1web"));
    assert!(
        create("", "Service", named)[0]
            .starts_with("metadata.name: Invalid value: \"1web\": a DNS-1035 label must consist of")
    );
}

#[test]
fn network_policies() {
    let good = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {
        "podSelector": {}, "ingress": [{"ports": [{"port": 80}], "from": [{"podSelector": {}}]}]
    }});
    table(
        "networking.k8s.io",
        "NetworkPolicy",
        good,
        &[
            (
                "/spec/ingress/0/ports/0",
                json!({"port": 70000}),
                &[
                    "spec.ingress[0].ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/ingress/0/ports/0",
                json!({"port": 80, "endPort": 79}),
                &[
                    "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
                ],
            ),
            (
                "/spec/ingress/0/ports/0",
                json!({"endPort": 79}),
                &[
                    "spec.ingress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is not specified",
                ],
            ),
            (
                "/spec/ingress/0/ports/0",
                json!({"port": "web", "endPort": 79}),
                &[
                    "spec.ingress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is non-numeric",
                ],
            ),
            (
                "/spec/ingress/0/ports/0",
                json!({"protocol": "ICMP"}),
                &[
                    "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                ],
            ),
            (
                "/spec/ingress/0/from/0",
                json!({}),
                &["spec.ingress[0].from[0]: Required value: must specify a peer"],
            ),
            (
                "/spec/ingress/0/from/0",
                json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
                &["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"],
            ),
            (
                "/spec/ingress/0/from/0",
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}),
                &[],
            ),
            (
                "/spec/ingress/0/from/0",
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.1.0.0/16"]}}),
                &[
                    "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.1.0.0/16\": must be a strict subset of `cidr`",
                ],
            ),
            (
                "/spec/ingress/0/from/0",
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}),
                &[
                    "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                ],
            ),
            (
                "/spec/ingress/0/from/0",
                json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["::/1", "1.0.0.0/8"]}}),
                &[
                    "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"::/1\": must be a strict subset of `cidr`",
                ],
            ),
            (
                "/spec/ingress/0/from/0",
                json!({"ipBlock": {"cidr": "10.0.0.0"}}),
                &[
                    "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                ],
            ),
            (
                "/spec/policyTypes",
                json!(["Both"]),
                &[
                    "spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Ingress\", \"Egress\"",
                ],
            ),
        ],
    );
}

#[test]
fn config_maps_and_secrets() {
    let meta = json!({"name": "c", "namespace": "default"});
    let config = json!({"metadata": meta, "data": {"a": "b"}});
    table(
        "",
        "ConfigMap",
        config.clone(),
        &[
            (
                "/binaryData",
                json!({"a": "eA=="}),
                &[
                    "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
                    "binaryData[a]: Invalid value: \"a\": duplicate of key present in data",
                ],
            ),
            ("/data", json!({"..": "x"}), &["data[..]: Invalid value: \"..\": must not be '..'"]),
            ("/data", json!({"a": "x".repeat(1024 * 1024)}), &[]),
            (
                "/data",
                json!({"a": "x".repeat(1024 * 1024 + 1)}),
                &["[]: Too long: may not be more than 1048576 bytes"],
            ),
        ],
    );
    let frozen = with(config.clone(), "/immutable", json!(true));
    assert_eq!(
        update("", "ConfigMap", "", with(frozen.clone(), "/data/a", json!("c")), frozen.clone()),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    assert_eq!(
        update("", "ConfigMap", "", config, frozen),
        ["immutable: Forbidden: field is immutable when `immutable` is set"]
    );
    let secret = json!({"metadata": meta, "stringData": {"a": "b"}});
    table(
        "",
        "Secret",
        secret.clone(),
        &[
            (
                "/type",
                json!("kubernetes.io/tls"),
                &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
            ),
            (
                "/data",
                json!({"x": "not base64"}),
                &["data[x]: Invalid value: \"<base64>\": illegal base64 data"],
            ),
            (
                "/data",
                json!({"x": "A".repeat(1400000)}),
                &["data: Too long: may not be more than 1048576 bytes"],
            ),
        ],
    );
    assert_eq!(
        update("", "Secret", "", with(secret.clone(), "/type", json!("x")), secret),
        ["type: Invalid value: \"x\": field is immutable"]
    );
}

#[test]
fn nodes_and_events() {
    let node = json!({"metadata": {"name": "node-1"}, "spec": {}});
    table(
        "",
        "Node",
        node,
        &[
            ("/spec/taints", json!([{"key": "a", "effect": "NoSchedule"}]), &[]),
            ("/spec/taints", json!([{"key": "a"}]), &["spec.taints[0].effect: Required value"]),
            (
                "/spec/taints",
                json!([{"key": "a", "effect": "No"}]),
                &[
                    "spec.taints[0].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
            (
                "/spec/taints",
                json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]),
                &[
                    "spec.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by key and effect pair",
                ],
            ),
        ],
    );
    let event = json!({"metadata": {"name": "e", "namespace": "a"}, "involvedObject": {"namespace": "a"}});
    table(
        "",
        "Event",
        event,
        &[
            (
                "/involvedObject/namespace",
                json!("b"),
                &["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"],
            ),
            (
                "/eventTime",
                json!("2026-01-01T00:00:00.000000Z"),
                &[
                    "reportingComponent: Required value",
                    "reportingComponent: Invalid value: \"\": name part must be non-empty",
                    "reportingComponent: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                    "reportingInstance: Required value",
                    "action: Required value",
                    "reason: Required value",
                ],
            ),
        ],
    );
}

#[test]
fn anything_at_all_is_answered_without_a_panic() {
    let odd = [
        json!(null),
        json!([]),
        json!("x"),
        json!({"spec": [], "metadata": 1, "data": "x"}),
        json!({"spec": {"containers": [null, 1], "volumes": {"a": 1}, "ports": 3, "template": "x", "selector": []}}),
    ];
    for kind in
        ["Pod", "Service", "ConfigMap", "Secret", "Node", "Event", "Namespace", "ReplicationController"]
    {
        for object in &odd {
            create("", kind, object.clone());
            update("", kind, "", object.clone(), odd[4].clone());
        }
    }
    for object in &odd {
        create("apps", "Deployment", object.clone());
        create("networking.k8s.io", "NetworkPolicy", object.clone());
    }
}

#[test]
fn cluster_network_policies() {
    let good = json!({"metadata": {"name": "p"}, "spec": {
        "tier": "Admin", "priority": 10, "subject": {"namespaces": {}},
        "ingress": [{"action": "Accept", "from": [{"pods": {"podSelector": {}}}],
                     "protocols": [{"tcp": {"destinationPort": {"number": 80}}}]}],
        "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}]}]
    }});
    let table: &[(&str, Value, &[&str])] = &[
        (
            "/spec/tier",
            json!("Middle"),
            &[r#"spec.tier: Unsupported value: "Middle": supported values: "Admin", "Baseline""#],
        ),
        (
            "/spec/priority",
            json!(1001),
            &[
                "spec.priority: Invalid value: 1001: spec.priority in body should be less than or equal to 1000",
            ],
        ),
        ("/spec/subject", Value::Null, &["spec.subject: Required value"]),
        ("/spec/ingress/0/action", Value::Null, &["spec.ingress[0].action: Required value"]),
        ("/spec/ingress/0/from", Value::Null, &["spec.ingress[0].from: Required value"]),
        (
            "/spec/ingress/0/from",
            json!([]),
            &[
                "spec.ingress[0].from: Invalid value: 0: spec.ingress[0].from in body should have at least 1 items",
            ],
        ),
        (
            "/spec/ingress/0/protocols",
            json!([]),
            &[
                "spec.ingress[0].protocols: Invalid value: 0: spec.ingress[0].protocols in body should have at least 1 items",
            ],
        ),
        (
            "/spec/egress/0/to/0/networks/0",
            json!("10.0.0.0"),
            &[r#"spec.egress[0].to[0].networks[0]: Invalid value: "10.0.0.0": Invalid CIDR format provided"#],
        ),
        (
            "/spec/egress/0/to/0",
            json!({"domainNames": ["kubernetes.io"]}),
            &["spec.egress[0].to[0].domainNames: Forbidden: domain names are not supported: use networks"],
        ),
    ];
    for (at, value, want) in table {
        let mut object = good.clone();
        *object.pointer_mut(at).expect("a place") = value.clone();
        let errors = crate::validation::validate_create_kind(
            "policy.networking.k8s.io",
            "ClusterNetworkPolicy",
            false,
            &object,
        );
        let got: Vec<String> = errors.iter().map(|e| e.to_string()).collect();
        assert_eq!(&got, want, "{at}");
    }
    let errors = crate::validation::validate_create_kind(
        "policy.networking.k8s.io",
        "ClusterNetworkPolicy",
        false,
        &good,
    );
    assert!(errors.is_empty(), "{:?}", errors.iter().map(|e| e.to_string()).collect::<Vec<_>>());
}
