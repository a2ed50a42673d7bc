//! Loads images from archives: OCI layouts (directory or tar) and docker-archive tars, packed or plain. What is inside
//! is checked against its digests before anything of it gets a name.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use rustix::fs::OFlags;
use serde::Deserialize;

use super::{
    blob,
    name::{ImageRef, NameError},
    store::{ARCHITECTURE, ImageStore, NewLayer, NewName, Staged, StoreError},
    tar::{Archive, Kind, TarError},
    unpack::{UnpackError, beneath, open_beneath},
};

/// Why an archive cannot be loaded. Nothing of it is in the store then, but possibly layers that other images may use.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{call} {path:?}: {error}")]
    System { call: &'static str, path: PathBuf, error: io::Error },
    #[error("the archive: {0}")]
    Tar(#[from] TarError),
    #[error("the archive: {0}")]
    Path(#[from] UnpackError),
    #[error("neither a docker archive (manifest.json) nor an OCI layout (index.json)")]
    Format,
    #[error("{0:?} is not in the archive")]
    Missing(String),
    #[error("{name:?} is larger than {MAX_DOCUMENT} bytes")]
    TooLarge { name: String },
    #[error("{name:?}: {error}")]
    Json { name: String, error: serde_json::Error },
    #[error("{name:?}: its content has the digest {found}")]
    Digest { name: String, found: String },
    #[error("image name {0:?}: {1}")]
    Name(String, NameError),
    #[error(
        "image {0} has no name: give it one when it is saved (docker save NAME, or skopeo copy … oci-archive:FILE:NAME)"
    )]
    NoName(String),
    #[error("the archive has no image for linux/{ARCHITECTURE}")]
    NoPlatform,
    #[error("the archive holds more than {MAX_ARCHIVE} bytes or {MAX_MEMBERS} members")]
    Bomb,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Manifests and configurations: containerd's own bound is 8 MiB.
const MAX_DOCUMENT: u64 = 8 << 20;
const MAX_ARCHIVE: u64 = 64 << 30;
const MAX_MEMBERS: usize = 100_000;

impl ImageStore {
    /// Loads all images of the OCI layout (a directory or a tar) or docker archive at `path`; their names are pinned.
    /// Blocking.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Vec<ImageRef>, LoadError> {
        let path = path.as_ref();
        let failed = |call| move |error| LoadError::System { call, path: path.to_owned(), error };
        let file = File::open(path).map_err(failed("open"))?;
        let kind = file.metadata().map_err(failed("stat"))?.file_type();
        if kind.is_dir() {
            return self.load_source(&Source::Directory(file));
        }
        // A pipe, as /dev/stdin may be, has no places to come back to.
        if !kind.is_file() {
            return self.load_reader(file);
        }
        let mut magic = [0; 262];
        let read = file.read_at(&mut magic, 0).map_err(failed("read"))?;
        // Plain archives are read where they lie; the blobs inside are opened by their place.
        if magic.get(257..262) == Some(b"ustar") && read == magic.len() {
            return self.load_source(&Source::tar(file, None)?);
        }
        self.load_reader(file)
    }

    /// The same from a stream, which is unpacked into the store's staging area first.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load_reader(&self, reader: impl Read + Send) -> Result<Vec<ImageRef>, LoadError> {
        let stage = self.stage("archive")?;
        let path = stage.path.join("archive.tar");
        let failed = |call| {
            let path = path.clone();
            move |error| LoadError::System { call, path, error }
        };
        let mut file =
            File::options().create_new(true).read(true).write(true).open(&path).map_err(failed("open"))?;
        let content = blob::decompress(reader).map_err(failed("read"))?;
        let copied = io::copy(&mut content.take(MAX_ARCHIVE + 1), &mut file).map_err(failed("write"))?;
        if copied > MAX_ARCHIVE {
            return Err(LoadError::Bomb);
        }
        file.flush().map_err(failed("write"))?;
        self.load_source(&Source::tar(file, Some(stage))?)
    }

    fn load_source(&self, source: &Source) -> Result<Vec<ImageRef>, LoadError> {
        // Archives that are both (docker save since version 25) have the whole names in manifest.json only.
        if source.has("manifest.json") {
            return self.load_docker(source);
        }
        if source.has("index.json") {
            return self.load_oci(source);
        }
        Err(LoadError::Format)
    }

    fn load_docker(&self, source: &Source) -> Result<Vec<ImageRef>, LoadError> {
        let images: Vec<DockerImage> = source.json("manifest.json")?;
        let mut ready = Vec::new();
        for image in images {
            let mut names = Vec::new();
            for name in image.repo_tags.unwrap_or_default() {
                names.push(ImageRef::parse(&name).map_err(|error| LoadError::Name(name, error))?);
            }
            if names.is_empty() {
                return Err(LoadError::NoName(image.config));
            }
            let config = source.document(&image.config)?;
            let mut layers = Vec::new();
            for layer in &image.layers {
                layers.push(source.layer(layer, None)?);
            }
            let (id, record) = self.add(&config, &layers)?;
            ready.push((id, record, names, None));
        }
        self.name_all(ready)
    }

    fn load_oci(&self, source: &Source) -> Result<Vec<ImageRef>, LoadError> {
        let index: ImageIndex = source.json("index.json")?;
        let mut ready = Vec::new();
        let mut other_platform = false;
        for descriptor in index.manifests() {
            let Some(name) = name_of(descriptor) else {
                return Err(LoadError::NoName(descriptor.digest().to_string()));
            };
            let name = ImageRef::parse(&name).map_err(|error| LoadError::Name(name, error))?;
            let Some(manifest) = source.manifest(descriptor, 0)? else {
                other_platform = true;
                continue;
            };
            let config = source.blob(manifest.config())?;
            let mut layers = Vec::new();
            for layer in manifest.layers() {
                let digest = layer.digest().to_string();
                layers.push(source.layer(&blob_path(&digest)?, Some(digest))?);
            }
            let (id, record) = self.add(&config, &layers)?;
            ready.push((id, record, vec![name], Some(descriptor.digest().to_string())));
        }
        if ready.is_empty() && other_platform {
            return Err(LoadError::NoPlatform);
        }
        self.name_all(ready)
    }

    /// Only when every image of the archive is there do they get their names.
    fn name_all(
        &self,
        ready: Vec<(String, super::index::Record, Vec<ImageRef>, Option<String>)>,
    ) -> Result<Vec<ImageRef>, LoadError> {
        let mut loaded = Vec::new();
        for (id, record, names, manifest) in ready {
            let new: Vec<NewName> = names
                .iter()
                .map(|name| NewName { name: name.clone(), pinned: true, manifest: manifest.clone() })
                .collect();
            self.commit(&id, record, &new)?;
            loaded.extend(names);
        }
        if loaded.is_empty() {
            return Err(LoadError::Format);
        }
        Ok(loaded)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// containerd writes the whole name; others what they were told as `:NAME`.
fn name_of(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations().as_ref()?;
    annotations
        .get("io.containerd.image.name")
        .or_else(|| annotations.get("org.opencontainers.image.ref.name"))
        .cloned()
}

fn blob_path(digest: &str) -> Result<String, LoadError> {
    let hex = blob::hex_of(digest).ok_or_else(|| LoadError::Missing(digest.to_owned()))?;
    Ok(format!("blobs/sha256/{hex}"))
}

/// Where an archive's members are read from.
enum Source {
    Directory(File),
    Tar(Arc<Tar>),
}

struct Tar {
    file: File,
    members: HashMap<PathBuf, Member>,
    /// Where the file lies, if it is ours.
    _stage: Option<Staged>,
}

#[derive(Clone)]
enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// Older docker archives store equal layers once, and links to them.
    Link(PathBuf),
}

