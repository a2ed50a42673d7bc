//! Reads a container's plan before anything is done: what the keeper carries out becomes plain values for the stages of the
//! launch; what it does not carry out is refused by its field's name. Nothing of a `Spec` is dropped in silence.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use keeper::protocol::{ContainerPlan, Failure, NamespaceMode, PidMode, SandboxPlan, Stage};
use kernel::cgroup::{DeviceKind, DeviceRule, Limits};
use kernel::credentials::{CapSet, Capabilities};
use kernel::seccomp;
use oci_spec::runtime::{
    self as oci, LinuxCapabilities, LinuxDeviceType, LinuxNamespaceType, LinuxResources, LinuxSeccomp,
    LinuxSeccompAction,
};

use crate::mount_options::{self, MountPlan};

/// A refusal of a plan.
pub fn refuse(message: impl Into<String>) -> Failure {
    Failure { stage: Stage::Plan, message: message.into() }
}

/// A device node to make.
#[derive(Clone, Debug)]
pub struct Device {
    pub path: PathBuf,
    pub kind: rustix::fs::FileType,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A filter and its flags.
#[derive(Clone, Debug)]
pub struct Seccomp {
    pub filter: seccomp::Filter,
    pub flags: u64,
}

/// Who a process is and what it runs. Of a container's own process and, with changes, of one exec'd into it.
#[derive(Clone, Debug)]
pub struct Process {
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: PathBuf,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: Option<u32>,
    pub capabilities: Capabilities,
    pub no_new_privs: bool,
    /// Kernel's number, name, soft, hard.
    pub rlimits: Vec<(u32, String, u64, u64)>,
    pub oom_score_adj: Option<i32>,
    pub seccomp: Option<Seccomp>,
    pub tty: bool,
}

/// A whole container, read.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub process: Process,
    pub own_cgroup_namespace: bool,
    pub mounts: Vec<MountPlan>,
    pub devices: Vec<Device>,
    pub masked: Vec<PathBuf>,
    pub readonly: Vec<PathBuf>,
    pub root_readonly: bool,
    pub root_propagation: Option<kernel::mount::Propagation>,
    pub sysctls: Vec<(String, String)>,
    pub limits: Limits,
    /// Of an own terminal, where the Spec names one.
    pub console: Option<(u16, u16)>,
}

/// Reads a plan.
pub fn prepare(plan: &ContainerPlan, sandbox: &SandboxPlan, attached: usize) -> Result<Prepared, Failure> {
    name(&plan.name)?;
    let spec = &plan.spec;
    let absent = |present: bool, field: &str| {
        if present { Err(refuse(format!("{field}: not supported"))) } else { Ok(()) }
    };
    absent(spec.hooks().as_ref().is_some_and(|hooks| *hooks != oci::Hooks::default()), "hooks")?;
    absent(spec.domainname().is_some(), "domainname")?;
    absent(spec.windows().is_some(), "windows")?;
    absent(spec.vm().is_some(), "vm")?;
    let process = spec.process().as_ref().ok_or_else(|| refuse("process: missing"))?;
    let linux = spec.linux().clone().unwrap_or_default();
    let some =
        |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list: &Vec<oci::LinuxIdMapping>| !list.is_empty());
    absent(some(linux.uid_mappings()), "linux.uidMappings")?;
    absent(some(linux.gid_mappings()), "linux.gidMappings")?;
    absent(linux.intel_rdt().is_some(), "linux.intelRdt")?;
    absent(linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()), "linux.mountLabel")?;
    absent(linux.personality().is_some(), "linux.personality")?;
    absent(linux.memory_policy().is_some(), "linux.memoryPolicy")?;
    absent(linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()), "linux.timeOffsets")?;
    absent(linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()), "linux.netDevices")?;
    if let Some(hostname) = spec.hostname().as_ref().filter(|name| !name.is_empty())
        && (sandbox.uts == NamespaceMode::Node
            || sandbox.hostname.as_ref().is_some_and(|own| own != hostname))
    {
        return Err(refuse(format!("hostname {hostname:?}: the pod's UTS namespace has another name")));
    }
    let mut own_cgroup_namespace = false;
    for namespace in linux.namespaces().iter().flatten() {
        match namespace.typ() {
            LinuxNamespaceType::Cgroup => own_cgroup_namespace = true,
            LinuxNamespaceType::User => absent(true, "linux.namespaces: user")?,
            LinuxNamespaceType::Time => absent(true, "linux.namespaces: time")?,
            _ => {}
        }
    }
    let mounts = spec.mounts().iter().flatten().map(|mount| mount_options::read(mount, attached));
    let mut sysctls: Vec<(String, String)> = linux.sysctl().clone().unwrap_or_default().into_iter().collect();
    sysctls.sort();
    for (name, _) in &sysctls {
        sysctl_allowed(name, sandbox)?;
    }
    let root_propagation = match linux.rootfs_propagation().as_deref() {
        None | Some("") => None,
        Some(word) => Some(
            mount_options::propagation(word)
                .ok_or_else(|| refuse(format!("linux.rootfsPropagation: {word:?} is not known")))?
                .0,
        ),
    };
    let paths = |list: &Option<Vec<String>>| list.iter().flatten().map(PathBuf::from).collect::<Vec<_>>();
    Ok(Prepared {
        process: read_process(process, linux.seccomp().as_ref(), plan.tty)?,
        own_cgroup_namespace,
        mounts: mounts.collect::<Result<_, _>>()?,
        devices: linux.devices().iter().flatten().map(device).collect::<Result<_, _>>()?,
        masked: paths(linux.masked_paths()),
        readonly: paths(linux.readonly_paths()),
        root_readonly: spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)),
        root_propagation,
        sysctls,
        limits: linux.resources().as_ref().map(limits).transpose()?.unwrap_or_default(),
        console: process.console_size().as_ref().map(|size| {
            let fit = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
            (fit(size.width()), fit(size.height()))
        }),
    })
}

