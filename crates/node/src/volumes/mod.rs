//! A pod's volumes: a pure plan of files first, then the system calls. Prepared under
//! `/var/lib/cofferdam/pods/<uid>/volumes/<plugin>/<name>`, handed to containers as paths or, for a subPath, as descriptors
//! that were resolved beneath the volume (CVE-2017-1002101, CVE-2021-25741), and torn down without following a link.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use k8s_openapi::{
    api::core::v1::{Container, Pod, Volume, VolumeMount as ApiMount, VolumeProjection},
    jiff::Timestamp,
};
use kernel::CallError;
use policy::{
    container::{MountSource, Propagation, VolumeMount},
    env::{References, Sources, TokenSource},
    node_facts::NodeFacts,
    security_context::ConfigError,
};
use rustix::fs::{AtFlags, Mode};

use self::{
    ownership::FsGroup,
    plan::{VolumePlan, plan},
};

mod atomic;
mod host_path;
mod ownership;
pub mod plan;
mod remove;
mod sub_path;

/// Only names a version of the files: a clock before 1970 counts as 1970.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanosecond(since.as_nanos() as i128).unwrap_or_default()
}

/// Where the volumes of one pod are.
#[derive(Clone, Debug)]
pub struct PodVolumes {
    /// `/var/lib/cofferdam/pods/<uid>/volumes`.
    pub root: PathBuf,
}

/// Why a volume could not be made; the text is the message of a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
pub struct SetUpError {
    pub volume: String,
    pub message: String,
}

/// Why a pod's volumes could not be taken away; tried again, nothing is lost.
#[derive(Debug, thiserror::Error)]
#[error("UnmountVolume.TearDown failed for {}: {error}", root.display())]
pub struct TearDownError {
    pub root: PathBuf,
    pub error: CallError,
}

/// The ConfigMaps and Secrets that the pod's volumes refer to.
pub fn references(pod: &Pod) -> References {
    let mut references = References::default();
    for volume in volumes(pod) {
        if let Some(source) = &volume.config_map {
            references.config_maps.insert(source.name.clone());
        }
        if let Some(source) = &volume.secret {
            references.secrets.extend(source.secret_name.clone());
        }
        let projections = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
        for VolumeProjection { config_map, secret, .. } in projections.into_iter().flatten() {
            references.config_maps.extend(config_map.as_ref().map(|source| source.name.clone()));
            references.secrets.extend(secret.as_ref().map(|source| source.name.clone()));
        }
    }
    references
}

/// The tokens that the pod's volumes ask for.
pub fn tokens(pod: &Pod) -> BTreeSet<TokenSource> {
    let projected = volumes(pod).iter().filter_map(|volume| volume.projected.as_ref()?.sources.as_ref());
    projected.flatten().filter_map(|source| source.service_account_token.as_ref()).map(plan::token).collect()
}

fn volumes(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()
}

/// The volume's directory name: its own, which the API has found to be a DNS label; anything else could climb.
fn directory_name(volume: &str) -> Result<&str, String> {
    let plain = !volume.is_empty() && !volume.contains(['/', '\0']) && volume != "." && volume != "..";
    if plain { Ok(volume) } else { Err(format!("{volume:?} is no name for a volume")) }
}

impl PodVolumes {
    /// Makes every volume of the pod, or makes it again after a restart of the agent: what is there is kept.
    /// `Sources::config_maps` and `secrets` hold what [`references`] names (absent: not found).
    pub fn set_up(&self, pod: &Pod, sources: &Sources<'_>, node: &NodeFacts) -> Result<(), SetUpError> {
        for volume in volumes(pod) {
            let failed = |message: String| SetUpError { volume: volume.name.clone(), message };
            let plan = plan(pod, volume, sources, node).map_err(failed)?;
            self.set_up_one(pod, volume, &plan).map_err(failed)?;
        }
        Ok(())
    }

    fn set_up_one(&self, pod: &Pod, volume: &Volume, plan: &VolumePlan) -> Result<(), String> {
        let group = fs_group(pod, plan.read_only());
        let show = |error: CallError| error.to_string();
        let Some(plugin) = plan.plugin() else {
            if let VolumePlan::HostPath { path, kind } = plan {
                host_path::check(path, *kind)?;
            }
            return Ok(());
        };
        let directory = self.root.join(plugin).join(directory_name(&volume.name)?);
        match plan {
            VolumePlan::EmptyDir => make_directory(&directory, group).map_err(show),
            VolumePlan::Memory { size } => {
                make_directory(&directory, None).map_err(show)?;
                mount_tmpfs(&directory, Some(*size), group).map_err(show)
            }
            VolumePlan::Files { files, in_memory, .. } => {
                make_directory(&directory, if *in_memory { None } else { group }).map_err(show)?;
                if *in_memory {
                    mount_tmpfs(&directory, None, group).map_err(show)?;
                }
                atomic::write(&directory, files, group, now()).map(drop).map_err(show)
            }
            VolumePlan::HostPath { .. } => Ok(()),
        }
    }

