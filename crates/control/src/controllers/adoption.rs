//! Which objects a controller owns: those that name it, and orphans its selector matches; what no longer matches is let
//! go (`pkg/controller/controller_ref_manager.go`).

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use policy::selector::Selector;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cache::controller_of;
use super::watches::Tracked;
use super::{Error, World};

/// An empty selector selects nothing here: the API refuses it, and adopting everything would be worse than nothing.
pub(super) fn selects(selector: Option<&LabelSelector>, meta: &ObjectMeta) -> bool {
    let Some(Ok(selector)) = selector.map(Selector::parse) else { return false };
    !selector.is_everything() && selector.matches(&meta.labels.clone().unwrap_or_default())
}

/// The reference a controller puts into what it makes.
pub(super) fn owner_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What `owner` controls, by name, after adopting and releasing with its controller's `client`.
pub(super) async fn claim<K, O>(
    world: &World,
    client: &Client,
    owner: &O,
    selector: &LabelSelector,
) -> Result<Vec<Arc<K>>, Error>
where
    K: Tracked + Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Debug,
    O: Resource<DynamicType = ()>,
{
    claim_where(world, client, owner, selector, |_| true).await
}

/// The same for an owner who looks at more than labels: what is no member is not its own.
pub(super) async fn claim_where<K, O>(
    world: &World,
    client: &Client,
    owner: &O,
    selector: &LabelSelector,
    is_member: impl Fn(&K) -> bool,
) -> Result<Vec<Arc<K>>, Error>
where
    K: Tracked + Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Debug,
    O: Resource<DynamicType = ()>,
{
    let meta = owner.meta();
    let uid = meta.uid.as_deref().unwrap_or_default();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let parsed = Selector::parse(selector)
        .map_err(|error| Error::Selector(meta.name.clone().unwrap_or_default(), error))?;
    let matches = |object: &Arc<K>| {
        let none = Default::default();
        let labels = object.meta().labels.as_ref().unwrap_or(&none);
        !parsed.is_everything() && parsed.matches(labels) && is_member(object)
    };
    let is_going = meta.deletion_timestamp.is_some();
    for object in K::cache(world).owned_by(uid) {
        if !is_going && !matches(&object) && object.meta().deletion_timestamp.is_none() {
            let release = json!([{ "$patch": "delete", "uid": uid }]);
            patch_owners::<K>(world, client, namespace, object.meta(), release).await?;
        }
    }
    if !is_going {
        for object in K::cache(world).in_namespace(namespace) {
            let free = controller_of(object.meta()).is_none() && object.meta().deletion_timestamp.is_none();
            if free && matches(&object) {
                let adopt = json!([owner_reference(owner)]);
                patch_owners::<K>(world, client, namespace, object.meta(), adopt).await?;
            }
        }
    }
    Ok(K::cache(world).owned_by(uid))
}

/// The uid is a precondition: a namesake is not meant.
async fn patch_owners<K>(
    world: &World,
    client: &Client,
    namespace: &str,
    meta: &ObjectMeta,
    owners: Value,
) -> Result<(), Error>
where
    K: Tracked + Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let patch = json!({ "metadata": { "uid": meta.uid, "ownerReferences": owners } });
    let name = meta.name.as_deref().unwrap_or_default();
    let answer = api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
    if let Some(object) = super::gone_is_fine(answer)? {
        world.saw(object);
    }
    Ok(())
}
