//! The cluster's name service on a running cluster: what pods resolve, under which policies, and what it is itself.

mod common;

use std::time::Duration;

use common::{Cluster, skipped, text};
use serde_json::Value;

const PODS: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: pg, port: 5432}]}
---
{apiVersion: v1, kind: Service, metadata: {name: out, namespace: shop}, spec: {type: ExternalName, externalName: www.outside.example}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: cofferdam/tool, args: [serve, "8080"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, labels: {app: db}}
spec: {hostname: db-0, subdomain: db, containers: [{name: c, image: cofferdam/tool, args: [serve, "5432"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: upstream, labels: {app: upstream}}
spec: {containers: [{name: c, image: cofferdam/tool, args: [names, "53", "www.outside.example=192.0.2.7"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {containers: [{name: c, image: cofferdam/tool}]}
---
apiVersion: v1
kind: Pod
metadata: {name: mute, namespace: shop, labels: {app: mute}}
spec: {containers: [{name: c, image: cofferdam/tool}]}
---
apiVersion: v1
kind: Pod
metadata: {name: own, namespace: shop}
spec:
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [corp.example], options: [{name: ndots, value: "2"}]}
  hostname: h
  subdomain: db
  setHostnameAsFQDN: true
  hostAliases: [{ip: 192.0.2.9, hostnames: [alias]}]
  containers: [{name: c, image: cofferdam/tool}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing, namespace: shop}
spec: {podSelector: {}, policyTypes: [Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: dns, namespace: shop}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
    ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
"#;

struct Exec<'a>(&'a Cluster);

impl Exec<'_> {
    fn run(&self, pod: &str, command: &[&str]) -> (Option<i32>, String) {
        let mut arguments = vec!["exec", pod, "-n", "shop", "--", "/bin/tool"];
        arguments.extend(command);
        let output = self.0.run(&arguments);
        // What it prints itself; the client adds a line about the exit code.
        (output.status.code(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Asks until the answer is this one: a watch's news needs its moment.
    fn until(&self, pod: &str, command: &[&str], expected: &str) {
        let mut last = (None, String::new());
        for _ in 0..150 {
            last = self.run(pod, command);
            if last == (Some(0), expected.to_owned()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{pod} {command:?}: {last:?}, not {expected:?}{}", self.0.logs());
    }
}

fn pod(cluster: &Cluster, namespace: &str, name: &str) -> Value {
    let output = cluster.ok(&["get", "pod", name, "-n", namespace, "-o", "json"]);
    serde_json::from_str(&output).expect("a pod")
}

#[test]
fn pods_resolve_names_by_the_policy_that_people_write() {
    if skipped("pods_resolve_names_by_the_policy_that_people_write", true) {
        return;
    }
    let cluster = Cluster::with_images(2);
    cluster.apply(PODS);
    let rollout = ["-n", "kube-system", "rollout", "status", "deployment/cofferdam-dns", "--timeout=60s"];
    cluster.kubectl_ok(&rollout);
    for (namespace, name) in [
        ("shop", "web"),
        ("shop", "db-0"),
        ("shop", "client"),
        ("shop", "mute"),
        ("shop", "own"),
        ("default", "upstream"),
    ] {
        let name = format!("pod/{name}");
        cluster.kubectl_ok(&["-n", namespace, "wait", "--for=condition=Ready", &name, "--timeout=60s"]);
    }
    let exec = Exec(&cluster);

    let service =
        cluster.kubectl_ok(&["-n", "shop", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let found = format!("web.shop.svc.cluster.local A {service}");
    for name in
        ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "web.shop.svc.cluster.local."]
    {
        exec.until("client", &["resolve", name], &found);
    }
    exec.until("client", &["resolve", "web", "--tcp"], &found);
    let db = pod(&cluster, "shop", "db-0")["status"]["podIP"].as_str().expect("an address").to_owned();
    exec.until("client", &["resolve", "db"], &format!("db.shop.svc.cluster.local A {db}"));
    exec.until("client", &["resolve", "db-0.db"], &format!("db-0.db.shop.svc.cluster.local A {db}"));
    let srv = "_pg._tcp.db.shop.svc.cluster.local";
    exec.until(
        "client",
        &["resolve", srv, "SRV"],
        &format!("{srv} SRV 0 100 5432 db-0.db.shop.svc.cluster.local"),
    );
    let srv = "_http._tcp.web.shop.svc.cluster.local";
    exec.until("client", &["resolve", srv, "SRV"], &format!("{srv} SRV 0 100 80 web.shop.svc.cluster.local"));
    let nothing = "nothing.shop.svc.cluster.local.";
    assert_eq!(exec.run("client", &["resolve", nothing]), (Some(1), "NXDOMAIN".to_owned()));
    assert_eq!(exec.run("client", &["resolve", "web", "AAAA"]), (Some(1), "no such record".to_owned()));

    // Who may not reach the name service resolves nothing, and who may resolve may not connect.
    let (code, said) = exec.run("mute", &["resolve", "web.shop.svc.cluster.local."]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = exec.run("client", &["connect", "web", "80", "--timeout", "500"]);
    assert_eq!(code, Some(2), "{said}");

    // Names outside, from the servers of the pod's own configuration.
    let upstream =
        pod(&cluster, "default", "upstream")["status"]["podIP"].as_str().expect("an address").to_owned();
    let patch = format!(
        r#"{{"spec":{{"template":{{"spec":{{"dnsPolicy":"None","dnsConfig":{{"nameservers":["{upstream}"]}}}}}}}}}}"#
    );
    cluster.kubectl_ok(&["-n", "kube-system", "patch", "deployment", "cofferdam-dns", "-p", &patch]);
    cluster.kubectl_ok(&rollout);
    exec.until("client", &["resolve", "www.outside.example"], "www.outside.example A 192.0.2.7");
    exec.until(
        "client",
        &["resolve", "out"],
        "out.shop.svc.cluster.local CNAME www.outside.example\nwww.outside.example A 192.0.2.7",
    );

    // A Service that changes, changes its name's answer at once.
    cluster.kubectl_ok(&["-n", "shop", "delete", "service", "web"]);
    cluster.kubectl_ok(&[
        "-n",
        "shop",
        "create",
        "service",
        "clusterip",
        "web",
        "--clusterip=10.96.77.7",
        "--tcp=80",
    ]);
    exec.until("client", &["resolve", "web"], "web.shop.svc.cluster.local A 10.96.77.7");

    configurations(&cluster, &exec);
    what_it_is(&cluster);
}

/// The files of pods that configure themselves.
fn configurations(cluster: &Cluster, exec: &Exec<'_>) {
    let (_, own) = exec.run("own", &["cat", "/etc/resolv.conf"]);
    assert_eq!(own, "search corp.example\nnameserver 192.0.2.53\noptions ndots:2");
    let (_, client) = exec.run("client", &["cat", "/etc/resolv.conf"]);
    assert!(client.starts_with("search shop.svc.cluster.local svc.cluster.local cluster.local"), "{client}");
    assert!(client.ends_with("nameserver 10.96.0.10\noptions ndots:5"), "{client}");
    let (_, hosts) = exec.run("own", &["cat", "/etc/hosts"]);
    let ip = pod(cluster, "shop", "own")["status"]["podIP"].as_str().expect("an address").to_owned();
    assert!(hosts.contains(&format!("{ip}\th.db.shop.svc.cluster.local\th\n")), "{hosts}");
    assert!(hosts.ends_with("192.0.2.9\talias"), "{hosts}");
    let (_, name) = exec.run("own", &["hostname"]);
    assert_eq!(name, "h.db.shop.svc.cluster.local");
}

/// Its own pod: what others select it by, and that the restricted standard would have it.
fn what_it_is(cluster: &Cluster) {
    let get = ["-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "json"];
    let pods: Value = serde_json::from_str(&cluster.kubectl_ok(&get)).expect("a list");
    assert!(!pods["items"].as_array().expect("pods").is_empty());
    let label = cluster.kubectl(&[
        "label",
        "--dry-run=server",
        "--overwrite",
        "namespace",
        "kube-system",
        "pod-security.kubernetes.io/enforce=restricted",
    ]);
    assert!(!text(&label).contains("Warning"), "{}", text(&label));
}

#[test]
fn a_cluster_without_name_service_says_so() {
    if skipped("a_cluster_without_name_service_says_so", true) {
        return;
    }
    let cluster = Cluster::empty();
    cluster.ok(&["up", "--no-dns"]);
    cluster.load("tool", &node::images::tool_image());
    cluster.kubectl_ok(&["run", "p", "--image=cofferdam/tool"]);
    cluster.kubectl_ok(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    let described = cluster.ok(&["describe", "pod", "p"]);
    let words =
        "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy.";
    assert!(described.contains("MissingClusterDNS") && described.contains(words), "{described}");
    let none = cluster.kubectl(&["-n", "kube-system", "get", "service", "kube-dns"]);
    assert!(text(&none).contains("not found"), "{}", text(&none));
}