    /// Brings configMap, secret, downwardAPI and projected volumes up to date; names those whose files changed.
    pub fn refresh(
        &self,
        pod: &Pod,
        sources: &Sources<'_>,
        node: &NodeFacts,
    ) -> Result<Vec<String>, SetUpError> {
        let mut changed = Vec::new();
        for volume in volumes(pod) {
            let failed = |message: String| SetUpError { volume: volume.name.clone(), message };
            let planned = plan(pod, volume, sources, node).map_err(failed)?;
            if let VolumePlan::Files { plugin, files, .. } = &planned {
                let directory = self.root.join(plugin).join(directory_name(&volume.name).map_err(failed)?);
                let group = fs_group(pod, true);
                if atomic::write(&directory, files, group, now())
                    .map_err(|error| failed(error.to_string()))?
                {
                    changed.push(volume.name.clone());
                }
            }
        }
        Ok(changed)
    }

    /// The mounts of one container, and the descriptors that those by subPath refer to by index.
    /// `env`: the container's resolved variables, for subPathExpr.
    pub fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        env: &[(String, String)],
    ) -> Result<(Vec<VolumeMount>, Vec<OwnedFd>), ConfigError> {
        let mut mounts = Vec::new();
        let mut descriptors = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let volume = volumes(pod).iter().find(|volume| volume.name == mount.name).ok_or_else(|| {
                ConfigError::config(format!(
                    "cannot find volume \"{}\" to mount into container \"{}\"",
                    mount.name, container.name
                ))
            })?;
            let place = self.place(volume).map_err(ConfigError::config)?;
            let source = match sub_path(mount, env).map_err(ConfigError::config)? {
                None => MountSource::Path(place.path),
                Some(path) => {
                    let prepared = sub_path::check(&path)
                        .and_then(|()| sub_path::open(&place.path, &path).map_err(|error| error.to_string()));
                    let descriptor = prepared.map_err(|error| {
                        ConfigError::config(format!(
                            "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {error}",
                            mount.name, container.name
                        ))
                    })?;
                    descriptors.push(descriptor);
                    MountSource::Descriptor(descriptors.len() - 1)
                }
            };
            let field = |what: &str, value: &str| {
                ConfigError::config(format!(
                    "container {}: volumeMounts.{what}: {value:?} is not supported",
                    container.name
                ))
            };
            let read_only = place.read_only || mount.read_only == Some(true);
            mounts.push(VolumeMount {
                source,
                destination: Path::new("/").join(&mount.mount_path),
                read_only,
                recursive_read_only: match mount.recursive_read_only.as_deref() {
                    None | Some("" | "Disabled") => false,
                    Some("Enabled") if mount.read_only != Some(true) => {
                        return Err(ConfigError::config(format!(
                            "container {}: volumeMounts.recursiveReadOnly: may only be specified when readOnly is true",
                            container.name
                        )));
                    }
                    // Every kernel this runs on can (Linux 5.12).
                    Some("Enabled" | "IfPossible") => read_only,
                    Some(other) => return Err(field("recursiveReadOnly", other)),
                },
                propagation: match mount.mount_propagation.as_deref() {
                    None | Some("" | "None") => Propagation::None,
                    Some("HostToContainer") => Propagation::HostToContainer,
                    Some("Bidirectional") => Propagation::Bidirectional,
                    Some(other) => return Err(field("mountPropagation", other)),
                },
                nosuid_nodev: volume.host_path.is_none(),
            });
        }
        Ok((mounts, descriptors))
    }

    /// Whether an emptyDir on disk is over its sizeLimit: the message of the eviction
    /// (`Usage of EmptyDir volume "x" exceeds the limit "1Mi". `).
    pub fn over_size_limit(&self, pod: &Pod) -> Result<Option<String>, SetUpError> {
        for volume in volumes(pod) {
            let failed = |message: String| SetUpError { volume: volume.name.clone(), message };
            let Some(source) =
                volume.empty_dir.as_ref().filter(|source| source.medium.as_deref() != Some("Memory"))
            else {
                continue;
            };
            let Some(limit) = &source.size_limit else { continue };
            let bytes =
                limit.0.parse::<policy::resources::Quantity>().map_err(|e| failed(e.to_string()))?.value();
            let place = self.place(volume).map_err(failed)?;
            let used = ownership::usage(&place.path).map_err(|error| failed(error.to_string()))?;
            if bytes > 0 && used > bytes as u64 {
                return Ok(Some(format!(
                    "Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ",
                    volume.name, limit.0
                )));
            }
        }
        Ok(None)
    }

    /// Unmounts and removes everything; hostPath targets are never touched. Nothing there is success.
    pub fn tear_down(&self) -> Result<(), TearDownError> {
        let failed = |error: CallError| TearDownError { root: self.root.clone(), error };
        remove::detach_all(&self.root).map_err(failed)?;
        let (Some(parent), Some(name)) = (self.root.parent(), self.root.file_name()) else {
            return Err(failed(CallError::new(
                "rmdir",
                self.root.display().to_string(),
                rustix::io::Errno::INVAL,
            )));
        };
        let parent_fd = match ownership::open_directory(parent) {
            Ok(fd) => fd,
            Err(error) if error.errno == rustix::io::Errno::NOENT => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        remove::tree(&parent_fd, name, parent).map_err(failed)
    }

    /// Where a volume is, by its type alone.
    fn place(&self, volume: &Volume) -> Result<Place, String> {
        if let Some(source) = &volume.host_path {
            return Ok(Place { path: Path::new("/").join(&source.path), read_only: false });
        }
        let (plugin, read_only) = if volume.empty_dir.is_some() {
            ("kubernetes.io~empty-dir", false)
        } else if volume.config_map.is_some() {
            ("kubernetes.io~configmap", true)
        } else if volume.secret.is_some() {
            ("kubernetes.io~secret", true)
        } else if volume.downward_api.is_some() {
            ("kubernetes.io~downward-api", true)
        } else if volume.projected.is_some() {
            ("kubernetes.io~projected", true)
        } else {
            return Err(format!("volume \"{}\": its type is not supported", volume.name));
        };
        Ok(Place { path: self.root.join(plugin).join(directory_name(&volume.name)?), read_only })
    }
}

