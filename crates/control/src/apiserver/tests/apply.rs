//! Server-side apply over the API.

use super::*;

pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/d/deployments";

pub fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

/// One that can be created.
pub fn whole(replicas: i64) -> Value {
    deployment(json!({"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "x"}]}}}))
}

impl Server {
    pub async fn apply(&self, target: &str, config: &Value) -> (u16, Value) {
        self.apply_text(target, config.to_string()).await
    }

    pub async fn apply_text(&self, target: &str, config: String) -> (u16, Value) {
        let media = "application/apply-patch+yaml";
        let (status, _, text) = self.ask_as(Some(User::admin()), "PATCH", target, media, config).await;
        (status.as_u16(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
    }

    pub async fn applied(&self, target: &str, config: &Value) -> Value {
        let (code, value) = self.apply(target, config).await;
        assert!(code < 300, "{value}");
        value
    }
}

/// `manager/operation[/subresource]` of each entry.
pub fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let word = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let named = |entry: &Value| {
        let name = format!("{}/{}", word(entry, "manager"), word(entry, "operation"));
        if entry.get("subresource").is_some() {
            format!("{name}/{}", word(entry, "subresource"))
        } else {
            name
        }
    };
    entries.iter().map(named).collect()
}

pub fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    &entries
        .iter()
        .find(|entry| entry["manager"] == manager)
        .unwrap_or_else(|| panic!("no {manager}: {object}"))["fieldsV1"]
}

fn web(query: &str) -> String {
    format!("{DEPLOYMENTS}/web?{query}")
}

#[tokio::test]
async fn an_apply_creates_and_then_changes() {
    let server = furnished().await;
    let (code, made) = server.apply(&web("fieldManager=me"), &whole(1)).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"]["strategy"]["type"], "RollingUpdate", "with defaults");
    assert_eq!(managers(&made), ["me/Apply"]);
    assert_eq!(fields(&made, "me")["f:spec"]["f:replicas"], json!({}));
    assert!(fields(&made, "me")["f:spec"].get("f:strategy").is_none(), "not applied, not owned");

    let (code, again) = server.apply(&web("fieldManager=me"), &whole(1)).await;
    assert_eq!((code, &again), (200, &made), "nothing is written");

    // YAML as well as JSON.
    let yaml =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {x: y}}\nspec: {replicas: 3}\n";
    let (code, changed) = server.apply_text(&web("fieldManager=other"), yaml.into()).await;
    assert_eq!(code, 409);
    assert_eq!(changed["message"], "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas");
    assert_eq!(
        changed["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"me\"", "field": ".spec.replicas"}])
    );
    let (code, changed) = server.apply_text(&web("fieldManager=other&force=true"), yaml.into()).await;
    assert_eq!(
        (code, &changed["spec"]["replicas"], &changed["metadata"]["generation"]),
        (200, &json!(3), &json!(2))
    );
    assert_eq!(managers(&changed), ["me/Apply", "other/Apply"]);
    let unlabelled = deployment(json!({"replicas": 3}));
    let left = server.applied(&web("fieldManager=other"), &unlabelled).await;
    assert!(left["metadata"].get("labels").is_none(), "{left}");
}

/// Every manifest of the examples, with its path.
fn examples() -> Vec<(String, Value)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/chapter");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut out = Vec::new();
    for file in files {
        let text = std::fs::read(&file).unwrap();
        for parsed in api::json::parse_yaml_documents(&text, api::json::Limits::default()).unwrap() {
            let object = parsed.value;
            let resource = registry::resources()
                .iter()
                .find(|r| object["apiVersion"] == r.api_version() && object["kind"] == r.kind)
                .unwrap_or_else(|| panic!("{file:?}"));
            let group = if resource.group.is_empty() {
                "/api/v1".into()
            } else {
                format!("/apis/{}", resource.api_version())
            };
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("d");
            let within =
                if resource.namespaced() { format!("/namespaces/{namespace}") } else { String::new() };
            let name = object["metadata"]["name"].as_str().unwrap();
            out.push((format!("{group}{within}/{}/{name}", resource.plural), object));
        }
    }
    out
}

