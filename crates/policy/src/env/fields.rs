//! The downward API: fields of the pod and resources of its containers, for variables and volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::Sources;
use crate::{
    node_facts::NodeFacts,
    resources::{self, Quantity},
};

/// A `fieldRef` path of the pod, also for downwardAPI volumes; the error is the message.
pub fn field(pod: &Pod, path: &str, sources: &Sources<'_>) -> Result<String, String> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.annotations" => &meta.annotations,
            "metadata.labels" => &meta.labels,
            other => return Err(format!("fieldPath {other:?} does not support subscript")),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => sources.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => sources.host_ips.join(","),
        "status.podIP" => sources.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => sources.pod_ips.join(","),
        other => return Err(format!("unsupported fieldPath: {other}")),
    })
}

/// `metadata.labels['x']` → (`metadata.labels`, `x`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(map, _)| !map.is_empty())
}

/// Labels or annotations as a file has them: one `key="value"` per line, sorted, quoted as Go does.
pub fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={}", go_quote(value))).collect();
    lines.join("\n")
}

/// Go's `strconv.Quote`.
fn go_quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            c if (c as u32) < 0x20 || c == '\x7f' => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A container of the pod by name.
pub(super) fn container<'a>(pod: &'a Pod, name: &str) -> Result<&'a Container, String> {
    let spec = pod.spec.as_ref();
    spec.into_iter()
        .flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()))
        .find(|container| container.name == name)
        .ok_or_else(|| format!("container {name} not found"))
}

/// A `resourceFieldRef` of a container, in units of the divisor, rounded up. A limit that is not set is what the node
/// can give; a request that is not set is 0.
pub fn resource_field(
    container: &Container,
    resource: &str,
    divisor: Option<&str>,
    node: &NodeFacts,
) -> Result<String, String> {
    let divisor: Quantity = match divisor {
        None | Some("" | "0") => Quantity::from_units(1),
        Some(text) => text.parse().map_err(|error| format!("divisor {text:?}: {error}"))?,
    };
    let clamped = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (list, name) =
        resource.split_once('.').ok_or_else(|| format!("unsupported container resource : {resource}"))?;
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let value = match list {
        "limits" if known => resources::limit(container, name).unwrap_or_else(|| match name {
            "cpu" => Quantity::from_millis(clamped(node.cpu_allocatable_millis)),
            "memory" => Quantity::from_units(clamped(node.memory_allocatable)),
            _ => Quantity::ZERO,
        }),
        "requests" if known => resources::request(container, name),
        _ => return Err(format!("unsupported container resource : {resource}")),
    };
    Ok(value.divided_by(divisor).to_string())
}
