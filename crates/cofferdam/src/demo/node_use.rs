//! How a pod uses its node: rows A of the feature table.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use kube::ResourceExt;

use super::{
    Rows,
    cluster::{Demo, is_running},
    observe::{connect, shared},
};

const HOST_NETWORK: &str = include_str!("../../../../examples/chapter/01-hostnetwork.yaml");
const HOST_PORT: &str = include_str!("../../../../examples/chapter/02-hostport-deployment.yaml");
const HOST_PID_IPC: &str = include_str!("../../../../examples/chapter/04-hostpid-hostipc.yaml");

pub async fn rows(demo: &Demo, rows: &mut Rows) -> Result<()> {
    for manifest in [HOST_NETWORK, HOST_PORT, HOST_PID_IPC] {
        demo.apply(manifest).await?;
    }
    host_network(demo, rows).await?;
    host_port(demo, rows).await?;
    host_pid_ipc(demo, rows).await?;
    host_path(demo, rows).await
}

async fn host_network(demo: &Demo, rows: &mut Rows) -> Result<()> {
    let pod = demo.running("default", "hostnetwork-example").await?;
    let same = !shared(pod.pid, demo.node_init(&pod.node)?, &["net"])?.is_empty();
    let host = pod.pod.status.as_ref().and_then(|status| status.host_ip.clone()).unwrap_or_default();
    let other = demo.cluster.node_names().find(|name| *name != pod.node).context("another node")?;
    let answer = connect(demo.node_init(&other)?, pod.ip, 80)?;
    let agrees = same && pod.ip.to_string() == host && answer.passes();
    let seen = format!(
        "{}; podIP {} = hostIP; port 80 of the node {}",
        if same { "the node's net inode" } else { "a net inode of its own" },
        pod.ip,
        answer.word()
    );
    rows.add("A2", "01-hostnetwork", "hostNetwork", seen, agrees);
    Ok(())
}

async fn host_port(demo: &Demo, rows: &mut Rows) -> Result<()> {
    let manifest = "02-hostport-deployment";
    let label = "app=hostport-example";
    let pods = demo.until_running("default", label, 3).await?;
    let running: Vec<_> = pods.iter().filter(|pod| is_running(pod)).collect();
    let nodes: BTreeSet<_> = running.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    let pending = pods.iter().find(|pod| !is_running(pod)).context("a fourth pod")?.name_any();
    let unschedulable = |pod: &k8s_openapi::api::core::v1::Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions
            .into_iter()
            .find(|one| one.reason.as_deref() == Some("Unschedulable"))
            .and_then(|one| one.message.clone())
    };
    let pod = demo.until("default", &pending, |pod| unschedulable(pod).is_some()).await?;
    let message = unschedulable(&pod).unwrap_or_default();
    let sentence = "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports.";
    let agrees = running.len() == 3 && nodes.len() == 3 && message.starts_with(sentence);
    rows.add(
        "A5",
        manifest,
        "4 replicas, one host port, 3 nodes",
        format!(
            "3 run on 3 nodes, 1 pends: {}",
            message
                .strip_prefix("0/3 nodes are available: ")
                .and_then(|rest| rest.split(" for the").next())
                .unwrap_or(&message)
        ),
        agrees,
    );

    let mut answers = 0;
    for pod in &running {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let index =
            demo.cluster.node_names().position(|name| name == node).context("the pod's node")? as u32 + 1;
        let from = demo.cluster.node_names().find(|name| *name != node).context("another node")?;
        if let super::observe::Outcome::Answered(answer) =
            connect(demo.node_init(&from)?, demo.node_ip(index)?, 9000)?
        {
            answers += usize::from(answer.contains(&pod.name_any()));
        }
    }
    rows.add(
        "A3",
        manifest,
        "hostPort 9000 leads to that node's pod",
        format!("{answers} of 3 nodes answer with their own pod"),
        answers == 3,
    );

    let first = running.first().context("a running pod")?.name_any();
    demo.delete("default", &first).await?;
    let started = demo.until("default", &pending, is_running).await.is_ok();
    rows.add(
        "A5",
        manifest,
        "a freed port lets the fourth start",
        if started { "it runs" } else { "it still pends" },
        started,
    );
    Ok(())
}

async fn host_pid_ipc(demo: &Demo, rows: &mut Rows) -> Result<()> {
    let manifest = "04-hostpid-hostipc";
    let pod = demo.running("default", "hostpid-hostipc-example").await?;
    let node = demo.node_init(&pod.node)?;
    let pid = !shared(pod.pid, node, &["pid"])?.is_empty();
    let (code, output) = demo.exec(&pod, "main", &["/bin/tool", "cat", "/proc/1/comm"]).await?;
    let agrees = pid && code == 0 && output == "cofferdam";
    rows.add("A6", manifest, "hostPID", format!("the node's pid inode; /proc/1 is {output}"), agrees);
    let ipc = !shared(pod.pid, node, &["ipc"])?.is_empty();
    rows.add(
        "A7",
        manifest,
        "hostIPC",
        if ipc { "the node's ipc inode" } else { "an ipc inode of its own" },
        ipc,
    );
    Ok(())
}

async fn host_path(demo: &Demo, rows: &mut Rows) -> Result<()> {
    demo.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: host-path}, spec: {containers: [{name: main, image: busybox, \
         command: [sleep, '3600'], volumeMounts: [{name: run, mountPath: /node, readOnly: true}]}], \
         volumes: [{name: run, hostPath: {path: /run, type: Directory}}]}}",
    )
    .await?;
    let pod = demo.running("default", "host-path").await?;
    let (code, _) = demo.exec(&pod, "main", &["/bin/tool", "stat", "/node/cofferdam/node.json"]).await?;
    let (wrote, refused) = demo.exec(&pod, "main", &["/bin/tool", "write", "/node/probe", "x"]).await?;
    let agrees = code == 0 && wrote != 0 && refused.contains("Read-only file system");
    rows.add("A9", "", "hostPath /run, readOnly", "the node's directory; a write gives EROFS", agrees);
    Ok(())
}
