//! Stage `Verify`: what the kernel says of a process right after its exec, before its first instruction, held against the plan. The exec is
//! where the kernel recomputes credentials, so this is where a mistake would show.

use keeper::protocol::{Failure, Stage};
use kernel::credentials::CapSet;
use kernel::namespace::{self, Namespace};
use kernel::{CallError, Named};
use rustix::io::Errno;
use rustix::process::Pid;

use super::At;
use crate::plan::Process;

/// The lines of /proc/<pid>/status that say who a process is and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Real, effective, saved, file system.
    pub uid: [u32; 4],
    pub gid: [u32; 4],
    pub groups: Vec<u32>,
    pub inheritable: CapSet,
    pub permitted: CapSet,
    pub effective: CapSet,
    pub bounding: CapSet,
    pub ambient: CapSet,
    pub no_new_privs: bool,
    /// 0 none, 2 filter.
    pub seccomp: u32,
}

impl Status {
    /// Reads it of another process, or of this (`None`).
    pub fn of(pid: Option<Pid>) -> Result<Self, CallError> {
        let path = match pid {
            Some(pid) => format!("/proc/{}/status", pid.as_raw_nonzero()),
            None => "/proc/self/status".into(),
        };
        let text = std::fs::read_to_string(&path).named("read", &path)?;
        Self::parse(&text).ok_or_else(|| CallError::new("read", path, Errno::PROTO))
    }

    fn parse(text: &str) -> Option<Self> {
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let four = |name: &str| -> Option<[u32; 4]> {
            let ids: Vec<u32> = line(name)?.split_whitespace().filter_map(|id| id.parse().ok()).collect();
            ids.try_into().ok()
        };
        let caps = |name: &str| u64::from_str_radix(line(name)?.trim(), 16).ok().map(CapSet);
        let mut groups: Vec<u32> =
            line("Groups")?.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        groups.sort_unstable();
        Some(Self {
            uid: four("Uid")?,
            gid: four("Gid")?,
            groups,
            inheritable: caps("CapInh")?,
            permitted: caps("CapPrm")?,
            effective: caps("CapEff")?,
            bounding: caps("CapBnd")?,
            ambient: caps("CapAmb")?,
            no_new_privs: line("NoNewPrivs")?.trim() == "1",
            seccomp: line("Seccomp")?.trim().parse().ok()?,
        })
    }
}

/// What a plan's process looks like after its exec, by the rules of capabilities(7), unless its program has set-id bits or file
/// capabilities. `last` is the highest capability the kernel knows.
pub fn expected(plan: &Process, last: u32) -> Status {
    let sets = plan.capabilities;
    let known = CapSet(u64::MAX >> (63 - last.min(63)));
    // Root's exec regains what is bounding; others' only keeps what is ambient.
    let permitted =
        if plan.uid == 0 { sets.bounding.union(sets.inheritable).union(sets.ambient) } else { sets.ambient };
    Status {
        uid: [plan.uid; 4],
        gid: [plan.gid; 4],
        groups: plan.groups.clone(),
        inheritable: sets.inheritable,
        permitted: CapSet(permitted.0 & known.0),
        effective: CapSet(permitted.0 & known.0),
        bounding: CapSet(sets.bounding.0 & known.0),
        ambient: sets.ambient,
        no_new_privs: plan.no_new_privs,
        seccomp: if plan.seccomp.is_some() { 2 } else { 0 },
    }
}

/// How a program may raise rights at exec, which a plan without no_new_privs allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Raises {
    uid: Option<u32>,
    gid: Option<u32>,
    capabilities: bool,
}

fn raises(pid: Pid) -> Result<Raises, CallError> {
    let path = format!("/proc/{}/exe", pid.as_raw_nonzero());
    let file = rustix::fs::stat(&path).named("stat", &path)?;
    let mut value = [0_u8; 64];
    let capabilities = match rustix::fs::getxattr(&path, "security.capability", &mut value) {
        Ok(_) => true,
        Err(Errno::NODATA | Errno::OPNOTSUPP) => false,
        Err(errno) => return Err(CallError::new("getxattr", path, errno)),
    };
    Ok(Raises {
        uid: (file.st_mode & 0o4000 != 0).then_some(file.st_uid),
        gid: (file.st_mode & 0o2010 == 0o2010).then_some(file.st_gid),
        capabilities,
    })
}

/// Which namespaces must be the keeper's, and which must not.
pub struct Namespaces<'a> {
    pub same: &'a [Namespace],
    pub own: &'a [Namespace],
}

