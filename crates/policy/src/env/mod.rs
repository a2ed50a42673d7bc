//! The environment of a container: service variables, `envFrom`, `env` and the expansion of `$(VAR)`, in the kubelet's
//! order (`pkg/kubelet/kubelet_pods.go`, makeEnvironmentVariables). ConfigMaps and Secrets come as lookups, so that deciding
//! stays pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvFromSource, EnvVarSource, Pod, Secret, SecretKeySelector, Service,
};

pub use self::{
    expand::expand,
    fields::{field, format_map, resource_field},
    services::service_variables,
};
use crate::{node_facts::NodeFacts, security_context::ConfigError};

mod expand;
mod fields;
mod services;

#[cfg(test)]
mod tests;

/// What variables may refer to. Objects by name, all of the pod's namespace.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    pub config_maps: BTreeMap<String, &'a ConfigMap>,
    pub secrets: BTreeMap<String, &'a Secret>,
    /// Tokens of the pod's ServiceAccount, by what its volumes ask for.
    pub tokens: BTreeMap<TokenSource, String>,
    /// Services of the pod's namespace and `default/kubernetes`; see [`service_variables`] for which count.
    pub services: Vec<&'a Service>,
    /// The pod's addresses, primary first; empty while it has none.
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
}

/// A token that a projected volume asks for (`serviceAccountToken`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenSource {
    /// "" for the API server itself.
    pub audience: String,
    /// How long it shall live, in seconds.
    pub seconds: i64,
}

/// The environment and what was left out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Names and values; a name occurs once. First the services', then `envFrom`, then `env`, each in its order.
    pub variables: Vec<(String, String)>,
    /// Warning events of the pod: reason and message.
    pub events: Vec<(&'static str, String)>,
}

/// Names of the objects that the container's `env` and `envFrom` refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

/// Which ConfigMaps and Secrets [`resolve`] will look for.
pub fn references(container: &Container) -> References {
    let mut references = References::default();
    for source in container.env_from.iter().flatten() {
        references.config_maps.extend(source.config_map_ref.iter().map(|r| r.name.clone()));
        references.secrets.extend(source.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()) {
        references.config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        references.secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    references
}

/// A name of a variable: any printable ASCII but `=` (RelaxedEnvironmentVariableValidation, on since 1.32).
fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

/// Variables in the order of their first mention.
#[derive(Default)]
struct Variables {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        if !self.values.contains_key(&name) {
            self.order.push(name.clone());
        }
        self.values.insert(name, value);
    }
}

/// The container's variables (without the image's, which [`crate::container::spec`] puts before them).
/// Errors are `CreateContainerConfigError`: `configmap "x" not found`, `couldn't find key k in ConfigMap ns/name`, ...
pub fn resolve(
    pod: &Pod,
    container: &Container,
    sources: &Sources<'_>,
    node: &NodeFacts,
) -> Result<Environment, ConfigError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let services = service_variables(&sources.services, namespace, links);
    let mut events = Vec::new();
    let mut own = Variables::default();
    for source in container.env_from.iter().flatten() {
        env_from(source, namespace, sources, &mut own, &mut events)?;
    }
    for variable in container.env.iter().flatten() {
        let value = variable.value.clone().unwrap_or_default();
        let value = match &variable.value_from {
            _ if !value.is_empty() => {
                let lookup = |name: &str| own.values.get(name).or_else(|| services.get(name)).cloned();
                Some(expand(&value, lookup))
            }
            Some(source) => value_from(source, pod, container, namespace, sources, node)?,
            None => Some(value),
        };
        if let Some(value) = value {
            own.set(variable.name.clone(), value);
        }
    }
    let mut variables: Vec<(String, String)> =
        services.into_iter().filter(|(name, _)| !own.values.contains_key(name)).collect();
    for name in own.order {
        let value = own.values.remove(&name).unwrap_or_default();
        variables.push((name, value));
    }
    Ok(Environment { variables, events })
}

