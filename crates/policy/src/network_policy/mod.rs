//! Decides who may talk to whom: pods, namespaces and NetworkPolicies in, the rule set of a node out ([`ir`]).

mod cidr;
pub mod ir;

pub use cidr::{CidrError, subtract};
