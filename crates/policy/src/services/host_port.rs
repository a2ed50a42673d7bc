//! `hostPort`: a port of a node that leads to one of its pods.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;

use crate::network_policy::ir::Protocol;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// None for every address of the node; `0.0.0.0` or `::` for every one of that family.
    pub host_ip: Option<IpAddr>,
    pub protocol: Protocol,
    pub host_port: u16,
    pub container_port: u16,
}

impl HostPort {
    /// Of containers and sidecars, as the scheduler reserves them. On its node's network a pod has the ports themselves.
    pub fn of(pod: &Pod) -> Vec<HostPort> {
        let Some(spec) = pod.spec.as_ref().filter(|spec| spec.host_network != Some(true)) else {
            return Vec::new();
        };
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
        let asked = ports.filter_map(|port| {
            Some(HostPort {
                host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
                protocol: Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?,
                host_port: u16::try_from(port.host_port?).ok().filter(|number| *number != 0)?,
                container_port: u16::try_from(port.container_port).ok()?,
            })
        });
        asked.collect()
    }

    /// As a user would say it: `TCP 10.88.0.2:9000`.
    pub fn describe(&self) -> String {
        let address = self.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        format!("{} {}", self.protocol.name(), SocketAddr::new(address, self.host_port))
    }

    /// Whether a connection could be meant for both.
    pub fn collides(&self, other: &HostPort) -> bool {
        let same_address = match (self.host_ip, other.host_ip) {
            (Some(a), Some(b)) => {
                a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())
            }
            _ => true,
        };
        self.protocol == other.protocol && self.host_port == other.host_port && same_address
    }
}
