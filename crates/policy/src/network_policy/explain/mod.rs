//! Answers "may A reach B on this port, and why?" for people: every policy that selects either end, the rule and peer
//! that match with their paths in the manifest, or the nearest that does not and why; what a Service translates to; and
//! what in the kernel's rule set decides.
//!
//! It shares the parsed model with the compiler, and nothing with [`super::evaluate`], against which it is tested.

mod answer;
mod judge;
mod miss;
mod question;
mod route;
mod service;

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

pub use answer::{
    Answer, Connection, Judgement, LiveElement, Outcome, Party, PartyKind, PolicyReport, Reason, RuleAt,
    Says, SentTo, Targets, TranslatedBy, Translation, shown, tier_name,
};
pub use question::{Name, PortWord, QuestionError};

use self::route::{Ask, Routed, Router};
use super::evaluate::Cluster;
use super::ir::{Family, Flow, Layer4, Protocol};
use super::model::PodRecord;

/// Stands for "somewhere outside" where no address is given: of TEST-NET-1 (RFC 5737).
pub const EXTERNAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const ICMP: Layer4 = Layer4::Other(1);

/// All that an answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    pub cluster: Cluster<'a>,
    pub services: &'a [Service],
    pub slices: &'a [EndpointSlice],
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("pods \"{name}\" not found in namespace {namespace}{hint}")]
    NoPod { namespace: String, name: String, hint: String },
    #[error("services \"{name}\" not found in namespace {namespace}{hint}")]
    NoService { namespace: String, name: String, hint: String },
    #[error("nodes \"{name}\" not found; there are: {known}")]
    NoNode { name: String, known: String },
    #[error("pod {0} has no address yet (it is {1}): nothing can be said of its packets")]
    NoAddress(String, String),
    #[error("pod {0} has finished ({1}): it has no network any more")]
    Finished(String, String),
    #[error("node {0} has no address")]
    NodeAddress(String),
    #[error("{0} has no address of the family of {1}")]
    Family(String, IpAddr),
    #[error("a Service is no source of connections: ask for a pod")]
    ServiceAsks,
    #[error("say which port: {0} declares none; for example 80, 53/udp or icmp")]
    NoPort(String),
    #[error("{0} has no port {1:?}; it has: {2}")]
    NoSuchPort(String, String, String),
    #[error("{0} is an ExternalName: its name leads to {1:?}, outside of this cluster")]
    ExternalName(String, String),
}

/// An end that was found: how it is shown, and all its addresses.
#[derive(Clone, Debug)]
struct End<'a> {
    party: Party,
    pod: Option<&'a Pod>,
    addresses: Vec<IpAddr>,
}

impl End<'_> {
    /// Its address of a family.
    fn of(&self, family: Family) -> Option<Party> {
        let address = self.addresses.iter().find(|address| Family::of(address) == family)?;
        Some(Party { address: *address, ..self.party.clone() })
    }
}

/// May it, and why?
///
/// # Errors
/// What cannot be found, or has no network.
pub fn explain(
    world: &World,
    source: &Name,
    destination: &Name,
    port: Option<&PortWord>,
) -> Result<Answer, ExplainError> {
    if matches!(source, Name::Service { .. }) {
        return Err(ExplainError::ServiceAsks);
    }
    let client = world.find(source)?;
    let mut notes = Vec::new();
    if *source == Name::External || *destination == Name::External {
        notes.push(format!("external is taken as {EXTERNAL}; give an address to ask of another"));
    }
    if let Some(found) = service::find(world, destination)? {
        let question = service::question(world, &client, (found, destination), port)?;
        let routed = Router::new(world, &question.from).follow(question.asks);
        let mut translations = routed.translations;
        translations.extend(question.headless);
        let of_notes = question.notes.into_iter().chain(routed.notes).chain(notes);
        let verdict = outcome(&routed.connections);
        let from = question.from;
        return Ok(Answer {
            verdict,
            summary: summary(verdict, &from.to_string(), &question.to, &routed.connections, &question.ports),
            source: from,
            translations,
            connections: routed.connections,
            notes: of_notes.collect(),
        });
    }
    let server = world.find(destination)?;
    let family = Family::of(&server.party.address);
    let (from, to) = match (client.of(family), server.of(Family::of(&client.party.address))) {
        (Some(from), _) => (from, server.party.clone()),
        (None, Some(to)) => (client.party.clone(), to),
        (None, None) => {
            return Err(ExplainError::Family(client.party.to_string(), server.party.address));
        }
    };
    let asked = ports_of(&server, port)?;
    let words: Vec<String> = asked.iter().map(shown).collect();
    let asks = asked.into_iter().map(|port| Ask { to: to.clone(), port, called: String::new(), entry: None });
    let Routed { translations, connections, notes: of_route } =
        Router::new(world, &from).follow(asks.collect());
    notes.extend(of_route);
    let verdict = outcome(&connections);
    let summary = summary(verdict, &from.to_string(), &to.to_string(), &connections, &words.join(", "));
    Ok(Answer { verdict, summary, source: from, translations, connections, notes })
}

