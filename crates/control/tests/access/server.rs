//! The server the tests ask, with its loops and its audit log.

use std::{fs, sync::Arc, time::Duration};

use control::{
    apiserver::{ApiServer, ServiceRanges, Settings, User},
    authorization, controllers,
    store::{Store, engine::Volatile},
};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

pub struct Server {
    pub server: Arc<ApiServer>,
    loops: tokio::task::JoinHandle<()>,
    /// Holds `audit.log`.
    log: tempfile::TempDir,
}

/// An answer, and its number in the audit log.
pub struct Answer {
    pub code: u16,
    pub value: Value,
    pub audit_id: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.loops.abort();
    }
}

pub const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/d/roles";
pub const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/d/rolebindings";
pub const CLUSTER_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
pub const GROUP: &str = "rbac.authorization.k8s.io";

pub fn jane() -> User {
    User::new("jane", ["dev".to_owned()])
}

impl Server {
    /// With the default roles, whose sums are written; namespaces `d` and `e`; jane may `edit` in `d`.
    pub async fn start() -> Server {
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

    pub async fn send(
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

    pub async fn answer(
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
    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log.path().join("audit.log")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first line that is as wanted; the writer may be a moment behind.
    pub async fn logged(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..2000 {
            if let Some(line) = self.log().into_iter().find(&wanted) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} is not in the audit log");
    }

    pub async fn ask(&self, user: &User, method: &str, target: &str, body: Value) -> (u16, Value) {
        self.send(Some(user.clone()), method, target, &[], body).await
    }

    pub async fn made(&self, target: &str, body: Value) -> Value {
        let (code, value) = self.ask(&User::admin(), "POST", target, body).await;
        assert_eq!(code, 201, "{target}: {value}");
        value
    }

    pub async fn until(&self, target: &str, wanted: impl Fn(&Value) -> bool) {
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
    pub async fn refused(&self, user: &User, method: &str, target: &str, body: Value) -> String {
        self.refused_with(user, method, target, &[], body).await
    }

    pub async fn refused_with(
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

pub fn binding(name: &str, role_kind: &str, role: &str, kind: &str, whom: &str) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
           "subjects": [{"apiGroup": GROUP, "kind": kind, "name": whom}]})
}

pub fn role(name: &str, verbs: &[&str], groups: &[&str], resources: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "rules": [{"verbs": verbs, "apiGroups": groups, "resources": resources}]})
}
