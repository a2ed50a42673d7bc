//! Pods: their specs, and what an update may change.

use super::*;

pub(super) fn pod() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
        "spec": {
            "containers": [{"name": "a", "image": "nginx"}, {"name": "b", "image": "busybox"}],
            "initContainers": [{"name": "i", "image": "busybox"}],
            "volumes": [{"name": "data", "emptyDir": {}}]
        }
    })
}

#[test]
fn the_spec_as_a_whole() {
    table(
        "",
        "Pod",
        pod(),
        &[
            ("/spec/containers", json!([]), &["spec.containers: Required value"]),
            ("/spec/containers/0/name", json!(null), &["spec.containers[0].name: Required value"]),
            ("/spec/containers/0/image", json!(null), &["spec.containers[0].image: Required value"]),
            (
                "/spec/containers/0/image",
                json!(" nginx"),
                &[
                    "spec.containers[0].image: Invalid value: \" nginx\": must not have leading or trailing whitespace",
                ],
            ),
            ("/spec/containers/1/name", json!("a"), &["spec.containers[1].name: Duplicate value: \"a\""]),
            (
                "/spec/initContainers/0/name",
                json!("a"),
                &["spec.initContainers[0].name: Duplicate value: \"a\""],
            ),
            (
                "/spec/restartPolicy",
                json!("Sometimes"),
                &[
                    "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ],
            ),
            (
                "/spec/dnsPolicy",
                json!("x"),
                &[
                    "spec.dnsPolicy: Unsupported value: \"x\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
                ],
            ),
            (
                "/spec/dnsPolicy",
                json!("None"),
                &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
            ),
            (
                "/spec/dnsConfig",
                json!({"nameservers": ["x"]}),
                &[
                    "spec.dnsConfig.nameservers[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                "/spec/activeDeadlineSeconds",
                json!(0),
                &[
                    "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
                ],
            ),
            (
                "/spec/hostname",
                json!("a.b"),
                &["spec.hostname: Invalid value: \"a.b\": must not contain dots"],
            ),
            (
                "/spec/hostAliases",
                json!([{"ip": "x"}]),
                &[
                    "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                "/spec/ephemeralContainers",
                json!([{"name": "e", "image": "x"}]),
                &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
            ),
            (
                "/spec/preemptionPolicy",
                json!("x"),
                &[
                    "spec.preemptionPolicy: Unsupported value: \"x\": supported values: \"Never\", \"PreemptLowerPriority\"",
                ],
            ),
            (
                "/spec/os",
                json!({"name": "plan9"}),
                &["spec.os.name: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "a", "operator": "x"}]),
                &[
                    "spec.tolerations[0].operator: Unsupported value: \"x\": supported values: \"Equal\", \"Exists\"",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"effect": "NoSchedule"}]),
                &[
                    "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ],
            ),
            (
                "/spec/affinity",
                json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
                &[
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
                ],
            ),
            ("/spec/initContainers/0/restartPolicy", json!("Always"), &[]),
            (
                "/spec/containers/0/restartPolicy",
                json!("Always"),
                &["spec.containers[0].restartPolicy: Forbidden: may not be set for non-init containers"],
            ),
            (
                "/spec/initContainers/0/livenessProbe",
                json!({"exec": {"command": ["x"]}}),
                &[
                    "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
                ],
            ),
        ],
    );
}

#[test]
fn ports_and_the_nodes_network() {
    table(
        "",
        "Pod",
        pod(),
        &[
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 70000}]),
                &[
                    "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{}]),
                &["spec.containers[0].ports[0].containerPort: Required value"],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 1, "protocol": "tcp"}]),
                &[
                    "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 1, "name": "80"}]),
                &[
                    "spec.containers[0].ports[0].name: Invalid value: \"80\": must contain at least one letter (a-z)",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]),
                &["spec.containers[0].ports[1].name: Duplicate value: \"a\""],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 1, "hostPort": 8080}, {"containerPort": 2, "hostPort": 8080}]),
                &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//8080\""],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 1, "hostPort": 8080}, {"containerPort": 2, "hostPort": 8080, "protocol": "UDP"}]),
                &[],
            ),
        ],
    );
    let host = with(pod(), "/spec/hostNetwork", json!(true));
    table(
        "",
        "Pod",
        host,
        &[
            ("/spec/containers/0/ports", json!([{"containerPort": 80}]), &[]),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "hostPort": 81}]),
                &[
                    "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true",
                ],
            ),
            (
                "/spec/hostUsers",
                json!(false),
                &["spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false"],
            ),
        ],
    );
}

