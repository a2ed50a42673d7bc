//! Edges of the network: the API server, other pods, nodes, and what is outside of the cluster. Policies decide
//! ([`crate::network_policy`]); a packet from the pod shows it. Pods of a namespace that are reached on the same ports are one edge.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Pod;

use super::{Area, Claim, Probe};
use crate::network_policy::explain::{Connection, Name, Outcome, PortWord, Reason, World, explain};
use crate::network_policy::ir::{Cidr, Family};
use crate::network_policy::table::{End, PortSet, Table};
use crate::network_policy::{Layer4, Protocol};

/// Where clouds tell a machine who it is, credentials included.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// Names that are written out before "and n more".
const WRITTEN: usize = 4;

const EGRESS: &str = "a NetworkPolicy for the pod with policyTypes: [Egress] and what it needs";
const INGRESS: &str = "a NetworkPolicy there with policyTypes: [Ingress] and who is meant";

/// What the pod with this index reaches; `ranges`: the pods' addresses, one range for each family.
pub fn claims(world: &World<'_>, pod: usize, ranges: &[Cidr]) -> Vec<Claim> {
    let Some(object) = world.cluster.pods.get(pod) else { return Vec::new() };
    let source = name(object);
    let mut claims = vec![api_server(world, &source)];
    for range in ranges {
        let table = Table::new(&world.cluster, *range);
        let Some(own) = table.end_of_pod(pod).or_else(|| {
            let node = object.spec.as_ref()?.node_name.as_ref()?;
            let at = world.cluster.nodes.iter().position(|n| n.metadata.name.as_ref() == Some(node))?;
            table.end_of_node(at)
        }) else {
            continue;
        };
        let from = From {
            world,
            source: &source,
            pod,
            own,
            table: &table,
            family: range.family(),
            is_dual: ranges.len() > 1,
        };
        claims.extend(from.pods());
        claims.extend(from.nodes());
        claims.extend(from.outside());
    }
    claims
}

fn name(pod: &Pod) -> Name {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Name::Pod { namespace: text(&pod.metadata.namespace), name: text(&pod.metadata.name) }
}

fn claim(id: &'static str, target: String, open: bool, because: String, to: String, port: String) -> Claim {
    let remedy = Some(if id == "pods" { INGRESS } else { EGRESS });
    Claim { id, area: Area::Network, target, open, because, remedy, probe: Probe::Packet { to, port } }
}

fn api_server(world: &World<'_>, source: &Name) -> Claim {
    let to = Name::Service { namespace: "default".into(), name: "kubernetes".into() };
    let answer = explain(world, source, &to, Some(&PortWord::Number(Protocol::Tcp, 443)));
    let (open, because) = match &answer {
        Ok(answer) => (
            answer.verdict == Outcome::Allowed,
            answer.connections.first().map_or_else(|| answer.summary.clone(), said),
        ),
        Err(error) => (false, error.to_string()),
    };
    claim(
        "api-server",
        "the API server, svc default/kubernetes TCP 443".into(),
        open,
        because,
        "default/svc/kubernetes".into(),
        "443".into(),
    )
}

/// Which end decides, in its words.
fn said(connection: &Connection) -> String {
    let Connection { egress, ingress, .. } = connection;
    // No policy is about what is no pod.
    let is_pod = !matches!(ingress.reason, Reason::Outside | Reason::NodeNetwork);
    match (egress.allowed, ingress.allowed) {
        (false, _) => format!("egress: {}", egress.because),
        (true, false) => format!("ingress: {}", ingress.because),
        (true, true) if !is_pod => format!("egress: {}", egress.because),
        (true, true) => format!("egress: {}; ingress: {}", egress.because, ingress.because),
    }
}

/// A port of the set as it is asked for: one that is declared, else the first.
fn port_in(set: &PortSet, declared: &[Layer4]) -> Option<Layer4> {
    let first = Protocol::ALL.into_iter().find_map(|protocol| {
        let (first, last) = set.protocol(protocol).iter().next()?;
        // Port 0 is nobody's.
        Some(Layer4::Port(protocol, first.max(1).min(last)))
    });
    let well_known = [443, 80].map(|port| Layer4::Port(Protocol::Tcp, port));
    let wanted = declared.iter().copied().chain(well_known).find(|port| set.contains(*port));
    wanted.or(first).or(set.other.then_some(Layer4::Other(1)))
}

fn word(port: Layer4) -> String {
    match port {
        Layer4::Port(protocol, number) => format!("{number}/{}", protocol.name().to_ascii_lowercase()),
        Layer4::Other(_) => "icmp".to_owned(),
    }
}

fn declared(pod: &Pod) -> Vec<Layer4> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?;
            Some(Layer4::Port(protocol, u16::try_from(port.container_port).ok()?))
        })
        .collect()
}

struct From<'a> {
    world: &'a World<'a>,
    source: &'a Name,
    pod: usize,
    own: usize,
    table: &'a Table,
    family: Family,
    is_dual: bool,
}

