//! From what nodes saw of one packet to what the kernel did with it, and whether that is what was said.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use node::net::probe::{Answer, Place, Seen, TCP};
use serde::Serialize;

/// How long a packet that no rule drops may take to its end.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long who got it may take to answer, where an answer must come, and where none need come.
const ANSWER: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_millis(150);

/// Names of pods' links on a node begin so.
const POD_LINK: &str = "cfp";

/// What the kernel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kernel {
    Passes,
    /// The sender is told so: by a rule that rejects, or by who got the packet.
    Refused,
    Dropped,
    /// No rule dropped it, and it came to no end.
    Lost,
    NotProbed,
}

impl Kernel {
    pub fn word(self) -> &'static str {
        match self {
            Kernel::Passes => "passes",
            Kernel::Refused => "refused",
            Kernel::Dropped => "dropped",
            Kernel::Lost => "lost",
            Kernel::NotProbed => "not probed",
        }
    }
}

/// One packet: what was said of it, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// `TCP 10.244.1.2:61005 → 10.96.0.9:80`
    pub packet: String,
    pub kernel: Kernel,
    /// None where that cannot be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agrees: Option<bool>,
    /// What it reached, after translation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached: Option<SocketAddr>,
    /// The rule that stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// The same in words.
    pub because: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    pub node: String,
    pub table: String,
    pub chain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Place>,
}

/// Where a connection may come to, and whether policies let it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub to: SocketAddr,
    pub allowed: bool,
}

/// What was seen of a packet until now.
#[derive(Debug)]
pub struct Observed {
    protocol: u8,
    /// It is meant for somebody outside: leaving its node is all there is to see.
    outside: bool,
    stopped: Option<(Stopped, SocketAddr)>,
    reached: Option<(SocketAddr, String)>,
    left: Option<String>,
    answer: Option<(Answer, IpAddr)>,
    lost: Option<String>,
}

/// What else may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Enough,
    AtMost(Duration),
}

impl Observed {
    pub fn new(protocol: u8, outside: bool) -> Observed {
        Observed { protocol, outside, stopped: None, reached: None, left: None, answer: None, lost: None }
    }

    /// Events of one node come in order; of an answer, every node on its way tells.
    pub fn take(&mut self, node: &str, seen: Seen) {
        match seen {
            Seen::Watching => {}
            Seen::Dropped { table, chain, rule, to } => {
                let node = node.to_string();
                self.stopped.get_or_insert((Stopped { node, table, chain, rule }, to));
            }
            Seen::Left { link, to } if link.starts_with(POD_LINK) => {
                self.reached.get_or_insert((to, node.to_string()));
            }
            // To another node; or by lo, to come back as the node's own.
            Seen::Left { link, .. } if !self.outside || link == "lo" => {}
            Seen::Left { .. } => {
                self.left.get_or_insert(node.to_string());
            }
            Seen::Delivered { to } => {
                self.reached.get_or_insert((to, node.to_string()));
            }
            Seen::Answered { answer, by } => {
                self.answer.get_or_insert((answer, by));
            }
            Seen::Lost { why } => {
                self.lost.get_or_insert(format!("{node}: {why}"));
            }
        }
    }

    pub fn wait(&self) -> Wait {
        if self.stopped.is_some() || self.left.is_some() || self.lost.is_some() {
            return Wait::Enough;
        }
        match (&self.reached, &self.answer) {
            (Some(_), Some(_)) => Wait::Enough,
            (Some(_), None) if self.protocol == TCP => Wait::AtMost(ANSWER),
            // An error may be about a rule's doing that is told of in a moment.
            (Some(_), None) | (None, Some(_)) => Wait::AtMost(SILENCE),
            (None, None) => Wait::AtMost(PATIENCE),
        }
    }