impl Source {
    fn tar(file: File, stage: Option<Staged>) -> Result<Self, LoadError> {
        let mut archive =
            Archive::new(io::BufReader::with_capacity(64 << 10, Positioned { file: &file, at: 0 }));
        let mut members = HashMap::new();
        while let Some(entry) = archive.next()? {
            let name = beneath(&entry.name)?;
            let member = match entry.kind {
                Kind::File => Member::File { offset: archive.offset(), size: entry.size },
                Kind::HardLink => Member::Link(beneath(&entry.link)?),
                Kind::Symlink => Member::Link(join(name.parent().unwrap_or(Path::new("")), &entry.link)?),
                Kind::Directory => continue,
                Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo => {
                    return Err(UnpackError::Device(name).into());
                }
            };
            members.insert(name, member);
            if members.len() > MAX_MEMBERS {
                return Err(LoadError::Bomb);
            }
        }
        drop(archive);
        Ok(Self::Tar(Arc::new(Tar { file, members, _stage: stage })))
    }

    fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, LoadError> {
        let missing = || LoadError::Missing(name.to_owned());
        let path = beneath(Path::new(name))?;
        match self {
            Self::Directory(root) => {
                let file = open_beneath(root, &path, OFlags::RDONLY | OFlags::NONBLOCK)
                    .map_err(|error| LoadError::System { call: "openat2", path, error: error.into() })?;
                let file = File::from(file);
                if !file.metadata().is_ok_and(|meta| meta.is_file()) {
                    return Err(missing());
                }
                Ok(Box::new(file))
            }
            Self::Tar(tar) => {
                let mut path = path;
                for _ in 0..8 {
                    match tar.members.get(&path).ok_or_else(missing)? {
                        Member::File { offset, size } => {
                            return Ok(Box::new(Section { tar: Arc::clone(tar), at: *offset, left: *size }));
                        }
                        Member::Link(target) => path = target.clone(),
                    }
                }
                Err(missing())
            }
        }
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let mut content = Vec::new();
        self.open(name)?
            .take(MAX_DOCUMENT + 1)
            .read_to_end(&mut content)
            .map_err(|error| LoadError::System { call: "read", path: PathBuf::from(name), error })?;
        if content.len() as u64 > MAX_DOCUMENT {
            return Err(LoadError::TooLarge { name: name.to_owned() });
        }
        Ok(content)
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T, LoadError> {
        parse(name, &self.document(name)?)
    }

    /// A document of an OCI layout, its digest checked.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LoadError> {
        let digest = descriptor.digest().to_string();
        let content = self.document(&blob_path(&digest)?)?;
        let found = blob::digest(&content);
        if found != digest {
            return Err(LoadError::Digest { name: digest, found });
        }
        Ok(content)
    }

