//! Variables for Services: `<NAME>_SERVICE_HOST` and the Docker link variables (kubelet `pkg/kubelet/envvars`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// The variables of the Services of the pod's namespace (with `enableServiceLinks`) and, always, of
/// `default/kubernetes`. A Service without an address has none.
pub fn service_variables(services: &[&Service], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut by_name: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let of = service.metadata.namespace.as_deref().unwrap_or("default");
        if of == namespace && links {
            by_name.insert(name, service);
        } else if of == "default" && name == "kubernetes" {
            by_name.entry(name).or_insert(service);
        }
    }
    let mut variables = BTreeMap::new();
    for (name, service) in by_name {
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        // An IPv6 address stands in brackets in a URL.
        let url_host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let prefix = variable_name(name);
        let mut set = |suffix: String, value: String| variables.insert(format!("{prefix}_{suffix}"), value);
        set("SERVICE_HOST".to_owned(), ip.to_owned());
        set("SERVICE_PORT".to_owned(), first.port.to_string());
        for port in ports {
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                set(format!("SERVICE_PORT_{}", variable_name(name)), port.port.to_string());
            }
        }
        for (index, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{url_host}:{}", protocol.to_ascii_lowercase(), port.port);
            if index == 0 {
                set("PORT".to_owned(), url.clone());
            }
            let port_prefix = format!("PORT_{}_{}", port.port, protocol.to_ascii_uppercase());
            set(port_prefix.clone(), url);
            set(format!("{port_prefix}_PROTO"), protocol.to_ascii_lowercase());
            set(format!("{port_prefix}_PORT"), port.port.to_string());
            set(format!("{port_prefix}_ADDR"), ip.to_owned());
        }
    }
    variables
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_ascii_uppercase()
}
