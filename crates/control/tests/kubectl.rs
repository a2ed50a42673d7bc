//! A conversation with the real kubectl, over TLS with the administrator's certificate.

mod common;

use common::{Control, DEPLOYMENT, contains};

const PRIVILEGED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: agent}
spec:
  containers:
  - {name: main, image: x, securityContext: {privileged: true}}
";

#[test]
fn pod_security_speaks_kubernetes_words() {
    if !common::has("kubectl", "pod_security_speaks_kubernetes_words") {
        return;
    }
    let c = Control::start();
    c.ok("create namespace n");
    contains(&c.feed("-n n apply -f -", PRIVILEGED).unwrap(), &["pod/agent created"]);
    let warned = c.ok("label namespace n pod-security.kubernetes.io/enforce=baseline pod-security.kubernetes.io/warn=restricted");
    contains(
        &warned,
        &[
            r#"Warning: existing pods in namespace "n" violate the new PodSecurity enforce level "baseline:latest""#,
            "Warning: agent: privileged",
            "namespace/n labeled",
        ],
    );
    let refused = c.feed("-n n apply -f -", &PRIVILEGED.replace("agent", "other")).unwrap_err();
    contains(
        &refused,
        &[
            r#"Error from server (Forbidden): error when creating "STDIN": pods "other" is forbidden: violates PodSecurity "baseline:latest": privileged (container "main" must not set securityContext.privileged=true)"#,
        ],
    );
    let warned = c.ok("-n n create deployment web --image=nginx");
    contains(
        &warned,
        &[
            r#"Warning: would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "nginx" must set"#,
            "web created",
        ],
    );
    let refused = c.refused("label namespace n pod-security.kubernetes.io/enforce=strict --overwrite");
    contains(
        &refused,
        &[
            r#"The Namespace "n" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted"#,
        ],
    );
}

