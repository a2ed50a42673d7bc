use serde_json::{Value, json};

use super::{create, table, update};

const GROUP: &str = "rbac.authorization.k8s.io";

fn rule() -> Value {
    json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})
}

#[test]
fn roles() {
    let good = json!({"metadata": {"name": "a:b", "namespace": "d"}, "rules": [rule()]});
    table(
        GROUP,
        "Role",
        good,
        &[
            ("/rules", json!(null), &[]),
            ("/metadata/name", json!("a/b"), &["metadata.name: Invalid value: \"a/b\": may not contain '/'"]),
            (
                "/rules/0/verbs",
                json!([]),
                &["rules[0].verbs: Required value: verbs must contain at least one value"],
            ),
            (
                "/rules/0/apiGroups",
                json!(null),
                &["rules[0].apiGroups: Required value: resource rules must supply at least one api group"],
            ),
            (
                "/rules/0/resources",
                json!([]),
                &["rules[0].resources: Required value: resource rules must supply at least one resource"],
            ),
            (
                "/rules/0",
                json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}),
                &[
                    "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
                ],
            ),
        ],
    );
    let good = json!({"metadata": {"name": "a"}, "rules": [rule()]});
    table(
        GROUP,
        "ClusterRole",
        good,
        &[
            ("/rules/0", json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}), &[]),
            (
                "/rules/0/nonResourceURLs",
                json!(["/x"]),
                &[
                    "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and \
                   non-resource URLs",
                ],
            ),
            (
                "/aggregationRule",
                json!({}),
                &[
                    "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if \
                   aggregationRule is non-nil",
                ],
            ),
            ("/aggregationRule", json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}), &[]),
        ],
    );
}

#[test]
fn bindings() {
    let good = json!({"metadata": {"name": "b", "namespace": "d"}, "roleRef": {"kind": "Role", "name": "r"},
                      "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]});
    table(
        GROUP,
        "RoleBinding",
        good.clone(),
        &[
            ("/subjects", json!([]), &[]),
            ("/roleRef/kind", json!("ClusterRole"), &[]),
            (
                "/roleRef/kind",
                json!("Rolle"),
                &["roleRef.kind: Unsupported value: \"Rolle\": supported values: \"Role\", \"ClusterRole\""],
            ),
            ("/roleRef/name", json!(""), &["roleRef.name: Required value"]),
            ("/roleRef/name", json!(".."), &["roleRef.name: Invalid value: \"..\": may not be '..'"]),
            (
                "/roleRef/apiGroup",
                json!("x"),
                &[
                    "roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                ],
            ),
            ("/subjects/0/name", json!(""), &["subjects[0].name: Required value"]),
            (
                "/subjects/0/kind",
                json!("Robot"),
                &[
                    "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \
                   \"Group\"",
                ],
            ),
            (
                "/subjects/0/apiGroup",
                json!("x"),
                &[
                    "subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                ],
            ),
            (
                "/subjects/1/apiGroup",
                json!("x"),
                &["subjects[1].apiGroup: Unsupported value: \"x\": supported values: \"\""],
            ),
        ],
    );
    let mut cluster = good.clone();
    cluster["metadata"] = json!({"name": "b"});
    assert_eq!(
        create(GROUP, "ClusterRoleBinding", cluster),
        [
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            "subjects[1].namespace: Required value"
        ]
    );
    let mut other = good.clone();
    other["roleRef"]["name"] = "q".into();
    assert_eq!(
        update(GROUP, "RoleBinding", "", other, good.clone()),
        [
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"q\"}: \
             cannot change roleRef"
        ]
    );
    let mut more = good.clone();
    more["subjects"] = json!([]);
    assert!(update(GROUP, "RoleBinding", "", more, good).is_empty());
}
