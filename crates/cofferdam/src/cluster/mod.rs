//! A cluster on one machine: its files, its processes, how it starts and how it ends.

pub mod down;
pub mod layout;
pub mod listener;
pub mod node_init;
pub mod processes;
pub mod roles;
pub mod supervisor;
pub mod up;
