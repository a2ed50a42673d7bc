//! What tests share: network namespaces with a packet prober, cluster fixtures, test images.

pub mod images;
mod memory;
pub mod net;
mod skip;
pub mod wire;

pub use memory::memory;
pub use skip::{is_root, skipped};
