//! Authorization with 1 000 roles and 5 000 bindings: decisions per second on one core, what a change of a binding costs the
//! next decision, and the share of authorization in a pod's POST (within the process, a store without disk: the largest
//! share there can be). `cargo run --release -p control --example authorization-bench`.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use control::{
    apiserver::{ApiServer, ServiceRanges, Settings, User},
    authorization::{self, Authorizer, Question},
    store::{Store, engine::Volatile},
};
use futures::{StreamExt, TryStreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use policy::rbac::{self, Target};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ROLES: usize = 1000;
const BINDINGS: usize = 5000;
const NAMESPACES: usize = 100;
const USERS: usize = 500;
const GROUPS: usize = 50;
const DECISIONS: usize = 200_000;
const POSTS: usize = 2000;
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

struct Server(Arc<ApiServer>);

impl Server {
    async fn post(&self, user: &Arc<User>, target: &str, body: Value) -> Outcome<()> {
        let body = Full::new(body.to_string().into()).map_err(|never| match never {}).boxed_unsync();
        let request = Request::post(target).header("content-type", "application/json").body(body)?;
        let response = self.0.clone().handle(request, Some(user.clone())).await;
        if response.status() == 201 {
            return Ok(());
        }
        let body = response.into_body().collect().await?.to_bytes();
        Err(format!("POST {target}: {}", String::from_utf8_lossy(&body)).into())
    }
}

fn namespace(number: usize) -> String {
    format!("ns-{}", number % NAMESPACES)
}

fn user(number: usize) -> User {
    let groups = (0..4).map(|at| format!("group-{}", (number * 7 + at) % GROUPS));
    User::new(format!("user-{}", number % USERS), groups)
}

/// Where a role goes, and what it is: every second is the cluster's.
fn role(number: usize) -> (String, Value) {
    let names = ["pods", "services", "secrets", "configmaps", "endpoints", "events", "pods/log", "pods/exec"];
    let rules: Vec<Value> = (0..8)
        .map(|at| {
            json!({"verbs": ["get", "list", "watch", "create"], "apiGroups": ["", "apps"],
                   "resources": [names[(number + at) % names.len()], format!("widgets{number}")]})
        })
        .collect();
    let target = match number % 2 {
        0 => format!("{RBAC}/clusterroles"),
        _ => format!("{RBAC}/namespaces/{}/roles", namespace(number)),
    };
    (target, json!({"metadata": {"name": format!("role-{number}")}, "rules": rules}))
}

fn binding(number: usize) -> (String, Value) {
    let of = number % ROLES;
    let cluster = of.is_multiple_of(2) && number.is_multiple_of(10);
    let target = match cluster {
        true => format!("{RBAC}/clusterrolebindings"),
        false => format!("{RBAC}/namespaces/{}/rolebindings", namespace(of)),
    };
    let subject = match number % 3 {
        0 => json!({"kind": "User", "name": format!("user-{}", number % USERS)}),
        1 => json!({"kind": "Group", "name": format!("group-{}", number % GROUPS)}),
        _ => json!({"kind": "ServiceAccount", "namespace": namespace(number), "name": "default"}),
    };
    let kind = if of.is_multiple_of(2) { "ClusterRole" } else { "Role" };
    let body = json!({"metadata": {"name": format!("binding-{number}")}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": format!("role-{of}")}});
    (target, body)
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "main", "image": "registry.example/some/image:v1", "ports": [{"containerPort": 8080}]}]}})
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let settings = Settings {
        address: "127.0.0.1:6443".into(),
        run_dir: "/nonexistent".into(),
        ranges: ServiceRanges::with_cidr("10.96.0.0/16"),
        tokens: Arc::new(control::tokens::Tokens::ephemeral()?),
        audit: control::audit::Audit::none(),
        pod_security: Default::default(),
    };
    let store = Store::open(Volatile)?;
    let server = Server(ApiServer::new(store.clone(), settings)?);
    authorization::bootstrap::run(&server.0.client(User::admin())).await?;
    let admin = Arc::new(User::admin());
    let (server, admin) = (&server, &admin);
    let all = |objects: Vec<(String, Value)>| async move {
        let posts =
            objects.into_iter().map(|(target, body)| async move { server.post(admin, &target, body).await });
        futures::stream::iter(posts).buffer_unordered(16).try_collect::<Vec<()>>().await
    };
    let namespaces = |name: String| ("/api/v1/namespaces".to_owned(), json!({"metadata": {"name": name}}));
    all((0..NAMESPACES).map(|number| namespaces(namespace(number))).collect()).await?;
    let accounts = (0..NAMESPACES).map(|number| {
        let target = format!("/api/v1/namespaces/{}/serviceaccounts", namespace(number));
        (target, json!({"metadata": {"name": "default"}}))
    });
    all(accounts.collect()).await?;
    all((0..ROLES).map(role).collect()).await?;
    all((0..BINDINGS).map(binding).collect()).await?;

    let authorizer = Authorizer::new(&store);
    let users: Vec<User> = (0..USERS).map(user).collect();
    let mut one = Duration::ZERO;
    for (what, verb, resource) in
        [("that may be allowed", "create", "pods"), ("that nobody is allowed", "delete", "nodes")]
    {
        let mut allowed = 0;
        let begin = Instant::now();
        for round in 0..DECISIONS {
            let (user, namespace) = (&users[round % USERS], namespace(round));
            let target =
                Target::Resource { group: "", resource, subresource: "", namespace: &namespace, name: "" };
            let question = Question { request: rbac::Request { verb, target }, selected_node: "" };
            allowed += usize::from(black_box(authorizer.decide(user, &question)).is_allowed());
        }
        let each = begin.elapsed() / DECISIONS as u32;
        one = one.max(each);
        let percent = allowed * 100 / DECISIONS;
        println!("decisions {what}: {:.0}/s, {each:?} each, {percent} % allowed", 1.0 / each.as_secs_f64());
    }

    // As one who is allowed by a binding of its own, and as one for whom no role is looked at.
    let editor = json!({"metadata": {"name": "editor"}, "subjects": [{"kind": "User", "name": "user-1"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
    server.post(admin, &format!("{RBAC}/namespaces/ns-1/rolebindings"), editor).await?;
    let mut medians = Vec::new();
    for (who, user) in [("by RBAC", Arc::new(user(1))), ("as system:masters", admin.clone())] {
        let mut taken = Vec::new();
        for number in 0..POSTS {
            let body = pod(&format!("{}-{number}", who.len()));
            let start = Instant::now();
            server.post(&user, "/api/v1/namespaces/ns-1/pods", body).await?;
            taken.push(start.elapsed());
        }
        taken.sort();
        println!("POST of a pod {who}: p50 {:?}, p90 {:?}", taken[POSTS / 2], taken[POSTS * 9 / 10]);
        medians.push(taken[POSTS / 2]);
    }
    let share = one.as_secs_f64() / medians[0].as_secs_f64() * 100.0;
    println!("share of authorization in that POST: {share:.1} %");
    Ok(())
}
