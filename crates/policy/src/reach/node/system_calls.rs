//! `seccompProfile`: which of the kernel's system calls an attacker may try.

use super::{Claim, Process, Question, Sight, Subject};
use crate::security_context::Seccomp;

pub(super) fn claims(subject: &Subject<'_>) -> Vec<Claim> {
    let because = match &subject.effective.seccomp.value {
        Seccomp::Unconfined if subject.effective.privileged.value => "privileged: true".to_owned(),
        Seccomp::Unconfined => "seccompProfile: Unconfined, or none".to_owned(),
        Seccomp::RuntimeDefault => "seccompProfile: RuntimeDefault".to_owned(),
        Seccomp::Localhost(path) => format!("seccompProfile: {}", path.display()),
    };
    vec![Claim {
        target: "every system call of the kernel".into(),
        because,
        remedy: Some("seccompProfile: { type: RuntimeDefault }"),
        ..subject.claim(
            "system-calls",
            Question::SystemCalls,
            subject.effective.seccomp.value == Seccomp::Unconfined,
        )
    }]
}

pub(super) fn look(process: &Process) -> Sight {
    Sight {
        is_there: process.seccomp == 0,
        witness: format!("Seccomp {} of process {}", process.seccomp, process.pid),
    }
}