    /// The manifest that a descriptor leads to; None when it is for another platform.
    fn manifest(&self, descriptor: &Descriptor, depth: u32) -> Result<Option<ImageManifest>, LoadError> {
        let name = descriptor.digest().to_string();
        let content = self.blob(descriptor)?;
        let kind: MediaType = parse(&name, &content)?;
        if !kind.is_index() {
            let right = descriptor.platform().as_ref().is_none_or(is_ours);
            return if right { parse(&name, &content).map(Some) } else { Ok(None) };
        }
        if depth > 2 {
            return Err(LoadError::NoPlatform);
        }
        let index: ImageIndex = parse(&name, &content)?;
        for inner in index.manifests() {
            if inner.platform().as_ref().is_some_and(is_ours) {
                return self.manifest(inner, depth + 1);
            }
        }
        Ok(None)
    }

    fn layer(&self, name: &str, blob: Option<String>) -> Result<NewLayer<'_>, LoadError> {
        // Found out now rather than in the middle of unpacking.
        drop(self.open(name)?);
        let name = name.to_owned();
        Ok(NewLayer { blob, open: Box::new(move || self.open(&name).map_err(io::Error::other)) })
    }
}

/// Whether a document is an index, as a registry or an archive gives it: by its media type or by what it has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MediaType {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl MediaType {
    pub fn is_index(&self) -> bool {
        match self.media_type.as_deref() {
            Some(kind) => {
                kind == "application/vnd.oci.image.index.v1+json"
                    || kind == "application/vnd.docker.distribution.manifest.list.v2+json"
            }
            None => self.manifests.is_some(),
        }
    }
}

/// Whether an image for `platform` runs here.
pub(super) fn is_ours(platform: &oci_spec::image::Platform) -> bool {
    platform.os().to_string() == "linux" && platform.architecture().to_string() == ARCHITECTURE
}

fn parse<T: for<'de> Deserialize<'de>>(name: &str, content: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(content).map_err(|error| LoadError::Json { name: name.to_owned(), error })
}

/// A relative link's target, which may go up, but not out.
fn join(base: &Path, target: &Path) -> Result<PathBuf, UnpackError> {
    let mut path = base.to_owned();
    for component in target.components() {
        match component {
            std::path::Component::ParentDir => {
                if !path.pop() {
                    return Err(UnpackError::Escape(target.to_owned()));
                }
            }
            std::path::Component::Normal(part) => path.push(part),
            std::path::Component::CurDir => {}
            std::path::Component::RootDir | std::path::Component::Prefix(_) => {
                return Err(UnpackError::Escape(target.to_owned()));
            }
        }
    }
    Ok(path)
}

/// Reads a file by position, so that several readers share it.
struct Positioned<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

struct Section {
    tar: Arc<Tar>,
    at: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.tar.file.read_at(buffer.get_mut(..want).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
