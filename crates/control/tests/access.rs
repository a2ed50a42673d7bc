//! Who may do what, over the real router: the default roles, escalation, reviews, impersonation, anonymous requests. Each
//! refusal is looked up in the audit log too.

use std::{fs, sync::Arc, time::Duration};

use control::{
    apiserver::{ApiServer, ServiceRanges, Settings, User},
    authorization, controllers,
    store::{Store, engine::Volatile},
};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

struct Server {
    server: Arc<ApiServer>,
    loops: tokio::task::JoinHandle<()>,
    /// Holds `audit.log`.
    log: tempfile::TempDir,
}

/// An answer, and its number in the audit log.
struct Answer {
    code: u16,
    value: Value,
    audit_id: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.loops.abort();
    }
}

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/d/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/d/rolebindings";
const CLUSTER_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const GROUP: &str = "rbac.authorization.k8s.io";

fn jane() -> User {
    User::new("jane", ["dev".to_owned()])
}

impl Server {
    /// With the default roles, whose sums are written; namespaces `d` and `e`; jane may `edit` in `d`.
    async fn start() -> Server {
        let log = tempfile::tempdir().unwrap();
        let settings = Settings {
            address: "127.0.0.1:6443".into(),
            run_dir: "/nonexistent".into(),
            ranges: ServiceRanges::with_cidr("10.96.0.0/16"),
            tokens: Arc::new(control::tokens::Tokens::ephemeral().unwrap()),
            audit: control::audit::Audit::open(fs::File::open(log.path()).unwrap().into()).unwrap(),
            pod_security: Default::default(),
        };
        let server = ApiServer::new(Store::open(Volatile).unwrap(), settings).unwrap();
        let client = server.client(User::component("system:apiserver"));
        authorization::bootstrap::run(&client).await.unwrap();
        let for_loops = server.clone();
        let loops = controllers::run(move |user| for_loops.client(user), "the CA".to_owned());
        let server = Server { server, loops: tokio::spawn(loops), log };
        for name in ["d", "e"] {
            server.made("/api/v1/namespaces", json!({"metadata": {"name": name}})).await;
            let secret = json!({"metadata": {"name": "s"}});
            server.made(&format!("/api/v1/namespaces/{name}/secrets"), secret).await;
        }
        server.made(BINDINGS, binding("jane-edits", "ClusterRole", "edit", "User", "jane")).await;
        let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        server
            .until(&format!("{role}/admin"), |role| role["rules"].to_string().contains("rolebindings"))
            .await;
        server
            .until(&format!("{role}/admin"), |role| role["rules"].to_string().contains("endpointslices"))
            .await;
        server
    }

