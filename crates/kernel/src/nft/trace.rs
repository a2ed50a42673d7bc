//! What becomes of packets that a rule marked with [`Expr::SetTrace`](super::Expr::SetTrace): an event for each rule that
//! matched, each return and each end of a base chain, with the verdict.

use super::message_type;
use crate::netlink::{Event, attributes};

/// NFT_MSG_TRACE, of the group [`Group::NftTrace`](crate::netlink::Group::NftTrace).
const TRACE: u16 = 17;

/// One step of one packet through the rule set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The same for all steps of a packet in this namespace.
    pub id: u32,
    pub table: String,
    pub chain: String,
    pub step: Step,
    /// NF_DROP; all other verdicts let the packet go on.
    pub drops: bool,
    /// The packet's headers as the chain sees them; only in the first event of a rule in each base chain.
    pub packet: Option<Headers>,
    /// The links by which it came and will leave, by index; 0 where there is none.
    pub links: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A rule, by its handle.
    Rule(u64),
    Return,
    /// The end of a base chain.
    Policy,
    Other,
}

/// The first bytes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// From the IP header on.
    pub network: Vec<u8>,
    /// 20 bytes at most.
    pub transport: Vec<u8>,
}

impl Trace {
    /// None for other events.
    pub fn parse(event: Event<'_>) -> Option<Trace> {
        if event.kind != message_type(TRACE) {
            return None;
        }
        let attrs = attributes(event.payload.get(4..)?);
        let step = match attrs.be32(4)? {
            1 => Step::Policy,
            2 => Step::Return,
            3 => Step::Rule(attrs.be64(3)?),
            _ => Step::Other,
        };
        // A chain's end has its verdict in an attribute of its own.
        let verdict = match step {
            Step::Policy => attrs.be32(16),
            _ => attrs.nested(5).be32(1),
        };
        let packet = attrs.get(8).map(|network| Headers {
            network: network.to_vec(),
            transport: attrs.get(9).unwrap_or_default().to_vec(),
        });
        Some(Trace {
            id: attrs.be32(6)?,
            table: attrs.str(1)?.to_string(),
            chain: attrs.str(2).unwrap_or_default().to_string(),
            step,
            drops: verdict == Some(0),
            packet,
            links: (attrs.be32(10).unwrap_or(0), attrs.be32(12).unwrap_or(0)),
        })
    }
}
