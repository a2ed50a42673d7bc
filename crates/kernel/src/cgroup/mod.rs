//! Control groups behind one small interface, for version 1, version 2 and both at once (hybrid: version 1 controllers and a version 2
//! hierarchy beside them, which still gives `cgroup.kill` and birth inside a cgroup). A [`Cgroup`] is one relative path in every
//! hierarchy; each limit goes to whichever hierarchy has its controller, and one that none has is an error.

mod devices;
mod tree;
mod v1;
mod v2;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::error::{CallError, Named};

pub use self::tree::kill_and_remove;

/// The cgroup file systems of this machine, as this mount namespace sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Version 1, one entry a mount.
    pub v1: Vec<V1Hierarchy>,
    /// The mount of the version 2 hierarchy and the controllers it has.
    pub v2: Option<V2Hierarchy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1Hierarchy {
    pub mount: PathBuf,
    /// `cpu`, `memory`, … or `name=systemd`.
    pub controllers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2Hierarchy {
    pub mount: PathBuf,
    pub controllers: Vec<String>,
}

/// Why a cgroup operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgroupError {
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("no cgroup hierarchy is mounted")]
    NoHierarchy,
    #[error("{limit}: this machine has no {controller} cgroup controller")]
    NoController { limit: &'static str, controller: &'static str },
    #[error("cgroup path {0} is not a relative path without `..`")]
    Path(PathBuf),
}

/// Which devices a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    All,
    Block,
    Char,
}

/// One device rule, OCI's `LinuxDeviceCgroup`: the last that matches decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceKind,
    /// `None`: all.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

/// What a cgroup may use. `None`: not limited here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Version 1's measure, 2 to 262144; translated for version 2 as runc does.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU a period; -1: no limit.
    pub cpu_quota: Option<i64>,
    pub cpu_period: Option<u64>,
    pub cpus: Option<String>,
    pub mems: Option<String>,
    /// Bytes; -1: no limit.
    pub memory: Option<i64>,
    /// Memory and swap together, bytes; -1: no limit.
    pub memory_and_swap: Option<i64>,
    pub memory_reservation: Option<i64>,
    /// -1 (or 0): no limit.
    pub pids: Option<i64>,
    /// `None`: devices are not controlled. Else all are denied but what the rules allow.
    pub devices: Option<Vec<DeviceRule>>,
    /// Version 2 files by name, written as they are.
    pub unified: Vec<(String, String)>,
}

impl Hierarchies {
    /// Finds them in `/proc/self/mountinfo`: the first whole (not a subtree's) mount of each.
    ///
    /// # Errors
    /// read's errno, or that there is none.
    pub fn find() -> Result<Self, CgroupError> {
        const PATH: &str = "/proc/self/mountinfo";
        let found = Self::parse(&std::fs::read_to_string(PATH).named("read", PATH)?)?;
        if found.v1.is_empty() && found.v2.is_none() {
            return Err(CgroupError::NoHierarchy);
        }
        Ok(found)
    }

    fn parse(mountinfo: &str) -> Result<Self, CgroupError> {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let mut before = before.split(' ').skip(3);
            let (Some(root), Some(mount)) = (before.next(), before.next()) else { continue };
            let mut after = after.split(' ');
            let (Some(kind), _, options) = (after.next(), after.next(), after.next().unwrap_or_default())
            else {
                continue;
            };
            if root != "/" {
                continue;
            }
            let mount = PathBuf::from(mount);
            match kind {
                "cgroup" => {
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|option| option.starts_with("name=") || v1::CONTROLLERS.contains(option))
                        .map(str::to_owned)
                        .collect();
                    if !controllers.is_empty()
                        && !found.v1.iter().any(|known| known.controllers == controllers)
                    {
                        found.v1.push(V1Hierarchy { mount, controllers });
                    }
                }
                "cgroup2" if found.v2.is_none() => {
                    let path = mount.join("cgroup.controllers");
                    let controllers = match std::fs::read_to_string(&path) {
                        Ok(text) => text.split_whitespace().map(str::to_owned).collect(),
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                        Err(error) => Err(CallError::from_io("read", path.display().to_string(), &error))?,
                    };
                    found.v2 = Some(V2Hierarchy { mount, controllers });
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn v1_of(&self, controller: &str) -> Option<&V1Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.controllers.iter().any(|known| known == controller))
    }

