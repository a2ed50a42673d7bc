//! A `Spec` mount read: its kind, source, attributes and file system parameters. The options' words are mount(8)'s and OCI's; one
//! that means nothing to us is an error for a bind mount and a file system parameter otherwise, where the kernel judges it.

use std::path::{Component, PathBuf};

use keeper::protocol::Failure;
use kernel::mount::{MountAttributes, Parameter, Propagation, attr};
use oci_spec::runtime::Mount;

use crate::plan::refuse;

/// Where a mount's content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path as the keeper sees it.
    Bind { path: PathBuf, recursive: bool },
    /// The N-th attached descriptor.
    Descriptor { index: usize, recursive: bool },
    /// A new file system of this type.
    New { fs_type: String, parameters: Vec<Parameter> },
    /// The cgroup hierarchies of this machine.
    Cgroup,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    pub destination: PathBuf,
    pub source: Source,
    /// Of the mount itself.
    pub attributes: MountAttributes,
    /// Of it and all mounts below it.
    pub recursive: MountAttributes,
    /// And whether for all below it.
    pub propagation: Option<(Propagation, bool)>,
}

/// The file systems a `Spec` may ask for.
const FILE_SYSTEMS: [&str; 8] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "bpf"];

/// `rslave` and the like, and whether it is for the whole tree.
pub fn propagation(word: &str) -> Option<(Propagation, bool)> {
    let (word, recursive) = match word.strip_prefix('r') {
        Some(rest) => (rest, true),
        None => (word, false),
    };
    let kind = match word {
        "private" => Propagation::Private,
        "slave" => Propagation::Slave,
        "shared" => Propagation::Shared,
        "unbindable" => Propagation::Unbindable,
        _ => return None,
    };
    Some((kind, recursive))
}

/// Set and clear bits of a word.
fn attribute(word: &str) -> Option<(u64, u64)> {
    Some(match word {
        "ro" => (attr::RDONLY, 0),
        "rw" => (0, attr::RDONLY),
        "nosuid" => (attr::NOSUID, 0),
        "suid" => (0, attr::NOSUID),
        "nodev" => (attr::NODEV, 0),
        "dev" => (0, attr::NODEV),
        "noexec" => (attr::NOEXEC, 0),
        "exec" => (0, attr::NOEXEC),
        "nodiratime" => (attr::NODIRATIME, 0),
        "diratime" => (0, attr::NODIRATIME),
        "nosymfollow" => (attr::NOSYMFOLLOW, 0),
        "symfollow" => (0, attr::NOSYMFOLLOW),
        "noatime" => (attr::NOATIME, attr::ATIME_MASK),
        "relatime" => (attr::RELATIME, attr::ATIME_MASK),
        "strictatime" => (attr::STRICTATIME, attr::ATIME_MASK),
        "atime" | "norelatime" | "nostrictatime" => (attr::RELATIME, attr::ATIME_MASK),
        _ => return None,
    })
}

fn apply(attributes: &mut MountAttributes, (set, clear): (u64, u64)) {
    attributes.set = attributes.set & !clear | set;
    // The kernel wants the atime bits cleared as a whole before one is set.
    attributes.clear = attributes.clear & !(set & !attr::ATIME_MASK) | clear;
}