#[tokio::test]
async fn every_example_is_applied_twice_as_once() {
    let server = furnished().await;
    let examples = examples();
    assert!(examples.len() > 15, "{}", examples.len());
    for (path, config) in &examples {
        if let Some(namespace) =
            config["metadata"]["namespace"].as_str().filter(|namespace| *namespace != "d")
        {
            let made = json!({"metadata": {"name": namespace}});
            server.ask("POST", "/api/v1/namespaces", made).await;
            let account = json!({"metadata": {"name": "default"}});
            server.ask("POST", &format!("/api/v1/namespaces/{namespace}/serviceaccounts"), account).await;
        }
        let made = server.applied(&format!("{path}?fieldManager=me"), config).await;
        // Who says nothing but a name owns nothing.
        if config["metadata"].as_object().is_some_and(|metadata| metadata.len() == 1)
            && config.get("spec").is_none()
        {
            assert_eq!(managers(&made), [""; 0], "{path}");
            continue;
        }
        assert_eq!(managers(&made), ["me/Apply"], "{path}");
        let (code, again) = server.apply(&format!("{path}?fieldManager=me"), config).await;
        assert_eq!((code, &again), (200, &made), "{path}");
        // Another shares it all; nothing is in its way, and nothing of the object changes.
        let shared = server.applied(&format!("{path}?fieldManager=you"), config).await;
        assert_eq!(shared["spec"], made["spec"], "{path}");
        assert_eq!(fields(&shared, "me"), fields(&shared, "you"), "{path}");
    }
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let server = furnished().await;
    let (code, made) = server.apply(&web("fieldManager=me&dryRun=All"), &whole(1)).await;
    assert_eq!((code, managers(&made)), (201, vec!["me/Apply".to_owned()]));
    assert_eq!(server.ask("GET", &web(""), Value::Null).await.0, 404);
    let made = server.applied(&web("fieldManager=me"), &whole(1)).await;
    let (code, shown) = server.apply(&web("fieldManager=me&dryRun=All"), &whole(2)).await;
    assert_eq!((code, &shown["spec"]["replicas"]), (200, &json!(2)));
    assert_eq!(server.get(&web("")).await, made);
}

