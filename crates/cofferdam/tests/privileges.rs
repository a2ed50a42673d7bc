//! Somebody who may `edit` one namespace tries to get further, with kubectl and from within pods: each attempt is refused in
//! Kubernetes' words, and found in the audit log.

mod common;

use std::{fs, path::PathBuf, process::Output, time::Duration};

use common::{Cluster, audited, skipped, text};
use serde_json::Value;

const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// `team` takes restricted pods alone, `loose` any. Jane may edit both, Joe is the admin of `team`.
const OBJECTS: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: team, labels: {pod-security.kubernetes.io/enforce: restricted}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: loose}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: other}}
---
{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: other}, stringData: {a: b}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: team}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: edit, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: edit, namespace: loose}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: admin, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: joe}]
---
apiVersion: v1
kind: Pod
metadata: {name: victim, namespace: team}
spec:
  serviceAccountName: robot
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 1000, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - {name: c, image: cofferdam/tool, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
"#;

const STATEFUL: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: sly}
spec:
  selector: {matchLabels: {app: sly}}
  template:
    metadata: {labels: {app: sly}}
    spec: {containers: [{name: c, image: busybox, securityContext: {privileged: true}}]}
"#;

struct Somebody<'a> {
    cluster: &'a Cluster,
    name: &'static str,
    kubeconfig: PathBuf,
}

impl<'a> Somebody<'a> {
    fn new(cluster: &'a Cluster, name: &'static str) -> Somebody<'a> {
        let kubeconfig = cluster.data.join(format!("{name}.conf"));
        cluster.ok(&["kubeconfig", "--user", name, "-o", kubeconfig.to_str().expect("a path")]);
        Somebody { cluster, name, kubeconfig }
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["--kubeconfig", self.kubeconfig.to_str().expect("a path")];
        all.extend(arguments);
        self.cluster.kubectl(&all)
    }

    /// Works once the role that the aggregation fills is there.
    fn waits_for(&self, arguments: &[&str]) {
        for _ in 0..200 {
            if self.kubectl(arguments).status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} cannot {arguments:?}{}", self.name, self.cluster.logs());
    }

    /// kubectl says so, and the audit log has it under this name.
    fn is_refused(&self, arguments: &[&str], words: &str) {
        let output = self.kubectl(arguments);
        assert!(
            !output.status.success() && text(&output).contains(words),
            "{arguments:?} should be refused with {words:?}: {}",
            text(&output)
        );
        let line = audited(self.cluster, words, |line| {
            line["user"]["username"] == self.name
                && line["responseStatus"]["message"].as_str().is_some_and(|said| said.contains(words))
        });
        assert_eq!(line["responseStatus"]["code"], 403, "{line}");
    }
}

