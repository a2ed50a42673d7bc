//! Profiles on the node: OCI's format and Docker's, which adds conditions and a map of architectures.

use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use serde::Deserialize;

use super::runtime_default::{architectures, seccomp_arg};
use crate::{
    node_facts::{Arch, KernelVersion},
    security_context::{Capability, CapabilitySet},
};

/// Why a profile on the node cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error("the profile cannot be read: {0}")]
    Json(String),
    #[error("the profile's {field}: {problem}")]
    Field { field: String, problem: String },
}

fn field(field: impl Into<String>, problem: impl Into<String>) -> ProfileError {
    ProfileError::Field { field: field.into(), problem: problem.into() }
}

/// A field that this program does not know is an error: a profile that means less than it says is worse than none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    default_errno: Option<String>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Call {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    errno: Option<String>,
    args: Option<Vec<Arg>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Arg {
    index: usize,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Reads a profile in the format of Docker, containerd and CRI-O (`defaultAction`, `archMap`, `syscalls` with `includes` and
/// `excludes`) or of OCI (`architectures`), for a container with these capabilities.
pub fn localhost(
    json: &[u8],
    arch: Arch,
    kernel: KernelVersion,
    capabilities: CapabilitySet,
) -> Result<LinuxSeccomp, ProfileError> {
    let read: Profile =
        serde_json::from_slice(json).map_err(|error| ProfileError::Json(error.to_string()))?;
    if read.listener_path.is_some() || read.listener_metadata.is_some() {
        return Err(field("listenerPath", "notifications are not supported"));
    }
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(action(&read.default_action, "defaultAction")?);
    profile.set_default_errno_ret(errno(
        read.default_errno_ret,
        read.default_errno.as_deref(),
        "defaultErrno",
    )?);
    profile.set_architectures(Some(archs(&read, arch)?));
    let flags = read.flags.unwrap_or_default();
    let flags: Result<Vec<LinuxSeccompFilterFlag>, ProfileError> = flags
        .iter()
        .map(|flag| flag.parse().map_err(|_| field("flags", format!("unknown flag {flag:?}"))))
        .collect();
    profile.set_flags(Some(flags?).filter(|flags| !flags.is_empty()));
    let mut calls = Vec::new();
    for (index, call) in read.syscalls.into_iter().flatten().enumerate() {
        let at = format!("syscalls[{index}]");
        let applies = match &call.includes {
            Some(condition) => includes(condition, arch, kernel, capabilities, &at)?,
            None => true,
        };
        let excluded = match &call.excludes {
            Some(condition) => excludes(condition, arch, kernel, capabilities, &at)?,
            None => false,
        };
        let call = syscall(call, &at)?;
        if applies && !excluded {
            calls.push(call);
        }
    }
    profile.set_syscalls(Some(calls));
    Ok(profile)
}

fn action(text: &str, at: &str) -> Result<LinuxSeccompAction, ProfileError> {
    let action = text.parse().map_err(|_| field(at, format!("unknown action {text:?}")))?;
    match action {
        LinuxSeccompAction::ScmpActNotify => {
            Err(field(at, "SCMP_ACT_NOTIFY: notifications are not supported"))
        }
        action => Ok(action),
    }
}

/// `errnoRet` as a number, or Docker's `errno` by name.
fn errno(number: Option<u32>, name: Option<&str>, at: &str) -> Result<Option<u32>, ProfileError> {
    let by_name = match name {
        None | Some("") => None,
        Some(name) => {
            Some(ERRNOS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number).ok_or_else(
                || field(at, format!("unknown error {name:?}; write errnoRet with its number")),
            )?)
        }
    };
    let errno = number.or(by_name);
    match errno {
        // MAX_ERRNO of the kernel: a larger one would not be an error to the caller.
        Some(errno) if errno > 4095 => Err(field(at, format!("{errno} is no error number"))),
        errno => Ok(errno),
    }
}

/// The errors that profiles in the wild name.
const ERRNOS: [(&str, u32); 8] = [
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EAGAIN", 11),
    ("EACCES", 13),
    ("EINVAL", 22),
    ("ENOSYS", 38),
    ("EAFNOSUPPORT", 97),
    ("EOPNOTSUPP", 95),
];

fn arch_name(text: &str, at: &str) -> Result<OciArch, ProfileError> {
    // The derived reader of names splits at digits differently for these two.
    match text {
        "SCMP_ARCH_X86_64" => return Ok(OciArch::ScmpArchX86_64),
        "SCMP_ARCH_X32" => return Ok(OciArch::ScmpArchX32),
        _ => {}
    }
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| field(at, format!("unknown architecture {text:?}")))
}

