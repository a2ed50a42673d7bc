//! What a volume will be, as data: which files with which bytes and modes, which directory, which check. Nothing here does
//! IO. Messages are those that Kubernetes' volume plugins give.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, Pod,
    Secret, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use policy::{
    container::pod_resources,
    env::{Sources, TokenSource, field, resource_field},
    node_facts::NodeFacts,
    resources::Quantity,
};

/// Files are readable by all where no mode is given.
const DEFAULT_MODE: u32 = 0o644;

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumePlan {
    /// An empty directory on disk, removed with the pod. Its sizeLimit is watched: [`super::PodVolumes::over_size_limit`].
    EmptyDir,
    /// A tmpfs of at most this many bytes.
    Memory { size: u64 },
    /// A path of the node, left as it is.
    HostPath { path: PathBuf, kind: HostPathType },
    /// Files that are written, and written again when their source changes.
    Files { plugin: &'static str, files: Files, in_memory: bool },
}

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPathType {
    /// No check; a missing path becomes a directory, as container runtimes make it.
    Unset,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// Relative paths to their content.
pub type Files = BTreeMap<PathBuf, File>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Root's, but for what one user alone may read.
    pub uid: u32,
}

impl File {
    /// A file of root's.
    pub fn new(data: Vec<u8>, mode: u32) -> File {
        File { data, mode, uid: 0 }
    }
}

impl VolumePlan {
    /// The directory of the plugin below the pod's volumes, as the kubelet names it; `None`: not below them.
    pub fn plugin(&self) -> Option<&'static str> {
        match self {
            Self::EmptyDir | Self::Memory { .. } => Some("kubernetes.io~empty-dir"),
            Self::HostPath { .. } => None,
            Self::Files { plugin, .. } => Some(plugin),
        }
    }

    /// Containers mount it read-only whatever they ask for.
    pub fn read_only(&self) -> bool {
        matches!(self, Self::Files { .. })
    }
}

/// The plan of one volume; the error is what stands behind `MountVolume.SetUp failed for volume "x" : `.
pub fn plan(
    pod: &Pod,
    volume: &Volume,
    sources: &Sources<'_>,
    node: &NodeFacts,
) -> Result<VolumePlan, String> {
    if let Some(source) = &volume.empty_dir {
        return empty_dir(pod, source, node);
    }
    if let Some(source) = &volume.host_path {
        return host_path(source);
    }
    let default = |mode: Option<i32>| mode.map_or(DEFAULT_MODE, |mode| mode as u32 & 0o777);
    if let Some(source) = &volume.config_map {
        let mut files = Files::new();
        let items = source.items.as_deref();
        config_map(&mut files, &source.name, items, source.optional, default(source.default_mode), sources)?;
        return finish("kubernetes.io~configmap", files, false);
    }
    if let Some(source) = &volume.secret {
        let mut files = Files::new();
        let name = source.secret_name.clone().unwrap_or_default();
        secret(
            &mut files,
            &name,
            source.items.as_deref(),
            source.optional,
            default(source.default_mode),
            sources,
        )?;
        return finish("kubernetes.io~secret", files, true);
    }
    if let Some(source) = &volume.downward_api {
        let mut files = Files::new();
        downward(&mut files, source.items.as_deref(), default(source.default_mode), pod, sources, node)?;
        return finish("kubernetes.io~downward-api", files, true);
    }
    if let Some(source) = &volume.projected {
        let mut files = Files::new();
        for projection in source.sources.iter().flatten() {
            project(&mut files, projection, default(source.default_mode), pod, sources, node)?;
        }
        return finish("kubernetes.io~projected", files, true);
    }
    Err(format!("volume type {} is not supported", type_name(volume)))
}

/// The field of the volume that says its type.
fn type_name(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let fields = value.as_object().into_iter().flatten().map(|(name, _)| name.clone());
    fields.filter(|name| name != "name").collect::<Vec<_>>().join(", ")
}