    async fn send(
        &self,
        user: Option<User>,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (u16, Value) {
        let answer = self.answer(user, method, target, headers, body).await;
        (answer.code, answer.value)
    }

    async fn answer(
        &self,
        user: Option<User>,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::builder().method(method).uri(target).header("content-type", media);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        let response = self.server.clone().handle(request, user.map(Arc::new)).await;
        let code = response.status().as_u16();
        let audit_id = response.headers()["audit-id"].to_str().unwrap().to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { code, value: serde_json::from_slice(&bytes).unwrap_or(Value::Null), audit_id }
    }

    /// The lines of the audit log so far.
    fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log.path().join("audit.log")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first line that is as wanted; the writer may be a moment behind.
    async fn logged(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..2000 {
            if let Some(line) = self.log().into_iter().find(&wanted) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} is not in the audit log");
    }

    async fn ask(&self, user: &User, method: &str, target: &str, body: Value) -> (u16, Value) {
        self.send(Some(user.clone()), method, target, &[], body).await
    }

    async fn made(&self, target: &str, body: Value) -> Value {
        let (code, value) = self.ask(&User::admin(), "POST", target, body).await;
        assert_eq!(code, 201, "{target}: {value}");
        value
    }

    async fn until(&self, target: &str, wanted: impl Fn(&Value) -> bool) {
        let mut last = Value::Null;
        for _ in 0..2000 {
            last = self.ask(&User::admin(), "GET", target, Value::Null).await.1;
            if wanted(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{target} stays {last}");
    }

    /// What a refusal says, to its client and in the audit log.
    async fn refused(&self, user: &User, method: &str, target: &str, body: Value) -> String {
        self.refused_with(user, method, target, &[], body).await
    }

    async fn refused_with(
        &self,
        user: &User,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> String {
        let Answer { code, value, audit_id } =
            self.answer(Some(user.clone()), method, target, headers, body).await;
        assert_eq!((code, &value["reason"]), (403, &json!("Forbidden")), "{method} {target}: {value}");
        let line = self.logged(&value.to_string(), |line| line["auditID"] == audit_id).await;
        assert_eq!(line["user"]["username"], user.name, "{line}");
        assert_eq!(line["requestURI"], target, "{line}");
        let said = &line["responseStatus"];
        assert_eq!((&said["code"], &said["message"]), (&json!(403), &value["message"]), "{line}");
        value["message"].as_str().unwrap().to_owned()
    }
}

fn binding(name: &str, role_kind: &str, role: &str, kind: &str, whom: &str) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
           "subjects": [{"apiGroup": GROUP, "kind": kind, "name": whom}]})
}

fn role(name: &str, verbs: &[&str], groups: &[&str], resources: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "rules": [{"verbs": verbs, "apiGroups": groups, "resources": resources}]})
}

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

