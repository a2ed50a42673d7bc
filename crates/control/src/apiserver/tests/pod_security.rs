//! Pod Security admission, asked as clients ask.

use api::registry;

use super::*;
use crate::admission::{self, Audit, Operation, Plugin as _, PodSecurity, PodSecurityConfig};

const RESTRICTED: &str = r#"allowPrivilegeEscalation != false (container "main" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "main" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "main" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "main" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#;

/// What a request led to.
struct Answer {
    code: u16,
    body: Value,
    warnings: Vec<String>,
    audit: Vec<(String, String)>,
}

impl Server {
    async fn said(&self, user: &str, method: &str, target: &str, body: Value) -> Answer {
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let full = http_body_util::Full::new(body.to_string().into()).map_err(|never| match never {});
        let request = Request::builder().method(method).uri(target).header("content-type", media);
        let user = User::new(user, ["system:masters".to_owned()]);
        let request = request.body(full.boxed_unsync()).unwrap();
        let response = self.0.clone().handle(request, Some(Arc::new(user))).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = |value: &http::HeaderValue| value.to_str().unwrap().replace("\\\"", "\"");
        let audit = parts.extensions.get::<admission::Annotations>();
        Answer {
            code: parts.status.as_u16(),
            body: serde_json::from_slice(&body).unwrap(),
            warnings: parts.headers.get_all("warning").iter().map(text).collect(),
            audit: audit
                .iter()
                .flat_map(|notes| notes.0.iter())
                .map(|(k, v)| (k.to_string(), v.clone()))
                .collect(),
        }
    }

    async fn label(&self, labels: Value) -> Answer {
        let labels: Value = labels
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), value.clone()))
            .collect();
        let body = json!({ "metadata": { "labels": labels } });
        self.said("admin", "PATCH", "/api/v1/namespaces/d", body).await
    }

    async fn post(&self, target: &str, body: Value) -> Answer {
        self.said("admin", "POST", target, body).await
    }
}

fn configured(pod_security: &str) -> PodSecurityConfig {
    let head = "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\n";
    PodSecurityConfig::parse(&format!("{head}{pod_security}")).unwrap()
}

