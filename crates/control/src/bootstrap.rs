//! What every cluster has from its first moment: four namespaces and the Service of the API server itself.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

use crate::Error;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes what is not there.
///
/// # Errors
/// Anything but that it exists.
pub async fn run(client: &Client, service_ip: Ipv4Addr, port: u16) -> Result<(), Error> {
    let failed = |what| move |source| Error::Bootstrap { what, source };
    let there = |result| match result {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other,
    };
    let create = PostParams::default();
    for name in NAMESPACES {
        let namespace: Namespace =
            object(json!({"metadata": {"name": name}})).map_err(failed("a namespace"))?;
        let created = Api::all(client.clone()).create(&create, &namespace).await;
        there(created.map(drop)).map_err(failed("a namespace"))?;
    }
    let service: Service = object(json!({
        "metadata": {
            "name": "kubernetes",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": service_ip.to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    }))
    .map_err(failed("the Service kubernetes"))?;
    let created = Api::namespaced(client.clone(), "default").create(&create, &service).await;
    there(created.map(drop)).map_err(failed("the Service kubernetes"))
}

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, kube::Error> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}
