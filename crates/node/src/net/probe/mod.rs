//! One packet, sent to see what the kernel does with it: `cofferdam why --live`.
//!
//! A node that watches puts a table of its own beside the others, which marks the packet, and what answers it, for
//! nf_tables' trace; so the kernel itself tells which rule of which table drops it, or by which link it leaves. Nothing is
//! concluded from silence. The table belongs to the socket that made it and goes with it, whatever becomes of its process.

mod made;
mod rules;
mod sent;
mod watch;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use sent::{Held, Reserve, send};
pub use watch::Watch;

pub(super) use rules::{name, table};

/// IANA numbers.
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// The first packet of a connection: TCP's SYN, a datagram without content, SCTP's INIT, an echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    pub protocol: u8,
    /// Its port tells the packet from others; of an echo request it is the identifier.
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// What a watching node takes away after it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Absorb {
    #[default]
    Nothing,
    /// What answers: where the packet says it is from somebody who never sent it.
    Answers,
    /// The packet itself, when it leaves the cluster.
    Packet,
}

/// A node is asked to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub packet: Packet,
    #[serde(default)]
    pub absorb: Absorb,
    /// As whom it may go on: a node that leads it to another's pod puts its own address in place of the client's, and keeps the
    /// port where it can.
    #[serde(default)]
    pub seen_as: Option<IpAddr>,
}

impl Asked {
    /// The addresses it may come from, its own first.
    fn sources(&self) -> impl Iterator<Item = IpAddr> {
        let own = self.packet.from.ip();
        [own].into_iter().chain(self.seen_as.filter(move |other| other.is_ipv4() == own.is_ipv4()))
    }
}

/// What a node saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "seen")]
pub enum Seen {
    /// From now on nothing is missed.
    Watching,
    /// A rule, or the end of a base chain, drops the packet. A rule that rejects does so after its answer was sent.
    Dropped {
        table: String,
        chain: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        rule: Option<Place>,
        /// Where it was going by then, after translation.
        to: SocketAddr,
    },
    /// Past all rules, it leaves by that link.
    Left { link: String, to: SocketAddr },
    /// Past all rules, it is the node's own.
    Delivered { to: SocketAddr },
    /// Something answers it.
    Answered { answer: Answer, by: IpAddr },
    /// Nothing can be seen any more.
    Lost { why: String },
}

/// The place of a rule in its chain, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub number: usize,
    pub of: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// SYN and ACK, INIT ACK, an echo.
    Accepts,
    /// A datagram.
    Answers,
    /// RST or ABORT: nobody listens.
    Resets,
    /// An ICMP error.
    Unreachable,
    Other,
}

impl Packet {
    /// None where it can be a packet; else why not.
    pub fn wrong(&self) -> Option<String> {
        if self.from.is_ipv4() != self.to.is_ipv4() {
            return Some(format!("{} and {} are of two families", self.from.ip(), self.to.ip()));
        }
        let icmp = if self.from.is_ipv4() { ICMP } else { ICMPV6 };
        let known = [TCP, UDP, SCTP, icmp].contains(&self.protocol);
        (!known).then(|| format!("no packets of protocol {} are made here", self.protocol))
    }

    fn echoes(&self) -> bool {
        matches!(self.protocol, ICMP | ICMPV6)
    }
}
