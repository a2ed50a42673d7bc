//! hostPath: the type is checked, and made where it says so, each time a pod is set up (`pkg/volume/hostpath`).

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
    path::Path,
};

use super::plan::HostPathType;

/// Links are followed: the path is the node's own. The error is the message.
pub fn check(path: &Path, kind: HostPathType) -> Result<(), String> {
    let shown = path.display();
    let wrong = |what: &str| Err(format!("hostPath type check failed: {shown} is not a {what}"));
    let found = match fs::metadata(path) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(format!("stat {shown}: {error}")),
    };
    let make_directory = || {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .map_err(|error| format!("mkdir {shown}: {error}"))
    };
    match (kind, found) {
        (HostPathType::Unset, Some(_)) => Ok(()),
        (HostPathType::Unset | HostPathType::DirectoryOrCreate, None) => make_directory(),
        (HostPathType::FileOrCreate, None) => fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o644)
            .open(path)
            .map(drop)
            .map_err(|error| format!("open {shown}: {error}")),
        (HostPathType::DirectoryOrCreate | HostPathType::Directory, found) => match found {
            Some(found) if found.is_dir() => Ok(()),
            _ => wrong("directory"),
        },
        (HostPathType::FileOrCreate | HostPathType::File, found) => match found {
            Some(found) if found.is_file() => Ok(()),
            _ => wrong("file"),
        },
        (HostPathType::Socket, found) => match found {
            Some(found) if found.is_socket() => Ok(()),
            _ => wrong("socket file"),
        },
        (HostPathType::CharDevice, found) => match found {
            Some(found) if found.is_char_device() => Ok(()),
            _ => wrong("character device"),
        },
        (HostPathType::BlockDevice, found) => match found {
            Some(found) if found.is_block_device() => Ok(()),
            _ => wrong("block device"),
        },
    }
}
