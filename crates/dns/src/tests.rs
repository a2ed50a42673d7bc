//! What questions are answered with, as tables; upstreams and the API server are small servers on loopback.

mod api;
mod records;
mod upstream;

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RecordType},
};
use serde_json::{Value, json};

use crate::{
    answer::{Decision, decide},
    config::Range,
    zone::{Kind, Zone},
};

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn query(text: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message.to_vec().expect("a query")
}

/// A cluster as the tables of records describe it.
fn zone() -> Zone {
    let ranges = ["10.96.0.0/16", "10.244.0.0/16"].map(|range| Range::parse(range).expect("a range"));
    let mut zone = Zone::new("cluster.local", ranges.to_vec());
    for namespace in ["default", "kube-system", "shop"] {
        zone.set_namespace(&object(json!({"metadata": {"name": namespace}})));
    }
    let ports = json!([{"name": "http", "protocol": "TCP", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}]);
    for service in [
        json!({"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "spec": {"clusterIP": "10.96.0.10"}}),
        json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20", "fd00::20"], "ports": ports}}),
        json!({"metadata": {"name": "plain", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.21", "clusterIPs": ["10.96.0.21"], "ports": [{"protocol": "TCP", "port": 8080}]}}),
        json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
        json!({"metadata": {"name": "early", "namespace": "shop"},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": true}}),
        json!({"metadata": {"name": "empty", "namespace": "shop"}, "spec": {"clusterIP": "None"}}),
        json!({"metadata": {"name": "out", "namespace": "shop"},
            "spec": {"type": "ExternalName", "externalName": "www.example.com"}}),
        json!({"metadata": {"name": "in", "namespace": "shop"},
            "spec": {"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"}}),
        json!({"metadata": {"name": "gone", "namespace": "shop"},
            "spec": {"type": "ExternalName", "externalName": "nothing.shop.svc.cluster.local"}}),
        json!({"metadata": {"name": "round", "namespace": "shop"},
            "spec": {"type": "ExternalName", "externalName": "round.shop.svc.cluster.local"}}),
    ] {
        zone.set_service(&object(service));
    }
    let endpoints = json!([
        {"addresses": ["10.244.1.2"], "hostname": "db-0", "conditions": {"ready": true}},
        {"addresses": ["10.244.1.3"], "hostname": "db-1"},
        {"addresses": ["10.244.1.4"], "conditions": {"ready": true}},
        {"addresses": ["10.244.1.5"], "hostname": "db-3", "conditions": {"ready": false}},
    ]);
    for (service, slice, endpoints) in [
        ("db", "db-a", endpoints.clone()),
        ("db", "db-b", json!([{"addresses": ["fd00::1:2"], "hostname": "db-0"}])),
        ("early", "early-a", endpoints),
        ("web", "web-a", json!([{"addresses": ["10.244.1.9"]}])),
    ] {
        zone.set_slice(&object(json!({
            "metadata": {"name": slice, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
            "endpoints": endpoints,
            "ports": [{"name": "pg", "protocol": "TCP", "port": 5432}],
        })));
    }
    zone.set_pod(&object(json!({"metadata": {"name": "p", "namespace": "shop"},
        "status": {"phase": "Running", "podIP": "10.244.1.9", "podIPs": [{"ip": "10.244.1.9"}, {"ip": "fd00::9"}]}})));
    zone.set_pod(&object(json!({"metadata": {"name": "done", "namespace": "shop"},
        "status": {"phase": "Succeeded", "podIP": "10.244.1.10"}})));
    for kind in [Kind::Namespaces, Kind::Services, Kind::Slices, Kind::Pods] {
        zone.set_synced(kind);
    }
    zone
}

/// The answer to a question that nobody else is asked for.
fn ask(zone: &Zone, text: &str, kind: RecordType) -> Message {
    match decide(&query(text, kind), zone, 0) {
        Decision::Answer(message) => message,
        _ => panic!("{text} {kind} is not answered by the zone"),
    }
}

/// The code and the records, as lines.
fn said(message: &Message) -> (ResponseCode, Vec<String>) {
    let mut lines: Vec<String> =
        message.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect();
    lines.sort();
    (message.metadata.response_code, lines)
}
