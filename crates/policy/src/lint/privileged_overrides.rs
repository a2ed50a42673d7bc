//! A privileged container has every capability and no seccomp filter, whatever else its manifest says.

use super::{Finding, Lint, Severity};
use crate::pod_security::PodView;

pub(super) const LINT: Lint = Lint {
    id: "privileged-overrides",
    severity: Severity::Warning,
    about: "A privileged container's capabilities and seccomp profile have no effect.",
    fix: "Take privileged away, or the settings that it overrides.",
    run,
};

fn run(pod: &PodView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for container in pod.containers() {
        let Some(security) = container.security.filter(|security| security.privileged == Some(true)) else {
            continue;
        };
        let drops =
            security.capabilities.as_ref().and_then(|c| c.drop.as_ref()).is_some_and(|d| !d.is_empty());
        let filtered = security.seccomp_profile.as_ref().is_some_and(|profile| profile.type_ != "Unconfined");
        for (there, field, what) in [
            (drops, "capabilities", "the capabilities it drops"),
            (filtered, "seccompProfile", "its seccomp profile"),
        ] {
            if there {
                findings.push(Finding {
                    message: format!("container {:?} is privileged: {what} have no effect", container.name)
                        .replace("profile have", "profile has"),
                    path: container.path(&["securityContext", field]),
                });
            }
        }
    }
    findings
}
