//! What the kernel says of this process: never what anybody meant it to be.

use std::{collections::BTreeMap, env, fmt::Write, fs};

use crate::{Failure, Outcome, failed, say};

/// `/proc/self/status` by its keys.
fn status() -> Result<BTreeMap<String, String>, Failure> {
    let text = fs::read_to_string("/proc/self/status").map_err(failed("/proc/self/status"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect())
}

/// The host name of the UTS namespace.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub fn hostname(_: &[String]) -> Outcome {
    say(&host()).map(|()| 0)
}

pub fn env(_: &[String]) -> Outcome {
    for (name, value) in env::vars_os() {
        say(&format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))?;
    }
    Ok(0)
}

pub fn id(_: &[String]) -> Outcome {
    let status = status()?;
    let ids = |key: &str, at: usize| {
        status.get(key).and_then(|value| value.split_whitespace().nth(at)).unwrap_or("?").to_owned()
    };
    let groups = status.get("Groups").map(|groups| groups.split_whitespace().collect::<Vec<_>>().join(","));
    say(&format!(
        "uid={} gid={} groups={} euid={} egid={}",
        ids("Uid", 0),
        ids("Gid", 0),
        groups.unwrap_or_default(),
        ids("Uid", 1),
        ids("Gid", 1)
    ))
    .map(|()| 0)
}

/// One JSON object; with arguments, only those keys of it.
pub fn show(args: &[String]) -> Outcome {
    let mut fields: Vec<(&str, String)> = Vec::new();
    let status = status()?;
    let number = |key: &str, at: usize| {
        status.get(key).and_then(|value| value.split_whitespace().nth(at)).unwrap_or("null").to_owned()
    };
    fields.push(("uid", number("Uid", 0)));
    fields.push(("euid", number("Uid", 1)));
    fields.push(("gid", number("Gid", 0)));
    fields.push(("egid", number("Gid", 1)));
    let groups = status.get("Groups").map(String::as_str).unwrap_or_default();
    fields.push(("groups", format!("[{}]", groups.split_whitespace().collect::<Vec<_>>().join(","))));
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        fields.push((key, string(status.get(key).map(String::as_str).unwrap_or_default())));
    }
    for key in ["NoNewPrivs", "Seccomp", "Seccomp_filters", "Pid", "PPid", "Threads"] {
        fields.push((key, number(key, 0)));
    }
    fields.push(("Umask", string(&number("Umask", 0))));
    fields.push(("hostname", string(&host())));
    fields.push(("cwd", string(&env::current_dir().map_err(failed("getcwd"))?.to_string_lossy())));
    let args_of_process: Vec<String> = env::args_os().map(|arg| string(&arg.to_string_lossy())).collect();
    fields.push(("args", format!("[{}]", args_of_process.join(","))));
    let variables = env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), string(&value.to_string_lossy())));
    fields.push(("env", object(variables)));
    fields.push(("namespaces", namespaces()?));
    fields.push(("mounts", mounts()?));
    fields.push(("limits", string_lines("/proc/self/limits")?));
    fields.push(("cgroups", string_lines("/proc/self/cgroup")?));
    fields.push(("oom_score_adj", read("/proc/self/oom_score_adj")?.trim().to_owned()));
    fields.push(("links", links()?));
    let shown = fields
        .into_iter()
        .filter(|(key, _)| args.is_empty() || args.iter().any(|arg| arg == key))
        .map(|(key, value)| (key.to_owned(), value));
    say(&object(shown)).map(|()| 0)
}

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(failed(path))
}

/// The namespaces' inode numbers.
fn namespaces() -> Result<String, Failure> {
    let mut found = Vec::new();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let link = fs::read_link(format!("/proc/self/ns/{name}"))
            .map_err(failed(format!("/proc/self/ns/{name}")))?;
        let text = link.to_string_lossy().into_owned();
        let inode: String = text.chars().filter(char::is_ascii_digit).collect();
        found.push((name.to_owned(), inode));
    }
    Ok(object(found.into_iter()))
}

/// Mount point, file system type, mount options and super block options of each mount.
fn mounts() -> Result<String, Failure> {
    let text = read("/proc/self/mountinfo")?;
    let mut rows = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let field = |fields: &[&str], at: usize| string(fields.get(at).copied().unwrap_or_default());
        rows.push(object(
            [
                ("root".to_owned(), field(&left, 3)),
                ("point".to_owned(), field(&left, 4)),
                ("options".to_owned(), field(&left, 5)),
                ("type".to_owned(), field(&right, 0)),
                ("source".to_owned(), field(&right, 1)),
                ("super".to_owned(), field(&right, 2)),
            ]
            .into_iter(),
        ));
    }
    Ok(format!("[{}]", rows.join(",")))
}

/// Names of the network namespace's links.
fn links() -> Result<String, Failure> {
    let text = read("/proc/self/net/dev")?;
    let names: Vec<String> = text
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| string(name.trim()))
        .collect();
    Ok(format!("[{}]", names.join(",")))
}

fn string_lines(path: &str) -> Result<String, Failure> {
    let lines: Vec<String> = read(path)?.lines().map(string).collect();
    Ok(format!("[{}]", lines.join(",")))
}

fn object(fields: impl Iterator<Item = (String, String)>) -> String {
    let fields: Vec<String> = fields.map(|(key, value)| format!("{}:{value}", string(&key))).collect();
    format!("{{{}}}", fields.join(","))
}

fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // A control character would make the document invalid.
            letter if u32::from(letter) < 0x20 => {
                write!(quoted, "\\u{:04x}", u32::from(letter)).ok();
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