    /// `said` is what the policies say of each end it may come to; empty: nobody is there to be reached.
    pub fn conclude(self, packet: String, said: &[Said]) -> Live {
        let agrees = |to: SocketAddr, passes: bool| {
            let of: Vec<bool> = said.iter().filter(|one| one.to == to).map(|one| one.allowed).collect();
            match (of.as_slice(), said) {
                ([], []) => Some(!passes),
                // What was judged is not what it came to.
                ([], [_]) => None,
                // Of several ends, not known which: one that fits is none that disagrees.
                ([], _) => Some(said.iter().any(|one| one.allowed == passes)),
                (of, _) => Some(of.contains(&passes)),
            }
        };
        let led_on = |to: SocketAddr| match said {
            [one] if one.to != to => {
                format!("; a host port or a node port led it on to {to}, so ask of that")
            }
            _ => String::new(),
        };
        let live =
            |kernel, agrees, because| Live { packet, kernel, agrees, reached: None, stopped: None, because };
        if let Some((stopped, to)) = self.stopped {
            let refuses = matches!(self.answer, Some((Answer::Unreachable | Answer::Resets, _)));
            let kernel = if refuses { Kernel::Refused } else { Kernel::Dropped };
            let Stopped { node, table, chain, .. } = &stopped;
            let rule = match stopped.rule {
                Some(Place { number, of }) if number == of => format!("its last rule ({number})"),
                Some(Place { number, of }) => format!("rule {number} of {of}"),
                None => "its end".to_string(),
            };
            let because = format!("{node}, table inet {table}, chain {chain}, {rule}{}", led_on(to));
            return Live { stopped: Some(stopped), ..live(kernel, agrees(to, false), because) };
        }
        if let Some((to, node)) = self.reached {
            let (kernel, answer) = match self.answer {
                None => (Kernel::Passes, "which does not answer"),
                Some((Answer::Accepts, _)) => (Kernel::Passes, "which accepts"),
                Some((Answer::Answers | Answer::Other, _)) => (Kernel::Passes, "which answers"),
                Some((Answer::Resets | Answer::Unreachable, _)) => (Kernel::Refused, "where nobody listens"),
            };
            let shown = if to.port() == 0 { to.ip().to_string() } else { to.to_string() };
            let because = format!("it reached {shown} on {node}, {answer}{}", led_on(to));
            return Live { reached: Some(to), ..live(kernel, agrees(to, true), because) };
        }
        if let Some(node) = self.left {
            let because = format!("past all rules, it left {node} for the world, and was taken away there");
            return live(Kernel::Passes, Some(said.iter().any(|one| one.allowed)), because);
        }
        if let Some(why) = self.lost {
            return live(Kernel::Lost, None, why);
        }
        match self.answer {
            Some((Answer::Unreachable, by)) => {
                let agrees = said.is_empty() || said.iter().any(|one| !one.allowed);
                live(Kernel::Refused, Some(agrees), format!("{by} says that there is no way"))
            }
            _ => {
                let seconds = PATIENCE.as_secs();
                let because =
                    format!("no rule dropped it, and in {seconds} s it came to no end that a node can see");
                live(Kernel::Lost, None, because)
            }
        }
    }
}

/// What was not sent, and why.
pub fn not_probed(packet: String, why: impl Into<String>) -> Live {
    let because = why.into();
    Live { packet, kernel: Kernel::NotProbed, agrees: None, reached: None, stopped: None, because }
}

#[cfg(test)]
mod tests {
    use super::*;
    use node::net::probe::UDP;

    const POD: &str = "10.244.2.2:80";
    const OTHER: &str = "10.244.2.3:80";

    fn to(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }
    fn left(link: &str) -> Seen {
        Seen::Left { link: link.into(), to: to(POD) }
    }
    fn dropped(at: &str) -> Seen {
        let rule = Some(Place { number: 3, of: 3 });
        Seen::Dropped { table: "cofferdam".into(), chain: "ingress-1".into(), rule, to: to(at) }
    }
    fn answered(answer: Answer) -> Seen {
        Seen::Answered { answer, by: to(POD).ip() }
    }

