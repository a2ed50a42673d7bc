//! The keeper program, built by `build.rs`.

/// A static executable: what an agent runs once per pod, from a sealed memfd.
pub const KEEPER: &[u8] = include_bytes!(env!("KEEPER_PROGRAM"));
