//! Garbage collection by owner references: what has no owner left is deleted; an owner that is deleted in the
//! foreground waits for what it owns; one deleted with `orphan` leaves it behind
//! (`pkg/controller/garbagecollector`). Owners are told apart by uid, never by name.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use serde_json::json;

use super::{Error, World, gone_is_fine};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Deleted uids that are remembered, to tell an owner that is gone from one that is not known yet.
const REMEMBERED: usize = 65536;

/// An object as far as ownership goes.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub resource: usize,
    /// Empty for kinds without.
    pub namespace: String,
    pub name: String,
    pub uid: String,
    version: u64,
    owners: Vec<OwnerReference>,
    pub is_going: bool,
    finalizers: Vec<String>,
}

impl Item {
    fn waits_for_dependents(&self) -> bool {
        self.is_going && self.finalizers.iter().any(|f| f == FOREGROUND)
    }

    fn leaves_orphans(&self) -> bool {
        self.is_going && self.finalizers.iter().any(|f| f == ORPHAN)
    }
}

/// Every object of the cluster and who owns it.
#[derive(Default)]
pub(super) struct Graph {
    /// Kinds, and whether they are namespaced.
    resources: Vec<(ApiResource, bool)>,
    items: HashMap<String, Item>,
    dependents: HashMap<String, BTreeSet<String>>,
    by_namespace: BTreeMap<String, BTreeSet<String>>,
    gone: HashSet<String>,
    gone_order: VecDeque<String>,
    /// Every kind was listed: an owner that is not here may be looked for.
    pub is_whole: bool,
}

impl Graph {
    fn resource_index(&mut self, resource: &ApiResource, namespaced: bool) -> usize {
        let same = |(known, _): &(ApiResource, bool)| known == resource;
        self.resources.iter().position(same).unwrap_or_else(|| {
            self.resources.push((resource.clone(), namespaced));
            self.resources.len() - 1
        })
    }

    /// Gives the uids that need a look.
    pub fn observe(&mut self, resource: &ApiResource, namespaced: bool, meta: &ObjectMeta) -> Vec<String> {
        let uid = meta.uid.clone().unwrap_or_default();
        let version = meta.resource_version.as_ref().and_then(|v| v.parse().ok()).unwrap_or(u64::MAX);
        if self.gone.contains(&uid) || self.items.get(&uid).is_some_and(|known| known.version >= version) {
            return Vec::new();
        }
        let item = Item {
            resource: self.resource_index(resource, namespaced),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: uid.clone(),
            version,
            owners: meta.owner_references.clone().unwrap_or_default(),
            is_going: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
        };
        let mut due = Vec::new();
        let before = self.items.get(&uid);
        let same_owners = before.is_some_and(|before| before.owners == item.owners);
        if !same_owners && !item.owners.is_empty() && self.is_whole {
            due.push(uid.clone());
        }
        if item.waits_for_dependents() || item.leaves_orphans() {
            due.push(uid.clone());
            due.extend(self.dependents_of(&uid));
        }
        for owner in before.map(|before| before.owners.clone()).unwrap_or_default() {
            // Let go: its owner may have waited for that.
            if !item.owners.iter().any(|o| o.uid == owner.uid) {
                due.push(owner.uid.clone());
            }
            self.unlink(&owner.uid, &uid);
        }
        for owner in &item.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        if !item.namespace.is_empty() {
            self.by_namespace.entry(item.namespace.clone()).or_default().insert(uid.clone());
        }
        self.items.insert(uid, item);
        due
    }

