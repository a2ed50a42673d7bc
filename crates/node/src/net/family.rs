//! What the two families need alike, said once: a point-to-point end of a link with its one neighbour, and the sysctls of
//! a namespace with IPv6 of ours or without any.
//!
//! IPv6 is used as IPv4 is: an address is given, its neighbour is permanent, routes are written. So nothing is asked for
//! on a link (no neighbour discovery, no duplicate address detection, no router advertisements), there are no link-local
//! addresses, and what a pod sends of all that changes nothing.

use std::io;

use kernel::netlink::Batch;
use kernel::route::netns::{SysctlError, write_sysctl};
use kernel::route::{self, Ip, Mac, Net, Route};

/// One end of a link, which is up, that leads to one neighbour: its address, and the default route.
pub(super) fn leaf<A: Ip>(batch: &mut Batch, link: u32, address: A, gateway: A, gateway_mac: Mac) {
    route::add_address(batch, link, address, A::BITS);
    route::add_local_route(batch, link, address);
    route::replace_neighbour(batch, link, gateway, gateway_mac);
    let source = Some(address);
    route::replace_route(batch, Route { to: Net::single(gateway), link, via: None, source });
    route::replace_route(batch, Route { to: Net::everything(), link, via: Some(gateway), source });
}

/// The other end: the neighbour with its address, which this namespace reaches with `source`.
pub(super) fn branch<A: Ip>(batch: &mut Batch, link: u32, neighbour: A, mac: Mac, source: A) {
    route::replace_neighbour(batch, link, neighbour, mac);
    let to = Net::single(neighbour);
    route::replace_route(batch, Route { to, link, via: None, source: Some(source) });
}

/// Whether a namespace passes packets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Host,
    Router,
}

/// Whether a namespace has IPv6, for its links that are there and those to come. To be called before they come up.
pub(super) fn set_ipv6(role: Option<Role>, links: &[&str]) -> Result<(), SysctlError> {
    let Some(role) = role else { return no_ipv6() };
    let conf = ["all", "default"].into_iter().chain(links.iter().copied());
    for link in conf {
        for (name, value) in [
            ("disable_ipv6", "0"),
            ("accept_ra", "0"),
            ("accept_redirects", "0"),
            ("accept_source_route", "0"),
            ("accept_dad", "0"),
            ("autoconf", "0"),
            ("router_solicitations", "0"),
            // None: no fe80:: address. (`all` has no say in it, and writing there is an error.)
            ("addr_gen_mode", "1"),
        ] {
            if (link, name) != ("all", "addr_gen_mode") {
                write_sysctl(&format!("net/ipv6/conf/{link}/{name}"), value)?;
            }
        }
    }
    let forwarding = if role == Role::Router { "1" } else { "0" };
    write_sysctl("net/ipv6/conf/all/forwarding", forwarding)
}

/// A cluster without IPv6 has none at all, no fe80:: either.
fn no_ipv6() -> Result<(), SysctlError> {
    for name in ["net/ipv6/conf/all/disable_ipv6", "net/ipv6/conf/default/disable_ipv6"] {
        match write_sysctl(name, "1") {
            // A kernel without IPv6.
            Err(e) if e.error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}
