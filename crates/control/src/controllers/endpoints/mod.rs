//! Keeps EndpointSlices and Endpoints: which pods answer for a Service, on which ports, and whether they are ready.
//!
//! [`desired`] says what a Service asks for, [`slices`] how slices get there with the fewest writes, [`legacy`] what the
//! Endpoints object is. Of Services without a selector somebody else keeps the endpoints; what is written as Endpoints there
//! is mirrored into slices ([`mirror`]).

mod desired;
mod legacy;
mod mirror;
mod slices;
mod trigger;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams};
use policy::services::ZONE;

use super::cache::{Change, Key};
use super::{Error, World, gone_is_fine};
pub(super) use desired::{is_affected, selects};
use slices::{Plan, Shape};
pub(super) use trigger::Triggers;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// `--max-endpoints-per-slice`
const MOST: usize = 100;

pub(super) async fn sync(world: &World, key: Key) -> Result<Option<Duration>, Error> {
    let service = world.services.get(&key).filter(|service| service.metadata.deletion_timestamp.is_none());
    let Some(service) = service else {
        // The slices are the garbage collector's, through their owner; but a name may be taken again before it comes by.
        delete_all(world, &key, CONTROLLER).await?;
        delete_all(world, &key, mirror::CONTROLLER).await?;
        // Endpoints go with their Service; those that were written before it wait for it.
        if world.triggers().forget(&key) {
            delete_endpoints(world, &key).await?;
        }
        return Ok(None);
    };
    world.triggers().know(&key);
    if !desired::is_kept(&service) {
        delete_all(world, &key, CONTROLLER).await?;
        return mirror::sync(world, &key, &service).await.map(|()| None);
    }
    delete_all(world, &key, mirror::CONTROLLER).await?;
    let pods = world.pods.in_namespace(&key.0);
    let pods: Vec<_> = pods.into_iter().filter(|pod| selects(&service, pod)).collect();
    let zone = |node: &str| zone_of(&*world.nodes.get(&(String::new(), node.to_string()))?).cloned();
    let changed = world.triggers().changed(&key, &service, &pods);
    let shape = Shape {
        labels: desired::labels(&service, &key.1),
        annotations: Default::default(),
        owner: super::adoption::owner_reference(&*service),
        namespace: key.0.clone(),
        name: key.1.clone(),
        most: MOST,
        changed,
    };
    let wanted = desired::groups(&service, &pods, zone);
    let have = of_service(world, &key, CONTROLLER);
    carry_out(world, &key, CONTROLLER, slices::plan(&have, wanted, &shape)).await?;
    legacy::sync(world, &key, &service, &pods, shape.changed).await?;
    Ok(None)
}

fn zone_of(node: &Node) -> Option<&String> {
    node.metadata.labels.as_ref()?.get(ZONE)
}

/// The node whose endpoints are in another zone now: it stands in their slices, and so do hints by it.
pub(super) fn moved(change: &Change<Node>) -> Option<String> {
    let zone = |node: &Option<Arc<Node>>| node.as_deref().and_then(zone_of).cloned();
    let node = change.new.as_ref().or(change.old.as_ref())?;
    (zone(&change.old) != zone(&change.new)).then(|| node.metadata.name.clone()).flatten()
}

/// The Service a slice of one of our two controllers belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref()?;
    let manager = labels.get(MANAGED_BY)?;
    (manager == CONTROLLER || manager == mirror::CONTROLLER).then_some(())?;
    labels.get(SERVICE_NAME).map(String::as_str)
}

fn of_service(world: &World, key: &Key, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let managed = |slice: &Arc<EndpointSlice>| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == manager)
            && service_of(slice) == Some(&key.1)
    };
    world.endpoint_slices.in_namespace(&key.0).into_iter().filter(managed).collect()
}

/// In the name of the controller that `manager` is.
async fn carry_out(world: &World, key: &Key, manager: &str, plan: Plan) -> Result<(), Error> {
    let clients = &world.clients;
    let client =
        if manager == CONTROLLER { &clients.endpoint_slices } else { &clients.endpoint_slice_mirroring };
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &key.0);
    for slice in plan.create {
        world.saw(api.create(&PostParams::default(), &slice).await?);
    }
    for slice in plan.update {
        let name = slice.metadata.name.clone().unwrap_or_default();
        world.saw(api.replace(&name, &PostParams::default(), &slice).await?);
    }
    for name in plan.delete {
        gone_is_fine(api.delete(&name, &DeleteParams::default()).await)?;
    }
    Ok(())
}

async fn delete_all(world: &World, key: &Key, manager: &str) -> Result<(), Error> {
    let delete = of_service(world, key, manager);
    let delete = delete.iter().filter_map(|slice| slice.metadata.name.clone()).collect();
    carry_out(world, key, manager, Plan { delete, ..Plan::default() }).await
}

/// Endpoints belong to a Service by their name alone.
async fn delete_endpoints(world: &World, key: &Key) -> Result<(), Error> {
    if world.endpoints.get(key).is_some() {
        let api: Api<Endpoints> = Api::namespaced(world.clients.endpoints.clone(), &key.0);
        gone_is_fine(api.delete(&key.1, &DeleteParams::default()).await)?;
    }
    Ok(())
}

/// "None": its name leads to the endpoints themselves.
fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}