/// A container's name becomes part of paths and cgroups: a DNS label, as Kubernetes demands.
fn name(name: &str) -> Result<(), Failure> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(fits) {
        return Err(refuse(format!("container name {name:?} is not a DNS label")));
    }
    Ok(())
}

fn strings(list: &[String], field: &str) -> Result<Vec<CString>, Failure> {
    let read = |text: &String| {
        CString::new(text.as_str()).map_err(|_| refuse(format!("{field}: {text:?} holds a NUL")))
    };
    list.iter().map(read).collect()
}

fn read_process(
    process: &oci::Process,
    seccomp: Option<&LinuxSeccomp>,
    tty: bool,
) -> Result<Process, Failure> {
    let field = |present: bool, name: &str| {
        if present { Err(refuse(format!("process.{name}: this keeper has no means for it"))) } else { Ok(()) }
    };
    let named = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    field(named(process.apparmor_profile()), "apparmorProfile")?;
    field(named(process.selinux_label()), "selinuxLabel")?;
    field(process.io_priority().is_some(), "ioPriority")?;
    field(process.scheduler().is_some(), "scheduler")?;
    field(process.exec_cpu_affinity().is_some(), "execCPUAffinity")?;
    if process.terminal().unwrap_or(tty) != tty {
        return Err(refuse("process.terminal: differs from the plan's tty"));
    }
    let user = process.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    // The primary group is among the supplementary ones, so that dropping it does not evade a "deny to the group"
    // permission (CVE-2022-2989, CVE-2023-25173).
    let groups = with_group(groups, user.gid());
    ids(user.uid(), &groups)?;
    let args = strings(process.args().as_deref().unwrap_or_default(), "process.args")?;
    if args.is_empty() {
        return Err(refuse("process.args: empty"));
    }
    if !process.cwd().is_absolute() {
        return Err(refuse(format!("process.cwd {:?}: not absolute", process.cwd())));
    }
    let mut rlimits = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let name = limit.typ().to_string();
        rlimits.push((rlimit(limit.typ()), name, limit.soft(), limit.hard()));
    }
    Ok(Process {
        args,
        env: strings(process.env().as_deref().unwrap_or_default(), "process.env")?,
        cwd: process.cwd().clone(),
        uid: user.uid(),
        gid: user.gid(),
        groups,
        umask: user.umask(),
        capabilities: process.capabilities().as_ref().map_or(Ok(Capabilities::default()), capabilities)?,
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        rlimits,
        oom_score_adj: process.oom_score_adj(),
        seccomp: seccomp.map(read_seccomp).transpose()?,
        tty,
    })
}

