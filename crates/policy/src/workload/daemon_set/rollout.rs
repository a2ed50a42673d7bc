//! How a new template comes to the nodes: so many pods may be missing at a time, or so many may be there twice
//! (`pkg/controller/daemon/update.go`).

use k8s_openapi::api::apps::v1::DaemonSetSpec;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Look, is_of};
use crate::workload::is_going;

/// In pods.
pub struct Limits {
    pub surge: usize,
    pub unavailable: usize,
}

impl Limits {
    /// Percentages are of the nodes that shall have a pod, rounded up.
    pub fn of(spec: &DaemonSetSpec, desired: usize) -> Limits {
        let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let resolve = |value: Option<&IntOrString>, unsaid: usize| match value {
            None => unsaid,
            Some(IntOrString::Int(pods)) => usize::try_from(*pods).unwrap_or(0),
            Some(IntOrString::String(text)) => {
                let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
                percent.saturating_mul(desired).div_ceil(100)
            }
        };
        let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()), 0);
        let unavailable = resolve(rolling.and_then(|r| r.max_unavailable.as_ref()), 1);
        // Or nothing could ever change.
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        Limits { surge, unavailable }
    }
}

/// A node's pods of the present template and of an older one.
struct Pair<'a> {
    node: String,
    new: Option<&'a Pod>,
    old: Option<&'a Pod>,
    /// More than one of either: that is settled first.
    crowded: bool,
}

impl<'a> Look<'a> {
    fn pairs(&self) -> Vec<Pair<'a>> {
        let places = self.places.iter().filter(|place| place.belongs == super::Belongs::Yes);
        places
            .map(|place| {
                let mut pair = Pair { node: place.name.clone(), new: None, old: None, crowded: false };
                for pod in &place.pods {
                    let at = if is_of(pod, self.hash) { &mut pair.new } else { &mut pair.old };
                    pair.crowded |= at.is_some();
                    *at = Some(pod);
                }
                pair
            })
            .collect()
    }

    pub(super) fn roll(&mut self) {
        let kind = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        if kind == Some("OnDelete") {
            return;
        }
        let limits = Limits::of(self.spec, self.desired());
        if limits.surge == 0 { self.replace(limits.unavailable) } else { self.surge(limits.surge) }
    }

    /// Old pods go, as many as may be missing at a time; the new ones come when they have gone.
    fn replace(&mut self, most: usize) {
        let (mut unavailable, mut free, mut candidates) = (0, Vec::new(), Vec::new());
        for pair in self.pairs() {
            match (pair.new, pair.old) {
                _ if pair.crowded => unavailable += 1,
                (None, None) | (Some(_), Some(_)) => unavailable += 1,
                (Some(new), None) => unavailable += usize::from(!self.is_available(new)),
                (None, Some(old)) if is_going(old) => unavailable += 1,
                // It serves nobody as it is.
                (None, Some(old)) if !self.is_available(old) => {
                    unavailable += 1;
                    free.push(old);
                }
                (None, Some(old)) => candidates.push(old),
            }
        }
        let more = most.saturating_sub(unavailable);
        free.extend(candidates.into_iter().take(more));
        free.into_iter().for_each(|pod| self.delete(pod));
    }

    /// New pods come beside the old ones, which go when the new ones are available.
    fn surge(&mut self, most: usize) {
        let (mut surging, mut free, mut candidates) = (0, Vec::new(), Vec::new());
        for pair in self.pairs() {
            match (pair.new, pair.old) {
                _ if pair.crowded => surging += 1,
                (_, None) => {}
                (None, Some(old)) if is_going(old) || !self.is_available(old) => free.push(pair.node),
                (None, Some(_)) => candidates.push(pair.node),
                (Some(new), Some(old)) => {
                    surging += 1;
                    if !self.is_available(old) || self.is_available(new) {
                        self.delete(old);
                    }
                }
            }
        }
        free.extend(candidates.into_iter().take(most.saturating_sub(surging)));
        free.iter().for_each(|node| self.make(node));
    }
}
