//! The image store of one machine: images loaded from archives or pulled from registries, their layers unpacked once,
//! ready to be stacked by overlayfs. All nodes of a cluster share one store, so several processes use it at once.
//!
//! Layout of the store's directory:
//!
//! ```text
//! index.json             names, ids, layers: replaced whole by rename; whoever waits for an image watches it
//! lock                   flock: who changes the index, or creates and clears staging directories
//! locks/                 flock: one pull per name and one unpacking per layer at a time, across processes
//! blobs/sha256/<hex>     configs and manifests, named by their digest
//! layers/<diff id hex>/  unpacked layers; a directory there is complete
//! staging/               downloads and layers in the making; what no process holds a lock on is cleared at open
//! ```
//!
//! A name loaded by hand is *pinned*: a pull of that name, `imagePullPolicy: Always` included, resolves to it.

mod archive;
mod blob;
mod index;
mod layers;
mod merged;
mod name;
mod pull;
mod store;
mod tar;
mod tool;
mod unpack;
mod watch;

use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;

pub(crate) use self::watch::register;
pub use self::{
    archive::LoadError,
    merged::FileError,
    name::{ImageRef, NameError},
    pull::{EnsureError, PullEvent, PullPolicy},
    store::{ImageStore, StoreError},
    tool::{TOOL_IMAGE, dns_image_name, stand_in, tool_image},
    unpack::UnpackError,
    watch::ImageWatch,
};

/// The most that is read of an image's `/etc/passwd` or `/etc/group`: a larger file is an error (CVE-2022-31030).
pub const USER_FILE_LIMIT: usize = 1 << 20;

/// One image, unpacked.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration, `sha256:…`: what Kubernetes' container runtimes use as the image's id.
    pub id: String,
    /// Normalised names that lead to it, in order.
    pub names: Vec<String>,
    /// `registry/repository@sha256:…`, for each manifest it was pulled by.
    pub repo_digests: Vec<String>,
    /// Whether the name it was found by (in `list`: any of its names) was loaded by hand, so that no pull replaces it.
    pub pinned: bool,
    /// Entry point, command, environment, user, …
    pub config: ImageConfiguration,
    /// Unpacked layer directories, top first: overlayfs' `lowerdir` order. At least one.
    pub layers: Vec<PathBuf>,
    /// Bytes of the unpacked files.
    pub size: u64,
}

impl Image {
    /// A file as the merged image shows it: whiteouts hide, symbolic links are followed inside the layers only. None, if
    /// there is none.
    ///
    /// # Errors
    /// A file larger than `limit` bytes, one that is no regular file, and a system call that failed.
    pub fn file(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, FileError> {
        merged::read(&self.layers, Path::new(path), limit)
    }

    /// The image's `/etc/passwd`, by which user names are resolved.
    ///
    /// # Errors
    /// As [`Image::file`].
    pub fn passwd(&self) -> Result<Option<Vec<u8>>, FileError> {
        self.file("/etc/passwd", USER_FILE_LIMIT)
    }

    /// The image's `/etc/group`.
    ///
    /// # Errors
    /// As [`Image::file`].
    pub fn group(&self) -> Result<Option<Vec<u8>>, FileError> {
        self.file("/etc/group", USER_FILE_LIMIT)
    }

    /// What Kubernetes shows as a container's `imageID`: a repository digest if there is one, else the id.
    pub fn image_id(&self) -> &str {
        self.repo_digests.first().unwrap_or(&self.id)
    }
}

/// One row of `image ls`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ImageSummary {
    pub id: String,
    pub names: Vec<ImageName>,
    pub repo_digests: Vec<String>,
    /// Bytes of the unpacked files.
    pub size: u64,
}

/// A name of an image, and whether it was loaded by hand.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ImageName {
    pub name: String,
    pub pinned: bool,
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod pull_tests;
#[cfg(test)]
mod tests;