#[test]
fn the_everyday_commands_work() {
    if !common::has("kubectl", "the_everyday_commands_work") {
        return;
    }
    let c = Control::start();
    contains(&c.ok("version"), &["Server Version: v1.35.0+cofferdam"]);
    contains(&c.ok("api-resources"), &["deploy", "networking.k8s.io/v1", "NetworkPolicy"]);
    contains(&c.ok("explain deployment.spec.strategy"), &["DeploymentStrategy"]);

    // Both send protobuf.
    contains(&c.ok("create namespace shop"), &["namespace/shop created"]);
    contains(
        &c.ok("-n shop create deployment made --image=nginx --replicas=1"),
        &["deployment.apps/made created"],
    );
    contains(&c.ok("-n shop run one --image=nginx --labels=a=b"), &["pod/one created"]);
    contains(&c.ok("get pods -A -o wide"), &["NOMINATED NODE", "one", "Pending"]);
    contains(
        &c.ok("-n shop describe pod one"),
        &["Service Account:  default", "QoS Class:                   BestEffort", "kube-api-access-"],
    );
    contains(&c.ok("-n shop get pod one -o yaml"), &["phase: Pending", "restartPolicy: Always"]);

    contains(&c.feed("-n shop apply -f -", DEPLOYMENT).unwrap(), &["web created"]);
    contains(&c.feed("-n shop apply -f -", DEPLOYMENT).unwrap(), &["web unchanged"]);
    let changed = DEPLOYMENT.replace("image: nginx", "image: \"nginx:2\"");
    assert!(c.feed("-n shop diff -f -", &changed).unwrap_err().contains("nginx:2"), "diff shows the change");
    contains(&c.feed("-n shop apply -f -", &changed).unwrap(), &["web configured"]);
    contains(
        &c.ok("-n shop get deployment web -o jsonpath={.spec.template.spec.containers[0].image}"),
        &["nginx:2"],
    );

    let edit = c.kubectl_with(
        &["-n", "shop", "edit", "deployment", "web"],
        "",
        &[("KUBE_EDITOR", "sed -i s/nginx:2/nginx:3/")],
    );
    assert!(edit.status.success(), "{}", String::from_utf8_lossy(&edit.stderr));
    contains(&c.ok("-n shop get deployment web -o jsonpath={..image}"), &["nginx:3"]);

    c.ok(r#"-n shop patch deployment web -p {"spec":{"template":{"spec":{"containers":[{"name":"main","image":"nginx:4"}]}}}}"#);
    contains(&c.ok("-n shop get deployment web -o jsonpath={..image}"), &["nginx:4"]);
    c.ok(
        r#"-n shop patch deployment web --type=json -p [{"op":"replace","path":"/spec/replicas","value":5}]"#,
    );
    c.ok(r#"-n shop patch deployment web --type=merge -p {"spec":{"replicas":4}}"#);
    contains(&c.ok("-n shop get deployment web"), &["0/4"]);
    contains(&c.ok("-n shop scale deployment web --replicas=3"), &["web scaled"]);
    contains(&c.ok("-n shop get deployment web -o jsonpath={.spec.replicas}"), &["3"]);

    c.ok("-n shop label pod one tier=front");
    c.ok("-n shop annotate pod one note=x");
    contains(&c.ok("-n shop get pods -l tier=front --show-labels"), &["a=b,tier=front"]);
    contains(&c.ok("-n shop get pods -l tier=back"), &["No resources found"]);
    contains(&c.ok("-n shop get pods --field-selector metadata.name=one"), &["one"]);
    contains(&c.ok("-n shop expose deployment web --port=80 --type=NodePort"), &["service/web exposed"]);
    contains(&c.ok("-n shop get service web"), &["NodePort", "10.96."]);

    contains(&c.ok("auth can-i create pods"), &["yes"]);
    contains(&c.ok("auth whoami"), &["kubernetes-admin", "system:masters"]);

    c.ok("-n shop delete pod one");
    contains(&c.refused("-n shop get pod one"), &[r#"pods "one" not found"#]);
    c.ok("-n shop create configmap c --from-literal=k=v");
    contains(&c.ok("-n shop replace -f - --dry-run=server --help"), &["replace"]);
    c.ok("-n shop delete configmap c --wait=true");
}

#[test]
fn waiting_ends_when_the_status_says_so() {
    if !common::has("kubectl", "waiting_ends_when_the_status_says_so") || !common::has("curl", "waiting") {
        return;
    }
    let c = Control::start();
    c.ok("run one --image=nginx");
    contains(&c.refused("wait pod/one --for=condition=Ready --timeout=1s"), &["timed out"]);
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| c.ok("wait pod/one --for=condition=Ready --timeout=20s"));
        let status = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
        let answer = c.curl(&[
            "-X",
            "PATCH",
            "-H",
            "content-type: application/merge-patch+json",
            "-d",
            status,
            "http://c/api/v1/namespaces/default/pods/one/status",
        ]);
        assert_eq!(answer["status"]["phase"], "Running", "{answer}");
        waiting.join().unwrap()
    });
    contains(&waiting, &["condition met"]);
    contains(&c.ok("delete pod one --wait=true --timeout=10s"), &["deleted"]);
}

#[test]
fn refusals_reach_the_user_in_kubernetes_words() {
    if !common::has("kubectl", "refusals_reach_the_user_in_kubernetes_words") {
        return;
    }
    let c = Control::start();
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {spec}\n");
    let table = [
        (pod("{containers: []}"), "spec.containers: Required value"),
        (pod("{containers: [{name: a, image: b, foo: 1}]}"), r#"unknown field "spec.containers[0].foo""#),
        (pod("{containers: [{name: A_, image: b}]}"), "Invalid value: \"A_\""),
        (
            pod("{containers: [{name: a, image: b}], serviceAccountName: nobody}"),
            r#"serviceaccount "nobody" not found"#,
        ),
        (
            pod("{containers: [{name: a, image: b}], priorityClassName: x}"),
            "no PriorityClass with name x was found",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: nope}\n".into(),
            r#"namespaces "nope" not found"#,
        ),
        ("apiVersion: v1\nkind: Gadget\nmetadata: {name: c}\n".into(), "no matches for kind \"Gadget\""),
    ];
    for (manifest, want) in table {
        let said = c.feed("create -f -", &manifest).expect_err(&manifest);
        assert!(said.contains(want), "no {want:?} in:\n{said}");
    }
    contains(&c.refused("delete namespace default"), &["this namespace may not be deleted"]);
    contains(&c.refused("get pods --field-selector=spec.foo=x"), &["field label not supported: spec.foo"]);
    c.ok("run one --image=nginx");
    contains(&c.refused("run one --image=nginx"), &[r#"pods "one" already exists"#]);
    contains(&c.refused("exec one -- ls"), &["pod one does not have a host assigned"]);
    contains(&c.refused("logs one -c x"), &["container x is not valid for pod one"]);
}
