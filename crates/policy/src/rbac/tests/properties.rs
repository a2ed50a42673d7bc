//! Random policies: the index, also after changes, decides as the naive evaluator does; and what one may hand on allows
//! nothing that one may not do oneself.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{super::*, index, naive, request, rules};

const NAMESPACES: [&str; 3] = ["", "a", "b"];
const ROLES: [&str; 3] = ["r1", "r2", "r3"];
const USERS: [&str; 4] = ["u1", "u2", "system:serviceaccount:a:s", "system:serviceaccount:b:s"];
const GROUPS: [&str; 3] = ["g1", "g2", "g3"];
const REQUESTS: [&str; 20] = [
    "get /pods a x",
    "get /pods a y",
    "get /pods b x",
    "list /pods a -",
    "list /pods - -",
    "create /pods a -",
    "get /pods/log a x",
    "get /pods/status a x",
    "update apps/deployments a x",
    "update apps/deployments/scale a x",
    "update apps/deployments/scale b y",
    "delete apps/deployments b y",
    "get /secrets a x",
    "get /secrets b y",
    "escalate rbac.authorization.k8s.io/roles a r1",
    "get /version",
    "get /api",
    "get /api/v1",
    "post /api/v1",
    "get /",
];

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    vec(select(of), 1..4)
}

fn rule() -> impl Strategy<Value = Value> {
    let verbs = || some(&["get", "list", "create", "update", "delete", "post", "*"]);
    let resources = (
        verbs(),
        some(&["", "apps", "rbac.authorization.k8s.io", "*"]),
        some(&[
            "pods",
            "pods/log",
            "*/scale",
            "*/status",
            "deployments",
            "deployments/scale",
            "secrets",
            "*",
        ]),
        vec(select(&["x", "y", "r1"][..]), 0..2),
    );
    prop_oneof![
        4 => resources.prop_map(|(verbs, groups, resources, names)| {
            json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names})
        }),
        1 => (verbs(), some(&["/version", "/api", "/api/*", "/*", "*"]))
            .prop_map(|(verbs, urls)| json!({"verbs": verbs, "nonResourceURLs": urls})),
    ]
}

fn role() -> impl Strategy<Value = Value> {
    (select(&NAMESPACES[..]), select(&ROLES[..]), vec(rule(), 0..4)).prop_map(|(namespace, name, rules)| {
        match namespace {
            "" => json!({"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
            _ => json!({"kind": "Role", "metadata": {"name": name, "namespace": namespace}, "rules": rules}),
        }
    })
}

fn binding() -> impl Strategy<Value = Value> {
    let subject = prop_oneof![
        select(&USERS[..]).prop_map(|name| json!({"kind": "User", "name": name})),
        select(&GROUPS[..]).prop_map(|name| json!({"kind": "Group", "name": name})),
        select(&["a", "b"][..])
            .prop_map(|of| json!({"kind": "ServiceAccount", "name": "s", "namespace": of})),
        Just(json!({"kind": "ServiceAccount", "name": "s"})),
    ];
    let name = select(&["b1", "b2", "b3", "b4", "b5", "b6"][..]);
    let parts = (select(&NAMESPACES[..]), name, any::<bool>(), select(&ROLES[..]), vec(subject, 0..4));
    parts.prop_map(|(namespace, name, cluster, role, subjects)| {
        let kind = if cluster || namespace.is_empty() { "ClusterRole" } else { "Role" };
        let role = json!({"apiGroup": GROUP, "kind": kind, "name": role});
        let mut out = json!({"metadata": {"name": name}, "roleRef": role, "subjects": subjects});
        if namespace.is_empty() {
            out["kind"] = "ClusterRoleBinding".into();
        } else {
            out["kind"] = "RoleBinding".into();
            out["metadata"]["namespace"] = namespace.into();
        }
        out
    })
}

/// What a sequence of writes leaves: the last of each name.
fn last(writes: &[Value]) -> Vec<Value> {
    let key = |object: &Value| {
        (object["kind"].clone(), object["metadata"]["namespace"].clone(), object["metadata"]["name"].clone())
    };
    let mut out: Vec<Value> = Vec::new();
    for write in writes {
        out.retain(|object| key(object) != key(write));
        out.push(write.clone());
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_index_decides_as_the_naive_evaluator(
        writes in vec(prop_oneof![role(), binding()], 0..24),
        removed in vec(any::<prop::sample::Index>(), 0..4),
        user in select(&USERS[..]),
        groups in vec(select(&GROUPS[..]), 0..3),
    ) {
        let mut objects = last(&writes);
        let mut index = index(&writes);
        for at in removed {
            if objects.is_empty() {
                break;
            }
            let object = objects.swap_remove(at.index(objects.len()));
            let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
            match object["kind"].as_str() {
                Some("Role" | "ClusterRole") => index.remove_role(&text("namespace"), &text("name")),
                _ => index.remove_binding(&text("namespace"), &text("name")),
            }
        }
        let groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
        let who = Requester { name: user, groups: &groups };
        for asked in REQUESTS {
            let request = request(asked);
            let grants = naive::grants(&objects, who, &request);
            match index.decide(who, &request) {
                Ok(grant) => {
                    let by = (grant.namespace.to_owned(), grant.name.to_owned());
                    prop_assert!(grants.contains(&by), "{asked}: {grant}, but {grants:?}");
                }
                Err(_) => prop_assert!(grants.is_empty(), "{asked}: {grants:?}"),
            }
            let namespace = match request.target {
                Target::Resource { namespace, .. } => namespace,
                Target::Path(_) => "",
            };
            let held = index.held(who, namespace);
            prop_assert_eq!(held.rules.iter().any(|rule| rule.allows(&request)), !grants.is_empty());
        }
    }

    #[test]
    fn what_is_covered_allows_nothing_new(
        held in vec(rule(), 0..4),
        given in vec(rule(), 0..3),
    ) {
        let (held, given) = (rules(json!(held)), rules(json!(given)));
        let allows = |rules: &[Rule], asked| rules.iter().any(|rule| rule.allows(&request(asked)));
        match covers(&held, &given) {
            Ok(()) => for asked in REQUESTS {
                prop_assert!(!allows(&given, asked) || allows(&held, asked), "{}", asked);
            },
            Err(lacking) => {
                let mut together = held.clone();
                together.extend(compact(&lacking));
                prop_assert!(covers(&together, &given).is_ok());
            }
        }
        prop_assert!(covers(&given, &given).is_ok());
    }
}
