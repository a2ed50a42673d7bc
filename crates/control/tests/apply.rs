//! Server-side apply as people and programs use it: the real kubectl, curl, and kube's `Patch::Apply`.

mod common;

use common::{Control, DEPLOYMENT, contains};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

fn owners(c: &Control) -> Vec<String> {
    let text = c.ok("get deployment web -o json --show-managed-fields");
    let object: Value = serde_json::from_str(&text).unwrap();
    let mut out: Vec<String> = object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        // The controllers write when they come to it.
        .filter(|entry| entry["manager"] != "kube-controller-manager")
        .map(|entry| {
            format!("{} {}", entry["manager"].as_str().unwrap(), entry["operation"].as_str().unwrap())
        })
        .collect();
    out.sort();
    out
}

#[test]
fn kubectl_applies_server_side() {
    if !common::has("kubectl", "kubectl_applies_server_side") {
        return;
    }
    let c = Control::start();
    contains(
        &c.feed("apply --server-side -f -", DEPLOYMENT).unwrap(),
        &["deployment.apps/web serverside-applied"],
    );
    contains(&c.feed("apply --server-side -f -", DEPLOYMENT).unwrap(), &["serverside-applied"]);
    assert_eq!(owners(&c), ["kubectl Apply"]);
    assert!(!c.ok("get deployment web -o yaml").contains("managedFields"), "shown where it is asked for");

    // Another program, another value: kubectl says what to do.
    c.ok("scale deployment web --replicas=5");
    assert_eq!(owners(&c), ["kubectl Apply", "kubectl Update"]);
    let refused = c.feed("apply --server-side -f -", DEPLOYMENT).unwrap_err();
    contains(
        &refused,
        &[
            "error: Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas",
            "Please review the fields above--they currently have other managers.",
            "https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts",
        ],
    );
    let two = DEPLOYMENT.replace("image: nginx", "image: \"nginx:2\"");
    let refused = c.feed("apply --server-side --field-manager=ci -f -", &two).unwrap_err();
    contains(
        &refused,
        &[
            "Apply failed with 2 conflicts: conflicts with \"kubectl\":\n- .spec.template.spec.containers[name=\"main\"].image\n\
             conflicts with \"kubectl\" with subresource \"scale\" using apps/v1:\n- .spec.replicas",
        ],
    );
    contains(
        &c.feed("apply --server-side --force-conflicts --field-manager=ci -f -", &two).unwrap(),
        &["serverside-applied"],
    );
    assert_eq!(owners(&c), ["ci Apply", "kubectl Apply"], "what is equal is shared");
    assert_eq!(c.ok("get deployment web -o jsonpath={.spec.replicas}").trim(), "2");

    // What one no longer applies and the other still does, stays.
    let unlabelled = two.replace(", labels: {app: web}}", "}").replacen(
        "metadata: {labels: {app: web}}",
        "metadata: {name: web}",
        0,
    );
    c.feed("apply --server-side --field-manager=ci -f -", &unlabelled).unwrap();
    assert_eq!(c.ok("get deployment web -o jsonpath={.metadata.labels.app}").trim(), "web");
    c.feed("apply --server-side --force-conflicts -f -", &unlabelled).unwrap();
    assert_eq!(c.ok("get deployment web -o jsonpath={.metadata.labels}").trim(), "");

    let shown = c.feed("diff --server-side --force-conflicts -f -", DEPLOYMENT).unwrap_err();
    contains(&shown, &["+    app: web", "-      - image: nginx:2", "+      - image: nginx"]);
    let refused =
        c.feed("apply --server-side -f -", &DEPLOYMENT.replace("replicas", "replicsa")).unwrap_err();
    contains(
        &refused,
        &[
            "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.replicsa: field not declared in schema",
        ],
    );
    let dry = c.feed("apply --server-side --dry-run=server --field-manager=x -f -", &unlabelled).unwrap();
    contains(&dry, &["web serverside-applied (server dry run)"]);
    assert!(!owners(&c).contains(&"x Apply".to_owned()));
}

#[test]
fn kubectl_goes_over_from_client_side_to_server_side_and_back() {
    if !common::has("kubectl", "kubectl_goes_over") {
        return;
    }
    let c = Control::start();
    contains(&c.feed("apply -f -", DEPLOYMENT).unwrap(), &["web created"]);
    assert_eq!(owners(&c), ["kubectl-client-side-apply Update"]);
    contains(&c.feed("apply -f -", DEPLOYMENT).unwrap(), &["web unchanged"]);

    // The image is another now; kubectl owned it client-side, so there is no conflict.
    let two = DEPLOYMENT
        .replace("image: nginx", "image: \"nginx:2\"")
        .replace(", labels: {app: web}}\nspec:\n  replicas", "}\nspec:\n  replicas");
    contains(&c.feed("apply --server-side -f -", &two).unwrap(), &["web serverside-applied"]);
    assert_eq!(owners(&c), ["kubectl Apply", "kubectl-last-applied Apply"]);
    assert_eq!(c.ok("get deployment web -o jsonpath={..image}").trim(), "nginx:2");
    assert_eq!(
        c.ok("get deployment web -o jsonpath={.metadata.labels}").trim(),
        "",
        "what was applied client-side and is no longer, goes"
    );
    // It still says what was applied last, to those that apply client-side.
    let last = c.ok("apply view-last-applied deployment web");
    contains(&last, &["image: nginx:2"]);
    assert!(!last.contains("managedFields"), "{last}");
    // kubectl writes `annotations: {}` into the annotation, the server does not: that is one change.
    contains(&c.feed("apply -f -", &two).unwrap(), &["web configured"]);
    contains(&c.feed("apply -f -", &two).unwrap(), &["web unchanged"]);
    contains(&c.feed("apply -f -", DEPLOYMENT).unwrap(), &["web configured"]);
    assert_eq!(c.ok("get deployment web -o jsonpath={..image}").trim(), "nginx");
}

