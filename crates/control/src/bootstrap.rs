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
/// As the API server's.
pub async fn run(client: &Client, service_ip: Ipv4Addr, port: u16) -> Result<(), Error> {
    let failed = |what| move |source| Error::Bootstrap { what, source };
    let create = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in NAMESPACES {
        if namespaces.get_opt(name).await.map_err(failed("a namespace"))?.is_none() {
            let namespace = object(json!({"metadata": {"name": name}})).map_err(failed("a namespace"))?;
            namespaces.create(&create, &namespace).await.map_err(failed("a namespace"))?;
        }
    }
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let failed = failed("the Service kubernetes");
    // Asked first: a second create would be refused for its address, which the first one has.
    if services.get_opt("kubernetes").await.map_err(failed)?.is_some() {
        return Ok(());
    }
    let service = object(json!({
        "metadata": {
            "name": "kubernetes",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": service_ip.to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    }))
    .map_err(failed)?;
    services.create(&create, &service).await.map(drop).map_err(failed)
}

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, kube::Error> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}