async fn furnished_with(pod_security: &str) -> Server {
    let mut settings = settings();
    settings.pod_security = configured(pod_security);
    let server = Server(ApiServer::new(Store::open(Volatile).unwrap(), settings).unwrap());
    server.created("/api/v1/namespaces", json!({"metadata": {"name": "d"}})).await;
    server.created("/api/v1/namespaces/d/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    server
}

/// As restricted asks for.
fn careful(name: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["securityContext"] =
        json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    pod["spec"]["containers"][0]["securityContext"] =
        json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    pod
}

fn privileged(name: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
    pod
}

fn deployment(name: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "selector": { "matchLabels": { "a": "b" } },
        "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "main", "image": "x" }] } } } })
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/d/deployments";

#[tokio::test]
async fn what_a_namespace_enforces_is_enforced_in_upstreams_words() {
    let server = furnished().await;
    server.label(json!({ "enforce": "restricted" })).await;
    let refused = server.post(PODS, pod("a")).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.body["message"],
        format!(r#"pods "a" is forbidden: violates PodSecurity "restricted:latest": {RESTRICTED}"#)
    );
    assert_eq!(
        (&refused.body["reason"], &refused.body["details"]["kind"], &refused.body["details"]["name"]),
        (&json!("Forbidden"), &json!("pods"), &json!("a"))
    );
    assert!(refused.warnings.is_empty());
    assert_eq!(
        refused.audit,
        [("pod-security.kubernetes.io/enforce-policy".to_owned(), "restricted:latest".to_owned())]
    );
    // A dry run is refused as well, and an obedient pod is let in.
    assert_eq!(server.post(&format!("{PODS}?dryRun=All"), pod("a")).await.code, 403);
    assert_eq!(server.post(PODS, careful("a")).await.code, 201);
    // At a version of which some checks are not yet.
    server.label(json!({ "enforce-version": "v1.7" })).await;
    let refused = server.post(PODS, pod("b")).await;
    assert_eq!(
        refused.body["message"],
        r#"pods "b" is forbidden: violates PodSecurity "restricted:v1.7": runAsNonRoot != true (pod or container "main" must set securityContext.runAsNonRoot=true)"#
    );
    server.label(json!({ "enforce": "baseline" })).await;
    assert_eq!(server.post(PODS, pod("b")).await.code, 201);
    let refused = server.post(PODS, privileged("c")).await;
    assert_eq!(
        refused.body["message"],
        r#"pods "c" is forbidden: violates PodSecurity "baseline:v1.7": privileged (container "main" must not set securityContext.privileged=true)"#
    );
    // A label taken away is nothing asked.
    server.label(json!({ "enforce": null })).await;
    assert_eq!(server.post(PODS, privileged("c")).await.code, 201);
}

#[tokio::test]
async fn warn_warns_and_audit_notes_and_neither_refuses() {
    let server = furnished().await;
    server.label(json!({ "warn": "restricted", "audit": "baseline", "audit-version": "v1.30" })).await;
    let answer = server.post(PODS, privileged("a")).await;
    assert_eq!(answer.code, 201);
    assert_eq!(
        answer.warnings,
        [format!(
            r#"299 - "would violate PodSecurity "restricted:latest": privileged (container "main" must not set securityContext.privileged=true), {RESTRICTED}""#
        )]
    );
    let note = |key: &str, value: &str| (format!("pod-security.kubernetes.io/{key}"), value.to_owned());
    assert_eq!(
        answer.audit,
        [
            note(
                "audit-violations",
                r#"would violate PodSecurity "baseline:v1.30": privileged (container "main" must not set securityContext.privileged=true)"#
            ),
            note("enforce-policy", "privileged:latest"),
        ]
    );
    let answer = server.post(DEPLOYMENTS, deployment("a")).await;
    assert_eq!(
        (answer.code, answer.warnings),
        (201, vec![format!(r#"299 - "would violate PodSecurity "restricted:latest": {RESTRICTED}""#)])
    );
    assert!(answer.audit.is_empty());
    // Who is refused is not warned as well.
    server.label(json!({ "enforce": "restricted" })).await;
    let answer = server.post(PODS, pod("b")).await;
    assert_eq!((answer.code, answer.warnings.len()), (403, 0));
    // A workload is not refused: its pods will be.
    assert_eq!(server.post(DEPLOYMENTS, deployment("b")).await.code, 201);
    // Scaling changes no template.
    let scaled = server
        .said("admin", "PATCH", &format!("{DEPLOYMENTS}/b/scale"), json!({ "spec": { "replicas": 0 } }))
        .await;
    assert_eq!((scaled.code, scaled.warnings.len()), (200, 0));
}

/// Each kind that is served, by what its client is told.
#[tokio::test]
async fn every_served_workload_is_let_in_with_a_warning() {
    let server = furnished().await;
    server.label(json!({ "enforce": "restricted", "warn": "baseline" })).await;
    let template = |policy: &str| {
        let mut spec = privileged("x")["spec"].clone();
        spec["restartPolicy"] = policy.into();
        json!({ "metadata": { "labels": { "a": "b" } }, "spec": spec })
    };
    let selected = |template: Value| json!({ "metadata": { "name": "w" }, "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": template } });
    let always = template("Always");
    for (plural, object) in [
        ("/api/v1/namespaces/d/podtemplates", json!({ "metadata": { "name": "w" }, "template": always })),
        (
            "/api/v1/namespaces/d/replicationcontrollers",
            json!({ "metadata": { "name": "w" }, "spec": { "template": always } }),
        ),
        ("/apis/apps/v1/namespaces/d/daemonsets", selected(always.clone())),
        ("/apis/apps/v1/namespaces/d/statefulsets", selected(always.clone())),
        (DEPLOYMENTS, selected(always.clone())),
        ("/apis/apps/v1/namespaces/d/replicasets", selected(always.clone())),
        (
            "/apis/batch/v1/namespaces/d/jobs",
            json!({ "metadata": { "name": "w" }, "spec": { "template": template("Never") } }),
        ),
    ] {
        let answer = server.post(plural, object).await;
        let why = r#"299 - "would violate PodSecurity "baseline:latest": privileged (container "main" must not set securityContext.privileged=true)""#;
        assert_eq!((answer.code, answer.warnings), (201, vec![why.to_owned()]), "{plural}: {}", answer.body);
    }
}

#[tokio::test]
async fn every_kind_that_makes_pods_is_warned_at_its_template() {
    let server = furnished().await;
    server.label(json!({ "warn": "baseline" })).await;
    let plugin = PodSecurity { config: PodSecurityConfig::default() };
    let template = json!({ "spec": privileged("x")["spec"] });
    for (group, kind, plural, object) in [
        ("", "PodTemplate", "podtemplates", json!({ "template": template })),
        ("", "ReplicationController", "replicationcontrollers", json!({ "spec": { "template": template } })),
        ("apps", "ReplicaSet", "replicasets", json!({ "spec": { "template": template } })),
        ("apps", "Deployment", "deployments", json!({ "spec": { "template": template } })),
        ("apps", "StatefulSet", "statefulsets", json!({ "spec": { "template": template } })),
        ("apps", "DaemonSet", "daemonsets", json!({ "spec": { "template": template } })),
        ("batch", "Job", "jobs", json!({ "spec": { "template": template } })),
        (
            "batch",
            "CronJob",
            "cronjobs",
            json!({ "spec": { "jobTemplate": { "spec": { "template": template } } } }),
        ),
    ] {
        let resource = registry::by_plural(group, "v1", plural).unwrap();
        assert_eq!(resource.kind, kind);
        for operation in [Operation::Create, Operation::Update] {
            let user = User::admin();
            let request = admission::Request {
                operation,
                resource,
                subresource: "",
                namespace: "d",
                name: "x",
                user: &user,
                old: (operation == Operation::Update).then_some(&object),
                store: server.0.store(),
                audit: &Audit::default(),
            };
            let mut warnings = Vec::new();
            plugin.validate(&request, Some(&object), &mut warnings).unwrap();
            assert_eq!(
                warnings,
                [
                    r#"would violate PodSecurity "baseline:latest": privileged (container "main" must not set securityContext.privileged=true)"#
                ],
                "{kind}"
            );
        }
    }
}

#[tokio::test]
async fn a_label_that_cannot_be_read_is_refused_and_one_that_is_there_enforced_strictly() {
    let server = furnished().await;
    let refused = server.label(json!({ "enforce": "strict", "warn-version": "1.30" })).await;
    assert_eq!(
        (refused.code, refused.body["message"].as_str().unwrap()),
        (
            422,
            r#"Namespace "d" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: "1.30": must be "latest" or "v1.x"]"#
        )
    );
    let named = json!({ "metadata": { "name": "e", "labels": { "pod-security.kubernetes.io/audit": "" } } });
    let refused = server.post("/api/v1/namespaces", named).await;
    assert_eq!(
        refused.body["message"],
        r#"Namespace "e" is invalid: metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: "": must be one of privileged, baseline, restricted"#
    );
    // A namespace from before this program judged labels: other labels of it can be changed.
    let mut old = server.get("/api/v1/namespaces/d").await;
    old["metadata"]["name"] = "f".into();
    old["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "strict".into();
    let write = crate::store::Write {
        key: "/namespaces/f".into(),
        expect: crate::store::Expect::Absent,
        action: crate::store::Action::Put(crate::store::Encoded::new(&mut old)),
    };
    server.0.store().write(write).await.unwrap();
    server.created("/api/v1/namespaces/f/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let body = json!({ "metadata": { "labels": { "a": "b" } } });
    assert_eq!(server.said("admin", "PATCH", "/api/v1/namespaces/f", body).await.code, 200);
    let refused = server.post("/api/v1/namespaces/f/pods", pod("a")).await;
    assert_eq!(
        refused.body["message"],
        format!(r#"pods "a" is forbidden: violates PodSecurity "restricted:latest": {RESTRICTED}"#)
    );
    assert_eq!(
        refused.audit[1],
        (
            "pod-security.kubernetes.io/error".to_owned(),
            r#"Failed to parse policy: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted"#.to_owned()
        )
    );
}

#[tokio::test]
async fn relabelling_warns_of_the_pods_that_would_be_refused() {
    let server = furnished().await;
    for name in ["b", "a"] {
        server.created(PODS, privileged(name)).await;
    }
    server.created(PODS, careful("ok")).await;
    for name in ["r-3", "r-1", "r-2"] {
        let mut pod = privileged(name);
        pod["spec"]["hostNetwork"] = true.into();
        pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true }]);
        server.created(PODS, pod).await;
    }
    let warned = |answer: Answer| {
        let strip = |warning: &String| {
            warning.strip_prefix("299 - \"").unwrap().strip_suffix('"').unwrap().to_owned()
        };
        answer.warnings.iter().map(strip).collect::<Vec<_>>()
    };
    let baseline = [
        r#"existing pods in namespace "d" violate the new PodSecurity enforce level "baseline:latest""#,
        "a (and 1 other pod): privileged",
        "r-1 (and 2 other pods): host namespaces, privileged",
    ];
    let target = "/api/v1/namespaces/d?dryRun=All";
    let body = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "baseline" } } });
    assert_eq!(warned(server.said("admin", "PATCH", target, body).await), baseline);
    assert_eq!(warned(server.label(json!({ "enforce": "baseline" })).await), baseline);
    // Neither the same nor a laxer level is news.
    assert!(warned(server.label(json!({ "enforce": "baseline", "warn": "restricted" })).await).is_empty());
    assert!(warned(server.label(json!({ "enforce": "privileged" })).await).is_empty());
    // A level of another version is.
    let pinned = warned(server.label(json!({ "enforce": "restricted", "enforce-version": "v1.0" })).await);
    assert_eq!(
        pinned,
        [
            r#"existing pods in namespace "d" violate the new PodSecurity enforce level "restricted:v1.0""#,
            "a (and 1 other pod): privileged, runAsNonRoot != true",
            "r-1 (and 2 other pods): host namespaces, privileged, runAsNonRoot != true",
        ]
    );
}