fn empty_dir(pod: &Pod, source: &EmptyDirVolumeSource, node: &NodeFacts) -> Result<VolumePlan, String> {
    match source.medium.as_deref() {
        None | Some("") => Ok(VolumePlan::EmptyDir),
        Some("Memory") => {
            // The smallest of what the node has, the pod may use and the volume asks for (kubelet
            // calculateEmptyDirMemorySize).
            let mut size = node.memory_allocatable;
            let of_pod = pod_resources(pod, node).memory().as_ref().and_then(|memory| memory.limit());
            let asked =
                source.size_limit.as_ref().and_then(|q| q.0.parse::<Quantity>().ok()).map(Quantity::value);
            for limit in [of_pod, asked].into_iter().flatten() {
                if let Ok(limit @ 1..) = u64::try_from(limit) {
                    size = size.min(limit);
                }
            }
            Ok(VolumePlan::Memory { size })
        }
        Some(other) => Err(format!("emptyDir.medium: {other:?} is not supported")),
    }
}

fn host_path(source: &HostPathVolumeSource) -> Result<VolumePlan, String> {
    let path = PathBuf::from(&source.path);
    if path.components().any(|part| part == Component::ParentDir) {
        return Err("hostPath.path: must not contain '..'".to_owned());
    }
    let kind = match source.type_.as_deref() {
        None | Some("") => HostPathType::Unset,
        Some("DirectoryOrCreate") => HostPathType::DirectoryOrCreate,
        Some("Directory") => HostPathType::Directory,
        Some("FileOrCreate") => HostPathType::FileOrCreate,
        Some("File") => HostPathType::File,
        Some("Socket") => HostPathType::Socket,
        Some("CharDevice") => HostPathType::CharDevice,
        Some("BlockDevice") => HostPathType::BlockDevice,
        Some(other) => return Err(format!("hostPath.type: {other:?} is not supported")),
    };
    Ok(VolumePlan::HostPath { path: Path::new("/").join(path), kind })
}

fn config_map(
    files: &mut Files,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
    sources: &Sources<'_>,
) -> Result<(), String> {
    let optional = optional == Some(true);
    let map: &ConfigMap = match sources.config_maps.get(name) {
        Some(map) => map,
        None if optional => return Ok(()),
        None => return Err(format!("configmap \"{name}\" not found")),
    };
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    keys(files, text.chain(binary).collect(), items, optional, mode, "config")
}

fn secret(
    files: &mut Files,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
    sources: &Sources<'_>,
) -> Result<(), String> {
    let optional = optional == Some(true);
    let secret: &Secret = match sources.secrets.get(name) {
        Some(secret) => secret,
        None if optional => return Ok(()),
        None => return Err(format!("secret \"{name}\" not found")),
    };
    let data = secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    keys(files, data.collect(), items, optional, mode, "secret")
}

/// All keys by their names, or those that `items` choose by the paths they give.
fn keys(
    files: &mut Files,
    data: BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: u32,
    what: &str,
) -> Result<(), String> {
    let items = items.unwrap_or_default();
    if items.is_empty() {
        for (key, value) in data {
            files.insert(PathBuf::from(key), File::new(value.to_vec(), mode));
        }
        return Ok(());
    }
    for item in items {
        let Some(value) = data.get(item.key.as_str()) else {
            if optional {
                continue;
            }
            return Err(format!("references non-existent {what} key: {}", item.key));
        };
        let mode = item.mode.map_or(mode, |mode| mode as u32 & 0o777);
        files.insert(PathBuf::from(&item.path), File::new(value.to_vec(), mode));
    }
    Ok(())
}