/// Compares. The first difference is the error.
pub fn verify(pid: Pid, plan: &Process, namespaces: &Namespaces<'_>, last: u32) -> Result<(), Failure> {
    let seen = Status::of(Some(pid)).at(Stage::Verify)?;
    let mut want = expected(plan, last);
    if !plan.no_new_privs && (seen != want) {
        // Only a program that raises rights by its own bits may differ, and only so far.
        let raises = raises(pid).at(Stage::Verify)?;
        if let Some(uid) = raises.uid {
            want.uid = [want.uid[0], uid, uid, uid];
        }
        if let Some(gid) = raises.gid {
            want.gid = [want.gid[0], gid, gid, gid];
        }
        if raises != Raises::default() {
            // Never beyond the bounding set.
            if seen.permitted.minus(want.bounding.union(want.inheritable)) == CapSet::default() {
                want.permitted = seen.permitted;
                want.effective = CapSet(seen.effective.0 & seen.permitted.0);
            }
            // The kernel clears the ambient set for such a program.
            want.ambient = CapSet(seen.ambient.0 & want.ambient.0);
        }
    }
    compare(&seen, &want)?;
    for kind in namespaces.same {
        let (theirs, ours) = inodes(pid, *kind)?;
        if theirs != ours {
            return differs(&format!("{} namespace", kind.file()), &theirs, &format!("{ours} (the pod's)"));
        }
    }
    for kind in namespaces.own {
        let (theirs, ours) = inodes(pid, *kind)?;
        if theirs == ours {
            return differs(&format!("{} namespace", kind.file()), &theirs, &"one of its own");
        }
    }
    Ok(())
}

fn inodes(pid: Pid, kind: Namespace) -> Result<(u64, u64), Failure> {
    Ok((
        namespace::inode(Some(pid), kind).at(Stage::Verify)?,
        namespace::inode(None, kind).at(Stage::Verify)?,
    ))
}

fn differs<T>(what: &str, seen: &dyn std::fmt::Display, want: &dyn std::fmt::Display) -> Result<T, Failure> {
    let message = format!("{what} is {seen}, the plan says {want}; the process was killed");
    Err(Failure { stage: Stage::Verify, message })
}

fn compare(seen: &Status, want: &Status) -> Result<(), Failure> {
    let list = |ids: &[u32]| format!("{ids:?}");
    let rows = [
        ("Uid", list(&seen.uid), list(&want.uid)),
        ("Gid", list(&seen.gid), list(&want.gid)),
        ("Groups", list(&seen.groups), list(&want.groups)),
        ("CapInh", seen.inheritable.to_string(), want.inheritable.to_string()),
        ("CapPrm", seen.permitted.to_string(), want.permitted.to_string()),
        ("CapEff", seen.effective.to_string(), want.effective.to_string()),
        ("CapBnd", seen.bounding.to_string(), want.bounding.to_string()),
        ("CapAmb", seen.ambient.to_string(), want.ambient.to_string()),
        ("NoNewPrivs", seen.no_new_privs.to_string(), want.no_new_privs.to_string()),
        ("Seccomp", seen.seccomp.to_string(), want.seccomp.to_string()),
    ];
    match rows.iter().find(|(_, seen, want)| seen != want) {
        Some((what, seen, want)) => differs(what, seen, want),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_named() {
        let want = Status { uid: [1000; 4], gid: [1000; 4], groups: vec![1000], ..Status::default() };
        type Change = (&'static str, fn(&mut Status));
        let changes: [Change; 10] = [
            ("Uid", |s| s.uid[1] = 0),
            ("Gid", |s| s.gid[3] = 0),
            ("Groups", |s| s.groups.push(0)),
            ("CapInh", |s| s.inheritable = CapSet(1)),
            ("CapPrm", |s| s.permitted = CapSet(1)),
            ("CapEff", |s| s.effective = CapSet(1)),
            ("CapBnd", |s| s.bounding = CapSet(1)),
            ("CapAmb", |s| s.ambient = CapSet(1)),
            ("NoNewPrivs", |s| s.no_new_privs = true),
            ("Seccomp", |s| s.seccomp = 2),
        ];
        assert_eq!(compare(&want, &want), Ok(()));
        for (name, change) in changes {
            let mut seen = want.clone();
            change(&mut seen);
            let failure = compare(&seen, &want).unwrap_err();
            assert!(failure.message.starts_with(name), "{name}: {}", failure.message);
            assert_eq!(failure.stage, Stage::Verify);
        }
    }

    #[test]
    fn our_own_status_is_read() {
        let own = Status::of(None).unwrap();
        assert_eq!(own.uid[0], rustix::process::getuid().as_raw());
    }
}
