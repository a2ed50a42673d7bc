//! The table that marks the packet, and what answers it, for the trace.

use std::net::{IpAddr, SocketAddr};

use kernel::nft::{
    Base, Chain, ChainKind, Ct, Direction, Expr, Header, Hook, Meta, Op, Rule, Table, Verdict,
};

use super::super::exprs::{iifname, l4proto, oifname};
use super::super::table::UPLINK;
use super::{Absorb, Asked, ICMP, ICMPV6, made};

/// Where packets come from a link, and from the node itself: before everything else that looks at them.
const FIRST: i32 = -350;
/// Behind everything else that might drop them.
const LAST: i32 = 1000;

/// The chains by which the watch knows where a packet is.
pub const CAME: &str = "came";
pub const SENT: &str = "sent";
pub const LEAVES: &str = "leaves";
pub const DELIVERED: &str = "delivered";

/// Of the table; two that watch for packets from the same port do not meet.
pub fn name(asked: &Asked) -> String {
    format!("cofferdam-probe-{}", asked.packet.from.port())
}

/// What marks the packet that is asked for.
pub fn table(asked: &Asked) -> Table {
    let mut table = Table::default();
    let mut chain = |name: &str, hook, priority, rules| {
        let base = Some(Base { kind: ChainKind::Filter, hook, priority, drop: false });
        table.chains.insert(name.to_string(), Chain { base, rules });
    };
    let trace = || vec![Expr::Immediate { to: 1, data: vec![1] }, Expr::SetTrace { from: 1 }];
    let rule = |matched: Vec<Expr>, then: Vec<Expr>| Rule([matched, then].concat());
    let mut marks: Vec<Rule> = asked.sources().map(|source| rule(packet(asked, source), trace())).collect();
    let answers = || asked.sources().flat_map(|source| answers(asked, source));
    marks.extend(answers().map(|answer| rule(answer, trace())));
    if asked.absorb == Absorb::Answers {
        let drop = || vec![Expr::Verdict(Verdict::Drop)];
        marks.extend(answers().map(|answer| rule(answer, drop())));
    }
    chain(CAME, Hook::Prerouting, FIRST, marks.clone());
    chain(SENT, Hook::Output, FIRST, marks);
    // A chain's end tells nothing of the packet; a rule does.
    let end = || Rule(vec![Expr::Verdict(Verdict::Accept)]);
    chain(DELIVERED, Hook::Input, LAST, vec![end()]);
    let leaves = match asked.absorb {
        // By then it may have another address.
        Absorb::Packet => vec![Rule(translated(asked)), end()],
        Absorb::Nothing | Absorb::Answers => vec![end()],
    };
    chain(LEAVES, Hook::Postrouting, LAST, leaves);
    table
}

fn is(base: Header, offset: u32, data: Vec<u8>) -> [Expr; 2] {
    let len = data.len() as u32;
    [Expr::Payload { base, offset, len, to: 1 }, Expr::Cmp { op: Op::Eq, from: 1, data }]
}

fn family(of: IpAddr) -> [Expr; 2] {
    let number = if of.is_ipv4() { 2 } else { 10 };
    [Expr::Meta { key: Meta::NfProto, to: 1 }, Expr::Cmp { op: Op::Eq, from: 1, data: vec![number] }]
}

fn packet(asked: &Asked, source: IpAddr) -> Vec<Expr> {
    let from = SocketAddr::new(source, asked.packet.from.port());
    let (place, address) = made::place(from.ip(), true);
    let mut exprs = Vec::from(family(from.ip()));
    // Who lies about its address comes from outside, and none of the node's pods is meant.
    if asked.absorb == Absorb::Answers {
        exprs.extend(iifname(UPLINK));
    }
    exprs.extend(is(Header::Network, place, address));
    exprs.extend(l4proto(asked.packet.protocol));
    let at = made::identifier(asked.packet.echoes());
    exprs.extend(is(Header::Transport, at, from.port().to_be_bytes().to_vec()));
    exprs
}

/// From the other end to the packet's, and ICMP errors about the packet.
fn answers(asked: &Asked, source: IpAddr) -> [Vec<Expr>; 2] {
    let from = SocketAddr::new(source, asked.packet.from.port());
    let port = || from.port().to_be_bytes().to_vec();
    let echo = asked.packet.echoes();
    let to_it = |protocol: u8| {
        let (place, address) = made::place(from.ip(), false);
        let mut exprs = Vec::from(family(from.ip()));
        exprs.extend(is(Header::Network, place, address));
        exprs.extend(l4proto(protocol));
        exprs
    };
    let mut answer = to_it(asked.packet.protocol);
    if echo {
        let kind = if asked.packet.protocol == ICMP { 0 } else { 129 };
        answer.extend(is(Header::Transport, 0, vec![kind]));
        answer.extend(is(Header::Transport, 4, port()));
    } else {
        answer.extend(is(Header::Transport, 2, port()));
    }
    let (icmp, errors) = if from.is_ipv4() { (ICMP, 3..=3) } else { (ICMPV6, 1..=4) };
    let mut error = to_it(icmp);
    error.extend([
        Expr::Payload { base: Header::Transport, offset: 0, len: 1, to: 1 },
        Expr::Cmp { op: Op::Gte, from: 1, data: vec![*errors.start()] },
        Expr::Cmp { op: Op::Lte, from: 1, data: vec![*errors.end()] },
    ]);
    error.extend(is(Header::Transport, made::port_in_error(from.ip(), echo), port()));
    [answer, error]
}

/// The packet when it leaves the node for the world, whatever its source is by then.
fn translated(asked: &Asked) -> Vec<Expr> {
    let from = asked.packet.from;
    let key = match from.ip() {
        IpAddr::V4(_) => Ct::SourceIp(Direction::Original),
        IpAddr::V6(_) => Ct::SourceIp6(Direction::Original),
    };
    let (_, address) = made::place(from.ip(), true);
    let ct = |key, data| [Expr::Ct { key, to: 1 }, Expr::Cmp { op: Op::Eq, from: 1, data }];
    let mut exprs = oifname(UPLINK);
    exprs.extend(family(from.ip()));
    exprs.extend(l4proto(asked.packet.protocol));
    exprs.extend(ct(key, address));
    exprs.extend(ct(Ct::SourcePort(Direction::Original), from.port().to_be_bytes().to_vec()));
    exprs.push(Expr::Verdict(Verdict::Drop));
    exprs
}
