//! Who may do what, over the real router: the default roles, escalation, reviews, impersonation, anonymous requests. Each
//! refusal is looked up in the audit log too.

mod controllers;
mod server;

use control::apiserver::User;
use serde_json::{Value, json};

use server::*;

#[tokio::test(flavor = "multi_thread")]
async fn who_may_edit_gets_no_further() {
    let server = Server::start().await;
    let jane = jane();
    for (method, target, body, want) in [
        ("GET", "/api/v1/namespaces/d/secrets/s", Value::Null, 200),
        ("POST", "/api/v1/namespaces/d/configmaps", json!({"metadata": {"name": "c"}}), 201),
        ("GET", "/api/v1/namespaces/d", Value::Null, 200),
        ("GET", "/apis/apps/v1", Value::Null, 200),
        ("GET", "/version", Value::Null, 200),
    ] {
        let (code, value) = server.ask(&jane, method, target, body).await;
        assert_eq!(code, want, "{method} {target}: {value}");
    }
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
    let table = [
        (
            "GET",
            "/api/v1/namespaces/e/secrets/s",
            Value::Null,
            r#"secrets "s" is forbidden: User "jane" cannot get resource "secrets" in API group "" in the namespace "e""#,
        ),
        (
            "GET",
            "/api/v1/secrets",
            Value::Null,
            r#"secrets is forbidden: User "jane" cannot list resource "secrets" in API group "" at the cluster scope"#,
        ),
        (
            "PATCH",
            "/api/v1/namespaces/d",
            label,
            r#"namespaces "d" is forbidden: User "jane" cannot patch resource "namespaces" in API group "" in the namespace "d""#,
        ),
        (
            "POST",
            ROLES,
            role("r", &["get"], &[""], &["pods"]),
            r#"roles.rbac.authorization.k8s.io is forbidden: User "jane" cannot create resource "roles" in API group "rbac.authorization.k8s.io" in the namespace "d""#,
        ),
        (
            "POST",
            BINDINGS,
            binding("b", "ClusterRole", "cluster-admin", "User", "jane"),
            r#"rolebindings.rbac.authorization.k8s.io is forbidden: User "jane" cannot create resource "rolebindings" in API group "rbac.authorization.k8s.io" in the namespace "d""#,
        ),
        (
            "POST",
            CLUSTER_BINDINGS,
            binding("b", "ClusterRole", "cluster-admin", "User", "jane"),
            r#"clusterrolebindings.rbac.authorization.k8s.io is forbidden: User "jane" cannot create resource "clusterrolebindings" in API group "rbac.authorization.k8s.io" at the cluster scope"#,
        ),
        (
            "POST",
            "/api/v1/namespaces/d/pods/p/binding",
            json!({"target": {"kind": "Node", "name": "n"}}),
            r#"pods "p" is forbidden: User "jane" cannot create resource "pods/binding" in API group "" in the namespace "d""#,
        ),
        (
            "GET",
            "/api/v1/nodes",
            Value::Null,
            r#"nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope"#,
        ),
        (
            "DELETE",
            "/api/v1/namespaces/e/pods",
            Value::Null,
            r#"pods is forbidden: User "jane" cannot deletecollection resource "pods" in API group "" in the namespace "e""#,
        ),
        // Whether there is such a thing she does not learn.
        (
            "GET",
            "/apis/apps/v1/namespaces/d/gadgets/g/parts",
            Value::Null,
            r#"gadgets.apps "g" is forbidden: User "jane" cannot get resource "gadgets/parts" in API group "apps" in the namespace "d""#,
        ),
        ("GET", "/metrics", Value::Null, r#"forbidden: User "jane" cannot get path "/metrics""#),
    ];
    for (method, target, body, want) in table {
        assert_eq!(server.refused(&jane, method, target, body).await, want);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_not_found_by_who_may_look() {
    let server = Server::start().await;
    for (method, target, want) in [
        ("GET", "/apis/apps/v1/namespaces/d/gadgets/g/parts", 404),
        ("GET", "/api/v1/gadgets", 404),
        ("POST", "/api/v1/pods", 405),
    ] {
        assert_eq!(server.ask(&User::admin(), method, target, Value::Null).await.0, want, "{target}");
        server.refused(&jane(), method, target, Value::Null).await;
        assert_eq!(server.send(None, method, target, &[], Value::Null).await.0, 401, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_of_a_namespace_gives_only_what_it_holds() {
    let server = Server::start().await;
    server.made(BINDINGS, binding("joe-admin", "ClusterRole", "admin", "User", "joe")).await;
    let joe = User::new("joe", []);
    let (code, value) = server.ask(&joe, "POST", ROLES, role("reader", &["get"], &[""], &["pods"])).await;
    assert_eq!(code, 201, "{value}");
    let (code, value) =
        server.ask(&joe, "POST", BINDINGS, binding("b", "Role", "reader", "User", "ann")).await;
    assert_eq!(code, 201, "{value}");
    let ann = User::new("ann", []);
    server.made("/api/v1/namespaces/d/configmaps", json!({"metadata": {"name": "c"}})).await;
    assert_eq!(server.ask(&ann, "GET", "/api/v1/namespaces/d/pods/none", Value::Null).await.0, 404);
    assert_eq!(server.ask(&ann, "GET", "/api/v1/namespaces/d/configmaps/c", Value::Null).await.0, 403);

    let attempt = |what: &str| {
        format!(
            "user \"joe\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently \
             held:\n{what}"
        )
    };
    assert_eq!(
        server.refused(&joe, "POST", ROLES, role("r", &["get", "list"], &[""], &["nodes", "pods"])).await,
        format!(
            "roles.rbac.authorization.k8s.io \"r\" is forbidden: {}",
            attempt(r#"{APIGroups:[""], Resources:["nodes"], Verbs:["get" "list"]}"#)
        )
    );
    let all = attempt(
        "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}",
    );
    let wanted = binding("b2", "ClusterRole", "cluster-admin", "User", "joe");
    assert_eq!(
        server.refused(&joe, "POST", BINDINGS, wanted.clone()).await,
        format!("rolebindings.rbac.authorization.k8s.io \"b2\" is forbidden: {all}")
    );
    let more = json!({"rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}]});
    assert_eq!(
        server.refused(&joe, "PATCH", &format!("{ROLES}/reader"), more).await,
        format!(
            "roles.rbac.authorization.k8s.io \"reader\" is forbidden: {}",
            attempt(r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#)
        )
    );
    let (code, value) =
        server.ask(&joe, "POST", BINDINGS, binding("b3", "Role", "none", "User", "joe")).await;
    assert_eq!(
        (code, value["message"].as_str().unwrap()),
        (404, "roles.rbac.authorization.k8s.io \"none\" not found")
    );

    // The verbs that say one may.
    let may = |name: &str, verb: &str, resource: &str| role(name, &[verb], &[GROUP], &[resource]);
    server.made(ROLES, may("escalates", "escalate", "roles")).await;
    server.made(BINDINGS, binding("joe-escalates", "Role", "escalates", "User", "joe")).await;
    let (code, value) = server.ask(&joe, "POST", ROLES, role("r", &["get"], &[""], &["nodes"])).await;
    assert_eq!(code, 201, "{value}");
    server.made(ROLES, may("binds", "bind", "clusterroles")).await;
    server.made(BINDINGS, binding("joe-binds", "Role", "binds", "User", "joe")).await;
    let (code, value) = server.ask(&joe, "POST", BINDINGS, wanted).await;
    assert_eq!(code, 201, "{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_do_everything_writes_sums() {
    let server = Server::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    server.made(roles, role("role-writer", &["*"], &[GROUP], &["clusterroles/x", "clusterroles"])).await;
    server.made(roles, role("narrow", &["create"], &[GROUP], &["clusterroles"])).await;
    server.made(CLUSTER_BINDINGS, binding("b", "ClusterRole", "narrow", "User", "joe")).await;
    let joe = User::new("joe", []);
    let sum = json!({"metadata": {"name": "sum"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "sum"}}]}});
    assert_eq!(
        server.refused(&joe, "POST", roles, sum.clone()).await,
        "clusterroles.rbac.authorization.k8s.io \"sum\" is forbidden: must have cluster-admin privileges to use the \
         aggregationRule"
    );
    server.made(roles, sum).await;
    let mut part = role("part", &["get"], &["acme.example"], &["widgets"]);
    part["metadata"]["labels"] = json!({"to": "sum"});
    server.made(roles, part.clone()).await;
    let sum = format!("{roles}/sum");
    server.until(&sum, |sum| sum["rules"] == part["rules"]).await;
    let relabel = json!({"metadata": {"labels": {"to": null}}});
    server.ask(&User::admin(), "PATCH", &format!("{roles}/part"), relabel).await;
    server.until(&sum, |sum| sum["rules"].as_array().is_none_or(Vec::is_empty)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_in_particular_sees_health_and_version() {
    let server = Server::start().await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(server.send(None, "GET", path, &[], Value::Null).await.0, 200, "{path}");
    }
    for path in
        ["/", "/api", "/apis", "/metrics", "/healthz/x", "/api/v1/namespaces/d/secrets", "/openapi/v3"]
    {
        let (code, value) = server.send(None, "GET", path, &[], Value::Null).await;
        assert_eq!((code, &value["message"]), (401, &json!("Unauthorized")), "{path}");
    }
    let (code, value) = server.send(None, "POST", "/version", &[], Value::Null).await;
    assert_eq!(
        (code, &value["message"]),
        (403, &json!("forbidden: User \"system:anonymous\" cannot post path \"/version\""))
    );
    let public = format!("{CLUSTER_BINDINGS}/system:public-info-viewer");
    assert_eq!(server.ask(&User::admin(), "DELETE", &public, Value::Null).await.0, 200);
    let (code, value) = server.send(None, "GET", "/version", &[], Value::Null).await;
    assert_eq!(
        (code, &value["message"]),
        (403, &json!("forbidden: User \"system:anonymous\" cannot get path \"/version\""))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn impersonation_takes_the_right_to() {
    let server = Server::start().await;
    let (jane, admin) = (jane(), User::admin());
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let table: [(&[(&str, &str)], &str); 5] = [
        (
            &[("Impersonate-User", "system:admin"), ("Impersonate-Group", "system:masters")],
            r#"users "system:admin" is forbidden: User "jane" cannot impersonate resource "users" in API group "" at the cluster scope"#,
        ),
        (
            &[("Impersonate-User", "system:serviceaccount:e:default")],
            r#"serviceaccounts "default" is forbidden: User "jane" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "e""#,
        ),
        (
            &[
                ("Impersonate-User", "system:serviceaccount:d:default"),
                ("Impersonate-Group", "system:masters"),
            ],
            r#"groups "system:masters" is forbidden: User "jane" cannot impersonate resource "groups" in API group "" at the cluster scope"#,
        ),
        (
            &[("Impersonate-User", "system:serviceaccount:d:default"), ("Impersonate-Extra-Scopes", "a")],
            r#"userextras.authentication.k8s.io "a" is forbidden: User "jane" cannot impersonate resource "userextras/scopes" in API group "authentication.k8s.io" at the cluster scope"#,
        ),
        (
            &[("Impersonate-User", "system:serviceaccount:d:default"), ("Impersonate-Uid", "7")],
            r#"uids.authentication.k8s.io "7" is forbidden: User "jane" cannot impersonate resource "uids" in API group "authentication.k8s.io" at the cluster scope"#,
        ),
    ];
    for (headers, want) in table {
        assert_eq!(server.refused_with(&jane, "POST", whoami, headers, review.clone()).await, want);
    }
    // The role edit lets one be the ServiceAccounts of one's namespace.
    let account = [("Impersonate-User", "system:serviceaccount:d:default")];
    let (code, value) = server.send(Some(jane), "POST", whoami, &account, review.clone()).await;
    assert_eq!((code, &value["status"]["userInfo"]["username"]), (201, &json!(account[0].1)), "{value}");
    let headers = [
        ("Impersonate-User", "ann"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Extra-Scopes", "a"),
        ("Impersonate-Extra-Scopes", "b"),
    ];
    let (_, value) = server.send(Some(admin.clone()), "POST", whoami, &headers, review).await;
    assert_eq!(
        value["status"]["userInfo"],
        json!({"username": "ann", "uid": "7", "groups": ["ops", "system:authenticated"], "extra": {"scopes": ["a", "b"]}})
    );
    // It is the other that is judged.
    let secret = "/api/v1/namespaces/d/secrets/s";
    let as_ann = [("Impersonate-User", "ann")];
    let (code, value) = server.send(Some(admin), "GET", secret, &as_ann, Value::Null).await;
    assert_eq!(
        (code, value["message"].as_str().unwrap()),
        (
            403,
            r#"secrets "s" is forbidden: User "ann" cannot get resource "secrets" in API group "" in the namespace "d""#
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_say_what_would_happen() {
    let server = Server::start().await;
    let group = "/apis/authorization.k8s.io/v1";
    let me = |attributes: Value| json!({"spec": {"resourceAttributes": attributes}});
    let own = format!("{group}/selfsubjectaccessreviews");
    let get = json!({"verb": "get", "resource": "secrets", "namespace": "d", "name": "s"});
    let (code, value) = server.ask(&jane(), "POST", &own, me(get.clone())).await;
    assert_eq!(
        (code, &value["status"]),
        (
            201,
            &json!({"allowed": true, "reason":
                "RBAC: allowed by RoleBinding \"jane-edits/d\" of ClusterRole \"edit\" to User \"jane\""})
        )
    );
    let mut elsewhere = get.clone();
    elsewhere["namespace"] = "e".into();
    let (_, value) = server.ask(&jane(), "POST", &own, me(elsewhere)).await;
    assert_eq!(value["status"], json!({"allowed": false}));
    let (code, value) = server.ask(&jane(), "POST", &own, json!({"spec": {}})).await;
    assert_eq!(
        (code, value["message"].as_str().unwrap()),
        (
            422,
            "SelfSubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes: Invalid value: null: \
             exactly one of nonResourceAttributes or resourceAttributes must be specified"
        )
    );
    let path = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/api"}}});
    let (_, value) = server.ask(&jane(), "POST", &own, path).await;
    assert_eq!(value["status"]["allowed"], true);

    let others = format!("{group}/subjectaccessreviews");
    let about = |user: &str, groups: Value| json!({"spec": {"user": user, "groups": groups, "resourceAttributes": get}});
    server.refused(&jane(), "POST", &others, about("jane", json!([]))).await;
    for (user, groups, want) in [
        ("jane", json!([]), true),
        ("ann", json!([]), false),
        ("ann", json!(["system:masters"]), true),
        ("system:serviceaccount:d:default", json!([]), false),
    ] {
        let (code, value) = server.ask(&User::admin(), "POST", &others, about(user, groups)).await;
        assert_eq!((code, value["status"]["allowed"] == json!(true)), (201, want), "{user}: {value}");
    }
    let (code, value) = server.ask(&User::admin(), "POST", &others, about("", json!([]))).await;
    assert_eq!(code, 422, "{value}");
    let local = format!("{group}/namespaces/e/localsubjectaccessreviews");
    let (code, value) = server.ask(&User::admin(), "POST", &local, about("jane", json!([]))).await;
    assert!(
        code == 422 && value["message"].as_str().unwrap().contains("must match metadata.namespace"),
        "{value}"
    );

    let rules = format!("{group}/selfsubjectrulesreviews");
    let (_, value) = server.ask(&jane(), "POST", &rules, json!({"spec": {"namespace": "d"}})).await;
    let status = &value["status"];
    assert_eq!(status["incomplete"], false);
    let lists = |field: &str, what: &str| status[field].to_string().contains(what);
    assert!(lists("resourceRules", "secrets") && lists("resourceRules", "selfsubjectreviews"), "{status}");
    assert!(lists("nonResourceRules", "/version"), "{status}");
    let (_, value) = server.ask(&jane(), "POST", &rules, json!({"spec": {"namespace": "e"}})).await;
    assert!(!value["status"]["resourceRules"].to_string().contains("secrets"));
    let (code, _) = server.ask(&jane(), "POST", &rules, json!({"spec": {}})).await;
    assert_eq!(code, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_subresources_count() {
    let server = Server::start().await;
    let named = json!({"metadata": {"name": "one"}, "rules": [
        {"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log", "pods/exec", "*/status"]}]});
    server.made(ROLES, named).await;
    server.made(BINDINGS, binding("ann", "Role", "one", "User", "ann")).await;
    let ann = User::new("ann", []);
    let secrets = "/api/v1/namespaces/d/secrets";
    let updates = role("updates", &["update", "deletecollection"], &[""], &["services", "secrets"]);
    server.made(ROLES, updates).await;
    server.made(BINDINGS, binding("ann-updates", "Role", "updates", "User", "ann")).await;
    let service = json!({"metadata": {"name": "w"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(
        server.refused(&ann, "PUT", "/api/v1/namespaces/d/services/w", service).await,
        r#"services "w" is forbidden: User "ann" cannot create resource "services" in API group "" in the namespace "d""#,
        "an update that makes needs both verbs"
    );
    let table = [
        ("GET", format!("{secrets}/s"), 200),
        ("GET", format!("{secrets}/t"), 403),
        ("GET", secrets.to_owned(), 403),
        ("GET", format!("{secrets}?fieldSelector=metadata.name%3Ds"), 200),
        ("GET", format!("{secrets}?fieldSelector=metadata.name%3Dt"), 403),
        ("GET", format!("{secrets}?fieldSelector=metadata.name!%3Dt"), 403),
        ("GET", "/api/v1/namespaces/d/pods/p/log".to_owned(), 404),
        ("GET", "/api/v1/namespaces/d/pods/p/status".to_owned(), 404),
        ("GET", "/api/v1/namespaces/d/pods/p".to_owned(), 403),
        ("POST", "/api/v1/namespaces/d/pods/p/exec".to_owned(), 403),
        // A stream opened by GET needs create as well.
        ("GET", "/api/v1/namespaces/d/pods/p/exec".to_owned(), 403),
        ("POST", "/api/v1/namespaces/d/pods/p/eviction".to_owned(), 403),
        ("PATCH", "/api/v1/namespaces/d/pods/p/ephemeralcontainers".to_owned(), 403),
    ];
    for (method, target, want) in table {
        let (code, value) = server.ask(&ann, method, &target, Value::Null).await;
        assert_eq!(code, want, "{method} {target}: {value}");
    }
}
