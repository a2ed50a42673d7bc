//! A new persistent volume belongs to root. A container of another user can write to it only by a group, and `fsGroup` is
//! what gives both the volume and the container one.

use super::{Finding, Lint, Severity};
use crate::pod_security::{FieldPath, PodView};

pub(super) const LINT: Lint = Lint {
    id: "claim-without-fs-group",
    severity: Severity::Warning,
    about: "A container that is not root mounts a persistent volume, and no fsGroup lets it write there.",
    fix: "Set spec.securityContext.fsGroup to a group of the container's.",
    run,
};

fn run(pod: &PodView<'_>) -> Vec<Finding> {
    let of_pod = pod.security();
    if of_pod.is_some_and(|security| {
        security.fs_group.is_some() || security.supplemental_groups.as_ref().is_some_and(|g| !g.is_empty())
    }) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (at, volume) in pod.volumes().iter().enumerate() {
        if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() {
            continue;
        }
        let writer = pod.containers().find(|container| {
            let own = container.security.and_then(|security| security.run_as_user);
            let uid = own.or(of_pod.and_then(|security| security.run_as_user));
            let mut mounts = container.mounts.iter();
            uid.is_some_and(|uid| uid != 0)
                && mounts.any(|mount| mount.name == volume.name && mount.read_only != Some(true))
        });
        if let Some(writer) = writer {
            findings.push(Finding {
                message: format!(
                    "container {:?} is not root and may not write to volume {:?}, which belongs to root: the pod has no fsGroup",
                    writer.name, volume.name
                ),
                path: FieldPath::new(&["spec", "volumes"]).index(at),
            });
        }
    }
    findings
}
