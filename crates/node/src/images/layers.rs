//! Puts the layers of an image into the store: unpacks those that are missing side by side, checks their digests, makes
//! them durable together, and only then gives them their names.
//!
//! A layer is unpacked by itself, so that it can be shared by all images that have it. A few layers take something of
//! those below for granted (a directory without an entry of its own, a hard link to a file of a lower layer). They are
//! completed from these and get a name of their own, which says what they stand on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{
    blob::{self, Hashing},
    store::{ImageStore, NewLayer, Staged, StoreError, failed},
    unpack::{self, UnpackError, Unpacked, open_beneath},
};

impl ImageStore {
    /// The layers' names, top first and each once, and the bytes of them all.
    pub(super) fn add_layers(
        &self,
        diff_ids: &[String],
        layers: &[NewLayer<'_>],
    ) -> Result<(Vec<String>, u64), StoreError> {
        // In order of their names, so that two processes cannot wait for each other.
        let unique: BTreeSet<&str> = diff_ids.iter().filter_map(|id| blob::hex_of(id)).collect();
        let missing = |store: &Self| -> Vec<&str> {
            unique.iter().copied().filter(|hex| !store.dir.join("layers").join(hex).exists()).collect()
        };
        let locks: Vec<File> =
            missing(self).iter().map(|hex| self.lock(&format!("locks/{hex}"))).collect::<Result<_, _>>()?;
        let missing: BTreeSet<&str> = missing(self).into_iter().collect();
        let mut staged = BTreeMap::new();
        let jobs: Vec<(&str, &String, &NewLayer<'_>)> = missing
            .iter()
            .filter_map(|hex| {
                let at = diff_ids.iter().position(|id| blob::hex_of(id) == Some(hex))?;
                Some((*hex, diff_ids.get(at)?, layers.get(at)?))
            })
            .collect();
        let next = AtomicUsize::new(0);
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|_| {
                    scope.spawn(|| {
                        let mut done = Vec::new();
                        while let Some((hex, diff_id, layer)) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
                        {
                            done.push((*hex, self.unpack(diff_id, layer)));
                        }
                        done
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect::<Vec<_>>()
        });
        for (hex, result) in results {
            staged.insert(hex, result?);
        }
        if staged.len() != jobs.len() {
            return Err(StoreError::Blob("a layer's unpacking thread panicked".to_owned()));
        }

        // What a layer takes from those below it: then it belongs to this stack, and its name says so.
        let mut below: Vec<PathBuf> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let mut chain = String::new();
        let mut renames = Vec::new();
        let mut again = Vec::new();
        for (at, diff_id) in diff_ids.iter().enumerate() {
            let hex = blob::hex_of(diff_id).unwrap_or_default();
            let parents = chain.clone();
            chain = blob::digest(format!("{chain} {diff_id}").as_bytes());
            let own = format!("{hex}-{}", parents.get(7..23).unwrap_or_default());
            let (name, path) = if self.dir.join("layers").join(&own).exists() {
                (own.clone(), self.dir.join("layers").join(&own))
            } else if let Some((stage, unpacked)) = staged.get(hex) {
                let path = stage.path.join("layer");
                let changed = borrow_from_below(&path, unpacked, &below)
                    .map_err(|error| StoreError::Layer { diff_id: diff_id.clone(), error })?;
                let name = if changed { own } else { hex.to_owned() };
                renames.push((path.clone(), name.clone()));
                (name, path)
            } else if missing.contains(hex) {
                // The same layer twice in one image, needing other parents: cannot happen with the one staged above.
                again.push(at);
                continue;
            } else {
                (hex.to_owned(), self.dir.join("layers").join(hex))
            };
            // The same layer again: the upper one decides everything that it has, so the lower one may go.
            if let Some(old) = names.iter().position(|seen| *seen == name) {
                names.remove(old);
                below.retain(|seen| *seen != path);
            }
            names.insert(0, name);
            below.insert(0, path);
        }
        if let Some(at) = again.first() {
            return Err(StoreError::Config(format!("layer {at} cannot be placed")));
        }

        // One sync for all of them, then the names appear.
        if !renames.is_empty() {
            self.sync(staged.values().map(|(_, unpacked)| unpacked.files).sum(), &below)?;
            for (path, name) in &renames {
                let target = self.dir.join("layers").join(name);
                match fs::renameat_with(fs::CWD, path, fs::CWD, &target, RenameFlags::NOREPLACE) {
                    Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {}
                    Err(error) => return Err(failed("renameat2", &target)(error.into())),
                }
            }
            let layers = self.dir.join("layers");
            File::open(&layers).and_then(|dir| dir.sync_all()).map_err(failed("fsync", &layers))?;
        }
        drop(locks);
        if names.is_empty() {
            // An image of no layers (`FROM scratch`): overlayfs wants one.
            let empty = self.dir.join("layers/empty");
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&empty)
                .map_err(failed("mkdir", &empty))?;
            names.push("empty".to_owned());
        }
        let mut size = 0;
        for name in &names {
            size += directory_size(&self.dir.join("layers").join(name));
        }
        Ok((names, size))
    }

    fn unpack(&self, diff_id: &str, layer: &NewLayer<'_>) -> Result<(Staged, Unpacked), StoreError> {
        let wrong = |error: io::Error| StoreError::Layer {
            diff_id: diff_id.to_owned(),
            error: super::tar::TarError::Io(error).into(),
        };
        let stage = self.stage(blob::hex_of(diff_id).unwrap_or_default())?;
        let path = stage.path.join("layer");
        std::fs::DirBuilder::new().mode(0o755).create(&path).map_err(failed("mkdir", &path))?;
        let root = fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed("open", &path)(error.into()))?;
        // umask may have taken bits away; without an entry of its own the root is 0755.
        fs::fchmod(&root, Mode::from_raw_mode(0o755))
            .map_err(|error| failed("fchmod", &path)(error.into()))?;
        let raw = (layer.open)().map_err(wrong)?;
        let limit = self.limits.bytes;
        let mut blob = Hashing::new(raw, limit);
        let mut content = Hashing::new(blob::decompress(&mut blob).map_err(wrong)?, limit);
        let unpacked = unpack::unpack(&mut content, &root, self.limits)
            .map_err(|error| StoreError::Layer { diff_id: diff_id.to_owned(), error })?;
        let found = content.finish().map_err(wrong)?;
        if found != diff_id {
            return Err(StoreError::LayerDigest { diff_id: diff_id.to_owned(), found });
        }
        let found = blob.finish().map_err(wrong)?;
        if layer.blob.as_ref().is_some_and(|expected| *expected != found) {
            return Err(StoreError::Blob(format!(
                "layer blob {}: its content has the digest {found}",
                layer.blob.as_deref().unwrap_or_default()
            )));
        }
        Ok((stage, unpacked))
    }

    /// Makes unpacked layers durable. Few files are synced one by one; many by one sync of the file system, which also
    /// waits for what others write there.
    fn sync(&self, files: u64, layers: &[PathBuf]) -> Result<(), StoreError> {
        if files > 64 {
            let dir = File::open(&*self.dir).map_err(failed("open", &self.dir))?;
            return fs::syncfs(&dir).map_err(|error| failed("syncfs", &self.dir)(error.into()));
        }
        for layer in layers.iter().filter(|layer| layer.starts_with(self.dir.join("staging"))) {
            walk(layer, &mut |path, kind| {
                if kind.is_dir() || kind.is_file() {
                    File::open(path)?.sync_all()?;
                }
                Ok(())
            })
            .map_err(failed("fsync", layer))?;
        }
        Ok(())
    }
}

/// Completes a layer with what it takes for granted of those below: owner and mode of directories it has files in, and
/// targets of its hard links. Says whether anything was taken.
fn borrow_from_below(layer: &Path, unpacked: &Unpacked, below: &[PathBuf]) -> Result<bool, UnpackError> {
    let mut changed = false;
    for dir in &unpacked.implicit {
        for lower in below {
            let stat = match stat_in(lower, dir)? {
                None => continue,
                Some(stat) => stat,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let root = open_layer(layer)?;
                    let system = |call| move |error| UnpackError::System { call, path: dir.clone(), error };
                    let own = open_beneath(&root, dir, OFlags::RDONLY | OFlags::DIRECTORY)
                        .map_err(system("openat2"))?;
                    let (uid, gid) = (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid));
                    fs::fchown(&own, Some(uid), Some(gid)).map_err(system("fchown"))?;
                    fs::fchmod(&own, Mode::from_raw_mode(stat.st_mode)).map_err(system("fchmod"))?;
                    changed = true;
                }
                FileType::Symlink => return Err(UnpackError::BelowLink(dir.clone())),
                _ => {}
            }
            break;
        }
    }
    for (name, target) in &unpacked.links {
        let found = below.iter().try_fold(None, |found: Option<&PathBuf>, lower| {
            let here = stat_in(lower, target)?
                .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
            Ok::<_, UnpackError>(found.or(here.then_some(lower)))
        })?;
        let Some(lower) = found else {
            return Err(UnpackError::MissingTarget { name: name.clone(), target: target.clone() });
        };
        copy_from(lower, target, layer, name)?;
        changed = true;
    }
    Ok(changed)
}

