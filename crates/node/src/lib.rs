//! The node agent, the kubelet's job: it watches the pods bound to its node, carries out the plans that `policy`
//! makes for them through one keeper per pod, and reports what it saw.

pub mod agent;
pub mod client;
mod dns_image;
pub mod images;
mod keeper_image;
pub mod net;
pub mod server;
mod toolbox_image;
pub mod volumes;
