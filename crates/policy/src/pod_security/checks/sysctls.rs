//! A pod sets sysctls only where they are its own and bring no other pod down.
//!
//! Restricted fields:
//! - `spec.securityContext.sysctls[*].name`: those of [`SAFE`] that the version has

use crate::pod_security::{
    Change, Level, Violation,
    check::{Check, Found, Revision},
    pod::{FieldPath, PodView},
};

pub(super) const CHECK: Check = Check {
    id: "sysctls",
    about: "The pod sets a sysctl that is not its own, or not known to be safe.",
    level: Level::Baseline,
    versions: &[
        Revision::since(0, |pod| check(pod, 0)),
        Revision::since(27, |pod| check(pod, 27)),
        Revision::since(29, |pod| check(pod, 29)),
        Revision::since(32, |pod| check(pod, 32)),
    ],
    #[cfg(test)]
    fixtures: fixtures::all,
};

/// Each with the minor version since which it counts as safe.
const SAFE: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn check(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    let mut found = Found::default();
    let mut names = Vec::new();
    let sysctls = pod.security().and_then(|security| security.sysctls.as_deref()).unwrap_or_default();
    for (at, sysctl) in sysctls.iter().enumerate() {
        if !SAFE.iter().any(|(name, since)| *name == sysctl.name && *since <= minor) {
            let path = FieldPath::new(&["spec", "securityContext", "sysctls"]).index(at);
            found.field_alone(path.clone().fields(&["name"]));
            found.remedy(path, Change::Remove, Some("the pod has the kernel's default then"));
            names.push(sysctl.name.as_str());
        }
    }
    found.violation("forbidden sysctls", |_| names.join(", "))
}

#[cfg(test)]
mod fixtures {
    use serde_json::{Value, json};

    use super::SAFE;
    use crate::pod_security::fixture::Case;

    fn with(names: &[&str]) -> Value {
        let sysctls: Vec<Value> = names.iter().map(|name| json!({ "name": name, "value": "1" })).collect();
        json!({ "spec": { "securityContext": { "sysctls": sysctls } } })
    }

    fn safe_in(minor: u32) -> Value {
        let names: Vec<&str> =
            SAFE.iter().filter(|(_, since)| *since <= minor).map(|(name, _)| *name).collect();
        with(&names)
    }

    pub fn all() -> Vec<Case> {
        const REASON: &str = "forbidden sysctls";
        const FIRST: &[&str] = &["spec.securityContext.sysctls[0].name"];
        vec![
            Case::pod("none", .., json!({ "spec": { "securityContext": {} } })),
            Case::pod("those of 1.0", .., safe_in(0)),
            Case::pod("those of 1.27", 27.., safe_in(27)),
            Case::pod("those of 1.29", 29.., safe_in(29)),
            Case::pod("those of 1.32", 32.., safe_in(32)),
            Case::pod("the node's", .., with(&["kernel.msgmax"])).refused(REASON, "kernel.msgmax", FIRST),
            Case::pod("before 1.27", ..27, with(&["net.ipv4.ip_local_reserved_ports"])).refused(
                REASON,
                "net.ipv4.ip_local_reserved_ports",
                FIRST,
            ),
            Case::pod("before 1.29", ..29, with(&["net.ipv4.tcp_keepalive_time"])).refused(
                REASON,
                "net.ipv4.tcp_keepalive_time",
                FIRST,
            ),
            Case::pod("before 1.32", ..32, with(&["net.ipv4.tcp_rmem"])).refused(
                REASON,
                "net.ipv4.tcp_rmem",
                FIRST,
            ),
            Case::pod("in the order given", .., with(&["z", "net.ipv4.tcp_syncookies", "a"])).refused(
                REASON,
                "z, a",
                &["spec.securityContext.sysctls[0].name", "spec.securityContext.sysctls[2].name"],
            ),
            Case::pod("slashes are another name", .., with(&["net/ipv4/tcp_syncookies"])).refused(
                REASON,
                "net/ipv4/tcp_syncookies",
                FIRST,
            ),
        ]
    }
}
