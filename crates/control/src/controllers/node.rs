//! Taints nodes that are not ready or are cordoned, so that the scheduler leaves them alone
//! (`pkg/controller/nodelifecycle`: `doNoScheduleTaintingPass`), and deletes the pods of nodes that are there no more
//! (`pkg/controller/podgc`: `gcOrphaned`). Evicting pods of nodes that do not answer is not done here.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::cache::key_of;
use super::deployment::exactly;
use super::{Error, World, gone_is_fine};

const OURS: [&str; 3] =
    ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/unschedulable"];

pub(super) async fn sync(world: &World, name: String) -> Result<Option<Duration>, Error> {
    let Some(node) = world.nodes.get(&(String::new(), name.clone())) else {
        return collect_orphans(world, &name).await;
    };
    let has = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let wanted = taints(&node);
    if has == wanted {
        return Ok(None);
    }
    let api: Api<Node> = Api::all(world.clients.node.clone());
    // The list is replaced whole, so it must be the one that was read.
    let patch = json!({
        "metadata": { "resourceVersion": node.metadata.resource_version },
        "spec": { "taints": wanted },
    });
    world.saw(api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?);
    Ok(None)
}

/// How long a node may be missing before its pods are given up (`quarantineTime`): it may only be registering anew.
pub(super) const QUARANTINE: Duration = Duration::from_secs(40);

/// Called when the quarantine is over.
async fn collect_orphans(world: &World, node: &str) -> Result<Option<Duration>, Error> {
    let nodes: Api<Node> = Api::all(world.clients.pod_garbage.clone());
    if gone_is_fine(nodes.get_metadata(node).await)?.is_some() {
        return Ok(None);
    }
    for pod in world.pods.all() {
        if pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) != Some(node) {
            continue;
        }
        let (namespace, name) = key_of(&pod.metadata);
        let api: Api<Pod> = Api::namespaced(world.clients.pod_garbage.clone(), &namespace);
        // Nobody is left who could end it in good order.
        let params = exactly(pod.metadata.uid.as_ref()).grace_period(0);
        gone_is_fine(api.delete(&name, &params).await)?;
    }
    Ok(None)
}

/// The node's own taints, without ours that no longer hold, and those that do.
fn taints(node: &Node) -> Vec<Taint> {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.as_str());
    let holds = |key: &str| match key {
        "node.kubernetes.io/not-ready" => ready == Some("False"),
        "node.kubernetes.io/unreachable" => ready == Some("Unknown"),
        _ => node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false),
    };
    let mut taints = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    taints.retain(|t| t.effect != "NoSchedule" || !OURS.contains(&t.key.as_str()) || holds(&t.key));
    for key in OURS.into_iter().filter(|key| holds(key)) {
        if !taints.iter().any(|t| t.key == key && t.effect == "NoSchedule") {
            taints.push(Taint { key: key.to_string(), effect: "NoSchedule".to_string(), ..Taint::default() });
        }
    }
    taints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_and_cordon_become_taints_and_go_again() {
        let node = |ready: &str, cordoned: bool, taints: serde_json::Value| -> Node {
            serde_json::from_value(json!({ "metadata": { "name": "n" },
                "spec": { "unschedulable": cordoned, "taints": taints },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] } }))
            .unwrap()
        };
        let own = json!([{ "key": "mine", "effect": "NoSchedule" }]);
        let keys = |node: Node| taints(&node).into_iter().map(|t| t.key).collect::<Vec<_>>();
        assert_eq!(keys(node("True", false, own.clone())), ["mine"]);
        assert_eq!(keys(node("False", false, own.clone())), ["mine", OURS[0]]);
        assert_eq!(keys(node("Unknown", true, json!([]))), [OURS[1], OURS[2]]);
        let before = taints(&node("False", true, own));
        assert_eq!(keys(node("True", false, serde_json::to_value(before).unwrap())), ["mine"]);
        assert_eq!(taints(&Node::default()), [], "a node that has not reported yet");
    }
}