/// The id 4294967295 means "no change" to the kernel: with it a process would stay root (CVE-2024-40635 is of that kind).
pub fn ids(uid: u32, groups: &[u32]) -> Result<(), Failure> {
    if uid == u32::MAX {
        return Err(refuse(format!("process.user.uid: {uid} is no id")));
    }
    if groups.contains(&u32::MAX) {
        return Err(refuse(format!("process.user: the group {} is no id", u32::MAX)));
    }
    Ok(())
}

/// `groups` with `gid` among them, sorted, once each.
pub fn with_group(mut groups: Vec<u32>, gid: u32) -> Vec<u32> {
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn rlimit(kind: oci::PosixRlimitType) -> u32 {
    use oci::PosixRlimitType as T;
    match kind {
        T::RlimitCpu => 0,
        T::RlimitFsize => 1,
        T::RlimitData => 2,
        T::RlimitStack => 3,
        T::RlimitCore => 4,
        T::RlimitRss => 5,
        T::RlimitNproc => 6,
        T::RlimitNofile => 7,
        T::RlimitMemlock => 8,
        T::RlimitAs => 9,
        T::RlimitLocks => 10,
        T::RlimitSigpending => 11,
        T::RlimitMsgqueue => 12,
        T::RlimitNice => 13,
        T::RlimitRtprio => 14,
        T::RlimitRttime => 15,
    }
}

fn capabilities(sets: &LinuxCapabilities) -> Result<Capabilities, Failure> {
    let set = |list: &Option<oci::Capabilities>| -> Result<CapSet, Failure> {
        let mut set = CapSet::default();
        for capability in list.iter().flatten() {
            let name = capability.to_string();
            let number = CapSet::number(&name)
                .ok_or_else(|| refuse(format!("process.capabilities: {name} is not known")))?;
            set = set.union(CapSet(1 << number));
        }
        Ok(set)
    };
    let read = Capabilities {
        effective: set(sets.effective())?,
        permitted: set(sets.permitted())?,
        inheritable: set(sets.inheritable())?,
        bounding: set(sets.bounding())?,
        ambient: set(sets.ambient())?,
    };
    // Inheritable ones would come back by a program's file capabilities (CVE-2022-29162); only ambient ones need them.
    if read.inheritable.minus(read.ambient) != CapSet::default() {
        return Err(refuse("process.capabilities.inheritable: only what is ambient too"));
    }
    if read.ambient.minus(read.inheritable) != CapSet::default()
        || read.ambient.minus(read.permitted) != CapSet::default()
    {
        return Err(refuse("process.capabilities.ambient: each must be permitted and inheritable"));
    }
    if read.effective.minus(read.permitted) != CapSet::default() {
        return Err(refuse("process.capabilities.effective: each must be permitted"));
    }
    Ok(read)
}

fn device(device: &oci::LinuxDevice) -> Result<Device, Failure> {
    use rustix::fs::FileType;
    let path = device.path();
    let number = |n: i64, what: &str| {
        u32::try_from(n).map_err(|_| refuse(format!("linux.devices {}: {what} {n}", path.display())))
    };
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(refuse(format!("linux.devices {}: type a", path.display()))),
    };
    if [device.uid(), device.gid()].contains(&Some(u32::MAX)) {
        return Err(refuse(format!("linux.devices {}: {} is no id", path.display(), u32::MAX)));
    }
    Ok(Device {
        path: path.clone(),
        kind,
        major: number(device.major(), "major")?,
        minor: number(device.minor(), "minor")?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// Reads resources as limits of a cgroup.
pub fn limits(resources: &LinuxResources) -> Result<Limits, Failure> {
    let absent = |present: bool, field: &str| {
        if present { Err(refuse(format!("linux.resources.{field}: not supported"))) } else { Ok(()) }
    };
    absent(resources.block_io().as_ref().is_some_and(|io| *io != oci::LinuxBlockIo::default()), "blockIO")?;
    absent(resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty()), "hugepageLimits")?;
    absent(resources.network().as_ref().is_some_and(|net| *net != oci::LinuxNetwork::default()), "network")?;
    absent(resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty()), "rdma")?;
    let mut read = Limits::default();
    if let Some(cpu) = resources.cpu() {
        absent(cpu.realtime_period().is_some_and(|n| n > 0), "cpu.realtimePeriod")?;
        absent(cpu.realtime_runtime().is_some_and(|n| n > 0), "cpu.realtimeRuntime")?;
        absent(cpu.burst().is_some_and(|n| n > 0), "cpu.burst")?;
        absent(cpu.idle().is_some_and(|n| n != 0), "cpu.idle")?;
        read.cpu_shares = cpu.shares().filter(|shares| *shares > 0);
        read.cpu_quota = cpu.quota().filter(|quota| *quota != 0);
        read.cpu_period = cpu.period().filter(|period| *period > 0);
        read.cpus.clone_from(cpu.cpus());
        read.mems.clone_from(cpu.mems());
    }
    if let Some(memory) = resources.memory() {
        absent(memory.disable_oom_killer().unwrap_or(false), "memory.disableOOMKiller")?;
        absent(memory.swappiness().is_some(), "memory.swappiness")?;
        absent(memory.kernel_tcp().is_some_and(|n| n > 0), "memory.kernelTCP")?;
        let set = |limit: Option<i64>| limit.filter(|limit| *limit != 0);
        read.memory = set(memory.limit());
        read.memory_and_swap = set(memory.swap());
        read.memory_reservation = set(memory.reservation());
    }
    read.pids = resources.pids().as_ref().map(|pids| pids.limit()).filter(|limit| *limit != 0);
    if let Some(rules) = resources.devices().as_ref().filter(|rules| !rules.is_empty()) {
        let mut rules = rules.iter().map(device_rule).collect::<Result<Vec<_>, _>>()?;
        rules.extend(default_rules());
        read.devices = Some(rules);
    }
    let mut unified: Vec<_> = resources.unified().clone().unwrap_or_default().into_iter().collect();
    unified.sort();
    read.unified = unified;
    Ok(read)
}

/// The devices every container has may be used whatever the Spec's rules say, and any node may be made (not opened): runc appends the
/// same, and containerd's Specs count on it.
fn default_rules() -> Vec<DeviceRule> {
    let rule = |kind, major, minor, open| DeviceRule {
        allow: true,
        kind,
        major,
        minor,
        read: open,
        write: open,
        mknod: true,
    };
    let char = |major, minor| rule(DeviceKind::Char, Some(major), minor, true);
    let mut rules =
        vec![rule(DeviceKind::Char, None, None, false), rule(DeviceKind::Block, None, None, false)];
    // null, zero, full, random, urandom, tty, ptmx and the terminals behind it.
    rules.extend([3, 5, 7, 8, 9].map(|minor| char(1, Some(minor))));
    rules.extend([char(5, Some(0)), char(5, Some(2)), char(136, None)]);
    rules
}

fn device_rule(rule: &oci::LinuxDeviceCgroup) -> Result<DeviceRule, Failure> {
    let bad = |what: String| refuse(format!("linux.resources.devices: {what}"));
    let number = |n: Option<i64>| match n {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| bad(format!("number {n}"))),
    };
    let (major, minor) = (number(rule.major())?, number(rule.minor())?);
    let access = rule.access().as_deref().unwrap_or("rwm");
    if access.is_empty() || !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(bad(format!("access {access:?}")));
    }
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => DeviceKind::All,
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
        LinuxDeviceType::P => return Err(bad("type p".into())),
    };
    if kind == DeviceKind::All && (major.is_some() || minor.is_some()) {
        return Err(bad("type a with a number".into()));
    }
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major,
        minor,
        read: access.contains('r'),
        write: access.contains('w'),
        mknod: access.contains('m'),
    })
}

