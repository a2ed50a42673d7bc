//! `dnsPolicy: ClusterFirst`, which is the default, means `Default` for a pod in the node's network: names of Services are not
//! known there. (The API reference of `dnsPolicy`.)

use super::{Finding, Lint, Severity};
use crate::pod_security::{FieldPath, PodView};

pub(super) const LINT: Lint = Lint {
    id: "host-network-dns",
    severity: Severity::Warning,
    about: "A pod in the node's network asks the node's resolver, which knows no Services.",
    fix: "Set dnsPolicy: ClusterFirstWithHostNet, or say dnsPolicy: Default where the node's resolver is meant.",
    run,
};

fn run(pod: &PodView<'_>) -> Vec<Finding> {
    let policy = pod.spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    if pod.spec.host_network != Some(true) || policy != "ClusterFirst" {
        return Vec::new();
    }
    let message = "the pod is in the node's network and cannot resolve the cluster's names".to_owned();
    vec![Finding { message, path: FieldPath::new(&["spec", "dnsPolicy"]) }]
}
