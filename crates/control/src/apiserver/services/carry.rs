//! What an update that does not speak of them keeps, and what goes with a Service's type.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::{
    super::text,
    families::{self, Fields},
    node_port, wants_health_check, wants_ports,
};

fn is_external(service: &Value) -> bool {
    text(service, "/spec/type") == "ExternalName"
}

/// What an update may leave out and keeps: the addresses and the node ports (`patchAllocatedValues`). How many families it
/// has then, [`families::settle`] decides.
pub(super) fn carry_over(new: &mut Value, old: &Value) {
    let had = Fields::of(old);
    let mut fields = Fields::of(new);
    if !is_external(new) && !is_external(old) {
        if fields.ip.is_empty() {
            fields.ip.clone_from(&had.ip);
        }
        if fields.ips.is_empty() {
            fields.ips.clone_from(&had.ips);
        }
    }
    families::normalize(&mut fields, Some(&had));
    fields.write(new);
    if wants_health_check(new)
        && wants_health_check(old)
        && node_port(&new["spec"]["healthCheckNodePort"]).is_none()
    {
        new["spec"]["healthCheckNodePort"] = old["spec"]["healthCheckNodePort"].clone();
    }
    if !wants_ports(new) || !wants_ports(old) {
        return;
    }
    let identity = |port: &Value| (text(port, "/protocol").to_owned(), port["port"].as_i64());
    let known: HashMap<_, _> = ports(old)
        .iter()
        .filter_map(|port| Some((identity(port), port["nodePort"].as_i64().filter(|n| *n > 0)?)))
        .collect();
    let asked: HashSet<i64> = ports(new).iter().filter_map(|p| p["nodePort"].as_i64()).collect();
    for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
        if port["nodePort"].as_i64().unwrap_or(0) == 0
            && let Some(number) = known.get(&identity(port)).filter(|number| !asked.contains(number))
        {
            port["nodePort"] = (*number).into();
        }
    }
}

fn ports(service: &Value) -> &[Value] {
    service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Takes away what the new type has no use for, where the client only sent it back as it was
/// (`dropTypeDependentFields`). What it changed is validation's to refuse.
pub(super) fn drop_with_type(new: &mut Value, old: &Value) {
    if is_external(new) && !is_external(old) {
        let (had, mut fields) = (Fields::of(old), Fields::of(new));
        if fields.ips == had.ips {
            fields.ip.clear();
            fields.ips.clear();
        }
        if fields.families == had.families {
            fields.families.clear();
        }
        if fields.policy == had.policy {
            fields.policy = None;
        }
        fields.write(new);
    }
    let numbers =
        |service: &Value| ports(service).iter().map(|p| node_port(&p["nodePort"])).collect::<Vec<_>>();
    if wants_ports(old) && !wants_ports(new) && numbers(new) == numbers(old) {
        for port in new["spec"]["ports"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut)
        {
            port.remove("nodePort");
        }
    }
    let balances = |service: &Value| text(service, "/spec/type") == "LoadBalancer";
    let faces_outside = |service: &Value| {
        let external = service["spec"]["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty());
        wants_ports(service) || text(service, "/spec/type") == "ClusterIP" && external
    };
    let gone = [
        ("healthCheckNodePort", wants_health_check(old) && !wants_health_check(new)),
        ("allocateLoadBalancerNodePorts", balances(old) && !balances(new)),
        ("loadBalancerClass", balances(old) && !balances(new)),
        ("externalTrafficPolicy", faces_outside(old) && !faces_outside(new)),
    ];
    if let Some(spec) = new["spec"].as_object_mut() {
        let same = |spec: &Map<String, Value>, field: &str| spec.get(field) == old["spec"].get(field);
        for (field, gone) in gone {
            if gone && same(spec, field) {
                spec.remove(field);
            }
        }
    }
    // The balancer's address is not the Service's any more, however long the balancer takes to give it up.
    if !balances(new) {
        new["status"]["loadBalancer"] = json!({});
    }
}