/// The native architecture always counts, as with libseccomp; a list that leaves it out would guard nothing.
fn archs(profile: &Profile, arch: Arch) -> Result<Vec<OciArch>, ProfileError> {
    let native = architectures(arch)[0];
    let mut archs = vec![native];
    let mut add = |text: &str, at: &str| -> Result<(), ProfileError> {
        let arch = arch_name(text, at)?;
        if !archs.contains(&arch) && arch != OciArch::ScmpArchNative {
            archs.push(arch);
        }
        Ok(())
    };
    for text in profile.architectures.iter().flatten() {
        add(text, "architectures")?;
    }
    for map in profile.arch_map.iter().flatten() {
        if arch_name(&map.architecture, "archMap")? == native {
            for text in map.sub_architectures.iter().flatten() {
                add(text, "archMap")?;
            }
        }
    }
    Ok(archs)
}

fn syscall(call: Call, at: &str) -> Result<LinuxSyscall, ProfileError> {
    let names: Vec<String> = call.names.into_iter().flatten().chain(call.name).collect();
    if names.is_empty() || names.iter().any(String::is_empty) {
        return Err(field(format!("{at}.names"), "a system call has no name"));
    }
    let args = call.args.unwrap_or_default();
    let args: Result<Vec<LinuxSeccompArg>, ProfileError> = args
        .into_iter()
        .map(|arg| {
            let at = format!("{at}.args");
            if arg.index > 5 {
                return Err(field(at, format!("index {}: a system call has six arguments", arg.index)));
            }
            let op: LinuxSeccompOperator =
                arg.op.parse().map_err(|_| field(at, format!("unknown operator {:?}", arg.op)))?;
            let value_two = (op == LinuxSeccompOperator::ScmpCmpMaskedEq).then_some(arg.value_two);
            Ok(seccomp_arg(arg.index, arg.value, value_two, op))
        })
        .collect();
    let mut read = LinuxSyscall::default();
    read.set_names(names);
    read.set_action(action(&call.action, &format!("{at}.action"))?);
    read.set_errno_ret(errno(call.errno_ret, call.errno.as_deref(), &format!("{at}.errno"))?);
    read.set_args(Some(args?).filter(|args| !args.is_empty()));
    Ok(read)
}

fn capability(name: &str, at: &str) -> Result<Capability, ProfileError> {
    Capability::parse(name).ok_or_else(|| field(format!("{at}.caps"), format!("unknown capability {name:?}")))
}

fn kernel_at_least(min: &str, kernel: KernelVersion) -> bool {
    kernel >= KernelVersion::parse(min)
}

/// Go's name of the architecture.
fn arch_is(names: &[String], arch: Arch) -> bool {
    let go = match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    };
    names.iter().any(|name| name == go)
}

/// All that is named must hold: each capability, one of the architectures, the kernel.
fn includes(
    condition: &Condition,
    arch: Arch,
    kernel: KernelVersion,
    capabilities: CapabilitySet,
    at: &str,
) -> Result<bool, ProfileError> {
    let mut all = condition.arches.as_ref().is_none_or(|names| names.is_empty() || arch_is(names, arch));
    all &= condition.min_kernel.as_deref().is_none_or(|min| min.is_empty() || kernel_at_least(min, kernel));
    for name in condition.caps.iter().flatten() {
        all &= capabilities.contains(capability(name, at)?);
    }
    Ok(all)
}

/// Anything that is named and holds excludes.
fn excludes(
    condition: &Condition,
    arch: Arch,
    kernel: KernelVersion,
    capabilities: CapabilitySet,
    at: &str,
) -> Result<bool, ProfileError> {
    let mut any = condition.arches.as_ref().is_some_and(|names| arch_is(names, arch));
    any |= condition.min_kernel.as_deref().is_some_and(|min| !min.is_empty() && kernel_at_least(min, kernel));
    for name in condition.caps.iter().flatten() {
        any |= capabilities.contains(capability(name, at)?);
    }
    Ok(any)
}
