//! Who a process is and what it may do: ids, groups and the five capability sets. All of it for a single-threaded process:
//! the raw calls change the calling thread only.

use rustix::process::{Gid, Uid};

use crate::error::{CallError, Named};
use crate::process::prctl;

/// A set of capabilities, a bit each, as `/proc/<pid>/status` prints them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct CapSet(pub u64);

impl std::fmt::Debug for CapSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::fmt::Display for CapSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// capabilities(7), by number.
pub const CAPABILITY_NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// CAP_SYS_ADMIN.
pub const SYS_ADMIN: CapSet = CapSet(1 << 21);

impl CapSet {
    /// A capability's number by its name, with or without `CAP_`.
    #[must_use]
    pub fn number(name: &str) -> Option<u32> {
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        CAPABILITY_NAMES.iter().position(|known| *known == bare).and_then(|at| u32::try_from(at).ok())
    }

    #[must_use]
    pub const fn contains(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// The capabilities of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Capabilities {
    pub effective: CapSet,
    pub permitted: CapSet,
    pub inheritable: CapSet,
    pub bounding: CapSet,
    pub ambient: CapSet,
}

/// The highest capability this kernel knows, from `/proc/sys/kernel/cap_last_cap`.
///
/// # Errors
/// read's errno.
pub fn last_capability() -> Result<u32, CallError> {
    const PATH: &str = "/proc/sys/kernel/cap_last_cap";
    let text = std::fs::read_to_string(PATH).named("read", PATH)?;
    text.trim().parse().map_err(|_| CallError::new("read", PATH, rustix::io::Errno::INVAL))
}

/// Drops everything but `keep` from the bounding set. Needs CAP_SETPCAP, so before [`set_capabilities`].
///
/// # Errors
/// prctl's errno.
pub fn limit_bounding(keep: CapSet, last: u32) -> Result<(), CallError> {
    for number in (0..=last).filter(|number| !keep.contains(*number)) {
        prctl("PR_CAPBSET_DROP", libc::PR_CAPBSET_DROP, u64::from(number))?;
    }
    Ok(())
}

/// Keeps the permitted set when all uids become non-zero (until exec).
///
/// # Errors
/// prctl's errno.
pub fn keep_capabilities() -> Result<(), CallError> {
    prctl("PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, 1)
}

/// capset(2) on this thread.
///
/// # Errors
/// `EPERM` for a set the kernel's rules do not allow.
pub fn set_capabilities(effective: CapSet, permitted: CapSet, inheritable: CapSet) -> Result<(), CallError> {
    let set = |set: CapSet| rustix::thread::CapabilitySet::from_bits_retain(set.0);
    let sets = rustix::thread::CapabilitySets {
        effective: set(effective),
        permitted: set(permitted),
        inheritable: set(inheritable),
    };
    rustix::thread::set_capabilities(None, sets)
        .named("capset", format!("effective {effective} permitted {permitted} inheritable {inheritable}"))
}

/// Makes the ambient set exactly this. Each must be permitted and inheritable.
///
/// # Errors
/// prctl's errno.
pub fn set_ambient(ambient: CapSet) -> Result<(), CallError> {
    const RAISE: u64 = libc::PR_CAP_AMBIENT_RAISE as u64;
    const CLEAR: u64 = libc::PR_CAP_AMBIENT_CLEAR_ALL as u64;
    let call = |operation: u64, number: u64| {
        // SAFETY: PR_CAP_AMBIENT takes numbers only.
        let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, operation, number, 0_u64, 0_u64) };
        if result == 0 { Ok(()) } else { Err(CallError::last("PR_CAP_AMBIENT", number.to_string())) }
    };
    call(CLEAR, 0)?;
    (0..64).filter(|number| ambient.contains(*number)).try_for_each(|number| call(RAISE, u64::from(number)))
}

/// Real, effective and saved ids and the supplementary groups, groups first: afterwards there is no right to set them.
///
/// # Errors
/// The call's errno; `EINVAL` for the id 4294967295, which the kernel reads as "no change" (CVE-2024-40635's neighbour).
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> Result<(), CallError> {
    for (what, id) in [("uid", uid), ("gid", gid)].into_iter().chain(groups.iter().map(|g| ("group", *g))) {
        if id == u32::MAX {
            return Err(CallError::new("setresuid", format!("{what} {id}"), rustix::io::Errno::INVAL));
        }
    }
    let list: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&list).named("setgroups", format!("{groups:?}"))?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(group, group, group).named("setresgid", gid)?;
    rustix::thread::set_thread_res_uid(user, user, user).named("setresuid", uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_names_are_known_with_and_without_prefix() {
        assert_eq!(CapSet::number("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(CapSet::number("NET_RAW"), Some(13));
        assert_eq!(CapSet::number("CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(CapSet::number("CAP_ROOT"), None);
    }

    #[test]
    fn the_id_that_means_no_change_is_refused_before_any_call() {
        assert_eq!(set_ids(u32::MAX, 0, &[]).unwrap_err().errno, rustix::io::Errno::INVAL);
        assert_eq!(set_ids(0, 0, &[u32::MAX]).unwrap_err().errno, rustix::io::Errno::INVAL);
    }
}
