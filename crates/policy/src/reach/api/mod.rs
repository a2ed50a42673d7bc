//! Edges to the API server: the pod's token, what its ServiceAccount may do, and whose rights can be taken over by that.

mod identity;
mod powers;
mod take_over;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::Pod;

pub use identity::Identity;
pub use powers::{POWERS, Power};

use super::{Area, Claim, Probe};
use crate::pod_security::standard::Level;
use crate::rbac::Index;

/// What the API server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Is there a token at this path in this container, and whose is it?
    Token { container: String, path: String },
    /// May this identity do one of these?
    Access { who: Identity, any_of: Vec<Access> },
    /// Would a privileged pod of this identity's be let in here? `by`: how it makes one.
    PrivilegedPod { who: Identity, by: &'static Power, namespace: String },
}

/// A request, as an access review has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub power: &'static Power,
    /// "" for all namespaces.
    pub namespace: String,
    /// "" for any.
    pub name: String,
}

/// What of the cluster an identity's reach depends on.
#[derive(Debug)]
pub struct World<'a> {
    pub rbac: &'a Index,
    pub namespaces: Vec<Place>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    /// What Pod Security enforces in it.
    pub enforced: Level,
    /// Its ServiceAccounts.
    pub accounts: Vec<String>,
}

/// What somebody who has this pod's token reaches.
pub fn claims(pod: &Pod, world: &World<'_>) -> Vec<Claim> {
    let (claim, who) = identity::claim(pod);
    let mut claims = vec![claim];
    if let Some(who) = who {
        claims.extend(powers::claims(&who, world));
        claims.extend(take_over::claims(&who, world));
    }
    claims
}

fn claim(id: &'static str, question: Question, open: bool) -> Claim {
    let (target, because) = Default::default();
    Claim { id, area: Area::Api, target, open, because, remedy: None, probe: Probe::Api(question) }
}
