//! Every decision as a pure function from API objects to a plan. A plan is data: it can be printed, compared and
//! tested without root. Nothing here does IO, reads a clock or draws randomness.

pub mod network_policy;
pub mod scheduling;
pub mod selector;
pub mod workload;
