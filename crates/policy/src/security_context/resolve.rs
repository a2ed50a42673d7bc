//! The resolution itself, field by field in the order of the API reference.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext,
};
use oci_spec::image::ImageConfiguration;

use super::{
    Capabilities, Capability, CapabilitySet, ConfigError, ContainerKind, Effective, Field, Namespaces,
    Origin, PodEffective, ProcMount, Seccomp, UserDatabase, capabilities, sysctls,
    users::{ImageUser, MAX_ID, number},
};
use crate::node_facts::NodeFacts;

/// Kubernetes cuts host names to what a DNS label and the kernel take.
const MAX_HOSTNAME: usize = 63;

/// See [`super::resolve_pod`].
pub fn pod(pod: &Pod, node: &NodeFacts) -> Result<PodEffective, ConfigError> {
    let spec = pod.spec.clone().unwrap_or_default();
    let context = spec.security_context.clone().unwrap_or_default();
    let namespaces = namespaces(pod);
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let name = spec.os.map(|os| os.name).unwrap_or_default();
        return Err(ConfigError::reject(
            "PodOSNotSupported",
            format!("Failed to admit pod as the OS field doesn't match node OS: {name}"),
        ));
    }
    if spec.host_users == Some(false) {
        return Err(ConfigError::config(format!(
            "spec.hostUsers: false is not supported yet: node {} cannot give a pod a user namespace of its own",
            node.name
        )));
    }
    if namespaces.host_pid && namespaces.share_process {
        return Err(ConfigError::config("spec.shareProcessNamespace: may not be true together with hostPID"));
    }
    refuse_windows("spec.securityContext", context.windows_options.is_some())?;
    refuse_selinux("spec.securityContext", context.se_linux_options.is_some(), node)?;
    apparmor(context.app_armor_profile.as_ref(), node)?;
    let fs_group = context.fs_group.map(|gid| id(gid, "spec.securityContext.fsGroup")).transpose()?;
    let fs_group_on_root_mismatch = match context.fs_group_change_policy.as_deref() {
        None | Some("Always") => false,
        Some("OnRootMismatch") => true,
        Some(other) => {
            return Err(ConfigError::config(format!(
                "spec.securityContext.fsGroupChangePolicy: {other:?} is not supported"
            )));
        }
    };
    let sysctls = sysctls::resolve(context.sysctls.as_deref().unwrap_or_default(), namespaces, node)?;
    Ok(PodEffective {
        namespaces,
        sysctls,
        fs_group,
        fs_group_on_root_mismatch,
        hostname: hostname(pod, node)?,
    })
}

