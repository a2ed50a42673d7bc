//! The commands against the API server, which runs within the test over a store that forgets.

use std::sync::Arc;

use control::apiserver::{ApiServer, ServiceRanges, Settings, User};
use control::store::{Store, engine::Volatile};
use kube::Client;
use serde_json::{Value, json};

use super::apply::ApplyArgs;
use super::delete::DeleteArgs;
use super::describe::DescribeArgs;
use super::get::{GetArgs, Output};
use super::remote::{Remote, reason, request};
use super::{apply, delete, describe, get};

struct Cluster {
    server: Arc<ApiServer>,
    files: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Cluster {
        let settings = Settings {
            address: "127.0.0.1:6443".into(),
            run_dir: "/nonexistent".into(),
            ranges: ServiceRanges::with_cidr("10.96.0.0/16"),
            tokens: Arc::new(control::tokens::Tokens::ephemeral().expect("a key")),
            audit: control::audit::Audit::none(),
            pod_security: Default::default(),
        };
        let server = ApiServer::new(Store::open(Volatile).expect("a store"), settings).expect("a server");
        let cluster = Cluster { server, files: tempfile::tempdir().expect("a directory") };
        for (path, name) in
            [("/api/v1/namespaces", "default"), ("/api/v1/namespaces/default/serviceaccounts", "default")]
        {
            cluster.post(path, json!({"metadata": {"name": name}})).await;
        }
        cluster
    }

    fn client(&self) -> Client {
        self.server.client(User::admin())
    }

    async fn send(&self, method: &str, path: &str, media: &str, body: Value) -> Value {
        let request = request(method, path, &[("content-type", media)], body.to_string().into_bytes())
            .expect("a request");
        self.client().request(request).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.send("POST", path, "application/json", body).await
    }

    fn file(&self, name: &str, manifest: &str) -> Vec<String> {
        let path = self.files.path().join(name);
        std::fs::write(&path, manifest).expect("write a manifest");
        vec![path.display().to_string()]
    }

    /// Standard output; the exit code must be 0.
    async fn apply(&self, manifest: &str) -> String {
        let args = ApplyArgs { filename: self.file("apply.yaml", manifest), ..Default::default() };
        let mut out = Vec::new();
        let code = apply::run(self.client(), &args, &mut out).await.expect("apply");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(code, 0, "{text}");
        text
    }

    async fn get(&self, args: GetArgs) -> Result<String, String> {
        let mut out = Vec::new();
        match get::run(self.client(), &args, &mut out).await {
            Ok(_) => Ok(String::from_utf8(out).expect("text")),
            Err(error) => Err(format!("{error:#}")),
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn what(text: &str) -> GetArgs {
    GetArgs { what: words(text), ..Default::default() }
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, labels: {a: b}}
spec: {selector: {a: b}, ports: [{port: 80, name: a}, {port: 81, name: b}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c, labels: {x: y}}
data: {one: \"1\", two: \"2\"}
";

#[tokio::test]
async fn applying_server_side_respects_other_owners() {
    let cluster = Cluster::start().await;
    let apply = |manifest: String, manager: &'static str, force: bool| {
        let args = ApplyArgs {
            filename: cluster.file("ssa.yaml", &manifest),
            server_side: true,
            force_conflicts: force,
            field_manager: manager.into(),
            ..Default::default()
        };
        let client = cluster.client();
        async move {
            let mut out = Vec::new();
            let code = apply::run(client, &args, &mut out).await.expect("apply");
            (code, String::from_utf8(out).expect("text"))
        }
    };
    let both = "service/web serverside-applied\nconfigmap/c serverside-applied\n".to_owned();
    assert_eq!(apply(SERVICE.into(), "kubectl", false).await, (0, both));
    let other = SERVICE.replace("two: \"2\"", "two: \"3\"");
    let refused = apply(other.clone(), "ci", false).await;
    assert_eq!(
        refused,
        (1, "service/web serverside-applied\n".to_owned()),
        "the other is applied all the same"
    );
    assert_eq!(apply(other, "ci", true).await.0, 0);
    let shown =
        cluster.get(GetArgs { output: Some(Output::Json), ..what("configmap c") }).await.expect("the map");
    assert!(shown.contains("\"two\": \"3\""), "{shown}");
}

#[tokio::test]
async fn applying_creates_then_changes_then_leaves_alone() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.apply(SERVICE).await, "service/web created\nconfigmap/c created\n");
    assert_eq!(cluster.apply(SERVICE).await, "service/web unchanged\nconfigmap/c unchanged\n");
    let next = SERVICE.replace(", {port: 81, name: b}", "").replace(", two: \"2\"", "");
    assert_eq!(cluster.apply(&next).await, "service/web configured\nconfigmap/c configured\n");
    assert_eq!(cluster.apply(&next).await, "service/web unchanged\nconfigmap/c unchanged\n");
    let remote = Remote::discover(cluster.client()).await.expect("discovery");
    let at = |path: &'static str| {
        let remote = &remote;
        async move { remote.get(path, "application/json").await.expect(path) }
    };
    let service = at("/api/v1/namespaces/default/services/web").await;
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "a", "port": 80, "protocol": "TCP", "targetPort": 80}])
    );
    assert_ne!(service["spec"]["clusterIP"], Value::Null, "the address stays");
    assert_eq!(at("/api/v1/namespaces/default/configmaps/c").await["data"], json!({"one": "1"}));
}

