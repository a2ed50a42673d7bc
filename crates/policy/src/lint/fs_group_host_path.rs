//! `fsGroup` changes the group of volumes that are the pod's. A hostPath is the node's, and is left as it is.

use super::{Finding, Lint, Severity};
use crate::pod_security::{FieldPath, PodView};

pub(super) const LINT: Lint = Lint {
    id: "fs-group-host-path",
    severity: Severity::Warning,
    about: "fsGroup has no effect on a hostPath volume.",
    fix: "Give the directory its group on the node, or use a volume that is the pod's own.",
    run,
};

fn run(pod: &PodView<'_>) -> Vec<Finding> {
    let Some(group) = pod.security().and_then(|security| security.fs_group) else { return Vec::new() };
    let volumes = pod.volumes().iter().enumerate().filter(|(_, volume)| volume.host_path.is_some());
    volumes
        .map(|(at, volume)| Finding {
            message: format!(
                "fsGroup {group} does not change volume {:?}: a hostPath keeps the node's owner and mode",
                volume.name
            ),
            path: FieldPath::new(&["spec", "volumes"]).index(at).fields(&["hostPath"]),
        })
        .collect()
}
