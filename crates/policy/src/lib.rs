//! Every decision as a pure function from API objects to a plan. A plan is data: it can be printed, compared and
//! tested without root. Nothing here does IO, reads a clock or draws randomness.

pub mod container;
pub mod env;
pub mod lifecycle;
pub mod lint;
pub mod network_policy;
pub mod node_facts;
pub mod pod_dns;
pub mod pod_security;
pub mod rbac;
pub mod reach;
pub mod resources;
pub mod scheduling;
pub mod seccomp;
pub mod security_context;
pub mod selector;
pub mod services;
pub mod workload;