#[tokio::test]
async fn an_apply_is_refused_in_upstreams_words() {
    let server = furnished().await;
    server.applied(&web("fieldManager=me"), &whole(1)).await;
    let with = |pointer: &str, value: Value| {
        let mut config = whole(1);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        config
    };
    let me = web("fieldManager=me");
    let new = format!("{DEPLOYMENTS}/new?fieldManager=me");
    let table = [
        (
            web(""),
            whole(1),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            web(&format!("fieldManager={}", "x".repeat(129))),
            whole(1),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes",
        ),
        (
            web("fieldManager=a%07b"),
            whole(1),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\ab\": invalid character U+0007 (at position 1)",
        ),
        (me.clone(), with("/metadata/managedFields", json!([])), 400, "metadata.managedFields must be nil"),
        (me.clone(), with("/kind", "Pod".into()), 400, "invalid object type: apps/v1, Kind=Pod"),
        (me.clone(), json!({"metadata": {"name": "web"}}), 400, "invalid object type: /, Kind="),
        (me.clone(), json!([1]), 400, "error decoding YAML: expected an object, found [1]"),
        (
            me.clone(),
            with("/metadata/name", "other".into()),
            400,
            "the name of the object (other) does not match the name on the URL (web)",
        ),
        (
            me.clone(),
            with("/metadata/namespace", "other".into()),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            me.clone(),
            with("/metadata/resourceVersion", "1".into()),
            409,
            "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your changes to the latest version and try again",
        ),
        (
            me.clone(),
            with("/metadata/namespace", "d".into())
                .as_object()
                .map(|map| {
                    let mut config = Value::Object(map.clone());
                    config["spec"]["foo"] = 1.into();
                    config
                })
                .unwrap(),
            500,
            "failed to create typed patch object (d/web; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema",
        ),
        (
            me.clone(),
            with(
                "/spec/template/spec/containers",
                json!([{"name": "main", "resources": {"limits": {"cpu": "x"}}}]),
            ),
            500,
            "failed to convert new object (/web; apps/v1, Kind=Deployment) to proper version: unable to convert unstructured object to apps/v1, Kind=Deployment: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            new.clone(),
            with("/metadata", json!({"name": "new", "uid": "u"})),
            409,
            "Operation cannot be fulfilled on deployments.apps \"new\": uid mismatch: the provided object specified uid u, and no existing object was found",
        ),
        (
            new.clone(),
            with("/metadata", json!({})),
            400,
            "the name of the object (new based on URL) was undeterminable: name must be provided",
        ),
        (
            new.clone(),
            with("/metadata", json!({"name": "new", "resourceVersion": "5"})),
            409,
            "Operation cannot be fulfilled on deployments.apps \"new\": the object has been modified; please apply your changes to the latest version and try again",
        ),
        (
            format!("{DEPLOYMENTS}/new/status?fieldManager=me"),
            with("/metadata/name", "new".into()),
            404,
            "deployments.apps \"new\" not found",
        ),
    ];
    for (target, config, code, want) in table {
        let answer = server.apply(&target, &config).await;
        assert_eq!(message(&answer), (code, want), "{target} {config}");
    }
    let answer = server.ask("PATCH", &web("force=true"), json!({})).await;
    assert_eq!(
        message(&answer),
        (
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
        )
    );
    let twice =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 1, replicas: 1}\n";
    let answer = server.apply_text(&web("fieldManager=me&fieldValidation=Strict"), twice.into()).await;
    assert_eq!(message(&answer), (400, "error strict decoding YAML: duplicate field \"spec.replicas\""));
}

#[tokio::test]
async fn who_may_patch_and_not_create_does_not_create_by_applying() {
    let server = furnished().await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}]);
    server
        .created(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({"metadata": {"name": "patcher"}, "rules": rules}),
        )
        .await;
    let binding = json!({"metadata": {"name": "jane"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "patcher"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    server.created("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    let target = "/api/v1/namespaces/d/configmaps/c?fieldManager=me";
    let config =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}});
    let as_jane = || {
        server.ask_as(
            Some(User::new("jane", [])),
            "PATCH",
            target,
            "application/apply-patch+yaml",
            config.to_string(),
        )
    };
    let (status, _, text) = as_jane().await;
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("cannot create resource"), "{text}");
    server.applied(target, &config).await;
    assert_eq!(as_jane().await.0, 200);
}

