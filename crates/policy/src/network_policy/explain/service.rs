//! What a Service translates a connection to. Policies judge what it is after that (DNAT): the endpoint and its port.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::answer::{Answer, Connection, Outcome, PartyKind, Targets, Translation};
use super::{End, ExplainError, Name, PortWord, World, judge, outcome, pod_end, summary};
use crate::network_policy::ir::{Family, Layer4, Protocol};
use crate::selector::Selector;

/// The Service that is meant: by name, or by its address.
pub(super) fn find<'a>(world: &World<'a>, name: &Name) -> Result<Option<&'a Service>, ExplainError> {
    match name {
        Name::Service { namespace, name } => {
            let of = |service: &&Service| service.metadata.namespace.as_ref() == Some(namespace);
            let called = |service: &&Service| service.metadata.name.as_ref() == Some(name);
            if let Some(found) = world.services.iter().find(|s| of(s) && called(s)) {
                return Ok(Some(found));
            }
            let elsewhere: Vec<String> = world.services.iter().filter(called).map(full).collect();
            let hint = match elsewhere.as_slice() {
                [] => String::new(),
                all => format!("; there is {}", all.join(", ")),
            };
            Err(ExplainError::NoService { namespace: namespace.clone(), name: name.clone(), hint })
        }
        Name::Address(address) => Ok(world.services.iter().find(|service| {
            let spec = service.spec.as_ref();
            let all = spec.and_then(|s| s.cluster_ips.as_ref()).into_iter().flatten();
            let external = spec.and_then(|s| s.external_ips.as_ref()).into_iter().flatten();
            let mut all = all.chain(external).chain(spec.and_then(|s| s.cluster_ip.as_ref()));
            all.any(|ip| ip.parse() == Ok(*address))
        })),
        Name::Pod { .. } | Name::Node(_) | Name::External => Ok(None),
    }
}