/// See [`super::resolve`].
pub fn container(
    pod: &Pod,
    container: &Container,
    kind: ContainerKind,
    image: &ImageConfiguration,
    users: &UserDatabase<'_>,
    node: &NodeFacts,
) -> Result<Effective, ConfigError> {
    let pod_effective = self::pod(pod, node)?;
    let pod_context = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let context = container.security_context.clone().unwrap_or_default();
    let field = format!("container {}: securityContext", container.name);
    refuse_windows(&field, context.windows_options.is_some())?;
    refuse_selinux(&field, context.se_linux_options.is_some(), node)?;
    let apparmor_profile = match (&context.app_armor_profile, &pod_context.app_armor_profile) {
        (Some(profile), _) => Field { value: apparmor(Some(profile), node)?, origin: Origin::Container },
        (None, Some(profile)) => Field { value: apparmor(Some(profile), node)?, origin: Origin::Pod },
        (None, None) => Field { value: None, origin: Origin::Default },
    };

    let run_as_non_root = first(context.run_as_non_root, pod_context.run_as_non_root, false);
    let image_user = image.config().as_ref().and_then(|c| c.user().clone()).unwrap_or_default();
    let image_user = ImageUser::parse(&image_user);
    let identity = identity(&context, &pod_context, &image_user, users)?;
    if run_as_non_root.value {
        verify_non_root(pod, container, &identity, &image_user)?;
    }
    let supplementary_groups = supplementary_groups(&pod_context, &identity, users)?;

    let privileged = or_default(context.privileged, false);
    let no_new_privs = or_default(context.allow_privilege_escalation.map(|allowed| !allowed), false);
    if privileged.value && no_new_privs.value {
        return Err(ConfigError::config(format!(
            "{field}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        )));
    }
    let capabilities = capabilities(&field, &context, privileged.value, identity.uid.value, node)?;
    let seccomp = seccomp(&context, &pod_context, privileged.value, node)?;
    let proc_mount = match context.proc_mount.as_deref() {
        None => Field { value: ProcMount::Default, origin: Origin::Default },
        Some("Default" | "") => Field { value: ProcMount::Default, origin: Origin::Container },
        Some("Unmasked") => Field { value: ProcMount::Unmasked, origin: Origin::Container },
        Some(other) => {
            return Err(ConfigError::config(format!("{field}.procMount: {other:?} is not supported")));
        }
    };
    Ok(Effective {
        kind,
        uid: identity.uid,
        gid: identity.gid,
        supplementary_groups,
        run_as_non_root,
        privileged,
        no_new_privs,
        capabilities,
        read_only_root: or_default(context.read_only_root_filesystem, false),
        seccomp,
        apparmor_profile,
        proc_mount,
        home: identity.home,
        fs_group: pod_effective.fs_group,
        namespaces: pod_effective.namespaces,
        sysctls: pod_effective.sysctls,
    })
}

fn first<T>(container: Option<T>, pod: Option<T>, default: T) -> Field<T> {
    match (container, pod) {
        (Some(value), _) => Field { value, origin: Origin::Container },
        (None, Some(value)) => Field { value, origin: Origin::Pod },
        (None, None) => Field { value: default, origin: Origin::Default },
    }
}

fn or_default<T>(container: Option<T>, default: T) -> Field<T> {
    first(container, None, default)
}

fn id(value: i64, field: &str) -> Result<u32, ConfigError> {
    if (0..=MAX_ID).contains(&value) {
        Ok(value as u32)
    } else {
        Err(ConfigError::config(format!("{field}: must be between 0 and {MAX_ID}, inclusive: {value}")))
    }
}

fn namespaces(pod: &Pod) -> Namespaces {
    let spec = pod.spec.as_ref();
    let is = |field: Option<bool>| field.unwrap_or(false);
    Namespaces {
        host_network: is(spec.and_then(|s| s.host_network)),
        host_pid: is(spec.and_then(|s| s.host_pid)),
        host_ipc: is(spec.and_then(|s| s.host_ipc)),
        share_process: is(spec.and_then(|s| s.share_process_namespace)),
    }
}

/// kubelet `GeneratePodHostNameAndDomain`.
fn hostname(pod: &Pod, node: &NodeFacts) -> Result<String, ConfigError> {
    let spec = pod.spec.clone().unwrap_or_default();
    if let Some(hostname) = spec.hostname_override {
        return Ok(hostname);
    }
    if spec.host_network == Some(true) {
        return Ok(node.name.clone());
    }
    let name = match spec.hostname.filter(|name| !name.is_empty()) {
        Some(name) => name,
        None => {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let cut: String = name.chars().take(MAX_HOSTNAME).collect();
            cut.trim_end_matches(['-', '.']).to_owned()
        }
    };
    let subdomain = spec.subdomain.filter(|domain| !domain.is_empty());
    if let (Some(true), Some(subdomain)) = (spec.set_hostname_as_fqdn, subdomain) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let fqdn = format!("{name}.{subdomain}.{namespace}.svc.cluster.local");
        // sethostname(2) takes 64 bytes.
        if fqdn.len() > 64 {
            return Err(ConfigError::config(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long (64 characters is the max, {} characters requested)",
                fqdn.len()
            )));
        }
        return Ok(fqdn);
    }
    Ok(name)
}

struct Identity {
    uid: Field<u32>,
    gid: Field<u32>,
    /// The user's name in the image's passwd, for the groups that list it.
    name: Option<String>,
    home: Option<String>,
}

/// uid and primary gid: `runAsUser`, else the image's `USER`; `runAsGroup`, else the group that the image names with its user, else
/// the user's in the image's passwd, else 0.
fn identity(
    context: &SecurityContext,
    pod_context: &PodSecurityContext,
    image_user: &ImageUser<'_>,
    users: &UserDatabase<'_>,
) -> Result<Identity, ConfigError> {
    let asked = |container: Option<i64>, pod: Option<i64>, name: &str| {
        let (value, origin) = match (container, pod) {
            (Some(value), _) => (value, Origin::Container),
            (None, Some(value)) => (value, Origin::Pod),
            (None, None) => return Ok(None),
        };
        id(value, &format!("securityContext.{name}")).map(|value| Some(Field { value, origin }))
    };
    let uid = asked(context.run_as_user, pod_context.run_as_user, "runAsUser")?;
    let gid = asked(context.run_as_group, pod_context.run_as_group, "runAsGroup")?;
    let from_image = uid.is_none();
    let (uid, entry) = match uid {
        Some(uid) => (uid, users.user_by_uid(uid.value)),
        None => match image_user.uid() {
            Some(Ok(value)) => {
                let origin = if image_user.user.is_empty() { Origin::Default } else { Origin::Image };
                (Field { value, origin }, users.user_by_uid(value))
            }
            Some(Err(message)) => return Err(ConfigError::create(message)),
            None => {
                let entry = users.user_by_name(image_user.user).ok_or_else(|| {
                    ConfigError::create(format!(
                        "unable to find user {}: no matching entries in passwd file",
                        image_user.user
                    ))
                })?;
                if i64::from(entry.uid) > MAX_ID {
                    return Err(ConfigError::create(format!(
                        "uids and gids must be in range 0-{MAX_ID}: {}",
                        entry.uid
                    )));
                }
                (Field { value: entry.uid, origin: Origin::Image }, Some(entry))
            }
        },
    };
    let image_group = image_user.group.filter(|_| from_image);
    let gid = match (gid, image_group) {
        (Some(gid), _) => gid,
        (None, Some(group)) => {
            let value = match number(group) {
                Some(gid) => gid.map_err(ConfigError::create)?,
                None => {
                    users
                        .group_by_name(group)
                        .ok_or_else(|| {
                            ConfigError::create(format!(
                                "unable to find group {group}: no matching entries in group file"
                            ))
                        })?
                        .gid
                }
            };
            Field { value, origin: Origin::Image }
        }
        (None, None) => match &entry {
            Some(entry) => Field { value: entry.gid, origin: Origin::Image },
            None => Field { value: 0, origin: Origin::Default },
        },
    };
    if i64::from(gid.value) > MAX_ID {
        return Err(ConfigError::create(format!("uids and gids must be in range 0-{MAX_ID}: {}", gid.value)));
    }
    let (name, home) = entry.map(|e| (e.name, e.home)).unzip();
    Ok(Identity { uid, gid, name, home: home.filter(|home| !home.is_empty()) })
}

/// kubelet `verifyRunAsNonRoot`. A user that the image names cannot be trusted: its own passwd says who that is.
fn verify_non_root(
    pod: &Pod,
    container: &Container,
    identity: &Identity,
    image_user: &ImageUser<'_>,
) -> Result<(), ConfigError> {
    let who = format!("(pod: {:?}, container: {})", crate::security_context::pod_format(pod), container.name);
    let by_pod = matches!(identity.uid.origin, Origin::Container | Origin::Pod);
    if by_pod {
        if identity.uid.value == 0 {
            return Err(ConfigError::config(format!("container's runAsUser breaks non-root policy {who}")));
        }
        return Ok(());
    }
    if image_user.uid().is_none() {
        return Err(ConfigError::config(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {who}",
            image_user.user
        )));
    }
    if identity.uid.value == 0 {
        return Err(ConfigError::config(format!(
            "container has runAsNonRoot and image will run as root {who}"
        )));
    }
    Ok(())
}

