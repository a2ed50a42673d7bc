//! Requests and limits: names, quantities, and that no request passes its limit.

use super::names;
use super::quantity::Quantity;
use super::view::At;
use crate::field::{Error, ErrorList};

/// A `ResourceRequirements`.
pub(super) fn requirements(errors: &mut ErrorList, at: &At<'_>) {
    let (limits, requests) = (at.child("limits"), at.child("requests"));
    for list in [&limits, &requests] {
        quantities(errors, list);
    }
    for (name, request) in requests.entries() {
        let Some(amount) = parse(&request) else { continue };
        match parse(&limits.key(name)) {
            Some(limit) if amount != limit && !may_overcommit(name) => errors.push(Error::invalid(
                &requests.path,
                amount.to_string(),
                format!("must be equal to {name} limit of {limit}"),
            )),
            Some(limit) if amount > limit => errors.push(Error::invalid(
                &requests.path,
                amount.to_string(),
                format!("must be less than or equal to {name} limit of {limit}"),
            )),
            None if !may_overcommit(name) => {
                errors.push(limits.required("Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
    }
    let names: Vec<&str> =
        limits.entries().iter().chain(&requests.entries()).map(|(name, _)| *name).collect();
    if names.iter().any(|n| n.starts_with("hugepages-"))
        && !names.iter().any(|n| ["cpu", "memory"].contains(n))
    {
        errors.push(at.forbidden("HugePages require cpu or memory"));
    }
}

/// Names and amounts of a `ResourceList` of a container.
pub(super) fn quantities(errors: &mut ErrorList, list: &At<'_>) {
    for (name, amount) in list.entries() {
        resource_name(errors, name, &amount);
        let Some(quantity) = parse(&amount) else {
            errors.push(amount.invalid(super::quantity::FORMAT_ERROR));
            continue;
        };
        if quantity.is_negative() {
            errors.push(Error::invalid(
                &amount.path,
                quantity.to_string(),
                "must be greater than or equal to 0",
            ));
        }
        if !may_overcommit(name) && !quantity.is_whole() {
            errors.push(Error::invalid(&amount.path, quantity.to_string(), "must be an integer"));
        }
    }
}

fn parse(at: &At<'_>) -> Option<Quantity> {
    match at.raw()? {
        serde_json::Value::String(text) => Quantity::parse(text).ok(),
        serde_json::Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// Native resources may be promised twice; huge pages and extended resources (devices) may not.
fn may_overcommit(name: &str) -> bool {
    !name.starts_with("hugepages-") && (!name.contains('/') || name.contains("kubernetes.io/"))
}

fn resource_name(errors: &mut ErrorList, name: &str, at: &At<'_>) {
    let wrong = names::qualified_name(name);
    if !wrong.is_empty() {
        errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.path, name, m)));
        return;
    }
    if name.contains('/') {
        let native = name.contains("kubernetes.io/");
        if !native
            && (name.starts_with("requests.")
                || !names::qualified_name(&format!("requests.{name}")).is_empty())
        {
            errors.push(Error::invalid(&at.path, name, "doesn't follow extended resource name standard"));
        }
        return;
    }
    if ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-") {
        return;
    }
    // Names that mean something elsewhere (quotas) are told apart from names that mean nothing.
    const STANDARD: [&str; 12] = [
        "storage",
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "requests.cpu",
        "requests.memory",
        "limits.cpu",
        "limits.memory",
    ];
    if !STANDARD.contains(&name) {
        errors.push(Error::invalid(&at.path, name, "must be a standard resource type or fully qualified"));
    }
    errors.push(Error::invalid(&at.path, name, "must be a standard resource for containers"));
}