#[test]
fn everyday_commands_name_their_manager() {
    if !common::has("kubectl", "everyday_commands_name_their_manager") {
        return;
    }
    let c = Control::start();
    c.ok("create deployment web --image=nginx");
    c.ok("label deployment web a=b");
    c.ok("annotate deployment web a=b");
    c.ok("rollout restart deployment web");
    c.ok(r#"patch deployment web -p {"spec":{"paused":true}}"#);
    let edit = c.kubectl_with(
        &["edit", "deployment", "web"],
        "",
        &[("KUBE_EDITOR", "sed -i s/revisionHistoryLimit:.1/&0/")],
    );
    assert!(edit.status.success(), "{}", String::from_utf8_lossy(&edit.stderr));
    assert_eq!(
        owners(&c),
        [
            "kubectl-annotate Update",
            "kubectl-create Update",
            "kubectl-edit Update",
            "kubectl-label Update",
            "kubectl-patch Update",
            "kubectl-rollout Update",
        ]
    );
    let described = c.ok("describe deployment web");
    assert!(!described.contains("Managed Fields"), "{described}");
}

#[test]
fn applies_go_over_plain_http_too() {
    if !common::has("curl", "applies_go_over_plain_http_too") {
        return;
    }
    let c = Control::start();
    let apply = |name: &str, query: &str, body: &str| {
        let target = format!("http://c/api/v1/namespaces/default/configmaps/{name}?{query}");
        c.curl_any(&[
            "-X",
            "PATCH",
            "-H",
            "content-type: application/apply-patch+yaml",
            "--data-binary",
            body,
            &target,
        ])
    };
    let made = apply(
        "c",
        "fieldManager=me",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: x\n  b: x\n",
    );
    assert_eq!(made["data"], json!({"a": "x", "b": "x"}), "{made}");
    let json = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"b":"x"}}"#;
    assert_eq!(apply("c", "fieldManager=me", json)["data"], json!({"b": "x"}));
    let refused = apply("c", "fieldManager=you", &json.replace("\"x\"", "\"y\""));
    assert_eq!(
        (&refused["code"], &refused["reason"], &refused["message"]),
        (
            &json!(409),
            &json!("Conflict"),
            &json!("Apply failed with 1 conflict: conflict with \"me\": .data.b")
        )
    );
    assert_eq!(apply("c", "", json)["code"], 422);
    let other = c.curl_any(&[
        "-X",
        "PATCH",
        "-H",
        "content-type: application/apply-patch+cbor",
        "-d",
        json,
        "http://c/api/v1/namespaces/default/configmaps/c?fieldManager=me",
    ]);
    assert_eq!(other["code"], 415);
    assert!(other["message"].as_str().unwrap().contains("application/apply-patch+yaml"), "{other}");
}

#[test]
fn kube_applies() {
    let c = Control::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(c.path("kubeconfig")).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let api = Api::<Deployment>::default_namespaced(Client::try_from(config).unwrap());
        let config: Value = serde_yaml::from_str(DEPLOYMENT).unwrap();
        let mine = PatchParams::apply("operator");
        let made = api.patch("web", &mine, &Patch::Apply(&config)).await.unwrap();
        let managed = made.metadata.managed_fields.unwrap();
        assert_eq!(
            (managed[0].manager.as_deref(), managed[0].operation.as_deref()),
            (Some("operator"), Some("Apply"))
        );
        assert!(managed[0].time.is_some() && managed[0].subresource.is_none());
        let mut other = config.clone();
        other["spec"]["replicas"] = 4.into();
        let refused =
            api.patch("web", &PatchParams::apply("autoscaler"), &Patch::Apply(&other)).await.unwrap_err();
        let kube::Error::Api(refused) = refused else { panic!("{refused}") };
        assert_eq!(
            refused.message,
            "Apply failed with 1 conflict: conflict with \"operator\": .spec.replicas"
        );
        assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"));
        let forced = PatchParams::apply("autoscaler").force();
        let new = api.patch("web", &forced, &Patch::Apply(&other)).await.unwrap();
        assert_eq!(new.spec.unwrap().replicas, Some(4));
        let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "status": {"conditions": [{"type": "Mine", "status": "True"}]}});
        let new = api.patch_status("web", &mine, &Patch::Apply(&status)).await.unwrap();
        let conditions = new.status.unwrap().conditions.unwrap();
        assert!(conditions.iter().any(|condition| condition.type_ == "Mine"));
    });
}
