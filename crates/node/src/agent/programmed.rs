//! What the node's packet filter holds of the cluster's network policies, published as the node's condition
//! `NetworkPolicyProgrammed`: up to which version of them, or why not. So a policy that is not in force is seen, and
//! `cofferdam status` can say which node is behind.
//!
//! One write a second at most, and none where only pods come and go.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

/// The type of the node's condition.
pub const CONDITION: &str = "NetworkPolicyProgrammed";

/// At most one write of the condition in so much time.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between attempts while the API server is not there, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// The newest resource version among the policies that are in the kernel, and the deletions that are.
    version: u64,
    policies: usize,
    /// Of the kernel's rule set.
    generation: u32,
    /// The kernel's refusal, until it takes what it is given.
    refusal: Option<String>,
    /// Policies that cannot be understood: namespace/name and why. They isolate and allow nothing.
    invalid: BTreeMap<String, String>,
}

/// Shared by whoever programs the kernel.
#[derive(Clone)]
pub struct Programmed {
    state: Arc<watch::Sender<State>>,
    refused: Arc<Notify>,
}

impl Default for Programmed {
    fn default() -> Programmed {
        Programmed { state: Arc::new(watch::Sender::new(State::default())), refused: Arc::default() }
    }
}

impl Programmed {
    /// The kernel holds all that was known: `version` is the newest of the policies, `policies` their number. True if it
    /// did not before.
    pub fn done(&self, version: u64, policies: usize, generation: u32) -> bool {
        let mut mended = false;
        self.change(|state| {
            mended = state.refusal.take().is_some();
            state.version = state.version.max(version);
            state.policies = policies;
            state.generation = generation;
        });
        mended
    }

    /// Someone else had changed the rule set, and it is whole again.
    pub fn repaired(&self, generation: u32) {
        self.change(|state| {
            state.refusal = None;
            state.generation = generation;
        });
    }

    /// The kernel refused.
    pub fn refused(&self, error: &str) {
        self.change(|state| state.refusal = Some(error.to_owned()));
        self.refused.notify_one();
    }

    /// Returns when the kernel has refused since this was last asked.
    pub async fn wait_refused(&self) {
        self.refused.notified().await;
    }

    /// A policy that cannot be understood, or can again (`None`), or is gone.
    pub fn invalid(&self, policy: &str, error: Option<String>) {
        self.change(|state| {
            match error {
                Some(error) => state.invalid.insert(policy.to_owned(), error),
                None => state.invalid.remove(policy),
            };
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            // The generation alone changes with every pod.
            *state != State { generation: state.generation, ..before }
        });
    }

    /// Publishes every change on the node's object until the last [`Programmed`] is gone; must be called within the runtime.
    pub fn publish(&self, client: &kube::Client, node: &str) {
        let (api, node) = (Api::<Node>::all(client.clone()), node.to_owned());
        let mut states = self.state.subscribe();
        states.mark_changed();
        tokio::spawn(async move {
            let mut since = (None, Timestamp::now());
            let mut pause = FIRST_PAUSE;
            while states.changed().await.is_ok() {
                loop {
                    let state = states.borrow_and_update().clone();
                    let now = Timestamp::now();
                    let (status, reason, message) = condition(&state);
                    if since.0 != Some(status) {
                        since = (Some(status), now);
                    }
                    let body = body(status, reason, &message, since.1, now);
                    match api.patch_status(&node, &PatchParams::default(), &Patch::Strategic(body)).await {
                        Ok(_) => break,
                        Err(error) => {
                            if let kube::Error::Api(error) = error {
                                eprintln!("condition {CONDITION} of {node}: {error}");
                            }
                            tokio::time::sleep(pause).await;
                            pause = (pause * 2).min(LONGEST_PAUSE);
                        }
                    }
                }
                pause = FIRST_PAUSE;
                tokio::time::sleep(INTERVAL).await;
            }
        });
    }
}

/// Status, reason and message.
fn condition(state: &State) -> (&'static str, &'static str, String) {
    if let Some(error) = &state.refusal {
        return (
            "False",
            "PacketFilterRefused",
            format!("the packet filter could not be programmed: {error}"),
        );
    }
    if let Some((policy, error)) = state.invalid.iter().next() {
        let more = match state.invalid.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let message =
            format!("network policy {policy} isolates its pods and allows nothing, because of {error}{more}");
        return ("False", "NetworkPolicyInvalid", message);
    }
    let State { version, policies, generation, .. } = state;
    let message =
        format!("{policies} network policies up to version {version} are in force (generation {generation})");
    ("True", "NetworkPolicyProgrammed", message)
}

/// The version in the message of a condition that holds.
pub fn version(message: &str) -> Option<u64> {
    message.split_once(" up to version ")?.1.split(' ').next()?.parse().ok()
}

fn body(status: &str, reason: &str, message: &str, since: Timestamp, now: Timestamp) -> Value {
    json!({ "status": { "conditions": [{
        "type": CONDITION, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": Time(since), "lastHeartbeatTime": Time(now),
    }] } })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What would be written, if anything.
    fn written(states: &mut watch::Receiver<State>) -> Option<(String, String)> {
        states.has_changed().unwrap().then(|| {
            let (status, reason, _) = condition(&states.borrow_and_update());
            (status.to_owned(), reason.to_owned())
        })
    }

    #[test]
    fn the_condition_says_what_is_in_force_and_why_not() {
        let programmed = Programmed::default();
        let mut states = programmed.state.subscribe();
        let good = Some(("True".to_owned(), "NetworkPolicyProgrammed".to_owned()));
        assert!(!programmed.done(7, 2, 1));
        assert_eq!(written(&mut states), good);
        programmed.done(7, 2, 2);
        assert_eq!(written(&mut states), None, "pods alone come and go without a write");
        programmed.refused("no memory");
        assert_eq!(written(&mut states), Some(("False".into(), "PacketFilterRefused".into())));
        assert!(programmed.done(8, 3, 3), "mended");
        assert_eq!(written(&mut states), good);
        programmed.invalid("a/p", Some("spec.podSelector: nonsense".into()));
        assert_eq!(written(&mut states), Some(("False".into(), "NetworkPolicyInvalid".into())));
        programmed.refused("no memory");
        programmed.repaired(9);
        assert_eq!(written(&mut states), Some(("False".into(), "NetworkPolicyInvalid".into())));
        programmed.invalid("a/p", None);
        assert_eq!(written(&mut states), good);
    }

    #[test]
    fn the_version_is_read_out_of_the_message() {
        let state = State { version: 345, policies: 2, generation: 6, ..State::default() };
        assert_eq!(version(&condition(&state).2), Some(345));
        let state = State { refusal: Some("x".into()), ..state };
        assert_eq!(version(&condition(&state).2), None);
    }

    #[test]
    fn all_policies_that_are_not_understood_are_counted() {
        let invalid = [("a/p", "x"), ("b/q", "y")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let (_, _, message) = condition(&State { invalid, ..State::default() });
        assert_eq!(
            message,
            "network policy a/p isolates its pods and allows nothing, because of x (and 1 more)"
        );
    }
}
