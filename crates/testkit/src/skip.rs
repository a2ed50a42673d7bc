//! A test that cannot run here says so where people and CI see it, and never passes quietly.

use std::{fmt::Display, io::Write};

/// Says why a test, or a part of it, did not run.
pub fn skipped(test: &str, why: impl Display) {
    // Not by a macro that prints: the harness keeps what those say to itself where the test passes.
    let line = format!("SKIPPED {test}: {why}\n");
    // Nobody reads it: then nobody misses it.
    drop(std::io::stderr().lock().write_all(line.as_bytes()));
}

/// Whether we are root; says so where a test needs that.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped(test, "needs root");
    }
    root
}
