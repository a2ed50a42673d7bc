//! What pods are told and what is told of them, through kubectl and from the kernel: environment, volumes, logs, exec, ends and
//! their reasons.

mod common;

use std::{fs, time::Duration};

use common::{Cluster, skipped, text};
use serde_json::Value;

const PODS: &str = r#"
{apiVersion: v1, kind: ConfigMap, metadata: {name: cm}, data: {key: value, file.txt: "from a ConfigMap"}}
---
{apiVersion: v1, kind: Secret, metadata: {name: sec}, stringData: {pw: "from a Secret"}}
---
apiVersion: v1
kind: Pod
metadata: {name: told, labels: {a: b}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: init, image: cofferdam/tool, args: [write, /w/x, "from init"], volumeMounts: [{name: e, mountPath: /w}]}
  containers:
  - name: c
    image: cofferdam/tool
    env:
    - {name: EARLY, value: "$(LATE)"}
    - {name: LATE, valueFrom: {configMapKeyRef: {name: cm, key: key}}}
    - {name: EXPANDED, value: "<$(LATE)>"}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    envFrom: [{secretRef: {name: sec}}]
    resources: {limits: {cpu: 500m, memory: 64Mi}}
    volumeMounts:
    - {name: e, mountPath: /w}
    - {name: cm, mountPath: /cm}
    - {name: cm, mountPath: /only/file.txt, subPath: file.txt}
    - {name: s, mountPath: /sec, readOnly: true}
    - {name: d, mountPath: /dw}
  volumes:
  - {name: e, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: cm, configMap: {name: cm}}
  - {name: s, secret: {secretName: sec, defaultMode: 0400}}
  - {name: d, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: oom}