fn env_from(
    source: &EnvFromSource,
    namespace: &str,
    sources: &Sources<'_>,
    own: &mut Variables,
    events: &mut Vec<(&'static str, String)>,
) -> Result<(), ConfigError> {
    let (kind, name, entries) = if let Some(reference) = &source.config_map_ref {
        let Some(map) = config_map(sources, &reference.name, reference.optional)? else { return Ok(()) };
        (
            "configMap",
            &reference.name,
            map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        )
    } else if let Some(reference) = &source.secret_ref {
        let Some(secret) = secret(sources, &reference.name, reference.optional)? else { return Ok(()) };
        let data = secret.data.iter().flatten();
        let entries: Result<Vec<(String, String)>, ConfigError> =
            data.map(|(key, value)| Ok((key.clone(), text(&value.0, key, &reference.name)?))).collect();
        ("secret", &reference.name, entries?)
    } else {
        return Ok(());
    };
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let mut invalid = Vec::new();
    for (key, value) in entries {
        let key = format!("{prefix}{key}");
        if valid_name(&key) {
            own.set(key, value);
        } else {
            invalid.push(key);
        }
    }
    if !invalid.is_empty() {
        invalid.sort();
        events.push((
            "InvalidEnvironmentVariableNames",
            format!(
                "Keys [{}] from the EnvFrom {kind} {namespace}/{name} were skipped since they are considered invalid environment variable names.",
                invalid.join(", ")
            ),
        ));
    }
    Ok(())
}

/// `None`: optional and not there.
fn value_from(
    source: &EnvVarSource,
    pod: &Pod,
    container: &Container,
    namespace: &str,
    sources: &Sources<'_>,
    node: &NodeFacts,
) -> Result<Option<String>, ConfigError> {
    if let Some(reference) = &source.field_ref {
        return field(pod, &reference.field_path, sources).map(Some).map_err(ConfigError::config);
    }
    if let Some(reference) = &source.resource_field_ref {
        let name = reference.container_name.as_deref().filter(|name| !name.is_empty());
        let other = name.map(|name| fields::container(pod, name)).transpose().map_err(ConfigError::config)?;
        let target = other.unwrap_or(container);
        let divisor = reference.divisor.as_ref().map(|q| q.0.as_str());
        return resource_field(target, &reference.resource, divisor, node)
            .map(Some)
            .map_err(ConfigError::config);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let Some(map) = config_map(sources, &reference.name, reference.optional)? else { return Ok(None) };
        return match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if reference.optional == Some(true) => Ok(None),
            None => Err(ConfigError::config(format!(
                "couldn't find key {} in ConfigMap {namespace}/{}",
                reference.key, reference.name
            ))),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        return secret_key(reference, namespace, sources);
    }
    if source.file_key_ref.is_some() {
        return Err(ConfigError::config("env.valueFrom.fileKeyRef is not supported"));
    }
    Ok(Some(String::new()))
}

fn secret_key(
    reference: &SecretKeySelector,
    namespace: &str,
    sources: &Sources<'_>,
) -> Result<Option<String>, ConfigError> {
    let Some(secret) = secret(sources, &reference.name, reference.optional)? else { return Ok(None) };
    match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
        Some(value) => text(&value.0, &reference.key, &reference.name).map(Some),
        None if reference.optional == Some(true) => Ok(None),
        None => Err(ConfigError::config(format!(
            "couldn't find key {} in Secret {namespace}/{}",
            reference.key, reference.name
        ))),
    }
}

fn text(bytes: &[u8], key: &str, secret: &str) -> Result<String, ConfigError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| {
        ConfigError::config(format!("key {key} of secret \"{secret}\" is not text: it cannot be a variable"))
    })
}

fn config_map<'a>(
    sources: &Sources<'a>,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a ConfigMap>, ConfigError> {
    match sources.config_maps.get(name) {
        Some(map) => Ok(Some(map)),
        None if optional == Some(true) => Ok(None),
        None => Err(ConfigError::config(format!("configmap \"{name}\" not found"))),
    }
}

fn secret<'a>(
    sources: &Sources<'a>,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a Secret>, ConfigError> {
    match sources.secrets.get(name) {
        Some(secret) => Ok(Some(secret)),
        None if optional == Some(true) => Ok(None),
        None => Err(ConfigError::config(format!("secret \"{name}\" not found"))),
    }
}
