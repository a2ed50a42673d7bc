//! Keeps the revisions of what has them (DaemonSets, StatefulSets): one of the present template, and no more of old ones than
//! are asked for. Whoever has revisions has a status; how that is written is here too.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Resource};
use policy::workload::history::{self, Present, Revised, name_of};
use serde::Serialize;

use super::watches::Tracked;
use super::{Error, World, gone_is_fine};

/// The revision of the present template, which is there then. None: its name was taken, and another is tried at once.
pub(super) async fn settle<K>(
    world: &World,
    client: &Client,
    set: &K,
    revisions: &[Arc<ControllerRevision>],
    owner: &OwnerReference,
) -> Result<Option<ControllerRevision>, Error>
where
    K: Revised + Tracked + Resource<Scope = NamespaceResourceScope> + Serialize + Debug,
{
    let namespace = Revised::meta(set).namespace.as_deref().unwrap_or_default();
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace);
    let present = history::present(set, revisions, owner);
    let revision = present.revision().clone();
    match present {
        Present::Is(_) => {}
        // What goes makes nothing any more.
        _ if Revised::meta(set).deletion_timestamp.is_some() => {}
        Present::Renumber(_) => {
            world.saw(api.replace(name_of(&revision), &PostParams::default(), &revision).await?);
        }
        Present::Create(_) => match api.create(&PostParams::default(), &revision).await {
            Ok(revision) => world.saw(revision),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let there = gone_is_fine(api.get(name_of(&revision)).await)?;
                let is_ours = there.as_ref().is_some_and(|there| history::is_same(there, &revision));
                match there {
                    // The watch has not brought it yet.
                    Some(there) if is_ours => world.saw(there),
                    _ => {
                        // Another name is tried next time.
                        write_status(world, client, &set.collided()).await?;
                        return Ok(None);
                    }
                }
            }
            Err(error) => return Err(error.into()),
        },
    }
    Ok(Some(revision))
}

/// Deletes revisions that are more than are kept.
pub(super) async fn forget<K: Revised>(
    world: &World,
    client: &Client,
    set: &K,
    is_alive: impl Fn(&ControllerRevision) -> bool,
) -> Result<(), Error> {
    let meta = set.meta();
    let revisions = world.controller_revisions.owned_by(meta.uid.as_deref().unwrap_or_default());
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace);
    for name in history::outlived(set, &revisions, is_alive) {
        gone_is_fine(api.delete(&name, &DeleteParams::default()).await)?;
    }
    Ok(())
}

/// False: somebody wrote the object meanwhile, or it is gone; the watch brings that, and with it the next look.
pub(super) async fn write_status<K>(world: &World, client: &Client, next: &K) -> Result<bool, Error>
where
    K: Tracked + Resource<Scope = NamespaceResourceScope> + Serialize + Debug,
{
    let meta = Resource::meta(next);
    let api: Api<K> = Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let name = meta.name.as_deref().unwrap_or_default();
    match api.replace_status(name, &PostParams::default(), next).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        answer => Ok(gone_is_fine(answer)?.map(|object| world.saw(object)).is_some()),
    }
}
