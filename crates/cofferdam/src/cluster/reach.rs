//! Whether the user that the control process becomes can get to the data directory at all. It opens its store by path, as a
//! user without privileges: a directory above that nobody else may enter would end it at each start.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Refuses a data directory that the user `uid` cannot enter, and says which of the directories above it is closed. Those that
/// are not there yet are made so that it can.
pub fn check(data: &Path, uid: u32) -> Result<()> {
    let Some(closed) = closed(data, uid).context("look at the data directory as the control process")? else {
        return Ok(());
    };
    bail!(
        "the control process runs as uid {uid} and cannot enter {dir}, which has no x bit for it: no cluster can be in {data}. \
         Allow it by `chmod o+x {dir}`, or take another directory by --data-dir",
        dir = closed.display(),
        data = data.display(),
    );
}

/// The topmost directory of the path that the user may not enter.
fn closed(data: &Path, uid: u32) -> io::Result<Option<PathBuf>> {
    let mut dirs: Vec<PathBuf> = data.ancestors().map(Path::to_owned).collect();
    dirs.reverse();
    // Users belong to threads: one of its own finds out what the kernel says, access control lists and all.
    let looked = std::thread::spawn(move || -> io::Result<Option<PathBuf>> {
        kernel::credentials::set_ids(uid, uid, &[]).map_err(io::Error::other)?;
        for dir in dirs {
            match std::fs::metadata(dir.join(".")) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(Some(dir)),
                // What is below is not there either.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(io::Error::other(format!("{}: {error}", dir.display()))),
                Ok(_) => {}
            }
        }
        Ok(None)
    });
    looked.join().map_err(|_| io::Error::other("the thread panicked"))?
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn the_closed_directory_is_named() {
        if !testkit::is_root("the_closed_directory_is_named") {
            return;
        }
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
        };
        let above = dir.path().join("above");
        let data = above.join("data");
        fs::create_dir_all(&data).expect("mkdir");
        for (of_dir, of_above, of_data, at, closed_one) in [
            (0o755, 0o755, 0o755, &data, None),
            (0o711, 0o711, 0o711, &data, None),
            (0o700, 0o755, 0o755, &data, Some(dir.path())),
            (0o755, 0o744, 0o755, &data, Some(above.as_path())),
            (0o755, 0o755, 0o750, &data, Some(data.as_path())),
            (0o755, 0o755, 0o755, &data.join("not/yet"), None),
            (0o755, 0o700, 0o755, &above.join("not/yet"), Some(above.as_path())),
        ] {
            mode(dir.path(), of_dir);
            mode(&above, of_above);
            mode(&data, of_data);
            let found = closed(at, 64790).expect("an answer");
            assert_eq!(found.as_deref(), closed_one, "{of_dir:o} {of_above:o} {of_data:o} {}", at.display());
        }
    }
}
