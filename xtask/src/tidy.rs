//! Checks of the repository that the compiler does not make: the invariants of ARCHITECTURE.md that a program can check, and the
//! house style. Each finding names the file and line, and what to do.

mod dependencies;
mod rust;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Above this a file usually holds two ideas (the style asks for about 600).
const MAX_LINES: usize = 800;

/// Written by a program, not by people.
const GENERATED: &[&str] = &["crates/api/src/schema/generated.rs"];

/// What must not be left in the code.
const FORBIDDEN: &[(&str, &str)] = &[
    ("todo!", "do it, or refuse with an error that says what is missing"),
    ("unimplemented!", "do it, or refuse with an error that says what is missing"),
    ("dbg!", "take it out"),
];

/// Words of unfinished work in comments.
const UNFINISHED: &[&str] = &["TODO", "FIXME", "XXX"];

/// Where no result may be dropped: a step of the isolation that fails silently is a hole.
const NO_IGNORED_RESULTS: &[&str] = &["crates/kernel/src/", "crates/keeper/src/", "crates/node/src/net/"];

/// Decisions only: no clock, no file, no socket.
const PURE: &[&str] = &["crates/policy/src/", "crates/api/src/"];
const IO: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "std::process",
    "SystemTime",
    "Instant::now",
];

#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// From the root of the repository.
    file: String,
    /// 0 for the whole file.
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}

pub fn run(args: &[String]) -> Result<()> {
    if let Some(arg) = args.first() {
        bail!("unknown argument {arg}");
    }
    let findings = check(&root())?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        n => bail!("{n} findings"),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for folder in ["crates", "xtask"] {
        let mut files = Vec::new();
        list(&root.join(folder), &mut files)?;
        files.sort();
        for file in files {
            let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            if name.ends_with(".rs") {
                check_source(&name, &text, &mut findings);
            } else if name.ends_with("Cargo.toml") {
                dependencies::check(&name, &text, &mut findings);
            }
        }
    }
    Ok(findings)
}

fn list(folder: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() && entry.file_name() != "target" {
            list(&path, out)?;
        } else if kind.is_file() && path.extension().is_some_and(|e| e == "rs" || e == "toml") {
            out.push(path);
        }
    }
    Ok(())
}

fn check_source(file: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut find = |line: usize, what: String| findings.push(Finding { file: file.to_owned(), line, what });
    // The rules are named in the code that checks them.
    let is_tidy = file.starts_with("xtask/src/tidy");
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > MAX_LINES && !GENERATED.contains(&file) {
        find(0, format!("{} lines, more than {MAX_LINES}: split it where it holds two ideas", lines.len()));
    }
    let is_module_root = file.ends_with("/lib.rs") || file.ends_with("/mod.rs") || file.ends_with("/main.rs");
    if is_module_root && !lines.first().is_some_and(|l| l.starts_with("//!")) {
        find(1, "begin with a paragraph (`//!`) that says what the module decides or does".to_owned());
    }
    let code = rust::Source::new(text);
    let test_from = code.first_test_line().unwrap_or(usize::MAX);
    let is_test = |line: usize| line >= test_from || file.contains("/tests/") || file.ends_with("/tests.rs");
    for (at, line) in code.lines() {
        if rust::has_word(&line.code, "unsafe") {
            if !file.starts_with("crates/kernel/") {
                find(at, "`unsafe` is for crates/kernel alone".to_owned());
            } else if rust::opens_unsafe_block(&line.code) && !code.is_explained(at, "SAFETY:") {
                find(at, "say in a `// SAFETY:` line why it is sound".to_owned());
            }
        }
        for (word, advice) in FORBIDDEN {
            if line.code.contains(word) {
                find(at, format!("`{word}`: {advice}"));
            }
        }
        if let (false, Some(word)) = (is_tidy, UNFINISHED.iter().find(|w| rust::has_word(&line.comment, w))) {
            find(at, format!("`{word}` in a comment: do it, or open an issue"));
        }
        let ignores = line.code.contains("let _ =") || line.code.contains(").ok();");
        if ignores && !is_test(at) && NO_IGNORED_RESULTS.iter().any(|p| file.starts_with(p)) {
            // What may fail without harm is rare here, and says why.
            if !code.is_explained(at, "") {
                find(
                    at,
                    "a result is dropped: handle it, or say in a comment why its failure does no harm"
                        .to_owned(),
                );
            }
        }
        if PURE.iter().any(|p| file.starts_with(p)) && !is_test(at) {
            for word in IO.iter().filter(|w| line.code.contains(**w)) {
                find(at, format!("`{word}`: this crate does no IO and reads no clock"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(file: &str, text: &str) -> Vec<(usize, String)> {
        let mut out = Vec::new();
        check_source(file, text, &mut out);
        out.into_iter().map(|f| (f.line, f.what)).collect()
    }

    fn lines(file: &str, text: &str) -> Vec<usize> {
        findings(file, text).into_iter().map(|f| f.0).collect()
    }

    #[test]
    fn unsafe_is_for_kernel_alone_and_explained_there() {
        let bare = "fn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(lines("crates/node/src/x.rs", bare), [2]);
        assert_eq!(lines("crates/kernel/src/x.rs", bare), [2]);
        let explained =
            "fn f() {\n    // SAFETY: g has no\n    // preconditions.\n    let x = unsafe { g() };\n}\n";
        assert_eq!(lines("crates/kernel/src/x.rs", explained), [0usize; 0]);
        let named = "// unsafe\n#![forbid(unsafe_code)]\nfn f() { g(\"unsafe {\", 'u'); /* unsafe */ }\n";
        assert_eq!(lines("crates/node/src/x.rs", named), [0usize; 0]);
    }

    #[test]
    fn unfinished_work_is_found() {
        let text = "fn f() {\n    todo!()\n}\n// TODO: later\nfn g() { h(\"todo!\") }\n/// TODOS are fine\nfn i() {}\n";
        assert_eq!(lines("crates/node/src/x.rs", text), [2, 4]);
    }

    #[test]
    fn results_of_the_isolation_are_not_dropped() {
        let text = "fn f() {\n    let _ = g();\n    g().ok();\n    // It was closed by the peer.\n    let _ = g();\n}\n\
                    #[cfg(test)]\nmod tests {\n    fn t() { let _ = g(); }\n}\n";
        assert_eq!(lines("crates/keeper/src/x.rs", text), [2, 3]);
        assert_eq!(lines("crates/control/src/x.rs", text), [0usize; 0]);
    }

    #[test]
    fn decisions_do_no_io() {
        let text =
            "use std::fs;\nfn f() { Instant::now(); }\n#[cfg(test)]\nmod tests {\n    use std::process;\n}\n";
        assert_eq!(lines("crates/policy/src/x.rs", text), [1, 2]);
        assert_eq!(lines("crates/node/src/x.rs", text), [0usize; 0]);
    }

    #[test]
    fn files_are_short_and_modules_introduced() {
        let long = "//! Words.\n".repeat(MAX_LINES + 1);
        assert_eq!(lines("crates/node/src/lib.rs", &long), [0]);
        assert_eq!(lines("crates/api/src/schema/generated.rs", &long), [0usize; 0]);
        assert_eq!(lines("crates/node/src/lib.rs", "fn f() {}\n"), [1]);
    }

    #[test]
    fn this_repository_has_its_crates_where_the_checks_look() {
        for folder in NO_IGNORED_RESULTS.iter().chain(PURE).chain(GENERATED) {
            assert!(root().join(folder).exists(), "{folder} is gone: the check would pass without looking");
        }
    }
}
