//! Server-side apply and field management: who owns which field of an object, and what becomes of the object when somebody
//! applies a configuration. The semantics are those of Kubernetes' structured-merge-diff.
//!
//! A [`FieldSet`] is a set of paths, held as its `FieldsV1` encoding. What a place of an object is to apply — one value, an object,
//! a list known by keys — the schema table says ([`node`]). From the two follow the set of a configuration ([`extract`]), what differs
//! between two versions of an object ([`compare`]), the configuration merged into the object ([`merge`]), and the object
//! without what is no longer applied ([`remove`]). [`managers`] reads and writes `metadata.managedFields`; [`write()`] is
//! any write but an apply, [`apply()`] an apply.

mod check;
mod compare;
mod conflict;
mod decide;
mod extract;
mod field_set;
mod last_applied;
mod managers;
mod merge;
mod node;
mod path;
mod prune;
mod remove;

pub use check::check;
pub use compare::Comparison;
pub use conflict::Conflicts;
pub use decide::{Applied, Apply, Convert, Reach, Refused, Scope, Writer, apply, write};
pub use field_set::{FieldSet, Malformed};
pub use last_applied::ANNOTATION as LAST_APPLIED;
pub use managers::{Entry, Managed, Operation, same_but_times};

#[cfg(test)]
mod tests;
