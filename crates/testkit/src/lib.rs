//! What tests share: network namespaces with a packet prober, cluster fixtures, test images.

pub mod images;
pub mod net;
mod skip;
pub mod wire;

pub use skip::{is_root, skipped};