fn open_layer(layer: &Path) -> Result<std::os::fd::OwnedFd, UnpackError> {
    fs::open(layer, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| UnpackError::System { call: "open", path: layer.to_owned(), error })
}

fn stat_in(layer: &Path, path: &Path) -> Result<Option<fs::Stat>, UnpackError> {
    let system = |call| move |error| UnpackError::System { call, path: path.to_owned(), error };
    match open_beneath(open_layer(layer)?, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(file) => fs::fstat(&file).map(Some).map_err(system("fstat")),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(system("openat2")(error)),
    }
}

/// A link to a file of a lower layer: a copy, as overlayfs itself makes when such a link is created.
fn copy_from(lower: &Path, target: &Path, layer: &Path, name: &Path) -> Result<(), UnpackError> {
    let system = |call| move |error| UnpackError::System { call, path: name.to_owned(), error };
    let source = open_beneath(open_layer(lower)?, target, OFlags::RDONLY).map_err(system("openat2"))?;
    let stat = fs::fstat(&source).map_err(system("fstat"))?;
    let parent = name.parent().unwrap_or(Path::new(""));
    let dir = open_beneath(open_layer(layer)?, parent, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(system("openat2"))?;
    let file_name = name.file_name().unwrap_or_default();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = fs::openat(&dir, file_name, flags, Mode::from_raw_mode(0o600)).map_err(system("openat"))?;
    let mut copy = File::from(copy);
    io::copy(&mut File::from(source), &mut copy)
        .map_err(|error| UnpackError::Write { path: name.to_owned(), error })?;
    let (uid, gid) = (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid));
    fs::fchown(&copy, Some(uid), Some(gid)).map_err(system("fchown"))?;
    fs::fchmod(&copy, Mode::from_raw_mode(stat.st_mode)).map_err(system("fchmod"))
}

/// Calls `visit` for everything below `path`, and `path` itself; follows no links.
fn walk(path: &Path, visit: &mut dyn FnMut(&Path, std::fs::FileType) -> io::Result<()>) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), visit)?;
        } else {
            visit(&entry.path(), kind)?;
        }
    }
    visit(path, std::fs::metadata(path)?.file_type())
}

/// Bytes of the files below; each hard link once would need a set: the figure is for people.
fn directory_size(path: &Path) -> u64 {
    let mut size = 0;
    let result = walk(path, &mut |path, kind| {
        if kind.is_file() {
            let stat = fs::statat(fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
            size += u64::try_from(stat.st_size).unwrap_or(0) / u64::from(stat.st_nlink.max(1) as u32);
        }
        Ok(())
    });
    if result.is_ok() { size } else { 0 }
}
