//! What a cluster has on the machine itself: the uplink, the table `inet cofferdam-<id>`, `ip_forward`, and accept rules
//! beside those of others that drop what they do not know (Docker's FORWARD policy).

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use kernel::netlink::{Batch, Family, Socket, ignore_missing};
use kernel::nft::{
    self, Base, Chain, ChainKind, CommitError, DataType, Hook, Set, SetType, Table, Transaction,
    interval_elements,
};
use kernel::route::netns::{read_sysctl, write_sysctl};
use kernel::route::{self, Ipv4Net, VethEnd};

use super::exprs::*;
use super::fabric::{API_PORT, FABRIC_UPLINK, FabricConfig, FabricError, LINK_PATIENCE, find, mac_of};

/// The link between the machine and the fabric.
#[derive(Clone, Copy, Debug)]
pub struct Uplink {
    pub machine: Ipv4Addr,
    pub fabric: Ipv4Addr,
    pub mtu: u32,
}

const FORWARD: &str = "net/ipv4/ip_forward";
/// Turning `ip_forward` on turns this off, and the other way round.
const REDIRECTS: &str = "net/ipv4/conf/all/accept_redirects";

fn table_name(id: &str) -> String {
    format!("cofferdam-{id}")
}

fn uplink_name(id: &str) -> String {
    format!("cfd-{id}")
}

/// Makes the uplink and everything on the machine's side; `inside` sets the fabric's side up while the link is still
/// down here. Returns the uplink and what the user should know.
pub fn connect(
    id: &str,
    fabric: BorrowedFd<'_>,
    inside: impl FnOnce(&Uplink) -> Result<(), FabricError>,
) -> Result<(Uplink, Vec<String>), FabricError> {
    let name = uplink_name(id);
    let mut socket = Socket::open(Family::Route)?;
    let mut rules = Socket::open(Family::Netfilter)?;
    let before = sysctls_before(&mut rules)?;
    let mut attempt = 0;
    let (uplink, link) = loop {
        let uplink = choose(&mut socket, id, attempt)?;
        // The table first: its comment is what teardown restores from, whatever happens next.
        write_machine_table(&mut rules, id, &before, uplink.fabric)?;
        if let Some(link) = make_uplink(&mut socket, &name, fabric, &uplink)? {
            break (uplink, link);
        }
        attempt += 1;
    };
    inside(&uplink)?;
    let mut batch = Batch::new();
    route::set_up(&mut batch, link);
    route::replace_neighbour(&mut batch, link, uplink.fabric, mac_of(uplink.fabric));
    socket.request(&batch)?;
    if !route::wait_running(&mut socket, link, LINK_PATIENCE)? {
        return Err(FabricError::LinkDown(name));
    }
    if before.forward != "1" {
        write_sysctl(FORWARD, "1")?;
    }
    let warnings = accept_beside_others(&mut rules, id)?;
    Ok((uplink, warnings))
}

/// Makes the link; None if another cluster took the same block at the same moment: the older link keeps it.
fn make_uplink(
    socket: &mut Socket,
    name: &str,
    fabric: BorrowedFd<'_>,
    uplink: &Uplink,
) -> Result<Option<u32>, FabricError> {
    let mut batch = Batch::new();
    let machine_end = VethEnd { name, mac: mac_of(uplink.machine), netns: None };
    let fabric_end = VethEnd { name: FABRIC_UPLINK, mac: mac_of(uplink.fabric), netns: Some(fabric) };
    route::add_veth(&mut batch, machine_end, fabric_end, uplink.mtu);
    socket.request(&batch)?;
    let link = find(socket, name)?;
    match write_sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1") {
        Err(e) if e.error.kind() == std::io::ErrorKind::NotFound => {}
        other => other?,
    }
    let mut batch = Batch::new();
    route::add_address(&mut batch, link, uplink.machine, 30);
    socket.request(&batch)?;
    let block = Ipv4Net::new(uplink.machine, 30);
    let taken = |a: &route::Address| a.link < link && Ipv4Net::new(a.address, a.prefix).overlaps(&block);
    if !route::addresses(socket)?.iter().any(taken) {
        return Ok(Some(link));
    }
    let mut batch = Batch::new();
    route::delete_link(&mut batch, name);
    socket.request(&batch)?;
    Ok(None)
}