impl From<'_> {
    /// A claim about an end, of which `to` stands for all.
    fn claim(&self, id: &'static str, who: &str, set: &PortSet, to: String, wanted: &[Layer4]) -> Claim {
        let open = !set.is_empty();
        let port = port_in(set, wanted).or_else(|| port_in(&PortSet::all(), wanted));
        let port = word(port.unwrap_or(Layer4::Port(Protocol::Tcp, 80)));
        let because = match (Name::parse(&to, "default"), PortWord::parse(&port)) {
            (Ok(to), Ok(port)) => match explain(self.world, self.source, &to, Some(&port)) {
                Ok(answer) => answer.connections.first().map_or(answer.summary, said),
                Err(error) => error.to_string(),
            },
            _ => String::new(),
        };
        let family = match (self.is_dual, self.family) {
            (false, _) => "",
            (true, Family::V4) => " over IPv4",
            (true, Family::V6) => " over IPv6",
        };
        let ports = if open { format!(": {}", ports(set)) } else { String::new() };
        claim(id, format!("{who}{family}{ports}"), open, because, to, port)
    }

    fn pods(&self) -> Vec<Claim> {
        let mut groups: BTreeMap<(String, PortSet), Vec<usize>> = BTreeMap::new();
        for (index, pod) in self.world.cluster.pods.iter().enumerate() {
            let Some(end) = self.table.end_of_pod(index).filter(|_| index != self.pod) else { continue };
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            let set = self.table.ports(self.own, end).clone();
            groups.entry((namespace, set)).or_default().push(index);
        }
        let groups = groups.into_iter().map(|((namespace, set), members)| {
            let pods = members.iter().map(|index| &self.world.cluster.pods[*index]);
            let names: Vec<&str> = pods.filter_map(|pod| pod.metadata.name.as_deref()).collect();
            let first = &self.world.cluster.pods[members[0]];
            let to = self.address_of(first).unwrap_or_else(|| format!("{namespace}/pod/{}", names[0]));
            self.claim("pods", &format!("{namespace}/{}", listed(&names)), &set, to, &declared(first))
        });
        groups.collect()
    }

    /// In a cluster of both families a name would mean the first one.
    fn address_of(&self, pod: &Pod) -> Option<String> {
        let addresses = pod.status.as_ref()?.pod_ips.as_ref()?;
        let address = addresses
            .iter()
            .find(|ip| ip.ip.parse().is_ok_and(|address: IpAddr| Family::of(&address) == self.family));
        address.filter(|_| self.is_dual).map(|ip| ip.ip.clone())
    }

    fn nodes(&self) -> Vec<Claim> {
        let mut groups: BTreeMap<(bool, PortSet), Vec<&str>> = BTreeMap::new();
        let pod = &self.world.cluster.pods[self.pod];
        let own = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        for (index, node) in self.world.cluster.nodes.iter().enumerate() {
            let (Some(end), Some(name)) = (self.table.end_of_node(index), node.metadata.name.as_deref())
            else {
                continue;
            };
            let set = self.table.ports(self.own, end).clone();
            groups.entry((Some(name) != own, set)).or_default().push(name);
        }
        let groups = groups.into_iter().map(|((is_other, set), names)| {
            let who = if is_other { "the network of " } else { "the network of its own node " };
            self.claim("nodes", &format!("{who}{}", listed(&names)), &set, format!("node/{}", names[0]), &[])
        });
        groups.collect()
    }

    fn outside(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (index, end) in self.table.ends().iter().enumerate() {
            let End::Outside { ranges, largest } = end else { continue };
            let mine: Vec<_> = ranges.iter().filter(|(first, _)| Family::of(first) == self.family).collect();
            let Some((first, last)) = mine.first() else { continue };
            let set = self.table.ports(self.own, index);
            if let Some((_, _)) = mine.iter().find(|(first, last)| (first..=last).contains(&&METADATA)) {
                let who = "the metadata service of a cloud, 169.254.169.254";
                claims.push(self.claim(
                    "metadata",
                    who,
                    set,
                    METADATA.to_string(),
                    &[Layer4::Port(Protocol::Tcp, 80)],
                ));
            }
            let (who, to) = match largest {
                true => ("the world outside of the cluster".to_owned(), self.somewhere().to_owned()),
                false if first == last => (first.to_string(), first.to_string()),
                false => (format!("{first} to {last}, outside of the cluster"), first.to_string()),
            };
            claims.push(self.claim("outside", &who, set, to, &[]));
        }
        claims
    }
}

impl From<'_> {
    /// An address of nobody's, which stands for the rest of the world (RFC 5737, RFC 3849).
    fn somewhere(&self) -> &'static str {
        match self.family {
            Family::V4 => "192.0.2.1",
            Family::V6 => "2001:db8::1",
        }
    }
}

/// `all ports`, `TCP 80; UDP 53`.
fn ports(set: &PortSet) -> String {
    match set.to_string().as_str() {
        "all" => "all ports".to_owned(),
        text => text.to_owned(),
    }
}

fn listed(names: &[&str]) -> String {
    match names.len().checked_sub(WRITTEN) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..WRITTEN].join(",")),
        _ => names.join(","),
    }
}