struct Place {
    path: PathBuf,
    read_only: bool,
}

/// The part of the volume that is mounted; `None`: all of it.
fn sub_path(mount: &ApiMount, env: &[(String, String)]) -> Result<Option<String>, String> {
    if let Some(expression) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
        return sub_path::expanded(expression, env).map(Some);
    }
    Ok(mount.sub_path.clone().filter(|text| !text.is_empty()))
}

fn fs_group(pod: &Pod, read_only: bool) -> Option<FsGroup> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    let gid = u32::try_from(context.fs_group?).ok()?;
    let on_root_mismatch = context.fs_group_change_policy.as_deref() == Some("OnRootMismatch");
    Some(FsGroup { gid, read_only, on_root_mismatch })
}

/// A directory that everyone may use, or its group; made complete under another name first, so that one that is there is whole.
fn make_directory(path: &Path, group: Option<FsGroup>) -> Result<(), CallError> {
    let io = |call: &'static str, on: &Path, error: &std::io::Error| {
        CallError::from_io(call, on.display().to_string(), error)
    };
    if let Ok(metadata) = fs::symlink_metadata(path) {
        return if metadata.is_dir() {
            Ok(())
        } else {
            Err(CallError::new("mkdir", path.display().to_string(), rustix::io::Errno::NOTDIR))
        };
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(CallError::new("mkdir", path.display().to_string(), rustix::io::Errno::INVAL));
    };
    fs::DirBuilder::new().recursive(true).mode(0o750).create(parent).map_err(|e| io("mkdir", parent, &e))?;
    let mut new = OsString::from(".new-");
    new.push(name);
    let new = parent.join(new);
    match fs::DirBuilder::new().mode(0o700).create(&new) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io("mkdir", &new, &error)),
    }
    let fd = ownership::open_directory(&new)?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o777))
        .map_err(|errno| CallError::new("fchmod", new.display().to_string(), errno))?;
    if let Some(group) = group {
        FsGroup { on_root_mismatch: false, ..group }.apply(&new)?;
    }
    fs::rename(&new, path).map_err(|e| io("rename", path, &e))
}

/// Mounts a tmpfs on the directory, unless there is a mount already. Its root is the group's from the start.
fn mount_tmpfs(path: &Path, size: Option<u64>, group: Option<FsGroup>) -> Result<(), CallError> {
    use kernel::mount::Parameter;
    let on = path.display().to_string();
    let fd = ownership::open_directory(path)?;
    let parent = rustix::fs::statat(&fd, "..", AtFlags::empty())
        .map_err(|errno| CallError::new("fstatat", on.clone(), errno))?;
    if ownership::stat(&fd, path)?.st_dev != parent.st_dev {
        return Ok(());
    }
    let mode = group.map_or(0o1777, |group| group.mode(0o1777, true));
    let mut parameters = vec![Parameter::Text("mode".to_owned(), format!("{mode:o}"))];
    if let Some(group) = group {
        parameters.push(Parameter::Text("gid".to_owned(), group.gid.to_string()));
    }
    if let Some(size) = size {
        parameters.push(Parameter::Text("size".to_owned(), size.to_string()));
    }
    const NOSUID: u64 = 0x2;
    const NODEV: u64 = 0x4;
    let mount = kernel::mount::new_file_system("tmpfs", &parameters, NOSUID | NODEV)?;
    kernel::mount::attach(&mount, &fd, &on)
}

/// The names of the pod's volumes that hold files of `config_maps` or `secrets`: which to refresh when one changes.
pub fn affected(pod: &Pod, config_map: Option<&str>, secret: Option<&str>) -> BTreeSet<String> {
    volumes(pod)
        .iter()
        .filter(|volume| {
            let spec = k8s_openapi::api::core::v1::PodSpec {
                volumes: Some(vec![(*volume).clone()]),
                ..Default::default()
            };
            let references = references(&Pod { spec: Some(spec), ..Default::default() });
            config_map.is_some_and(|name| references.config_maps.contains(name))
                || secret.is_some_and(|name| references.secrets.contains(name))
        })
        .map(|volume| volume.name.clone())
        .collect()
}