/// What the machine had before the first cluster came.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Before {
    forward: String,
    redirects: String,
}

impl Before {
    fn comment(&self) -> String {
        format!("before: ip_forward={} accept_redirects={}", self.forward, self.redirects)
    }

    fn parse(comment: &str) -> Option<Before> {
        let mut words = comment.strip_prefix("before: ")?.split(' ');
        let forward = words.next()?.strip_prefix("ip_forward=")?.to_string();
        let redirects = words.next()?.strip_prefix("accept_redirects=")?.to_string();
        Some(Before { forward, redirects })
    }
}

/// Other clusters' notes of what was before.
fn others(rules: &mut Socket, id: Option<&str>) -> Result<Vec<Before>, FabricError> {
    let own = id.map(table_name);
    let tables = nft::tables(rules, nft::Family::Inet)?;
    Ok(tables
        .into_iter()
        .filter(|(name, _)| name.starts_with("cofferdam-") && Some(name) != own.as_ref())
        .filter_map(|(_, comment)| Before::parse(&comment?))
        .collect())
}

fn sysctls_before(rules: &mut Socket) -> Result<Before, FabricError> {
    // What was before the first of us, not what that one set.
    match others(rules, None)?.into_iter().next() {
        Some(before) => Ok(before),
        None => Ok(Before { forward: read_sysctl(FORWARD)?, redirects: read_sysctl(REDIRECTS)? }),
    }
}

/// A /30 of 100.64.0.0/10 (shared address space, RFC 6598) that no address or route of this machine touches. Where to
/// start looking follows from the id, so that clusters that start at once rarely meet.
fn choose(socket: &mut Socket, id: &str, attempt: u32) -> Result<Uplink, FabricError> {
    const SHARED: Ipv4Net = Ipv4Net::new(Ipv4Addr::new(100, 64, 0, 0), 10);
    const BLOCKS: u32 = 1 << 20;
    let mut used: Vec<Ipv4Net> =
        route::addresses(socket)?.iter().map(|a| Ipv4Net::new(a.address, a.prefix)).collect();
    let routes = route::routes(socket)?;
    used.extend(routes.iter().map(|route| route.to).filter(|to| to.prefix() > 0));
    used.retain(|block| block.overlaps(&SHARED));
    let start =
        id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let free = (0..BLOCKS)
        .filter_map(|n| SHARED.subnet(30, start.wrapping_add(n).wrapping_add(attempt * 7919) % BLOCKS))
        .find(|block| !used.iter().any(|other| other.overlaps(block)));
    let (Some(block), mtu) = (free, mtu_to_the_world(socket, &routes)?) else {
        return Err(FabricError::NoUplinkAddress);
    };
    match (block.nth(1), block.nth(2)) {
        (Some(machine), Some(fabric)) => Ok(Uplink { machine, fabric, mtu }),
        _ => Err(FabricError::NoUplinkAddress),
    }
}

/// The MTU of the link with the default route, so that no packet needs to be cut on its way; 1500 without one.
fn mtu_to_the_world(socket: &mut Socket, routes: &[route::Route]) -> Result<u32, FabricError> {
    let default = routes.iter().find(|route| route.to.prefix() == 0);
    let links = route::links(socket)?;
    let link = default.and_then(|route| links.iter().find(|link| link.index == route.link));
    Ok(link.map_or(1500, |link| link.mtu.clamp(576, 9000)))
}

fn base(kind: ChainKind, hook: Hook, priority: i32) -> Option<Base> {
    Some(Base { kind, hook, priority, drop: false })
}

