//! Kubernetes objects as data, with no IO and no clock.
//!
//! An object is a [`serde_json::Value`]. Everything that must hold for all kinds alike is driven by two tables:
//! [`registry`] says which resources are served and how they are addressed, [`schema`] says what fields a kind has.
//! From the two follow strict decoding ([`strict`]), protobuf request bodies ([`protobuf`]), the patches
//! ([`patch`]), selectors ([`selector`]) and the OpenAPI and discovery documents. Adding a kind is adding a row.
//!
//! What differs from kind to kind lives in [`defaults`], [`validation`] and [`printer`].
//! Every refusal is an [`error::ApiError`]: a Kubernetes `Status` with Kubernetes' own words.

pub mod apply;
pub mod base64;
pub mod convert;
pub mod cron;
pub mod defaults;
pub mod error;
pub mod field;
pub mod json;
pub mod openapi;
pub mod patch;
pub mod printer;
pub mod protobuf;
pub mod registry;
pub mod schema;
pub mod selector;
pub mod strict;
pub mod time;
pub mod validation;
pub mod yaml;

pub use error::ApiError;
