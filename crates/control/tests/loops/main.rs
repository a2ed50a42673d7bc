//! The scheduler and the controllers against the API server, all in one process. Nodes are objects the test makes; a
//! stand-in for the kubelets writes pod statuses and lets deleted pods go.

mod cluster;
mod controllers;
mod cron_jobs;
mod daemons;
mod jobs;
mod ownership;
mod replication;
mod scheduling;
mod stateful;
