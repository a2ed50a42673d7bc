//! Removing what containers may have filled: through no link, onto no other mount, however deep.

use std::{
    ffi::{OsStr, OsString},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, OFlags},
    io::Errno,
};

use super::{
    CallError,
    ownership::{names, open_beneath},
};

/// Removes `name` in `parent` and all below it. A subdirectory that is not empty is moved up beside `name` and taken on later: so
/// a tree deeper than a path can say or the stack can hold goes too.
pub fn tree(parent: &OwnedFd, name: &OsStr, parent_path: &Path) -> Result<(), CallError> {
    let error = |call: &'static str, name: &OsStr, errno: Errno| {
        CallError::new(call, parent_path.join(name).display().to_string(), errno)
    };
    let mut moved = 0u64;
    let mut queue: Vec<OsString> = vec![name.to_owned()];
    while let Some(name) = queue.pop() {
        match rustix::fs::unlinkat(parent, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(error("unlinkat", &name, errno)),
        }
        match rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY) => {}
            Err(errno) => return Err(error("rmdir", &name, errno)),
        }
        let directory = open_beneath(parent, Path::new(&name), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|errno| error("openat2", &name, errno))?;
        let mut deeper = Vec::new();
        for child in names(&directory).map_err(|errno| error("getdents64", &name, errno))? {
            match rustix::fs::unlinkat(&directory, &child, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(error("unlinkat", &child, errno)),
            }
            match rustix::fs::unlinkat(&directory, &child, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY) => {}
                Err(errno) => return Err(error("rmdir", &child, errno)),
            }
            moved += 1;
            let up = OsString::from(format!("..gone-{}-{moved}", std::process::id()));
            rustix::fs::renameat(&directory, &child, parent, &up)
                .map_err(|e| error("renameat", &child, e))?;
            deeper.push(up);
        }
        queue.push(name);
        queue.extend(deeper);
    }
    Ok(())
}

/// Detaches every mount at or below a path, the last made first.
pub fn detach_all(root: &Path) -> Result<(), CallError> {
    let text = std::fs::read("/proc/self/mountinfo")
        .map_err(|error| CallError::from_io("read", "/proc/self/mountinfo", &error))?;
    // The kernel tells mounts by their real path.
    let root = match std::fs::canonicalize(root) {
        Ok(root) => root,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(CallError::from_io("realpath", root.display().to_string(), &error)),
    };
    let mounts: Vec<PathBuf> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .filter(|path| path.starts_with(&root))
        .collect();
    for path in mounts.iter().rev() {
        match kernel::mount::detach(path) {
            Ok(()) => {}
            // Gone already, with its parent.
            Err(error) if matches!(error.errno, Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// mountinfo writes blanks and backslashes as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mountinfo_are_read() {
        assert_eq!(unescape(br"/a\040b\134c\011"), PathBuf::from("/a b\\c\t"));
        assert_eq!(unescape(br"/plain\x"), PathBuf::from(r"/plain\x"));
    }
}
