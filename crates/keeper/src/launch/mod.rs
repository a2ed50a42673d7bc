//! From a plan to a verified process. The parent's side is in `parent`, the child's stages, in their order, in `child`;
//! each stage is a module. The two speak over a socket pair that closes by itself when the exec succeeds.

pub mod child;
pub mod credentials;
mod devices;
pub mod exec;
mod mounts;
pub mod parent;
mod paths;
mod program;
mod rootfs;
pub mod verify;

use keeper::frame::Frame;
use keeper::protocol::{Failure, Stage};
use serde::{Deserialize, Serialize};

/// A frame from a child that is not yet its program.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChildFrame {
    pub fds: usize,
    pub says: ChildSays,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum ChildSays {
    /// With one descriptor: the master of its terminal.
    Terminal,
    Warning(String),
    Failed(Failure),
}

impl Frame for ChildFrame {
    fn fds(&self) -> usize {
        self.fds
    }
}

/// Puts a stage on an error.
pub trait At<T> {
    fn at(self, stage: Stage) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> At<T> for Result<T, E> {
    fn at(self, stage: Stage) -> Result<T, Failure> {
        self.map_err(|error| Failure { stage, message: error.to_string() })
    }
}
