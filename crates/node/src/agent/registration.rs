//! The Node object: what this machine has for its pods, and whether the agent can start some.

use std::{collections::BTreeMap, fs};

use k8s_openapi::{
    api::core::v1::{Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo},
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::context::Config;

/// How many pods a node takes, as kubelet's default.
const MAX_PODS: u32 = 110;

/// Creates the Node object, or brings an existing one up to date, with its status Ready.
pub async fn register(client: &kube::Client, config: &Config) -> Result<Node, kube::Error> {
    let name = config.node.as_str();
    let api = Api::<Node>::all(client.clone());
    let labels: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let status = status(name, &config.ips());
    let pod_cidr = config.v4.pod_cidr.to_string();
    let pod_cidrs = [pod_cidr.clone()].into_iter().chain(config.v6.map(|v6| v6.pod_cidr.to_string()));
    let node = Node {
        metadata: ObjectMeta { name: Some(name.into()), labels: Some(labels.clone()), ..Default::default() },
        spec: Some(NodeSpec {
            pod_cidr: Some(pod_cidr),
            pod_cidrs: Some(pod_cidrs.collect()),
            provider_id: Some(format!("cofferdam://{name}")),
            ..Default::default()
        }),
        status: Some(status.clone()),
    };
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = json!({ "metadata": { "labels": labels } });
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Err(error) => return Err(error),
    }
    let patch = json!({ "status": status });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

fn status(name: &str, ips: &[String]) -> NodeStatus {
    let resources = resources();
    let now = Time(Timestamp::now());
    let condition = |type_: &str, status: &str, reason: &str, message: &str| NodeCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    };
    let address = |type_: &str, address: String| NodeAddress { type_: type_.into(), address };
    let mut addresses: Vec<NodeAddress> = ips.iter().map(|ip| address("InternalIP", ip.clone())).collect();
    addresses.push(address("Hostname", name.into()));
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(resources.clone()),
        allocatable: Some(resources),
        conditions: Some(vec![
            condition(
                "MemoryPressure",
                "False",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition(
                "PIDPressure",
                "False",
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ]),
        node_info: Some(node_info()),
        ..Default::default()
    }
}

/// What the machine has. Nodes on one machine share it: each says the whole, as virtual machines may.
fn resources() -> BTreeMap<String, Quantity> {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    let memory = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .unwrap_or(0);
    let disk = rustix::fs::statvfs("/var/lib").map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
    [
        ("cpu", cpus.to_string()),
        ("memory", format!("{memory}Ki")),
        ("ephemeral-storage", format!("{}Ki", disk / 1024)),
        ("pods", MAX_PODS.to_string()),
    ]
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .into()
}

fn node_info() -> NodeSystemInfo {
    let uname = rustix::system::uname();
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let os_image = read("/etc/os-release")
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .unwrap_or_else(|| "Linux".into());
    NodeSystemInfo {
        architecture: architecture().into(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: concat!("cofferdam://", env!("CARGO_PKG_VERSION")).into(),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        kube_proxy_version: String::new(),
        kubelet_version: concat!("v1.35.0+cofferdam-", env!("CARGO_PKG_VERSION")).into(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".into(),
        os_image,
        system_uuid: read("/etc/machine-id"),
        ..Default::default()
    }
}

/// The architecture in Go's words, as Kubernetes labels it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
