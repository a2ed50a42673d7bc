//! The first moment of a pod, whole path and across nodes: nothing reaches it that its policies forbid, and nothing is
//! refused that they allow.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use common::{Cluster, skipped};
use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::{Event, Pod},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
    runtime::{WatchStreamExt, wait::await_condition, watcher},
};
use serde_json::json;

/// On a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);

/// One cluster at a time: both are large.
static ONE: Mutex<()> = Mutex::new(());

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("within the test's patience") })
}

fn client(cluster: &Cluster) -> Client {
    node::client::unix(cluster.data.join("run/control.sock"))
}

fn pod(name: &str, app: &str, node: u32, args: &[&str]) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "app": app } },
        "spec": {
            "nodeName": format!("node-{node}"),
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "image": "cofferdam/tool", "args": args }],
        },
    }))
    .expect("a pod")
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

async fn running(pods: &Api<Pod>, pod: &Pod) -> String {
    pods.create(&PostParams::default(), pod).await.expect("create a pod");
    let runs = |pod: Option<&Pod>| pod.is_some_and(|pod| phase(pod) == "Running");
    let pod =
        await_condition(pods.clone(), &pod.name_any(), runs).await.expect("watch a pod").expect("a pod");
    pod.status.and_then(|status| status.pod_ip).expect("an address")
}

/// What the nodes warned of.
async fn warnings(events: &Api<Event>) -> Vec<String> {
    let list = events.list(&ListParams::default()).await.expect("list events").items;
    let warns = |event: &&Event| event.type_.as_deref() == Some("Warning");
    list.iter().filter(warns).filter_map(|event| event.message.clone()).collect()
}

/// Waits until all pods of that label have ended; what those that failed have printed.
async fn ended(pods: &Api<Pod>, app: &str, count: usize) -> Vec<String> {
    let config = watcher::Config::default().labels(&format!("app={app}"));
    let mut events = std::pin::pin!(watcher(pods.clone(), config).default_backoff().applied_objects());
    let mut ends = BTreeMap::new();
    while ends.len() < count {
        let Some(Ok(pod)) = events.next().await else { continue };
        if matches!(phase(&pod), "Succeeded" | "Failed") {
            ends.insert(pod.name_any(), phase(&pod).to_owned());
        }
    }
    let mut failures = Vec::new();
    for (name, _) in ends.into_iter().filter(|(_, end)| end == "Failed") {
        let said = pods.logs(&name, &LogParams::default()).await;
        failures.push(format!("{name}: {said:?}"));
    }
    failures
}

