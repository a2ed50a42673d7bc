//! TODO

pub mod route;
