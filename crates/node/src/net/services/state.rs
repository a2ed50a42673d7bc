//! What Services a node has in its table. A change of one is worked out from that Service alone: what it had, what it has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use kernel::nft::{Data, Elements, Table};
use policy::network_policy::ir::{Cidr, Family};

use super::layout::{self, Map, family_of};
use super::part::{Kind, Length, List, Placed, Value, part};
use super::uses::Uses;
use super::{Backends, ServiceChange, ServiceName, ServicePort, Stale, sources};

/// A key in a map.
type Place = (Family, Map, Vec<u8>);

/// The Services of the cluster as this node programs them.
#[derive(Debug, Default)]
pub struct Services {
    known: HashMap<Arc<ServiceName>, Vec<Placed>>,
    elements: HashMap<Place, Claims>,
    /// Ports of how many lists choose from so many endpoints.
    kinds: Uses<Kind>,
    /// Of ranges of sources.
    lengths: Uses<Length>,
    /// Numbers of lists that were given back.
    free: BTreeSet<u32>,
    /// The first number that was never given out.
    next: u32,
    /// The node's addresses, one of each family that it has maps of.
    own: Vec<IpAddr>,
}

/// Who wants an element. Nothing keeps two Services from naming the same external address: the first by name has it.
#[derive(Debug, Default)]
struct Claims(Vec<(Arc<ServiceName>, Value)>);

/// A change of the table, as the parts of it that change.
#[derive(Debug, Default)]
pub struct Difference {
    pub old: Table,
    pub new: Table,
    /// UDP connections that lead elsewhere now.
    pub stale: Vec<Stale>,
}

/// There are more lists of endpoints than numbers for them.
#[derive(Debug, thiserror::Error)]
#[error("service {0}/{1}: more than {most} lists of endpoints on one node", most = layout::MOST_LISTS)]
pub struct TooMany(String, String);

impl Claims {
    fn value(&self) -> Option<Value> {
        let (_, first) = self.0.iter().min_by(|a, b| a.0.cmp(&b.0))?;
        (*first != Value::Absent).then_some(*first)
    }
}

