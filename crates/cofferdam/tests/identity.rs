//! Who a pod is to the API: what it finds in its containers, whom the API takes it for, and when that ends.

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Output, time::Duration};

use common::{Cluster, audited, skipped, text};
use serde_json::Value;

const DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const OBJECTS: &str = r#"
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: quiet}, automountServiceAccountToken: false}
---
apiVersion: v1
kind: Pod
metadata: {name: robot}
spec:
  serviceAccountName: robot
  terminationGracePeriodSeconds: 0
  initContainers: [{name: i, image: cofferdam/tool, args: [cat, /var/run/secrets/kubernetes.io/serviceaccount/namespace]}]
  containers: [{name: c, image: cofferdam/tool, volumeMounts: [{name: kubectl, mountPath: /kubectl}]}]
  volumes: [{name: kubectl, hostPath: {path: KUBECTL}}]
---
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  securityContext: {runAsUser: 1000}
  containers: [{name: c, image: cofferdam/tool}]
---
apiVersion: v1
kind: Pod
metadata: {name: group}
spec:
  securityContext: {runAsUser: 1000, fsGroup: 2000}
  containers: [{name: c, image: cofferdam/tool}]
---
{apiVersion: v1, kind: Pod, metadata: {name: off}, spec: {automountServiceAccountToken: false, containers: [{name: c, image: cofferdam/tool}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: quiet}, spec: {serviceAccountName: quiet, containers: [{name: c, image: cofferdam/tool}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: loud}, spec: {serviceAccountName: quiet, automountServiceAccountToken: true, containers: [{name: c, image: cofferdam/tool}]}}
"#;

/// A static kubectl, which runs in any image.
fn kubectl() -> Option<PathBuf> {
    let path = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join("kubectl"))
        .find(|p| p.exists())?;
    let path = fs::canonicalize(path).ok()?;
    let program = fs::read(&path).ok()?;
    // What a dynamic program says of its loader.
    let dynamic = program.windows(7).take(4096).any(|part| part == b"/lib64/" || part == b"ld-linu");
    (!dynamic).then_some(path)
}

struct Pods<'a>(&'a Cluster);

impl Pods<'_> {
    fn tool(&self, pod: &str, command: &[&str]) -> Output {
        let mut arguments = vec!["exec", pod, "-c", "c", "--", "/bin/tool"];
        arguments.extend(command);
        self.0.kubectl(&arguments)
    }

    fn cat(&self, pod: &str, file: &str) -> String {
        let output = self.tool(pod, &["cat", &format!("{DIR}/{file}")]);
        assert!(output.status.success(), "{pod}: {}{}", text(&output), self.0.logs());
        String::from_utf8(output.stdout).expect("text")
    }

    /// What the API server says to who has nothing but this token.
    fn with_token(&self, token: &str, arguments: &[&str]) -> Output {
        let config: Value =
            serde_yaml::from_str(&fs::read_to_string(self.0.data.join("kubeconfig")).expect("a kubeconfig"))
                .expect("YAML");
        let server = config["clusters"][0]["cluster"]["server"].as_str().expect("a server").to_owned();
        let authority = self.0.data.join("ca.pem");
        fs::write(&authority, self.authority(&config)).expect("write the authority");
        std::process::Command::new("kubectl")
            .args(["--kubeconfig", "/dev/null", "--server", &server, "--token", token])
            .arg("--certificate-authority")
            .arg(&authority)
            .arg("--cache-dir")
            .arg(self.0.data.join("kubectl-cache"))
            .args(arguments)
            .output()
            .expect("run kubectl")
    }

    fn authority(&self, config: &Value) -> String {
        let text = config["clusters"][0]["cluster"]["certificate-authority-data"].as_str().expect("data");
        String::from_utf8(api::base64::decode(text).expect("base64")).expect("PEM")
    }
}