    /// Begins the RCU grace period that the first move of a process after 150 ms without one waits for (6 to 9 ms on version 1), by moving
    /// this process to where it is: moves soon after are quick. Blocks for it, so call it in a process that has time.
    ///
    /// # Errors
    /// read's or write's errno.
    pub fn warm_up(&self) -> Result<(), CgroupError> {
        const PATH: &str = "/proc/self/cgroup";
        let text = std::fs::read_to_string(PATH).named("read", PATH)?;
        let Some(hierarchy) = self.v1.first() else { return Ok(()) };
        let own = text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let same = hierarchy.controllers.iter().all(|name| controllers.split(',').any(|has| has == name));
            same.then(|| path.trim_start_matches('/').to_owned())
        });
        match own {
            Some(path) => write(&hierarchy.mount.join(path), "cgroup.procs", "0"),
            None => Ok(()),
        }
    }

    /// Whether version 2 is all there is.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty()
    }
}

/// One cgroup, in every hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroup {
    hierarchies: Rc<Hierarchies>,
    path: PathBuf,
}

impl Cgroup {
    /// The cgroup at `path` below each hierarchy's mount; nothing is made yet.
    ///
    /// # Errors
    /// For a path that is not plainly relative.
    pub fn new(hierarchies: Rc<Hierarchies>, path: &Path) -> Result<Self, CgroupError> {
        let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain || path.as_os_str().is_empty() {
            return Err(CgroupError::Path(path.to_path_buf()));
        }
        Ok(Self { hierarchies, path: path.to_path_buf() })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it (and what is missing above it) in every hierarchy and sets its limits. What was made stays on an error: [`Cgroup::remove`].
    ///
    /// # Errors
    /// Of the call that failed, or a limit no controller is there for.
    pub fn create(&self, limits: &Limits) -> Result<(), CgroupError> {
        for hierarchy in &self.hierarchies.v1 {
            v1::create(hierarchy, &self.path)?;
        }
        if let Some(hierarchy) = &self.hierarchies.v2 {
            v2::create(hierarchy, &self.path)?;
        }
        self.limit(limits)
    }

    fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        let set =
            |controller: &'static str, limit: &'static str, v1: &[(&str, String)], v2: &[(&str, String)]| {
                if let Some(hierarchy) = self.hierarchies.v1_of(controller) {
                    return v1
                        .iter()
                        .try_for_each(|(file, value)| write(&hierarchy.mount.join(&self.path), file, value));
                }
                match &self.hierarchies.v2 {
                    Some(hierarchy) if hierarchy.controllers.iter().any(|known| known == controller) => v2
                        .iter()
                        .try_for_each(|(file, value)| write(&hierarchy.mount.join(&self.path), file, value)),
                    _ => Err(CgroupError::NoController { limit, controller }),
                }
            };
        if let Some(shares) = limits.cpu_shares {
            let weight = v2::weight(shares);
            set(
                "cpu",
                "cpu shares",
                &[("cpu.shares", shares.to_string())],
                &[("cpu.weight", weight.to_string())],
            )?;
        }
        if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
            let quota = limits.cpu_quota.unwrap_or(-1);
            let period = limits.cpu_period.unwrap_or(100_000);
            let max = if quota > 0 { format!("{quota} {period}") } else { format!("max {period}") };
            // The period first: the old quota may not fit the new one otherwise.
            let v1 =
                [("cpu.cfs_period_us", period.to_string()), ("cpu.cfs_quota_us", quota.max(-1).to_string())];
            set("cpu", "cpu quota", &v1, &[("cpu.max", max)])?;
        }
        if let Some(cpus) = limits.cpus.as_ref().filter(|cpus| !cpus.is_empty()) {
            set("cpuset", "cpus", &[("cpuset.cpus", cpus.clone())], &[("cpuset.cpus", cpus.clone())])?;
        }
        if let Some(mems) = limits.mems.as_ref().filter(|mems| !mems.is_empty()) {
            set("cpuset", "mems", &[("cpuset.mems", mems.clone())], &[("cpuset.mems", mems.clone())])?;
        }
        if let Some(memory) = limits.memory {
            let v1 = [("memory.limit_in_bytes", memory.to_string())];
            set("memory", "memory limit", &v1, &[("memory.max", v2::or_max(memory))])?;
        }
        if let Some(both) = limits.memory_and_swap {
            let swap = match limits.memory {
                Some(memory) if both >= 0 && memory >= 0 => both.saturating_sub(memory).max(0),
                _ => -1,
            };
            let v1 = [("memory.memsw.limit_in_bytes", both.to_string())];
            set("memory", "memory and swap limit", &v1, &[("memory.swap.max", v2::or_max(swap))])?;
        }
        if let Some(reservation) = limits.memory_reservation {
            let v1 = [("memory.soft_limit_in_bytes", reservation.to_string())];
            set("memory", "memory reservation", &v1, &[("memory.low", reservation.max(0).to_string())])?;
        }
        if let Some(pids) = limits.pids {
            let value = if pids > 0 { pids.to_string() } else { "max".to_owned() };
            set("pids", "pids limit", &[("pids.max", value.clone())], &[("pids.max", value)])?;
        }
        if let Some(rules) = &limits.devices {
            match (self.hierarchies.v1_of("devices"), &self.hierarchies.v2) {
                (Some(hierarchy), _) => v1::limit_devices(&hierarchy.mount.join(&self.path), rules)?,
                (None, Some(hierarchy)) => {
                    devices::attach(&open_directory(&hierarchy.mount.join(&self.path))?, rules)?;
                }
                (None, None) => {
                    return Err(CgroupError::NoController { limit: "device rules", controller: "devices" });
                }
            }
        }
        if self.hierarchies.is_unified() {
            for (file, value) in &limits.unified {
                if file.contains('/') || file.starts_with('.') {
                    return Err(CgroupError::Path(file.into()));
                }
                if let Some(hierarchy) = &self.hierarchies.v2 {
                    write(&hierarchy.mount.join(&self.path), file, value)?;
                }
            }
        }
        Ok(())
    }

    /// The version 2 directory, to be born in.
    ///
    /// # Errors
    /// open's errno.
    pub fn birthplace(&self) -> Result<Option<OwnedFd>, CgroupError> {
        match &self.hierarchies.v2 {
            Some(hierarchy) => Ok(Some(open_directory(&hierarchy.mount.join(&self.path))?)),
            None => Ok(None),
        }
    }

    /// Moves a process in; with `born` it is already in the version 2 hierarchy ([`Cgroup::birthplace`]).
    ///
    /// The first such write after 150 ms without one waits for an RCU grace period (6 to 9 ms), unless the hierarchy is
    /// mounted with `favordynmods`: do something else meanwhile.
    ///
    /// # Errors
    /// write's errno.
    pub fn add(&self, pid: Pid, born: bool) -> Result<(), CgroupError> {
        let text = pid.as_raw_nonzero().to_string();
        for directory in self.directories(!born) {
            write(&directory, "cgroup.procs", &text)?;
        }
        Ok(())
    }

    /// The processes in it and below it.
    ///
    /// # Errors
    /// read's errno.
    pub fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        let Some(top) = self.best_directory() else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        collect(&top, &mut pids)?;
        Ok(pids)
    }

    /// SIGKILL to all in it and below it, those that fork meanwhile included.
    ///
    /// # Errors
    /// write's errno.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if let Some(hierarchy) = &self.hierarchies.v2 {
            let directory = hierarchy.mount.join(&self.path);
            match write(&directory, "cgroup.kill", "1") {
                // Older than Linux 5.14, or never made.
                Err(CgroupError::Call(error)) if error.errno == Errno::NOENT => {}
                other => return other,
            }
        }
        v1::kill(&self.hierarchies, &self.path, &self.processes()?)
    }

    /// How many processes the OOM killer has killed in it.
    ///
    /// # Errors
    /// read's errno.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let file = match (self.hierarchies.v1_of("memory"), &self.hierarchies.v2) {
            (Some(hierarchy), _) => hierarchy.mount.join(&self.path).join("memory.oom_control"),
            (None, Some(hierarchy)) => hierarchy.mount.join(&self.path).join("memory.events"),
            (None, None) => return Ok(0),
        };
        let text = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            other => other.named("read", file.display())?,
        };
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.parse().ok());
        Ok(kills.unwrap_or(0))
    }

    /// Removes it, and all below it, from every hierarchy. What is not there is no error.
    ///
    /// # Errors
    /// `EBUSY` while a process (or an unreaped one) is in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        for directory in self.directories(true) {
            remove_below(&directory)?;
        }
        Ok(())
    }

    fn directories(&self, with_v2: bool) -> Vec<PathBuf> {
        let v1 = self.hierarchies.v1.iter().map(|hierarchy| &hierarchy.mount);
        let v2 = self.hierarchies.v2.iter().filter(|_| with_v2).map(|hierarchy| &hierarchy.mount);
        v1.chain(v2).map(|mount| mount.join(&self.path)).collect()
    }

    fn best_directory(&self) -> Option<PathBuf> {
        let v2 = self.hierarchies.v2.as_ref().map(|hierarchy| &hierarchy.mount);
        let mount = v2.or_else(|| self.hierarchies.v1.first().map(|hierarchy| &hierarchy.mount))?;
        Some(mount.join(&self.path))
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, CallError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .named("open", path.display())
}