spec:
  restartPolicy: Never
  containers: [{name: c, image: cofferdam/tool, args: [alloc, "200"], resources: {limits: {memory: 20Mi}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec:
  containers: [{name: c, image: cofferdam/tool, args: [write, /dev/nothing/here, x], terminationMessagePolicy: FallbackToLogsOnError}]
---
{apiVersion: v1, kind: Pod, metadata: {name: nocmd}, spec: {containers: [{name: c, image: busybox, command: [nothere]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: never}, spec: {containers: [{name: c, image: nosuch, imagePullPolicy: Never}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: nocm}
spec: {containers: [{name: c, image: busybox, env: [{name: X, valueFrom: {configMapKeyRef: {name: missing, key: k}}}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: full}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - {name: fill, image: cofferdam/tool, args: [write, /w/x, FILLING], volumeMounts: [{name: e, mountPath: /w}]}
  containers: [{name: c, image: cofferdam/tool, volumeMounts: [{name: e, mountPath: /w}]}]
  volumes: [{name: e, emptyDir: {sizeLimit: 1Ki}}]
---
apiVersion: v1
kind: Pod
metadata: {name: badpath}
spec:
  containers: [{name: c, image: busybox, volumeMounts: [{name: h, mountPath: /h}]}]
  volumes: [{name: h, hostPath: {path: /etc/passwd, type: Directory}}]
---
{apiVersion: v1, kind: Pod, metadata: {name: done}, spec: {restartPolicy: Never, containers: [{name: c, image: cofferdam/tool, args: [exit, "0"]}]}}
"#;

fn waiting(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["waiting"]
}

#[test]
fn pods_are_told_what_they_ask_for_and_their_ends_are_told() {
    let name = "pods_are_told_what_they_ask_for_and_their_ends_are_told";
    if skipped(name, true) {
        return;
    }
    let cluster = Cluster::with_images(1);
    cluster.apply(&PODS.replace("FILLING", &"x".repeat(8000)));

    let told = cluster.pod_until("told", |pod| pod["status"]["phase"] == "Running");
    let exec = |command: &[&str]| {
        let mut arguments = vec!["exec", "told", "-c", "c", "--", "/bin/tool"];
        arguments.extend(command);
        cluster.kubectl_ok(&arguments)
    };
    let environment = exec(&["env"]);
    let ip = told["status"]["podIP"].as_str().expect("an address");
    for line in [
        "EARLY=$(LATE)",
        "LATE=value",
        "EXPANDED=<value>",
        "pw=from a Secret",
        &format!("IP={ip}"),
        "HOSTNAME=told",
    ] {
        assert!(environment.lines().any(|one| one == line), "{line} is not in:\n{environment}");
    }
    for (path, content) in [
        ("/w/x", "from init"),
        ("/cm/file.txt", "from a ConfigMap"),
        ("/only/file.txt", "from a ConfigMap"),
        ("/sec/pw", "from a Secret"),
        ("/dw/labels", "a=\"b\""),
    ] {
        assert_eq!(exec(&["cat", path]).trim(), content, "{path}");
    }
    let refused = cluster.kubectl(&["exec", "told", "-c", "c", "--", "/bin/tool", "write", "/sec/pw", "x"]);
    assert!(text(&refused).contains("Read-only file system"), "{}", text(&refused));
    let code = cluster.kubectl(&["exec", "told", "-c", "c", "--", "/bin/tool", "exit", "7"]);
    assert_eq!(code.status.code(), Some(7), "{}", text(&code));
    limits_hold(&cluster, &told);
    // A mounted ConfigMap follows its object, by one rename; told by a watch, so that no minute passes.
    cluster.kubectl_ok(&["patch", "configmap", "cm", "-p", r#"{"data":{"file.txt":"changed"}}"#]);
    let followed = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        exec(&["cat", "/cm/file.txt"]).trim() == "changed"
    });
    assert!(followed, "the file is still {}", exec(&["cat", "/cm/file.txt"]));
    assert_eq!(exec(&["cat", "/only/file.txt"]).trim(), "from a ConfigMap", "a subPath does not follow");

    let oom = cluster.pod_until("oom", |pod| pod["status"]["phase"] == "Failed");
    let ended = &oom["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&"OOMKilled".into(), &137.into()), "{ended}");

    let crash = cluster.pod_until("crash", |pod| waiting(pod)["reason"] == "CrashLoopBackOff");
    let last = &crash["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert!(last["message"].as_str().is_some_and(|message| message.contains("/dev/nothing/here")), "{last}");
    assert!(cluster.kubectl_ok(&["logs", "crash", "--previous"]).contains("/dev/nothing/here"));

    let nocmd = cluster.pod_until("nocmd", |pod| waiting(pod)["reason"] == "CrashLoopBackOff");
    let last = &nocmd["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["reason"], &last["exitCode"]), (&"StartError".into(), &128.into()), "{last}");
    assert!(
        last["message"].as_str().is_some_and(|one| one.contains("executable file not found in $PATH")),
        "{last}"
    );

    let never = cluster.pod_until("never", |pod| waiting(pod)["reason"] == "ErrImageNeverPull");
    assert_eq!(
        waiting(&never)["message"],
        "Container image \"nosuch\" is not present with pull policy of Never"
    );
    let nocm = cluster.pod_until("nocm", |pod| waiting(pod)["reason"] == "CreateContainerConfigError");
    assert_eq!(waiting(&nocm)["message"], "configmap \"missing\" not found");

    // What a container waits for comes: it starts without its back-off's end.
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: missing}, data: {k: v}}");
    cluster.pod_until("nocm", |pod| pod["status"]["phase"] == "Running");

    let described = cluster.kubectl_ok(&["describe", "pod", "badpath"]);
    let words = "MountVolume.SetUp failed for volume \"h\" : hostPath type check failed: /etc/passwd is not a directory";
    assert!(described.contains(words), "{described}");

    let done = cluster.pod_until("done", |pod| pod["status"]["phase"] == "Succeeded");
    assert_eq!(done["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");

    let full = cluster.pod_until("full", |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(full["status"]["reason"], "Evicted");
    assert_eq!(full["status"]["message"], "Usage of EmptyDir volume \"e\" exceeds the limit \"1Ki\". ");

    cluster.kubectl_ok(&["delete", "pod", "told"]);
    assert!(!cluster.run(&["get", "pod", "told"]).status.success(), "the pod is gone");
}

/// The limits as the kernel has them, on whichever hierarchy carries the controller.
fn limits_hold(cluster: &Cluster, pod: &Value) {
    let file = fs::read_to_string(cluster.data.join("cluster.json")).expect("cluster.json");
    let id = serde_json::from_str::<Value>(&file).expect("JSON")["id"].as_str().expect("an id").to_owned();
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let read = |candidates: &[(&str, &str)]| {
        candidates
            .iter()
            .find_map(|(hierarchy, file)| {
                let path = format!("/sys/fs/cgroup/{hierarchy}/cofferdam-{id}/node-1/pod{uid}/c_0/{file}");
                fs::read_to_string(path).ok()
            })
            .expect("the container's cgroup")
    };
    let memory = read(&[("memory", "memory.limit_in_bytes"), ("", "memory.max")]);
    assert_eq!(memory.trim(), (64 << 20).to_string());
    let cpu = read(&[("cpu", "cpu.cfs_quota_us"), ("", "cpu.max")]);
    assert!(cpu.starts_with("50000"), "half of a CPU: {cpu}");
}

#[test]
fn kubectl_follows_what_happens() {
    if skipped("kubectl_follows_what_happens", true) {
        return;
    }
    let cluster = Cluster::with_images(2);
    cluster.kubectl_ok(&["create", "namespace", "shop"]);
    cluster.kubectl_ok(&["-n", "shop", "create", "deployment", "web", "--image=nginx", "--replicas=3"]);
    cluster.kubectl_ok(&["-n", "shop", "rollout", "status", "deployment/web", "--timeout=20s"]);
    // Whose the fields of a pod are: the controller's that made it, and the agent's that reports.
    let owners =
        "jsonpath={range .items[*].metadata.managedFields[*]}{.manager} {.operation} {.subresource},{end}";
    let owners = cluster.kubectl_ok(&["-n", "shop", "get", "pods", "--show-managed-fields", "-o", owners]);
    let mut owners: Vec<&str> = owners.trim().split(',').filter(|owner| !owner.is_empty()).collect();
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners, ["kube-controller-manager Update ", "kubelet Update status"]);
    cluster.kubectl_ok(&["-n", "shop", "scale", "deployment/web", "--replicas=1"]);
    cluster.kubectl_ok(&[
        "-n",
        "shop",
        "wait",
        "--for=jsonpath={.status.readyReplicas}=1",
        "deployment/web",
        "--timeout=20s",
    ]);
    cluster.kubectl_ok(&["-n", "shop", "rollout", "restart", "deployment/web"]);
    cluster.kubectl_ok(&["-n", "shop", "rollout", "status", "deployment/web", "--timeout=20s"]);
    cluster.kubectl_ok(&["delete", "namespace", "shop", "--timeout=20s"]);
    let gone = cluster.kubectl(&["get", "namespace", "shop"]);
    assert!(text(&gone).contains("namespaces \"shop\" not found"), "{}", text(&gone));
    let bad = cluster.kubectl(&["run", "Bad_Name", "--image=nginx"]);
    assert!(text(&bad).contains("a lowercase RFC 1123 subdomain must consist of"), "{}", text(&bad));
}
