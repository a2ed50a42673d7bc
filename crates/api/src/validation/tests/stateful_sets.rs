//! StatefulSets: what they may ask for, and what of it may change.

use super::*;

fn good() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "serviceName": "peers",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "a", "image": "nginx"}]}
            }
        }
    })
}

#[test]
fn each_field_is_held_to_upstreams_rule() {
    let unavailable = "/spec/updateStrategy/rollingUpdate/maxUnavailable";
    table(
        "apps",
        "StatefulSet",
        good(),
        &[
            ("/spec/podManagementPolicy", json!("Parallel"), &[]),
            (
                "/spec/podManagementPolicy",
                json!("Random"),
                &[
                    "spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'",
                ],
            ),
            ("/spec/updateStrategy", json!({"type": "OnDelete"}), &[]),
            ("/spec/updateStrategy", json!({"type": "RollingUpdate"}), &[]),
            (
                "/spec/updateStrategy",
                json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                &[
                    "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
                ],
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "Sometimes"}),
                &[
                    "spec.updateStrategy: Invalid value: {\"type\":\"Sometimes\"}: must be 'RollingUpdate' or 'OnDelete'",
                ],
            ),
            (
                "/spec/updateStrategy/rollingUpdate/partition",
                json!(-1),
                &[
                    "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (unavailable, json!("30%"), &[]),
            (unavailable, json!(3), &[]),
            (
                unavailable,
                json!(0),
                &["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"],
            ),
            (
                unavailable,
                json!("0%"),
                &["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": cannot be 0"],
            ),
            (
                unavailable,
                json!("101%"),
                &[
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                ],
            ),
            (
                "/spec/persistentVolumeClaimRetentionPolicy/whenScaled",
                json!("Keep"),
                &[
                    "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": supported values: \"Retain\", \"Delete\"",
                ],
            ),
            (
                "/spec/replicas",
                json!(-1),
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/minReadySeconds",
                json!(-1),
                &["spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
            ("/spec/ordinals", json!({"start": 7}), &[]),
            (
                "/spec/ordinals",
                json!({"start": -1}),
                &["spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"],
            ),
            ("/spec/serviceName", Value::Null, &[]),
            (
                "/spec/serviceName",
                json!("peers.default"),
                &["spec.serviceName: Invalid value: \"peers.default\": must not contain dots"],
            ),
            ("/spec/selector", Value::Null, &["spec.selector: Required value"]),
            (
                "/spec/selector",
                json!({}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
            ),
            (
                "/spec/template/metadata/labels",
                json!({"app": "db"}),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`",
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
                "/spec/template/spec/activeDeadlineSeconds",
                json!(5),
                &[
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
                ],
            ),
            // Each pod's host name begins with it.
            (
                "/metadata/name",
                json!("a.b"),
                &["metadata.name: Invalid value: \"a.b\": must not contain dots"],
            ),
        ],
    );
}

#[test]
fn claims_are_refused_by_name() {
    let claim = json!([{"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    let rows: &[(&str, Value, &[&str])] = &[
        ("/spec/volumeClaimTemplates", json!([]), &[]),
        (
            "/spec/volumeClaimTemplates",
            claim,
            &[
                "spec.volumeClaimTemplates: Forbidden: persistent volumes are not supported by this cluster: use a volume of spec.template.spec.volumes",
            ],
        ),
    ];
    table_starts("apps", "StatefulSet", good(), rows);
}

#[test]
fn what_a_set_is_made_of_stays() {
    let change =
        |pointer: &str, value: Value| update("apps", "StatefulSet", "", with(good(), pointer, value), good());
    for (pointer, value) in [
        ("/spec/replicas", json!(5)),
        ("/spec/ordinals", json!({"start": 1})),
        ("/spec/template/spec/containers/0/image", json!("other")),
        ("/spec/updateStrategy", json!({"type": "OnDelete"})),
        ("/spec/revisionHistoryLimit", json!(3)),
        ("/spec/persistentVolumeClaimRetentionPolicy/whenDeleted", json!("Delete")),
        ("/spec/minReadySeconds", json!(5)),
        ("/spec/volumeClaimTemplates", json!([])),
        ("/metadata/labels", json!({"a": "b"})),
    ] {
        assert_eq!(change(pointer, value), [""; 0], "{pointer}");
    }
    let forbidden = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', \
                     'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' \
                     and 'minReadySeconds' are forbidden";
    for (pointer, value) in [
        ("/spec/serviceName", json!("others")),
        ("/spec/serviceName", Value::Null),
        ("/spec/podManagementPolicy", json!("Parallel")),
    ] {
        assert_eq!(change(pointer, value), [forbidden], "{pointer}");
    }
    let both = with(good(), "/spec/selector/matchLabels/b", json!("c"));
    let both = with(both, "/spec/template/metadata/labels/b", json!("c"));
    assert_eq!(update("apps", "StatefulSet", "", both, good()), [forbidden]);
}

#[test]
fn no_more_are_counted_than_there_are() {
    let status = |status: Value| with(good(), "/status", status);
    let said = |new: Value, old: Value| update("apps", "StatefulSet", "status", status(new), status(old));
    for field in ["readyReplicas", "currentReplicas", "updatedReplicas"] {
        assert_eq!(
            said(json!({"replicas": 1, field: 2}), json!({})),
            [format!("status.{field}: Invalid value: 2: cannot be greater than status.replicas")]
        );
    }
    assert_eq!(
        said(json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 2}), json!({})),
        ["status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas"]
    );
    assert_eq!(
        said(json!({"collisionCount": 1}), json!({"collisionCount": 2})),
        ["status.collisionCount: Invalid value: 1: cannot be decremented"]
    );
    assert_eq!(said(json!({"collisionCount": 2}), json!({})), [""; 0]);
}