/// Each controller is somebody of its own, who may do its own work and no other's.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_may_do_its_own_work_alone() {
    let server = Server::start().await;
    let account = |name: &str| User::of_account("kube-system", name);
    let table = [
        ("deployment-controller", "POST", "/apis/apps/v1/namespaces/d/replicasets", 422),
        ("deployment-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("deployment-controller", "POST", "/api/v1/namespaces/d/pods", 403),
        ("deployment-controller", "DELETE", "/api/v1/namespaces/d/secrets/s", 403),
        ("replicaset-controller", "POST", "/api/v1/namespaces/d/pods", 422),
        ("replicaset-controller", "GET", "/api/v1/secrets", 403),
        ("replicaset-controller", "PUT", "/apis/apps/v1/namespaces/d/deployments/x", 403),
        ("endpoint-controller", "GET", "/api/v1/namespaces/d/configmaps/kube-root-ca.crt", 403),
        ("endpointslice-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("job-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("job-controller", "POST", "/apis/batch/v1/namespaces/d/jobs", 403),
        ("daemon-set-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("daemon-set-controller", "PATCH", "/api/v1/nodes/n", 403),
        ("node-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        ("pod-garbage-collector", "POST", "/api/v1/namespaces/d/pods", 403),
        ("root-ca-cert-publisher", "GET", "/api/v1/namespaces/d/configmaps/kube-root-ca.crt", 403),
        ("root-ca-cert-publisher", "POST", "/api/v1/namespaces/d/secrets", 403),
        ("service-account-controller", "POST", "/api/v1/namespaces/d/serviceaccounts/default/token", 403),
        ("clusterrole-aggregation-controller", "POST", CLUSTER_BINDINGS, 403),
        ("clusterrole-aggregation-controller", "GET", "/api/v1/namespaces/d/secrets/s", 403),
        // Whoever deletes everything has to see it, but makes nothing.
        ("generic-garbage-collector", "POST", "/api/v1/namespaces/d/pods", 403),
        ("namespace-controller", "PATCH", "/api/v1/namespaces/d/secrets/s", 403),
    ];
    for (name, method, target, want) in table {
        let (code, value) = server.ask(&account(name), method, target, json!({})).await;
        assert_eq!(code, want, "{name}: {method} {target}: {value}");
    }
    let scheduler = User::new("system:kube-scheduler", []);
    server.refused(&scheduler, "GET", "/api/v1/namespaces/d/secrets/s", Value::Null).await;
    server.refused(&scheduler, "POST", "/api/v1/namespaces/d/pods", json!({})).await;
    let watches = User::new("system:kube-controller-manager", []);
    server.refused(&watches, "DELETE", "/api/v1/namespaces/d/pods/p", Value::Null).await;
}

/// The loops do all their work under those names: nothing they ask for is refused, and the log names them.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_the_controller_that_did_it() {
    let server = Server::start().await;
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "web"}}, "template": template}});
    let deployments = "/apis/apps/v1/namespaces/d/deployments";
    server.made(deployments, deployment).await;
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    server.made("/api/v1/namespaces/d/services", service).await;
    let bare = json!({"metadata": {"name": "bare"}, "spec": {"ports": [{"port": 80}]}});
    server.made("/api/v1/namespaces/d/services", bare).await;
    let endpoints = json!({"metadata": {"name": "bare"},
        "subsets": [{"addresses": [{"ip": "10.9.8.7"}], "ports": [{"port": 80}]}]});
    server.made("/api/v1/namespaces/d/endpoints", endpoints).await;
    let node = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}});
    server.made("/api/v1/nodes", node).await;
    let has = |field: &'static str, value: Value| move |object: &Value| object["status"][field] == value;
    server.until(&format!("{deployments}/web"), has("replicas", json!(2))).await;
    server.until(&format!("{deployments}/web"), has("observedGeneration", json!(1))).await;
    server
        .until("/api/v1/nodes/n", |node| node["spec"]["taints"].to_string().contains("unschedulable"))
        .await;
    let by = async |who: &str, verb: &str, resource: &str| {
        let name = match who.strip_prefix("system:") {
            Some(_) => who.to_owned(),
            None => format!("system:serviceaccount:kube-system:{who}"),
        };
        let what = format!("{name}: {verb} {resource}");
        let line = server
            .logged(&what, |line| {
                line["user"]["username"] == name
                    && line["verb"] == verb
                    && line["objectRef"]["resource"] == resource
            })
            .await;
        assert_eq!(line["annotations"]["authorization.k8s.io/decision"], "allow", "{line}");
    };
    for (who, verb, resource) in [
        ("deployment-controller", "create", "replicasets"),
        ("deployment-controller", "update", "deployments"),
        ("deployment-controller", "create", "events"),
        ("replicaset-controller", "create", "pods"),
        ("replicaset-controller", "update", "replicasets"),
        ("replicaset-controller", "create", "events"),
        ("endpointslice-controller", "create", "endpointslices"),
        ("endpoint-controller", "create", "endpoints"),
        ("endpointslicemirroring-controller", "create", "endpointslices"),
        ("node-controller", "patch", "nodes"),
        ("service-account-controller", "create", "serviceaccounts"),
        ("root-ca-cert-publisher", "create", "configmaps"),
        ("clusterrole-aggregation-controller", "update", "clusterroles"),
        ("system:kube-controller-manager", "watch", "pods"),
    ] {
        by(who, verb, resource).await;
    }
    server.ask(&User::admin(), "DELETE", &format!("{deployments}/web"), Value::Null).await;
    by("generic-garbage-collector", "delete", "replicasets").await;
    by("generic-garbage-collector", "delete", "pods").await;
    server.ask(&User::admin(), "DELETE", "/api/v1/namespaces/d", Value::Null).await;
    by("namespace-controller", "delete", "secrets").await;
    by("namespace-controller", "update", "namespaces").await;
    let refused: Vec<Value> =
        server.log().into_iter().filter(|line| line["responseStatus"]["code"] == 403).collect();
    // A namespace that goes takes nothing in any more: that is how its ServiceAccount is not made again.
    let other: Vec<&Value> = refused
        .iter()
        .filter(|line| !line["responseStatus"].to_string().contains("because it is being terminated"))
        .collect();
    assert!(other.is_empty(), "{other:#?}");
}
