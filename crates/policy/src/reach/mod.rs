//! What somebody who runs an image of their own in a pod can reach: its node, the API server, the network.
//!
//! An edge leads from the pod to something it should perhaps not reach. What the objects of the API say of it is a [`Claim`],
//! with the [`Probe`] that would show it; what is seen is a [`Sight`]; both together are an [`Edge`]: proven, refuted, or unknown,
//! with a witness. The image is the attacker's, so what is the image's to choose (its user, setuid files in it) is taken as chosen.

pub mod api;
pub mod network;
pub mod node;

use std::fmt;

use serde::Serialize;

/// What an edge leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Area {
    Node,
    Api,
    Network,
}

/// What the objects say of one edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub id: &'static str,
    pub area: Area,
    /// What is reached, or is not.
    pub target: String,
    /// Whether the objects leave it open.
    pub open: bool,
    /// The field, binding or policy that says so.
    pub because: String,
    /// What would close it.
    pub remedy: Option<&'static str>,
    pub probe: Probe,
}

/// How an edge is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// By what the kernel shows of a container's first process.
    Kernel { container: String, question: node::Question },
    /// By asking the API server.
    Api(api::Question),
    /// By a packet from the pod.
    Packet { to: String, port: String },
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Whether the edge is there.
    pub is_there: bool,
    pub witness: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Seen: it is reached.
    Proven,
    /// Seen: it is not reached.
    Refuted,
    /// Not looked at; what the objects say stands alone.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Proven => "proven",
            Verdict::Refuted => "refuted",
            Verdict::Unknown => "unknown",
        })
    }
}

/// One thing that the pod reaches, or does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    pub id: &'static str,
    pub area: Area,
    pub target: String,
    /// What the objects say.
    pub open: bool,
    pub because: String,
    pub verdict: Verdict,
    /// What was seen; of what is unknown, why nothing was.
    pub witness: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

impl Edge {
    /// `seen` is what was seen, or why nothing was.
    pub fn of(claim: Claim, seen: Result<Sight, String>) -> Edge {
        let (verdict, witness) = match seen {
            Ok(Sight { is_there: true, witness }) => (Verdict::Proven, witness),
            Ok(Sight { is_there: false, witness }) => (Verdict::Refuted, witness),
            Err(why) => (Verdict::Unknown, why),
        };
        let Claim { id, area, target, open, because, remedy, probe: _ } = claim;
        // What is closed needs no remedy, unless it is there all the same.
        let remedy = remedy.filter(|_| open || verdict == Verdict::Proven);
        Edge { id, area, target, open, because, verdict, witness, remedy }
    }

    /// What is seen is not what the objects say.
    pub fn is_contradicted(&self) -> bool {
        matches!((self.open, self.verdict), (true, Verdict::Refuted) | (false, Verdict::Proven))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_what_was_said_and_what_was_seen() {
        let claim = |open| Claim {
            id: "host-pid",
            area: Area::Node,
            target: "t".into(),
            open,
            because: "b".into(),
            remedy: Some("r"),
            probe: Probe::Packet { to: "external".into(), port: "80".into() },
        };
        let sight = |is_there| Ok(Sight { is_there, witness: "w".into() });
        let rows = [
            (true, sight(true), Verdict::Proven, false, Some("r")),
            (true, sight(false), Verdict::Refuted, true, Some("r")),
            (false, sight(false), Verdict::Refuted, false, None),
            (false, sight(true), Verdict::Proven, true, Some("r")),
            (true, Err("w".into()), Verdict::Unknown, false, Some("r")),
            (false, Err("w".into()), Verdict::Unknown, false, None),
        ];
        for (open, seen, verdict, contradicted, remedy) in rows {
            let edge = Edge::of(claim(open), seen);
            assert_eq!((edge.verdict, edge.is_contradicted(), edge.remedy), (verdict, contradicted, remedy));
            assert_eq!(edge.witness, "w");
        }
    }
}