fn full(service: &Service) -> String {
    let meta = &service.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

pub(super) fn explain(
    world: &World,
    client: &End,
    service: &Service,
    word: Option<&PortWord>,
) -> Result<Answer, ExplainError> {
    let name = full(service);
    let spec = service.spec.clone().unwrap_or_default();
    let of_type = spec.type_.clone().unwrap_or_else(|| "ClusterIP".into());
    if of_type == "ExternalName" {
        return Err(ExplainError::ExternalName(name, spec.external_name.unwrap_or_default()));
    }
    let addresses =
        spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|ip| ip.parse().ok());
    let addresses: Vec<IpAddr> = addresses.collect();
    let own = Family::of(&client.party.address);
    let address = addresses.iter().find(|a| Family::of(a) == own).or(addresses.first()).copied();
    let family = address.map_or(own, |address| Family::of(&address));
    let from = client.of(family).ok_or_else(|| {
        ExplainError::Family(client.party.to_string(), address.unwrap_or(client.party.address))
    })?;
    let ports = asked(&name, spec.ports.as_deref().unwrap_or_default(), address.is_none(), word)?;

    let mut notes = Vec::new();
    let mut connections: Vec<Connection> = Vec::new();
    let (mut lines, mut targets) = (Vec::new(), Vec::new());
    for (port, entry) in ports {
        let protocol = match port {
            Layer4::Port(protocol, _) => protocol,
            Layer4::Other(_) => Protocol::Tcp,
        };
        let mut ends = endpoints(world, service, entry.as_ref(), protocol, family);
        if spec.internal_traffic_policy.as_deref() == Some("Local") && address.is_some() {
            let before = ends.len();
            ends.retain(|(end, _)| end.party.node.is_some() && end.party.node == from.node);
            if ends.len() < before {
                notes.push(
                    "internalTrafficPolicy Local: only endpoints on the client's node count".to_string(),
                );
            }
        }
        let endpoints: Vec<SocketAddr> = ends
            .iter()
            .map(|(end, target)| {
                let number = match headless_port(address, port, *target) {
                    Layer4::Port(_, number) => number,
                    Layer4::Other(_) => 0,
                };
                SocketAddr::new(end.party.address, number)
            })
            .collect();
        let shown = endpoints.iter().map(|to| match to.port() {
            0 => to.ip().to_string(),
            _ => to.to_string(),
        });
        let words: Vec<String> = shown.collect();
        let called =
            entry.as_ref().and_then(|e| e.name.as_ref()).map(|n| format!(" ({n})")).unwrap_or_default();
        let words = if words.is_empty() { "no ready endpoints".to_string() } else { words.join(", ") };
        lines.push(format!("{}{called} → {words}", super::shown(&port)));
        targets.push(Targets { port, endpoints });
        for (end, target) in ends {
            let to = headless_port(address, port, target);
            connections.push(judge::connection(world, &from, &end.party, to));
        }
    }
    let outside = from.kind == PartyKind::Outside;
    if outside {
        match of_type.as_str() {
            "NodePort" | "LoadBalancer" => notes.push(
                "from outside it is reached through a node's port: under externalTrafficPolicy Cluster the endpoint's policies see \
                 the address of the node that took the connection, unless the endpoint is on that node"
                    .to_string(),
            ),
            _ if spec.external_ips.as_ref().is_none_or(Vec::is_empty) => {
                notes.push("a ClusterIP is not reached from outside of the cluster".to_string());
                connections.clear();
            }
            _ => {}
        }
    }
    let verdict = outcome(&connections);
    if verdict == Outcome::Unreachable && !outside {
        notes.push("a Service without ready endpoints refuses connections at once".to_string());
    }
    let to = match address {
        Some(address) => format!("svc {name} ({address})"),
        None => format!("svc {name} (headless)"),
    };
    let shown: Vec<&str> = lines.iter().map(|line| line.split(" → ").next().unwrap_or(line)).collect();
    let summary = summary(verdict, &from.to_string(), &to, &connections, Some(&shown.join(", ")));
    let service = Some(Translation { service: name, of_type, address, ports: lines, targets });
    Ok(Answer { verdict, summary, source: from, service, connections, notes })
}

/// A headless Service translates nothing: the name leads to the pod, and the port stays what was asked.
fn headless_port(address: Option<IpAddr>, asked: Layer4, target: Option<u16>) -> Layer4 {
    match (address, asked, target) {
        (Some(_), Layer4::Port(protocol, _), Some(target)) => Layer4::Port(protocol, target),
        _ => asked,
    }
}

type Asked = Vec<(Layer4, Option<ServicePort>)>;

fn asked(
    service: &str,
    ports: &[ServicePort],
    headless: bool,
    word: Option<&PortWord>,
) -> Result<Asked, ExplainError> {
    let parsed = ports.iter().filter_map(|port| {
        let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?;
        Some((Layer4::Port(protocol, u16::try_from(port.port).ok()?), Some(port.clone())))
    });
    let parsed: Asked = parsed.collect();
    let fits = |(layer4, port): &&(Layer4, Option<ServicePort>)| match (word, layer4) {
        (None, _) => true,
        (Some(PortWord::Icmp), _) | (_, Layer4::Other(_)) => false,
        (Some(PortWord::Number(protocol, number)), Layer4::Port(p, n)) => protocol == p && number == n,
        (Some(PortWord::Named(protocol, name)), Layer4::Port(p, _)) => {
            protocol.is_none_or(|protocol| protocol == *p)
                && port.as_ref().and_then(|port| port.name.as_ref()) == Some(name)
        }
    };
    let found: Asked = parsed.iter().filter(fits).cloned().collect();
    match (found.is_empty(), word) {
        (false, _) => Ok(found),
        // Nothing stands between the client and a headless Service's pods: any port may be asked of them.
        (true, Some(PortWord::Number(protocol, number))) if headless => {
            Ok(vec![(Layer4::Port(*protocol, *number), None)])
        }
        (true, Some(PortWord::Icmp)) if headless => Ok(vec![(Layer4::Other(1), None)]),
        (true, word) => {
            let each = parsed.iter().map(|(layer4, port)| {
                let name = port.as_ref().and_then(|p| p.name.clone()).map(|n| format!(" ({n})"));
                format!("{}{}", super::shown(layer4), name.unwrap_or_default())
            });
            let known = each.collect::<Vec<_>>().join(", ");
            let word = word.map(PortWord::to_string).unwrap_or_default();
            Err(ExplainError::NoSuchPort(format!("svc {service}"), word, known))
        }
    }
}

