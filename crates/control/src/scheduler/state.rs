//! Which pods wait, in which order they are decided, and what was assumed. No IO: what to write comes out as decisions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use policy::scheduling::{self, Cluster, PodInfo};

use super::NAME;

/// The wait after the first failed binding, and the longest (kube-scheduler's backoff).
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(10);

pub(super) enum Decision {
    Bind {
        pod: Arc<Pod>,
        node: String,
    },
    /// It fits nowhere, for a reason that was not told yet.
    Wait {
        pod: Arc<Pod>,
        why: String,
    },
}

#[derive(Default)]
pub(super) struct Queue {
    cluster: Cluster,
    pending: BTreeMap<String, Pending>,
    /// To be decided: the highest priority first, then who came first.
    ready: BTreeSet<(Reverse<i32>, u64, String)>,
    /// Decided, and counted on its node, before the API says so.
    assumed: BTreeSet<String>,
    arrivals: u64,
}

struct Pending {
    pod: Arc<Pod>,
    info: PodInfo,
    arrival: u64,
    /// A write about it is under way (or it rests): not decided until that is back.
    is_busy: bool,
    /// Something changed since it was last looked at.
    is_due: bool,
    told: Option<String>,
    failures: u32,
}

impl Queue {
    pub fn see_pod(&mut self, pod: Pod) {
        let info = PodInfo::from_api(&pod);
        let uid = info.uid.clone();
        let is_finished = policy::workload::is_finished(&pod);
        if is_finished {
            return self.remove_pod(&uid);
        }
        if info.node.is_some() {
            self.drop_pending(&uid);
            self.assumed.remove(&uid);
            let freed = self.cluster.node_of(&uid).is_some_and(|node| Some(node) != info.node.as_deref());
            self.cluster.put_pod(info);
            if freed {
                self.wake();
            }
            return;
        }
        if self.assumed.contains(&uid) {
            // An event from before the binding. Kept, in case the binding fails.
            if let Some(pending) = self.pending.get_mut(&uid) {
                pending.pod = Arc::new(pod);
                pending.info = info;
            }
            return;
        }
        if !is_ours(&pod) || info.terminating {
            return self.drop_pending(&uid);
        }
        match self.pending.get_mut(&uid) {
            Some(pending) => {
                // Its own condition coming back is nothing new.
                let changed = pending.info != info;
                pending.pod = Arc::new(pod);
                pending.info = info;
                if changed {
                    pending.is_due = true;
                }
            }
            None => {
                self.arrivals += 1;
                let pending = Pending {
                    pod: Arc::new(pod),
                    info,
                    arrival: self.arrivals,
                    is_busy: false,
                    is_due: true,
                    told: None,
                    failures: 0,
                };
                self.pending.insert(uid.clone(), pending);
            }
        }
        self.enqueue(&uid);
    }

    pub fn remove_pod(&mut self, uid: &str) {
        self.drop_pending(uid);
        self.assumed.remove(uid);
        if self.cluster.remove_pod(uid) {
            self.wake();
        }
    }

    pub fn see_node(&mut self, node: &Node) {
        if self.cluster.upsert_node(node) {
            self.wake();
        }
    }

    pub fn remove_node(&mut self, name: &str) {
        self.cluster.remove_node(name);
        // Nothing fits better now, but what the pods were told is no longer true.
        self.wake();
    }

    pub fn see_namespace(&mut self, namespace: &Namespace) {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        if self.cluster.namespace(&name) != Some(&labels) {
            self.cluster.upsert_namespace(&name, labels);
            self.wake();
        }
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.cluster.remove_namespace(name);
    }

    /// Uids of all pods known here.
    pub fn pods(&self) -> BTreeSet<String> {
        self.pending.keys().cloned().chain(self.cluster.placed()).collect()
    }

    pub fn nodes(&self) -> BTreeSet<String> {
        self.cluster.nodes().keys().cloned().collect()
    }

    /// The next write, if any pod is due.
    pub fn decide(&mut self) -> Option<Decision> {
        while let Some((_, _, uid)) = self.ready.pop_first() {
            let Some(pending) = self.pending.get_mut(&uid) else { continue };
            pending.is_due = false;
            match scheduling::schedule(&pending.info, &self.cluster) {
                Ok(node) => {
                    pending.is_busy = true;
                    pending.told = None;
                    let mut info = pending.info.clone();
                    info.node = Some(node.clone());
                    self.cluster.put_pod(info);
                    self.assumed.insert(uid);
                    return Some(Decision::Bind { pod: pending.pod.clone(), node });
                }
                Err(error) => {
                    let why = error.to_string();
                    if pending.told.as_ref() != Some(&why) {
                        pending.is_busy = true;
                        pending.told = Some(why.clone());
                        return Some(Decision::Wait { pod: pending.pod.clone(), why });
                    }
                }
            }
        }
        None
    }

    /// The binding was accepted; it stays assumed until the watch shows it.
    pub fn bound(&mut self, uid: &str) {
        self.drop_pending(uid);
    }

