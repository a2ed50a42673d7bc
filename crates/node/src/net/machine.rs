//! What a cluster has on the machine itself: the uplink, the table `inet cofferdam-<id>`, forwarding, and accept rules
//! beside those of others that drop what they do not know (Docker's FORWARD policy).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use kernel::netlink::{Batch, Family, Socket, ignore_missing};
use kernel::nft::{
    self, Base, Chain, ChainKind, CommitError, DataType, Hook, Rule, Set, SetType, Table, Transaction,
    interval_elements,
};
use kernel::route::netns::write_sysctl;
use kernel::route::{self, Ip, Ipv4Net, Ipv6Net, Net, VethEnd};

use super::before::{ACCEPT_RA, Before};
use super::exprs::*;
use super::fabric::{
    API_PORT, FABRIC_UPLINK, FabricConfig, FabricError, LINK_PATIENCE, Ranges, find, mac_of,
};

/// The link between the machine and the fabric.
#[derive(Clone, Copy, Debug)]
pub struct Uplink {
    pub v4: Ends<Ipv4Addr>,
    /// None: the cluster has no IPv6, or the machine has no way to the world by it.
    pub v6: Option<Ends<Ipv6Addr>>,
    pub mtu: u32,
}

/// Its addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Ends<A> {
    pub machine: A,
    pub fabric: A,
}

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
    with_v6: bool,
    inside: impl FnOnce(&Uplink) -> Result<(), FabricError>,
) -> Result<(Uplink, Vec<String>), FabricError> {
    let name = uplink_name(id);
    let mut socket = Socket::open(Family::Route)?;
    let mut rules = Socket::open(Family::Netfilter)?;
    let world = with_v6 && route::routes::<Ipv6Addr>(&mut socket)?.iter().any(|r| r.to.prefix() == 0);
    let before = Before::read(&mut rules, world)?;
    let mut attempt = 0;
    let (uplink, link) = loop {
        let mut uplink = choose(&mut socket, id, attempt)?;
        if with_v6 {
            // IPv6 takes no link with less (RFC 8200).
            uplink.mtu = uplink.mtu.max(1280);
        }
        uplink.v6 = uplink.v6.filter(|_| world);
        // The table first: its comment is what teardown restores from, whatever happens next.
        write_machine_table(&mut rules, id, &before, &uplink)?;
        if let Some(link) = make_uplink(&mut socket, &name, fabric, &uplink)? {
            break (uplink, link);
        }
        attempt += 1;
    };
    inside(&uplink)?;
    let mut batch = Batch::new();
    route::set_up(&mut batch, link);
    let fabric_mac = mac_of(uplink.v4.fabric);
    route::replace_neighbour(&mut batch, link, uplink.v4.fabric, fabric_mac);
    if let Some(ends) = uplink.v6 {
        route::add_address(&mut batch, link, ends.machine, 126);
        route::add_local_route(&mut batch, link, ends.machine);
        route::replace_neighbour(&mut batch, link, ends.fabric, fabric_mac);
    }
    socket.request(&batch)?;
    if !route::wait_running(&mut socket, link, LINK_PATIENCE)? {
        return Err(FabricError::LinkDown(name));
    }
    before.forward()?;
    let mut warnings = accept_beside_others(&mut rules, id, uplink.v6.is_some())?;
    if with_v6 && !world {
        warnings.push(
            "pods have no way out to the world by IPv6: this machine has no default route of it".to_string(),
        );
    }
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
    let machine_end = VethEnd { name, mac: mac_of(uplink.v4.machine), netns: None };
    let fabric_end = VethEnd { name: FABRIC_UPLINK, mac: mac_of(uplink.v4.fabric), netns: Some(fabric) };
    route::add_veth(&mut batch, machine_end, fabric_end, uplink.mtu);
    socket.request(&batch)?;
    let link = find(socket, name)?;
    let conf: &[(&str, &str)] = match uplink.v6 {
        None => &[("disable_ipv6", "1")],
        // No fe80::, and nothing taken from behind the link.
        Some(_) => &[("addr_gen_mode", "1"), ("accept_ra", "0"), ("accept_redirects", "0")],
    };
    for (key, value) in conf {
        match write_sysctl(&format!("net/ipv6/conf/{name}/{key}"), value) {
            Err(e) if e.error.kind() == std::io::ErrorKind::NotFound && uplink.v6.is_none() => {}
            other => other?,
        }
    }
    let mut batch = Batch::new();
    route::add_address(&mut batch, link, uplink.v4.machine, 30);
    socket.request(&batch)?;
    let block = Ipv4Net::new(uplink.v4.machine, 30);
    let taken = |a: &route::Address<Ipv4Addr>| a.link < link && Net::of(a.address, a.prefix).overlaps(&block);
    if !route::addresses(socket)?.iter().any(taken) {
        return Ok(Some(link));
    }
    let mut batch = Batch::new();
    route::delete_link(&mut batch, name);
    socket.request(&batch)?;
    Ok(None)
}