impl Services {
    /// For a node of these addresses.
    pub fn new(own: Vec<IpAddr>) -> Services {
        Services { own, ..Services::default() }
    }

    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.known.keys().map(AsRef::as_ref)
    }

    /// Takes the changes in, and says what becomes of the table. On error nothing of that Service is changed, and it and
    /// the later ones are as they were.
    pub fn change(&mut self, changes: Vec<ServiceChange>) -> (Difference, Option<TooMany>) {
        let mut difference = Difference::default();
        // What elements and kinds were before, of those that are touched.
        let mut elements: BTreeMap<Place, Option<Value>> = BTreeMap::new();
        let (mut kinds, mut lengths) = (BTreeMap::new(), BTreeMap::new());
        let mut too_many = None;
        // The last word about a Service counts.
        let changes: BTreeMap<_, _> = changes.into_iter().map(|change| (change.name, change.ports)).collect();
        for (name, mut ports) in changes {
            // Without IPv6 there is nobody to reach such an address.
            ports.retain(|port| self.own.iter().any(|own| own.is_ipv4() == port.cluster_ip.is_ipv4()));
            ports.iter_mut().for_each(|port| self.admit_itself(port));
            let name = Arc::new(name);
            let had = self.known.get(&name).cloned().unwrap_or_default();
            if had.iter().map(|placed| &placed.port).eq(ports.iter()) {
                continue;
            }
            let Some(has) = self.place(&had, ports) else {
                too_many = Some(TooMany(name.0.clone(), name.1.clone()));
                break;
            };
            difference.stale.extend(super::stale::find(
                &had.iter().map(|placed| &placed.port).collect::<Vec<_>>(),
                &has.iter().map(|placed| &placed.port).collect::<Vec<_>>(),
            ));
            for placed in &had {
                let part = part(&name, placed);
                for (map, key, _) in part.elements {
                    let at = (family_of(placed.port.cluster_ip), map, key);
                    if let Some(claims) = self.elements.get_mut(&at) {
                        elements.entry(at.clone()).or_insert(claims.value());
                        claims.0.retain(|(other, _)| *other != name);
                        if claims.0.is_empty() {
                            self.elements.remove(&at);
                        }
                    }
                }
                part.kinds.iter().for_each(|kind| self.kinds.release(*kind, &mut kinds));
                for (length, key) in part.sources {
                    self.lengths.release(length, &mut lengths);
                    put_source(&mut difference.old, length, Some(key));
                }
                difference.old.chains.extend(part.chains);
                difference.old.sets.extend(part.sets);
                put(&mut difference.old, family_of(placed.port.cluster_ip), Map::Sticky, part.sticky);
            }
            for placed in &has {
                let part = part(&name, placed);
                for (map, key, value) in part.elements {
                    let at = (family_of(placed.port.cluster_ip), map, key);
                    let claims = self.elements.entry(at.clone()).or_default();
                    elements.entry(at).or_insert(claims.value());
                    // A Service that names an address twice has it once.
                    if claims.0.iter().all(|(other, _)| *other != name) {
                        claims.0.push((name.clone(), value));
                    }
                }
                part.kinds.iter().for_each(|kind| self.kinds.take(*kind, &mut kinds));
                for (length, key) in part.sources {
                    self.lengths.take(length, &mut lengths);
                    put_source(&mut difference.new, length, Some(key));
                }
                difference.new.chains.extend(part.chains);
                difference.new.sets.extend(part.sets);
                put(&mut difference.new, family_of(placed.port.cluster_ip), Map::Sticky, part.sticky);
            }
            self.give_back(&had, &has);
            if has.is_empty() {
                self.known.remove(&name);
            } else {
                self.known.insert(name, has);
            }
        }
        for (place, before) in elements {
            let after = self.elements.get(&place).and_then(Claims::value);
            let (family, map, key) = place;
            for (table, value) in [(&mut difference.old, before), (&mut difference.new, after)] {
                let element = value.map(|value| ((key.clone(), false), value.data()));
                put(table, family, map, element.into_iter().collect());
            }
        }
        for (kind, was) in kinds {
            for (table, there) in
                [(&mut difference.old, was), (&mut difference.new, self.kinds.contains(&kind))]
            {
                if there {
                    put_kind(table, kind);
                }
            }
        }
        self.change_lengths(&mut difference, &lengths);
        // A map that only one side speaks of stays all the same.
        for (family, map) in [Family::V4, Family::V6].into_iter().flat_map(|f| Map::ALL.map(|map| (f, map))) {
            let name = map.name(family);
            if [&difference.old, &difference.new].iter().any(|table| table.sets.contains_key(&name)) {
                put(&mut difference.old, family, map, Elements::new());
                put(&mut difference.new, family, map, Elements::new());
            }
        }
        (difference, too_many)
    }

    /// Every Service's part, into a table that has the skeleton.
    pub fn add_to(&self, table: &mut Table) {
        for ((family, map, key), claims) in &self.elements {
            if let (Some(value), Some(set)) = (claims.value(), table.sets.get_mut(&map.name(*family))) {
                set.elements.insert((key.clone(), false), value.data());
            }
        }
        self.kinds.iter().for_each(|kind| put_kind(table, *kind));
        table.chains.extend([Family::V4, Family::V6].iter().filter_map(|family| {
            let lengths = self.lengths.iter().filter(|(of, _)| of == family).map(|(_, length)| *length);
            let lengths: BTreeSet<u8> = lengths.collect();
            (!lengths.is_empty()).then(|| sources::chain(*family, &lengths))
        }));
        for (name, placed) in &self.known {
            let own = |placed: &&Placed| placed.port.affinity.is_some() || placed.sources.is_some();
            for placed in placed.iter().filter(own) {
                let part = part(name, placed);
                for (length, key) in part.sources {
                    put_source(table, length, Some(key));
                }
                table.chains.extend(part.chains);
                table.sets.extend(part.sets);
                put(table, family_of(placed.port.cluster_ip), Map::Sticky, part.sticky);
            }
        }
    }

    /// Numbers for the lists of these ports; those that stay keep theirs. None: there are none left.
    fn place(&mut self, had: &[Placed], ports: Vec<ServicePort>) -> Option<Vec<Placed>> {
        let mut taken: Vec<u32> = Vec::new();
        let mut placed = Vec::new();
        for port in ports {
            let same = had.iter().find(|other| {
                let port_of = |p: &ServicePort| (p.cluster_ip, p.protocol, p.port);
                port_of(&other.port) == port_of(&port)
            });
            let mut lists: Vec<List> = Vec::new();
            for backends in [&port.inside, &port.outside, &port.all] {
                let Backends::Any(endpoints) = backends else { continue };
                if lists.iter().any(|list| list.endpoints == *endpoints) {
                    continue;
                }
                let at = lists.len();
                let had = same.and_then(|same| same.lists.get(at)).map(|list| list.number);
                let number = self.number(had, &mut taken)?;
                lists.push(List { number, endpoints: endpoints.clone() });
            }
            let sources = match port.guarded {
                None => None,
                Some(_) => Some(self.number(same.and_then(|same| same.sources), &mut taken)?),
            };
            placed.push(Placed { port, lists, sources });
        }
        Some(placed)
    }

    /// The number it had, else another, which is among `taken` then. None: there are none left, and those are given back.
    fn number(&mut self, had: Option<u32>, taken: &mut Vec<u32>) -> Option<u32> {
        if had.is_some() {
            return had;
        }
        let number = self.free.pop_first().or_else(|| {
            let next = self.next;
            (next < layout::MOST_LISTS).then(|| self.next += 1).map(|()| next)
        });
        match number {
            Some(number) => taken.push(number),
            None => self.free.extend(taken.drain(..)),
        }
        number
    }

    /// Where a balancer gives the node the address itself, what the node sends there comes from that address.
    fn admit_itself(&self, port: &mut ServicePort) {
        let Some(guarded) = &mut port.guarded else { return };
        if self.own.iter().any(|own| guarded.admits(own)) {
            guarded.ranges.extend(guarded.addresses.iter().map(|address| Cidr::new(*address, u8::MAX)));
        }
    }

    /// Sets of ranges come and go with the lengths in use, and with them the chain that looks into them.
    fn change_lengths(&self, difference: &mut Difference, before: &BTreeMap<Length, bool>) {
        let is: BTreeSet<Length> = self.lengths.iter().copied().collect();
        let mut was = is.clone();
        for (length, there) in before {
            if *there {
                was.insert(*length);
            } else {
                was.remove(length);
            }
        }
        let of = |all: &BTreeSet<Length>, family: Family| -> BTreeSet<u8> {
            all.iter().filter(|(of, _)| *of == family).map(|(_, length)| *length).collect()
        };
        let mut sides = [(&mut difference.old, &was), (&mut difference.new, &is)];
        for family in [Family::V4, Family::V6] {
            let changes = of(&was, family) != of(&is, family);
            for (table, lengths) in &mut sides {
                if changes {
                    table.chains.extend([sources::chain(family, &of(lengths, family))]);
                }
                before.keys().filter(|length| lengths.contains(length)).for_each(|length| {
                    put_source(table, *length, None);
                });
            }
        }
    }

    fn give_back(&mut self, had: &[Placed], has: &[Placed]) {
        let numbers = |placed: &[Placed]| -> BTreeSet<u32> {
            let of = |placed: &Placed| {
                placed.lists.iter().map(|list| list.number).chain(placed.sources).collect::<Vec<_>>()
            };
            placed.iter().flat_map(of).collect()
        };
        let kept = numbers(has);
        self.free.extend(numbers(had).into_iter().filter(|number| !kept.contains(number)));
    }
}

