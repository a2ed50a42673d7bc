//! How long a failed pod is left on its node before another takes its place: longer each time, so that one that fails at once
//! does not do so without end (`failedPodsBackoff`, a `flowcontrol.Backoff`).

use std::collections::HashMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

const FIRST: SignedDuration = SignedDuration::from_secs(1);
const LONGEST: SignedDuration = SignedDuration::from_mins(15);
/// After so long without a failure, the next one is the first again.
const FORGOTTEN: SignedDuration = SignedDuration::from_mins(30);

/// Failures of all DaemonSets' pods, by node.
#[derive(Debug, Default)]
pub struct Backoff {
    places: HashMap<Place, Wait>,
}

/// A DaemonSet's uid, the generation that was observed (another template may do better), a node.
type Place = (String, i64, String);

#[derive(Debug)]
struct Wait {
    since: Timestamp,
    length: SignedDuration,
}

fn place(set: &DaemonSet, node: &str) -> Place {
    let generation = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
    (set.metadata.uid.clone().unwrap_or_default(), generation, node.to_owned())
}

impl Backoff {
    /// How long the failed pod on that node still stays; zero: it may go now.
    pub fn left(&self, set: &DaemonSet, node: &str, now: Timestamp) -> SignedDuration {
        let wait = self.places.get(&place(set, node));
        let left = wait.map(|wait| wait.length - now.duration_since(wait.since));
        left.unwrap_or_default().max(SignedDuration::ZERO)
    }

    /// A failed pod on that node goes.
    pub fn replaced(&mut self, set: &DaemonSet, node: &str, now: Timestamp) {
        self.places.retain(|_, wait| now.duration_since(wait.since) <= FORGOTTEN);
        let next = |wait: &mut Wait| *wait = Wait { since: now, length: (wait.length * 2).min(LONGEST) };
        self.places.entry(place(set, node)).and_modify(next).or_insert(Wait { since: now, length: FIRST });
    }
}
