//! What tests share: network namespaces with a packet prober, cluster fixtures, test images.

pub mod images;
pub mod net;
pub mod wire;
