//! The cluster's name service as objects, under the names and labels that manifests and policies of others rely on: the
//! Service `kube-dns` in `kube-system`, and pods labelled `k8s-app: kube-dns`.

use std::{net::IpAddr, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};

/// What the name service is given.
#[derive(Clone, Debug)]
pub struct NameService {
    /// The addresses of its Service: one in each range of Services, that of pods' resolv.conf first.
    pub addresses: Vec<IpAddr>,
    /// Its image; another one takes the place of that which runs.
    pub image: String,
    /// The ranges of pods and Services: names of addresses in them nobody else is asked for.
    pub ranges: Vec<String>,
}

const NAMESPACE: &str = "kube-system";
/// The Deployment, its ServiceAccount and its pods.
const NAME: &str = "cofferdam-dns";
const SERVICE: &str = "kube-dns";
const ROLE: &str = "system:coredns";
/// Which image made the objects: as long as it is the same, what an administrator changed stays.
const MADE_BY: &str = "cofferdam.dev/made-by";
/// The pause after a failure, doubled up to a minute.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes the objects, or brings those of an older program up to date, once a node is there to run the pod: a cluster's
/// start does not wait for its name service.
pub async fn run(client: Client, service: NameService) {
    let mut nodes = std::pin::pin!(
        watcher(Api::<Node>::all(client.clone()), watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    while let Some(event) = nodes.next().await {
        let ready = event.is_ok_and(|node| {
            let conditions = node.status.into_iter().flat_map(|status| status.conditions.unwrap_or_default());
            conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
        });
        if ready {
            break;
        }
    }
    let mut pause = PAUSE;
    while let Err(error) = settle(&client, &service).await {
        eprintln!("make the name service: {error}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
    }
}

async fn settle(client: &Client, service: &NameService) -> Result<(), kube::Error> {
    let deployment = api(client, "apps", "Deployment", Some(NAMESPACE));
    let made_by = |object: DynamicObject| object.metadata.annotations.unwrap_or_default().remove(MADE_BY);
    if deployment.get_opt(NAME).await?.and_then(made_by).as_ref() == Some(&service.image) {
        return Ok(());
    }
    for object in objects(service) {
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let namespace = object["metadata"]["namespace"].as_str();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let api = api(client, group, &kind, namespace);
        match api.get_opt(&name).await? {
            None => {
                let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
                api.create(&PostParams::default(), &object).await?;
            }
            Some(_) => drop(api.patch(&name, &PatchParams::default(), &Patch::Merge(object)).await?),
        }
    }
    Ok(())
}

fn api(client: &Client, group: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// In the order in which they are of use; the Deployment, which says who made them, last.
fn objects(service: &NameService) -> Vec<Value> {
    let labels =
        json!({"k8s-app": SERVICE, "kubernetes.io/name": "DNS", "kubernetes.io/cluster-service": "true"});
    let read = json!(["list", "watch"]);
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
    })];
    objects.push(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": ROLE, "labels": labels},
        "rules": [
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": read},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        ],
    }));
    objects.push(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": ROLE, "labels": labels},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
    }));
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "clusterIP": service.addresses.first(),
            "clusterIPs": service.addresses,
            "ipFamilyPolicy": if service.addresses.len() == 2 { "RequireDualStack" } else { "SingleStack" },
            "selector": {"k8s-app": SERVICE},
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 8181},
            ],
        },
    }));
    let metadata = json!({"name": NAME, "namespace": NAMESPACE, "labels": labels, "annotations": {MADE_BY: service.image}});
    objects.push(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {
            "replicas": 1,
            // The new one serves before the old one goes.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": {"k8s-app": SERVICE}},
            "template": {"metadata": {"labels": {"k8s-app": SERVICE}}, "spec": pod(service)},
        },
    }));
    objects
}

/// A pod that the restricted standard allows.
fn pod(service: &NameService) -> Value {
    let args: Vec<&str> = service.ranges.iter().flat_map(|range| ["--range", range]).collect();
    json!({
        "serviceAccountName": NAME,
        "priorityClassName": "system-cluster-critical",
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
        ],
        // The machine's resolvers are whom it asks.
        "dnsPolicy": "Default",
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": "dns",
            "image": service.image,
            "imagePullPolicy": "IfNotPresent",
            "args": args,
            "ports": [
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                {"name": "health", "containerPort": 8181, "protocol": "TCP"},
            ],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "170Mi"}},
            // It answers as soon as the first lists are whole, so that nobody waits for the next try.
            "startupProbe": {
                "httpGet": {"path": "/ready", "port": "health"}, "timeoutSeconds": 5, "periodSeconds": 1, "failureThreshold": 120,
            },
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "health"}, "timeoutSeconds": 5, "periodSeconds": 10},
            "livenessProbe": {"httpGet": {"path": "/health", "port": "health"}, "timeoutSeconds": 5, "periodSeconds": 10},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use policy::pod_security::{Level, LevelVersion, Version, evaluate};

    use super::*;

    #[test]
    fn the_pod_is_one_that_the_restricted_standard_allows() {
        let service = NameService {
            addresses: vec![[10, 96, 0, 10].into()],
            image: "cofferdam/dns:1".into(),
            ranges: vec!["10.96.0.0/16".into()],
        };
        let spec = serde_json::from_value(pod(&service)).expect("a pod's spec");
        let policy = LevelVersion { level: Level::Restricted, version: Version::Latest };
        let verdict = evaluate(policy, &Default::default(), &spec);
        assert!(verdict.allowed(), "{}", verdict.details());
        assert_eq!(objects(&service).last().map(|last| last["kind"].clone()), Some("Deployment".into()));
    }
}