fn write_machine_table(
    rules: &mut Socket,
    id: &str,
    before: &Before,
    fabric: Ipv4Addr,
) -> Result<(), FabricError> {
    let link = uplink_name(id);
    let answers = ESTABLISHED | RELATED;
    let mut table = Table::default();
    table.chains.insert(
        "forward".into(),
        Chain {
            base: base(ChainKind::Filter, Hook::Forward, 0),
            rules: vec![
                rule([iifname(&link), saddr_not(fabric), drop()]),
                rule([oifname(&link), ct_state(answers), accept()]),
                // Nobody outside of the machine reaches in.
                rule([oifname(&link), drop()]),
            ],
        },
    );
    table.chains.insert(
        "input".into(),
        Chain {
            base: base(ChainKind::Filter, Hook::Input, 0),
            rules: vec![
                rule([iifname(&link), saddr_not(fabric), drop()]),
                rule([iifname(&link), ct_state(answers), accept()]),
                // What listens on the machine is not a neighbour of the pods.
                rule([iifname(&link), ipv4(), reject(ADMIN_PROHIBITED)]),
            ],
        },
    );
    table.chains.insert(
        "postrouting".into(),
        Chain {
            base: base(ChainKind::Nat, Hook::Postrouting, 100),
            rules: vec![rule([saddr_is(fabric), oifname_not(&link), masquerade()])],
        },
    );
    let mut transaction = Transaction::new(nft::Family::Inet, &table_name(id));
    // In place of an earlier attempt's, if there is one.
    transaction.add_table(None);
    transaction.delete_table();
    transaction.add_table(Some(&before.comment()));
    transaction.add_all(&table);
    Ok(transaction.commit(rules)?)
}

/// The fabric's own table: masquerade behind the uplink, nothing new from outside, nothing for the cluster's own ranges
/// out of it, and of itself the API server's port alone, to nodes and pods.
pub fn write_fabric_table(
    netns: BorrowedFd<'_>,
    config: &FabricConfig,
    gateway: Ipv4Addr,
) -> Result<(), FabricError> {
    const ICMP: u8 = 1;
    const TCP: u8 = 6;
    let ranges = [config.node_cidr, config.pod_cidr, config.service_cidr];
    let mut table = Table::default();
    table.sets.insert(
        "cluster".into(),
        Set {
            of: SetType::intervals(DataType::Ipv4Addr),
            elements: interval_elements(ranges.map(|range| (range.network(), range.last()))),
        },
    );
    table.chains.insert(
        "forward".into(),
        Chain {
            base: base(ChainKind::Filter, Hook::Forward, 0),
            rules: vec![
                rule([oifname(FABRIC_UPLINK), daddr_in_set("cluster"), reject(HOST_UNREACHABLE)]),
                rule([iifname(FABRIC_UPLINK), ct_state(ESTABLISHED | RELATED), accept()]),
                rule([iifname(FABRIC_UPLINK), drop()]),
            ],
        },
    );
    table.chains.insert(
        "input".into(),
        Chain {
            base: base(ChainKind::Filter, Hook::Input, 0),
            rules: vec![
                rule([iifname("lo"), accept()]),
                rule([ct_state(ESTABLISHED | RELATED), accept()]),
                rule([iifname(FABRIC_UPLINK), drop()]),
                rule([l4proto(TCP), daddr_is(gateway), server_port(API_PORT, API_PORT), accept()]),
                // Nodes and pods may ask whether their gateway is there.
                rule([l4proto(ICMP), accept()]),
                rule([ipv4(), reject(ADMIN_PROHIBITED)]),
            ],
        },
    );
    table.chains.insert(
        "postrouting".into(),
        Chain {
            base: base(ChainKind::Nat, Hook::Postrouting, 100),
            rules: vec![rule([oifname(FABRIC_UPLINK), masquerade()])],
        },
    );
    let mut transaction = Transaction::new(nft::Family::Inet, "cofferdam");
    transaction.add_table(None);
    transaction.add_all(&table);
    Ok(transaction.commit(&mut Socket::open_in(netns, Family::Netfilter)?)?)
}