#[test]
fn environment() {
    table(
        "",
        "Pod",
        pod(),
        &[
            (
                "/spec/containers/0/env",
                json!([{"value": "x"}]),
                &["spec.containers[0].env[0].name: Required value"],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "a=b"}]),
                &[
                    "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "a", "valueFrom": {}}]),
                &[
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "a", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
                &[
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]),
                &[],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]),
                &[
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "a", "valueFrom": {"secretKeyRef": {"name": "s"}}}]),
                &["spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value"],
            ),
            (
                "/spec/containers/0/envFrom",
                json!([{"configMapRef": {}}]),
                &["spec.containers[0].envFrom[0].configMapRef.name: Required value"],
            ),
            (
                "/spec/containers/0/envFrom",
                json!([{"prefix": "x"}]),
                &[
                    "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                ],
            ),
        ],
    );
}

#[test]
fn a_pod_is_what_it_was_but_for_its_images() {
    let profile = "container.apparmor.security.beta.kubernetes.io/main";
    let changes: [(&str, Value, &[&str]); 9] = [
        ("/spec/containers/0/image", json!("nginx:2"), &[]),
        ("/metadata/labels/app", json!("x"), &[]),
        ("/spec/activeDeadlineSeconds", json!(5), &[]),
        ("/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]), &[]),
        (
            "/spec/containers",
            json!([{"name": "a", "image": "nginx"}]),
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        ),
        (
            "/metadata/annotations",
            json!({profile: "unconfined", "container.apparmor.security.beta.kubernetes.io/b": "unconfined"}),
            &[
                "metadata.annotations[container.apparmor.security.beta.kubernetes.io/main]: Forbidden: may not remove or \
                 update AppArmor annotations",
                "metadata.annotations[container.apparmor.security.beta.kubernetes.io/b]: Forbidden: may not add AppArmor \
                 annotations",
            ],
        ),
        ("/metadata/annotations", json!({profile: "runtime/default", "a": "b"}), &[]),
        (
            "/spec/schedulingGates",
            json!([{"name": "g"}]),
            &[
                "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'",
            ],
        ),
        (
            "/spec/containers/0/command",
            json!(["x"]),
            &["spec: Forbidden: pod updates may not change fields other than \
            `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` \
            (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if \
            it was previously negative)\n+ \tcontainers[0].command: [\"x\"]"],
        ),
    ];
    let old = {
        let mut old = with(pod(), "/spec/containers/0/imagePullPolicy", json!("Always"));
        old["metadata"]["annotations"] = json!({profile: "runtime/default"});
        apply_kind("", "Pod", &mut old);
        old
    };
    for (pointer, value, want) in changes {
        assert_eq!(update("", "Pod", "", with(old.clone(), pointer, value), old.clone()), want, "{pointer}");
    }
    assert_eq!(
        update(
            "",
            "Pod",
            "",
            with(old.clone(), "/spec/tolerations", json!([])),
            with(old.clone(), "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]))
        ),
        ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
    );
}

#[test]
fn a_status_does_not_raise_the_dead() {
    let ended = json!([{"name": "a", "state": {"terminated": {"exitCode": 0}}}]);
    let runs = json!([{"name": "a", "state": {"running": {}}}]);
    let at = |statuses: &Value, policy: &str| {
        with(with(pod(), "/spec/restartPolicy", json!(policy)), "/status/containerStatuses", statuses.clone())
    };
    assert!(update("", "Pod", "status", at(&runs, "Always"), at(&ended, "Always")).is_empty());
    assert_eq!(
        update("", "Pod", "status", at(&runs, "OnFailure"), at(&ended, "OnFailure")),
        ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
    );
    let ips = with(pod(), "/status/podIPs", json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]));
    assert_eq!(
        update("", "Pod", "status", ips, pod()),
        [
            "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may specify no more than one IP for \
         each IP family"
        ]
    );
}

#[test]
fn ephemeral_containers_are_only_added() {
    let add = |list: Value| with(pod(), "/spec/ephemeralContainers", list);
    let debug = json!([{"name": "d", "image": "busybox", "targetContainerName": "a"}]);
    assert!(update("", "Pod", "ephemeralcontainers", add(debug.clone()), pod()).is_empty());
    assert_eq!(
        update("", "Pod", "ephemeralcontainers", pod(), add(debug)),
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"]
    );
    let wrong =
        json!([{"name": "d", "image": "x", "targetContainerName": "q", "ports": [{"containerPort": 1}]}]);
    assert_eq!(
        update("", "Pod", "ephemeralcontainers", add(wrong), pod()),
        [
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"q\"",
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ]
    );
}
