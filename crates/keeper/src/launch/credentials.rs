//! Stage `Credentials`: from root to exactly what the plan says, in the only order that works, and with the filter last.

use keeper::protocol::{Failure, Stage};
use kernel::credentials::{self, CapSet, SYS_ADMIN};
use kernel::{Named, process};

use super::At;
use crate::plan::Process;

/// Limits, and how likely the OOM killer is to choose this process. While still root and while the node's /proc is there.
/// Returns what the machine would not give.
pub fn limits(plan: &Process) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    if let Some(adjust) = plan.oom_score_adj {
        const PATH: &str = "/proc/self/oom_score_adj";
        match std::fs::write(PATH, adjust.to_string()) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let now = std::fs::read_to_string(PATH).named("read", PATH).at(Stage::Credentials)?;
                warnings.push(format!(
                    "oomScoreAdj {adjust}: this machine does not let us lower it (no CAP_SYS_RESOURCE); it stays {}",
                    now.trim()
                ));
            }
            Err(error) => return Err(error).named("write", PATH).at(Stage::Credentials),
        }
    }
    for (number, name, soft, hard) in &plan.rlimits {
        process::set_rlimit(*number, name, *soft, *hard).at(Stage::Credentials)?;
    }
    // The kernel's usual mask where the plan has none: ours may have been changed.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(plan.umask.unwrap_or(0o022)));
    Ok(warnings)
}

/// Everything up to exec but the filter. CAP_SYS_ADMIN is held on to where the filter needs it; the exec takes it away, for it
/// recomputes all sets from the bounding, inheritable and ambient ones.
pub fn become_user(plan: &Process, last_capability: u32) -> Result<(), Failure> {
    let sets = plan.capabilities;
    credentials::limit_bounding(sets.bounding, last_capability).at(Stage::Credentials)?;
    credentials::keep_capabilities().at(Stage::Credentials)?;
    credentials::set_ids(plan.uid, plan.gid, &plan.groups).at(Stage::Credentials)?;
    let for_filter = if plan.seccomp.is_some() && !plan.no_new_privs { SYS_ADMIN } else { CapSet::default() };
    credentials::set_capabilities(
        sets.effective.union(for_filter),
        sets.permitted.union(for_filter),
        sets.inheritable,
    )
    .at(Stage::Credentials)?;
    credentials::set_ambient(sets.ambient).at(Stage::Credentials)?;
    if plan.no_new_privs {
        process::set_no_new_privs().at(Stage::Credentials)?;
    }
    Ok(())
}

/// Installs the filter: the last thing before exec.
pub fn filter(plan: &Process) -> Result<(), Failure> {
    match &plan.seccomp {
        Some(seccomp) => seccomp.filter.install(seccomp.flags).at(Stage::Seccomp),
        None => Ok(()),
    }
}