/// One write, as cgroup files want it.
fn write(directory: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = directory.join(file);
    let fd = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .named("open", path.display())?;
    let written = loop {
        match rustix::io::write(&fd, value.as_bytes()) {
            Err(Errno::INTR) => {}
            other => break other.named("write", format!("{} = {value}", path.display()))?,
        }
    };
    if written == value.len() {
        Ok(())
    } else {
        Err(CallError::new("write", path.display().to_string(), Errno::IO).into())
    }
}

fn make(
    mount: &Path,
    path: &Path,
    mut made: impl FnMut(&Path) -> Result<(), CgroupError>,
) -> Result<(), CgroupError> {
    let mut directory = mount.to_path_buf();
    for part in path.components() {
        directory.push(part);
        match rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o755)) {
            Ok(()) => made(&directory)?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(CallError::new("mkdir", directory.display().to_string(), errno).into()),
        }
    }
    Ok(())
}

fn collect(directory: &Path, pids: &mut Vec<Pid>) -> Result<(), CgroupError> {
    let file = directory.join("cgroup.procs");
    match std::fs::read_to_string(&file) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(CallError::from_io("read", file.display().to_string(), &error).into()),
    }
    for child in children(directory)? {
        collect(&child, pids)?;
    }
    Ok(())
}

fn children(directory: &Path) -> Result<Vec<PathBuf>, CallError> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        other => other.named("readdir", directory.display())?,
    };
    for entry in entries {
        let entry = entry.named("readdir", directory.display())?;
        if entry.file_type().named("stat", entry.path().display())?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove_below(directory: &Path) -> Result<(), CgroupError> {
    // The common case is a leaf.
    match rustix::fs::rmdir(directory) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(_) => {}
    }
    for child in children(directory)? {
        remove_below(&child)?;
    }
    match rustix::fs::rmdir(directory) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(CallError::new("rmdir", directory.display().to_string(), errno).into()),
    }
}

