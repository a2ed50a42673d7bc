//! `hostNetwork`, `hostPID`, `hostIPC`: the node's own network, processes and IPC.

use super::{Claim, Process, Question, Sight, Subject};

pub(super) fn claims(subject: &Subject<'_>) -> Vec<Claim> {
    let of = subject.effective.namespaces;
    let rows = [
        (
            "host-network",
            "net",
            of.host_network,
            "hostNetwork",
            "the node's network: its loopback and ports; no NetworkPolicy holds",
        ),
        (
            "host-pid",
            "pid",
            of.host_pid,
            "hostPID",
            "the node's processes: their arguments, environment and files",
        ),
        ("host-ipc", "ipc", of.host_ipc, "hostIPC", "the node's System V IPC and POSIX queues"),
    ];
    let remedies = ["remove spec.hostNetwork", "remove spec.hostPID", "remove spec.hostIPC"];
    let rows = rows.into_iter().zip(remedies);
    rows.map(|((id, kind, open, field, target), remedy)| Claim {
        target: target.into(),
        because: format!("{field}: {open}"),
        remedy: Some(remedy),
        ..subject.claim(id, Question::Namespace(kind), open)
    })
    .collect()
}

pub(super) fn look(kind: &str, process: &Process) -> Sight {
    let Some((own, node)) = process.namespaces.get(kind) else {
        return Sight { is_there: false, witness: format!("no namespace {kind}") };
    };
    let is_there = own == node;
    let witness =
        if is_there { format!("it is in the node's {own}") } else { format!("{own}; the node's is {node}") };
    Sight { is_there, witness }
}