fn supplementary_groups(
    pod_context: &PodSecurityContext,
    identity: &Identity,
    users: &UserDatabase<'_>,
) -> Result<Vec<Field<u32>>, ConfigError> {
    let merge = match pod_context.supplemental_groups_policy.as_deref() {
        None | Some("Merge") => true,
        Some("Strict") => false,
        Some(other) => {
            return Err(ConfigError::config(format!(
                "spec.securityContext.supplementalGroupsPolicy: {other:?} is not supported"
            )));
        }
    };
    // The primary gid first: a process that drops it must not keep less than root's check saw (CVE-2022-2989).
    let mut groups = vec![identity.gid];
    for gid in pod_context.supplemental_groups.iter().flatten() {
        let value = id(*gid, "spec.securityContext.supplementalGroups")?;
        groups.push(Field { value, origin: Origin::Pod });
    }
    if let Some(gid) = pod_context.fs_group {
        groups.push(Field { value: id(gid, "spec.securityContext.fsGroup")?, origin: Origin::Pod });
    }
    if let (true, Some(name)) = (merge, &identity.name) {
        groups.extend(users.groups_of(name).map(|value| Field { value, origin: Origin::Image }));
    }
    groups.sort_by_key(|group| group.value);
    groups.dedup_by_key(|group| group.value);
    Ok(groups)
}

