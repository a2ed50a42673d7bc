//! Root in the container is root of the node's kernel, but for what was taken from it: what a flaw of the kernel, or a file that
//! came in by another way, is worth to it.

use super::{Claim, Process, Question, Sight, Subject};

pub(super) fn claims(subject: &Subject<'_>) -> Vec<Claim> {
    let may_be_root = subject.may_be_root();
    let because = match (subject.effective.uid.value, subject.effective.no_new_privs.value) {
        (0, _) => "the image's user may be 0: neither runAsNonRoot nor runAsUser",
        (_, false) => "a setuid file of the image makes it 0: allowPrivilegeEscalation is not false",
        (_, true) => "runAsUser or runAsNonRoot, and allowPrivilegeEscalation: false",
    };
    vec![Claim {
        target: "uid 0 of the node's kernel".into(),
        because: because.into(),
        remedy: Some("runAsNonRoot: true and allowPrivilegeEscalation: false"),
        ..subject.claim("root", Question::Root { may_be_root }, may_be_root)
    }]
}

pub(super) fn look(may_be_root: bool, process: &Process) -> Sight {
    let can_be = may_be_root || process.uid == 0 || !process.no_new_privs;
    let outside = match process.root_is {
        Some(uid) => format!("uid 0 in it is uid {uid} outside"),
        None => "no uid 0 in its user namespace".to_owned(),
    };
    Sight {
        is_there: can_be && process.root_is == Some(0),
        witness: format!(
            "process {} has uid {}, NoNewPrivs {}; {outside}",
            process.pid,
            process.uid,
            u8::from(process.no_new_privs)
        ),
    }
}
