//! Kubernetes' names of capabilities have no prefix: container runtimes put `CAP_` before what the manifest says, and know
//! no `CAP_CAP_NET_ADMIN`.

use super::{Finding, Lint, Severity};
use crate::pod_security::PodView;

pub(super) const LINT: Lint = Lint {
    id: "capability-name",
    severity: Severity::Error,
    about: "A capability is named with the prefix CAP_, which container runtimes add themselves.",
    fix: "Write the name without the prefix, as in NET_ADMIN.",
    run,
};

fn run(pod: &PodView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for container in pod.containers() {
        let capabilities = container.security.and_then(|security| security.capabilities.as_ref());
        let Some(capabilities) = capabilities else { continue };
        for (list, names) in [("add", &capabilities.add), ("drop", &capabilities.drop)] {
            for (at, name) in names.iter().flatten().enumerate() {
                if let Some(short) = name.strip_prefix("CAP_") {
                    findings.push(Finding {
                        message: format!(
                            "container {:?} does not start: its runtime knows no capability CAP_{name}; Kubernetes calls it {short}",
                            container.name
                        ),
                        path: container.path(&["securityContext", "capabilities", list]).index(at),
                    });
                }
            }
        }
    }
    findings
}
