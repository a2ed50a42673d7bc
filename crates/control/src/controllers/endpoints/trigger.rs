//! When what leads to a change of endpoints happened, for `endpoints.kubernetes.io/last-change-trigger-time`: the earliest
//! of the pods' changes of readiness that no earlier write has told (`TriggerTimeTracker` upstream).

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;
use policy::workload::ready_condition;

use super::super::cache::Key;

#[derive(Default)]
pub struct Triggers {
    known: HashMap<Key, State>,
}

#[derive(Default)]
struct State {
    service: Option<Timestamp>,
    /// By name: when its readiness changed last.
    pods: HashMap<String, Timestamp>,
}

impl Triggers {
    /// What has changed since the last call for this Service. None: nothing that has a time.
    pub fn changed(&mut self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Option<String> {
        let state = self.known.entry(key.clone()).or_default();
        let mut earliest: Option<Timestamp> = None;
        let mut tell = |time: Timestamp| earliest = Some(earliest.map_or(time, |other| other.min(time)));
        let mut seen = HashMap::new();
        for pod in pods {
            let changed = ready_condition(pod).and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
            let name = pod.metadata.name.clone().unwrap_or_default();
            let Some(time) = changed.or_else(|| pod.metadata.creation_timestamp.as_ref().map(|t| t.0)) else {
                continue;
            };
            if state.pods.get(&name).is_none_or(|known| time > *known) {
                tell(time);
            }
            seen.insert(name, time);
        }
        state.pods = seen;
        let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
        if let Some(created) = created.filter(|created| state.service.is_none_or(|known| *created > known)) {
            tell(created);
        }
        state.service = created;
        earliest.map(|time| time.to_string())
    }

    /// There is such a Service.
    pub fn know(&mut self, key: &Key) {
        self.known.entry(key.clone()).or_default();
    }

    /// False: there never was one.
    pub fn forget(&mut self, key: &Key) -> bool {
        self.known.remove(key).is_some()
    }
}
