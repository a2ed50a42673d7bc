//! Changes and refusals of objects on their way in. A plugin is a file: it may change an object before validation and
//! refuse it after. The order is upstream's: defaulting, every plugin's `mutate`, validation, every plugin's `validate`.

mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod priority;
mod service_account;
mod toleration_seconds;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use api::{ApiError, registry::Resource};
use serde_json::Value;

use crate::{apiserver::User, store::Store};

pub use pod_security::{ConfigError, PodSecurity, PodSecurityConfig};

/// What plugins decided of one request, for the audit log: its `annotations`, under upstream's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(pub BTreeMap<&'static str, String>);

/// Takes [`Annotations`] from plugins, which see the request shared.
#[derive(Debug, Default)]
pub struct Audit(Mutex<Annotations>);

impl Audit {
    pub fn note(&self, key: &'static str, value: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.insert(key, value.into());
    }

    pub fn take(&self) -> Annotations {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// Exec, attach, port-forward: `pods/<subresource>` is used, no object comes in.
    Connect,
}

/// What is asked, as a plugin sees it.
pub struct Request<'a> {
    pub operation: Operation,
    pub resource: &'static Resource,
    /// "" for the object itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// "" for a collection.
    pub name: &'a str,
    pub user: &'a User,
    /// What is there before an update or a delete.
    pub old: Option<&'a Value>,
    pub store: &'a Store,
    /// What the audit log should say of it.
    pub audit: &'a Audit,
}

impl Request<'_> {
    /// Whether this is `operation` on the object itself of a core resource.
    fn is(&self, operation: Operation, plural: &str) -> bool {
        self.operation == operation
            && self.resource.group.is_empty()
            && self.resource.plural == plural
            && self.subresource.is_empty()
    }
}

/// One step of admission.
pub trait Plugin: Send + Sync {
    /// The key of an object that another part is about to make and without which `object` would be refused. The server
    /// waits a moment for it.
    fn awaits(&self, request: &Request<'_>, object: &Value) -> Option<String> {
        let _ = (request, object);
        None
    }

    /// # Errors
    /// The refusal the client gets.
    fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
        let _ = (request, object);
        Ok(())
    }

    /// `object` is None for deletes and connects. `warnings` go to the client whether or not the object is let in.
    ///
    /// # Errors
    /// The refusal the client gets.
    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let _ = (request, object, warnings);
        Ok(())
    }
}

/// The plugins, in upstream's order.
pub fn plugins(pod_security: PodSecurityConfig) -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle),
        Box::new(service_account::ServiceAccount),
        Box::new(node_restriction::NodeRestriction),
        Box::new(PodSecurity { config: pod_security }),
        Box::new(priority::Priority),
        Box::new(toleration_seconds::DefaultTolerationSeconds),
    ]
}

/// Runs `mutate` of all.
///
/// # Errors
/// The first refusal.
pub fn mutate(
    plugins: &[Box<dyn Plugin>],
    request: &Request<'_>,
    object: &mut Value,
) -> Result<(), ApiError> {
    plugins.iter().try_for_each(|plugin| plugin.mutate(request, object))
}

/// Runs `validate` of all.
///
/// # Errors
/// The first refusal.
pub fn validate(
    plugins: &[Box<dyn Plugin>],
    request: &Request<'_>,
    object: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    plugins.iter().try_for_each(|plugin| plugin.validate(request, object, warnings))
}
