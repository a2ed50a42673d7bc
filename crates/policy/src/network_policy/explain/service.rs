//! Which packets are meant by a Service: to which address, by which node. Policies judge what they are after that (DNAT): the
//! endpoint and its port.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::answer::{Party, PartyKind, Targets, TranslatedBy, Translation};
use super::route::Ask;
use super::{End, ExplainError, Name, PortWord, World, pod_end};
use crate::network_policy::ir::{Family, Layer4, Protocol};
use crate::services::selected_pods;

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
        // A node may have one of a Service's external addresses: then what no Service translates is its own.
        Name::Address(address) if world.is_node(*address) => Ok(None),
        Name::Address(address) => Ok(world.services.iter().find(|service| {
            let parsed = crate::services::Service::from_api(service).1;
            parsed.is_some_and(|service| {
                service.cluster_ips().contains(address) || service.external_ips().contains(address)
            })
        })),
        Name::Pod { .. } | Name::Node(_) | Name::External => Ok(None),
    }
}

fn full(service: &Service) -> String {
    let meta = &service.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// The packets that are meant, and who is known to send them.
pub(super) struct Question {
    pub from: Party,
    pub asks: Vec<Ask>,
    /// The Service, as it is shown.
    pub to: String,
    /// The ports that were asked for, likewise.
    pub ports: String,
    pub notes: Vec<String>,
    /// Of a headless Service, which no node translates: its endpoints.
    pub headless: Option<Translation>,
}

pub(super) fn question(
    world: &World,
    client: &End,
    (service, name): (&Service, &Name),
    word: Option<&PortWord>,
) -> Result<Question, ExplainError> {
    let full_name = full(service);
    let spec = service.spec.clone().unwrap_or_default();
    let of_type = spec.type_.clone().unwrap_or_else(|| "ClusterIP".into());
    if of_type == "ExternalName" {
        return Err(ExplainError::ExternalName(full_name, spec.external_name.unwrap_or_default()));
    }
    let own = Family::of(&client.party.address);
    let cluster: Vec<IpAddr> =
        spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|ip| ip.parse().ok()).collect();
    let address = match name {
        Name::Address(address) => Some(*address),
        _ => cluster.iter().find(|a| Family::of(a) == own).or(cluster.first()).copied(),
    };
    let family = address.map_or(own, |address| Family::of(&address));
    let from = client.of(family).ok_or_else(|| {
        ExplainError::Family(client.party.to_string(), address.unwrap_or(client.party.address))
    })?;
    let ports = asked(&full_name, spec.ports.as_deref().unwrap_or_default(), address.is_none(), word)?;
    let words: Vec<String> = ports
        .iter()
        .map(|(port, entry)| format!("{}{}", super::shown(port), called(entry.as_ref())))
        .collect();
    let mut question = Question {
        from,
        asks: Vec::new(),
        to: format!("svc {full_name} ({})", address.map_or("headless".to_string(), |a| a.to_string())),
        ports: words.join(", "),
        notes: Vec::new(),
        headless: None,
    };
    let Some(address) = address else {
        headless(world, service, &ports, family, &mut question);
        return Ok(question);
    };
    if question.from.kind == PartyKind::Outside {
        let to_cluster = matches!(name, Name::Address(_)).then_some(address);
        from_outside(world, service, &ports, (to_cluster, family), &mut question);
        return Ok(question);
    }
    if spec.internal_traffic_policy.as_deref() == Some("Local") && cluster.contains(&address) {
        let note = "internalTrafficPolicy Local: only endpoints on the client's node count";
        question.notes.push(note.to_string());
    } else if let Some(distribution) = &spec.traffic_distribution {
        let node = question.from.node.as_deref().unwrap_or("the client's node");
        let note = format!(
            "trafficDistribution {distribution}: {node} keeps to endpoints whose hints are for it or its zone"
        );
        question.notes.push(note);
    }
    let to = Party { kind: PartyKind::Outside, name: None, address, node: None };
    let asks = ports.into_iter().map(|(port, entry)| {
        let called = called(entry.as_ref());
        Ask { to: to.clone(), port, called, entry: None }
    });
    question.asks = asks.collect();
    Ok(question)
}

fn called(port: Option<&ServicePort>) -> String {
    port.and_then(|port| port.name.as_ref()).map(|name| format!(" ({name})")).unwrap_or_default()
}