fn read_seccomp(profile: &LinuxSeccomp) -> Result<Seccomp, Failure> {
    use oci::{Arch, LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator as Operator};
    let bad = |what: String| refuse(format!("linux.seccomp: {what}"));
    if profile.listener_path().is_some() {
        return Err(bad("listenerPath is not supported".into()));
    }
    // Without a value the errno is EPERM, as runc and the OCI specification have it.
    let action = |action: LinuxSeccompAction, errno: Option<u32>| -> Result<seccomp::Action, Failure> {
        let data = || u16::try_from(errno.unwrap_or(1)).map_err(|_| bad(format!("errnoRet {errno:?}")));
        Ok(match action {
            LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
                seccomp::Action::KillThread
            }
            LinuxSeccompAction::ScmpActKillProcess => seccomp::Action::KillProcess,
            LinuxSeccompAction::ScmpActTrap => seccomp::Action::Trap,
            LinuxSeccompAction::ScmpActErrno => seccomp::Action::Errno(data()?),
            LinuxSeccompAction::ScmpActTrace => seccomp::Action::Trace(data()?),
            LinuxSeccompAction::ScmpActLog => seccomp::Action::Log,
            LinuxSeccompAction::ScmpActAllow => seccomp::Action::Allow,
            LinuxSeccompAction::ScmpActNotify => return Err(bad("SCMP_ACT_NOTIFY is not supported".into())),
        })
    };
    let mut architectures = Vec::new();
    for arch in profile.architectures().iter().flatten() {
        match arch {
            Arch::ScmpArchX86_64 => architectures.push(seccomp::Arch::X86_64),
            Arch::ScmpArchX86 => architectures.push(seccomp::Arch::X86),
            Arch::ScmpArchX32 => architectures.push(seccomp::Arch::X32),
            Arch::ScmpArchAarch64 => architectures.push(seccomp::Arch::Aarch64),
            // No machine we run on can enter by another: nothing to filter.
            _ => {}
        }
    }
    let mut rules = Vec::new();
    for rule in profile.syscalls().iter().flatten() {
        let mut conditions = Vec::new();
        for arg in rule.args().iter().flatten() {
            conditions.push(seccomp::Condition {
                index: u8::try_from(arg.index())
                    .map_err(|_| bad(format!("argument index {}", arg.index())))?,
                compare: match arg.op() {
                    Operator::ScmpCmpNe => seccomp::Compare::NotEqual,
                    Operator::ScmpCmpLt => seccomp::Compare::Less,
                    Operator::ScmpCmpLe => seccomp::Compare::LessOrEqual,
                    Operator::ScmpCmpEq => seccomp::Compare::Equal,
                    Operator::ScmpCmpGe => seccomp::Compare::GreaterOrEqual,
                    Operator::ScmpCmpGt => seccomp::Compare::Greater,
                    Operator::ScmpCmpMaskedEq => seccomp::Compare::MaskedEqual,
                },
                value: arg.value(),
                value_two: arg.value_two().unwrap_or(0),
            });
        }
        rules.push(seccomp::Rule {
            names: rule.names().clone(),
            action: action(rule.action(), rule.errno_ret())?,
            conditions,
        });
    }
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            Flag::SeccompFilterFlagLog => seccomp::flag::LOG,
            Flag::SeccompFilterFlagTsync => seccomp::flag::TSYNC,
            Flag::SeccompFilterFlagSpecAllow => seccomp::flag::SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv => seccomp::flag::WAIT_KILLABLE_RECV,
        };
    }
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let filter = seccomp::compile(&seccomp::Profile { default, architectures, rules })
        .map_err(|error| refuse(error.to_string()))?;
    Ok(Seccomp { filter, flags })
}

