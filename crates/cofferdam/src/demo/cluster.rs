//! The demo's hands: applies manifests, waits for what they make, and finds the processes behind it.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{AttachParams, DeleteParams, DynamicObject, ListParams, PostParams},
    core::{ApiResource, GroupVersionKind},
    runtime::{WatchStreamExt, watcher},
};
use tokio::io::AsyncReadExt;

use super::observe;
use crate::cluster::{
    layout::{Cluster, Layout},
    processes::{self, Role},
};

/// A pod that is not where it should be after this long is a failure of the demo.
const LONGEST: Duration = Duration::from_secs(20);

pub struct Demo {
    pub client: Client,
    pub cluster: Cluster,
    pub layout: Layout,
}

/// A pod as the demo looks at it.
pub struct Seen {
    pub pod: Pod,
    pub node: String,
    pub ip: Ipv4Addr,
    /// The machine's number of the first container's first process.
    pub pid: i32,
}

impl Demo {
    /// The PID 1 of a node, as the machine numbers it.
    pub fn node_init(&self, node: &str) -> Result<i32> {
        processes::find(self.layout.data())?
            .into_iter()
            .find(|process| process.role == Role::NodeInit && process.node.as_deref() == Some(node))
            .map(|process| process.pid)
            .with_context(|| format!("{node} does not run"))
    }

    pub fn node_ip(&self, index: u32) -> Result<Ipv4Addr> {
        let range = self.cluster.node_cidr.parse().context("the nodes' range")?;
        node::net::fabric::node_address(range, index).context("the node's address")
    }

    pub async fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace.metadata.labels =
            Some(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
        Api::<Namespace>::all(self.client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("create namespace {name}"))?;
        Ok(())
    }

    /// Creates every object of a manifest, in the namespace it names, else in `default`.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        for document in serde_yaml::Deserializer::from_str(manifest) {
            let object: DynamicObject =
                serde::Deserialize::deserialize(document).context("a manifest of the demo is not YAML")?;
            let types = object.types.clone().context("a manifest of the demo has no kind")?;
            let kind = GroupVersionKind::try_from(&types).context("a manifest of the demo has no version")?;
            let resource = ApiResource::from_gvk(&kind);
            let namespace = object.namespace().unwrap_or_else(|| "default".into());
            Api::<DynamicObject>::namespaced_with(self.client.clone(), &namespace, &resource)
                .create(&PostParams::default(), &object)
                .await
                .with_context(|| format!("create {} {}", types.kind, object.name_any()))?;
        }
        Ok(())
    }

    /// A pod of the tool image with labels, which serves on the ports.
    pub async fn server(&self, namespace: &str, name: &str, labels: &str, ports: &str) -> Result<()> {
        self.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}, \
             spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, image: cofferdam/tool, args: [serve, {ports}]}}]}}}}"
        ))
        .await
    }

    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Waits until the pod is as asked.
    pub async fn until(&self, namespace: &str, name: &str, asked: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events =
            std::pin::pin!(watcher(self.pods(namespace), config).default_backoff().applied_objects());
        let mut last = None;
        let wait = async {
            while let Some(pod) = events.try_next().await.context("watch a pod")? {
                if asked(&pod) {
                    return Ok(pod);
                }
                last = pod.status;
            }
            bail!("the watch on pod {name} ended")
        };
        match tokio::time::timeout(LONGEST, wait).await {
            Ok(pod) => pod,
            Err(_) => bail!("pod {namespace}/{name} is not as expected: {}", serde_json::to_string(&last)?),
        }
    }

    pub async fn running(&self, namespace: &str, name: &str) -> Result<Seen> {
        let pod = self.until(namespace, name, is_running).await?;
        self.see(pod)
    }

    /// Waits until so many pods with the label run, and returns all with the label.
    pub async fn until_running(&self, namespace: &str, label: &str, count: usize) -> Result<Vec<Pod>> {
        let config = watcher::Config::default().labels(label);
        let pods = self.pods(namespace);
        let mut events = std::pin::pin!(watcher(pods.clone(), config).default_backoff().touched_objects());
        let wait = async {
            while events.try_next().await.context("watch pods")?.is_some() {
                let all = pods.list(&ListParams::default().labels(label)).await.context("list pods")?.items;
                if all.iter().filter(|pod| is_running(pod)).count() >= count {
                    return Ok(all);
                }
            }
            bail!("the watch on pods with {label} ended")
        };
        match tokio::time::timeout(LONGEST, wait).await {
            Ok(pods) => pods,
            Err(_) => bail!("no {count} pods with {label} are running in {namespace}"),
        }
    }

    pub fn see(&self, pod: Pod) -> Result<Seen> {
        let name = pod.name_any();
        let first = pod.spec.as_ref().and_then(|spec| spec.containers.first()).map(|one| one.name.clone());
        let container = first.with_context(|| format!("pod {name} has no container"))?;
        let pid = self.process(&pod, &container)?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok());
        Ok(Seen { node, ip: ip.with_context(|| format!("pod {name} has no address"))?, pid, pod })
    }

    pub fn process(&self, pod: &Pod, container: &str) -> Result<i32> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let attempt =
            statuses.into_iter().find(|status| status.name == container).map_or(0, |one| one.restart_count);
        let uid = pod.uid().unwrap_or_default();
        observe::first_process(&self.cluster.id, node, &uid, container, u32::try_from(attempt).unwrap_or(0))
    }

    pub async fn delete(&self, namespace: &str, name: &str) -> Result<()> {
        self.pods(namespace)
            .delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("delete {name}"))?;
        Ok(())
    }

    /// Runs a command in a container through the API, as `kubectl exec` does; its exit code and all it printed.
    pub async fn exec(&self, seen: &Seen, container: &str, command: &[&str]) -> Result<(i32, String)> {
        let namespace = seen.pod.namespace().unwrap_or_default();
        let params = AttachParams::default().container(container).stdin(false);
        let mut process = self
            .pods(&namespace)
            .exec(&seen.pod.name_any(), command.iter().copied(), &params)
            .await
            .with_context(|| format!("exec in {}", seen.pod.name_any()))?;
        let mut output = String::new();
        let status = process.take_status().context("exec has no status")?;
        if let Some(mut stdout) = process.stdout() {
            stdout.read_to_string(&mut output).await.context("read what exec printed")?;
        }
        if let Some(mut stderr) = process.stderr() {
            stderr.read_to_string(&mut output).await.context("read what exec printed")?;
        }
        let status = status.await.context("exec ended without a status")?;
        let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
        let code = match status.status.as_deref() {
            Some("Success") => 0,
            _ => causes
                .iter()
                .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
                .and_then(|cause| cause.message.as_ref()?.parse().ok())
                .unwrap_or(-1),
        };
        Ok((code, output.trim().to_owned()))
    }
}

pub fn is_running(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.container_statuses.as_ref());
    status.and_then(|status| status.phase.as_deref()) == Some("Running")
        && statuses.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.ready))
}