/// An accept in our table does not overrule a drop in another. Where another's forward chain drops by policy (Docker
/// does that in iptables' `filter FORWARD`), accept rules for our link are put at its head; they carry our table's name
/// as their comment.
fn accept_beside_others(rules: &mut Socket, id: &str) -> Result<Vec<String>, FabricError> {
    let (link, comment) = (uplink_name(id), table_name(id));
    let mut warnings = Vec::new();
    for (family, word) in [(nft::Family::Ip, "ip"), (nft::Family::Inet, "inet")] {
        for chain in nft::base_chains(rules, family)? {
            if chain.base.hook != Hook::Forward || !chain.base.drop || chain.base.kind != ChainKind::Filter {
                continue;
            }
            let mut transaction = Transaction::new(family, &chain.table);
            transaction.insert_rule(&chain.name, &rule([iifname(&link), accept()]), &comment);
            transaction.insert_rule(&chain.name, &rule([oifname(&link), accept()]), &comment);
            match transaction.commit(rules) {
                Ok(()) => {}
                Err(CommitError::Netlink(error)) => warnings.push(format!(
                    "pods have no way out to the world: table {word} {} drops what is forwarded, and an accept rule \
                     cannot be put there ({error})",
                    chain.table
                )),
                Err(other) => return Err(other.into()),
            }
        }
    }
    // Legacy iptables cannot be read or written over nf_tables.
    let legacy = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        warnings.push(format!(
            "legacy iptables rules are in force; if they drop what is forwarded, pods have no way out until you run: \
             iptables-legacy -I FORWARD -i {link} -j ACCEPT; iptables-legacy -I FORWARD -o {link} -j ACCEPT"
        ));
    }
    Ok(warnings)
}

pub fn disconnect(id: &str) -> Result<Vec<String>, FabricError> {
    let (link, name) = (uplink_name(id), table_name(id));
    let mut done = Vec::new();
    let mut socket = Socket::open(Family::Route)?;
    let mut rules = Socket::open(Family::Netfilter)?;
    if route::index_of(&mut socket, &link)?.is_some() {
        let mut batch = Batch::new();
        route::delete_link(&mut batch, &link);
        // It may go by itself at this very moment, with the fabric's namespace.
        ignore_missing(socket.request(&batch))?;
        done.push(format!("removed link {link}"));
    }
    for family in [nft::Family::Ip, nft::Family::Inet] {
        for chain in nft::base_chains(&mut rules, family)? {
            if chain.base.hook != Hook::Forward {
                continue;
            }
            let handles = nft::rules_with_comment(&mut rules, family, &chain.table, &chain.name, &name)?;
            if handles.is_empty() {
                continue;
            }
            let mut transaction = Transaction::new(family, &chain.table);
            for handle in handles {
                transaction.delete_rule(&chain.name, handle);
            }
            transaction.commit(&mut rules)?;
            done.push(format!("removed rules from {} {}", chain.table, chain.name));
        }
    }
    let tables = nft::tables(&mut rules, nft::Family::Inet)?;
    if let Some((_, comment)) = tables.into_iter().find(|(table, _)| *table == name) {
        let before = comment.as_deref().and_then(Before::parse);
        // The last cluster to go restores what was before the first.
        if let Some(before) =
            before.filter(|_| others(&mut rules, Some(id)).is_ok_and(|others| others.is_empty()))
        {
            if read_sysctl(FORWARD)? != before.forward {
                write_sysctl(FORWARD, &before.forward)?;
                done.push(format!("ip_forward is {} again", before.forward));
            }
            if read_sysctl(REDIRECTS)? != before.redirects {
                write_sysctl(REDIRECTS, &before.redirects)?;
            }
        }
        let mut transaction = Transaction::new(nft::Family::Inet, &name);
        transaction.delete_table();
        match transaction.commit(&mut rules) {
            // Someone flushed the rule set meanwhile.
            Err(CommitError::Netlink(error)) => ignore_missing(Err(error))?,
            other => other?,
        }
        done.push(format!("removed table {name}"));
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_survives_in_a_comment() {
        let before = Before { forward: "0".into(), redirects: "1".into() };
        assert_eq!(Before::parse(&before.comment()), Some(before));
        assert_eq!(Before::parse("someone else's"), None);
    }
}
