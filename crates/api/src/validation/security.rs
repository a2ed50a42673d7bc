//! Security contexts of pods and containers: ranges, profiles and the contradictions Kubernetes refuses.

use super::view::At;
use super::{names, volume};
use crate::field::{Error, ErrorList};

/// uids and gids are 32 bits wide (CVE-2024-40635: a larger one wraps to another user).
const ID_MAX: i64 = u32::MAX as i64;

pub(super) fn pod(errors: &mut ErrorList, spec: &At<'_>) {
    let context = spec.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        context.child(field).in_range(errors, 0, ID_MAX);
    }
    for group in context.child("supplementalGroups").items() {
        group.in_range(errors, 0, ID_MAX);
    }
    if spec.child("shareProcessNamespace").bool() && spec.child("hostPID").bool() {
        errors.push(Error::invalid(
            &context.child("shareProcessNamespace").path,
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    sysctls(errors, spec, &context.child("sysctls"));
    context.child("fsGroupChangePolicy").one_of_set(errors, &["Always", "OnRootMismatch"]);
    seccomp(errors, &context.child("seccompProfile"));
    windows(errors, spec, &context.child("windowsOptions"));
    apparmor(errors, &context.child("appArmorProfile"));
    context.child("supplementalGroupsPolicy").one_of_set(errors, &["Merge", "Strict"]);
    context.child("seLinuxChangePolicy").one_of_set(errors, &["MountOption", "Recursive"]);
}

/// `spec` is the pod's, for `hostUsers`.
pub(super) fn container(errors: &mut ErrorList, spec: &At<'_>, context: &At<'_>) {
    if !context.is_set() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        context.child(field).in_range(errors, 0, ID_MAX);
    }
    let proc_mount = context.child("procMount");
    proc_mount.one_of_set(errors, &["Default", "Unmasked"]);
    if proc_mount.str() == "Unmasked" && spec.child("hostUsers").opt_bool() != Some(false) {
        errors.push(proc_mount.invalid("`hostUsers` must be false to use `Unmasked`"));
    }
    seccomp(errors, &context.child("seccompProfile"));
    if context.child("allowPrivilegeEscalation").opt_bool() == Some(false) {
        if context.child("privileged").bool() {
            errors.push(
                context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"),
            );
        }
        if context.child("capabilities").child("add").strings().contains(&"CAP_SYS_ADMIN") {
            errors.push(context.invalid(
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            ));
        }
    }
    windows(errors, spec, &context.child("windowsOptions"));
    apparmor(errors, &context.child("appArmorProfile"));
}

fn seccomp(errors: &mut ErrorList, profile: &At<'_>) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.child("type"), profile.child("localhostProfile"));
    if kind.str().is_empty() {
        errors.push(kind.required("type is required when seccompProfile is set"));
    } else {
        kind.one_of_set(errors, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    match (kind.str() == "Localhost", local.is_set()) {
        (true, true) => volume::descending_path(errors, &local),
        (true, false) => errors.push(local.required("must be set when seccomp type is Localhost")),
        (false, true) => errors.push(Error::invalid(
            &local.path,
            profile.value(),
            "can only be set when seccomp type is Localhost",
        )),
        (false, false) => {}
    }
}

fn apparmor(errors: &mut ErrorList, profile: &At<'_>) {
    if !profile.is_set() {
        return;
    }
    const PATH_MAX: usize = 4095;
    let (kind, local) = (profile.child("type"), profile.child("localhostProfile"));
    match kind.str() {
        "Localhost" => {
            if local.str().trim() != local.str() {
                errors.push(local.invalid("must not be padded with whitespace"));
            } else if local.str().is_empty() {
                errors.push(local.required("must be set when AppArmor type is Localhost"));
            }
            if local.str().len() > PATH_MAX {
                errors.push(Error::too_long(&local.path, PATH_MAX));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if local.is_set() {
                errors.push(local.invalid("can only be set when AppArmor type is Localhost"));
            }
        }
        "" => errors.push(kind.required("type is required when appArmorProfile is set")),
        _ => kind.one_of_set(errors, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

fn sysctls(errors: &mut ErrorList, spec: &At<'_>, list: &At<'_>) {
    let mut seen = Vec::new();
    for sysctl in list.items() {
        let name = sysctl.child("name");
        let text = name.str();
        if text.is_empty() {
            errors.push(name.required(""));
        } else if !names::is_sysctl(text) {
            errors.push(name.invalid(
                "must have at most 253 characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            ));
        } else if seen.contains(&text) {
            errors.push(Error::duplicate(&name.path, text));
        }
        seen.push(text);
        // A sysctl of a namespace that is the node's would be set on the node.
        let dotted = text.replace('/', ".");
        let ipc = dotted == "kernel.sem"
            || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
        if dotted.starts_with("net.") && spec.child("hostNetwork").bool() {
            errors.push(name.invalid("may not be specified when 'hostNetwork' is true"));
        } else if ipc && spec.child("hostIPC").bool() {
            errors.push(name.invalid("may not be specified when 'hostIPC' is true"));
        }
    }
}

fn windows(errors: &mut ErrorList, spec: &At<'_>, options: &At<'_>) {
    const SPEC_MAX: usize = 64 * 1024;
    let name = options.child("gmsaCredentialSpecName");
    if name.is_set() {
        name.invalid_each(errors, names::dns_subdomain(name.str()));
    }
    let gmsa = options.child("gmsaCredentialSpec");
    if gmsa.is_set() {
        if gmsa.str().is_empty() {
            errors.push(gmsa.invalid("gmsaCredentialSpec cannot be an empty string"));
        } else if gmsa.str().len() > SPEC_MAX {
            errors.push(Error::invalid(&gmsa.path, "", "gmsaCredentialSpec size must be under 64 KiB"));
        }
    }
    let user = options.child("runAsUserName");
    if user.is_set() {
        let text = user.str();
        if text.is_empty() {
            errors.push(user.invalid("runAsUserName cannot be an empty string"));
        } else if text.chars().any(char::is_control) {
            errors.push(user.invalid("runAsUserName cannot contain control characters"));
        } else if text.matches('\\').count() > 1 {
            errors.push(user.invalid("runAsUserName can not contain more than one backslash"));
        }
    }
    if options.child("hostProcess").bool() && !spec.child("hostNetwork").bool() {
        errors.push(Error::invalid(
            &spec.child("hostNetwork").path,
            false,
            "hostNetwork must be true if pod contains any hostProcess containers",
        ));
    }
}
