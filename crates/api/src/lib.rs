//! Kubernetes objects as data: schema table, strict decoding, protobuf, patches, selectors, defaults, validation
//! and tables. Pure functions on JSON values; no IO, no clock.

pub mod defaults;
pub mod field;
pub mod printer;
pub mod validation;
