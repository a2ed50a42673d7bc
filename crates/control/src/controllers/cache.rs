//! What the controllers know of one kind. Fed by a watch *and* by the answers to their own writes, whichever comes
//! first; resourceVersions say which is newer. So a controller never decides on a state from before its own write, and
//! needs no bookkeeping of writes it expects to see.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

/// Namespace (empty for kinds without) and name.
pub type Key = (String, String);

/// Deleted uids that are remembered, so that a late answer does not bring an object back.
const REMEMBERED: usize = 4096;

pub struct Cache<K> {
    inner: Mutex<Inner<K>>,
}

struct Inner<K> {
    objects: HashMap<Key, Arc<K>>,
    /// Owner uid → objects that name it as their controller.
    owned: HashMap<String, BTreeSet<Key>>,
    by_namespace: HashMap<String, BTreeSet<Key>>,
    gone: HashSet<String>,
    gone_order: VecDeque<String>,
}

/// What became of an object.
pub struct Change<K> {
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

pub fn key_of(meta: &ObjectMeta) -> Key {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Versions come from one counter of the store; a version that is no number counts as newer.
pub fn is_newer(new: &ObjectMeta, old: &ObjectMeta) -> bool {
    let version = |meta: &ObjectMeta| meta.resource_version.as_ref().and_then(|v| v.parse::<u64>().ok());
    match (version(new), version(old)) {
        (Some(new), Some(old)) => new > old,
        _ => true,
    }
}

impl<K: Resource> Cache<K> {
    pub fn new() -> Cache<K> {
        Cache {
            inner: Mutex::new(Inner {
                objects: HashMap::new(),
                owned: HashMap::new(),
                by_namespace: HashMap::new(),
                gone: HashSet::new(),
                gone_order: VecDeque::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// None: nothing new. Who owns which field is not kept: no loop asks, and a write that leaves it out changes nothing of it.
    pub fn observe(&self, mut object: K) -> Option<Change<K>> {
        object.meta_mut().managed_fields = None;
        let mut inner = self.lock();
        let key = key_of(object.meta());
        if object.meta().uid.as_ref().is_some_and(|uid| inner.gone.contains(uid)) {
            return None;
        }
        if let Some(old) = inner.objects.get(&key)
            && !is_newer(object.meta(), old.meta())
        {
            return None;
        }
        let object = Arc::new(object);
        let old = inner.objects.insert(key.clone(), object.clone());
        if let Some(old) = &old {
            inner.unlink(&key, old.meta());
        }
        inner.link(&key, object.meta());
        Some(Change { old, new: Some(object) })
    }

    /// The object is gone. None: it was not known.
    pub fn forget(&self, meta: &ObjectMeta) -> Option<Change<K>> {
        let mut inner = self.lock();
        let key = key_of(meta);
        if let Some(uid) = &meta.uid
            && inner.gone.insert(uid.clone())
        {
            inner.gone_order.push_back(uid.clone());
            if inner.gone_order.len() > REMEMBERED
                && let Some(oldest) = inner.gone_order.pop_front()
            {
                inner.gone.remove(&oldest);
            }
        }
        if inner.objects.get(&key)?.meta().uid != meta.uid {
            return None;
        }
        let old = inner.objects.remove(&key)?;
        inner.unlink(&key, old.meta());
        Some(Change { old: Some(old), new: None })
    }

    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.lock().objects.get(key).cloned()
    }

    pub fn all(&self) -> Vec<Arc<K>> {
        self.lock().objects.values().cloned().collect()
    }

    pub fn keys(&self) -> HashSet<Key> {
        self.lock().objects.keys().cloned().collect()
    }

    /// Those that name this uid as their controller, by name.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let inner = self.lock();
        let keys = inner.owned.get(uid).into_iter().flatten();
        keys.filter_map(|key| inner.objects.get(key).cloned()).collect()
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let inner = self.lock();
        let keys = inner.by_namespace.get(namespace).into_iter().flatten();
        keys.filter_map(|key| inner.objects.get(key).cloned()).collect()
    }
}

impl<K> Inner<K> {
    fn link(&mut self, key: &Key, meta: &ObjectMeta) {
        if let Some(owner) = controller_of(meta) {
            self.owned.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
        self.by_namespace.entry(key.0.clone()).or_default().insert(key.clone());
    }

    fn unlink(&mut self, key: &Key, meta: &ObjectMeta) {
        fn take(index: &mut HashMap<String, BTreeSet<Key>>, of: &str, key: &Key) {
            if let Some(keys) = index.get_mut(of) {
                keys.remove(key);
                if keys.is_empty() {
                    index.remove(of);
                }
            }
        }
        if let Some(owner) = controller_of(meta) {
            take(&mut self.owned, &owner.uid, key);
        }
        take(&mut self.by_namespace, &key.0, key);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn object(name: &str, uid: &str, version: u64, owner: Option<&str>) -> ConfigMap {
        let owners: Vec<_> = owner
            .map(
                |uid| json!({ "apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true }),
            )
            .into_iter()
            .collect();
        let meta = json!({ "namespace": "a", "name": name, "uid": uid, "resourceVersion": version.to_string(), "ownerReferences": owners });
        serde_json::from_value(json!({ "metadata": meta })).unwrap()
    }

    #[test]
    fn the_newer_version_stays_whichever_comes_first() {
        let cache = Cache::new();
        assert!(cache.observe(object("x", "1", 5, Some("o"))).is_some());
        assert!(cache.observe(object("x", "1", 4, None)).is_none(), "older");
        assert!(cache.observe(object("x", "1", 5, None)).is_none(), "the same");
        assert_eq!(cache.owned_by("o").len(), 1);
        assert!(cache.observe(object("x", "1", 6, None)).is_some());
        assert_eq!((cache.owned_by("o").len(), cache.in_namespace("a").len()), (0, 1));
    }

    #[test]
    fn what_is_deleted_does_not_come_back_and_a_namesake_may() {
        let cache = Cache::new();
        cache.observe(object("x", "1", 5, None));
        assert!(cache.forget(&object("x", "1", 7, None).metadata).is_some());
        assert!(cache.observe(object("x", "1", 6, None)).is_none(), "a late answer");
        assert!(cache.observe(object("x", "2", 8, None)).is_some());
        assert!(cache.forget(&object("x", "1", 9, None).metadata).is_none(), "the old one's deletion again");
        assert!(cache.get(&("a".into(), "x".into())).is_some());
    }
}
