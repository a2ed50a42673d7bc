//! The default profile, put together from the groups that count.

use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::groups::{Arg, GROUPS, Rule, When};
use crate::{
    node_facts::{Arch, KernelVersion},
    security_context::CapabilitySet,
};

const EPERM: u32 = 1;

/// The default profile for a container with these capabilities (its bounding set). What it does not name fails with
/// EPERM.
pub fn runtime_default(arch: Arch, kernel: KernelVersion, capabilities: CapabilitySet) -> LinuxSeccomp {
    let counts = |when: When| match when {
        When::Always => true,
        When::With(capability) => capabilities.contains(capability),
        When::Without(capability) => !capabilities.contains(capability),
        When::Kernel(since) => kernel >= since,
        When::On(only) => arch == only,
    };
    let calls = GROUPS.iter().filter(|group| counts(group.when)).map(|group| {
        let mut call = LinuxSyscall::default();
        call.set_names(group.calls.iter().map(|name| (*name).to_owned()).collect());
        match group.rule {
            Rule::Allow => {
                call.set_action(LinuxSeccompAction::ScmpActAllow);
            }
            Rule::AllowIf(args) => {
                call.set_action(LinuxSeccompAction::ScmpActAllow);
                call.set_args(Some(args.iter().map(argument).collect()));
            }
            Rule::Errno(errno) => {
                call.set_action(LinuxSeccompAction::ScmpActErrno);
                call.set_errno_ret(Some(errno));
            }
        }
        call
    });
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(LinuxSeccompAction::ScmpActErrno);
    profile.set_default_errno_ret(Some(EPERM));
    profile.set_architectures(Some(architectures(arch)));
    profile.set_syscalls(Some(calls.collect()));
    profile
}

/// The entry points that a process of the architecture can reach: a filter that knew only the native one would leave the
/// 32-bit ones to the kernel's default.
pub(super) fn architectures(arch: Arch) -> Vec<OciArch> {
    match arch {
        Arch::X86_64 => vec![OciArch::ScmpArchX86_64, OciArch::ScmpArchX86, OciArch::ScmpArchX32],
        Arch::Aarch64 => vec![OciArch::ScmpArchAarch64],
    }
}

fn argument(arg: &Arg) -> LinuxSeccompArg {
    let (index, value, value_two, op) = match *arg {
        Arg::Equal { index, value } => (index, value, None, LinuxSeccompOperator::ScmpCmpEq),
        Arg::NotEqual { index, value } => (index, value, None, LinuxSeccompOperator::ScmpCmpNe),
        // In OCI the mask is the value, and what must be left is the second one.
        Arg::Masked { index, mask, value } => {
            (index, mask, Some(value), LinuxSeccompOperator::ScmpCmpMaskedEq)
        }
    };
    seccomp_arg(index, value, value_two, op)
}

/// oci-spec gives the struct no setters.
pub(super) fn seccomp_arg(
    index: usize,
    value: u64,
    value_two: Option<u64>,
    op: LinuxSeccompOperator,
) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
    let builder = match value_two {
        Some(value_two) => builder.value_two(value_two),
        None => builder,
    };
    builder.build().expect("every required field is set")
}