#[tokio::test]
async fn updates_are_judged_where_they_change_what_runs() {
    let server = furnished().await;
    // Without the token's mount, which a merge patch of the containers would take away.
    let mut bare = pod("a");
    bare["spec"]["automountServiceAccountToken"] = false.into();
    server.created(PODS, bare).await;
    server.label(json!({ "enforce": "restricted" })).await;
    let patch = async |target: &str, body: Value| server.said("admin", "PATCH", target, body).await;
    let target = format!("{PODS}/a");
    let labelled = patch(&target, json!({ "metadata": { "labels": { "x": "y" } } })).await;
    assert_eq!(labelled.code, 200, "{}", labelled.body);
    let status = patch(&format!("{target}/status"), json!({ "status": { "phase": "Running" } })).await;
    assert_eq!(status.code, 200, "{}", status.body);
    let image = patch(&target, json!({ "spec": { "containers": [{ "name": "main", "image": "y" }] } })).await;
    assert_eq!(image.code, 403, "{}", image.body);
    let debug = json!({ "spec": { "ephemeralContainers": [{ "name": "debug", "image": "x", "securityContext": { "privileged": true } }] } });
    let debug = patch(&format!("{target}/ephemeralcontainers"), debug).await;
    assert_eq!(debug.code, 403, "{}", debug.body);
    assert!(
        debug.body["message"]
            .as_str()
            .unwrap()
            .contains(r#"container "debug" must not set securityContext.privileged=true"#),
        "{}",
        debug.body
    );
    assert_eq!(server.said("admin", "DELETE", &target, json!({})).await.code, 200);
}

#[tokio::test]
async fn defaults_and_exemptions_come_from_the_configuration() {
    let server = furnished_with(
        "defaults: {enforce: baseline, warn: restricted, warn-version: v1.0}\n\
         exemptions: {usernames: [operator], namespaces: [free, kube-system], runtimeClasses: [kata]}\n",
    )
    .await;
    let refused = server.post(PODS, privileged("a")).await;
    assert_eq!(
        refused.body["message"],
        r#"pods "a" is forbidden: violates PodSecurity "baseline:latest": privileged (container "main" must not set securityContext.privileged=true)"#
    );
    let warned = server.post(PODS, pod("a")).await;
    assert_eq!(
        warned.warnings,
        [
            r#"299 - "would violate PodSecurity "restricted:v1.0": runAsNonRoot != true (pod or container "main" must set securityContext.runAsNonRoot=true)""#
        ]
    );
    let exempt = |answer: &Answer| match answer.audit.as_slice() {
        [(key, why)] if key == "pod-security.kubernetes.io/exempt" => why.clone(),
        other => panic!("{other:?}"),
    };
    let answer = server.said("operator", "POST", PODS, privileged("b")).await;
    assert_eq!((answer.code, exempt(&answer).as_str()), (201, "user"));
    let mut kata = privileged("c");
    kata["spec"]["runtimeClassName"] = "kata".into();
    let answer = server.post(&format!("{PODS}?dryRun=All"), kata).await;
    assert_eq!((answer.code, exempt(&answer).as_str()), (201, "runtimeClass"), "{}", answer.body);
    // A label of an exempted namespace has no effect, and whoever sets it is told.
    let labelled = json!({ "metadata": { "name": "free", "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    let answer = server.post("/api/v1/namespaces", labelled).await;
    assert_eq!(
        answer.warnings,
        [
            r#"299 - "namespace "free" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored""#
        ]
    );
    server.created("/api/v1/namespaces/free/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let answer = server.post("/api/v1/namespaces/free/pods", privileged("a")).await;
    assert_eq!((answer.code, exempt(&answer).as_str(), answer.warnings.len()), (201, "namespace", 0));
}
