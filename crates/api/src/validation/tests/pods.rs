//! Pods: their specs, and what an update may change.

use super::*;

fn pod() -> Value {
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
fn volumes_and_mounts() {
    let mount = |more: Value| {
        let mut mount = json!({"name": "data", "mountPath": "/data"});
        mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([mount])
    };
    table(
        "",
        "Pod",
        pod(),
        &[
            ("/spec/containers/0/volumeMounts", mount(json!({})), &[]),
            (
                "/spec/containers/0/volumeMounts",
                mount(json!({"name": "x"})),
                &["spec.containers[0].volumeMounts[0].name: Not found: \"x\""],
            ),
            (
                "/spec/containers/0/volumeMounts",
                mount(json!({"mountPath": ""})),
                &["spec.containers[0].volumeMounts[0].mountPath: Required value"],
            ),
            (
                "/spec/containers/0/volumeMounts",
                mount(json!({"subPath": "../x"})),
                &["spec.containers[0].volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'"],
            ),
            (
                "/spec/containers/0/volumeMounts",
                mount(json!({"subPath": "/x"})),
                &["spec.containers[0].volumeMounts.subPath: Invalid value: \"/x\": must be a relative path"],
            ),
            ("/spec/containers/0/volumeMounts", mount(json!({"subPath": "a..b/c"})), &[]),
            (
                "/spec/containers/0/volumeMounts",
                mount(json!({"mountPropagation": "Bidirectional"})),
                &[
                    "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
                ],
            ),
            (
                "/spec/containers/0/volumeMounts",
                json!([{"name": "data", "mountPath": "/x"}, {"name": "data", "mountPath": "/x"}]),
                &["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique"],
            ),
            (
                "/spec/volumes/0/name",
                json!("A"),
                &[&format!(
                    "spec.volumes[0].name: Invalid value: \"A\": {}",
                    super::super::names::dns_label("A")[0]
                )],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a"}, {"name": "a"}]),
                &["spec.volumes[1].name: Duplicate value: \"a\""],
            ),
            (
                "/spec/volumes/0/hostPath",
                json!({"path": "/x"}),
                &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "hostPath": {}}]),
                &["spec.volumes[0].hostPath.path: Required value"],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "hostPath": {"path": "/a/../b"}}]),
                &["spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "hostPath": {"path": "/a", "type": "Dir"}}]),
                &[
                    "spec.volumes[0].hostPath.type: Unsupported value: \"Dir\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
                ],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "secret": {}}]),
                &["spec.volumes[0].secret.secretName: Required value"],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "configMap": {"name": "c", "items": [{"key": "k", "path": "../p"}]}}]),
                &["spec.volumes[0].configMap.items[0].path: Invalid value: \"../p\": must not contain '..'"],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "configMap": {"name": "c", "defaultMode": 512}}]),
                &[
                    "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                ],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]),
                &[],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "status.podIP"}}]}}]),
                &[
                    "spec.volumes[0].downwardAPI.fieldRef.fieldPath: Unsupported value: \"status.podIP\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
                ],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}}]),
                &[
                    "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                ],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "projected": {"sources": [{"configMap": {"name": "x"}, "secret": {"name": "y"}}]}}]),
                &[
                    "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
                ],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "emptyDir": {"sizeLimit": "-1"}}]),
                &[
                    "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
                ],
            ),
        ],
    );
}

#[test]
fn security_contexts() {
    table(
        "",
        "Pod",
        pod(),
        &[
            (
                "/spec/securityContext",
                json!({"runAsUser": -1}),
                &[
                    "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 4294967295, inclusive",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"runAsUser": 4294967296u64}),
                &[
                    "spec.securityContext.runAsUser: Invalid value: 4294967296: must be between 0 and 4294967295, inclusive",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"supplementalGroups": [1, -5]}),
                &[
                    "spec.securityContext.supplementalGroups[1]: Invalid value: -5: must be between 0 and 4294967295, inclusive",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"fsGroupChangePolicy": "x"}),
                &[
                    "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"x\": supported values: \"Always\", \"OnRootMismatch\"",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"seccompProfile": {"type": "Localhost"}}),
                &[
                    "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}),
                &[
                    "spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"seccompProfile": {"type": "runtimeDefault"}}),
                &[
                    "spec.securityContext.seccompProfile.type: Unsupported value: \"runtimeDefault\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}}),
                &[
                    "spec.securityContext.seccompProfile.localhostProfile: Invalid value: {\"localhostProfile\":\"x\",\"type\":\"RuntimeDefault\"}: can only be set when seccomp type is Localhost",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"appArmorProfile": {"type": "Localhost"}}),
                &[
                    "spec.securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"sysctls": [{"name": "net.x", "value": "1"}, {"name": "net.x", "value": "2"}]}),
                &["spec.securityContext.sysctls[1].name: Duplicate value: \"net.x\""],
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"allowPrivilegeEscalation": false, "privileged": true}),
                &[
                    "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
                ],
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["CAP_SYS_ADMIN"]}}),
                &[
                    "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"capabilities\":{\"add\":[\"CAP_SYS_ADMIN\"]}}: cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
                ],
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"procMount": "Unmasked"}),
                &[
                    "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
                ],
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"procMount": "x"}),
                &[
                    "spec.containers[0].securityContext.procMount: Unsupported value: \"x\": supported values: \"Default\", \"Unmasked\"",
                ],
            ),
        ],
    );
    let both = with(pod(), "/spec/hostPID", json!(true));
    table(
        "",
        "Pod",
        both,
        &[(
            "/spec/shareProcessNamespace",
            json!(true),
            &[
                "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
            ],
        )],
    );
    let host = with(pod(), "/spec/hostNetwork", json!(true));
    table(
        "",
        "Pod",
        host,
        &[(
            "/spec/securityContext",
            json!({"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]}),
            &[
                "spec.securityContext.sysctls[0].name: Invalid value: \"net.ipv4.ip_forward\": may not be specified when 'hostNetwork' is true",
            ],
        )],
    );
}

#[test]
fn requests_and_limits() {
    table(
        "",
        "Pod",
        pod(),
        &[
            (
                "/spec/containers/0/resources",
                json!({"limits": {"cpu": "100m"}, "requests": {"cpu": "200m"}}),
                &[
                    "spec.containers[0].resources.requests: Invalid value: \"200m\": must be less than or equal to cpu limit of 100m",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"limits": {"memory": "-1"}}),
                &[
                    "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
                    "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"cpus": "1"}}),
                &[
                    "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
                    "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource for containers",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"example.com/gpu": "1"}}),
                &[
                    "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"cpu": "lots"}}),
                &[
                    "spec.containers[0].resources.requests[cpu]: Invalid value: \"lots\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                ],
            ),
        ],
    );
}

#[test]
fn probes_and_hooks() {
    table(
        "",
        "Pod",
        pod(),
        &[
            (
                "/spec/containers/0/livenessProbe",
                json!({}),
                &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"exec": {}}),
                &["spec.containers[0].livenessProbe.exec.command: Required value"],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}),
                &[
                    "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                ],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"tcpSocket": {"port": 0}}),
                &[
                    "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"tcpSocket": {"port": 1}, "successThreshold": 2}),
                &["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"tcpSocket": {"port": 1}, "successThreshold": 2, "periodSeconds": -1}),
                &[
                    "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                "/spec/containers/0/lifecycle",
                json!({"preStop": {"sleep": {"seconds": 31}}}),
                &[
                    "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
                ],
            ),
        ],
    );
}

#[test]
fn a_pod_is_what_it_was_but_for_its_images() {
    let changes: [(&str, Value, &[&str]); 7] = [
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