fn downward(
    files: &mut Files,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: u32,
    pod: &Pod,
    sources: &Sources<'_>,
    node: &NodeFacts,
) -> Result<(), String> {
    for item in items.unwrap_or_default() {
        let text = if let Some(reference) = &item.field_ref {
            field(pod, &reference.field_path, sources)?
        } else if let Some(reference) = &item.resource_field_ref {
            let name = reference.container_name.as_deref().unwrap_or_default();
            let container = find_container(pod, name).ok_or_else(|| format!("container {name} not found"))?;
            let divisor = reference.divisor.as_ref().map(|q| q.0.as_str());
            resource_field(container, &reference.resource, divisor, node)?
        } else {
            return Err(format!("downwardAPI: file {} has neither fieldRef nor resourceFieldRef", item.path));
        };
        let mode = item.mode.map_or(mode, |mode| mode as u32 & 0o777);
        files.insert(PathBuf::from(&item.path), File::new(text.into_bytes(), mode));
    }
    Ok(())
}

fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .find(|container| container.name == name)
}

fn project(
    files: &mut Files,
    projection: &VolumeProjection,
    mode: u32,
    pod: &Pod,
    sources: &Sources<'_>,
    node: &NodeFacts,
) -> Result<(), String> {
    if let Some(source) = &projection.config_map {
        return config_map(files, &source.name, source.items.as_deref(), source.optional, mode, sources);
    }
    if let Some(source) = &projection.secret {
        return secret(files, &source.name, source.items.as_deref(), source.optional, mode, sources);
    }
    if let Some(source) = &projection.downward_api {
        return downward(files, source.items.as_deref(), mode, pod, sources, node);
    }
    if let Some(source) = &projection.service_account_token {
        let text = sources.tokens.get(&token(source)).ok_or("failed to fetch token: there is none")?;
        let user = only_user(pod);
        let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let group = context.and_then(|context| context.fs_group);
        // Readable by all only where nobody says for whom it is; the group's right comes with the volume's ownership.
        let mode = if user.is_some() || group.is_some() { 0o600 } else { mode };
        let file = File { uid: user.unwrap_or(0), ..File::new(text.clone().into_bytes(), mode) };
        files.insert(PathBuf::from(&source.path), file);
        return Ok(());
    }
    let value = serde_json::to_value(projection).unwrap_or_default();
    let kind = value.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    Err(format!("projected source {} is not supported", kind.join(", ")))
}

/// What a volume's source asks for.
pub fn token(source: &ServiceAccountTokenProjection) -> TokenSource {
    /// Seconds, where the source says nothing.
    const USUAL: i64 = 3600;
    TokenSource {
        audience: source.audience.clone().unwrap_or_default(),
        seconds: source.expiration_seconds.unwrap_or(USUAL),
    }
}

/// The user that all containers of the pod are told to run as, if it is one (kubelet `FsUserFrom`).
fn only_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users =
        all.map(|c| c.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

fn finish(plugin: &'static str, files: Files, in_memory: bool) -> Result<VolumePlan, String> {
    for path in files.keys() {
        check_path(path)?;
    }
    // A file cannot be a directory of another: upstream fails at writing, half-way.
    for path in files.keys() {
        if path.ancestors().skip(1).any(|parent| files.contains_key(parent)) {
            return Err(format!("invalid path: {} lies below another file", path.display()));
        }
    }
    Ok(VolumePlan::Files { plugin, files, in_memory })
}

/// What the atomic writer takes as a file's path: relative, inside, and not of the names it uses itself
/// (`pkg/volume/util/atomic_writer.go`, validatePath).
fn check_path(path: &Path) -> Result<(), String> {
    let text = path.to_string_lossy();
    if text.is_empty() {
        return Err("invalid path: must not be empty string".to_owned());
    }
    if path.is_absolute() {
        return Err(format!("invalid path: must be relative path: {text}"));
    }
    if text.len() > 4095 {
        return Err("invalid path: must be less than or equal to 4096 characters".to_owned());
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("invalid path: must not contain '..': {text}"));
    }
    if text.starts_with("..") {
        return Err(format!("invalid path: must not start with '..': {text}"));
    }
    if path.components().any(|part| part.as_os_str().len() > 255) {
        return Err("invalid path: filename must be less than or equal to 255 characters".to_owned());
    }
    if text.contains('\0') || path.components().all(|part| part == Component::CurDir) {
        return Err(format!("invalid path: {text:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
