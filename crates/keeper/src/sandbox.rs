//! The pod's own namespaces. The keeper itself moves into the pod's network, IPC and UTS namespaces, so its children are born in them
//! and no process has to be kept for them; descriptors let the agent configure the link.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use keeper::protocol::{Failure, NamespaceMode, SandboxPlan, Stage};
use kernel::cgroup::{Cgroup, Hierarchies};
use kernel::mount::{self, Parameter, attr};
use kernel::namespace::{self, Namespace};
use kernel::process::{self, Fork, ForkArgs};
use kernel::{CallError, Named};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::launch::At;
use crate::plan;

/// A pod's sandbox, made.
#[derive(Debug)]
pub struct Sandbox {
    pub plan: SandboxPlan,
    pub cgroup: Cgroup,
    pub hierarchies: Rc<Hierarchies>,
    /// The shared /dev/shm of a pod with its own IPC namespace.
    pub shm: Option<OwnedFd>,
    /// Where that is mounted, on kernels that clone no detached mounts.
    shm_mount: Option<PathBuf>,
}

const SHM_SIZE: u64 = 64 << 20;

impl Sandbox {
    /// Makes it. What was made before a failure goes with the keeper's end.
    pub fn make(plan: SandboxPlan) -> Result<Self, Failure> {
        plan::check_sandbox(&plan)?;
        for directory in [plan.state_dir.clone(), plan.state_dir.join("containers")] {
            make_private(&directory).at(Stage::Sandbox)?;
        }
        let hierarchies = Rc::new(Hierarchies::find().at(Stage::Cgroup)?);
        warm_up(&hierarchies)?;
        let cgroup = Cgroup::new(Rc::clone(&hierarchies), &plan.cgroup).at(Stage::Cgroup)?;
        let limits = plan.resources.as_ref().map(plan::limits).transpose()?.unwrap_or_default();
        cgroup.create(&limits).at(Stage::Cgroup)?;

        let own: Vec<Namespace> = kinds(&plan, NamespaceMode::Own);
        if !own.is_empty() {
            namespace::unshare(&own).at(Stage::Namespaces)?;
        }
        if let Some(hostname) = &plan.hostname {
            namespace::set_hostname(hostname).at(Stage::Sandbox)?;
        }
        for (name, value) in &plan.sysctls {
            let path = plan::sysctl_path(name);
            std::fs::write(&path, value).named("write", path.display()).at(Stage::Sandbox)?;
        }
        if plan.net == NamespaceMode::Own {
            namespace::loopback_up().at(Stage::Sandbox)?;
        }
        let mut sandbox = Self { plan, cgroup, hierarchies, shm: None, shm_mount: None };
        if sandbox.plan.ipc == NamespaceMode::Own {
            sandbox.make_shm()?;
        }
        Ok(sandbox)
    }

    fn make_shm(&mut self) -> Result<(), Failure> {
        let size = self.plan.shm_size.unwrap_or(SHM_SIZE);
        let parameters = [
            Parameter::Text("source".into(), "shm".into()),
            Parameter::Text("mode".into(), "1777".into()),
            Parameter::Text("size".into(), size.to_string()),
        ];
        let flags = attr::NOSUID | attr::NODEV | attr::NOEXEC;
        let shm = mount::new_file_system("tmpfs", &parameters, flags).at(Stage::Sandbox)?;
        // Before Linux 6.15 a detached mount cannot be cloned: then it has to be somewhere.
        if mount::clone_tree(&shm, false, "/dev/shm").is_err() {
            let place = self.plan.state_dir.join("shm");
            make_private(&place).at(Stage::Sandbox)?;
            let onto = rustix::fs::open(&place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .named("open", place.display())
                .at(Stage::Sandbox)?;
            mount::attach(&shm, onto, &place.display().to_string()).at(Stage::Sandbox)?;
            self.shm_mount = Some(place);
        }
        self.shm = Some(shm);
        Ok(())
    }

    /// The namespaces the pod's containers share with the keeper.
    pub fn shared(&self) -> [Namespace; 3] {
        [Namespace::Net, Namespace::Ipc, Namespace::Uts]
    }

    /// What the agent needs to configure the pod's link.
    pub fn descriptors(&self) -> Result<Vec<OwnedFd>, Failure> {
        if self.plan.net == NamespaceMode::Node {
            return Ok(Vec::new());
        }
        let namespace = namespace::open(None, Namespace::Net).at(Stage::Sandbox)?;
        Ok(vec![namespace, namespace::route_socket().at(Stage::Sandbox)?])
    }

    /// Takes back what would outlive the keeper.
    pub fn remove(&mut self) -> Result<(), Failure> {
        self.shm = None;
        if let Some(place) = self.shm_mount.take() {
            mount::detach(&place).at(Stage::Sandbox)?;
        }
        self.cgroup.remove().at(Stage::Cgroup)
    }
}

/// Lets a child wait for the RCU grace period that the first container's cgroups would wait for, while the pod's namespaces and its link are
/// made. Only time depends on it: the loop reaps the child and does not ask how it ended.
fn warm_up(hierarchies: &Hierarchies) -> Result<(), Failure> {
    if hierarchies.is_unified() {
        return Ok(());
    }
    match process::fork(&ForkArgs::default()).at(Stage::Cgroup)? {
        Fork::Child => process::exit_now(i32::from(hierarchies.warm_up().is_err())),
        Fork::Parent { .. } => Ok(()),
    }
}

fn kinds(plan: &SandboxPlan, mode: NamespaceMode) -> Vec<Namespace> {
    [(plan.net, Namespace::Net), (plan.ipc, Namespace::Ipc), (plan.uts, Namespace::Uts)]
        .into_iter()
        .filter_map(|(has, kind)| (has == mode).then_some(kind))
        .collect()
}

fn make_private(directory: &std::path::Path) -> Result<(), CallError> {
    match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) => {
            std::fs::create_dir_all(directory).named("mkdir", directory.display())?;
            rustix::fs::chmod(directory, Mode::from_raw_mode(0o700)).named("chmod", directory.display())
        }
        Err(errno) => Err(CallError::new("mkdir", directory.display().to_string(), errno)),
    }
}
