//! Names, labels, annotations, owners, finalizers: the same for all kinds.

use super::*;

fn config_map() -> Value {
    json!({"metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}})
}

#[test]
fn metadata_is_checked_for_every_kind() {
    table(
        "",
        "ConfigMap",
        config_map(),
        &[
            (
                "/metadata/name",
                json!(null),
                &["metadata.name: Required value: name or generateName is required"],
            ),
            ("/metadata/namespace", json!(null), &["metadata.namespace: Required value"]),
            (
                "/metadata/name",
                json!("a".repeat(254)),
                &["metadata.name: Invalid value: \"AAA\": must be no more than 253 bytes"
                    .replace("AAA", &"a".repeat(254))
                    .as_str()],
            ),
            (
                "/metadata/generation",
                json!(-1),
                &["metadata.generation: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/metadata/annotations",
                json!({"a": "x".repeat(256 * 1024)}),
                &["metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
            ("/metadata/annotations", json!({"UPPER.com/x": "any text \u{0} at all"}), &[]),
            ("/metadata/labels", json!({"a": "b", "example.com/c": ""}), &[]),
            (
                "/metadata/finalizers",
                json!(["x"]),
                &[
                    "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
                ],
            ),
            ("/metadata/finalizers", json!(["a.b/x", "orphan"]), &[]),
            (
                "/metadata/finalizers",
                json!(["foregroundDeletion", "orphan"]),
                &[
                    "metadata.finalizers: Invalid value: [\"foregroundDeletion\",\"orphan\"]: finalizer orphan and foregroundDeletion cannot be both set",
                ],
            ),
            (
                "/metadata/ownerReferences",
                json!([{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "u"}]),
                &["metadata.ownerReferences.name: Invalid value: \"\": must not be empty"],
            ),
            (
                "/metadata/ownerReferences",
                json!([
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "u", "controller": true},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "b", "uid": "v"}
                ]),
                &[],
            ),
        ],
    );
    table_starts(
        "",
        "ConfigMap",
        config_map(),
        &[
            (
                "/metadata/name",
                json!("My_Name"),
                &[
                    "metadata.name: Invalid value: \"My_Name\": a lowercase RFC 1123 subdomain must consist of",
                ],
            ),
            (
                "/metadata/name",
                json!("../etc"),
                &["metadata.name: Invalid value: \"../etc\": a lowercase RFC 1123 subdomain"],
            ),
            (
                "/metadata/namespace",
                json!("a.b"),
                &["metadata.namespace: Invalid value: \"a.b\": must not contain dots"],
            ),
            (
                "/metadata/labels",
                json!({"a b": "c"}),
                &[
                    "metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric characters",
                ],
            ),
            (
                "/metadata/labels",
                json!({"a": "c d"}),
                &[
                    "metadata.labels: Invalid value: \"c d\": a valid label must be an empty string or consist of",
                ],
            ),
            (
                "/metadata/ownerReferences",
                json!([
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "u", "controller": true},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "b", "uid": "v", "controller": true}
                ]),
                &["metadata.ownerReferences: Invalid value: ["],
            ),
        ],
    );
}

#[test]
fn names_follow_the_kind() {
    let named = |name: &str| json!({"metadata": {"name": name, "namespace": "default"}});
    assert!(create("", "ServiceAccount", named("a.b")).is_empty());
    assert!(create("rbac.authorization.k8s.io", "Role", named("system:Node")).is_empty());
    assert_eq!(
        create("rbac.authorization.k8s.io", "Role", named("a/b")),
        ["metadata.name: Invalid value: \"a/b\": may not contain '/'"]
    );
    let namespace = json!({"metadata": {"name": "a.b"}});
    assert_eq!(
        create("", "Namespace", namespace),
        ["metadata.name: Invalid value: \"a.b\": must not contain dots"]
    );
    let namespace = json!({"metadata": {"name": "a", "namespace": "b"}});
    assert_eq!(
        create("", "Namespace", namespace),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
}

#[test]
fn an_update_leaves_the_identity_alone() {
    let old = with(with(config_map(), "/metadata/uid", json!("u")), "/metadata/generation", json!(2));
    let rows: [(&str, Value, &[&str]); 5] = [
        ("/metadata/uid", json!(null), &[]),
        ("/metadata/uid", json!("v"), &["metadata.uid: Invalid value: \"v\": field is immutable"]),
        ("/metadata/name", json!("b"), &["metadata.name: Invalid value: \"b\": field is immutable"]),
        (
            "/metadata/generation",
            json!(1),
            &["metadata.generation: Invalid value: 1: must not be decremented"],
        ),
        ("/data/k", json!("w"), &[]),
    ];
    for (pointer, value, want) in rows {
        assert_eq!(
            update("", "ConfigMap", "", with(old.clone(), pointer, value), old.clone()),
            want,
            "{pointer}"
        );
    }
    let dying = with(old.clone(), "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    let adds = with(dying.clone(), "/metadata/finalizers", json!(["a.b/c"]));
    assert_eq!(
        update("", "ConfigMap", "", adds, dying),
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
         finalizers []string{\"a.b/c\"}"
        ]
    );
}