/// Remounts the hierarchies so that moving a process waits for no RCU grace period (`favordynmods`, Linux 6.0). It holds
/// for the whole machine and, on version 1, until its last mount is gone: for the program's start, not for a pod's.
///
/// # Errors
/// `EINVAL` where the kernel has no such option.
pub fn favor_dynamic_modifications(hierarchies: &Hierarchies) -> Result<(), CgroupError> {
    let mounts = hierarchies.v1.iter().map(|h| (&h.mount, h.controllers.join(",")));
    let unified = hierarchies.v2.iter().map(|h| (&h.mount, String::new()));
    for (mount, controllers) in mounts.chain(unified) {
        let data = if controllers.is_empty() {
            "favordynmods".into()
        } else {
            format!("{controllers},favordynmods")
        };
        let data = std::ffi::CString::new(data).map_err(|_| CgroupError::Path(mount.clone()))?;
        rustix::mount::mount_remount(mount, rustix::mount::MountFlags::empty(), data.as_c_str())
            .named("mount", format!("{} remount,favordynmods", mount.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hierarchies_are_told_apart() {
        let text = "\
30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 /sub /elsewhere rw - cgroup cgroup rw,memory
34 30 0:30 / /no/such/unified rw - cgroup2 cgroup2 rw,nsdelegate
";
        let found = Hierarchies::parse(text).unwrap();
        assert_eq!(found.v1.len(), 2);
        assert_eq!(found.v1[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found.v1[1].controllers, ["name=systemd"]);
        assert_eq!(found.v2, Some(V2Hierarchy { mount: "/no/such/unified".into(), controllers: vec![] }));
        assert!(!found.is_unified());
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        let hierarchies = Rc::new(Hierarchies::default());
        for path in ["", "/", "/a", "a/../b", ".."] {
            assert!(
                matches!(Cgroup::new(hierarchies.clone(), Path::new(path)), Err(CgroupError::Path(_))),
                "{path}"
            );
        }
        assert!(Cgroup::new(hierarchies, Path::new("a/b")).is_ok());
    }
}
