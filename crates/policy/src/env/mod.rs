//! The environment of a container: service variables, `envFrom`, `env` and the expansion of `$(VAR)`, in the kubelet's
//! order. ConfigMaps and Secrets come as lookups, so that deciding stays pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};

use crate::{node_facts::NodeFacts, security_context::ConfigError};

/// What variables may refer to. Objects by name, all of the pod's namespace.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    pub config_maps: BTreeMap<String, &'a ConfigMap>,
    pub secrets: BTreeMap<String, &'a Secret>,
    /// Services of the pod's namespace and `default/kubernetes`; see [`service_variables`] for which count.
    pub services: Vec<&'a Service>,
    /// The pod's addresses, primary first; empty while it has none.
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
}

/// The environment and what was left out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Names and values in order; a name occurs once.
    pub variables: Vec<(String, String)>,
    /// Warning events of the pod: reason and message.
    pub events: Vec<(&'static str, String)>,
}

/// Names of the objects that the container's `env` and `envFrom` refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: std::collections::BTreeSet<String>,
    pub secrets: std::collections::BTreeSet<String>,
}

/// Which ConfigMaps and Secrets [`resolve`] will look for.
pub fn references(container: &Container) -> References {
    let _ = container;
    todo!()
}

/// The container's variables (without the image's, which [`crate::container::spec`] puts before them).
/// Errors are `CreateContainerConfigError`: `configmap "x" not found`, `couldn't find key k in ConfigMap ns/name`, ...
pub fn resolve(
    pod: &Pod,
    container: &Container,
    sources: &Sources<'_>,
    node: &NodeFacts,
) -> Result<Environment, ConfigError> {
    let _ = (pod, container, sources, node);
    todo!()
}

/// Expands `$(NAME)`; `$$` is a dollar sign that starts nothing; a name that `lookup` does not know stays as it is
/// written.
pub fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let _ = (input, lookup);
    todo!()
}

/// A `fieldRef` path of the pod, also for downwardAPI volumes; the error is the message.
pub fn field(pod: &Pod, path: &str, sources: &Sources<'_>) -> Result<String, String> {
    let _ = (pod, path, sources);
    todo!()
}

/// A `resourceFieldRef` of a container, in units of the divisor, rounded up.
pub fn resource_field(
    container: &Container,
    resource: &str,
    divisor: Option<&str>,
    node: &NodeFacts,
) -> Result<String, String> {
    let _ = (container, resource, divisor, node);
    todo!()
}