/// What a flow's two ends say, for who has a conntrack tuple at hand.
pub fn explain_flow(world: &World, flow: &Flow) -> Connection {
    let (client, server) = (world.at(flow.client), world.at(flow.server));
    judge::connection(world, judge::Ends::direct(&client.party, &server.party, flow.layer4))
}

fn outcome(connections: &[Connection]) -> Outcome {
    match (connections.iter().any(|c| c.allowed), connections.iter().all(|c| c.allowed)) {
        _ if connections.is_empty() => Outcome::Unreachable,
        (_, true) => Outcome::Allowed,
        (true, false) => Outcome::Partly,
        (false, false) => Outcome::Denied,
    }
}

fn summary(verdict: Outcome, from: &str, to: &str, all: &[Connection], ports: &str) -> String {
    let some = all.iter().filter(|c| c.allowed).count();
    match verdict {
        Outcome::Allowed => format!("{from} may reach {to} on {ports}"),
        Outcome::Denied => format!("{from} may not reach {to} on {ports}"),
        Outcome::Partly => {
            format!("{from} may reach {to} on {ports} in part: {some} of {} connections", all.len())
        }
        Outcome::Unreachable => format!("{from} reaches nobody at {to} on {ports}"),
    }
}

/// The ports that are meant; without a word, those that the server declares.
fn ports_of(server: &End, word: Option<&PortWord>) -> Result<Vec<Layer4>, ExplainError> {
    let mut declared: Vec<(Option<String>, Protocol, u16)> = Vec::new();
    let spec = server.pod.and_then(|pod| pod.spec.as_ref());
    for container in spec.iter().flat_map(|spec| {
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
        spec.containers.iter().chain(sidecars)
    }) {
        for port in container.ports.iter().flatten() {
            let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"));
            if let (Some(protocol), Ok(number)) = (protocol, u16::try_from(port.container_port)) {
                declared.push((port.name.clone(), protocol, number));
            }
        }
    }
    match word {
        Some(PortWord::Icmp) => Ok(vec![ICMP]),
        Some(PortWord::Number(protocol, port)) => Ok(vec![Layer4::Port(*protocol, *port)]),
        Some(PortWord::Named(asked, name)) => {
            let fits = |(n, p, _): &&(Option<String>, Protocol, u16)| {
                n.as_ref() == Some(name) && asked.is_none_or(|asked| asked == *p)
            };
            let found = declared.iter().find(fits).map(|(_, protocol, port)| Layer4::Port(*protocol, *port));
            let known = || {
                let each = declared.iter().map(|(name, protocol, port)| match name {
                    Some(name) => format!("{name} ({} {port})", protocol.name()),
                    None => format!("{} {port}", protocol.name()),
                });
                let list = each.collect::<Vec<_>>().join(", ");
                if list.is_empty() { "none".to_string() } else { list }
            };
            let missing = || ExplainError::NoSuchPort(server.party.to_string(), name.clone(), known());
            Ok(vec![found.ok_or_else(missing)?])
        }
        None if declared.is_empty() => Err(ExplainError::NoPort(server.party.to_string())),
        None => {
            let mut all: Vec<Layer4> =
                declared.iter().map(|(_, protocol, port)| Layer4::Port(*protocol, *port)).collect();
            all.sort();
            all.dedup();
            Ok(all)
        }
    }
}

