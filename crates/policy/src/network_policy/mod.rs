//! Decides who may talk to whom: pods, namespaces, NetworkPolicies and ClusterNetworkPolicies in, the rule set of a
//! node out.
//!
//! * [`model`] parses the API objects once; a policy it cannot parse isolates and allows nothing.
//! * [`cluster_policy`] does the same for ClusterNetworkPolicies: the tiers before and behind NetworkPolicies.
//! * [`compile`] keeps a node's rule set ([`ir`]) up to date, event by event, as differences for one transaction.
//! * [`evaluate`] answers from the API objects themselves, as naively as it can: the oracle all else is tested against.
//! * [`table`] says for every two ends of a cluster on which ports one reaches the other.
//! * [`lint`] finds what is probably not what an author meant.
//! * [`explain`] answers "why may, or may not, A reach B on this port?" for people.

mod cidr;
pub mod cluster_policy;
pub mod compile;
pub mod evaluate;
pub mod explain;
mod interest;
pub mod ir;
pub mod lint;
pub mod model;
mod sets;
pub mod table;
#[cfg(test)]
mod tests;

pub use cidr::{CidrError, subtract};
pub use cluster_policy::{ClusterNetworkPolicy, ClusterPolicy, NodeRecord};
pub use compile::{Compiler, Event};
pub use evaluate::{Cluster, Explanation, Side, evaluate, reasons};
pub use ir::{Change, Direction, Flow, Layer4, Protocol, RuleSet, diff};
pub use model::{PodRecord, Policy, PolicyError};
