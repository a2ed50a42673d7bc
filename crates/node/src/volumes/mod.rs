//! A pod's volumes: a pure plan of files first, then the system calls. Prepared under
//! `/var/lib/cofferdam/pods/<uid>/volumes/<plugin>/<name>`, handed to containers as paths or, for a subPath, as descriptors
//! that were resolved beneath the volume (CVE-2017-1002101, CVE-2021-25741), and torn down without following a link.

use std::{os::fd::OwnedFd, path::PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use policy::{container::VolumeMount, env::Sources, node_facts::NodeFacts, security_context::ConfigError};

/// Where the volumes of one pod are.
#[derive(Clone, Debug)]
pub struct PodVolumes {
    /// `/var/lib/cofferdam/pods/<uid>/volumes`.
    pub root: PathBuf,
}

/// Why a volume could not be made; the text is the message of a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
pub struct SetUpError {
    pub volume: String,
    pub message: String,
}

/// The ConfigMaps and Secrets that the pod's volumes refer to.
pub fn references(pod: &Pod) -> policy::env::References {
    let _ = pod;
    todo!()
}

impl PodVolumes {
    /// Makes every volume of the pod, or makes it again after a restart of the agent: what is there is kept.
    /// `Sources::config_maps` and `secrets` hold what [`references`] names (absent: not found).
    pub fn set_up(&self, pod: &Pod, sources: &Sources<'_>, node: &NodeFacts) -> Result<(), SetUpError> {
        let _ = (pod, sources, node);
        todo!()
    }

    /// Brings configMap, secret, downwardAPI and projected volumes up to date; names those whose files changed.
    pub fn refresh(
        &self,
        pod: &Pod,
        sources: &Sources<'_>,
        node: &NodeFacts,
    ) -> Result<Vec<String>, SetUpError> {
        let _ = (pod, sources, node);
        todo!()
    }

    /// The mounts of one container, and the descriptors that those by subPath refer to by index.
    /// `env`: the container's resolved variables, for subPathExpr.
    pub fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        env: &[(String, String)],
    ) -> Result<(Vec<VolumeMount>, Vec<OwnedFd>), ConfigError> {
        let _ = (pod, container, env);
        todo!()
    }

    /// Whether an emptyDir on disk is over its sizeLimit: the message of the eviction
    /// (`Usage of EmptyDir volume "x" exceeds the limit "1Mi". `).
    pub fn over_size_limit(&self, pod: &Pod) -> Result<Option<String>, SetUpError> {
        let _ = pod;
        todo!()
    }

    /// Unmounts and removes everything; hostPath targets are never touched.
    pub fn tear_down(&self) -> Result<(), SetUpError> {
        todo!()
    }
}
