//! The matches and statements of our rules, each as `nft` itself would compile it: so `nft list ruleset` prints them
//! in its own words. The comment at each says those words.

use std::net::{Ipv4Addr, SocketAddrV4};

use kernel::nft::{Ct, Direction, Expr, Header, Meta, Op, Rule, Verdict};
use kernel::route::Ipv4Net;

/// Offsets in an IPv4 header.
const SADDR: u32 = 12;
const DADDR: u32 = 16;

pub const INVALID: u32 = 1;
pub const ESTABLISHED: u32 = 2;
pub const RELATED: u32 = 4;
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

/// `meta nfproto ipv4`, which `nft` leaves out before a match on an IPv4 header.
pub fn ipv4() -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::NfProto, to: 1 }, cmp(Op::Eq, [2])]
}

/// `meta nfproto != ipv4`
pub fn not_ipv4() -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::NfProto, to: 1 }, cmp(Op::Neq, [2])]
}

fn load(offset: u32, len: u32, to: u32) -> Expr {
    Expr::Payload { base: Header::Network, offset, len, to }
}

fn in_block(offset: u32, block: Ipv4Net) -> Vec<Expr> {
    let octets = block.network().octets();
    let mut exprs = ipv4();
    if block.prefix().is_multiple_of(8) && block.prefix() > 0 {
        // A prefix of whole bytes is a shorter load.
        let bytes = usize::from(block.prefix() / 8);
        exprs.extend([load(offset, bytes as u32, 1), cmp(Op::Eq, &octets[..bytes])]);
    } else {
        let mask = u32::MAX.checked_shl(32 - u32::from(block.prefix())).unwrap_or(0).to_be_bytes().to_vec();
        exprs.extend([
            load(offset, 4, 1),
            Expr::Bitwise { from: 1, to: 1, mask, xor: vec![0; 4] },
            cmp(Op::Eq, octets),
        ]);
    }
    exprs
}

/// `ip saddr 10.244.1.0/24`
pub fn saddr_in(block: Ipv4Net) -> Vec<Expr> {
    in_block(SADDR, block)
}

/// `ip daddr 10.244.1.0/24`
pub fn daddr_in(block: Ipv4Net) -> Vec<Expr> {
    in_block(DADDR, block)
}

/// `ip saddr != 100.64.0.2`
pub fn saddr_not(address: Ipv4Addr) -> Vec<Expr> {
    let mut exprs = ipv4();
    exprs.extend([load(SADDR, 4, 1), cmp(Op::Neq, address.octets())]);
    exprs
}

/// `ip saddr 100.64.0.2`
pub fn saddr_is(address: Ipv4Addr) -> Vec<Expr> {
    saddr_in(Ipv4Net::new(address, 32))
}

/// `ip daddr 10.88.0.1`
pub fn daddr_is(address: Ipv4Addr) -> Vec<Expr> {
    daddr_in(Ipv4Net::new(address, 32))
}

fn lookup(set: &str, to: Option<u32>, inverted: bool) -> Expr {
    Expr::Lookup { set: set.to_string(), from: 1, to, inverted }
}

/// `ip daddr @set`
pub fn daddr_in_set(set: &str) -> Vec<Expr> {
    let mut exprs = ipv4();
    exprs.extend([load(DADDR, 4, 1), lookup(set, None, false)]);
    exprs
}

/// `ip daddr != @set`, behind a match that says it is IPv4.
pub fn daddr_not_in_set(set: &str) -> Vec<Expr> {
    vec![load(DADDR, 4, 1), lookup(set, None, true)]
}

/// `iif . ip saddr != @own`
pub fn iif_saddr_not_in_set(set: &str) -> Vec<Expr> {
    let mut exprs = ipv4();
    exprs.extend([Expr::Meta { key: Meta::Iif, to: 1 }, load(SADDR, 4, 9), lookup(set, None, true)]);
    exprs
}

