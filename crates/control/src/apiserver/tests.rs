//! The server asked within the process, as its clients ask it.

use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;
use crate::store::engine::Volatile;

mod apply;
mod nodes;
mod owners;
mod pod_security;
mod services;
mod tokens;

struct Server(Arc<ApiServer>);

fn settings() -> Settings {
    Settings {
        address: "127.0.0.1:6443".into(),
        run_dir: "/nonexistent".into(),
        ranges: ServiceRanges::with_cidr("10.96.0.0/16"),
        tokens: Arc::new(Tokens::ephemeral().unwrap()),
        audit: Audit::none(),
        pod_security: Default::default(),
    }
}

fn start() -> Server {
    Server(ApiServer::new(Store::open(Volatile).unwrap(), settings()).unwrap())
}

/// With the default roles, a namespace `d` and its default ServiceAccount.
async fn furnished() -> Server {
    let server = start();
    let client = server.0.client(User::component("system:apiserver"));
    crate::authorization::bootstrap::run(&client).await.unwrap();
    server.created("/api/v1/namespaces", json!({"metadata": {"name": "d"}})).await;
    server.created("/api/v1/namespaces/d/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    server
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "x"}]}})
}

impl Server {
    async fn ask_as(
        &self,
        user: Option<User>,
        method: &str,
        target: &str,
        media: &str,
        body: String,
    ) -> (StatusCode, http::HeaderMap, String) {
        let body = http_body_util::Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
        let request =
            Request::builder().method(method).uri(target).header("content-type", media).body(body).unwrap();
        let response = self.0.clone().handle(request, user.map(Arc::new)).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn ask(&self, method: &str, target: &str, body: Value) -> (u16, Value) {
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, _, text) = self.ask_as(Some(User::admin()), method, target, media, body).await;
        (status.as_u16(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
    }

    async fn created(&self, target: &str, body: Value) -> Value {
        let (code, value) = self.ask("POST", target, body).await;
        assert_eq!(code, 201, "{value}");
        value
    }

    async fn get(&self, target: &str) -> Value {
        let (code, value) = self.ask("GET", target, Value::Null).await;
        assert_eq!(code, 200, "{value}");
        value
    }

    /// The lines of a watch that ends by its `timeoutSeconds`.
    async fn watch(&self, target: &str) -> Vec<Value> {
        let (_, _, text) = self.ask_as(Some(User::admin()), "GET", target, "", String::new()).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

const PODS: &str = "/api/v1/namespaces/d/pods";

fn message(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["message"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_new_object_is_given_what_the_server_gives() {
    let server = furnished().await;
    let new = server.created(PODS, json!({"metadata": {"generateName": "p-", "uid": "mine", "deletionTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "main", "image": "x"}]}, "status": {"phase": "Running"}})).await;
    let meta = &new["metadata"];
    let name = meta["name"].as_str().unwrap();
    assert!(name.starts_with("p-") && name.len() == 7, "{name}");
    assert_eq!(meta["uid"].as_str().unwrap().len(), 36);
    assert!(
        meta["creationTimestamp"].as_str().unwrap().ends_with('Z') && meta["deletionTimestamp"].is_null()
    );
    assert_eq!((&meta["generation"], &new["status"]["phase"]), (&json!(1), &json!("Pending")));
    assert_eq!(new["spec"]["serviceAccountName"], "default");
    assert_eq!(new["spec"]["priority"], 0);
    assert_eq!(new["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(server.get(&format!("{PODS}/{name}")).await, new);
}

#[tokio::test]
async fn creates_are_refused_in_upstreams_words() {
    let server = furnished().await;
    server.created(PODS, pod("a")).await;
    let mut versioned = pod("b");
    versioned["metadata"]["resourceVersion"] = "5".into();
    let mut elsewhere = pod("b");
    elsewhere["metadata"]["namespace"] = "e".into();
    let table = [
        (PODS, pod("a"), 409, r#"pods "a" already exists"#),
        (PODS, versioned, 500, "resourceVersion should not be set on objects to be created"),
        (
            PODS,
            elsewhere,
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        ("/api/v1/namespaces/e/pods", pod("a"), 404, r#"namespaces "e" not found"#),
        (
            "/api/v1/namespaces/d/configmaps",
            json!({"kind": "Pod", "apiVersion": "v1"}),
            400,
            "cannot be handled as a ConfigMap",
        ),
        (
            "/api/v1/namespaces/d/configmaps?dryRun=x",
            json!({}),
            422,
            "Unsupported value: \"x\": supported values: \"All\"",
        ),
        (
            "/api/v1/namespaces/d/configmaps?fieldValidation=Strict",
            json!({"metadata": {"name": "c"}, "foo": 1}),
            400,
            "unknown field \"foo\"",
        ),
        ("/api/v1/namespaces/d/configmaps", json!({}), 422, "name or generateName is required"),
        ("/api/v1/pods", pod("a"), 405, "does not allow this method"),
        ("/api/v1/gadgets", pod("a"), 404, "could not find the requested resource"),
    ];
    for (target, body, code, words) in table {
        let answer = server.ask("POST", target, body).await;
        let (got, said) = message(&answer);
        assert!(got == code && said.contains(words), "{target}: {got} {said}");
    }
    let (status, _, text) = server.ask_as(Some(User::admin()), "POST", PODS, "text/plain", "x".into()).await;
    assert_eq!(status, 415, "{text}");
    let large = "x".repeat(decode::MAX_BODY + 1);
    let (status, _, text) = server.ask_as(Some(User::admin()), "POST", PODS, "application/json", large).await;
    assert!(status == 413 && text.contains("limit is 3145728"), "{text}");
    let large = json!({"metadata": {"name": "c"}, "binaryData": {"x": "QUFB".repeat(450_000)}});
    let answer = server.ask("POST", "/api/v1/namespaces/d/configmaps", large).await;
    assert!([413, 422].contains(&answer.0), "{}", answer.0);
}

#[tokio::test]
async fn unknown_fields_are_warned_of() {
    let server = furnished().await;
    let body = json!({"metadata": {"name": "c"}, "foo": 1}).to_string();
    let (status, headers, text) = server
        .ask_as(Some(User::admin()), "POST", "/api/v1/namespaces/d/configmaps", "application/json", body)
        .await;
    assert_eq!(status, 201);
    assert_eq!(headers["warning"], r#"299 - "unknown field \"foo\"""#);
    assert!(!text.contains("foo"));
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let server = furnished().await;
    let before = server.0.store.revision();
    server.created(&format!("{PODS}?dryRun=All"), pod("a")).await;
    server
        .created(
            "/api/v1/namespaces/d/services?dryRun=All",
            json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}}),
        )
        .await;
    server
        .created(
            "/api/v1/namespaces/d/services",
            json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}}),
        )
        .await;
    server.ask("PATCH", "/api/v1/namespaces/d?dryRun=All", json!({"metadata": {"labels": {"a": "b"}}})).await;
    server.ask("DELETE", "/api/v1/namespaces/d?dryRun=All", Value::Null).await;
    server.ask("DELETE", "/api/v1/namespaces/d/serviceaccounts?dryRun=All", Value::Null).await;
    assert_eq!(server.0.store.revision(), before + 1);
}

#[tokio::test]
async fn a_stale_writer_is_told_so() {
    let server = furnished().await;
    let target = "/api/v1/namespaces/d/configmaps/c";
    let old = server
        .created("/api/v1/namespaces/d/configmaps", json!({"metadata": {"name": "c"}, "data": {"n": "1"}}))
        .await;
    let mut new = old.clone();
    new["data"]["n"] = "2".into();
    assert_eq!(server.ask("PUT", target, new.clone()).await.0, 200);
    let answer = server.ask("PUT", target, new.clone()).await;
    let words = "Operation cannot be fulfilled on configmaps \"c\": the object has been modified; please apply your changes \
                 to the latest version and try again";
    assert_eq!(message(&answer), (409, words));
    // Without a version the last writer wins; the same again writes nothing.
    new["metadata"]["resourceVersion"] = Value::Null;
    new["data"]["n"] = "3".into();
    let (_, third) = server.ask("PUT", target, new.clone()).await;
    let (_, again) = server.ask("PUT", target, new.clone()).await;
    assert_eq!(third, again);
    new["metadata"]["uid"] = "other".into();
    let answer = server.ask("PUT", target, new).await;
    assert!(message(&answer).1.contains("Precondition failed: UID in precondition: other"), "{answer:?}");
    let wrong = json!({"metadata": {"name": "x"}});
    let answer = server.ask("PUT", target, wrong).await;
    assert_eq!(message(&answer), (400, "the name of the object (x) does not match the name on the URL (c)"));
    let answer = server
        .ask("PUT", "/api/v1/namespaces/d/configmaps/none", json!({"metadata": {"name": "none"}}))
        .await;
    assert_eq!(message(&answer), (404, r#"configmaps "none" not found"#));
}

#[tokio::test]
async fn parallel_patches_all_count() {
    let server = furnished().await;
    server.created("/api/v1/namespaces/d/configmaps", json!({"metadata": {"name": "c"}})).await;
    let patches = (0..20).map(|n| {
        let body = json!({"data": {format!("k{n}"): "v"}});
        async { server.ask("PATCH", "/api/v1/namespaces/d/configmaps/c", body).await.0 }
    });
    assert!(futures::future::join_all(patches).await.iter().all(|code| *code == 200));
    assert_eq!(server.get("/api/v1/namespaces/d/configmaps/c").await["data"].as_object().unwrap().len(), 20);
}

#[tokio::test]
async fn spec_and_status_have_a_path_each() {
    let server = furnished().await;
    let deployment = json!({"metadata": {"name": "w"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
    let target = "/apis/apps/v1/namespaces/d/deployments";
    let new = server.created(target, deployment).await;
    assert_eq!(new["metadata"]["generation"], 1);
    let both = json!({"spec": {"replicas": 3}, "status": {"replicas": 7}});
    let (_, spec) = server.ask("PATCH", &format!("{target}/w"), both.clone()).await;
    assert_eq!((&spec["spec"]["replicas"], &spec["status"]["replicas"]), (&json!(3), &Value::Null));
    assert_eq!(spec["metadata"]["generation"], 2);
    let both = json!({"spec": {"replicas": 9}, "status": {"replicas": 7}});
    let (_, status) = server.ask("PATCH", &format!("{target}/w/status"), both).await;
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(3), &json!(7)));
    assert_eq!(status["metadata"]["generation"], 2);

    let scale = server.get(&format!("{target}/w/scale")).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(3), &json!("a=b")));
    let (_, scale) =
        server.ask("PATCH", &format!("{target}/w/scale"), json!({"spec": {"replicas": 0}})).await;
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(server.get(&format!("{target}/w")).await["spec"]["replicas"], 0);
    let mut stale = scale.clone();
    stale["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(server.ask("PUT", &format!("{target}/w/scale"), stale).await.0, 409);
    let answer = server.ask("PATCH", &format!("{target}/w/scale"), json!({"spec": {"replicas": -1}})).await;
    assert!(message(&answer).1.contains("must be greater than or equal to 0"), "{answer:?}");
}

#[tokio::test]
async fn a_bound_pod_is_deleted_in_two_steps_and_a_pending_one_in_one() {
    let server = furnished().await;
    let a = server.created(PODS, pod("a")).await;
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "node-1"}});
    server.created(&format!("{PODS}/a/binding"), binding.clone()).await;
    let answer = server.ask("POST", &format!("{PODS}/a/binding"), binding).await;
    assert_eq!(
        message(&answer),
        (
            409,
            "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"node-1\""
        )
    );
    let (_, dying) = server.ask("DELETE", &format!("{PODS}/a"), Value::Null).await;
    assert_eq!(dying["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(dying["spec"]["nodeName"], "node-1");
    let wrong = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}});
    assert_eq!(server.ask("DELETE", &format!("{PODS}/a"), wrong).await.0, 409);
    let last = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": a["metadata"]["uid"]}});
    assert_eq!(server.ask("DELETE", &format!("{PODS}/a"), last).await.0, 200);
    assert_eq!(server.ask("GET", &format!("{PODS}/a"), Value::Null).await.0, 404);

    server.created(PODS, pod("b")).await;
    assert_eq!(server.ask("DELETE", &format!("{PODS}/b"), Value::Null).await.0, 200);
    assert_eq!(server.ask("GET", &format!("{PODS}/b"), Value::Null).await.0, 404);
    server.created(PODS, pod("c")).await;
    let eviction = json!({"metadata": {"name": "c", "namespace": "d"}});
    server.created(&format!("{PODS}/c/eviction"), eviction).await;
    assert_eq!(server.ask("GET", &format!("{PODS}/c"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn finalizers_hold_and_their_removal_frees() {
    let server = furnished().await;
    let target = "/api/v1/namespaces/d/configmaps";
    server.created(target, json!({"metadata": {"name": "c", "finalizers": ["x.io/y"]}})).await;
    let (_, held) = server.ask("DELETE", &format!("{target}/c"), Value::Null).await;
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let patch = json!({"metadata": {"finalizers": null}});
    assert_eq!(server.ask("PATCH", &format!("{target}/c"), patch).await.0, 200);
    assert_eq!(server.ask("GET", &format!("{target}/c"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let server = furnished().await;
    let (_, dying) = server.ask("DELETE", "/api/v1/namespaces/d", Value::Null).await;
    assert_eq!(dying["status"]["phase"], "Terminating");
    let answer = server.ask("POST", PODS, pod("a")).await;
    assert_eq!(
        message(&answer),
        (
            403,
            r#"pods "a" is forbidden: unable to create new content in namespace d because it is being terminated"#
        )
    );
    assert_eq!(answer.1["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut last = server.get("/api/v1/namespaces/d").await;
    last["spec"]["finalizers"] = json!([]);
    // Only the subresource takes the finalizer away.
    assert_eq!(server.ask("PUT", "/api/v1/namespaces/d", last.clone()).await.0, 200);
    let (code, gone) = server.ask("PUT", "/api/v1/namespaces/d/finalize", last).await;
    assert_eq!(code, 200, "{gone}");
    assert_eq!(server.ask("GET", "/api/v1/namespaces/d", Value::Null).await.0, 404);
}

#[tokio::test]
async fn lists_come_in_pages_of_one_moment() {
    let server = furnished().await;
    let target = "/api/v1/namespaces/d/configmaps";
    for name in ["a", "b", "c", "e"] {
        server.created(target, json!({"metadata": {"name": name, "labels": {"l": name}}})).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = server.get(&format!("{target}?limit=2")).await;
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a".into(), "b".into()], &json!(2))
    );
    server.created(target, json!({"metadata": {"name": "d"}})).await;
    server.ask("DELETE", &format!("{target}/e"), Value::Null).await;
    let token = first["metadata"]["continue"].as_str().unwrap().replace('=', "%3D").replace('+', "%2B");
    let second = server.get(&format!("{target}?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c", "e"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"]["continue"].is_null());
    assert_eq!(names(&server.get(&format!("{target}?labelSelector=l+in+(a,c)")).await), ["a", "c"]);
    assert_eq!(names(&server.get(&format!("{target}?labelSelector=!l")).await), ["d"]);
    assert_eq!(names(&server.get(&format!("{target}?fieldSelector=metadata.name%3Db")).await), ["b"]);
    server.0.store.compact(server.0.store.revision());
    let answer = server.ask("GET", &format!("{target}?limit=2&continue={token}"), Value::Null).await;
    assert!(
        answer.0 == 410 && message(&answer).1.starts_with("The provided continue parameter is too old"),
        "{answer:?}"
    );
    let answer = server.ask("GET", &format!("{target}?resourceVersion=999999"), Value::Null).await;
    assert!(
        answer.0 == 504 && message(&answer).1.contains("Too large resource version: 999999"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_watch_with_a_selector_tells_what_enters_and_leaves() {
    let server = furnished().await;
    let target = "/api/v1/namespaces/d/configmaps";
    let from = server.created(target, json!({"metadata": {"name": "a"}})).await;
    for label in
        [json!({"l": "1"}), json!({"l": "1", "m": "2"}), json!({"l": "2", "m": "2"}), json!({"l": "1"})]
    {
        let (code, _) =
            server.ask("PATCH", &format!("{target}/a"), json!({"metadata": {"labels": label}})).await;
        assert_eq!(code, 200);
    }
    server.ask("DELETE", &format!("{target}/a"), Value::Null).await;
    let since = from["metadata"]["resourceVersion"].as_str().unwrap();
    let words = |lines: &[Value]| -> Vec<String> {
        lines.iter().map(|l| l["type"].as_str().unwrap().to_owned()).collect()
    };
    let lines = server
        .watch(&format!("{target}?watch=1&timeoutSeconds=1&labelSelector=l%3D1&resourceVersion={since}"))
        .await;
    assert_eq!(words(&lines), ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]);
    let revisions: Vec<u64> = lines
        .iter()
        .map(|l| l["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    assert_eq!(lines[2]["object"]["metadata"]["labels"]["l"], "1", "it leaves as it was last seen");
}

#[tokio::test]
async fn a_watch_list_ends_its_first_part_with_a_bookmark() {
    let server = furnished().await;
    let initial = "watch=1&timeoutSeconds=1&sendInitialEvents=true&allowWatchBookmarks=true";
    let answer = server.ask("GET", &format!("/api/v1/namespaces?{initial}"), Value::Null).await;
    assert_eq!(answer.0, 422, "{answer:?}");
    let lines =
        server.watch(&format!("/api/v1/namespaces?{initial}&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!((&lines[0]["type"], &lines[1]["type"]), (&json!("ADDED"), &json!("BOOKMARK")));
    assert_eq!(lines[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    server.0.store.compact(server.0.store.revision());
    let lines = server.watch("/api/v1/namespaces?watch=1&resourceVersion=1&timeoutSeconds=1").await;
    assert_eq!(
        (lines.len(), &lines[0]["type"], &lines[0]["object"]["code"]),
        (1, &json!("ERROR"), &json!(410))
    );
    assert_eq!(lines[0]["object"]["reason"], "Expired");
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = furnished().await;
    let target = "/api/v1/namespaces/d/configmaps";
    for n in 0..50 {
        server
            .created(
                target,
                json!({"metadata": {"name": format!("c{n}"), "labels": {"odd": (n % 2).to_string()}}}),
            )
            .await;
    }
    let (code, list) = server.ask("DELETE", &format!("{target}?labelSelector=odd%3D1"), Value::Null).await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 25));
    assert_eq!(server.get(target).await["items"].as_array().unwrap().len(), 25);
    assert_eq!(server.ask("DELETE", "/api/v1/namespaces", Value::Null).await.0, 405);
}

#[tokio::test]
async fn nodes_are_held_to_their_own() {
    let server = furnished().await;
    server.created(PODS, pod("a")).await;
    server.created(&format!("{PODS}/a/binding"), json!({"target": {"kind": "Node", "name": "node-1"}})).await;
    let status = json!({"status": {"phase": "Running"}}).to_string();
    let media = "application/merge-patch+json";
    let table = [
        ("node-1", "PATCH", "/api/v1/namespaces/d/pods/a/status", 200),
        ("node-2", "PATCH", "/api/v1/namespaces/d/pods/a/status", 403),
        ("node-1", "PATCH", "/api/v1/namespaces/d/pods/a", 403),
        ("node-2", "DELETE", "/api/v1/namespaces/d/pods/a", 403),
        ("node-1", "DELETE", "/api/v1/namespaces/d", 403),
    ];
    for (node, method, target, want) in table {
        let (body, media) = if method == "PATCH" { (status.clone(), media) } else { (String::new(), "") };
        let (got, _, text) = server.ask_as(Some(User::node(node)), method, target, media, body).await;
        assert_eq!(got, want, "{node} {method} {target}: {text}");
    }
    for (name, want) in [("node-1", 201), ("node-2", 403)] {
        let node = json!({"metadata": {"name": name}, "status": {"nodeInfo": {}}}).to_string();
        let (got, _, text) = server
            .ask_as(Some(User::node("node-1")), "POST", "/api/v1/nodes", "application/json", node)
            .await;
        assert_eq!(got, want, "{name}: {text}");
    }
    let (got, _, _) = server.ask_as(None, "GET", PODS, "", String::new()).await;
    assert_eq!(got, 401);
    let (got, _, text) = server.ask_as(None, "GET", "/readyz", "", String::new()).await;
    assert_eq!((got.as_u16(), text.as_str()), (200, "ok"));
}

#[tokio::test]
async fn events_are_one_set_in_two_shapes() {
    let server = furnished().await;
    let core = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "d", "name": "a"},
        "reason": "R", "message": "m", "type": "Normal", "count": 3});
    server.created("/api/v1/namespaces/d/events", core).await;
    let new = server.get("/apis/events.k8s.io/v1/namespaces/d/events/e").await;
    assert_eq!(
        (&new["apiVersion"], &new["note"], &new["deprecatedCount"]),
        (&json!("events.k8s.io/v1"), &json!("m"), &json!(3))
    );
    let list = server.get("/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Da").await;
    assert_eq!(list["items"][0]["regarding"]["name"], "a");
    let list =
        server.get("/api/v1/namespaces/d/events?fieldSelector=involvedObject.name%3Da,reason%3DR").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn kube_speaks_to_it_within_the_process() {
    use futures::{StreamExt, TryStreamExt};
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use kube::{
        Api,
        api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
        runtime::watcher,
    };
    let server = furnished().await;
    let client = server.0.client(User::component("system:test"));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "d");
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "c"}, "data": {"k": "v"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let mut events = std::pin::pin!(watcher(maps.clone(), watcher::Config::default().streaming_lists()));
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(events.try_next().await.unwrap().unwrap());
    }
    assert!(matches!(&seen[2], watcher::Event::InitDone), "{seen:?}");
    maps.patch("c", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "w"}}))).await.unwrap();
    assert!(
        matches!(events.next().await, Some(Ok(watcher::Event::Apply(map))) if map.data.as_ref().unwrap()["k"] == "w")
    );
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    maps.delete("c", &DeleteParams::default()).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(watcher::Event::Delete(_)))));
    let error = Api::<Pod>::namespaced(client, "d").get("none").await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.is_not_found()));
}

#[tokio::test]
async fn a_table_has_a_row_for_each() {
    let server = furnished().await;
    server.created(PODS, pod("a")).await;
    let body = http_body_util::Full::default()
        .map_err(|never: std::convert::Infallible| match never {})
        .boxed_unsync();
    let request = Request::get(PODS)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(body)
        .unwrap();
    let response = server.0.clone().handle(request, Some(Arc::new(User::admin()))).await;
    let table: Value =
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert!(table["metadata"]["resourceVersion"].is_string());
}

#[tokio::test]
async fn what_is_no_resource_is_served_too() {
    let server = furnished().await;
    assert_eq!(server.get("/version").await["minor"], "35");
    assert_eq!(server.get("/api").await["versions"], json!(["v1"]));
    assert_eq!(server.get("/apis/apps").await["preferredVersion"]["groupVersion"], "apps/v1");
    assert_eq!(server.get("/openapi/v3/apis/apps/v1").await["openapi"], "3.0.0");
    assert!(server.get("/").await["paths"].as_array().unwrap().contains(&json!("/apis/apps/v1")));
    for (method, path, code) in
        [("GET", "/openapi/v2", 404), ("GET", "/apis/nope", 404), ("POST", "/version", 405)]
    {
        assert_eq!(server.ask(method, path, Value::Null).await.0, code, "{path}");
    }
    let (_, _, text) = server.ask_as(Some(User::admin()), "GET", "/metrics", "", String::new()).await;
    assert!(text.contains("apiserver_storage_objects{resource=\"namespaces\"} 1\n"), "{text}");
}
