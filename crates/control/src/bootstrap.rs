//! What every cluster has from its first moment: four namespaces, and the Service of the API server itself with the address
//! it leads to.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::{
    core::v1::{Endpoints, Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::Error;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The name of the API server's Service, its EndpointSlice and its Endpoints.
const KUBERNETES: &str = "kubernetes";

/// Makes what is not there. The Service has the address `service_ip` and leads to `endpoint`, where the server listens.
///
/// # Errors
/// As the API server's.
pub async fn run(client: &Client, service_ip: IpAddr, endpoint: SocketAddr) -> Result<(), Error> {
    let failed = |what| move |source| Error::Bootstrap { what, source };
    let create = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in NAMESPACES {
        if namespaces.get_opt(name).await.map_err(failed("a namespace"))?.is_none() {
            let namespace = object(json!({"metadata": {"name": name}})).map_err(failed("a namespace"))?;
            namespaces.create(&create, &namespace).await.map_err(failed("a namespace"))?;
        }
    }
    let service = json!({
        "metadata": {
            "name": KUBERNETES,
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": service_ip.to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": endpoint.port()}],
        },
    });
    settle::<Service>(client, service).await.map_err(failed("the Service kubernetes"))?;
    // An endpoint is never a loopback address: a server without a socket for pods has none.
    let IpAddr::V4(address) = endpoint.ip() else { return Ok(()) };
    if address.is_loopback() {
        return Ok(());
    }
    let ports = json!([{"name": "https", "port": endpoint.port(), "protocol": "TCP"}]);
    let slice = json!({
        "metadata": {"name": KUBERNETES, "labels": {"kubernetes.io/service-name": KUBERNETES}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": ports,
    });
    settle::<EndpointSlice>(client, slice).await.map_err(failed("the EndpointSlice kubernetes"))?;
    let endpoints = json!({
        "metadata": {"name": KUBERNETES, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
    });
    settle::<Endpoints>(client, endpoints).await.map_err(failed("the Endpoints kubernetes"))
}

/// Makes the object in `default`, or brings what it says into the one that is there. Not by a create that may be refused:
/// a Service would be refused for its address, which the first one has.
async fn settle<K>(client: &Client, value: Value) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug,
    K: Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), "default");
    match api.get_opt(KUBERNETES).await? {
        None => api.create(&PostParams::default(), &object(value)?).await.map(drop),
        Some(_) => api.patch(KUBERNETES, &PatchParams::default(), &Patch::Merge(value)).await.map(drop),
    }
}

fn object<T: DeserializeOwned>(value: Value) -> Result<T, kube::Error> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}