/// `ip saddr . ip daddr @set`
pub fn saddr_daddr_in_set(set: &str) -> Vec<Expr> {
    let mut exprs = ipv4();
    exprs.extend([load(SADDR, 4, 1), load(DADDR, 4, 9), lookup(set, None, false)]);
    exprs
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

/// `ct original ip saddr . ct reply ip saddr @hairpin`
pub fn tuple_in_set(set: &str) -> Vec<Expr> {
    vec![
        ct(Ct::SourceIp(Direction::Original), 1),
        ct(Ct::SourceIp(Direction::Reply), 9),
        lookup(set, None, false),
    ]
}

/// `ct original ip saddr vmap @egress`
pub fn tuple_vmap(direction: Direction, map: &str) -> Vec<Expr> {
    vec![ct(Ct::SourceIp(direction), 1), lookup(map, Some(0), false)]
}

/// `ct original ip saddr @set`, or `ip6` with `v6`.
pub fn tuple_source_in_set(direction: Direction, v6: bool, set: &str) -> Vec<Expr> {
    let key = if v6 { Ct::SourceIp6(direction) } else { Ct::SourceIp(direction) };
    vec![ct(key, 1), lookup(set, None, false)]
}

/// `ct reply ip saddr . ct reply proto-src @set`
pub fn server_and_port_in_set(v6: bool, set: &str) -> Vec<Expr> {
    let (key, next) =
        if v6 { (Ct::SourceIp6(Direction::Reply), 2) } else { (Ct::SourceIp(Direction::Reply), 9) };
    vec![ct(key, 1), ct(Ct::SourcePort(Direction::Reply), next), lookup(set, None, false)]
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

/// `dnat ip to meta l4proto . th dport map @map`
pub fn dnat_by_port(map: &str) -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::L4Proto, to: 1 },
        Expr::Payload { base: Header::Transport, offset: 2, len: 2, to: 9 },
        lookup(map, Some(1), false),
        Expr::Nat { source: false, address: 1, port: Some(9) },
    ]
}

/// `dnat ip to ip daddr . meta l4proto . th dport map @map`
pub fn dnat_by_address_and_port(map: &str) -> Vec<Expr> {
    let mut exprs = ipv4();
    exprs.extend([
        load(DADDR, 4, 1),
        Expr::Meta { key: Meta::L4Proto, to: 9 },
        Expr::Payload { base: Header::Transport, offset: 2, len: 2, to: 10 },
        lookup(map, Some(1), false),
        Expr::Nat { source: false, address: 1, port: Some(9) },
    ]);
    exprs
}

/// `ip daddr . meta l4proto . th dport vmap @map`
pub fn vmap_by_address_and_port(map: &str) -> Vec<Expr> {
    let mut exprs = ipv4();
    exprs.extend([
        load(DADDR, 4, 1),
        Expr::Meta { key: Meta::L4Proto, to: 9 },
        Expr::Payload { base: Header::Transport, offset: 2, len: 2, to: 10 },
        lookup(map, Some(0), false),
    ]);
    exprs
}

/// `meta l4proto . th dport vmap @map`
pub fn vmap_by_port(map: &str) -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::L4Proto, to: 1 },
        Expr::Payload { base: Header::Transport, offset: 2, len: 2, to: 9 },
        lookup(map, Some(0), false),
    ]
}

/// `numgen random mod 3 0`
pub fn one_in(count: u32) -> Vec<Expr> {
    vec![Expr::Numgen { modulus: count, random: true, to: 1 }, cmp(Op::Eq, [0; 4])]
}

/// `dnat ip to 10.244.1.2:80`, behind a match on the protocol.
pub fn dnat_to(target: SocketAddrV4) -> Vec<Expr> {
    vec![
        Expr::Immediate { to: 1, data: target.ip().octets().to_vec() },
        Expr::Immediate { to: 2, data: target.port().to_be_bytes().to_vec() },
        Expr::Nat { source: false, address: 1, port: Some(2) },
    ]
}

/// `ct status dnat`
pub fn ct_status_dnat() -> Vec<Expr> {
    const IPS_DST_NAT: u32 = 1 << 5;
    vec![
        ct(Ct::Status, 1),
        Expr::Bitwise { from: 1, to: 1, mask: IPS_DST_NAT.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        cmp(Op::Neq, [0; 4]),
    ]
}

/// `snat ip to 10.88.0.2`
pub fn snat(address: Ipv4Addr) -> Vec<Expr> {
    vec![
        Expr::Immediate { to: 1, data: address.octets().to_vec() },
        Expr::Nat { source: true, address: 1, port: None },
    ]
}

/// `masquerade`
pub fn masquerade() -> Vec<Expr> {
    vec![Expr::Masquerade]
}

/// `reject with icmp host-unreachable` and the like, behind a match that says it is IPv4.
pub fn reject(code: u8) -> Vec<Expr> {
    vec![Expr::RejectIcmp { code }]
}

pub const HOST_UNREACHABLE: u8 = 1;
pub const PORT_UNREACHABLE: u8 = 3;
pub const ADMIN_PROHIBITED: u8 = 13;

pub fn accept() -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Accept)]
}

pub fn drop() -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Drop)]
}

pub fn allow() -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Return)]
}
