//! Netlink: a blocking socket, a builder for batches of messages, and a reader of attributes.
//!
//! The kernel works on a message inside `sendmsg`, so that all answers are queued when it returns: a batch is one send
//! and a few receives that never wait. Every message names the object it is about, and an error says that name, the
//! errno and the kernel's own words (extended acknowledgements).

mod attributes;
pub(crate) mod message;
mod socket;

pub use attributes::{Attributes, attributes};
pub use message::Batch;
pub use socket::{Event, Family, Group, Socket};

use rustix::io::Errno;

/// What went wrong with a netlink request.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("{call} on a netlink socket: {errno}")]
    Call { call: &'static str, errno: Errno },
    #[error("enter a network namespace: setns: {0}")]
    Setns(Errno),
    /// The kernel refused one message of a batch. Of an nf_tables batch nothing took effect then, of a route batch
    /// everything but this message (and the others refused, of which this is the first).
    #[error("{object}: {errno}{}", .words.as_deref().map(|words| format!(" ({words})")).unwrap_or_default())]
    Refused { object: String, errno: Errno, words: Option<String> },
    /// Answers were lost (ENOBUFS), so whether the request took effect is not known: read back.
    #[error("{0}: the kernel's answer did not fit the socket's buffer")]
    Overrun(&'static str),
    #[error("{0} changed while it was listed")]
    Interrupted(&'static str),
    #[error("{0}: the kernel's answer is malformed")]
    Malformed(&'static str),
}

impl NetlinkError {
    /// The errno of a refusal or a failed call.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NetlinkError::Call { errno, .. } | NetlinkError::Refused { errno, .. } => Some(*errno),
            NetlinkError::Setns(errno) => Some(*errno),
            _ => None,
        }
    }
}

/// Takes "it is not there" for done.
pub fn ignore_missing(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NODEV | Errno::SRCH | Errno::NXIO)) => {
            Ok(())
        }
        other => other,
    }
}
