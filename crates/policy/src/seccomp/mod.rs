//! Seccomp profiles as OCI data: the runtime's default profile, written as a table of groups with the reason of each
//! ([`groups`]), and profiles that the node's administrator wrote ([`localhost`]).

pub use self::{
    localhost::{ProfileError, localhost},
    runtime_default::runtime_default,
};

pub mod groups;
mod localhost;
mod runtime_default;

#[cfg(test)]
mod tests;
