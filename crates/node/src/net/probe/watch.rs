//! Follows the packet through this node's rule sets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use kernel::netlink::Socket;
use kernel::nft::{self, Step, Trace};
use kernel::route;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::super::pods::NetError;
use super::rules::{CAME, DELIVERED, LEAVES, SENT};
use super::{Answer, Asked, Place, Seen, made};

/// A node that watches. The kernel stops to trace when it is dropped.
#[derive(Debug)]
pub struct Watch {
    asked: Asked,
    /// Of the table that marks; the socket owns it.
    table: String,
    traces: Socket,
    /// For questions, whose answers would stand among the traces.
    rules: Socket,
    links: Socket,
    /// Packets that were marked, by the trace's number, and where each is going.
    packets: HashMap<u32, Way>,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    There(SocketAddr),
    Back,
}

impl Watch {
    /// `traces` has made the table and is of the trace's group; `rules` and `links` are other sockets of the same namespace.
    pub(in super::super) fn new(asked: Asked, table: String, [traces, rules, links]: [Socket; 3]) -> Watch {
        Watch { asked, table, traces, rules, links, packets: HashMap::new() }
    }

    /// What was seen next, all at once that the kernel has told; empty when `until` is over or `stop` can be read.
    pub fn next(&mut self, stop: &OwnedFd, until: Instant) -> Result<Vec<Seen>, NetError> {
        loop {
            if !wait(&self.traces, stop, until)? {
                return Ok(Vec::new());
            }
            let mut traces = Vec::new();
            let whole = self.traces.drain(|event| traces.extend(Trace::parse(event)))?;
            let mut seen = Vec::new();
            for trace in traces {
                seen.extend(self.take(trace)?);
            }
            if !whole {
                seen.push(Seen::Lost { why: "the kernel told more than could be read".to_string() });
            }
            if !seen.is_empty() {
                return Ok(seen);
            }
        }
    }

    fn take(&mut self, trace: Trace) -> Result<Option<Seen>, NetError> {
        let ours = trace.table == self.table;
        let chain = trace.chain.as_str();
        let shown = trace.packet.as_ref().and_then(made::shown);
        if ours && matches!(chain, CAME | SENT) {
            // Others may trace too: what this table has marked is what is asked for.
            let Some(shown) = shown else { return Ok(None) };
            let packet = self.asked.packet;
            let there = shown.protocol == packet.protocol
                && self.asked.sources().any(|source| source == shown.source.ip())
                && match packet.echoes() {
                    true => shown.answer == Answer::Other,
                    false => shown.source.port() == packet.from.port(),
                };
            self.packets.insert(trace.id, if there { Way::There(shown.to) } else { Way::Back });
            let answered = Seen::Answered { answer: shown.answer, by: shown.source.ip() };
            return Ok((!there).then_some(answered));
        }
        let Some(Way::There(to)) = self.packets.get_mut(&trace.id) else { return Ok(None) };
        if let Some(shown) = shown {
            *to = shown.to;
        }
        let to = *to;
        Ok(match chain {
            LEAVES if ours && shown.is_some() => Some(Seen::Left { link: self.link(trace.links.1)?, to }),
            DELIVERED if ours && shown.is_some() => Some(Seen::Delivered { to }),
            _ if ours || !trace.drops => None,
            _ => Some(Seen::Dropped {
                rule: match trace.step {
                    Step::Rule(handle) => self.place(&trace.table, &trace.chain, handle)?,
                    _ => None,
                },
                table: trace.table,
                chain: trace.chain,
                to,
            }),
        })
    }

    fn link(&mut self, index: u32) -> Result<String, NetError> {
        let found = route::links(&mut self.links)?.into_iter().find(|link| link.index == index);
        Ok(found.map_or_else(|| index.to_string(), |link| link.name))
    }

    /// None of a table of another family, or where the rule is gone by now.
    fn place(&mut self, table: &str, chain: &str, handle: u64) -> Result<Option<Place>, NetError> {
        let handles = match nft::rule_handles(&mut self.rules, nft::Family::Inet, table, chain) {
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let number = handles.iter().position(|other| *other == handle);
        Ok(number.map(|number| Place { number: number + 1, of: handles.len() }))
    }
}

/// False when there is nothing more to wait for.
fn wait(traces: &Socket, stop: &OwnedFd, until: Instant) -> Result<bool, NetError> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let traces = traces.as_fd();
        let mut fds = [PollFd::new(&traces, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(fds[1].revents().is_empty()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(NetError::Call { call: "poll", errno }),
        }
    }
}
