//! Roles and bindings: who may do what, and by which binding. Kubernetes' RBAC allows and never denies: what no rule
//! grants is nobody's.
//!
//! [`Index`] holds every role and binding and answers from the bindings of the user and its groups alone, whatever else
//! there is. [`covers`] decides whether somebody who hands out rules holds them all.

mod covers;
mod index;
mod rule;

#[cfg(test)]
mod tests;

pub use covers::{compact, covers, describe, quoted};
pub use index::{Grant, Held, Index, MissingRole};
pub use rule::{Binding, RoleKind, Rule, Subject};

/// `apiGroup` of the four kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Whoever asks: `UserInfo` of authentication.k8s.io, as far as RBAC looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    pub name: &'a str,
    pub groups: &'a [String],
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `get`, `list`, …; of a path, the HTTP method in lower case.
    pub verb: &'a str,
    pub target: Target<'a>,
}

/// What it is asked of.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Resource {
        group: &'a str,
        /// The plural, without subresource.
        resource: &'a str,
        /// "" for the resource itself.
        subresource: &'a str,
        /// "" for all namespaces, and for what has none.
        namespace: &'a str,
        /// "" for a collection, and for what is to be created.
        name: &'a str,
    },
    /// A path that is no resource's, such as `/healthz`.
    Path(&'a str),
}
