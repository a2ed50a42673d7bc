//! `loadBalancerSourceRanges`: who may come to the addresses that a load balancer gave.
//!
//! ```text
//! (address, protocol, port) → @services-sources → mark: the number of a list of ranges; in chain "sources":
//! (mark, source & 255.255.255.0) in @sources-24 → goes on; so for each length of prefix in use; else dropped
//! ```
//!
//! A hash set for each length: one set of intervals behind the mark would be a concatenated one, whose elements the kernel
//! takes seconds to delete by the thousand; one of plain intervals could not tell one list from another.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use kernel::nft::{Chain, DataType, Elements, Rule, Set, SetType, Table};
use kernel::route::Ip;
use policy::network_policy::ir::{Cidr, Family};

use super::super::exprs::*;
use super::super::table::of_family;
use super::layout::{Map, bytes};

const CHAIN: &str = "sources";

/// A node where nothing is guarded.
pub fn skeleton<A: Ip>(table: &mut Table) {
    table.chains.insert(of_family::<A>(CHAIN), chain_of::<A>(&BTreeSet::new()));
}

/// Before anything else is asked about an address: who may not come hears nothing, whether there are endpoints or not. In
/// a chain for NAT, so that it is the first packet of a connection that is judged.
pub fn judge<A: Ip>() -> Rule {
    let list = mark_by_address_and_port::<A>(&Map::Sources.of_family::<A>());
    rule([list, jump(&of_family::<A>(CHAIN))])
}

/// The chain that looks a source up in the sets of these lengths.
pub fn chain(family: Family, lengths: &BTreeSet<u8>) -> (String, Chain) {
    let chain = match family {
        Family::V4 => chain_of::<Ipv4Addr>(lengths),
        Family::V6 => chain_of::<Ipv6Addr>(lengths),
    };
    (chain_name(family), chain)
}

fn chain_name(family: Family) -> String {
    match family {
        Family::V4 => of_family::<Ipv4Addr>(CHAIN),
        Family::V6 => of_family::<Ipv6Addr>(CHAIN),
    }
}

fn chain_of<A: Ip>(lengths: &BTreeSet<u8>) -> Chain {
    let family = if A::BITS == 32 { Family::V4 } else { Family::V6 };
    let looks = lengths.iter().map(|length| {
        let set = set_name(family, *length);
        rule([mark_and_masked_saddr_in_set::<A>(*length, &set), allow()])
    });
    Chain { base: None, rules: looks.chain([rule([drop()])]).collect() }
}

fn set_name(family: Family, length: u8) -> String {
    format!("{}-{length}", chain_name(family))
}

/// The set of the ranges of that length.
pub fn set(family: Family, length: u8) -> (String, Set) {
    let address = match family {
        Family::V4 => DataType::Ipv4Addr,
        Family::V6 => DataType::Ipv6Addr,
    };
    let set = Set { of: SetType::set(&[DataType::Mark, address]), elements: Elements::new() };
    (set_name(family, length), set)
}

pub fn key(list: u32, range: &Cidr) -> Vec<u8> {
    [&list.to_ne_bytes()[..], &bytes(range.network)].concat()
}

/// Whether a set or chain of that name is of these.
pub fn is_ours(name: &str) -> bool {
    let rest = name.strip_prefix(CHAIN).map(|rest| rest.strip_prefix('6').unwrap_or(rest));
    rest.is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|length| length.parse::<u8>().is_ok())
    })
}
