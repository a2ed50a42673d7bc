//! Authorization with 1 000 roles and 5 000 bindings: decisions per second on one core, beside an evaluator that looks through
//! the bindings one by one as Kubernetes' does; and the share of authorization in a pod's POST (within the process, a store
//! without disk: the largest share there can be). `cargo run --release -p control --example authorization-bench`.

use std::{
    collections::HashMap,
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
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use policy::rbac::{self, Binding, Requester, RoleKind, Rule, Subject, Target};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ROLES: usize = 1000;
const BINDINGS: usize = 5000;
const NAMESPACES: usize = 100;
const USERS: usize = 500;
const GROUPS: usize = 50;
const DECISIONS: usize = 50_000;
const ROUNDS: usize = 5;
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

/// What Kubernetes' RBAC authorizer does: every ClusterRoleBinding is looked at, then every RoleBinding of the namespace; of
/// those that name the user, the role's rules.
#[derive(Default)]
struct OneByOne {
    /// Under "" those of the cluster.
    bindings: HashMap<String, Vec<Binding>>,
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

fn stored<T: DeserializeOwned>(store: &Store, plural: &str) -> Outcome<Vec<T>> {
    let listed = store.list(&format!("/{plural}.rbac.authorization.k8s.io/"), None);
    let listed = listed.map_err(|error| format!("list {plural}: {error:?}"))?;
    listed.objects.iter().map(|object| Ok(serde_json::from_slice(object.bytes())?)).collect()
}

impl OneByOne {
    fn read(store: &Store) -> Outcome<OneByOne> {
        let mut all = OneByOne::default();
        for role in stored::<ClusterRole>(store, "clusterroles")? {
            let key = (String::new(), role.metadata.name.unwrap_or_default());
            all.roles.insert(key, Rule::list(role.rules));
        }
        for role in stored::<Role>(store, "roles")? {
            let key = (role.metadata.namespace.unwrap_or_default(), role.metadata.name.unwrap_or_default());
            all.roles.insert(key, Rule::list(role.rules));
        }
        for one in stored::<ClusterRoleBinding>(store, "clusterrolebindings")? {
            all.bindings.entry(String::new()).or_default().extend(Binding::new(
                "",
                one.role_ref,
                one.subjects,
            ));
        }
        for one in stored::<RoleBinding>(store, "rolebindings")? {
            let namespace = one.metadata.namespace.unwrap_or_default();
            let binding = Binding::new(&namespace, one.role_ref, one.subjects);
            all.bindings.entry(namespace).or_default().extend(binding);
        }
        Ok(all)
    }

    fn allows(&self, who: Requester<'_>, namespace: &str, request: &rbac::Request<'_>) -> bool {
        let names = |subject: &Subject| match subject {
            Subject::User(name) => name == who.name,
            Subject::Group(name) => who.groups.contains(name),
            Subject::ServiceAccount { namespace, name } => {
                who.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
                    == Some((namespace, name))
            }
        };
        [String::new(), namespace.to_owned()].iter().any(|place| {
            let named = self.bindings.get(place).into_iter().flatten();
            named.filter(|binding| binding.subjects.iter().any(names)).any(|binding| {
                let of = if binding.role == RoleKind::Role { place.clone() } else { String::new() };
                let rules = self.roles.get(&(of, binding.role_name.clone()));
                rules.is_some_and(|rules| rules.iter().any(|rule| rule.allows(request)))
            })
        })
    }
}

fn median(mut taken: Vec<Duration>) -> Duration {
    taken.sort();
    taken[taken.len() / 2]
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
    let one_by_one = OneByOne::read(&store)?;
    let mut one = Duration::ZERO;
    for (what, verb, resource) in
        [("that may be allowed", "create", "pods"), ("that nobody is allowed", "delete", "nodes")]
    {
        // Each answers so many questions in turn, so that what else the machine does is in both.
        let run = |decide: &dyn Fn(&User, &str, &Question<'_>) -> bool| {
            let mut allowed = 0;
            let begin = Instant::now();
            for round in 0..DECISIONS {
                let (user, namespace) = (&users[round % USERS], namespace(round));
                let target = Target::Resource {
                    group: "",
                    resource,
                    subresource: "",
                    namespace: &namespace,
                    name: "",
                };
                let question = Question { request: rbac::Request { verb, target }, selected_node: "" };
                allowed += usize::from(black_box(decide(user, &namespace, &question)));
            }
            (begin.elapsed() / DECISIONS as u32, allowed)
        };
        let (mut ours, mut theirs, mut allowed) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            let (each, by_index) = run(&|user, _, question| authorizer.decide(user, question).is_allowed());
            ours.push(each);
            let (each, by_scan) = run(&|user, namespace, question| {
                let who = Requester { name: &user.name, groups: &user.groups };
                one_by_one.allows(who, namespace, &question.request)
            });
            theirs.push(each);
            assert_eq!(by_index, by_scan, "both decide the same");
            allowed = by_index * 100 / DECISIONS;
        }
        let (ours, theirs) = (median(ours), median(theirs));
        one = one.max(ours);
        println!(
            "decisions {what}: {:.0}/s, {ours:?} each; one by one {:.0}/s, {theirs:?} each: {:.1} times as long; \
             {allowed} % allowed",
            1.0 / ours.as_secs_f64(),
            1.0 / theirs.as_secs_f64(),
            theirs.as_secs_f64() / ours.as_secs_f64(),
        );
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