#[test]
fn two_hundred_pods_under_a_default_deny_receive_not_one_packet() {
    if skipped("two_hundred_pods_under_a_default_deny_receive_not_one_packet", false) {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::with_images(3);
    block_on(async {
        let client = client(&cluster);
        let (pods, policies) = (
            Api::<Pod>::default_namespaced(client.clone()),
            Api::<NetworkPolicy>::default_namespaced(client),
        );
        let deny: NetworkPolicy = serde_json::from_value(json!({
            "metadata": { "name": "deny" },
            "spec": { "podSelector": { "matchLabels": { "app": "quiet" } }, "policyTypes": ["Ingress"] },
        }))
        .expect("a policy");
        policies.create(&PostParams::default(), &deny).await.expect("create a policy");
        running(&pods, &pod("peer", "peer", 3, &["knock", "7777", "10.244.1.0", "10.244.2.0"])).await;
        // Without the policy packets come at once: so the peer does send, and they would be seen.
        pods.create(&PostParams::default(), &pod("open", "open", 1, &["received", "1000"]))
            .await
            .expect("create");
        assert_eq!(ended(&pods, "open", 1).await.len(), 1, "nothing came to a pod without a policy");

        let create = (0..200).map(|number| {
            let pod = pod(&format!("quiet-{number}"), "quiet", 1 + number % 2, &["received", "300"]);
            let pods = pods.clone();
            async move { pods.create(&PostParams::default(), &pod).await.expect("create a pod") }
        });
        futures::future::join_all(create).await;
        assert_eq!(ended(&pods, "quiet", 200).await, [""; 0], "{}", cluster.logs());
    });
}

#[test]
fn two_hundred_pods_connect_in_their_first_instruction_and_none_is_refused() {
    if skipped("two_hundred_pods_connect_in_their_first_instruction_and_none_is_refused", false) {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::with_images(3);
    block_on(async {
        let client = client(&cluster);
        let events = Api::<Event>::default_namespaced(client.clone());
        let (pods, policies) = (
            Api::<Pod>::default_namespaced(client.clone()),
            Api::<NetworkPolicy>::default_namespaced(client),
        );
        let allow: NetworkPolicy = serde_json::from_value(json!({
            "metadata": { "name": "allow" },
            "spec": {
                "podSelector": { "matchLabels": { "app": "server" } },
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }], "ports": [{ "port": 80 }] }],
            },
        }))
        .expect("a policy");
        policies.create(&PostParams::default(), &allow).await.expect("create a policy");
        let server = running(&pods, &pod("server", "server", 3, &["serve", "80"])).await;
        // One whom nobody allows gets no answer: so it is the policy that lets the others in.
        pods.create(
            &PostParams::default(),
            &pod("stranger", "stranger", 1, &["connect", &server, "80", "--timeout", "300"]),
        )
        .await
        .expect("create a pod");
        assert_eq!(ended(&pods, "stranger", 1).await.len(), 1, "a stranger was let in");

        for burst in 0..4 {
            let create = (0..50).map(|number| {
                let name = format!("client-{burst}-{number}");
                let pod = pod(&name, "client", 1 + number % 2, &["first", &server, "80"]);
                let pods = pods.clone();
                async move { pods.create(&PostParams::default(), &pod).await.expect("create a pod") }
            });
            futures::future::join_all(create).await;
            let failures = ended(&pods, "client", 50).await;
            assert_eq!(failures, [""; 0], "burst {burst}: {:?}{}", warnings(&events).await, cluster.logs());
            let clients = ListParams::default().labels("app=client");
            pods.delete_collection(&DeleteParams::default(), &clients).await.expect("delete the clients");
            while !pods.list(&clients).await.expect("list pods").items.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
}

/// The network of a pod's container, by the process that the pod's cgroup names.
fn network_of(uid: &str) -> fs::File {
    for entry in fs::read_dir("/proc").expect("read /proc").flatten() {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        if read("cgroup").contains(&format!("pod{uid}/")) && read("cmdline").contains("infinity") {
            return fs::File::open(entry.path().join("ns/net")).expect("open a network namespace");
        }
    }
    panic!("no process of pod {uid}");
}

#[test]
fn a_pod_whose_address_is_shown_is_reached_by_those_whose_egress_means_it() {
    if skipped("a_pod_whose_address_is_shown_is_reached_by_those_whose_egress_means_it", false) {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::with_images(3);
    block_on(async {
        let client = client(&cluster);
        let events = Api::<Event>::default_namespaced(client.clone());
        let (pods, policies) = (
            Api::<Pod>::default_namespaced(client.clone()),
            Api::<NetworkPolicy>::default_namespaced(client),
        );
        let allow: NetworkPolicy = serde_json::from_value(json!({
            "metadata": { "name": "allow" },
            "spec": {
                "podSelector": { "matchLabels": { "app": "client" } },
                "policyTypes": ["Egress"],
                "egress": [{ "to": [{ "podSelector": { "matchLabels": { "app": "server" } } }] }],
            },
        }))
        .expect("a policy");
        policies.create(&PostParams::default(), &allow).await.expect("create a policy");
        running(&pods, &pod("client", "client", 3, &["sleep", "infinity"])).await;
        let uid = pods.get("client").await.expect("get a pod").metadata.uid.expect("a uid");
        let network = network_of(&uid);
        let connect = |to: &str| {
            let to: SocketAddr = format!("{to}:80").parse().expect("an address");
            let connected = kernel::route::netns::run_in(network.as_fd(), || {
                TcpStream::connect_timeout(&to, Duration::from_millis(900))
            });
            match connected.expect("enter the client's network") {
                Ok(_) => Ok(()),
                // Its container does not listen yet: the packet came through.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
                Err(error) => Err(format!("{to}: {error}")),
            }
        };
        let stranger = running(&pods, &pod("stranger", "stranger", 1, &["serve", "80"])).await;
        assert!(connect(&stranger).is_err(), "egress is not limited");

        let config = watcher::Config::default().labels("app=server");
        let mut seen = std::pin::pin!(watcher(pods.clone(), config).default_backoff().applied_objects());
        let create = (0..40).map(|number| {
            let pod = pod(&format!("server-{number}"), "server", 1 + number % 2, &["serve", "80"]);
            let pods = pods.clone();
            async move { pods.create(&PostParams::default(), &pod).await.expect("create a pod") }
        });
        futures::future::join_all(create).await;
        let mut reached = BTreeMap::new();
        while reached.len() < 40 {
            let Some(Ok(pod)) = seen.next().await else { continue };
            let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.clone()) else {
                continue;
            };
            reached.entry(pod.name_any()).or_insert_with(|| connect(&address));
        }
        let refused: Vec<String> = reached.into_values().filter_map(Result::err).collect();
        assert_eq!(refused, [""; 0], "{:?}{}", warnings(&events).await, cluster.logs());
    });
}
