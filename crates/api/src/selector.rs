//! Which objects a query means: label selectors, in the text form of query parameters and in the object form of specs, and
//! field selectors, for the fields that each kind offers.

mod fields;
mod labels;

pub use fields::FieldSelector;
pub use labels::{LabelSelector, Operator, Requirement, SelectorError};
