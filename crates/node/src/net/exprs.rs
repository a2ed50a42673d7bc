//! The matches and statements of our rules, each as `nft` itself would compile it: so `nft list ruleset` prints them
//! in its own words. The comment at each says those words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kernel::nft::{Ct, Direction, Expr, Header, Meta, Op, Rule, Verdict};
use kernel::route::{Ip, Net};

pub const INVALID: u32 = 1;
pub const ESTABLISHED: u32 = 2;
pub const RELATED: u32 = 4;
pub const NEW: u32 = 8;
pub const UNTRACKED: u32 = 64;

pub fn rule<const N: usize>(parts: [Vec<Expr>; N]) -> Rule {
    Rule(parts.into_iter().flatten().collect())
}

fn cmp(op: Op, data: impl Into<Vec<u8>>) -> Expr {
    Expr::Cmp { op, from: 1, data: data.into() }
}

fn equal(negated: bool) -> Op {
    if negated { Op::Neq } else { Op::Eq }
}

fn name(key: Meta, name: &str, negated: bool) -> Vec<Expr> {
    let mut padded = [0; 16];
    // Interface names have at most 15 bytes.
    padded[..name.len()].copy_from_slice(name.as_bytes());
    vec![Expr::Meta { key, to: 1 }, cmp(equal(negated), padded)]
}

/// `iifname "eth0"`
pub fn iifname(link: &str) -> Vec<Expr> {
    name(Meta::IifName, link, false)
}

/// `iifname != "lo"`
pub fn iifname_not(link: &str) -> Vec<Expr> {
    name(Meta::IifName, link, true)
}

/// `oifname "eth0"`
pub fn oifname(link: &str) -> Vec<Expr> {
    name(Meta::OifName, link, false)
}

/// `oifname != "eth0"`
pub fn oifname_not(link: &str) -> Vec<Expr> {
    name(Meta::OifName, link, true)
}

/// `iifname "cfp*"`
pub fn iifname_prefix(prefix: &str) -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::IifName, to: 1 }, cmp(Op::Eq, prefix.as_bytes())]
}

/// `oifname "cfp*"`
pub fn oifname_prefix(prefix: &str) -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::OifName, to: 1 }, cmp(Op::Eq, prefix.as_bytes())]
}

/// `meta nfproto ipv4` or `ipv6`, which `nft` leaves out before a match on a header of that family.
pub fn family<A: Ip>() -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::NfProto, to: 1 }, cmp(Op::Eq, [A::FAMILY])]
}

/// What can be part of a key.
#[derive(Clone, Copy)]
enum Part {
    Iif,
    Source,
    Destination,
    Protocol,
    /// The destination's port.
    Port,
    CtSource(Direction),
    CtServerPort,
}

impl Part {
    /// How to load it, and how many bytes it has.
    fn load<A: Ip>(self, to: u32) -> (Expr, u32) {
        let address = u32::from(A::BITS / 8);
        let (source, destination) = if A::BITS == 32 { (12, 16) } else { (8, 24) };
        match self {
            Part::Iif => (Expr::Meta { key: Meta::Iif, to }, 4),
            Part::Source => (header(source, address, to), address),
            Part::Destination => (header(destination, address, to), address),
            Part::Protocol => (Expr::Meta { key: Meta::L4Proto, to }, 1),
            Part::Port => (Expr::Payload { base: Header::Transport, offset: 2, len: 2, to }, 2),
            Part::CtSource(direction) if A::BITS == 32 => (ct(Ct::SourceIp(direction), to), 4),
            Part::CtSource(direction) => (ct(Ct::SourceIp6(direction), to), 16),
            Part::CtServerPort => (ct(Ct::SourcePort(Direction::Reply), to), 2),
        }
    }
}

/// The parts of a concatenation in registers one behind the other, each beginning at a multiple of four bytes.
fn key<A: Ip>(parts: &[Part]) -> Vec<Expr> {
    let mut slot = 0;
    let load = |part: &Part| {
        // Registers of 16 bytes are numbered from 1, their parts of 4 bytes from 8; the kernel and `nft` take the former
        // where both name the same place.
        let register = if slot % 4 == 0 { 1 + slot / 4 } else { 8 + slot };
        let (expr, bytes) = part.load::<A>(register);
        slot += bytes.div_ceil(4);
        expr
    };
    parts.iter().map(load).collect()
}

fn header(offset: u32, len: u32, to: u32) -> Expr {
    Expr::Payload { base: Header::Network, offset, len, to }
}

