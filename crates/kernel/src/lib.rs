//! The system calls behind every isolation boundary: processes, namespaces, mounts, ids, capabilities, seccomp, cgroups, links and
//! packet rules. The only crate with `unsafe`; it decides nothing, it does one thing per function and says which call failed on what.

pub mod cgroup;
pub mod credentials;
pub mod error;
pub mod fds;
pub mod mount;
pub mod namespace;
pub mod packet;
pub mod process;
pub mod resolve;
pub mod seccomp;

pub use error::{CallError, Named};

pub mod conntrack;
pub mod netlink;
pub mod nft;
pub mod route;
