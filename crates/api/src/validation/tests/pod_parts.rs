//! The parts of a pod: volumes and mounts, security contexts, resources, probes.

use super::pods::pod;
use super::*;

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