#[test]
fn a_pod_finds_who_it_is_and_the_api_takes_it_for_that() {
    let name = "a_pod_finds_who_it_is_and_the_api_takes_it_for_that";
    if skipped(name, true) {
        return;
    }
    let cluster = Cluster::with_images(2);
    let pods = Pods(&cluster);
    let kubectl = kubectl();
    let path = kubectl.as_ref().and_then(|path| path.parent()).unwrap_or(std::path::Path::new("/usr/bin"));
    cluster.apply(&OBJECTS.replace("KUBECTL", &path.display().to_string()));
    let refused = cluster.kubectl(&[
        "run",
        "x",
        "--image=busybox",
        r#"--overrides={"spec":{"serviceAccountName":"nobody"}}"#,
    ]);
    let words = r#"pods "x" is forbidden: error looking up service account default/nobody: serviceaccount "nobody" not found"#;
    assert!(text(&refused).contains(words), "{}", text(&refused));
    cluster.kubectl_ok(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=30s"]);

    // The files, as every client within a pod looks for them.
    assert_eq!(pods.cat("robot", "namespace"), "default");
    let config =
        serde_yaml::from_str(&fs::read_to_string(cluster.data.join("kubeconfig")).expect("a kubeconfig"));
    assert_eq!(pods.cat("robot", "ca.crt"), pods.authority(&config.expect("YAML")));
    assert_eq!(cluster.kubectl_ok(&["logs", "robot", "-c", "i"]), "default");
    let token = pods.cat("robot", "token");
    let environment = text(&pods.tool("robot", &["env"]));
    for line in ["KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443"] {
        assert!(environment.lines().any(|one| one == line), "{line} is not in:\n{environment}");
    }
    let write = pods.tool("robot", &["write", &format!("{DIR}/token"), "x"]);
    assert!(text(&write).contains("Read-only file system"), "{}", text(&write));

    // Whose they are.
    let stat = |pod: &str| text(&pods.tool(pod, &["stat", &format!("{DIR}/..data/token")]));
    for (pod, want) in [
        ("robot", "uid 0 gid 0 mode 644"),
        ("user", "uid 1000 gid 0 mode 600"),
        ("group", "uid 1000 gid 2000 mode 640"),
    ] {
        assert_eq!(stat(pod).trim(), want, "{pod}");
    }
    for pod in ["user", "group"] {
        assert!(pods.cat(pod, "token").len() > 100, "its user can read it");
    }

    // Who wants none has none; the pod's word counts before its account's.
    for (pod, there) in [("off", false), ("quiet", false), ("loud", true)] {
        assert_eq!(pods.tool(pod, &["cat", &format!("{DIR}/token")]).status.success(), there, "{pod}");
    }

    // From within, by the Service's address and with no more than what is there.
    let user = "system:serviceaccount:default:robot";
    match &kubectl {
        None => testkit::skipped(&format!("kubectl within a pod of {name}"), "kubectl is no static program"),
        Some(path) => {
            let program = format!("/kubectl/{}", path.file_name().expect("a name").display());
            let inside = |arguments: &[&str]| {
                let mut all =
                    vec!["exec", "robot", "-c", "c", "--", program.as_str(), "--cache-dir=/tmp/cache"];
                all.extend(arguments);
                cluster.kubectl(&all)
            };
            let who = inside(&["auth", "whoami", "-o", "json"]);
            assert!(who.status.success(), "{}{}", text(&who), cluster.logs());
            let who: Value = serde_json::from_slice(&who.stdout).expect("JSON");
            let who = &who["status"]["userInfo"];
            assert_eq!(who["username"], user);
            assert_eq!(who["extra"]["authentication.kubernetes.io/pod-name"][0], "robot");
            let secrets = inside(&["get", "secrets"]);
            let words = format!(
                "User \"{user}\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\""
            );
            assert!(text(&secrets).contains(&words), "{}", text(&secrets));
        }
    }
    let who = pods.with_token(&token, &["auth", "whoami"]);
    assert!(text(&who).contains(user), "{}", text(&who));

    // The node that comes back asks for new tokens: the files change under the pod that runs.
    let before = pods.cat("robot", "token");
    cluster.kill("agent");
    let changed = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let now = pods.tool("robot", &["cat", &format!("{DIR}/token")]);
        now.status.success() && text(&now) != before
    });
    assert!(changed, "the token is the old one{}", cluster.logs());
    assert!(text(&pods.with_token(&pods.cat("robot", "token"), &["auth", "whoami"])).contains(user));

    // Its end is the token's, whoever has it.
    cluster.kubectl_ok(&["delete", "pod", "robot", "--timeout=30s"]);
    let refused = pods.with_token(&token, &["auth", "whoami"]);
    assert!(!refused.status.success() && text(&refused).contains("Unauthorized"), "{}", text(&refused));
    // The log says whose it was; the client was not told.
    let line = audited(&cluster, "the refused token", |line| {
        line["responseStatus"]["code"] == 401
            && line["annotations"]["authentication.cofferdam/refused"]
                == format!("{user}: service account token has been invalidated")
    });
    let id = line["annotations"]["authentication.kubernetes.io/credential-id"].as_str().unwrap_or_default();
    assert!(id.starts_with("JTI="), "{line}");
    assert_eq!(line["sourceIPs"][0], "127.0.0.1");
    // The same token when it was good, by its own name.
    audited(&cluster, "the token's use", |line| {
        line["user"]["username"] == user
            && line["user"]["extra"]["authentication.kubernetes.io/credential-id"][0] == id
            && line["responseStatus"]["code"] == 201
    });
    if kubectl.is_some() {
        let line = audited(&cluster, "the pod's refused list", |line| {
            line["user"]["username"] == user && line["objectRef"]["resource"] == "secrets"
        });
        assert_eq!(
            (&line["verb"], &line["responseStatus"]["reason"]),
            (&"list".into(), &"Forbidden".into()),
            "{line}"
        );
        assert_eq!(line["annotations"]["authorization.k8s.io/decision"], "forbid", "{line}");
        assert!(
            line["sourceIPs"][0].as_str().is_some_and(|ip| ip.starts_with("10.244.")),
            "the pod's own: {line}"
        );
    }
    audited(&cluster, "an exec's end", |line| {
        line["objectRef"]["subresource"] == "exec" && line["stage"] == "ResponseComplete"
    });
}

