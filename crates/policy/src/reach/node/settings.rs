//! `privileged`, `procMount: Unmasked`: the kernel's settings in `/proc/sys` and `/sys`, which are the machine's.

use super::{Claim, Process, Question, Sight, Subject};
use crate::security_context::ProcMount;

pub(super) fn claims(subject: &Subject<'_>) -> Vec<Claim> {
    let privileged = subject.effective.privileged.value;
    let unmasked = subject.effective.proc_mount.value == ProcMount::Unmasked;
    let open = (privileged || unmasked) && subject.may_be_root();
    let because = match (privileged, unmasked) {
        (true, _) => "privileged: true",
        (false, true) => "procMount: Unmasked",
        (false, false) => "not privileged, procMount Default",
    };
    vec![Claim {
        target: "the kernel's settings in /proc/sys and /sys".into(),
        because: because.into(),
        remedy: Some("remove securityContext.privileged and procMount"),
        ..subject.claim("kernel-settings", Question::Settings, open)
    }]
}

pub(super) fn look(process: &Process) -> Sight {
    // Without a mount of its own, /proc/sys is as /proc is.
    let proc = process.mount_at("/proc/sys").or_else(|| process.mount_at("/proc"));
    let sys = process.mount_at("/sys");
    let word = |mount: Option<&super::facts::Mount>| match mount {
        None => "not there",
        Some(mount) if mount.writable => "writable",
        Some(_) => "read-only",
    };
    let writable = |mount: Option<&super::facts::Mount>| mount.is_some_and(|mount| mount.writable);
    Sight {
        is_there: writable(proc) || writable(sys),
        witness: format!("/proc/sys is {}, /sys is {}", word(proc), word(sys)),
    }
}
