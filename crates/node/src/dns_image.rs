//! The name server's program, built by `build.rs`.

/// A static executable: the content of the name server's image.
pub const DNS: &[u8] = include_bytes!(env!("DNS_PROGRAM"));
/// Differs where the program differs.
pub const DNS_TAG: &str = env!("DNS_TAG");