    /// Gives the uids that need a look: what it owned, and who waited for it.
    pub fn forget(&mut self, uid: &str) -> Vec<String> {
        if self.gone.insert(uid.to_string()) {
            self.gone_order.push_back(uid.to_string());
            if self.gone_order.len() > REMEMBERED
                && let Some(oldest) = self.gone_order.pop_front()
            {
                self.gone.remove(&oldest);
            }
        }
        let mut due = self.dependents_of(uid);
        if let Some(item) = self.items.remove(uid) {
            for owner in &item.owners {
                self.unlink(&owner.uid, uid);
                due.push(owner.uid.clone());
            }
            if let Some(uids) = self.by_namespace.get_mut(&item.namespace) {
                uids.remove(uid);
                if uids.is_empty() {
                    self.by_namespace.remove(&item.namespace);
                }
            }
        }
        due
    }

    fn unlink(&mut self, owner: &str, uid: &str) {
        if let Some(uids) = self.dependents.get_mut(owner) {
            uids.remove(uid);
            if uids.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    fn dependents_of(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Uids of all objects that have owners.
    pub fn owned(&self) -> Vec<String> {
        self.items.values().filter(|item| !item.owners.is_empty()).map(|item| item.uid.clone()).collect()
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Item> {
        let uids = self.by_namespace.get(namespace).into_iter().flatten();
        uids.filter_map(|uid| self.items.get(uid).cloned()).collect()
    }

    /// uid and namespace of all objects of a kind.
    pub fn of_resource(&self, resource: &ApiResource) -> Vec<(String, String)> {
        let is_it =
            |item: &&Item| self.resources.get(item.resource).is_some_and(|(known, _)| known == resource);
        self.items.values().filter(is_it).map(|item| (item.uid.clone(), item.namespace.clone())).collect()
    }

    pub fn resource(&self, item: &Item) -> Option<ApiResource> {
        self.resources.get(item.resource).map(|(resource, _)| resource.clone())
    }

    /// Kinds of which objects were seen that live in namespaces.
    pub fn namespaced_resources(&self) -> Vec<ApiResource> {
        self.resources
            .iter()
            .filter(|(_, namespaced)| *namespaced)
            .map(|(resource, _)| resource.clone())
            .collect()
    }

    fn resource_of_kind(&self, api_version: &str, kind: &str) -> Option<(ApiResource, bool)> {
        self.resources.iter().find(|(r, _)| r.api_version == api_version && r.kind == kind).cloned()
    }
}

/// The API for an item's own kind and namespace.
pub(super) fn api_of(client: &Client, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    if namespace.is_empty() {
        Api::all_with(client.clone(), resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, resource)
    }
}

pub(super) async fn sync(world: &World, uid: String) -> Result<Option<Duration>, Error> {
    let (item, resource) = {
        let graph = world.graph();
        let Some(item) = graph.items.get(&uid).cloned() else { return Ok(None) };
        let Some(resource) = graph.resource(&item) else { return Ok(None) };
        (item, resource)
    };
    let api = api_of(&world.clients.garbage, &resource, &item.namespace);
    if item.leaves_orphans() {
        return orphan_dependents(world, &api, &item).await;
    }
    if item.waits_for_dependents() {
        return wait_for_dependents(world, &api, &item).await;
    }
    if item.is_going || item.owners.is_empty() {
        return Ok(None);
    }
    let (mut solid, mut waiting, mut dangling) = (0, Vec::new(), Vec::new());
    for owner in &item.owners {
        match look_up(world, &item, owner).await? {
            Owner::Here => solid += 1,
            Owner::Waiting => waiting.push(owner.uid.clone()),
            Owner::Gone => dangling.push(owner.uid.clone()),
        }
    }
    if solid > 0 {
        if !waiting.is_empty() || !dangling.is_empty() {
            dangling.extend(waiting);
            drop_owners(&api, &item, &dangling).await?;
        }
        return Ok(None);
    }
    let has_dependents = world.graph().dependents.contains_key(&uid);
    let policy = if !waiting.is_empty() && has_dependents {
        PropagationPolicy::Foreground
    } else if item.finalizers.iter().any(|f| f == ORPHAN) {
        PropagationPolicy::Orphan
    } else if item.finalizers.iter().any(|f| f == FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    delete(&api, &item, Some(policy)).await?;
    Ok(None)
}

/// A namesake with another uid answers 409: then ours is gone.
pub(super) async fn delete(
    api: &Api<DynamicObject>,
    item: &Item,
    policy: Option<PropagationPolicy>,
) -> Result<(), Error> {
    let params = DeleteParams {
        propagation_policy: policy,
        preconditions: Some(Preconditions { uid: Some(item.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    match gone_is_fine(api.delete(&item.name, &params).await) {
        Err(error) if error.code() == 409 => Ok(()),
        other => other.map(drop),
    }
}

enum Owner {
    Here,
    /// It is being deleted in the foreground, and waits for its dependents.
    Waiting,
    Gone,
}

async fn look_up(world: &World, item: &Item, owner: &OwnerReference) -> Result<Owner, Error> {
    let kind = {
        let graph = world.graph();
        if let Some(known) = graph.items.get(&owner.uid) {
            // An owner in another namespace is none: the reference means a namesake in the item's own.
            if known.namespace.is_empty() || known.namespace == item.namespace {
                return Ok(if known.waits_for_dependents() { Owner::Waiting } else { Owner::Here });
            }
        }
        if graph.gone.contains(&owner.uid) {
            return Ok(Owner::Gone);
        }
        graph.resource_of_kind(&owner.api_version, &owner.kind)
    };
    let (resource, namespaced) = match kind {
        Some(kind) => kind,
        // No object of that kind was seen yet, so its resource is not known either.
        None => discover(world, owner).await?,
    };
    let api = api_of(&world.clients.garbage, &resource, if namespaced { &item.namespace } else { "" });
    let found = gone_is_fine(api.get_metadata(&owner.name).await)?;
    Ok(match found {
        Some(found) if found.metadata.uid.as_ref() == Some(&owner.uid) => Owner::Here,
        _ => Owner::Gone,
    })
}

async fn discover(world: &World, owner: &OwnerReference) -> Result<(ApiResource, bool), Error> {
    let (group, version) = owner.api_version.rsplit_once('/').unwrap_or(("", &owner.api_version));
    let kind = kube::api::GroupVersionKind::gvk(group, version, &owner.kind);
    match kube::discovery::pinned_kind(&world.clients.garbage, &kind).await {
        Ok((resource, capabilities)) => {
            Ok((resource, capabilities.scope == kube::discovery::Scope::Namespaced))
        }
        // As upstream: what is owned by a kind nobody knows is kept, and looked at again later.
        Err(kube::Error::Discovery(_)) => {
            Err(Error::UnknownKind(format!("{} {}", owner.api_version, owner.kind)))
        }
        Err(error) => Err(error.into()),
    }
}

/// `$patch: delete` by uid: other references stay, whoever writes them meanwhile.
async fn drop_owners(api: &Api<DynamicObject>, item: &Item, uids: &[String]) -> Result<(), Error> {
    let owners: Vec<_> = uids.iter().map(|uid| json!({ "$patch": "delete", "uid": uid })).collect();
    let patch = json!({ "metadata": { "uid": item.uid, "ownerReferences": owners } });
    gone_is_fine(api.patch(&item.name, &PatchParams::default(), &Patch::Strategic(&patch)).await)?;
    Ok(())
}

async fn remove_finalizer(api: &Api<DynamicObject>, item: &Item, finalizer: &str) -> Result<(), Error> {
    let Some(found) = gone_is_fine(api.get_metadata(&item.name).await)? else { return Ok(()) };
    if found.metadata.uid.as_ref() != Some(&item.uid) {
        return Ok(());
    }
    let kept: Vec<&String> = found.metadata.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
    // The list is replaced whole, so it must be the one that was read.
    let patch = json!({ "metadata": { "uid": item.uid, "resourceVersion": found.metadata.resource_version, "finalizers": kept } });
    gone_is_fine(api.patch(&item.name, &PatchParams::default(), &Patch::Merge(&patch)).await)?;
    Ok(())
}

async fn orphan_dependents(
    world: &World,
    api: &Api<DynamicObject>,
    item: &Item,
) -> Result<Option<Duration>, Error> {
    for (dependent, resource) in dependents(world, item) {
        let api = api_of(&world.clients.garbage, &resource, &dependent.namespace);
        drop_owners(&api, &dependent, std::slice::from_ref(&item.uid)).await?;
    }
    remove_finalizer(api, item, ORPHAN).await?;
    Ok(None)
}

async fn wait_for_dependents(
    world: &World,
    api: &Api<DynamicObject>,
    item: &Item,
) -> Result<Option<Duration>, Error> {
    let blocks = |dependent: &Item| {
        dependent.owners.iter().any(|o| o.uid == item.uid && o.block_owner_deletion == Some(true))
    };
    let dependents = dependents(world, item);
    let is_blocked = dependents.iter().any(|(dependent, _)| blocks(dependent));
    for (dependent, _) in dependents.iter().filter(|(dependent, _)| !dependent.is_going) {
        world.garbage_queue.add(dependent.uid.clone());
    }
    if !is_blocked {
        remove_finalizer(api, item, FOREGROUND).await?;
    }
    // Each dependent that goes brings the owner back.
    Ok(None)
}

fn dependents(world: &World, item: &Item) -> Vec<(Item, ApiResource)> {
    let graph = world.graph();
    let uids = graph.dependents_of(&item.uid);
    let items = uids.iter().filter_map(|uid| graph.items.get(uid));
    items
        .filter(|dependent| item.namespace.is_empty() || dependent.namespace == item.namespace)
        .filter_map(|dependent| Some((dependent.clone(), graph.resource(dependent)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn meta(uid: &str, version: u64, owner: Option<&str>) -> ObjectMeta {
        let owners: Vec<_> = owner
            .map(|o| json!({ "apiVersion": "v1", "kind": "X", "name": o, "uid": o }))
            .into_iter()
            .collect();
        serde_json::from_value(json!({ "namespace": "a", "name": uid, "uid": uid,
            "resourceVersion": version.to_string(), "ownerReferences": owners }))
        .unwrap()
    }

    #[test]
    fn an_owner_that_goes_brings_its_dependents_up_and_a_dependent_its_owner() {
        let resource = ApiResource::erase::<ConfigMap>(&());
        let mut graph = Graph { is_whole: true, ..Graph::default() };
        assert!(graph.observe(&resource, true, &meta("owner", 1, None)).is_empty());
        assert_eq!(graph.observe(&resource, true, &meta("child", 2, Some("owner"))), ["child"]);
        assert!(graph.observe(&resource, true, &meta("child", 2, None)).is_empty(), "not newer");
        assert_eq!(graph.in_namespace("a").len(), 2);
        assert_eq!(graph.forget("owner"), ["child"]);
        assert_eq!(graph.forget("child"), ["owner"]);
        assert!(graph.in_namespace("a").is_empty() && graph.dependents.is_empty());
        assert!(graph.observe(&resource, true, &meta("child", 3, None)).is_empty(), "a late answer");
        assert!(graph.items.is_empty());
    }

    #[test]
    fn an_owner_deleted_in_the_foreground_and_its_dependents_are_looked_at() {
        let resource = ApiResource::erase::<ConfigMap>(&());
        let mut graph = Graph { is_whole: true, ..Graph::default() };
        graph.observe(&resource, true, &meta("owner", 1, None));
        graph.observe(&resource, true, &meta("child", 2, Some("owner")));
        let mut going = meta("owner", 3, None);
        going.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        going.finalizers = Some(vec![FOREGROUND.into()]);
        assert_eq!(graph.observe(&resource, true, &going), ["owner", "child"]);
        // Released by hand: the owner waits no more.
        assert_eq!(graph.observe(&resource, true, &meta("child", 4, None)), ["owner"]);
    }
}