#[test]
fn somebody_else_is_made_by_a_kubeconfig_and_may_what_roles_say() {
    if skipped("somebody_else_is_made_by_a_kubeconfig_and_may_what_roles_say", true) {
        return;
    }
    let cluster = Cluster::with_images(1);
    let file = cluster.data.join("jane.conf");
    let path = file.to_str().expect("a path");
    cluster.ok(&["kubeconfig", "--user", "jane", "--group", "dev", "--group", "ops", "-o", path]);
    assert_eq!(fs::metadata(&file).expect("the kubeconfig").permissions().mode() & 0o777, 0o600);
    let jane = |arguments: &[&str]| {
        let mut all = vec!["--kubeconfig", path];
        all.extend(arguments);
        cluster.kubectl(&all)
    };
    let who = jane(&["auth", "whoami", "-o", "json"]);
    let who: Value = serde_json::from_slice(&who.stdout).unwrap_or_else(|_| panic!("{}", text(&who)));
    let who = &who["status"]["userInfo"];
    assert_eq!(who["username"], "jane");
    assert_eq!(who["groups"], serde_json::json!(["dev", "ops", "system:authenticated"]));
    let refused = jane(&["get", "pods"]);
    let words = r#"User "jane" cannot list resource "pods" in API group "" in the namespace "default""#;
    assert!(text(&refused).contains(words), "{}", text(&refused));
    cluster.kubectl_ok(&["create", "rolebinding", "dev", "--clusterrole=view", "--group=dev"]);
    let mut seen = jane(&["get", "pods"]);
    for _ in 0..50 {
        if seen.status.success() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        seen = jane(&["get", "pods"]);
    }
    assert!(seen.status.success(), "{}", text(&seen));
    let refused = jane(&["--as", "system:admin", "get", "pods"]);
    assert!(text(&refused).contains("cannot impersonate resource"), "{}", text(&refused));
    let line = audited(&cluster, "what let jane in", |line| {
        line["user"]["username"] == "jane"
            && line["responseStatus"]["code"] == 200
            && line["objectRef"]["resource"] == "pods"
    });
    let reason = line["annotations"]["authorization.k8s.io/reason"].as_str().unwrap_or_default();
    assert!(reason.contains("RoleBinding") && reason.contains("view"), "{line}");

    // Where Pod Security is in force no pod has the node's files.
    cluster.kubectl_ok(&["create", "namespace", "strict"]);
    cluster.kubectl_ok(&["label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted"]);
    let pod = r#"--overrides={"spec":{"volumes":[{"name":"run","hostPath":{"path":"/run"}}]}}"#;
    let refused = cluster.kubectl(&["-n", "strict", "run", "host", "--image=busybox", pod]);
    assert!(
        text(&refused).contains("violates PodSecurity \"restricted:latest\"")
            && text(&refused).contains("hostPath"),
        "{}",
        text(&refused)
    );
    audited(&cluster, "the refused pod", |line| {
        line["objectRef"]["namespace"] == "strict" && line["responseStatus"]["code"] == 403
    });
    assert!(cluster.ok(&["status"]).contains("log/audit/audit.log"));
}
