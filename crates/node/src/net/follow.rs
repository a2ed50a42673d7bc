//! Keeps a node's Services as the API has them.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, future, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::{WatchStreamExt, reflector, watcher};

use super::{NetError, NodeNet, services};

/// The most events that are taken together.
const BATCH: usize = 512;

/// Follows Services and EndpointSlices and writes what they ask into the node's table, from their first lists on; ends
/// only with its watches. What the kernel refuses is told to `failed`, and tried again with the next event.
pub async fn follow(client: kube::Client, net: Arc<NodeNet>, node: String, failed: impl Fn(NetError)) {
    let (all_services, writer) = reflector::store::<Service>();
    let service_events = watcher(Api::<Service>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .map(|_| ());
    let (slices, writer) = reflector::store::<EndpointSlice>();
    let slice_events = watcher(Api::<EndpointSlice>::all(client), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .map(|_| ());
    // The watchers tell of their errors by trying again; what they have listed stays as it was.
    let mut events = stream::select(service_events.boxed(), slice_events.boxed()).ready_chunks(BATCH);
    // A Service without its endpoints would refuse connections: nothing is written before both are listed.
    let mut listed = future::join(all_services.wait_until_ready(), slices.wait_until_ready()).boxed().fuse();
    let mut ready = false;
    while events.next().await.is_some() {
        ready = ready || (&mut listed).now_or_never().is_some();
        if !ready {
            continue;
        }
        let (services, slices) = (all_services.state(), slices.state());
        let ports =
            services::from_api(services.iter().map(AsRef::as_ref), slices.iter().map(AsRef::as_ref), &node);
        if let Err(error) = net.set_services(ports) {
            failed(error);
        }
    }
}
