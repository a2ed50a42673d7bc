//! A container's environment before there is a pod: what the manifest says, with what only a running pod has left open and
//! said so, variable by variable.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret},
};
use policy::{
    env::{self, Sources},
    node_facts::NodeFacts,
    security_context::ConfigError,
};

/// The ConfigMaps and Secrets that stand in the manifest beside the pod, by name.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
}

impl Objects {
    pub fn add_secret(&mut self, mut secret: Secret) {
        // As the API server does.
        for (key, value) in secret.string_data.take().unwrap_or_default() {
            secret.data.get_or_insert_default().insert(key, ByteString(value.into_bytes()));
        }
        self.secrets.insert(secret.metadata.name.clone().unwrap_or_default(), secret);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Names and values; one that is not known reads `<where it comes from>`.
    pub variables: Vec<(String, String)>,
    /// What is not known, a line each.
    pub unknown: Vec<String>,
}

/// # Errors
/// What the container would wait with, such as a key that a ConfigMap of the manifest does not have.
pub fn environment(
    pod: &Pod,
    container: &Container,
    objects: &Objects,
    node: &NodeFacts,
) -> Result<Environment, ConfigError> {
    let mut container = container.clone();
    let mut unknown = Vec::new();
    for variable in container.env.iter_mut().flatten() {
        let Some(from) = variable.value_from.as_ref() else { continue };
        if let Some(source) = unknown_source(pod, &container.resources, from, objects) {
            unknown.push(format!("{} is {source}", variable.name));
            *variable =
                EnvVar { name: variable.name.clone(), value: Some(format!("<{source}>")), value_from: None };
        }
    }
    for source in container.env_from.iter_mut().flatten() {
        let prefix = source.prefix.clone().filter(|prefix| !prefix.is_empty());
        let prefix = prefix.map_or(String::new(), |prefix| format!(", each behind {prefix}"));
        if let Some(name) = source.config_map_ref.as_ref().map(|one| one.name.clone())
            && !objects.config_maps.contains_key(&name)
        {
            unknown.push(format!("all variables of ConfigMap {name}{prefix}: it is not in the manifest"));
            source.config_map_ref = None;
        }
        if let Some(name) = source.secret_ref.as_ref().map(|one| one.name.clone())
            && !objects.secrets.contains_key(&name)
        {
            unknown.push(format!("all variables of Secret {name}{prefix}: it is not in the manifest"));
            source.secret_ref = None;
        }
    }
    if pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true) {
        unknown.push("variables of the Services that the namespace has when the container starts".to_owned());
    }
    let sources = Sources {
        config_maps: objects.config_maps.iter().map(|(name, object)| (name.clone(), object)).collect(),
        secrets: objects.secrets.iter().map(|(name, object)| (name.clone(), object)).collect(),
        ..Sources::default()
    };
    let resolved = env::resolve(pod, &container, &sources, node)?;
    Ok(Environment { variables: resolved.variables, unknown })
}

/// Where a variable comes from, if that is not known before the pod is there.
fn unknown_source(
    pod: &Pod,
    resources: &Option<k8s_openapi::api::core::v1::ResourceRequirements>,
    from: &EnvVarSource,
    objects: &Objects,
) -> Option<String> {
    if let Some(source) = &from.config_map_key_ref {
        let there = objects.config_maps.contains_key(&source.name);
        return (!there).then(|| format!("key {} of ConfigMap {}", source.key, source.name));
    }
    if let Some(source) = &from.secret_key_ref {
        let there = objects.secrets.contains_key(&source.name);
        return (!there).then(|| format!("key {} of Secret {}", source.key, source.name));
    }
    if let Some(source) = &from.field_ref {
        let (meta, spec) = (&pod.metadata, pod.spec.as_ref());
        let known = match source.field_path.as_str() {
            "metadata.name" => meta.name.is_some(),
            "metadata.namespace" => meta.namespace.is_some(),
            "metadata.uid" => meta.uid.is_some(),
            "spec.nodeName" => spec.is_some_and(|spec| spec.node_name.is_some()),
            "spec.serviceAccountName" => spec.is_some_and(|spec| spec.service_account_name.is_some()),
            path => !path.starts_with("status."),
        };
        return (!known).then(|| format!("the pod's {}", source.field_path));
    }
    let source = from.resource_field_ref.as_ref()?;
    let limit = source.resource.strip_prefix("limits.")?;
    let limits = resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let own = limits.is_some_and(|limits| limits.contains_key(limit));
    // Without a limit of its own it is what the node has.
    (!own).then(|| format!("the node's allocatable {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn planned(spec: serde_json::Value, objects: &Objects) -> Result<Environment, ConfigError> {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        environment(&pod, &container, objects, &NodeFacts::default())
    }

    #[test]
    fn what_is_not_known_is_said_and_what_depends_on_it_shows_it() {
        let spec = json!({ "enableServiceLinks": false, "containers": [{ "name": "c",
            "resources": { "limits": { "cpu": "2" } },
            "env": [
                { "name": "A", "value": "1" },
                { "name": "B", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "k" } } },
                { "name": "C", "value": "$(A)-$(B)" },
                { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
                { "name": "MEM", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory" } } },
            ],
            "envFrom": [{ "prefix": "P_", "secretRef": { "name": "s" } }] }] });
        let got = planned(spec, &Objects::default()).unwrap();
        let pairs: Vec<(&str, &str)> =
            got.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("A", "1"),
                ("B", "<key k of ConfigMap cm>"),
                ("C", "1-<key k of ConfigMap cm>"),
                ("IP", "<the pod's status.podIP>"),
                ("NAME", "p"),
                ("CPU", "2"),
                ("MEM", "<the node's allocatable memory>"),
            ]
        );
        assert_eq!(
            got.unknown,
            [
                "B is key k of ConfigMap cm",
                "IP is the pod's status.podIP",
                "MEM is the node's allocatable memory",
                "all variables of Secret s, each behind P_: it is not in the manifest",
            ]
        );
    }

    #[test]
    fn objects_of_the_manifest_are_read() {
        let mut objects = Objects::default();
        let map: ConfigMap =
            serde_json::from_value(json!({ "metadata": { "name": "cm" }, "data": { "k": "v" } })).unwrap();
        objects.config_maps.insert("cm".into(), map);
        objects.add_secret(
            serde_json::from_value(json!({ "metadata": { "name": "s" }, "stringData": { "pw": "x" } }))
                .unwrap(),
        );
        let spec = |key: &str| {
            json!({ "enableServiceLinks": false, "containers": [{ "name": "c",
                "env": [{ "name": "B", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": key } } }],
                "envFrom": [{ "secretRef": { "name": "s" } }] }] })
        };
        let got = planned(spec("k"), &objects).unwrap();
        assert_eq!(got.variables, [("pw".to_owned(), "x".to_owned()), ("B".to_owned(), "v".to_owned())]);
        assert_eq!(got.unknown, [""; 0]);
        // A key that is not there is what the container would wait with.
        assert!(planned(spec("other"), &objects).is_err());
    }
}
