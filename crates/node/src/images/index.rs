//! The store's index: one small JSON file, replaced whole by rename, so that a reader sees the old or the new one and
//! a crash leaves one of them.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{self, Mode, OFlags};
use serde::{Deserialize, Serialize};

/// The file's name in the store's directory.
pub(super) const INDEX: &str = "index.json";

#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(super) struct Index {
    /// By normalised name.
    pub names: BTreeMap<String, Name>,
    /// By `registry/repository@sha256:…`.
    pub digests: BTreeMap<String, String>,
    /// By image id.
    pub images: BTreeMap<String, Record>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Name {
    pub id: String,
    /// Loaded by hand: no pull replaces it.
    pub pinned: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Names under `layers/`, top first.
    pub layers: Vec<String>,
    pub size: u64,
}

impl Index {
    /// # Errors
    /// What reading says, and content that is no index.
    pub fn read(store: &Path) -> io::Result<Self> {
        match std::fs::read(store.join(INDEX)) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// What writing says; then the old index stays.
    pub fn write(&self, store: &Path) -> io::Result<()> {
        write_durable(store, INDEX, &serde_json::to_vec(self).map_err(io::Error::from)?)
    }
}

/// Puts a file in place whole or not at all, also when the machine stops in the middle.
pub(super) fn write_durable(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary: PathBuf = dir.join(format!(".{name}.{}", std::process::id()));
    let result = (|| {
        let file = fs::open(
            &temporary,
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::from_raw_mode(0o600),
        )?;
        let mut file = std::fs::File::from(file);
        io::Write::write_all(&mut file, content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, dir.join(name))?;
        std::fs::File::open(dir)?.sync_all()
    })();
    if result.is_err() {
        // Best effort: the name is overwritten by the next attempt anyway.
        std::fs::remove_file(&temporary).ok();
    }
    result
}
