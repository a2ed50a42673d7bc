//! Capabilities that reach beyond the container (`capabilities(7)`). What counts is the bounding set: a setuid file of the
//! attacker's image gives what is in it, unless `allowPrivilegeEscalation: false` keeps another user than root from it.

use super::{Claim, Process, Question, Sight, Subject};
use crate::security_context::{Capability, CapabilitySet};

/// With what each gives, within the namespaces of a pod.
const REACHING: [(Capability, &str); 11] = [
    (Capability::SYS_ADMIN, "most of what root may do: mounts, namespaces, devices' controls"),
    (Capability::SYS_MODULE, "the kernel itself, by a module"),
    (Capability::SYS_RAWIO, "the machine's memory and I/O ports"),
    (Capability::SYS_PTRACE, "the memory of every process it sees"),
    (Capability::DAC_READ_SEARCH, "files outside of its root, by their handles"),
    (Capability::BPF, "programs within the kernel"),
    (Capability::SYS_BOOT, "the machine's restart"),
    (Capability::SYS_TIME, "the machine's clock"),
    (Capability::SYSLOG, "the kernel's log and addresses"),
    (Capability::NET_ADMIN, "addresses, routes and packet filter of its network"),
    (Capability::NET_RAW, "packets of its own making"),
];

const REMEDY: &str = "capabilities.drop: [ALL], and add what is needed; runAsUser with allowPrivilegeEscalation: false leaves none";

/// What a process of the attacker's image may come to hold.
fn attainable(subject: &Subject<'_>) -> CapabilitySet {
    let of = subject.effective.capabilities.value;
    if subject.may_be_root() { of.bounding } else { of.permitted }
}

pub(super) fn claims(subject: &Subject<'_>) -> Vec<Claim> {
    let attainable = attainable(subject);
    let may_be_root = subject.may_be_root();
    let question = |any_of| Question::Capabilities { any_of, may_be_root };
    // Privileged containers have them all: one line says it.
    if REACHING.iter().all(|(capability, _)| attainable.contains(*capability)) {
        let all = REACHING.map(|(capability, _)| capability).to_vec();
        return vec![Claim {
            target: "every capability: the kernel takes it for root of the node".into(),
            because: if subject.effective.privileged.value { "privileged: true" } else { "capabilities.add" }
                .into(),
            remedy: Some(REMEDY),
            ..subject.claim("capabilities", question(all), true)
        }];
    }
    let (open, closed): (Vec<_>, Vec<_>) =
        REACHING.into_iter().partition(|(capability, _)| attainable.contains(*capability));
    let mut claims: Vec<Claim> = open
        .into_iter()
        .map(|(capability, gives)| Claim {
            target: format!("{}: {gives}", capability.name()),
            because: format!("{} among its capabilities", capability.name()),
            remedy: Some(REMEDY),
            ..subject.claim("capabilities", question(vec![capability]), true)
        })
        .collect();
    let names: Vec<_> =
        closed.iter().map(|(capability, _)| capability.name().trim_start_matches("CAP_")).collect();
    claims.push(Claim {
        target: format!("by capability: none of {}", names.join(", ")),
        because: if may_be_root { "not among its capabilities" } else { "no process of it can be root" }
            .into(),
        ..subject.claim("capabilities", question(closed.iter().map(|(c, _)| *c).collect()), false)
    });
    claims
}

pub(super) fn look(any_of: &[Capability], may_be_root: bool, process: &Process) -> Sight {
    // Whoever cannot be root by the pod's word is held to what the kernel says of this process.
    let by_exec = may_be_root || !process.no_new_privs || process.uid == 0;
    let attainable = if by_exec { process.bounding } else { process.permitted };
    let (name, why) = match by_exec {
        true => ("CapBnd", ""),
        false => ("CapPrm", ", NoNewPrivs 1"),
    };
    Sight {
        is_there: any_of.iter().any(|capability| attainable.contains(*capability)),
        witness: format!("{name} {:x} of process {}{why}", attainable.bits(), process.pid),
    }
}