fn in_block<A: Ip>(part: Part, block: Net<A>) -> Vec<Expr> {
    let octets = block.network().bytes();
    let mut exprs = family::<A>();
    let (load, _) = part.load::<A>(1);
    match (load, block.prefix()) {
        // A prefix of whole bytes is a shorter load.
        (Expr::Payload { base, offset, to, .. }, prefix) if prefix.is_multiple_of(8) && prefix > 0 => {
            let bytes = usize::from(prefix / 8);
            exprs.push(Expr::Payload { base, offset, len: bytes as u32, to });
            exprs.push(cmp(Op::Eq, &octets[..bytes]));
        }
        (load, prefix) => {
            let mask = Net::of(A::from_number(u128::MAX), prefix).network().bytes();
            let xor = vec![0; octets.len()];
            exprs.extend([load, Expr::Bitwise { from: 1, to: 1, mask, xor }, cmp(Op::Eq, octets)]);
        }
    }
    exprs
}

/// `ip saddr 10.244.1.0/24`
pub fn saddr_in<A: Ip>(block: Net<A>) -> Vec<Expr> {
    in_block(Part::Source, block)
}

/// `ip daddr 10.244.1.0/24`
pub fn daddr_in<A: Ip>(block: Net<A>) -> Vec<Expr> {
    in_block(Part::Destination, block)
}

/// `ip saddr != 100.64.0.2`
pub fn saddr_not<A: Ip>(address: A) -> Vec<Expr> {
    let mut exprs = family::<A>();
    exprs.extend(key::<A>(&[Part::Source]));
    exprs.push(cmp(Op::Neq, address.bytes()));
    exprs
}

/// `ip saddr 100.64.0.2`
pub fn saddr_is<A: Ip>(address: A) -> Vec<Expr> {
    saddr_in(Net::single(address))
}

/// `ip daddr 10.88.0.1`
pub fn daddr_is<A: Ip>(address: A) -> Vec<Expr> {
    daddr_in(Net::single(address))
}

fn lookup(set: &str, to: Option<u32>, inverted: bool) -> Expr {
    Expr::Lookup { set: set.to_string(), from: 1, to, inverted }
}

/// Parts of the header in a set, a map (`to` 1) or a verdict map (`to` 0).
fn header_in<A: Ip>(parts: &[Part], set: &str, to: Option<u32>, inverted: bool) -> Vec<Expr> {
    let mut exprs = family::<A>();
    exprs.extend(key::<A>(parts));
    exprs.push(lookup(set, to, inverted));
    exprs
}

/// `ip daddr @set`
pub fn daddr_in_set<A: Ip>(set: &str) -> Vec<Expr> {
    header_in::<A>(&[Part::Destination], set, None, false)
}

/// `ip daddr != @set`, behind a match that says which family it is.
pub fn daddr_not_in_set<A: Ip>(set: &str) -> Vec<Expr> {
    let mut exprs = key::<A>(&[Part::Destination]);
    exprs.push(lookup(set, None, true));
    exprs
}

/// `iif . ip saddr @own`
pub fn iif_saddr_in_set<A: Ip>(set: &str) -> Vec<Expr> {
    header_in::<A>(&[Part::Iif, Part::Source], set, None, false)
}

/// `ip saddr . ip daddr @set`
pub fn saddr_daddr_in_set<A: Ip>(set: &str) -> Vec<Expr> {
    header_in::<A>(&[Part::Source, Part::Destination], set, None, false)
}

fn ct(key: Ct, to: u32) -> Expr {
    Expr::Ct { key, to }
}

/// `ct state invalid,untracked`: any of the bits.
pub fn ct_state(bits: u32) -> Vec<Expr> {
    vec![
        ct(Ct::State, 1),
        Expr::Bitwise { from: 1, to: 1, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        cmp(Op::Neq, [0; 4]),
    ]
}

/// Parts of the conntrack tuple in a set, or in a verdict map; a packet of the other family does not match.
fn tuple_in<A: Ip>(parts: &[Part], set: &str, to: Option<u32>) -> Vec<Expr> {
    let mut exprs = key::<A>(parts);
    exprs.push(lookup(set, to, false));
    exprs
}

/// `ct original ip saddr . ct reply ip saddr @hairpin`
pub fn tuple_in_set<A: Ip>(set: &str) -> Vec<Expr> {
    let parts = [Part::CtSource(Direction::Original), Part::CtSource(Direction::Reply)];
    tuple_in::<A>(&parts, set, None)
}

/// `ct original ip saddr vmap @egress`
pub fn tuple_vmap<A: Ip>(direction: Direction, map: &str) -> Vec<Expr> {
    tuple_in::<A>(&[Part::CtSource(direction)], map, Some(0))
}

/// `ct original ip saddr @set`
pub fn tuple_source_in_set<A: Ip>(direction: Direction, set: &str) -> Vec<Expr> {
    tuple_in::<A>(&[Part::CtSource(direction)], set, None)
}

/// `ct reply ip saddr . ct reply proto-src @set`
pub fn server_and_port_in_set<A: Ip>(set: &str) -> Vec<Expr> {
    tuple_in::<A>(&[Part::CtSource(Direction::Reply), Part::CtServerPort], set, None)
}

/// `meta l4proto tcp`
pub fn l4proto(number: u8) -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::L4Proto, to: 1 }, cmp(Op::Eq, [number])]
}