/// The endpoints that take connections, and the port each has for `port`. From EndpointSlices; where there are none, as
/// in manifests, the pods that the Service selects.
fn endpoints<'a>(
    world: &World<'a>,
    service: &Service,
    port: Option<&ServicePort>,
    protocol: Protocol,
    family: Family,
) -> Vec<(End<'a>, Option<u16>)> {
    let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
    let of_service = |slice: &&EndpointSlice| {
        let labels = slice.metadata.labels.as_ref();
        slice.metadata.namespace == *namespace
            && labels.and_then(|l| l.get("kubernetes.io/service-name")) == name.as_ref()
    };
    let mut slices = world.slices.iter().filter(of_service).peekable();
    let spec = service.spec.as_ref();
    if slices.peek().is_none() {
        let Some(selector) = spec.and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty()) else {
            return Vec::new();
        };
        let selector = Selector::equal(selector);
        let pods = world.cluster.pods.iter().filter(|pod| {
            pod.metadata.namespace == *namespace
                && pod.metadata.labels.as_ref().is_some_and(|labels| selector.matches(labels))
        });
        let ends = pods.filter_map(|pod| {
            Some((pod_end(pod).ok()?, port.and_then(|port| target_port(pod, port, protocol))))
        });
        return ends.filter(|(end, _)| end.addresses.iter().any(|a| Family::of(a) == family)).collect();
    }
    let publish = spec.and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    let (mut ready, mut terminating) = (Vec::new(), Vec::new());
    for slice in slices {
        let same = |other: Option<&str>| {
            port.is_none_or(|port| other.unwrap_or_default() == port.name.as_deref().unwrap_or_default())
        };
        let found =
            slice.ports.iter().flatten().find(|p| {
                same(p.name.as_deref()) && p.protocol.as_deref().unwrap_or("TCP") == protocol.name()
            });
        let target = found.and_then(|p| u16::try_from(p.port?).ok());
        if found.is_none() && port.is_some() {
            continue;
        }
        for endpoint in &slice.endpoints {
            let Some(address) = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok()) else {
                continue;
            };
            if Family::of(&address) != family {
                continue;
            }
            let end = world.at(address);
            match state(endpoint) {
                State::Ready => ready.push((end, target)),
                State::Terminating => terminating.push((end, target)),
                State::NotReady if publish => ready.push((end, target)),
                State::NotReady => {}
            }
        }
    }
    // As kube-proxy does: those that end serve on where there are no others.
    if ready.is_empty() { terminating } else { ready }
}

enum State {
    Ready,
    /// Serves on while it ends.
    Terminating,
    NotReady,
}

fn state(endpoint: &Endpoint) -> State {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    match (conditions.ready.unwrap_or(true), conditions.serving, conditions.terminating) {
        (true, ..) => State::Ready,
        (false, Some(true), Some(true)) => State::Terminating,
        _ => State::NotReady,
    }
}

fn target_port(pod: &Pod, port: &ServicePort, protocol: Protocol) -> Option<u16> {
    match &port.target_port {
        None => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => {
            let record = crate::network_policy::PodRecord::from_api(pod, "");
            record.named_ports.get(&(protocol, name.clone())).copied()
        }
    }
}
