//! What decisions are made by: every role and binding, and what pods refer to; kept by the store's events.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use policy::rbac::{Binding, Index, Rule};
use serde::de::DeserializeOwned;

use super::graph::Graph;
use crate::store::{Change, Event, Object, Overrun, Store, Watcher};

#[derive(Clone, Copy, Debug)]
enum Kind {
    ClusterRole,
    ClusterRoleBinding,
    Role,
    RoleBinding,
    Pod,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::ClusterRole, "/clusterroles.rbac.authorization.k8s.io/"),
    (Kind::ClusterRoleBinding, "/clusterrolebindings.rbac.authorization.k8s.io/"),
    (Kind::Role, "/roles.rbac.authorization.k8s.io/"),
    (Kind::RoleBinding, "/rolebindings.rbac.authorization.k8s.io/"),
    (Kind::Pod, "/pods/"),
];

pub(super) struct State {
    pub index: Index,
    pub graph: Graph,
    feeds: Vec<(Kind, Watcher)>,
}

/// Namespace ("" where there is none) and name, of a key.
fn place(key: &str) -> (&str, &str) {
    let mut parts = key.trim_start_matches('/').splitn(3, '/').skip(1);
    match (parts.next(), parts.next()) {
        (Some(namespace), Some(name)) => (namespace, name),
        (Some(name), None) => ("", name),
        _ => ("", ""),
    }
}

/// None for what cannot be read: it grants nothing.
fn read<T: DeserializeOwned>(object: &Object) -> Option<T> {
    serde_json::from_slice(object.bytes()).ok()
}

impl State {
    pub fn read(store: &Store) -> State {
        let mut state = State { index: Index::default(), graph: Graph::default(), feeds: Vec::new() };
        for (kind, prefix) in KINDS {
            let (listed, watcher) = store.list_and_watch(prefix);
            for object in &listed.objects {
                state.set(kind, &object.key, Some(object));
            }
            state.feeds.push((kind, watcher));
        }
        state
    }

    /// Takes in what has happened since.
    pub fn catch_up(&mut self) -> Result<(), Overrun> {
        for at in 0..self.feeds.len() {
            let kind = self.feeds[at].0;
            while let Some(event) = self.feeds[at].1.poll_next()? {
                self.apply(kind, &event);
            }
        }
        Ok(())
    }

    fn apply(&mut self, kind: Kind, event: &Event) {
        let object = (event.change != Change::Deleted).then_some(&event.object);
        self.set(kind, &event.object.key, object);
    }

    fn set(&mut self, kind: Kind, key: &str, object: Option<&Arc<Object>>) {
        let (namespace, name) = place(key);
        match kind {
            Kind::Pod => self.graph.set(namespace, name, object),
            Kind::ClusterRole => {
                let role = object.and_then(|object| read::<ClusterRole>(object));
                self.set_role(namespace, name, role.map(|role| Rule::list(role.rules)));
            }
            Kind::Role => {
                let role = object.and_then(|object| read::<Role>(object));
                self.set_role(namespace, name, role.map(|role| Rule::list(role.rules)));
            }
            Kind::ClusterRoleBinding => {
                let binding = object.and_then(|object| read::<ClusterRoleBinding>(object));
                let binding = binding.and_then(|b| Binding::new(namespace, b.role_ref, b.subjects));
                self.set_binding(namespace, name, binding);
            }
            Kind::RoleBinding => {
                let binding = object.and_then(|object| read::<RoleBinding>(object));
                let binding = binding.and_then(|b| Binding::new(namespace, b.role_ref, b.subjects));
                self.set_binding(namespace, name, binding);
            }
        }
    }

    fn set_role(&mut self, namespace: &str, name: &str, rules: Option<Arc<[Rule]>>) {
        match rules {
            Some(rules) => self.index.set_role(namespace, name, rules),
            None => self.index.remove_role(namespace, name),
        }
    }

    fn set_binding(&mut self, namespace: &str, name: &str, binding: Option<Binding>) {
        match binding {
            Some(binding) => self.index.set_binding(namespace, name, binding),
            None => self.index.remove_binding(namespace, name),
        }
    }
}
