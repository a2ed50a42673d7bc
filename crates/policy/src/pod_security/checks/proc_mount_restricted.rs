//! What container runtimes hide in /proc stays hidden, in a user namespace too.
//!
//! Restricted fields, of every container, from 1.35 on, when the check of the baseline became laxer:
//! - `securityContext.procMount`: Default, absent

use super::proc_mount;
use crate::pod_security::{
    Level,
    check::{Check, Revision},
};

pub(super) const CHECK: Check = Check {
    id: "procMount_restricted",
    about: "A container sees what runtimes hide in /proc.",
    level: Level::Restricted,
    versions: &[Revision::since(35, proc_mount::v1_0).replacing(&[proc_mount::ID])],
    #[cfg(test)]
    fixtures: fixtures::all,
};

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const DETAIL: &str = r#"container "a" must not set securityContext.procMount to "Unmasked""#;
        let has = |kind: &str| json!({ "securityContext": { "procMount": kind } });
        vec![
            Case::container("says nothing", 35.., json!({})),
            Case::container("the default", 35.., has("Default")),
            Case::container("unmasked", 35.., has("Unmasked")).refused(
                "procMount",
                DETAIL,
                &["securityContext.procMount"],
            ),
            Case::container("the baseline's matter", ..35, has("Unmasked")),
            Case::pod(
                "unmasked in a user namespace",
                35..,
                json!({ "spec": { "hostUsers": false, "containers": [{ "name": "a", "securityContext": { "procMount": "Unmasked" } }] } }),
            )
            .refused("procMount", DETAIL, &["spec.containers[0].securityContext.procMount"]),
        ]
    }
}
