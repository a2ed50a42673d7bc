//! What only version 2 needs: controllers switched on from the top down, and its own measures.

use std::path::Path;

use super::{CgroupError, V2Hierarchy, make, write};
use crate::error::Named;

/// The controllers our limits need.
const WANTED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

pub(super) fn create(hierarchy: &V2Hierarchy, path: &Path) -> Result<(), CgroupError> {
    let wanted: Vec<&str> =
        WANTED.into_iter().filter(|name| hierarchy.controllers.iter().any(|has| has == name)).collect();
    if !wanted.is_empty() {
        enable(&hierarchy.mount, &wanted)?;
    }
    let leaf = hierarchy.mount.join(path);
    make(&hierarchy.mount, path, |directory| {
        // Not in the leaf: a cgroup with processes may give its children no controllers.
        if wanted.is_empty() || directory == leaf { Ok(()) } else { enable(directory, &wanted) }
    })?;
    // A leaf may have been made before, as what is now the parent.
    match path.parent() {
        Some(parent) if !wanted.is_empty() && !parent.as_os_str().is_empty() => {
            enable(&hierarchy.mount.join(parent), &wanted)
        }
        _ => Ok(()),
    }
}

fn enable(directory: &Path, wanted: &[&str]) -> Result<(), CgroupError> {
    const FILE: &str = "cgroup.subtree_control";
    let path = directory.join(FILE);
    let now = std::fs::read_to_string(&path).named("read", path.display())?;
    let missing: Vec<String> = wanted
        .iter()
        .filter(|name| !now.split_whitespace().any(|has| has == **name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() { Ok(()) } else { write(directory, FILE, &missing.join(" ")) }
}

/// Version 1's shares (2 to 262144) as a weight (1 to 10000), by runc's formula.
pub(super) fn weight(shares: u64) -> u64 {
    if shares == 0 { 100 } else { 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142 }
}

pub(super) fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn shares_become_weights() {
        for (shares, weight) in [(2, 1), (1024, 39), (262_144, 10_000), (1, 1), (1_000_000, 10_000)] {
            assert_eq!(super::weight(shares), weight, "{shares}");
        }
    }
}