/// From outside a Service is reached at its node ports, and at addresses that lead to some node, whichever that is.
fn from_outside(
    world: &World,
    service: &Service,
    ports: &Asked,
    (asked, family): (Option<IpAddr>, Family),
    question: &mut Question,
) {
    let parsed = crate::services::Service::from_api(service).1;
    let external: Vec<IpAddr> = parsed.iter().flat_map(|service| service.external_ips()).copied().collect();
    let nodes: Vec<End> = world.cluster.nodes.iter().filter_map(super::node_end).collect();
    let of_family = |address: &&IpAddr| Family::of(address) == family;
    let to = match asked {
        Some(address) => external.iter().filter(|one| **one == address).copied().collect(),
        None => external.iter().filter(of_family).copied().collect::<Vec<IpAddr>>(),
    };
    let has_node_port = asked.is_none()
        && ports.iter().any(|(_, port)| port.as_ref().and_then(|port| port.node_port).is_some());
    let reached = has_node_port || !to.is_empty();
    for (port, entry) in ports {
        let called = called(entry.as_ref());
        let node_port = entry.as_ref().and_then(|port| u16::try_from(port.node_port?).ok());
        for node in &nodes {
            match (has_node_port, node_port, *port) {
                (true, Some(number), Layer4::Port(protocol, _)) => {
                    let port = Layer4::Port(protocol, number);
                    let to = node.of(family).into_iter();
                    question.asks.extend(to.map(|to| Ask { to, port, called: called.clone(), entry: None }));
                }
                _ => question.asks.extend(to.iter().map(|address| Ask {
                    to: Party { kind: PartyKind::Outside, name: None, address: *address, node: None },
                    port: *port,
                    called: called.clone(),
                    entry: node.party.name.clone(),
                })),
            }
        }
    }
    if !reached {
        question.notes.push("a ClusterIP is not reached from outside of the cluster".to_string());
    } else if has_node_port {
        let mut note = "from outside it is reached through the nodes' ports".to_string();
        if !to.is_empty() {
            let all: Vec<String> = to.iter().map(IpAddr::to_string).collect();
            note.push_str(&format!("; ask for {} to hear of that address", all.join(" or ")));
        }
        question.notes.push(note);
    } else {
        let note = "which node the address leads to is decided outside of the cluster: each is asked";
        question.notes.push(note.to_string());
    }
}

/// The name of a headless Service leads to the pods themselves, and the port stays what was asked.
fn headless(world: &World, service: &Service, ports: &Asked, family: Family, question: &mut Question) {
    let (mut lines, mut targets) = (Vec::new(), Vec::new());
    let ends = endpoints(world, service, family);
    for (port, entry) in ports {
        let number = match port {
            Layer4::Port(_, number) => *number,
            Layer4::Other(_) => 0,
        };
        let endpoints: Vec<SocketAddr> =
            ends.iter().map(|end| SocketAddr::new(end.party.address, number)).collect();
        let shown = endpoints.iter().map(|to| if number == 0 { to.ip().to_string() } else { to.to_string() });
        let words = if endpoints.is_empty() {
            "no ready endpoints".into()
        } else {
            shown.collect::<Vec<_>>().join(", ")
        };
        lines.push(format!("{}{} → {words}", super::shown(port), called(entry.as_ref())));
        targets.push(Targets { port: *port, endpoints });
        let asks = ends.iter().map(|end| Ask {
            to: end.party.clone(),
            port: *port,
            called: String::new(),
            entry: None,
        });
        question.asks.extend(asks);
    }
    question.headless = Some(Translation {
        by: TranslatedBy::Service,
        name: full(service),
        of_type: Some(
            service.spec.as_ref().and_then(|s| s.type_.clone()).unwrap_or_else(|| "ClusterIP".into()),
        ),
        address: None,
        node: None,
        ports: lines,
        targets,
    });
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

/// Whom the name of a headless Service leads to. Where there are no EndpointSlices, as in manifests, the pods that it selects.
fn endpoints<'a>(world: &World<'a>, service: &Service, family: Family) -> Vec<End<'a>> {
    let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
    let of_service = |slice: &&EndpointSlice| {
        let labels = slice.metadata.labels.as_ref();
        slice.metadata.namespace == *namespace
            && labels.and_then(|l| l.get("kubernetes.io/service-name")) == name.as_ref()
    };
    let mut slices = world.slices.iter().filter(of_service).peekable();
    if slices.peek().is_none() {
        let pods = selected_pods(service, world.cluster.pods);
        let of_family = pods.filter_map(|pod| {
            let end = pod_end(pod).ok()?;
            let party = end.of(family)?;
            Some(End { party, ..end })
        });
        return of_family.collect();
    }
    let ready = slices.flat_map(|slice| &slice.endpoints).filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    let addresses: BTreeSet<IpAddr> =
        ready.filter_map(|endpoint| endpoint.addresses.first()?.parse().ok()).collect();
    addresses
        .into_iter()
        .filter(|address| Family::of(address) == family)
        .map(|address| world.at(address))
        .collect()
}
