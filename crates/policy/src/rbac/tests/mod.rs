//! Rules as tables; the index against a naive evaluator that reads the API objects; what one may hand on.

mod naive;
mod properties;

use serde_json::{Value, json};

use super::*;

/// `verb group/resource[/sub] namespace name`, or `verb /path`; "-" is empty.
pub(super) fn request(text: &'static str) -> Request<'static> {
    let words: Vec<&'static str> = text.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
    match words.as_slice() {
        [verb, path] => Request { verb, target: Target::Path(path) },
        [verb, what, namespace, name] => {
            let mut parts = what.splitn(3, '/');
            let group = parts.next().unwrap();
            let resource = parts.next().unwrap();
            let subresource = parts.next().unwrap_or_default();
            Request { verb, target: Target::Resource { group, resource, subresource, namespace, name } }
        }
        _ => panic!("{text}"),
    }
}

fn rules(value: Value) -> Vec<Rule> {
    let rules: Vec<k8s_openapi::api::rbac::v1::PolicyRule> = serde_json::from_value(value).expect("rules");
    rules.into_iter().map(Rule::from).collect()
}

#[test]
fn what_a_rule_allows() {
    let pods = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]);
    let logs = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}]);
    let scales = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]}]);
    let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
    let named = json!([{"verbs": ["get", "create", "list"], "apiGroups": [""], "resources": ["secrets"],
                        "resourceNames": ["a", "b"]}]);
    let paths = json!([{"verbs": ["get"], "nonResourceURLs": ["/version", "/api/*"]}]);
    let any_path = json!([{"verbs": ["get"], "nonResourceURLs": ["*"]}]);
    let table = [
        (&pods, "get /pods d a", true),
        (&pods, "list /pods d -", true),
        (&pods, "delete /pods d a", false),
        (&pods, "get /pods/log d a", false),
        (&pods, "get apps/pods d a", false),
        (&pods, "get /pod d a", false),
        (&logs, "get /pods/log d a", true),
        (&logs, "get /pods d a", false),
        (&scales, "update apps/deployments/scale d a", true),
        (&scales, "update apps/deployments d a", false),
        (&scales, "update apps/deployments/status d a", false),
        (&all, "impersonate /users - a", true),
        (&all, "get /pods/log d a", true),
        (&all, "get /healthz", false),
        (&named, "get /secrets d a", true),
        (&named, "get /secrets d c", false),
        (&named, "list /secrets d -", false),
        (&named, "list /secrets d b", true),
        (&named, "create /secrets d -", false),
        (&paths, "get /version", true),
        (&paths, "get /version/", false),
        (&paths, "get /api/v1", true),
        (&paths, "get /api", false),
        (&paths, "post /version", false),
        (&paths, "get /pods d a", false),
        (&any_path, "get /metrics", true),
    ];
    for (given, asked, may) in table {
        let rules = rules(given.clone());
        assert_eq!(rules.iter().any(|rule| rule.allows(&request(asked))), may, "{given} {asked}");
    }
}

/// An index of objects.
pub(super) fn index(objects: &[Value]) -> Index {
    let mut index = Index::default();
    for object in objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        match text("/kind") {
            "Role" | "ClusterRole" => {
                let rules = serde_json::from_value(object["rules"].clone()).expect("rules");
                index.set_role(namespace, name, Rule::list(rules));
            }
            _ => {
                let role = serde_json::from_value(object["roleRef"].clone()).expect("a role");
                let subjects = serde_json::from_value(object["subjects"].clone()).expect("subjects");
                let binding = Binding::new(namespace, role, subjects).expect("a binding");
                index.set_binding(namespace, name, binding);
            }
        }
    }
    index
}

