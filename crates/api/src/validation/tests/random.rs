//! Objects of any shape, built from the names that the rules look for: nothing panics, defaulting settles at once, every
//! table row has a cell for each column, and what was accepted once is accepted as an update of itself.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{apply_kind, validate_create_kind, validate_update_kind};
use crate::printer::{IncludeObject, table_kind};

const KEYS: [&str; 74] = [
    "metadata",
    "name",
    "namespace",
    "generateName",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "spec",
    "status",
    "containers",
    "initContainers",
    "ephemeralContainers",
    "image",
    "command",
    "ports",
    "containerPort",
    "hostPort",
    "protocol",
    "port",
    "targetPort",
    "nodePort",
    "env",
    "envFrom",
    "valueFrom",
    "fieldRef",
    "fieldPath",
    "value",
    "volumeMounts",
    "mountPath",
    "subPath",
    "volumes",
    "emptyDir",
    "hostPath",
    "path",
    "configMap",
    "projected",
    "sources",
    "securityContext",
    "runAsUser",
    "capabilities",
    "privileged",
    "resources",
    "limits",
    "requests",
    "cpu",
    "livenessProbe",
    "httpGet",
    "tolerations",
    "key",
    "operator",
    "effect",
    "selector",
    "matchLabels",
    "matchExpressions",
    "template",
    "strategy",
    "rollingUpdate",
    "replicas",
    "data",
    "clusterIP",
    "subsets",
    "conditions",
    "rules",
    "verbs",
    "apiGroups",
    "nonResourceURLs",
    "aggregationRule",
    "clusterRoleSelectors",
    "roleRef",
    "subjects",
];

const WORDS: [&str; 24] = [
    "",
    "a",
    "web",
    "A_b",
    "../x",
    "/etc",
    "10.0.0.1",
    "10.0.0.0/8",
    "1Gi",
    "100m",
    "-5",
    "TCP",
    "UDP",
    "Always",
    "None",
    "In",
    "Exists",
    "NoExecute",
    "25%",
    "é\u{0}",
    "ClusterIP",
    "RollingUpdate",
    "metadata.name",
    "2026-01-01T00:00:00Z",
];

const KINDS: [(&str, &str); 20] = [
    ("", "Pod"),
    ("", "Service"),
    ("", "Namespace"),
    ("", "Node"),
    ("", "ConfigMap"),
    ("", "Secret"),
    ("", "ServiceAccount"),
    ("", "Event"),
    ("", "Endpoints"),
    ("", "ReplicationController"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "DaemonSet"),
    ("apps", "StatefulSet"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
];

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0i64), Just(-1), Just(80), Just(70000), any::<i64>()].prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        prop::sample::select(&WORDS[..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 96, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((prop::sample::select(&KEYS[..]), inner), 0..6).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>())
            }),
        ]
    })
}

/// The usual outer shape, so that the rules get past the first field.
fn object() -> impl Strategy<Value = Value> {
    (json(), json(), json(), json()).prop_map(|(metadata, spec, containers, status)| {
        let mut spec = spec;
        if let Some(map) = spec.as_object_mut() {
            map.insert("containers".into(), containers);
        }
        json!({"metadata": metadata, "spec": spec, "status": status})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn objects_of_any_shape_are_answered(
        object in prop_oneof![object(), json()],
        other in object(),
        (group, kind) in prop::sample::select(&KINDS[..]),
    ) {
        let mut once = object.clone();
        apply_kind(group, kind, &mut once);
        let mut twice = once.clone();
        apply_kind(group, kind, &mut twice);
        prop_assert_eq!(&once, &twice, "{} settles at once", kind);

        let namespaced = super::is_namespaced(kind);
        let errors = validate_create_kind(group, kind, namespaced, &once);
        for error in &errors {
            prop_assert!(!error.body().is_empty());
        }
        if errors.is_empty() {
            let again = validate_update_kind(group, kind, namespaced, "", &once, &once);
            prop_assert!(again.is_empty(), "{}: {}", kind, again);
        }
        for subresource in ["", "status", "ephemeralcontainers"] {
            validate_update_kind(group, kind, namespaced, subresource, &once, &other);
            validate_update_kind(group, kind, namespaced, subresource, &other, &once);
        }

        let table = table_kind(group, kind, &[once], 0, IncludeObject::Metadata);
        let columns = table["columnDefinitions"].as_array().map(Vec::len);
        prop_assert_eq!(table["rows"][0]["cells"].as_array().map(Vec::len), columns);
    }

    #[test]
    fn a_quantity_reads_back_as_it_was_written(
        digits in "[0-9]{1,12}(\\.[0-9]{0,6})?",
        suffix in prop::sample::select(&["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E", "n", "u"][..]),
    ) {
        use crate::validation::quantity::Quantity;
        let quantity = Quantity::parse(&format!("{digits}{suffix}")).expect("a quantity");
        let canonical = quantity.to_string();
        let back = Quantity::parse(&canonical).expect("its canonical form");
        prop_assert_eq!(quantity, back);
        prop_assert_eq!(canonical, back.to_string());
    }
}