fn put(table: &mut Table, family: Family, map: Map, elements: Elements) {
    let set = table.sets.entry(map.name(family)).or_insert_with(|| map.set(family, Elements::new()));
    set.elements.extend(elements);
}

fn put_kind(table: &mut Table, (family, protocol, endpoints): Kind) {
    let (name, chain, (key, data)) = layout::spread_chain(family, protocol, endpoints);
    table.chains.insert(name, chain);
    put(table, family, Map::Kinds, [((key, false), data)].into());
}

/// The set of ranges of that length, and one of them.
fn put_source(table: &mut Table, (family, length): Length, key: Option<Vec<u8>>) {
    let (name, empty) = sources::set(family, length);
    let set = table.sets.entry(name).or_insert(empty);
    set.elements.extend(key.map(|key| ((key, false), Data::Nothing)));
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    use super::super::super::table;
    use super::super::Guarded;
    use super::*;
    use kernel::nft::{self, Set, Transaction};
    use policy::network_policy::ir::Protocol;

    fn endpoints(hosts: &[u8]) -> Backends {
        Backends::of(hosts.iter().map(|host| SocketAddr::from(([10, 244, 1, *host], 80))))
    }

    fn port(address: u8, protocol: Protocol, backends: Backends) -> ServicePort {
        ServicePort {
            protocol,
            port: 80,
            cluster_ip: IpAddr::V4(Ipv4Addr::new(10, 96, 0, address)),
            external_ips: BTreeSet::new(),
            guarded: None,
            node_port: None,
            affinity: None,
            inside: backends.clone(),
            outside: backends.clone(),
            all: backends,
        }
    }

    fn own() -> Vec<IpAddr> {
        vec!["10.88.0.2".parse().unwrap(), "fd00:cf:88::2".parse().unwrap()]
    }

    fn change(name: &str, ports: Vec<ServicePort>) -> ServiceChange {
        ServiceChange { name: ("foo".into(), name.into()), ports }
    }

    fn whole(services: &Services) -> Table {
        let mut table = Table::default();
        layout::skeleton::<Ipv4Addr>(&mut table);
        layout::skeleton::<Ipv6Addr>(&mut table);
        services.add_to(&mut table);
        table
    }

    /// Plays a difference on a table, as the kernel would.
    fn play(table: &mut Table, difference: &Difference) {
        for (name, set) in &difference.old.sets {
            if let Some(mine) = table.sets.get_mut(name) {
                for key in set.elements.keys() {
                    assert!(mine.elements.remove(key).is_some(), "{name} has no {key:?}");
                }
            }
        }
        for name in difference.old.sets.keys().filter(|name| !difference.new.sets.contains_key(*name)) {
            let is_map = |map: &Map| [Family::V4, Family::V6].iter().any(|family| map.name(*family) == *name);
            assert!(!Map::ALL.iter().any(is_map), "a map of all Services goes");
            table.sets.remove(name);
        }
        for name in difference.old.chains.keys() {
            table.chains.remove(name);
        }
        for (name, set) in &difference.new.sets {
            let mine = table
                .sets
                .entry(name.clone())
                .or_insert_with(|| Set { of: set.of.clone(), elements: Elements::new() });
            mine.elements.extend(set.elements.clone());
        }
        table.chains.extend(difference.new.chains.clone());
    }

    #[test]
    fn differences_add_up_to_the_whole() {
        let mut services = Services::new(own());
        let mut table = whole(&services);
        let mut state = 1u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for _ in 0..2000 {
            let names = 1 + random(3);
            let changes = (0..names).map(|_| {
                let name = random(6) as u8;
                let ports = (0..random(3)).map(|at| {
                    let list: Vec<u8> = (0..random(4)).map(|_| random(8) as u8).collect();
                    let protocol = Protocol::ALL[random(3) as usize];
                    let mut port = port(name * 3 + at as u8, protocol, endpoints(&list));
                    if random(4) == 0 {
                        port.cluster_ip =
                            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(name * 3 + at as u8)]);
                    }
                    // All Services fight about two external addresses.
                    port.external_ips = (0..random(3)).map(|n| IpAddr::from([192, 0, 2, n as u8])).collect();
                    let ranges = |n| Cidr::new(IpAddr::from([10, n as u8, 0, 0]), 8 * (1 + n as u8));
                    port.guarded = (random(2) == 0).then(|| Guarded {
                        addresses: port.external_ips.clone(),
                        ranges: (0..random(4)).map(ranges).collect(),
                    });
                    port.node_port = (random(2) == 0).then(|| 30000 + u16::from(name));
                    port.affinity = (random(4) == 0).then_some(10);
                    match random(4) {
                        0 => port.outside = Backends::NobodyHere,
                        1 => port.inside = Backends::NobodyHere,
                        2 => port.outside = endpoints(&list[..list.len().min(1)]),
                        _ => {}
                    }
                    port
                });
                change(&format!("s{name}"), ports.collect())
            });
            let (difference, error) = services.change(changes.collect());
            assert!(error.is_none());
            play(&mut table, &difference);
            assert!(table == whole(&services));
        }
        let all: Vec<_> = services.names().cloned().collect();
        let gone = all.into_iter().map(|name| ServiceChange { name, ports: Vec::new() });
        let (difference, _) = services.change(gone.collect());
        play(&mut table, &difference);
        assert!(table == whole(&Services::new(own())));
        assert_eq!(services.free.len(), services.next as usize);
    }

    #[test]
    fn a_change_costs_what_changes() {
        let mut services = Services::new(own());
        let many =
            (0..=255).map(|n| change(&format!("s{n}"), vec![port(n, Protocol::Tcp, endpoints(&[1, 2]))]));
        services.change(many.collect());
        let (difference, _) =
            services.change(vec![change("s7", vec![port(7, Protocol::Tcp, endpoints(&[1, 3]))])]);
        let mut transaction = Transaction::new(nft::Family::Inet, table::TABLE);
        assert!(transaction.change(&difference.old, &difference.new));
        let (messages, bytes) = transaction.size();
        assert_eq!(messages, 2, "one endpoint goes, one comes");
        assert!(bytes < 400, "{bytes}");
    }

    #[test]
    fn the_first_by_name_has_an_address_that_two_name() {
        let outside: IpAddr = [192, 0, 2, 1].into();
        let claim = |host: u8| {
            let mut port = port(host, Protocol::Tcp, endpoints(&[host]));
            port.external_ips.insert(outside);
            port
        };
        let mut services = Services::new(own());
        services.change(vec![change("b", vec![claim(2)]), change("a", vec![claim(1)])]);
        let at = |services: &Services| {
            let key = layout::address_key(outside, Protocol::Tcp, 80);
            let mark = services.elements[&(Family::V4, Map::Services, key)].value();
            let Some(Value::Mark(mark)) = mark else { panic!("{mark:?}") };
            services.elements[&(Family::V4, Map::Endpoints, layout::endpoint_key(mark, 0))].value()
        };
        assert_eq!(at(&services), Some(Value::Endpoint("10.244.1.1:80".parse().unwrap())));
        // What the other says of clients from outside counts as little.
        let mut local = claim(2);
        local.outside = Backends::NobodyHere;
        services.change(vec![change("b", vec![local])]);
        let said = |services: &Services, map: Map| {
            let key = layout::address_key(outside, Protocol::Tcp, 80);
            services.elements[&(Family::V4, map, key)].value()
        };
        assert_eq!(said(&services, Map::DroppedOutside), None);
        services.change(vec![change("a", Vec::new())]);
        assert_eq!(at(&services), Some(Value::Endpoint("10.244.1.2:80".parse().unwrap())));
        assert_eq!(said(&services, Map::DroppedOutside), Some(Value::Nothing));
    }
}
