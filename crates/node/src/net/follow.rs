//! Keeps a node's Services as the API has them: what an event says is parsed once, and only the Services that it concerns
//! are looked at again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};

use policy::services::{self, HealthCheck, Service, ServiceChange, ServiceName, Slice};

use super::health::{HealthCheckError, HealthChecks};
use super::{NetError, NodeNet};

/// The most events that are taken together.
const BATCH: usize = 512;

enum Event {
    Service(Box<watcher::Event<v1::Service>>),
    Slice(Box<watcher::Event<EndpointSlice>>),
    /// The zone this node is in.
    Zone(Option<String>),
}

/// What of Services could not be done on this node.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Table(NetError),
    #[error(transparent)]
    HealthCheck(HealthCheckError),
}

/// Follows Services and EndpointSlices, writes what they ask into the node's table, and answers their health checks, from
/// their first lists on; ends only with its watches. What could not be done is told to `failed`, and tried again with the
/// Service's next event; the port of a health check also after a while.
pub async fn follow(client: kube::Client, net: Arc<NodeNet>, node: String, failed: impl Fn(Failure)) {
    // The watchers tell of their errors by trying again; what they have listed stays as it was.
    let all_services = watcher(Api::<v1::Service>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .filter_map(async |event| event.ok().map(|event| Event::Service(Box::new(event))));
    let all_slices = watcher(Api::<EndpointSlice>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .filter_map(async |event| event.ok().map(|event| Event::Slice(Box::new(event))));
    let this = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let zones = watcher(Api::<v1::Node>::all(client), this).default_backoff().applied_objects().filter_map(
        async |node| Some(Event::Zone(node.ok()?.metadata.labels.unwrap_or_default().remove(services::ZONE))),
    );
    let lists = stream::select(all_services.boxed(), all_slices.boxed());
    let mut events = stream::select(lists, zones.boxed()).ready_chunks(BATCH);
    let mut seen = Seen { node, ..Seen::default() };
    let mut written = false;
    let mut checks = HealthChecks::default();
    loop {
        let batch = tokio::select! {
            batch = events.next() => batch,
            () = checks.due() => {
                checks.retry().await.into_iter().for_each(|error| failed(Failure::HealthCheck(error)));
                continue;
            }
        };
        let Some(batch) = batch else { return };
        batch.into_iter().for_each(|event| seen.take(event));
        // A Service without its endpoints would refuse connections: nothing is written before both are listed.
        if !(seen.services_listed && seen.slices_listed) {
            continue;
        }
        let (changes, health): (Vec<_>, Vec<_>) = seen.changes().into_iter().unzip();
        let names: Vec<ServiceName> = changes.iter().map(|change| change.name.clone()).collect();
        let done = if written { net.change_services(changes) } else { net.set_services(changes) };
        written = true;
        let healthy = done.is_ok();
        if let Err(error) = done {
            failed(Failure::Table(error));
        }
        let refused = checks.change(names.into_iter().zip(health), healthy).await;
        refused.into_iter().for_each(|error| failed(Failure::HealthCheck(error)));
    }
}

fn key_of(object: &impl kube::Resource) -> ServiceName {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// What the watches told, and which Services are to be looked at.
#[derive(Default)]
struct Seen {
    node: String,
    zone: Option<String>,
    services: HashMap<ServiceName, Service>,
    /// By their own names, with the Service they belong to.
    slices: HashMap<ServiceName, (ServiceName, Slice)>,
    slices_of: HashMap<ServiceName, BTreeSet<ServiceName>>,
    dirty: HashSet<ServiceName>,
    services_listed: bool,
    slices_listed: bool,
    /// Of a list that is under way: what was there and is not in it yet.
    missing: HashSet<ServiceName>,
    missing_slices: HashSet<ServiceName>,
}

impl Seen {
    fn take(&mut self, event: Event) {
        match event {
            Event::Service(event) => self.take_service(*event),
            Event::Slice(event) => self.take_slice(*event),
            Event::Zone(zone) if zone != self.zone => {
                self.zone = zone;
                self.dirty.extend(self.services.keys().cloned());
            }
            Event::Zone(_) => {}
        }
    }

    fn take_service(&mut self, event: watcher::Event<v1::Service>) {
        match event {
            watcher::Event::Init => self.missing = self.services.keys().cloned().collect(),
            watcher::Event::Apply(service) | watcher::Event::InitApply(service) => {
                let (Some(name), parsed) = Service::from_api(&service) else { return };
                self.missing.remove(&name);
                let changed = match parsed {
                    Some(parsed) if self.services.get(&name) == Some(&parsed) => false,
                    Some(parsed) => {
                        self.services.insert(name.clone(), parsed);
                        true
                    }
                    None => self.services.remove(&name).is_some(),
                };
                if changed {
                    self.dirty.insert(name);
                }
            }
            watcher::Event::Delete(service) => self.lost_service(&key_of(&service)),
            watcher::Event::InitDone => {
                for name in std::mem::take(&mut self.missing) {
                    self.lost_service(&name);
                }
                self.services_listed = true;
            }
        }
    }

    fn take_slice(&mut self, event: watcher::Event<EndpointSlice>) {
        match event {
            watcher::Event::Init => self.missing_slices = self.slices.keys().cloned().collect(),
            watcher::Event::Apply(slice) | watcher::Event::InitApply(slice) => {
                let key = key_of(&slice);
                self.missing_slices.remove(&key);
                let parsed = Slice::from_api(&slice, &self.node);
                if self.slices.get(&key) == parsed.as_ref() {
                    return;
                }
                self.lost_slice(&key);
                if let Some((service, slice)) = parsed {
                    self.slices_of.entry(service.clone()).or_default().insert(key.clone());
                    self.dirty.insert(service.clone());
                    self.slices.insert(key, (service, slice));
                }
            }
            watcher::Event::Delete(slice) => self.lost_slice(&key_of(&slice)),
            watcher::Event::InitDone => {
                for key in std::mem::take(&mut self.missing_slices) {
                    self.lost_slice(&key);
                }
                self.slices_listed = true;
            }
        }
    }

    fn lost_service(&mut self, name: &ServiceName) {
        if self.services.remove(name).is_some() {
            self.dirty.insert(name.clone());
        }
    }

    fn lost_slice(&mut self, key: &ServiceName) {
        let Some((service, _)) = self.slices.remove(key) else { return };
        if let Some(keys) = self.slices_of.get_mut(&service) {
            keys.remove(key);
            if keys.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        self.dirty.insert(service);
    }

    /// The Services that something happened to since the last call.
    fn changes(&mut self) -> Vec<(ServiceChange, Option<HealthCheck>)> {
        let dirty: Vec<ServiceName> = self.dirty.drain().collect();
        let change = |name: ServiceName| {
            let keys = self.slices_of.get(&name);
            let slices = || keys.into_iter().flatten().filter_map(|key| Some(&self.slices.get(key)?.1));
            let slices: Vec<&Slice> = slices().collect();
            let service = self.services.get(&name);
            let zone = self.zone.as_deref();
            let ports = service.map(|service| services::ports(service, slices.iter().copied(), zone));
            let health = service.and_then(|service| services::health_check(service, slices.into_iter()));
            (ServiceChange { name, ports: ports.unwrap_or_default() }, health)
        };
        dirty.into_iter().map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    fn service(name: &str) -> v1::Service {
        let object = json!({"metadata": {"name": name, "namespace": "foo"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}});
        serde_json::from_value(object).unwrap()
    }

    fn slice(name: &str, service: &str, address: &str) -> EndpointSlice {
        let labels = json!({"kubernetes.io/service-name": service});
        let object = json!({"metadata": {"name": name, "namespace": "foo", "labels": labels}, "addressType": "IPv4",
            "ports": [{"port": 80}], "endpoints": [{"addresses": [address]}]});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn only_what_an_event_concerns_is_looked_at_again() {
        let mut seen = Seen { node: "node-1".into(), ..Seen::default() };
        let service_event = |event| Event::Service(Box::new(event));
        let slice_event = |event| Event::Slice(Box::new(event));
        let mut after = |events: Vec<Event>| -> Vec<(String, Vec<usize>)> {
            events.into_iter().for_each(|event| seen.take(event));
            let mut changes: Vec<_> = seen
                .changes()
                .into_iter()
                .map(|(change, _)| {
                    let answering = change.ports.iter().map(|port| port.all.iter().count());
                    (change.name.1, answering.collect())
                })
                .collect();
            changes.sort();
            changes
        };
        let one = |name: &str, answering: &[usize]| vec![(name.to_string(), answering.to_vec())];
        let listed = after(vec![
            service_event(Init),
            service_event(InitApply(service("a"))),
            service_event(InitApply(service("b"))),
            service_event(InitDone),
            slice_event(Init),
            slice_event(InitApply(slice("a-1", "a", "10.244.1.2"))),
            slice_event(InitDone),
        ]);
        assert_eq!(listed, [("a".to_string(), vec![1]), ("b".to_string(), vec![0])]);
        assert_eq!(after(vec![service_event(Apply(service("a")))]), [], "nothing new");
        assert_eq!(after(vec![slice_event(Apply(slice("a-2", "a", "10.244.1.3")))]), one("a", &[2]));
        let moved = after(vec![slice_event(Apply(slice("a-2", "b", "10.244.1.3")))]);
        assert_eq!(moved, [("a".to_string(), vec![1]), ("b".to_string(), vec![1])]);
        assert_eq!(after(vec![slice_event(Delete(slice("a-1", "a", "10.244.1.2")))]), one("a", &[0]));
        // A watch that begins again misses what went in between.
        let again =
            vec![service_event(Init), service_event(InitApply(service("a"))), service_event(InitDone)];
        assert_eq!(after(again), one("b", &[]));
    }
}
