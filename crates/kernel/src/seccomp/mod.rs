//! System call filters: a profile (the model of OCI's `LinuxSeccomp`) is compiled to one classic BPF program and installed.
//!
//! One program holds every action of the profile, with its own errno per rule, and covers each architecture a process on this machine can
//! enter the kernel by: on x86_64 also i386 and x32, whose numbers differ. What enters by an architecture the profile does not
//! name is killed. System calls are found by binary search, so a profile of 400 costs about ten instructions a call.
//!
//! Rules of one system call are tried in the profile's order; the first that matches decides, else the default action.
//! On i386, `socketcall` and `ipc` reach other calls by arguments in memory that no filter can see: a profile that filters
//! those by argument must not allow them.

mod compile;
mod syscalls;
#[cfg(test)]
mod tests;

pub use compile::compile;

use crate::error::CallError;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    KillThread,
    KillProcess,
    Trap,
    /// Fails with this errno.
    Errno(u16),
    /// Tells a tracer; ENOSYS without one.
    Trace(u16),
    Log,
    Allow,
}

impl Action {
    /// The filter's return value, seccomp(2).
    #[must_use]
    pub const fn value(self) -> u32 {
        match self {
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
            Self::Trace(data) => libc::SECCOMP_RET_TRACE | data as u32,
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Allow => libc::SECCOMP_RET_ALLOW,
        }
    }
}

/// An entry point of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
}

impl Arch {
    /// The one this program is built for.
    #[must_use]
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// `AUDIT_ARCH_*`. x32 shares x86_64's and is told apart by bit 30 of the number.
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The number of a system call as a filter sees it; `None` if the architecture has no such call.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        let row = syscalls::SYSCALLS
            .binary_search_by(|row| row.0.cmp(name))
            .ok()
            .map(|at| &syscalls::SYSCALLS[at])?;
        let number = match self {
            Self::X86_64 => row.1,
            Self::X86 => row.2,
            Self::Aarch64 => row.3,
            Self::X32 => match syscalls::X32_OWN.binary_search_by(|own| own.0.cmp(name)) {
                Ok(at) => syscalls::X32_OWN[at].1,
                Err(_) => row.1,
            },
        };
        let number = u32::try_from(number).ok()?;
        Some(if self == Self::X32 { number | X32_BIT } else { number })
    }
}

/// Set in the number of a call by the x32 ABI.
pub const X32_BIT: u32 = 0x4000_0000;

/// Whether any architecture we know has a call of this name.
#[must_use]
pub fn is_known(name: &str) -> bool {
    syscalls::SYSCALLS.binary_search_by(|row| row.0.cmp(name)).is_ok()
}

/// How an argument is compared, unsigned and 64 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// `argument & value == value_two & value`.
    MaskedEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// 0 to 5.
    pub index: u8,
    pub compare: Compare,
    pub value: u64,
    pub value_two: u64,
}

/// Gives the named calls an action where all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    /// As in OCI: all must hold, but where one argument is named twice, any one of them suffices (runc reads it so).
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub default: Action,
    /// The native one is always added.
    pub architectures: Vec<Arch>,
    pub rules: Vec<Rule>,
}

/// Why a profile gives no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("seccomp: system call {name}: argument index {index} is not one of 0 to 5")]
    ArgumentIndex { name: String, index: u8 },
    #[error(
        "seccomp: unknown system call {name}: the profile's default would let it through where its rule forbids it"
    )]
    UnknownForbidden { name: String },
    #[error("seccomp: the filter needs {0} instructions, the kernel takes at most 4096")]
    TooLong(usize),
}

/// One instruction of classic BPF, as the kernel lays it out (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub(crate) program: Vec<Instruction>,
}

/// `SECCOMP_FILTER_FLAG_*` bits for [`Filter::install`].
pub mod flag {
    pub const TSYNC: u64 = 1;
    pub const LOG: u64 = 2;
    pub const SPEC_ALLOW: u64 = 4;
    pub const WAIT_KILLABLE_RECV: u64 = 32;
}

impl Filter {
    /// How many instructions it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// Never: a filter has at least its default action.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.program.is_empty()
    }

    /// Puts this process (and all its descendants) under the filter, for good.
    ///
    /// # Errors
    /// `EACCES` without no_new_privs or CAP_SYS_ADMIN.
    pub fn install(&self, flags: u64) -> Result<(), CallError> {
        #[repr(C)]
        struct Program {
            len: u16,
            filter: *const Instruction,
        }
        let Ok(len) = u16::try_from(self.program.len()) else {
            return Err(CallError::new("seccomp", "filter length", rustix::io::Errno::INVAL));
        };
        let program = Program { len, filter: self.program.as_ptr() };
        // SAFETY: `program` has sock_fprog's layout and names `len` instructions of sock_filter's layout; both outlive the call.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(CallError::last("seccomp", "SECCOMP_SET_MODE_FILTER")) }
    }
}
