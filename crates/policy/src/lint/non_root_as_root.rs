//! A container that must not be root and is told to be root never starts.

use super::{Finding, Lint, Severity};
use crate::pod_security::{FieldPath, PodView};

pub(super) const LINT: Lint = Lint {
    id: "non-root-as-root",
    severity: Severity::Error,
    about: "A container has runAsNonRoot and runAsUser 0: its node refuses to start it.",
    fix: "Set runAsUser to a user that the image can run as.",
    run,
};

fn run(pod: &PodView<'_>) -> Vec<Finding> {
    let of_pod = pod.security();
    let mut findings = Vec::new();
    for container in pod.containers() {
        let own = container.security;
        let non_root = own
            .and_then(|security| security.run_as_non_root)
            .or(of_pod.and_then(|security| security.run_as_non_root));
        let own_user = own.and_then(|security| security.run_as_user);
        let user = own_user.or(of_pod.and_then(|security| security.run_as_user));
        if (non_root, user) == (Some(true), Some(0)) {
            let path = match own_user {
                Some(_) => container.path(&["securityContext", "runAsUser"]),
                None => FieldPath::new(&["spec", "securityContext", "runAsUser"]),
            };
            let message =
                format!("container {:?} never starts: its runAsUser breaks its runAsNonRoot", container.name);
            findings.push(Finding { message, path });
        }
    }
    findings
}
