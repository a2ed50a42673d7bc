//! Links, addresses, routes and neighbours over rtnetlink, and network namespaces.

use std::fmt;

mod block;
pub mod netns;
mod read;
mod write;

pub use block::{BlockError, Ip, Ipv4Net, Ipv6Net, Net};
pub use read::{Address, Link, LinkEvent, addresses, index_of, links, routes, wait_running};
pub use write::{
    Route, VethEnd, add_address, add_local_route, add_veth, delete_link, delete_route, rename,
    replace_neighbour, replace_route, set_alias, set_down, set_mtu, set_up,
};

/// An Ethernet hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
