//! The store itself: who may write when, what is durable when, and how a name leads to layers.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use oci_spec::image::ImageConfiguration;
use rustix::fs::{self, FlockOperation};
use rustix::io::Errno;

use super::{
    Image, ImageName, ImageSummary, ImageWatch, blob,
    index::{self, INDEX, Index, Name, Record},
    name::{ImageRef, NameError},
    unpack::{Limits, UnpackError},
};

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("image name {0:?}: {1}")]
    Name(String, NameError),
    #[error("image store: {call} {path:?}: {error}")]
    System { call: &'static str, path: PathBuf, error: io::Error },
    #[error("the image's configuration: {0}")]
    Config(String),
    #[error("the image is for {image}, this machine runs {machine}")]
    Platform { image: String, machine: &'static str },
    #[error("layer {diff_id}: {error}")]
    Layer { diff_id: String, error: UnpackError },
    #[error("layer {diff_id}: its content has the digest {found}")]
    LayerDigest { diff_id: String, found: String },
    #[error("{0}")]
    Blob(String),
}

pub(super) fn failed(call: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |error| StoreError::System { call, path: path.to_owned(), error }
}

/// The name of this machine's processor in image platforms (Go's GOARCH).
pub(super) const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};

/// A layer that an image brings along, opened only when the store lacks it.
pub(super) struct NewLayer<'a> {
    /// `sha256:…` of the blob as it is stored, to be checked; the diff id is checked in any case.
    pub blob: Option<String>,
    pub open: Box<dyn Fn() -> io::Result<Box<dyn Read + Send + 'a>> + Send + Sync + 'a>,
}

/// One image's name to be recorded.
pub(super) struct NewName {
    pub name: ImageRef,
    pub pinned: bool,
    /// `sha256:…` of the manifest.
    pub manifest: Option<String>,
}

/// A handle to the store in one directory; cheap to clone. Any number of processes may have it open.
#[derive(Clone, Debug)]
pub struct ImageStore {
    pub(super) dir: Arc<Path>,
    pub(super) limits: Limits,
    cache: Arc<Mutex<Cache>>,
}

#[derive(Default, Debug)]
struct Cache {
    /// Inode, time and size of the index that was read.
    stamp: (u64, i64, i64, u64),
    index: Arc<Index>,
    configs: HashMap<String, ImageConfiguration>,
}

impl ImageStore {
    /// Opens the store in `dir`, creates it if it is not there (0700: layers hold setuid programs), and clears what
    /// crashed processes left in the making.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let dir = dir.as_ref();
        for sub in ["", "locks", "blobs/sha256", "layers", "staging"] {
            let path = dir.join(sub);
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(failed("mkdir", &path))?;
        }
        let store = Self {
            dir: dir.into(),
            limits: Limits::default(),
            cache: Arc::new(Mutex::new(Cache::default())),
        };
        store.clear_staging()?;
        Ok(store)
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// With other bounds on a layer.
    #[cfg(test)]
    pub(super) fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The image that `name` leads to: a tag, a repository digest, or an image id.
    ///
    /// # Errors
    /// A name that is none; what the file system says.
    pub fn resolve(&self, name: &str) -> Result<Option<Image>, StoreError> {
        let index = self.index()?;
        if blob::hex_of(name).is_some() {
            return index.images.contains_key(name).then(|| self.image(&index, name, None)).transpose();
        }
        let parsed = ImageRef::parse(name).map_err(|error| StoreError::Name(name.to_owned(), error))?;
        let key = parsed.to_string();
        let (id, pinned) = match index.names.get(&key) {
            Some(found) => (&found.id, found.pinned),
            None => match index.digests.get(&key) {
                Some(id) => (id, false),
                None => return Ok(None),
            },
        };
        self.image(&index, id, Some(pinned)).map(Some)
    }

    /// All images, by id.
    ///
    /// # Errors
    /// What the file system says.
    pub fn list(&self) -> Result<Vec<ImageSummary>, StoreError> {
        let index = self.index()?;
        Ok(index
            .images
            .iter()
            .map(|(id, record)| ImageSummary {
                id: id.clone(),
                names: index
                    .names
                    .iter()
                    .filter(|(_, name)| name.id == *id)
                    .map(|(key, name)| ImageName { name: key.clone(), pinned: name.pinned })
                    .collect(),
                repo_digests: digests_of(&index, id),
                size: record.size,
            })
            .collect())
    }