/// `ct reply proto-src 80` or `80-90`
pub fn server_port(first: u16, last: u16) -> Vec<Expr> {
    let mut exprs = vec![ct(Ct::SourcePort(Direction::Reply), 1)];
    if first == last {
        exprs.push(cmp(Op::Eq, first.to_be_bytes()));
    } else {
        exprs.extend([cmp(Op::Gte, first.to_be_bytes()), cmp(Op::Lte, last.to_be_bytes())]);
    }
    exprs
}

/// `fib daddr type local`
pub fn daddr_is_local() -> Vec<Expr> {
    // RTN_LOCAL, in the machine's byte order.
    vec![Expr::FibDaddrType { to: 1 }, cmp(Op::Eq, 2u32.to_ne_bytes())]
}

/// The data of a map's element, an address and a port, as the new destination.
fn dnat_to_mapped<A: Ip>() -> Expr {
    // The port is behind the address.
    let port = if A::BITS == 32 { 9 } else { 2 };
    Expr::Nat { family: A::FAMILY, source: false, address: 1, port: Some(port) }
}

/// `dnat ip to meta l4proto . th dport map @map`
pub fn dnat_by_port<A: Ip>(map: &str) -> Vec<Expr> {
    let mut exprs = key::<A>(&[Part::Protocol, Part::Port]);
    exprs.extend([lookup(map, Some(1), false), dnat_to_mapped::<A>()]);
    exprs
}

/// `dnat ip to ip daddr . meta l4proto . th dport map @map`
pub fn dnat_by_address_and_port<A: Ip>(map: &str) -> Vec<Expr> {
    let mut exprs = header_in::<A>(&[Part::Destination, Part::Protocol, Part::Port], map, Some(1), false);
    exprs.push(dnat_to_mapped::<A>());
    exprs
}

const ADDRESS_AND_PORT: [Part; 3] = [Part::Destination, Part::Protocol, Part::Port];

/// `ip daddr . meta l4proto . th dport @set`
pub fn address_and_port_in_set<A: Ip>(set: &str) -> Vec<Expr> {
    header_in::<A>(&ADDRESS_AND_PORT, set, None, false)
}

/// `meta l4proto . th dport @set`
pub fn port_in_set<A: Ip>(set: &str) -> Vec<Expr> {
    let mut exprs = key::<A>(&[Part::Protocol, Part::Port]);
    exprs.push(lookup(set, None, false));
    exprs
}

/// `meta mark set ip daddr . meta l4proto . th dport map @map`
pub fn mark_by_address_and_port<A: Ip>(map: &str) -> Vec<Expr> {
    let mut exprs = header_in::<A>(&ADDRESS_AND_PORT, map, Some(1), false);
    exprs.push(Expr::SetMark { from: 1 });
    exprs
}

/// `meta mark set meta l4proto . th dport map @map`
pub fn mark_by_port<A: Ip>(map: &str) -> Vec<Expr> {
    let mut exprs = key::<A>(&[Part::Protocol, Part::Port]);
    exprs.extend([lookup(map, Some(1), false), Expr::SetMark { from: 1 }]);
    exprs
}

/// `meta mark & 0x7fff vmap @map`
pub fn masked_mark_vmap(mask: u32, map: &str) -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::Mark, to: 1 },
        Expr::Bitwise { from: 1, to: 1, mask: mask.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        lookup(map, Some(0), false),
    ]
}

/// `meta mark vmap @map`
pub fn mark_vmap(map: &str) -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::Mark, to: 1 }, lookup(map, Some(0), false)]
}

/// `dnat ip to meta mark . numgen random mod 3 map @map`, behind a match on the protocol.
pub fn dnat_by_mark_and_number<A: Ip>(count: u32, map: &str) -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::Mark, to: 1 },
        Expr::Numgen { modulus: count, random: true, to: 9 },
        lookup(map, Some(1), false),
        dnat_to_mapped::<A>(),
    ]
}

/// `ip saddr @set`
pub fn saddr_in_set<A: Ip>(set: &str) -> Vec<Expr> {
    header_in::<A>(&[Part::Source], set, None, false)
}

