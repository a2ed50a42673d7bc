//! Why a container cannot be configured as its pod asks.

/// A refusal with the reason and the message that Kubernetes shows in the container's waiting state or in the pod's
/// status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// `CreateContainerConfigError`, `CreateContainerError` (waiting reasons of a container), or a reason for which the
    /// whole pod fails, such as `SysctlForbidden`.
    pub reason: &'static str,
    /// As the kubelet words it.
    pub message: String,
    /// The pod can never run on this node: `status.phase` becomes Failed. Otherwise the container waits and is retried.
    pub rejects_pod: bool,
}

impl ConfigError {
    /// The container waits with `CreateContainerConfigError`.
    pub fn config(message: impl Into<String>) -> Self {
        Self { reason: "CreateContainerConfigError", message: message.into(), rejects_pod: false }
    }

    /// The container waits with `CreateContainerError`: what the container runtime refuses.
    pub fn create(message: impl Into<String>) -> Self {
        Self { reason: "CreateContainerError", message: message.into(), rejects_pod: false }
    }

    /// The pod fails with this reason, as when the kubelet does not admit it (`rejectPod` writes the prefix).
    pub fn reject(reason: &'static str, message: impl std::fmt::Display) -> Self {
        Self { reason, message: format!("Pod was rejected: {message}"), rejects_pod: true }
    }
}
