//! Defaults of the kinds that say who talks to whom: Service, Endpoints, EndpointSlice, NetworkPolicy.

use serde_json::{Map, Value, json};

use super::{each, is_empty, maybe, object_at, set, set_absent, text};

/// `timeoutSeconds` of `sessionAffinity: ClientIP`: three hours.
const CLIENT_IP_SECONDS: i64 = 10800;

/// Addresses and families are not here: what a Service gets of them depends on the cluster.
pub(super) fn service(root: &mut Map<String, Value>) {
    let Some(spec) = object_at(root, "spec") else { return };
    set(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            if let Some(config) = object_at(spec, "sessionAffinityConfig")
                && let Some(client) = object_at(config, "clientIP")
            {
                set_absent(client, "timeoutSeconds", CLIENT_IP_SECONDS);
            }
        }
        _ => {}
    }
    set(spec, "type", "ClusterIP");
    for port in each(spec, "ports") {
        set(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            set(port, "targetPort", number);
        }
    }
    let kind = text(spec, "type").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !is_empty(spec, "externalIPs"));
    if external {
        set(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set_absent(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_absent(spec, "allocateLoadBalancerNodePorts", true);
    }
    if let Some(status) = object_at(root, "status") {
        object_at(status, "loadBalancer");
    }
}

pub(super) fn endpoints(root: &mut Map<String, Value>) {
    for subset in each(root, "subsets") {
        for port in each(subset, "ports") {
            set(port, "protocol", "TCP");
        }
    }
}

pub(super) fn endpoint_slice(root: &mut Map<String, Value>) {
    for port in each(root, "ports") {
        set_absent(port, "name", "");
        set_absent(port, "protocol", "TCP");
    }
}

/// Without `policyTypes`: Ingress always, Egress where the policy has egress rules.
pub(super) fn network_policy(root: &mut Map<String, Value>) {
    let Some(spec) = maybe(root, "spec") else { return };
    for direction in ["ingress", "egress"] {
        for rule in each(spec, direction) {
            for port in each(rule, "ports") {
                set_absent(port, "protocol", "TCP");
            }
        }
    }
    if is_empty(spec, "policyTypes") {
        let types = if is_empty(spec, "egress") { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
}
