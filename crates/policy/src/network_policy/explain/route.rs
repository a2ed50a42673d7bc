//! Where a packet comes to: which node translates it, to whom, and whom each side's policies see then.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::answer::{Connection, Party, PartyKind, SentTo, Targets, TranslatedBy, Translation};
use super::judge::{self, Ends};
use super::{World, shown};
use crate::network_policy::ir::{Family, Layer4, Protocol};
use crate::services::{By, Fate, Front, NodeTable, Packet, Why, ZONE};

/// A packet that is asked about.
pub(super) struct Ask {
    pub to: Party,
    pub port: Layer4,
    /// What the port is called, ` (http)`.
    pub called: String,
    /// The node that it comes to from outside, where that does not follow from its address.
    pub entry: Option<String>,
}

/// What became of all packets.
#[derive(Default)]
pub(super) struct Routed {
    pub translations: Vec<Translation>,
    pub connections: Vec<Connection>,
    pub notes: Vec<String>,
}

/// Follows packets of a client.
pub(super) struct Router<'a> {
    world: &'a World<'a>,
    client: &'a Party,
    tables: BTreeMap<String, NodeTable>,
    routed: Routed,
}

impl<'a> Router<'a> {
    pub fn new(world: &'a World<'a>, client: &'a Party) -> Router<'a> {
        Router { world, client, tables: BTreeMap::new(), routed: Routed::default() }
    }

    pub fn follow(mut self, asks: Vec<Ask>) -> Routed {
        asks.into_iter().for_each(|ask| self.one(&ask));
        self.routed.notes.dedup();
        self.routed
    }

    fn one(&mut self, ask: &Ask) {
        let (node, fate) = match ask.port {
            Layer4::Port(protocol, number) => {
                self.fate(ask, protocol, SocketAddr::new(ask.to.address, number))
            }
            Layer4::Other(_) => (None, Fate::Untranslated),
        };
        let (by, endpoints, words) = match fate {
            Fate::Untranslated => {
                let ends = Ends::direct(self.client, &ask.to, ask.port);
                return self.routed.connections.push(judge::connection(self.world, ends));
            }
            Fate::Led(by, endpoints) => {
                let words: Vec<String> = endpoints.iter().map(SocketAddr::to_string).collect();
                (by, endpoints, words.join(", "))
            }
            Fate::Refused(by) => {
                let note = "a Service without ready endpoints refuses connections at once";
                self.routed.notes.push(note.to_string());
                (by, Vec::new(), "no ready endpoints".to_string())
            }
            Fate::Dropped(by, why) => {
                let words = self.dropped(&by, why, node.as_deref());
                (by, Vec::new(), words)
            }
        };
        let line = format!("{}{} → {words}", shown(&ask.port), ask.called);
        let stands = node.as_deref().and_then(|node| self.node(node, ask.to.address));
        let at = self.translation(by, ask.to.address, stands.clone());
        if let Some(translation) = self.routed.translations.get_mut(at) {
            translation.ports.push(line);
            translation.targets.push(Targets { port: ask.port, endpoints: endpoints.clone() });
        }
        for endpoint in endpoints {
            let server = self.world.at(endpoint.ip()).party;
            let Layer4::Port(protocol, _) = ask.port else { continue };
            let ends = Ends {
                // The answer has to come back to the node that translated.
                seen_as: stands.clone().filter(|stands| stands.node != server.node),
                sent_to: node.is_some().then(|| SentTo { to: ask.to.clone(), port: ask.port }),
                translation: Some(at),
                ..Ends::direct(self.client, &server, Layer4::Port(protocol, endpoint.port()))
            };
            self.routed.connections.push(judge::connection(self.world, ends));
        }
    }

    /// The client's own node is asked first, then the one that the packet comes to; with the name of the latter, if it is
    /// that one that translates.
    fn fate(&mut self, ask: &Ask, protocol: Protocol, to: SocketAddr) -> (Option<String>, Fate) {
        let packet = |from_outside| Packet { protocol, source: self.client.address, to, from_outside };
        let (inside, outside) = (packet(false), packet(true));
        let own = match self.client.kind {
            PartyKind::Outside => None,
            // Of an unknown node it is known that it translates addresses.
            _ => Some(self.client.node.clone().unwrap_or_default()),
        };
        if let Some(own) = &own {
            let fate = self.table(own).fate(&inside);
            if fate != Fate::Untranslated {
                return (None, fate);
            }
        }
        let is_node = matches!(ask.to.kind, PartyKind::Node | PartyKind::HostNetworkPod);
        let there = ask.entry.clone().or_else(|| ask.to.node.clone().filter(|_| is_node));
        match there.filter(|there| own.as_ref() != Some(there)) {
            Some(there) => {
                let fate = self.table(&there).fate(&outside);
                (Some(there).filter(|_| fate != Fate::Untranslated), fate)
            }
            None => (None, Fate::Untranslated),
        }
    }

    fn table(&mut self, node: &str) -> &NodeTable {
        let world = self.world;
        self.tables.entry(node.to_string()).or_insert_with(|| {
            let found = world.cluster.nodes.iter().find(|one| one.metadata.name.as_deref() == Some(node));
            let zone = found.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE)).map(String::as_str);
            let own = found.and_then(super::node_end).map(|end| end.addresses).unwrap_or_default();
            NodeTable::new((node, zone, own), world.services, world.slices, world.cluster.pods)
        })
    }

    /// A node, with its address of that family.
    fn node(&self, name: &str, family: IpAddr) -> Option<Party> {
        let found = self.world.cluster.nodes.iter().find(|one| one.metadata.name.as_deref() == Some(name));
        super::node_end(found?)?.of(Family::of(&family))
    }

    fn dropped(&mut self, by: &By, why: Why, node: Option<&str>) -> String {
        let who = node.unwrap_or("the client's node");
        let (words, note) = match (why, by) {
            (Why::NotAdmitted, _) => {
                let source = self.client.address;
                let note = format!("{source} is in none of its loadBalancerSourceRanges: {who} drops it");
                ("no source that may come", note)
            }
            (Why::NobodyHere, By::Service(_, Front::ClusterIp)) => (
                "no ready endpoints on the client's node",
                "without an endpoint there, the client's node drops it".to_string(),
            ),
            (Why::NobodyHere, _) => (
                "no ready endpoints on this node",
                format!(
                    "externalTrafficPolicy Local: {who} has no endpoint, and drops what comes from outside"
                ),
            ),
        };
        self.routed.notes.push(note);
        words.to_string()
    }

    /// The translation that a packet goes through, which others may go through too.
    fn translation(&mut self, by: By, address: IpAddr, node: Option<Party>) -> usize {
        let (by, name, of_type) = match by {
            By::Service((namespace, name), front) => {
                let of_type = self.world.services.iter().find_map(|service| {
                    let meta = &service.metadata;
                    let same =
                        meta.namespace.as_ref() == Some(&namespace) && meta.name.as_ref() == Some(&name);
                    same.then(|| service.spec.as_ref()?.type_.clone())
                });
                let by = match front {
                    Front::ClusterIp | Front::External => TranslatedBy::Service,
                    Front::NodePort => TranslatedBy::NodePort,
                };
                let of_type = of_type.flatten().unwrap_or_else(|| "ClusterIP".into());
                (by, format!("{namespace}/{name}"), Some(of_type))
            }
            By::HostPort(namespace, name) => (TranslatedBy::HostPort, format!("{namespace}/{name}"), None),
        };
        let all = &mut self.routed.translations;
        let same = |one: &Translation| {
            one.by == by && one.name == name && one.address == Some(address) && one.node == node
        };
        all.iter().position(same).unwrap_or_else(|| {
            let (ports, targets) = (Vec::new(), Vec::new());
            all.push(Translation { by, name, of_type, address: Some(address), node, ports, targets });
            all.len() - 1
        })
    }
}
