//! Ends a cluster and takes away all it made on the machine, also after its processes were killed: what there is to
//! take away follows from the cluster's name alone, not from what a process remembered.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};

use super::{
    layout::Layout,
    processes::{self, Role},
};

/// What stays of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: the cluster and its objects are gone.
    Nothing,
    /// Objects and images: the next `up` goes on with them.
    Data,
}

pub fn down(layout: &Layout, keep: Keep) -> Result<bool> {
    let cluster = layout.read_if_any()?;
    // The supervisor first: it would start again what we end.
    for role in [Role::Supervisor, Role::Control, Role::NodeInit, Role::Agent] {
        let alive: Vec<_> =
            processes::find(layout.data())?.into_iter().filter(|process| process.role == role).collect();
        processes::kill(&alive).with_context(|| format!("end the {}", role.name()))?;
    }
    let Some(cluster) = cluster else { return Ok(false) };
    node::net::fabric::Fabric::teardown(&cluster.id).context("take the fabric away")?;
    kernel::cgroup::kill_and_remove(std::path::Path::new(&cluster.cgroup()))
        .context("remove the cluster's cgroups")?;
    remove(&layout.run())?;
    if keep == Keep::Nothing {
        for path in ["nodes", "control", "images", "log"] {
            remove(&layout.data().join(path))?;
        }
        for path in [layout.kubeconfig(), layout.pod_security(), layout.cluster_file()] {
            remove(&path)?;
        }
        // Only when it is empty: it may hold what others put there.
        match fs::remove_dir(layout.data()) {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => {}
            Err(error) => return Err(error).with_context(|| format!("remove {}", layout.data().display())),
        }
    }
    Ok(true)
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("remove {}", path.display())),
    }
}
