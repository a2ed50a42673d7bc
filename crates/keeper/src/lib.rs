//! The keeper's protocol and a client for it. A keeper is one small process per pod: it turns the OCI `Spec` of each
//! container into processes and stays their parent, so that logs, exit codes and exec outlive the agent that asked for them.
//!
//! The program itself is this package's binary; the node agent starts it with [`client::spawn`] and speaks [`protocol`] to it.

pub mod client;
pub mod frame;
pub mod protocol;
