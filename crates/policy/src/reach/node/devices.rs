//! `privileged`: the machine's devices, its disks among them.

use super::{Claim, Process, Question, Sight, Subject};

pub(super) fn claims(subject: &Subject<'_>) -> Vec<Claim> {
    let open = subject.effective.privileged.value;
    vec![Claim {
        target: "the machine's devices: whoever writes its disks has all that is on them".into(),
        because: if open { "privileged: true" } else { "not privileged" }.into(),
        remedy: Some("remove securityContext.privileged; add the one capability that is needed"),
        ..subject.claim("devices", Question::Devices, open)
    }]
}

pub(super) fn look(process: &Process) -> Sight {
    let count = process.devices.len();
    let witness = match process.devices.as_slice() {
        [] => "/dev holds only what every container has".to_owned(),
        [first, ..] => {
            format!("/dev holds {count} devices more than every container has, {first} among them")
        }
    };
    Sight { is_there: count > 0, witness }
}