/// In the CRI's order: ALL added, ALL dropped, then each added, then each dropped; privileged has all whatever the lists
/// say.
fn capabilities(
    field: &str,
    context: &SecurityContext,
    privileged: bool,
    uid: u32,
    node: &NodeFacts,
) -> Result<Field<Capabilities>, ConfigError> {
    let lists = context.capabilities.as_ref();
    let add = lists.and_then(|c| c.add.as_deref()).unwrap_or_default();
    let drop = lists.and_then(|c| c.drop.as_deref()).unwrap_or_default();
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let parse = |names: &[String], list: &str| -> Result<Vec<Capability>, ConfigError> {
        let single = names.iter().filter(|name| !is_all(name));
        single
            .map(|name| {
                Capability::parse(name).ok_or_else(|| {
                    ConfigError::create(format!("{field}.capabilities.{list}: unknown capability {name:?}"))
                })
            })
            .collect()
    };
    let (added, dropped) = (parse(add, "add")?, parse(drop, "drop")?);
    let mut set: CapabilitySet = capabilities::DEFAULT.into_iter().collect();
    if privileged || add.iter().any(is_all) {
        set = CapabilitySet::all();
    }
    if !privileged {
        if drop.iter().any(is_all) {
            set = CapabilitySet::EMPTY;
        }
        if let Some(lacking) =
            added.iter().find(|c| !node.capabilities.contains(**c) && !dropped.contains(*c))
        {
            return Err(ConfigError::create(format!(
                "{field}.capabilities.add: node {} cannot give {}: it does not have it itself",
                node.name,
                lacking.name()
            )));
        }
        added.iter().for_each(|c| set.insert(*c));
        dropped.iter().for_each(|c| set.remove(*c));
    }
    let bounding = set.intersection(node.capabilities);
    // exec of another uid's process with an empty ambient set leaves it nothing (capabilities(7)).
    let has = if uid == 0 { bounding } else { CapabilitySet::EMPTY };
    let origin = if privileged || !add.is_empty() || !drop.is_empty() {
        Origin::Container
    } else if bounding != set {
        Origin::Node
    } else {
        Origin::Default
    };
    let value = Capabilities {
        bounding,
        permitted: has,
        effective: has,
        inheritable: CapabilitySet::EMPTY,
        ambient: CapabilitySet::EMPTY,
    };
    Ok(Field { value, origin })
}

fn seccomp(
    context: &SecurityContext,
    pod_context: &PodSecurityContext,
    privileged: bool,
    node: &NodeFacts,
) -> Result<Field<Seccomp>, ConfigError> {
    let chosen = match (&context.seccomp_profile, &pod_context.seccomp_profile) {
        (Some(profile), _) => Some((profile, Origin::Container)),
        (None, Some(profile)) => Some((profile, Origin::Pod)),
        (None, None) => None,
    };
    let profile = |profile: &SeccompProfile| match profile.type_.as_str() {
        "Unconfined" => Ok(Seccomp::Unconfined),
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or_default();
            if name.is_empty() {
                return Err(ConfigError::config(
                    "localhostProfile must be set if seccompProfile type is Localhost.",
                ));
            }
            let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            if !plain {
                return Err(ConfigError::config(format!(
                    "seccompProfile.localhostProfile: must be a relative path without '..': {name:?}"
                )));
            }
            Ok(Seccomp::Localhost(node.seccomp_root.join(name)))
        }
        other => Err(ConfigError::config(format!("seccompProfile.type: {other:?} is not supported"))),
    };
    let resolved = match chosen {
        Some((chosen, origin)) => Field { value: profile(chosen)?, origin },
        None if node.seccomp_default => Field { value: Seccomp::RuntimeDefault, origin: Origin::Node },
        None => Field { value: Seccomp::Unconfined, origin: Origin::Default },
    };
    if privileged {
        // A privileged container has no filter, whatever its profile says: container runtimes agree on that.
        return Ok(Field { value: Seccomp::Unconfined, origin: Origin::Container });
    }
    if resolved.value != Seccomp::Unconfined && !node.seccomp {
        return Err(ConfigError::create(format!(
            "seccompProfile: node {} has no seccomp filters (CONFIG_SECCOMP_FILTER)",
            node.name
        )));
    }
    Ok(resolved)
}

/// The profile's name, `None` where there is none to apply. A pod that needs AppArmor on a node without it is rejected
/// (kubelet `pkg/security/apparmor`).
fn apparmor(profile: Option<&AppArmorProfile>, node: &NodeFacts) -> Result<Option<String>, ConfigError> {
    let Some(profile) = profile.filter(|profile| profile.type_ != "Unconfined") else { return Ok(None) };
    if !node.apparmor {
        return Err(ConfigError::reject(
            "AppArmor",
            "Cannot enforce AppArmor: AppArmor is not enabled on the host",
        ));
    }
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", Some(name)) if !name.is_empty() => Ok(Some(name.clone())),
        ("Localhost", _) => {
            Err(ConfigError::config("localhostProfile must be set if appArmorProfile type is Localhost."))
        }
        (other, _) => Err(ConfigError::reject(
            "AppArmor",
            format!("Cannot enforce AppArmor: profile type {other} is not supported by this runtime"),
        )),
    }
}

fn refuse_windows(field: &str, set: bool) -> Result<(), ConfigError> {
    if set {
        return Err(ConfigError::config(format!("{field}.windowsOptions: not possible on a Linux node")));
    }
    Ok(())
}

/// Upstream drops the options on a node without SELinux; here nothing that was asked for is dropped in silence.
fn refuse_selinux(field: &str, set: bool, node: &NodeFacts) -> Result<(), ConfigError> {
    if set {
        let why = if node.selinux { "not supported yet" } else { "SELinux is not enabled" };
        return Err(ConfigError::config(format!("{field}.seLinuxOptions: {why} on node {}", node.name)));
    }
    Ok(())
}