/// Whether a sysctl belongs to a namespace the pod owns: Kubernetes' list of namespaced ones.
pub fn sysctl_allowed(name: &str, sandbox: &SandboxPlan) -> Result<(), Failure> {
    let dotted = name.replace('/', ".");
    if dotted.contains("..") || dotted.starts_with('.') {
        return Err(refuse(format!("sysctl {name:?} is not a name")));
    }
    let ipc = dotted.starts_with("kernel.shm")
        || dotted.starts_with("kernel.msg")
        || dotted == "kernel.sem"
        || dotted.starts_with("fs.mqueue.");
    let owned = if ipc {
        sandbox.ipc == NamespaceMode::Own
    } else if dotted.starts_with("net.") {
        sandbox.net == NamespaceMode::Own
    } else {
        return Err(refuse(format!("sysctl {name}: not of a namespace: it would change the whole machine")));
    };
    if owned {
        Ok(())
    } else {
        Err(refuse(format!("sysctl {name}: the pod shares that namespace with its node")))
    }
}

/// Where a sysctl is written: dots are separators, slashes may be written for them (sysctl(8)).
pub fn sysctl_path(name: &str) -> PathBuf {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    Path::new("/proc/sys").join(path)
}

/// What a sandbox asks that we cannot give.
pub fn check_sandbox(plan: &SandboxPlan) -> Result<(), Failure> {
    if plan.pid == PidMode::Pod {
        return Err(refuse(
            "pid: a PID namespace for the whole pod (shareProcessNamespace) is not supported yet",
        ));
    }
    if plan.uts == NamespaceMode::Node && plan.hostname.is_some() {
        return Err(refuse("hostname: the pod has no UTS namespace of its own"));
    }
    plan.sysctls.keys().try_for_each(|name| sysctl_allowed(name, plan))
}
