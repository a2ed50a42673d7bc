//! nf_tables: a model of a table, its netlink encoding, atomic transactions, reading back, generation events.
//!
//! What is written lists cleanly with `nft list ruleset` of nft 1.0.6 and loads again with `nft -f`: sets carry the
//! data types and user data that `nft` prints from, registers are numbered as `nft` does, and there are no anonymous sets.

mod decode;
mod encode;
mod model;
mod read;
mod trace;
mod transaction;

pub use model::*;
pub use read::{
    ForeignChain, GENERATION_EVENT, Generation, base_chains, generation, rule_handles, rules_with_comment,
    table, tables,
};
pub use trace::{Headers, Step, Trace};
pub use transaction::{CommitError, Transaction};

/// NFNL_SUBSYS_NFTABLES is 10.
const fn message_type(message: u16) -> u16 {
    10 << 8 | message
}