impl<'a> World<'a> {
    fn find(&self, name: &Name) -> Result<End<'a>, ExplainError> {
        match name {
            Name::External => Ok(self.at(EXTERNAL)),
            Name::Address(address) => Ok(self.at(*address)),
            Name::Service { namespace, name } => Err(ExplainError::NoService {
                namespace: namespace.clone(),
                name: name.clone(),
                hint: String::new(),
            }),
            Name::Node(name) => {
                let found = self.cluster.nodes.iter().find(|n| n.metadata.name.as_ref() == Some(name));
                let known = || {
                    let names = self.cluster.nodes.iter().filter_map(|n| n.metadata.name.clone());
                    names.collect::<Vec<_>>().join(", ")
                };
                let node =
                    found.ok_or_else(|| ExplainError::NoNode { name: name.clone(), known: known() })?;
                node_end(node).ok_or_else(|| ExplainError::NodeAddress(name.clone()))
            }
            Name::Pod { namespace, name } => {
                let named = |pod: &&Pod| pod.metadata.name.as_ref() == Some(name);
                let mut of_name = self.cluster.pods.iter().filter(named);
                let found = of_name.find(|pod| pod.metadata.namespace.as_ref() == Some(namespace));
                match found {
                    Some(pod) => pod_end(pod),
                    None => Err(ExplainError::NoPod {
                        namespace: namespace.clone(),
                        name: name.clone(),
                        hint: self.hint(namespace, name),
                    }),
                }
            }
        }
    }

    /// Where else a pod of that name is, or which pods' names begin so.
    fn hint(&self, namespace: &str, name: &str) -> String {
        let all = || {
            self.cluster
                .pods
                .iter()
                .filter_map(|pod| Some((pod.metadata.namespace.as_deref()?, pod.metadata.name.as_deref()?)))
        };
        let elsewhere: Vec<String> =
            all().filter(|(_, n)| *n == name).map(|(ns, n)| format!("{ns}/{n}")).collect();
        if !elsewhere.is_empty() {
            return format!("; there is {}", elsewhere.join(", "));
        }
        let prefix = format!("{name}-");
        let like: Vec<String> = all()
            .filter(|(ns, n)| *ns == namespace && n.starts_with(&prefix))
            .map(|(ns, n)| format!("{ns}/{n}"))
            .take(5)
            .collect();
        match like.as_slice() {
            [] => String::new(),
            like => format!("; ambiguous? there is {}", like.join(", ")),
        }
    }

    fn is_node(&self, address: IpAddr) -> bool {
        let nodes = self.cluster.nodes.iter().filter_map(node_end);
        nodes.into_iter().any(|end| end.addresses.contains(&address))
    }

    /// Who has this address.
    fn at(&self, address: IpAddr) -> End<'a> {
        let holds = |pod: &&Pod| PodRecord::from_api(pod, "").addresses.contains(&address);
        let created = |pod: &&Pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0.to_string());
            (created, pod.metadata.uid.clone())
        };
        if let Some(pod) = self.cluster.pods.iter().filter(holds).max_by_key(created)
            && let Ok(end) = pod_end(pod)
        {
            return End { party: Party { address, ..end.party.clone() }, ..end };
        }
        let nodes = self.cluster.nodes.iter().filter_map(node_end);
        if let Some(end) = nodes.into_iter().find(|end| end.addresses.contains(&address)) {
            return End { party: Party { address, ..end.party.clone() }, ..end };
        }
        let party = Party { kind: PartyKind::Outside, name: None, address, node: None };
        End { party, pod: None, addresses: vec![address] }
    }
}

fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn pod_end(pod: &Pod) -> Result<End<'_>, ExplainError> {
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    let name = full_name(pod);
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(ExplainError::Finished(name, phase.to_string()));
    }
    let spec = pod.spec.as_ref();
    let on_host = spec.and_then(|s| s.host_network).unwrap_or(false);
    let (first, rest): (Option<&str>, Vec<&str>) = match on_host {
        true => {
            let all = status.and_then(|s| s.host_ips.as_ref()).into_iter().flatten();
            (status.and_then(|s| s.host_ip.as_deref()), all.map(|ip| ip.ip.as_str()).collect())
        }
        false => {
            let all = status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten();
            (status.and_then(|s| s.pod_ip.as_deref()), all.map(|ip| ip.ip.as_str()).collect())
        }
    };
    // In the order of the API: the first is the primary one.
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in first.into_iter().chain(rest).filter_map(|ip| ip.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let Some(address) = addresses.first().copied() else {
        return Err(ExplainError::NoAddress(name, phase.to_string()));
    };
    let kind = if on_host { PartyKind::HostNetworkPod } else { PartyKind::Pod };
    let node = spec.and_then(|s| s.node_name.clone());
    Ok(End { party: Party { kind, name: Some(name), address, node }, pod: Some(pod), addresses })
}

fn node_end(node: &Node) -> Option<End<'_>> {
    let all = node.status.as_ref().and_then(|s| s.addresses.as_ref()).into_iter().flatten();
    let addresses: Vec<IpAddr> = all.filter_map(|a| a.address.parse().ok()).collect();
    let name = node.metadata.name.clone();
    let party = Party { kind: PartyKind::Node, node: name.clone(), name, address: *addresses.first()? };
    Some(End { party, pod: None, addresses })
}