/// A /30 of 100.64.0.0/10 (shared address space, RFC 6598; where the machine's own network is there, of 198.18.0.0/15,
/// RFC 2544), and the /126 of the same number of fd00:cf:64::/48, that no address or route of this machine touches. Where
/// to start looking follows from the id, so that clusters that start at once rarely meet.
fn choose(socket: &mut Socket, id: &str, attempt: u32) -> Result<Uplink, FabricError> {
    const SHARED: [Ipv4Net; 2] =
        [Ipv4Net::new(Ipv4Addr::new(100, 64, 0, 0), 10), Ipv4Net::new(Ipv4Addr::new(198, 18, 0, 0), 15)];
    const SHARED6: Ipv6Net = Ipv6Net::new(Ipv6Addr::new(0xfd00, 0xcf, 0x64, 0, 0, 0, 0, 0), 48);
    let used6 = in_use(socket, SHARED6)?;
    let start =
        id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut free = None;
    for shared in SHARED {
        let used = in_use(socket, shared)?;
        if free.is_some() || used.iter().any(|other| other.prefix() <= shared.prefix()) {
            continue;
        }
        let blocks = 1u32 << (30 - shared.prefix());
        free = (0..blocks)
            .map(|n| start.wrapping_add(n).wrapping_add(attempt * 7919) % blocks)
            .filter_map(|number| Some((shared.subnet(30, number)?, SHARED6.subnet(126, number)?)))
            .find(|(block, block6)| {
                !used.iter().any(|other| other.overlaps(block))
                    && !used6.iter().any(|other| other.overlaps(block6))
            });
    }
    let mtu = mtu_to_the_world(socket)?;
    let ends = free.and_then(|(block, block6)| Some((ends(block)?, ends(block6)?)));
    let (v4, v6) = ends.ok_or(FabricError::NoUplinkAddress)?;
    Ok(Uplink { v4, v6: Some(v6), mtu })
}

fn ends<A: Ip>(block: Net<A>) -> Option<Ends<A>> {
    Some(Ends { machine: block.nth(1)?, fabric: block.nth(2)? })
}

/// What of a range the machine's addresses and routes touch.
fn in_use<A: Ip>(socket: &mut Socket, range: Net<A>) -> Result<Vec<Net<A>>, FabricError> {
    let mut used: Vec<Net<A>> =
        route::addresses(socket)?.iter().map(|a| Net::of(a.address, a.prefix)).collect();
    used.extend(route::routes(socket)?.iter().map(|route| route.to).filter(|to| to.prefix() > 0));
    used.retain(|block| block.overlaps(&range));
    Ok(used)
}