    /// Takes a name away; with its last name an image goes, and with it the layers that no other image has. The
    /// caller knows that no container runs from it. Says whether there was such a name.
    ///
    /// # Errors
    /// A name that is none; what the file system says.
    pub fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let parsed = ImageRef::parse(name).map_err(|error| StoreError::Name(name.to_owned(), error))?;
        let lock = self.lock("lock")?;
        let mut index = Index::read(&self.dir).map_err(failed("read", &self.dir.join(INDEX)))?;
        let Some(Name { id, .. }) = index.names.remove(&parsed.to_string()) else { return Ok(false) };
        let mut gone = BTreeSet::new();
        if !index.names.values().any(|name| name.id == id) {
            index.digests.retain(|_, image| *image != id);
            if let Some(record) = index.images.remove(&id) {
                gone.extend(record.layers);
            }
            for record in index.images.values() {
                for layer in &record.layers {
                    gone.remove(layer);
                }
            }
        }
        index.write(&self.dir).map_err(failed("write", &self.dir.join(INDEX)))?;
        drop(lock);
        for layer in gone {
            // A rename first: a directory under layers/ is always complete.
            let staged = self.stage(&layer)?;
            let aside = staged.path.join("layer");
            let path = self.dir.join("layers").join(&layer);
            match std::fs::rename(&path, &aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("rename", &path)(error));
                }
                _ => drop(staged),
            }
        }
        Ok(true)
    }

    /// Tells when images change, in this or any other process. Open it, then look, then wait: nothing is missed. Must
    /// be called in a tokio runtime.
    ///
    /// # Errors
    /// What inotify says.
    pub fn watch(&self) -> Result<ImageWatch, StoreError> {
        ImageWatch::new(&self.dir).map_err(failed("inotify", &self.dir))
    }

    /// Unpacks what is missing of an image and makes it durable; the image is not named yet. Returns its id.
    pub(super) fn add(&self, config: &[u8], layers: &[NewLayer<'_>]) -> Result<(String, Record), StoreError> {
        let parsed = parse_config(config)?;
        let diff_ids = parsed.rootfs().diff_ids();
        if diff_ids.len() != layers.len() {
            return Err(StoreError::Config(format!(
                "{} diff ids, but the manifest has {} layers",
                diff_ids.len(),
                layers.len()
            )));
        }
        for diff_id in diff_ids {
            if blob::hex_of(diff_id).is_none() {
                return Err(StoreError::Config(format!("{diff_id:?} is no sha256 digest")));
            }
        }
        let id = blob::digest(config);
        let (names, size) = self.add_layers(diff_ids, layers)?;
        self.add_blob(config)?;
        Ok((id, Record { layers: names, size }))
    }

    /// Stores a configuration or manifest under its digest.
    pub(super) fn add_blob(&self, content: &[u8]) -> Result<(), StoreError> {
        let digest = blob::digest(content);
        let dir = self.dir.join("blobs/sha256");
        let name = blob::hex_of(&digest).unwrap_or_default();
        if dir.join(name).exists() {
            return Ok(());
        }
        let _lock = self.lock("lock")?;
        index::write_durable(&dir, name, content).map_err(failed("write", &dir.join(name)))
    }

    /// Gives an image its names. A name loaded by hand replaces every other; a pulled one never replaces a pinned one.
    pub(super) fn commit(&self, id: &str, record: Record, names: &[NewName]) -> Result<(), StoreError> {
        let _lock = self.lock("lock")?;
        let mut index = Index::read(&self.dir).map_err(failed("read", &self.dir.join(INDEX)))?;
        index.images.insert(id.to_owned(), record);
        for new in names {
            if let Some(manifest) = &new.manifest {
                index.digests.insert(new.name.with_digest(manifest), id.to_owned());
            }
            if new.name.digest().is_some() {
                continue;
            }
            let key = new.name.to_string();
            if new.pinned || !index.names.get(&key).is_some_and(|old| old.pinned) {
                index.names.insert(key, Name { id: id.to_owned(), pinned: new.pinned });
            }
        }
        index.write(&self.dir).map_err(failed("write", &self.dir.join(INDEX)))
    }

    fn image(&self, index: &Index, id: &str, pinned: Option<bool>) -> Result<Image, StoreError> {
        let Some(record) = index.images.get(id) else {
            return Err(StoreError::Blob(format!("the index names image {id}, but has no such image")));
        };
        let cached = self.cache.lock().unwrap_or_else(PoisonError::into_inner).configs.get(id).cloned();
        let config = match cached {
            Some(config) => config,
            None => {
                let path = self.dir.join("blobs/sha256").join(blob::hex_of(id).unwrap_or_default());
                let config = parse_config(&std::fs::read(&path).map_err(failed("read", &path))?)?;
                let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
                cache.configs.insert(id.to_owned(), config.clone());
                config
            }
        };
        let names: Vec<&String> =
            index.names.iter().filter(|(_, name)| name.id == id).map(|(key, _)| key).collect();
        Ok(Image {
            id: id.to_owned(),
            pinned: pinned.unwrap_or_else(|| {
                names.iter().any(|name| index.names.get(*name).is_some_and(|name| name.pinned))
            }),
            names: names.into_iter().cloned().collect(),
            repo_digests: digests_of(index, id),
            config,
            layers: record.layers.iter().map(|layer| self.dir.join("layers").join(layer)).collect(),
            size: record.size,
        })
    }

    fn index(&self) -> Result<Arc<Index>, StoreError> {
        let path = self.dir.join(INDEX);
        let stamp = match std::fs::metadata(&path) {
            Ok(meta) => (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(error) => return Err(failed("stat", &path)(error)),
        };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.stamp != stamp {
            cache.index = Arc::new(Index::read(&self.dir).map_err(failed("read", &path))?);
            cache.stamp = stamp;
            let index = Arc::clone(&cache.index);
            cache.configs.retain(|id, _| index.images.contains_key(id));
        }
        Ok(Arc::clone(&cache.index))
    }

    /// Waits for and takes an exclusive lock on a file of the store; dropping it lets go.
    pub(super) fn lock(&self, name: &str) -> Result<File, StoreError> {
        let path = self.dir.join(name);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        loop {
            match fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed("flock", &path)(error.into())),
            }
        }
    }

    /// A directory to make something in, removed with all its content when dropped, or when the store is opened after a
    /// crash.
    pub(super) fn stage(&self, name: &str) -> Result<Staged, StoreError> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let _lock = self.lock("lock")?;
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Process ids repeat across the nodes' pid namespaces, so a name may be taken.
        for attempt in 0_u32.. {
            let short = name.get(..12).unwrap_or(name);
            let path =
                self.dir.join("staging").join(format!("{short}.{}.{number}.{attempt}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed("mkdir", &path)(error)),
            }
            let dir = File::open(&path).map_err(failed("open", &path))?;
            fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)
                .map_err(|error| failed("flock", &path)(error.into()))?;
            return Ok(Staged { path, _lock: dir });
        }
        Err(StoreError::Blob("no free name for a staging directory".to_owned()))
    }

    fn clear_staging(&self) -> Result<(), StoreError> {
        let _lock = self.lock("lock")?;
        let staging = self.dir.join("staging");
        for entry in std::fs::read_dir(&staging).map_err(failed("readdir", &staging))? {
            let path = entry.map_err(failed("readdir", &staging))?.path();
            let dir = File::open(&path).map_err(failed("open", &path))?;
            if fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
                std::fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// See [`ImageStore::stage`].
#[derive(Debug)]
pub(super) struct Staged {
    pub path: PathBuf,
    _lock: File,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the store is opened next.
        std::fs::remove_dir_all(&self.path).ok();
    }
}

fn digests_of(index: &Index, id: &str) -> Vec<String> {
    index.digests.iter().filter(|(_, image)| *image == id).map(|(digest, _)| digest.clone()).collect()
}

fn parse_config(bytes: &[u8]) -> Result<ImageConfiguration, StoreError> {
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|error| StoreError::Config(error.to_string()))?;
    let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
    if os != "linux" || architecture != ARCHITECTURE {
        return Err(StoreError::Platform { image: format!("{os}/{architecture}"), machine: ARCHITECTURE });
    }
    Ok(config)
}