    /// It does not count on its node after all.
    pub fn unassume(&mut self, uid: &str) {
        if self.assumed.remove(uid) && self.cluster.remove_pod(uid) {
            self.wake();
        }
    }

    pub fn drop_pending(&mut self, uid: &str) {
        if let Some(pending) = self.pending.remove(uid) {
            self.ready.remove(&pending.rank(uid));
        }
    }

    /// Lets a pod rest after a failure; how long. None: it is gone.
    pub fn rest(&mut self, uid: &str) -> Option<(Arc<Pod>, Duration)> {
        let pending = self.pending.get_mut(uid)?;
        let wait = FIRST_REST.saturating_mul(1 << pending.failures.min(8)).min(LONGEST_REST);
        pending.failures += 1;
        pending.is_busy = true;
        pending.is_due = true;
        Some((pending.pod.clone(), wait))
    }

    /// The write about a pod is back, or it has rested.
    pub fn release(&mut self, uid: &str) {
        if let Some(pending) = self.pending.get_mut(uid) {
            pending.is_busy = false;
        }
        self.enqueue(uid);
    }

    fn enqueue(&mut self, uid: &str) {
        if let Some(pending) = self.pending.get(uid).filter(|pending| pending.is_due && !pending.is_busy) {
            self.ready.insert(pending.rank(uid));
        }
    }

    /// All that wait are looked at again.
    fn wake(&mut self) {
        for (uid, pending) in &mut self.pending {
            pending.is_due = true;
            if !pending.is_busy {
                self.ready.insert(pending.rank(uid));
            }
        }
    }
}

impl Pending {
    fn rank(&self, uid: &str) -> (Reverse<i32>, u64, String) {
        (Reverse(self.info.priority), self.arrival, uid.to_string())
    }
}

/// No other scheduler is asked for, and no gate holds it back.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.scheduler_name.as_deref().is_none_or(|name| name.is_empty() || name == NAME)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, spec: Value) -> Pod {
        let mut full =
            json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] });
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(
            json!({ "metadata": { "namespace": "default", "name": name, "uid": name }, "spec": full }),
        )
        .unwrap()
    }

    fn node(name: &str) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": name },
            "status": { "allocatable": { "cpu": "1", "memory": "1Gi", "pods": "10" } } }))
        .unwrap()
    }

    /// Takes all decisions, as "pod->node" or "pod!".
    fn decisions(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.decide())
            .map(|decision| match decision {
                Decision::Bind { pod, node } => format!("{}->{node}", pod.metadata.name.as_ref().unwrap()),
                Decision::Wait { pod, .. } => format!("{}!", pod.metadata.name.as_ref().unwrap()),
            })
            .collect()
    }

    #[test]
    fn a_decided_pod_holds_its_port_before_the_api_says_so() {
        let mut queue = Queue::default();
        queue.see_node(&node("n"));
        queue.see_pod(pod("a", json!({})));
        queue.see_pod(pod("b", json!({})));
        assert_eq!(decisions(&mut queue), ["a->n", "b!"]);
        queue.release("b");
        assert!(decisions(&mut queue).is_empty(), "nothing new for b");
        // An old event of a, then its binding, then its end: b's turn.
        queue.see_pod(pod("a", json!({})));
        queue.bound("a");
        queue.see_pod(pod("a", json!({ "nodeName": "n" })));
        assert!(decisions(&mut queue).is_empty());
        queue.remove_pod("a");
        assert_eq!(decisions(&mut queue), ["b->n"]);
    }

    #[test]
    fn a_pod_is_not_decided_while_a_write_about_it_is_under_way() {
        let mut queue = Queue::default();
        queue.see_pod(pod("a", json!({})));
        assert_eq!(decisions(&mut queue), ["a!"], "no nodes");
        queue.see_node(&node("n"));
        assert!(decisions(&mut queue).is_empty(), "its condition is being written");
        queue.release("a");
        assert_eq!(decisions(&mut queue), ["a->n"]);
    }

    #[test]
    fn a_failed_binding_gives_the_place_back_and_is_tried_again_after_a_rest() {
        let mut queue = Queue::default();
        queue.see_node(&node("n"));
        queue.see_pod(pod("a", json!({})));
        queue.see_pod(pod("b", json!({})));
        assert_eq!(decisions(&mut queue), ["a->n", "b!"]);
        queue.release("b");
        queue.unassume("a");
        assert_eq!(queue.rest("a").unwrap().1, FIRST_REST);
        assert_eq!(decisions(&mut queue), ["b->n"]);
        queue.release("a");
        assert_eq!(decisions(&mut queue), ["a!"]);
    }

    #[test]
    fn the_highest_priority_is_decided_first_and_others_pods_not_at_all() {
        let mut queue = Queue::default();
        queue.see_node(&node("n"));
        queue.see_pod(pod("low", json!({ "priority": 1 })));
        queue.see_pod(pod("high", json!({ "priority": 9 })));
        queue.see_pod(pod("other", json!({ "schedulerName": "mine" })));
        queue.see_pod(pod("gated", json!({ "schedulingGates": [{ "name": "g" }] })));
        assert_eq!(decisions(&mut queue), ["high->n", "low!"]);
    }
}