/// The MTU of the link with the default route, so that no packet needs to be cut on its way; 1500 without one.
fn mtu_to_the_world(socket: &mut Socket) -> Result<u32, FabricError> {
    let routes = route::routes::<Ipv4Addr>(socket)?;
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
    uplink: &Uplink,
) -> Result<(), FabricError> {
    let link = uplink_name(id);
    let answers = ESTABLISHED | RELATED;
    let lies = || {
        let mut lies = vec![rule([iifname(&link), saddr_not(uplink.v4.fabric), drop()])];
        lies.push(match uplink.v6 {
            Some(ends) => rule([iifname(&link), saddr_not(ends.fabric), drop()]),
            None => rule([iifname(&link), family::<Ipv6Addr>(), drop()]),
        });
        lies
    };
    let mut table = Table::default();
    if let Some(links) = before.links() {
        table.sets.insert(ACCEPT_RA.into(), links);
    }
    let mut forward = lies();
    forward.extend([
        rule([oifname(&link), ct_state(answers), accept()]),
        // Nobody outside of the machine reaches in.
        rule([oifname(&link), drop()]),
    ]);
    let mut input = lies();
    input.extend([
        rule([iifname(&link), ct_state(answers), accept()]),
        // What listens on the machine is not a neighbour of the pods.
        rule([iifname(&link), family::<Ipv4Addr>(), reject::<Ipv4Addr>(Unreachable::AdminProhibited)]),
        rule([iifname(&link), family::<Ipv6Addr>(), reject::<Ipv6Addr>(Unreachable::AdminProhibited)]),
    ]);
    let mut postrouting = vec![rule([saddr_is(uplink.v4.fabric), oifname_not(&link), masquerade()])];
    postrouting.extend(uplink.v6.map(|ends| rule([saddr_is(ends.fabric), oifname_not(&link), masquerade()])));
    for (name, kind, hook, priority, rules) in [
        ("forward", ChainKind::Filter, Hook::Forward, 0, forward),
        ("input", ChainKind::Filter, Hook::Input, 0, input),
        ("postrouting", ChainKind::Nat, Hook::Postrouting, 100, postrouting),
    ] {
        table.chains.insert(name.into(), Chain { base: base(kind, hook, priority), rules });
    }
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
    const ICMPV6: u8 = 58;
    const TCP: u8 = 6;
    let mut table = Table::default();
    let mut forward = vec![none_of_ours_goes_out(&mut table, &config.v4, "cluster")];
    forward.extend(config.v6.as_ref().map(|ranges| none_of_ours_goes_out(&mut table, ranges, "cluster6")));
    forward.extend([
        rule([iifname(FABRIC_UPLINK), ct_state(ESTABLISHED | RELATED), accept()]),
        rule([iifname(FABRIC_UPLINK), drop()]),
    ]);
    let input = vec![
        rule([iifname("lo"), accept()]),
        rule([ct_state(ESTABLISHED | RELATED), accept()]),
        rule([iifname(FABRIC_UPLINK), drop()]),
        rule([l4proto(TCP), daddr_is(gateway), server_port(API_PORT, API_PORT), accept()]),
        // Nodes and pods may ask whether their gateway is there.
        rule([l4proto(ICMP), accept()]),
        rule([l4proto(ICMPV6), accept()]),
        rule([family::<Ipv4Addr>(), reject::<Ipv4Addr>(Unreachable::AdminProhibited)]),
        rule([family::<Ipv6Addr>(), reject::<Ipv6Addr>(Unreachable::AdminProhibited)]),
    ];
    let raw = match config.v6 {
        // What `rp_filter` does for IPv4.
        Some(_) => vec![rule([family::<Ipv6Addr>(), no_reverse_path(), drop()])],
        None => Vec::new(),
    };
    let postrouting = vec![rule([oifname(FABRIC_UPLINK), masquerade()])];
    for (name, kind, hook, priority, rules) in [
        ("raw", ChainKind::Filter, Hook::Prerouting, -300, raw),
        ("forward", ChainKind::Filter, Hook::Forward, 0, forward),
        ("input", ChainKind::Filter, Hook::Input, 0, input),
        ("postrouting", ChainKind::Nat, Hook::Postrouting, 100, postrouting),
    ] {
        if !rules.is_empty() {
            table.chains.insert(name.into(), Chain { base: base(kind, hook, priority), rules });
        }
    }
    let mut transaction = Transaction::new(nft::Family::Inet, "cofferdam");
    transaction.add_table(None);
    transaction.add_all(&table);
    Ok(transaction.commit(&mut Socket::open_in(netns, Family::Netfilter)?)?)
}

fn none_of_ours_goes_out<A: Ip>(table: &mut Table, ranges: &Ranges<A>, set: &str) -> Rule {
    let ranges = [ranges.nodes, ranges.pods, ranges.services];
    let elements = interval_elements(ranges.map(|range| (range.network(), range.last())));
    table.sets.insert(set.into(), Set { of: SetType::intervals(DataType::address::<A>()), elements });
    rule([oifname(FABRIC_UPLINK), daddr_in_set::<A>(set), reject::<A>(Unreachable::Host)])
}

/// An accept in our table does not overrule a drop in another. Where another's forward chain drops by policy (Docker
/// does that in iptables' `filter FORWARD`), accept rules for our link are put at its head; they carry our table's name
/// as their comment.
fn accept_beside_others(rules: &mut Socket, id: &str, v6: bool) -> Result<Vec<String>, FabricError> {
    let (link, comment) = (uplink_name(id), table_name(id));
    let mut warnings = Vec::new();
    let families = [(nft::Family::Ip, "ip"), (nft::Family::Ip6, "ip6"), (nft::Family::Inet, "inet")];
    for (family, word) in families.into_iter().filter(|(family, _)| v6 || *family != nft::Family::Ip6) {
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
    for (file, program) in [("ip_tables_names", "iptables"), ("ip6_tables_names", "ip6tables")] {
        let legacy = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        if (v6 || program == "iptables") && legacy.lines().any(|table| table == "filter") {
            warnings.push(format!(
                "legacy {program} rules are in force; if they drop what is forwarded, pods have no way out until you \
                 run: {program}-legacy -I FORWARD -i {link} -j ACCEPT; {program}-legacy -I FORWARD -o {link} -j ACCEPT"
            ));
        }
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
    for family in [nft::Family::Ip, nft::Family::Ip6, nft::Family::Inet] {
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
    if tables.iter().any(|(table, _)| *table == name) {
        if let Some(before) = Before::noted(&mut rules, &name)? {
            done.extend(before.restore(&mut rules, &name)?);
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