#[test]
fn who_may_edit_a_namespace_gets_no_further() {
    if skipped("who_may_edit_a_namespace_gets_no_further", true) {
        return;
    }
    let cluster = Cluster::with_images(1);
    cluster.apply(OBJECTS);
    let (jane, joe) = (Somebody::new(&cluster, "jane"), Somebody::new(&cluster, "joe"));
    jane.waits_for(&["-n", "team", "get", "pods,secrets"]);
    joe.waits_for(&["-n", "team", "auth", "can-i", "create", "roles"]);

    // A privileged pod, by herself and by a controller.
    jane.is_refused(
        &["-n", "team", "run", "bad", "--image=busybox", "--privileged"],
        r#"pods "bad" is forbidden: violates PodSecurity "restricted:latest": privileged (container "bad" must not set securityContext.privileged=true)"#,
    );
    let made = jane.kubectl(&["-n", "team", "create", "deployment", "sly", "--image=busybox"]);
    assert!(made.status.success(), "{}", text(&made));
    let path = cluster.data.join("sly.yaml");
    fs::write(&path, STATEFUL).expect("write a manifest");
    let made = jane.kubectl(&["-n", "team", "create", "-f", path.to_str().expect("a path")]);
    assert!(made.status.success() && text(&made).contains("would violate"), "{}", text(&made));
    for controller in ["replicaset-controller", "statefulset-controller"] {
        let name = format!("system:serviceaccount:kube-system:{controller}");
        let line = audited(&cluster, &format!("the pod of {controller}"), |line| {
            line["user"]["username"] == *name && line["responseStatus"]["code"] == 403
        });
        let said = line["responseStatus"]["message"].as_str().unwrap_or_default();
        assert!(said.contains(r#"violates PodSecurity "restricted:latest""#), "{line}");
        assert_eq!(
            line["annotations"]["pod-security.kubernetes.io/enforce-policy"], "restricted:latest",
            "{line}"
        );
    }

    jane.is_refused(
        &["label", "--overwrite", "namespace", "team", "pod-security.kubernetes.io/enforce=privileged"],
        r#"namespaces "team" is forbidden: User "jane" cannot patch resource "namespaces" in API group "" in the namespace "team""#,
    );
    jane.is_refused(
        &["-n", "other", "get", "secret", "s"],
        r#"secrets "s" is forbidden: User "jane" cannot get resource "secrets" in API group "" in the namespace "other""#,
    );
    jane.is_refused(
        &["get", "secrets", "--all-namespaces"],
        r#"secrets is forbidden: User "jane" cannot list resource "secrets" in API group "" at the cluster scope"#,
    );

    // Her own role.
    jane.is_refused(
        &["-n", "team", "create", "rolebinding", "up", "--clusterrole=admin", "--user=jane"],
        r#"rolebindings.rbac.authorization.k8s.io is forbidden: User "jane" cannot create resource "rolebindings" in API group "rbac.authorization.k8s.io" in the namespace "team""#,
    );
    jane.is_refused(
        &["create", "clusterrolebinding", "up", "--clusterrole=cluster-admin", "--user=jane"],
        r#"clusterrolebindings.rbac.authorization.k8s.io is forbidden: User "jane" cannot create resource "clusterrolebindings" in API group "rbac.authorization.k8s.io" at the cluster scope"#,
    );
    // Whoever may write roles gives away no more than is their own.
    joe.is_refused(
        &["-n", "team", "create", "role", "up", "--verb=*", "--resource=secrets,networkpolicies"],
        r#"roles.rbac.authorization.k8s.io "up" is forbidden: user "joe" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held"#,
    );
    joe.is_refused(
        &["-n", "team", "create", "rolebinding", "up", "--clusterrole=cluster-admin", "--user=joe"],
        r#"rolebindings.rbac.authorization.k8s.io "up" is forbidden: user "joe" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held"#,
    );

    // Somebody else's name.
    jane.is_refused(
        &["--as", "system:admin", "--as-group", "system:masters", "get", "nodes"],
        r#"users "system:admin" is forbidden: User "jane" cannot impersonate resource "users" in API group "" at the cluster scope"#,
    );
    jane.is_refused(
        &["--as", "system:serviceaccount:kube-system:generic-garbage-collector", "get", "secrets"],
        r#"serviceaccounts "generic-garbage-collector" is forbidden: User "jane" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "kube-system""#,
    );

    // A pod's token ends with the pod, whoever kept it.
    jane.waits_for(&["-n", "team", "wait", "--for=condition=Ready", "pod", "victim", "--timeout=30s"]);
    let token = jane.kubectl(&["-n", "team", "exec", "victim", "--", "/bin/tool", "cat", TOKEN]);
    assert!(token.status.success(), "{}{}", text(&token), cluster.logs());
    let token = String::from_utf8(token.stdout).expect("a token");
    let nobody = cluster.data.join("nobody.conf");
    let mut config: Value =
        serde_yaml::from_str(&fs::read_to_string(&jane.kubeconfig).expect("a kubeconfig")).expect("YAML");
    config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
    fs::write(&nobody, config.to_string()).expect("write a kubeconfig");
    let with_token = || {
        let path = nobody.to_str().expect("a path");
        cluster.kubectl(&["--kubeconfig", path, "auth", "whoami"])
    };
    let robot = "system:serviceaccount:team:robot";
    assert!(text(&with_token()).contains(robot), "{}", text(&with_token()));
    jane.waits_for(&["-n", "team", "delete", "pod", "victim"]);
    let refused = with_token();
    assert!(!refused.status.success() && text(&refused).contains("Unauthorized"), "{}", text(&refused));
    let line = audited(&cluster, "the dead pod's token", |line| {
        line["annotations"]["authentication.cofferdam/refused"]
            == format!("{robot}: service account token has been invalidated")
    });
    assert_eq!(line["responseStatus"]["code"], 401, "{line}");

    // What is below the node, where pods are kept from it, and where they are not.
    jane.is_refused(
        &[
            "-n",
            "team",
            "run",
            "host",
            "--image=busybox",
            r#"--overrides={"spec":{"volumes":[{"name":"host","hostPath":{"path":"/run/cofferdam"}}]}}"#,
        ],
        r#"restricted volume types (volume "host" uses restricted volume type "hostPath")"#,
    );
    no_way_from_a_host_path(&jane);
}

/// Root in a container that is shown the whole of its node, in one that is privileged as well, and in one that sees the
/// node's processes: no socket there lets it be the node, or more than that, and what the cluster keeps for itself is not there.
fn no_way_from_a_host_path(jane: &Somebody<'_>) {
    let cluster = jane.cluster;
    for (name, security, host_pid) in
        [("root", "{}", false), ("privileged", "{\"privileged\":true}", false), ("watcher", "{}", true)]
    {
        let pod = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"loose"}},"spec":{{
                "hostPID":{host_pid},"terminationGracePeriodSeconds":0,"volumes":[{{"name":"host","hostPath":{{"path":"/"}}}}],
                "containers":[{{"name":"c","image":"cofferdam/tool","securityContext":{security},
                    "volumeMounts":[{{"name":"host","mountPath":"/host"}}]}}]}}}}"#
        );
        let file = cluster.data.join("pod.json");
        fs::write(&file, pod).expect("write a manifest");
        jane.waits_for(&["apply", "-f", file.to_str().expect("a path")]);
        jane.waits_for(&["-n", "loose", "wait", "--for=condition=Ready", "pod", name, "--timeout=30s"]);
        let tool = |arguments: &[&str]| {
            let mut all = vec!["-n", "loose", "exec", name, "--", "/bin/tool"];
            all.extend(arguments);
            jane.kubectl(&all)
        };
        let data = format!("/host{}", cluster.data.display());
        // The node's own files are there: it looks at the right place.
        let seen = text(&tool(&["ls", "/host/run/cofferdam"]));
        assert!(seen.contains("node.json"), "{name}: {seen}");
        let api = "/api/v1/namespaces/kube-system/secrets";
        let answers = tool(&["sockets", api, "/host/run", "/host/var/lib/cofferdam", "/host/tmp", &data]);
        assert!(answers.status.success(), "{name}: {}", text(&answers));
        let answers = text(&answers);
        // A keeper's is there, and hangs up; of the others there is none.
        assert!(answers.contains("keeper.sock: "), "{name}: {answers}");
        for line in answers.lines() {
            assert!(line.contains("/keeper.sock: "), "{name} found a socket: {line}");
            assert!(!line.contains("HTTP/"), "{name} was answered: {line}");
        }
        for file in ["kubeconfig", "control/pki/sa.key", "run/control.sock", "run/nodes/node-1/control.sock"]
        {
            let read = tool(&["cat", &format!("{data}/{file}")]);
            assert!(text(&read).contains("No such file"), "{name}: {file}: {}", text(&read));
        }
        if host_pid {
            // The first process of the node holds the directory of the sockets as its standard output.
            for path in ["/proc/1/fd/1/control.sock", "/proc/1/root/run/cofferdam/node.json"] {
                let read = tool(&["cat", path]);
                assert!(text(&read).contains("Permission denied"), "{name}: {path}: {}", text(&read));
            }
        }
        jane.waits_for(&["-n", "loose", "delete", "pod", name]);
    }
}