    #[test]
    fn what_nodes_see_says_what_the_kernel_does_and_whether_that_is_what_was_said() {
        use Kernel::{Dropped, Lost, Passes, Refused};
        let allowed = [Said { to: to(POD), allowed: true }];
        let denied = [Said { to: to(POD), allowed: false }];
        let partly = [Said { to: to(POD), allowed: true }, Said { to: to(OTHER), allowed: false }];
        let nobody: [Said; 0] = [];
        let over = |link| vec![("node-1", left("eth0")), ("node-2", left(link))];
        let then = |mut first: Vec<(&'static str, Seen)>, node, seen| {
            first.push((node, seen));
            first
        };
        type Row<'a> = (&'a str, u8, Vec<(&'static str, Seen)>, &'a [Said], Kernel, Option<bool>, &'a str);
        let rows: Vec<Row> = vec![
            (
                "accepted",
                TCP,
                then(over("cfp1"), "node-2", answered(Answer::Accepts)),
                &allowed,
                Passes,
                Some(true),
                "which accepts",
            ),
            (
                "passed though denied",
                TCP,
                then(over("cfp1"), "node-2", answered(Answer::Accepts)),
                &denied,
                Passes,
                Some(false),
                "",
            ),
            (
                "nobody listens",
                TCP,
                then(over("cfp1"), "node-2", answered(Answer::Resets)),
                &allowed,
                Refused,
                Some(true),
                "nobody listens",
            ),
            ("silent", UDP, over("cfp1"), &allowed, Passes, Some(true), "which does not answer"),
            (
                "dropped",
                UDP,
                then(over("eth0"), "node-2", dropped(POD)),
                &denied,
                Dropped,
                Some(true),
                "chain ingress-1, its last rule (3)",
            ),
            (
                "dropped though allowed",
                TCP,
                vec![("node-1", dropped(POD))],
                &allowed,
                Dropped,
                Some(false),
                "node-1",
            ),
            (
                "rejected",
                TCP,
                vec![("node-1", answered(Answer::Unreachable)), ("node-1", dropped(POD))],
                &nobody,
                Refused,
                Some(true),
                "",
            ),
            ("no endpoints, and yet", TCP, over("cfp1"), &nobody, Passes, Some(false), ""),
            ("the endpoint that may", UDP, over("cfp1"), &partly, Passes, Some(true), ""),
            (
                "the endpoint that may not",
                UDP,
                vec![("node-2", dropped(OTHER))],
                &partly,
                Dropped,
                Some(true),
                "",
            ),
            ("the wrong one", UDP, vec![("node-2", dropped(POD))], &partly, Dropped, Some(false), ""),
            (
                "the node's own",
                TCP,
                vec![("node-1", left("lo")), ("node-1", Seen::Delivered { to: to(POD) })],
                &allowed,
                Passes,
                Some(true),
                "",
            ),
            (
                "led on",
                TCP,
                vec![("node-1", Seen::Left { link: "cfp1".into(), to: to(OTHER) })],
                &allowed,
                Passes,
                None,
                "ask of that",
            ),
            (
                "led on, and dropped",
                TCP,
                vec![("node-1", dropped(OTHER))],
                &allowed,
                Dropped,
                None,
                "led it on to 10.244.2.3:80",
            ),
            (
                "lost on the way",
                TCP,
                vec![("node-1", left("eth0"))],
                &denied,
                Lost,
                None,
                "no rule dropped it",
            ),
            (
                "no way",
                UDP,
                vec![("node-1", answered(Answer::Unreachable))],
                &denied,
                Refused,
                Some(true),
                "no way",
            ),
            (
                "blind",
                UDP,
                vec![("node-1", Seen::Lost { why: "overrun".into() })],
                &denied,
                Lost,
                None,
                "node-1: overrun",
            ),
        ];
        for (what, protocol, seen, said, kernel, agrees, words) in rows {
            let mut observed = Observed::new(protocol, false);
            for (node, seen) in seen {
                observed.take(node, seen);
            }
            let live = observed.conclude("a packet".into(), said);
            assert_eq!((live.kernel, live.agrees), (kernel, agrees), "{what}: {live:?}");
            assert!(live.because.contains(words), "{what}: {live:?}");
        }
    }

    #[test]
    fn it_is_waited_for_what_must_come_and_no_longer() {
        let silence = Wait::AtMost(SILENCE);
        let mut udp = Observed::new(UDP, false);
        assert_eq!(udp.wait(), Wait::AtMost(PATIENCE));
        udp.take("node-1", left("eth0"));
        assert_eq!(udp.wait(), Wait::AtMost(PATIENCE), "on its way to another node");
        udp.take("node-2", left("cfp1"));
        assert_eq!(udp.wait(), silence);
        udp.take("node-2", answered(Answer::Unreachable));
        assert_eq!(udp.wait(), Wait::Enough);
        let mut tcp = Observed::new(TCP, false);
        tcp.take("node-1", answered(Answer::Unreachable));
        assert_eq!(tcp.wait(), silence, "which rule says so comes next");
        tcp.take("node-1", dropped(POD));
        assert_eq!(tcp.wait(), Wait::Enough);
        let mut world = Observed::new(TCP, true);
        world.take("node-1", left("eth0"));
        assert_eq!(world.wait(), Wait::Enough);
    }
}