/// `meta mark . ip saddr & 255.255.255.0 @set`
pub fn mark_and_masked_saddr_in_set<A: Ip>(prefix: u8, set: &str) -> Vec<Expr> {
    let mut exprs = family::<A>();
    // The register behind the mark's.
    let (load, _) = Part::Source.load::<A>(9);
    exprs.extend([Expr::Meta { key: Meta::Mark, to: 1 }, load]);
    if prefix < A::BITS {
        let mask = Net::of(A::from_number(u128::MAX), prefix).network().bytes();
        let xor = vec![0; mask.len()];
        exprs.push(Expr::Bitwise { from: 9, to: 9, mask, xor });
    }
    exprs.push(lookup(set, None, false));
    exprs
}

/// `update @set { ip saddr timeout 3h }`
pub fn learn_saddr<A: Ip>(set: &str, seconds: u32) -> Vec<Expr> {
    let mut exprs = family::<A>();
    exprs.extend(key::<A>(&[Part::Source]));
    let milliseconds = u64::from(seconds) * 1000;
    exprs.push(Expr::Update { set: set.to_string(), key: 1, milliseconds });
    exprs
}

/// `numgen random mod 3 0`
pub fn one_in(count: u32) -> Vec<Expr> {
    vec![Expr::Numgen { modulus: count, random: true, to: 1 }, cmp(Op::Eq, [0; 4])]
}

/// `dnat ip to 10.244.1.2:80`, behind a match on the protocol.
pub fn dnat_to(target: impl Into<SocketAddr>) -> Vec<Expr> {
    let target = target.into();
    let (family, address) = in_family(target.ip());
    vec![
        Expr::Immediate { to: 1, data: address },
        Expr::Immediate { to: 2, data: target.port().to_be_bytes().to_vec() },
        Expr::Nat { family, source: false, address: 1, port: Some(2) },
    ]
}

fn in_family(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (Ipv4Addr::FAMILY, v4.bytes()),
        IpAddr::V6(v6) => (Ipv6Addr::FAMILY, v6.bytes()),
    }
}

/// `ct status dnat`
pub fn ct_status_dnat() -> Vec<Expr> {
    dnat_status(Op::Neq)
}

/// `ct status ! dnat`
pub fn ct_status_not_dnat() -> Vec<Expr> {
    dnat_status(Op::Eq)
}

fn dnat_status(op: Op) -> Vec<Expr> {
    const IPS_DST_NAT: u32 = 1 << 5;
    vec![
        ct(Ct::Status, 1),
        Expr::Bitwise { from: 1, to: 1, mask: IPS_DST_NAT.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        cmp(op, [0; 4]),
    ]
}

/// `snat ip to 10.88.0.2`
pub fn snat<A: Ip>(address: A) -> Vec<Expr> {
    vec![
        Expr::Immediate { to: 1, data: address.bytes() },
        Expr::Nat { family: A::FAMILY, source: true, address: 1, port: None },
    ]
}

/// `fib saddr . iif oif 0`: there is no way back to the sender by the link it came by.
pub fn no_reverse_path() -> Vec<Expr> {
    vec![Expr::FibReversePath { to: 1 }, cmp(Op::Eq, [0; 4])]
}

/// `masquerade`
pub fn masquerade() -> Vec<Expr> {
    vec![Expr::Masquerade]
}

/// What a sender is told, in each family's codes.
#[derive(Clone, Copy)]
pub enum Unreachable {
    Host,
    Port,
    AdminProhibited,
}

/// `reject with icmp host-unreachable` and the like, behind a match that says which family it is.
pub fn reject<A: Ip>(why: Unreachable) -> Vec<Expr> {
    let code = match (why, A::BITS) {
        (Unreachable::Host, 32) => 1,
        (Unreachable::Port, 32) => 3,
        (Unreachable::AdminProhibited, 32) => 13,
        (Unreachable::AdminProhibited, _) => 1,
        (Unreachable::Host, _) => 3,
        (Unreachable::Port, _) => 4,
    };
    vec![Expr::RejectIcmp { code }]
}

/// `meta l4proto tcp reject with tcp reset`
pub fn reset_tcp() -> Vec<Expr> {
    [l4proto(6), vec![Expr::RejectTcpReset]].concat()
}

pub fn accept() -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Accept)]
}

pub fn drop() -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Drop)]
}

pub fn allow() -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Return)]
}

/// `jump chain`
pub fn jump(chain: &str) -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Jump(chain.to_string()))]
}

/// `goto chain`
pub fn goto(chain: &str) -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Goto(chain.to_string()))]
}
