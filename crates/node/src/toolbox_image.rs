//! The toolbox program, built by `build.rs`.

/// A static executable: the content of the tool image.
pub const TOOLBOX: &[u8] = include_bytes!(env!("TOOLBOX_PROGRAM"));