#[tokio::test]
async fn subresources_have_appliers_of_their_own() {
    let server = furnished().await;
    server.applied(&web("fieldManager=me"), &whole(1)).await;
    let mut status = deployment(json!({"replicas": 9}));
    status["status"] = json!({"replicas": 4, "conditions": [{"type": "Available", "status": "True"}]});
    let target = format!("{DEPLOYMENTS}/web/status?fieldManager=me");
    let new = server.applied(&target, &status).await;
    assert_eq!((&new["spec"]["replicas"], &new["status"]["replicas"]), (&json!(1), &json!(4)));
    assert_eq!(managers(&new), ["me/Apply", "me/Apply/status"]);
    assert_eq!(
        new["metadata"]["managedFields"][1]["fieldsV1"],
        json!({"f:status": {"f:conditions": {"k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}}, "f:replicas": {}}})
    );
    status["status"] = json!({"conditions": [{"type": "Available", "status": "True"}]});
    let new = server.applied(&target, &status).await;
    assert!(new["status"].get("replicas").is_none(), "{new}");

    // The status of a configuration of the whole is nobody's.
    let mut config = whole(1);
    config["status"] = json!({"replicas": 7});
    let new = server.applied(&web("fieldManager=me"), &config).await;
    assert!(new["status"].get("replicas").is_none() && fields(&new, "me").get("f:status").is_none());
}

#[tokio::test]
async fn a_scale_is_applied_and_conflicts_with_the_replicas() {
    let server = furnished().await;
    server.applied(&web("fieldManager=me"), &whole(1)).await;
    let scale = |spec: Value| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": spec});
    let target = |query: &str| format!("{DEPLOYMENTS}/web/scale?{query}");
    let answer = server.apply(&target("fieldManager=hpa"), &scale(json!({"replicas": 3}))).await;
    assert_eq!(message(&answer), (409, "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas"));
    let new = server.applied(&target("fieldManager=hpa&force=true"), &scale(json!({"replicas": 3}))).await;
    assert_eq!((&new["kind"], &new["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let whole_object = server.get(&web("")).await;
    assert_eq!(managers(&whole_object), ["hpa/Apply/scale", "me/Apply"]);
    assert_eq!(fields(&whole_object, "hpa"), &json!({"f:spec": {"f:replicas": {}}}));
    assert!(fields(&whole_object, "me")["f:spec"].get("f:replicas").is_none());

    let answer = server.apply(&web("fieldManager=me"), &whole(1)).await;
    assert_eq!(
        message(&answer),
        (
            409,
            "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\": .spec.replicas"
        )
    );
    let bad = [
        (
            scale(json!({"replicas": -1})),
            422,
            "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (whole(1), 400, "invalid object type: apps/v1, Kind=Deployment"),
    ];
    for (config, code, want) in bad {
        assert_eq!(message(&server.apply(&target("fieldManager=hpa"), &config).await), (code, want));
    }
    server.applied(&target("fieldManager=hpa"), &scale(json!({}))).await;
    assert_eq!(server.get(&web("")).await["spec"]["replicas"], 0, "a Scale without replicas has none");
}

#[tokio::test]
async fn an_object_without_owners_has_had_one_before() {
    let server = furnished().await;
    server.created(DEPLOYMENTS, whole(1)).await;
    // As an object that was stored before owners were kept.
    let bare = server.ask("PATCH", &web(""), json!({"metadata": {"managedFields": [{}]}})).await.1;
    assert!(bare["metadata"].get("managedFields").is_none(), "{bare}");
    let written =
        server.ask("PATCH", &web("fieldManager=x"), json!({"spec": {"minReadySeconds": 1}})).await.1;
    assert!(written["metadata"].get("managedFields").is_none(), "not kept before somebody applies");
    let answer = server.apply(&web("fieldManager=me"), &deployment(json!({"replicas": 2}))).await;
    assert_eq!(
        message(&answer),
        (
            409,
            "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
        )
    );
    let new = server.applied(&web("fieldManager=me"), &deployment(json!({"replicas": 1}))).await;
    assert_eq!(managers(&new), ["me/Apply", "before-first-apply/Update"]);
}

#[tokio::test]
async fn events_are_applied_in_either_version() {
    let server = furnished().await;
    let target = "/apis/events.k8s.io/v1/namespaces/d/events/e?fieldManager=me";
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "n", "reason": "R", "type": "Normal",
        "action": "A", "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c/x", "reportingInstance": "i",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "d"}});
    let made = server.applied(target, &event).await;
    assert_eq!((&made["note"], fields(&made, "me").get("f:note").is_some()), (&json!("n"), true));
    let core = "/api/v1/namespaces/d/events/e?fieldManager=other";
    let config = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "m"});
    let answer = server.apply(core, &config).await;
    assert_eq!(message(&answer), (409, "Apply failed with 1 conflict: conflict with \"me\": .note"));
}