/// Reads one mount; `attached` is how many descriptors came with the plan.
pub fn read(mount: &Mount, attached: usize) -> Result<MountPlan, Failure> {
    let destination = mount.destination().clone();
    let bad = |what: String| refuse(format!("mounts[{}]: {what}", destination.display()));
    if !destination.is_absolute() {
        return Err(bad("destination is not absolute".into()));
    }
    if destination.components().any(|part| part == Component::ParentDir) {
        return Err(bad("destination has a `..`".into()));
    }
    if destination.components().eq([Component::RootDir]) {
        return Err(bad("destination is the root".into()));
    }
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(bad("uidMappings and gidMappings are not supported".into()));
    }
    let mut attributes = MountAttributes::default();
    let mut recursive = MountAttributes::default();
    let (mut chosen, mut bind, mut parameters) = (None, None, Vec::new());
    for option in mount.options().iter().flatten() {
        let word = option.as_str();
        match word {
            "bind" => bind = bind.or(Some(false)),
            "rbind" => bind = Some(true),
            "defaults" | "async" => {}
            "remount" | "idmap" | "ridmap" | "tmpcopyup" => {
                return Err(bad(format!("option {word} is not supported")));
            }
            _ => {
                if let Some(kind) = propagation(word) {
                    chosen = Some(kind);
                } else if let Some(bits) = attribute(word) {
                    apply(&mut attributes, bits);
                } else if let Some(bits) = word.strip_prefix('r').and_then(attribute) {
                    apply(&mut recursive, bits);
                } else if let Some((key, value)) = word.split_once('=') {
                    parameters.push(Parameter::Text(key.into(), value.into()));
                } else {
                    parameters.push(Parameter::Flag(word.into()));
                }
            }
        }
    }
    let fs_type = mount.typ().as_deref().unwrap_or_default();
    let path = mount.source().clone().unwrap_or_default();
    let source = if bind.is_some() || matches!(fs_type, "bind" | "rbind") {
        if let Some(parameter) = parameters.first() {
            return Err(bad(format!("option {parameter:?} means nothing for a bind mount")));
        }
        let deep = bind.unwrap_or(fs_type == "rbind");
        // These three guard against what a volume brings along, so they hold for mounts inside it too.
        let guards = attr::NOSUID | attr::NODEV | attr::NOEXEC;
        if deep {
            recursive.set |= attributes.set & guards & !recursive.clear;
        }
        match path.to_str().and_then(|text| text.strip_prefix("fd:")) {
            Some(number) => match number.parse::<usize>() {
                Ok(index) if index < attached => Source::Descriptor { index, recursive: deep },
                _ => return Err(bad(format!("source {}: no such attached descriptor", path.display()))),
            },
            None if path.is_absolute() => Source::Bind { path, recursive: deep },
            None => return Err(bad(format!("source {} is not absolute", path.display()))),
        }
    } else if fs_type == "cgroup" {
        Source::Cgroup
    } else if FILE_SYSTEMS.contains(&fs_type) {
        if let Some(name) = path.to_str().filter(|name| !name.is_empty()) {
            parameters.push(Parameter::Text("source".into(), name.into()));
        }
        Source::New { fs_type: fs_type.to_owned(), parameters }
    } else {
        return Err(bad(format!("file system type {fs_type:?} is not supported")));
    };
    Ok(MountPlan { destination, source, attributes, recursive, propagation: chosen })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        let mut mount = Mount::default();
        mount.set_destination("/x".into()).set_typ(Some(kind.into())).set_source(Some(source.into()));
        mount.set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
        mount
    }

    #[test]
    fn options_become_attributes() {
        let read = read(&mount("bind", "/src", &["rbind", "ro", "nosuid", "rslave", "rnoexec"]), 0).unwrap();
        assert_eq!(read.source, Source::Bind { path: "/src".into(), recursive: true });
        assert_eq!(read.attributes.set, attr::RDONLY | attr::NOSUID);
        assert_eq!(read.recursive.set, attr::NOEXEC | attr::NOSUID);
        assert_eq!(read.propagation, Some((Propagation::Slave, true)));
    }

    #[test]
    fn the_last_of_contradicting_options_counts() {
        let read =
            read(&mount("tmpfs", "tmpfs", &["ro", "rw", "noatime", "strictatime", "size=64k"]), 0).unwrap();
        assert_eq!(
            read.attributes,
            MountAttributes {
                set: attr::STRICTATIME,
                clear: attr::RDONLY | attr::ATIME_MASK,
                propagation: None
            }
        );
        let Source::New { parameters, .. } = read.source else { panic!() };
        assert!(parameters.contains(&Parameter::Text("size".into(), "64k".into())));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (kind, source, options) in [
            ("bind", "/src", &["bind", "size=3"][..]),
            ("bind", "relative", &["bind"]),
            ("bind", "fd:0", &["bind"]),
            ("ext4", "/dev/sda", &[]),
            ("tmpfs", "tmpfs", &["remount"]),
        ] {
            assert!(read(&mount(kind, source, options), 0).is_err(), "{kind} {source} {options:?}");
        }
        let mut root = mount("tmpfs", "tmpfs", &[]);
        for path in ["/", "x", "/a/../b"] {
            root.set_destination(path.into());
            assert!(read(&root, 0).is_err(), "{path}");
        }
    }

    #[test]
    fn words_of_propagation() {
        assert_eq!(propagation("private"), Some((Propagation::Private, false)));
        assert_eq!(propagation("rprivate"), Some((Propagation::Private, true)));
        assert_eq!(propagation("rshared"), Some((Propagation::Shared, true)));
        assert_eq!(propagation("ro"), None);
    }
}
