//! Stage `Exec`: finding the program in the container's own root and entering its working directory, with errors in the words of Go's
//! `os/exec` that people know from containerd and runc.

use std::ffi::CString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use keeper::protocol::{Failure, Stage};
use rustix::fs::{Access, AtFlags, FileType};
use rustix::io::Errno;

fn failed(message: String) -> Failure {
    Failure { stage: Stage::Exec, message }
}

/// An errno as Go words it.
pub fn go_words(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "no such file or directory".into(),
        Errno::ACCESS => "permission denied".into(),
        Errno::PERM => "operation not permitted".into(),
        Errno::NOEXEC => "exec format error".into(),
        Errno::ISDIR => "is a directory".into(),
        Errno::NOTDIR => "not a directory".into(),
        Errno::LOOP => "too many levels of symbolic links".into(),
        Errno::TOOBIG => "argument list too long".into(),
        other => {
            let text = std::io::Error::from(other).to_string();
            text.split(" (os error").next().unwrap_or_default().to_lowercase()
        }
    }
}

/// Why a file cannot be run, before trying.
fn runnable(path: &Path) -> Result<(), Errno> {
    let found = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    if found.st_mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// Finds what `argv[0]` names: by path if it has a slash, else in `PATH`. Called as the container's user, inside its root.
pub fn find(argv0: &CString, env: &[CString]) -> Result<CString, Failure> {
    let name = argv0.to_string_lossy();
    if argv0.as_bytes().contains(&b'/') {
        let path = Path::new(std::ffi::OsStr::from_bytes(argv0.as_bytes()));
        return match runnable(path) {
            Ok(()) => Ok(argv0.clone()),
            Err(errno @ (Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                Err(failed(format!("exec: {name:?}: stat {name}: {}", go_words(errno))))
            }
            Err(errno) => Err(failed(format!("exec: {name:?}: {}", go_words(errno)))),
        };
    }
    let path = env.iter().rev().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    for directory in path.unwrap_or_default().split(|byte| *byte == b':') {
        // An empty entry is the working directory; what is found there Go's LookPath refuses, and so do we.
        if directory.is_empty() {
            continue;
        }
        let candidate = Path::new(std::ffi::OsStr::from_bytes(directory)).join(name.as_ref());
        if !name.is_empty() && runnable(&candidate).is_ok() {
            return CString::new(candidate.as_os_str().as_bytes())
                .map_err(|_| failed(format!("exec: {name:?}: holds a NUL")));
        }
    }
    Err(failed(format!("exec: {name:?}: executable file not found in $PATH")))
}

/// Enters the working directory, and looks where it landed (CVE-2024-21626: a directory outside the root has no path inside it).
pub fn enter(cwd: &Path) -> Result<(), Errno> {
    rustix::process::chdir(cwd)?;
    verify_cwd()
}

/// The working directory must have a path from the root.
pub fn verify_cwd() -> Result<(), Errno> {
    let now = rustix::process::getcwd(Vec::new())?;
    if now.as_bytes().first() == Some(&b'/') { Ok(()) } else { Err(Errno::NOENT) }
}

/// As [`enter`], worded as runc does.
pub fn cwd_failed(cwd: &Path, errno: Errno) -> Failure {
    failed(format!(
        "chdir to cwd ({:?}) set in config.json failed: {}",
        cwd.display().to_string(),
        go_words(errno)
    ))
}

/// The environment, with HOME from the container's /etc/passwd where it has none, as runc does; `/` for a user it does not know.
pub fn with_home(mut env: Vec<CString>, uid: u32) -> Vec<CString> {
    if !env.iter().any(|entry| entry.as_bytes().starts_with(b"HOME=")) {
        let home = home_of(uid).unwrap_or_else(|| "/".into());
        if let Ok(entry) = CString::new(format!("HOME={home}")) {
            env.push(entry);
        }
    }
    env
}

fn home_of(uid: u32) -> Option<String> {
    // The file is the image's: no more than 1 MiB of it is read (CVE-2022-31030), and no pipe is waited for.
    let file = rustix::fs::open(
        "/etc/passwd",
        rustix::fs::OFlags::RDONLY
            | rustix::fs::OFlags::NONBLOCK
            | rustix::fs::OFlags::NOCTTY
            | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .ok()?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    std::fs::File::from(file).take(1 << 20).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(uid)).then(|| fields.nth(2).map(str::to_owned)).flatten()
    })
}

/// The execve itself failed.
pub fn exec_failed(path: &CString, errno: Errno) -> Failure {
    failed(format!("exec {}: {}", path.to_string_lossy(), go_words(errno)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(text: &str) -> CString {
        CString::new(text).unwrap()
    }

    #[test]
    fn programs_are_found_and_missed_in_gos_words() {
        let path = [c("PATH=/nowhere::/bin")];
        assert_eq!(find(&c("sh"), &path).unwrap(), c("/bin/sh"));
        for (name, env, words) in [
            ("foo", &path[..], r#"exec: "foo": executable file not found in $PATH"#),
            ("sh", &[], r#"exec: "sh": executable file not found in $PATH"#),
            ("", &path[..], r#"exec: "": executable file not found in $PATH"#),
            ("/no/such", &path[..], r#"exec: "/no/such": stat /no/such: no such file or directory"#),
            ("/etc/passwd", &path[..], r#"exec: "/etc/passwd": permission denied"#),
            ("/etc", &path[..], r#"exec: "/etc": is a directory"#),
        ] {
            assert_eq!(find(&c(name), env).unwrap_err().message, words);
        }
    }
}
