//! The container's process: its command, environment, directory, identity and what the kernel lets it do.

use std::path::Path;

use oci_spec::runtime::{
    Capabilities as OciCapabilities, Capability as OciCapability, LinuxCapabilities, Process, User,
};

use super::ContainerInput;
use crate::{
    env::expand,
    resources,
    security_context::{Capability, CapabilitySet, ConfigError},
};

/// What a shell would have, where neither image nor pod says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// OCI `process`.
pub fn process(input: &ContainerInput<'_>) -> Result<Process, ConfigError> {
    let effective = input.effective;
    let mut user = User::default();
    user.set_uid(effective.uid.value);
    user.set_gid(effective.gid.value);
    user.set_additional_gids(Some(effective.supplementary_groups.iter().map(|group| group.value).collect()));

    let wished = resources::oom_score_adj(input.pod, input.container, input.node.memory_capacity);
    let mut process = Process::default();
    process.set_terminal(Some(input.container.tty.unwrap_or(false)));
    process.set_user(user);
    process.set_args(Some(args(input)?));
    process.set_env(Some(env(input)));
    process.set_cwd(cwd(input)?.into());
    process.set_capabilities(Some(capabilities(input)?));
    process.set_no_new_privileges(Some(effective.no_new_privs.value));
    process.set_apparmor_profile(effective.apparmor_profile.value.clone());
    process.set_oom_score_adj(Some(wished.max(input.node.min_oom_score_adj)));
    // The runtimes' own default of 1024 files is not Kubernetes': limits are the node's.
    process.set_rlimits(None);
    Ok(process)
}

/// `command` replaces the image's entrypoint and its arguments; `args` replaces its arguments. `$(VAR)` refers to the pod's
/// variables, not the image's.
fn args(input: &ContainerInput<'_>) -> Result<Vec<String>, ConfigError> {
    let lookup = |name: &str| {
        let found = input.env.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, lookup)).collect()
    };
    let (mut command, mut args) = (expanded(&input.container.command), expanded(&input.container.args));
    let config = input.image.config().as_ref();
    if command.is_empty() {
        if args.is_empty() {
            args = config.and_then(|c| c.cmd().clone()).unwrap_or_default();
        }
        command = config.and_then(|c| c.entrypoint().clone()).unwrap_or_default();
    }
    command.append(&mut args);
    if command.is_empty() {
        return Err(ConfigError::create("no command specified"));
    }
    if let Some(with_nul) = command.iter().find(|text| text.contains('\0')) {
        return Err(ConfigError::create(format!("command contains a NUL byte: {with_nul:?}")));
    }
    Ok(command)
}

/// PATH and HOSTNAME, then the image's, then the pod's, then HOME; a later value takes an earlier one's place.
fn env(input: &ContainerInput<'_>) -> Vec<String> {
    let mut variables: Vec<(String, String)> = vec![
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOSTNAME".to_owned(), input.hostname.to_owned()),
    ];
    if input.container.tty == Some(true) {
        variables.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    let mut set = |name: &str, value: &str| match variables.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value.to_owned(),
        None => variables.push((name.to_owned(), value.to_owned())),
    };
    let config = input.image.config().as_ref();
    for variable in config.and_then(|c| c.env().as_ref()).into_iter().flatten() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        set(name, value);
    }
    for (name, value) in input.env {
        set(name, value);
    }
    if !variables.iter().any(|(name, _)| name == "HOME") {
        let home = input.effective.home.clone().unwrap_or_else(|| "/".to_owned());
        variables.push(("HOME".to_owned(), home));
    }
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn cwd(input: &ContainerInput<'_>) -> Result<String, ConfigError> {
    let own = input.container.working_dir.clone().filter(|dir| !dir.is_empty());
    let config = input.image.config().as_ref();
    let of_image = || config.and_then(|c| c.working_dir().clone()).filter(|dir| !dir.is_empty());
    let cwd = own.or_else(of_image).unwrap_or_else(|| "/".to_owned());
    if !Path::new(&cwd).is_absolute() {
        return Err(ConfigError::create(format!(
            "container {}: workingDir: {cwd:?} is not an absolute path",
            input.container.name
        )));
    }
    Ok(cwd)
}

/// As the runtimes set them before exec; exec itself takes effective and permitted from another uid than 0.
fn capabilities(input: &ContainerInput<'_>) -> Result<LinuxCapabilities, ConfigError> {
    let asked = input.effective.capabilities.value;
    let names = |set: CapabilitySet| -> Result<OciCapabilities, ConfigError> {
        set.iter().map(oci_capability).collect()
    };
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(Some(names(asked.bounding)?));
    capabilities.set_permitted(Some(names(asked.bounding)?));
    capabilities.set_effective(Some(names(asked.bounding)?));
    capabilities.set_inheritable(Some(names(asked.inheritable)?));
    capabilities.set_ambient(Some(names(asked.ambient)?));
    Ok(capabilities)
}

/// oci-spec reads the name without its prefix.
pub(super) fn oci_capability(capability: Capability) -> Result<OciCapability, ConfigError> {
    let name = capability.name();
    name.trim_start_matches("CAP_")
        .parse()
        .map_err(|_| ConfigError::create(format!("capability {name} has no name in the OCI runtime Spec")))
}