fn small() -> Vec<Value> {
    let read = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    let write = json!([{"verbs": ["create"], "apiGroups": [""], "resources": ["pods"]}]);
    vec![
        json!({"kind": "ClusterRole", "metadata": {"name": "reader"}, "rules": read}),
        json!({"kind": "Role", "metadata": {"name": "writer", "namespace": "d"}, "rules": write}),
        json!({"kind": "ClusterRoleBinding", "metadata": {"name": "ops"},
               "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "reader"},
               "subjects": [{"kind": "Group", "name": "ops"}]}),
        json!({"kind": "RoleBinding", "metadata": {"name": "write", "namespace": "d"},
               "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "writer"},
               "subjects": [{"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "name": "ci"}]}),
        json!({"kind": "RoleBinding", "metadata": {"name": "read", "namespace": "d"},
               "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "reader"},
               "subjects": [{"kind": "ServiceAccount", "name": "ci", "namespace": "build"}]}),
        json!({"kind": "RoleBinding", "metadata": {"name": "lost", "namespace": "d"},
               "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "gone"},
               "subjects": [{"kind": "User", "name": "joe"}]}),
    ]
}

#[test]
fn reasons_are_upstreams_to_the_letter() {
    let index = index(&small());
    let table: [(&str, &[&str], &str, &str); 8] = [
        (
            "x",
            &["ops"],
            "get /pods d a",
            r#"RBAC: allowed by ClusterRoleBinding "ops" of ClusterRole "reader" to Group "ops""#,
        ),
        (
            "x",
            &["ops"],
            "get /pods - a",
            r#"RBAC: allowed by ClusterRoleBinding "ops" of ClusterRole "reader" to Group "ops""#,
        ),
        (
            "jane",
            &[],
            "create /pods d -",
            r#"RBAC: allowed by RoleBinding "write/d" of Role "writer" to User "jane""#,
        ),
        ("jane", &[], "create /pods e -", ""),
        (
            "system:serviceaccount:d:ci",
            &[],
            "create /pods d -",
            r#"RBAC: allowed by RoleBinding "write/d" of Role "writer" to ServiceAccount "ci/d""#,
        ),
        (
            "system:serviceaccount:build:ci",
            &[],
            "get /pods d a",
            r#"RBAC: allowed by RoleBinding "read/d" of ClusterRole "reader" to ServiceAccount "ci/build""#,
        ),
        ("joe", &[], "get /pods d a", r#"role.rbac.authorization.k8s.io "gone" not found"#),
        ("ops", &["jane"], "get /pods d a", ""),
    ];
    for (name, groups, asked, want) in table {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let got = match index.decide(Requester { name, groups: &groups }, &request(asked)) {
            Ok(grant) => grant.to_string(),
            Err(missing) => missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        assert_eq!(got, want, "{name} {asked}");
    }
}

#[test]
fn what_is_removed_grants_no_more() {
    let jane = Requester { name: "jane", groups: &[] };
    let create = request("create /pods d -");
    let mut changed = index(&small());
    changed.remove_role("d", "writer");
    assert_eq!(changed.decide(jane, &create).unwrap_err().len(), 1);
    let mut changed = index(&small());
    changed.remove_binding("d", "write");
    assert!(changed.decide(jane, &create).unwrap_err().is_empty());
    let other = Binding {
        role: RoleKind::ClusterRole,
        role_name: "reader".into(),
        subjects: vec![Subject::User("joe".into())],
    };
    changed.set_binding("d", "write", other.clone());
    changed.set_binding("d", "write", Binding { subjects: Vec::new(), ..other });
    assert!(changed.decide(Requester { name: "joe", groups: &[] }, &request("get /pods d a")).is_err());
}

#[test]
fn one_hands_on_only_what_one_holds() {
    let pods = |verbs: &[&str]| json!([{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]);
    let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
    let table = [
        (json!([]), json!([]), ""),
        (pods(&["get", "list"]), pods(&["list"]), ""),
        (
            pods(&["get"]),
            pods(&["get", "list", "watch"]),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#,
        ),
        (pods(&["get"]), pods(&["*"]), r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#),
        (pods(&["*"]), pods(&["get", "*"]), ""),
        (
            all.clone(),
            json!([{"verbs": ["get"], "nonResourceURLs": ["/x"]}]),
            r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#,
        ),
        (all.clone(), pods(&["*"]), ""),
        (pods(&["get"]), all, r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#),
        (
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["*/log"]}]),
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log", "pods"]}]),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#,
        ),
        (
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}]),
            pods(&["get"]),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#,
        ),
        (
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}]),
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a", "b"]}]),
            r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["b"], Verbs:["get"]}"#,
        ),
        (
            json!([{"verbs": ["get"], "nonResourceURLs": ["/api/*"]}]),
            json!([{"verbs": ["get"], "nonResourceURLs": ["/api/v1", "/api/*", "/apis"]}]),
            r#"{NonResourceURLs:["/apis"], Verbs:["get"]}"#,
        ),
    ];
    for (held, given, lacking) in table {
        let got = match covers(&rules(held.clone()), &rules(given.clone())) {
            Ok(()) => String::new(),
            Err(lacking) => compact(&lacking).iter().map(describe).collect::<Vec<_>>().join("\n"),
        };
        assert_eq!(got, lacking, "{held} gives {given}");
    }
}
