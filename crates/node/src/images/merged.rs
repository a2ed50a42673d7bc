//! Reads single files of an image as overlayfs would show them, without mounting anything: user names must be resolved
//! before there is a container. Symbolic links are followed by hand, inside the layers only, and reads are bounded
//! (CVE-2022-31030: a huge `/etc/passwd`).

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{self, FileType, OFlags},
    io::Errno,
};

use super::unpack::open_beneath;

/// Why a file of an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path:?} of the image is larger than {limit} bytes")]
    TooLarge { path: PathBuf, limit: usize },
    #[error("{0:?} of the image is no regular file")]
    NotRegular(PathBuf),
    #[error("{0:?} of the image: too many levels of symbolic links")]
    Links(PathBuf),
    #[error("{call} {path:?} of the image: {error}")]
    System { call: &'static str, path: PathBuf, error: io::Error },
}

/// The kernel's own limit on links in one path.
const MAX_LINKS: usize = 40;

enum Found {
    Nothing,
    Directory,
    Symlink(PathBuf),
    /// The layer that has it.
    File(OwnedFd),
    Other,
}

/// Content of `path` in the image whose layers, top first, are `layers`.
pub(super) fn read(layers: &[PathBuf], path: &Path, limit: usize) -> Result<Option<Vec<u8>>, FileError> {
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        match look_up(layers, &next)? {
            Found::Nothing => return Ok(None),
            Found::Directory if rest.is_empty() => return Err(FileError::NotRegular(path.to_owned())),
            Found::Directory => at = next,
            Found::Symlink(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(FileError::Links(path.to_owned()));
                }
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    rest.push_front(part);
                }
            }
            Found::File(_) if !rest.is_empty() => return Ok(None),
            Found::File(layer) => return content(&layer, &next, limit).map(Some),
            Found::Other => return Err(FileError::NotRegular(path.to_owned())),
        }
    }
    Err(FileError::NotRegular(path.to_owned()))
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

/// What the merged image has at `path`, every parent of which is a directory there.
fn look_up(layers: &[PathBuf], path: &Path) -> Result<Found, FileError> {
    for layer in layers {
        let root = fs::open(layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, fs::Mode::empty())
            .map_err(failed("open", layer))?;
        // From the top: a whiteout, a file or an opaque directory on the way hides all lower layers.
        let mut opaque = false;
        let mut prefix = PathBuf::new();
        let mut missing = false;
        let count = path.components().count();
        for (index, part) in path.components().enumerate() {
            prefix.push(part);
            let file = match open_beneath(&root, &prefix, OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(file) => file,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    missing = true;
                    break;
                }
                Err(error) => return Err(failed("openat2", &prefix)(error)),
            };
            let stat = fs::fstat(&file).map_err(failed("fstat", &prefix))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if index + 1 == count {
                return Ok(match kind {
                    FileType::CharacterDevice if stat.st_rdev == 0 => Found::Nothing,
                    FileType::Directory => Found::Directory,
                    FileType::Symlink => Found::Symlink(link(&file, &prefix)?),
                    FileType::RegularFile => Found::File(root),
                    _ => Found::Other,
                });
            }
            if kind != FileType::Directory {
                return Ok(Found::Nothing);
            }
            opaque |= is_opaque(&root, &prefix)?;
        }
        if missing && opaque {
            return Ok(Found::Nothing);
        }
    }
    Ok(Found::Nothing)
}

fn is_opaque(root: &OwnedFd, path: &Path) -> Result<bool, FileError> {
    let dir =
        open_beneath(root, path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed("openat2", path))?;
    let mut value = [0_u8; 8];
    match fs::fgetxattr(&dir, "trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(value.get(..length) == Some(b"y")),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(failed("fgetxattr", path)(error)),
    }
}

fn link(file: &OwnedFd, path: &Path) -> Result<PathBuf, FileError> {
    let target = fs::readlinkat(file, "", Vec::new()).map_err(failed("readlinkat", path))?;
    Ok(PathBuf::from(OsString::from_vec(target.as_bytes().to_vec())))
}

fn content(root: &OwnedFd, path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let file = open_beneath(root, path, OFlags::RDONLY).map_err(failed("openat2", path))?;
    let mut content = Vec::new();
    std::fs::File::from(file)
        .take(limit as u64 + 1)
        .read_to_end(&mut content)
        .map_err(|error| FileError::System { call: "read", path: path.to_owned(), error })?;
    if content.len() > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(content)
}

fn failed(call: &'static str, path: &Path) -> impl Fn(Errno) -> FileError {
    move |error| FileError::System {
        call,
        path: PathBuf::from(OsString::from_vec(path.as_os_str().as_bytes().to_vec())),
        error: error.into(),
    }
}