#[tokio::test]
async fn what_is_wrong_is_said_and_the_rest_is_applied() {
    let cluster = Cluster::start().await;
    let manifest = "
apiVersion: v1
kind: Pod
metadata: {name: Bad}
spec: {containers: [{name: a, image: x}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: good}
";
    let args = ApplyArgs { filename: cluster.file("bad.yaml", manifest), ..Default::default() };
    let mut out = Vec::new();
    assert_eq!(apply::run(cluster.client(), &args, &mut out).await.expect("apply"), 1);
    assert_eq!(String::from_utf8_lossy(&out), "configmap/good created\n");
    let none = ApplyArgs { filename: cluster.file("none.yaml", "# nothing\n"), ..Default::default() };
    let error = apply::run(cluster.client(), &none, &mut out).await.expect_err("nothing to apply");
    assert_eq!(error.to_string(), "error: no objects passed to apply");
}

#[tokio::test]
async fn objects_are_printed_as_tables_names_and_documents() {
    let cluster = Cluster::start().await;
    cluster.apply(SERVICE).await;
    let table = cluster.get(what("cm")).await.expect("a table");
    assert!(table.starts_with("NAME   DATA   AGE\nc      2      "), "{table}");
    let both = cluster.get(what("svc,cm")).await.expect("two tables");
    assert!(
        both.contains("service/web")
            && both.contains("\n\nNAME          DATA")
            && both.contains("configmap/c"),
        "{both}"
    );
    let names = GetArgs { output: Some(Output::Name), selector: Some("x=y".into()), ..what("svc,cm") };
    assert_eq!(cluster.get(names).await.expect("names"), "configmap/c\n");
    let yaml = GetArgs { output: Some(Output::Yaml), ..what("cm/c") };
    let yaml = cluster.get(yaml).await.expect("YAML");
    assert!(
        yaml.starts_with("apiVersion: v1\ndata:\n  one: \"1\"\n  two: \"2\"\nkind: ConfigMap\n"),
        "{yaml}"
    );
    let list = GetArgs { output: Some(Output::Json), ..what("cm") };
    let list: Value = serde_json::from_str(&cluster.get(list).await.expect("JSON")).expect("JSON");
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("List"), &json!("ConfigMap")));

    assert_eq!(
        cluster.get(what("cm nope")).await.unwrap_err(),
        "Error from server (NotFound): configmaps \"nope\" not found"
    );
    assert_eq!(
        cluster.get(what("nopes")).await.unwrap_err(),
        "error: the server doesn't have a resource type \"nopes\""
    );
    let quiet = GetArgs { ignore_not_found: true, ..what("cm nope") };
    assert_eq!(cluster.get(quiet).await, Ok(String::new()));
}

#[tokio::test]
async fn a_watch_prints_what_changes() {
    let cluster = Cluster::start().await;
    cluster.apply(SERVICE).await;
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let client = cluster.client();
    let watch =
        tokio::spawn(
            async move { get::run(client, &GetArgs { watch: true, ..what("cm") }, &mut writer).await },
        );
    let lines = tokio::task::spawn_blocking(move || {
        let lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
        lines.take(3).map(|line| line.expect("a line")).collect::<Vec<_>>()
    });
    cluster.post("/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "new"}})).await;
    let lines = tokio::time::timeout(std::time::Duration::from_secs(20), lines)
        .await
        .expect("in time")
        .expect("lines");
    watch.abort();
    assert!(
        lines[0].starts_with("NAME") && lines[1].starts_with("c ") && lines[2].starts_with("new"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_delete_waits_until_the_object_is_gone() {
    let cluster = Cluster::start().await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["a.b/c"]}});
    cluster.post("/api/v1/namespaces/default/configmaps", held).await;
    let client = cluster.client();
    let going = tokio::spawn(async move {
        let args = DeleteArgs {
            what: words("cm held"),
            wait: true,
            grace_period: -1,
            cascade: "background".into(),
            ..Default::default()
        };
        let mut out = Vec::new();
        let code = delete::run(client, &args, &mut out).await;
        (code.expect("delete"), String::from_utf8(out).expect("text"))
    });
    let remote = Remote::discover(cluster.client()).await.expect("discovery");
    let path = "/api/v1/namespaces/default/configmaps/held";
    loop {
        let object = remote.get(path, "application/json").await.expect("it is held");
        if !object["metadata"]["deletionTimestamp"].is_null() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(!going.is_finished(), "it waits for the finalizer");
    cluster
        .send("PATCH", path, "application/merge-patch+json", json!({"metadata": {"finalizers": null}}))
        .await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), going).await.expect("in time");
    assert_eq!(ended.expect("no panic"), (0, "configmap \"held\" deleted\n".to_owned()));
    let error = remote.get(path, "application/json").await.expect_err("it is gone");
    assert_eq!(reason(&error), "NotFound");
}

#[tokio::test]
async fn an_object_is_described_by_the_beginning_of_its_name() {
    let cluster = Cluster::start().await;
    cluster.apply(SERVICE).await;
    let args = DescribeArgs { what: words("service we"), show_events: true, ..Default::default() };
    let mut out = Vec::new();
    assert_eq!(describe::run(cluster.client(), &args, &mut out).await.expect("describe"), 0);
    let text = String::from_utf8(out).expect("text");
    assert!(text.starts_with("Name:         web\nNamespace:    default\nLabels:       a=b\n"), "{text}");
    assert!(text.contains("Events:") && text.contains("<none>"), "{text}");
}
