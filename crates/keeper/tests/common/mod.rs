//! What the kernel tests share: a busybox root, a default Spec, a keeper of the test's own, and its cleaning up.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};

use keeper::client::{Client, ClientError, Executable};
use keeper::protocol::*;
use serde_json::{Value, json};

pub const KEEPER: &str = env!("CARGO_BIN_EXE_keeper");

pub use testkit::skipped;

/// Whether this machine can run the tests at all.
pub fn can_run(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        skipped(test, "needs root");
        return false;
    }
    if !Path::new("/bin/busybox").exists() {
        skipped(test, "needs /bin/busybox (package busybox-static)");
        return false;
    }
    true
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A directory of this test's own, and names that no other test has.
pub struct Place {
    pub directory: PathBuf,
    pub name: String,
}

impl Place {
    pub fn new() -> Self {
        let name = format!("cfd-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = PathBuf::from("/tmp").join(&name);
        std::fs::create_dir_all(&directory).unwrap();
        Self { directory, name }
    }

    /// A lower layer with busybox under all its names and what a small image has.
    pub fn image(&self) -> PathBuf {
        let root = self.directory.join("image");
        for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        // A copy, never a hard link: what a test writes to must not be the machine's own file.
        let busybox = root.join("bin/busybox");
        if !busybox.exists() {
            std::fs::copy("/bin/busybox", &busybox).unwrap();
        }
        for applet in
            "sh cat ls id echo sleep mount umount hostname env pwd stat true false kill ps grep mknod ln mkdir rm touch tail head od wc dd readlink stty tty sed tr sort cut printf test ipcs dmesg setsid chmod chown ip ulimit nc"
                .split(' ')
        {
            let _exists = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
        }
        // Once: a test may have put something else there.
        if !root.join("etc/made").exists() {
            let passwd = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
            for (name, text) in
                [("etc/passwd", passwd), ("etc/group", "root:x:0:\nuser:x:1000:\n"), ("etc/made", "")]
            {
                std::fs::write(root.join(name), text).unwrap();
            }
        }
        root
    }

    pub fn overlay(&self, name: &str) -> Rootfs {
        let at = self.directory.join(name);
        std::fs::create_dir_all(&at).unwrap();
        Rootfs::Overlay { lower: vec![self.image()], upper: at.join("upper"), work: at.join("work") }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.directory);
    }
}

/// The 14 capabilities containerd gives by default.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// One named change of a Spec.
pub type Change = (&'static str, fn(&mut Value));

/// A Spec as containerd makes it for a pod without a security context.
pub fn spec(args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": false},
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "noNewPrivileges": false,
            "capabilities": {
                "bounding": DEFAULT_CAPABILITIES,
                "effective": DEFAULT_CAPABILITIES,
                "permitted": DEFAULT_CAPABILITIES,
            },
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}, {"type": "cgroup"},
            ],
            "resources": {"devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 7, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 8, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 9, "access": "rwm"},
                {"allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
                {"allow": true, "type": "c", "major": 5, "minor": 2, "access": "rwm"},
                {"allow": true, "type": "c", "major": 136, "access": "rwm"},
            ]},
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// A keeper and its pod. Stopped, reaped and cleaned up when dropped.
pub struct Pod {
    pub place: Place,
    pub client: Client,
    pub child: Option<Child>,
    pub plan: SandboxPlan,
    pub ready_fds: Vec<std::os::fd::OwnedFd>,
    subscribed: bool,
}

pub fn sandbox_plan(place: &Place) -> SandboxPlan {
    SandboxPlan {
        pod: PodRef { namespace: "test".into(), name: "pod".into(), uid: place.name.clone() },
        hostname: Some("test-host".into()),
        net: NamespaceMode::Own,
        ipc: NamespaceMode::Own,
        uts: NamespaceMode::Own,
        pid: PidMode::PerContainer,
        cgroup: PathBuf::from(&place.name),
        resources: None,
        sysctls: Default::default(),
        shm_size: None,
        socket: place.directory.join("keeper.sock"),
        state_dir: place.directory.join("state"),
    }
}

impl Pod {
    pub fn new() -> Self {
        Self::with(|_| {}).expect("a sandbox")
    }

    pub fn with(change: impl FnOnce(&mut SandboxPlan)) -> Result<Self, ClientError> {
        let place = Place::new();
        let mut plan = sandbox_plan(&place);
        change(&mut plan);
        let (mut child, stream) = keeper::client::spawn(Executable::Path(Path::new(KEEPER)), &plan)?;
        let mut client = Client::new(stream);
        match client.reply(0) {
            Ok((Reply::SandboxReady { .. }, ready_fds)) => {
                Ok(Self { place, client, child: Some(child), plan, ready_fds, subscribed: false })
            }
            Ok((other, _)) => panic!("{other:?}"),
            Err(error) => {
                child.wait().unwrap();
                Err(error)
            }
        }
    }

    pub fn container(&self, name: &str, spec: Value) -> ContainerPlan {
        ContainerPlan {
            name: name.into(),
            attempt: 0,
            spec: serde_json::from_value(spec).unwrap(),
            rootfs: self.place.overlay(name),
            log_path: Some(self.place.directory.join(format!("{name}.log"))),
            tty: false,
            stdin: false,
            stdin_once: false,
            termination_log: None,
        }
    }

    pub fn run_with(
        &mut self,
        plan: ContainerPlan,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(i32, Vec<String>), ClientError> {
        if !self.subscribed {
            self.client.request(Request::Subscribe, &[])?;
            self.subscribed = true;
        }
        match self.client.request(Request::Run(Box::new(plan)), fds)? {
            (_, Reply::Started { pid, warnings, .. }, _) => Ok((pid, warnings)),
            other => panic!("{other:?}"),
        }
    }

    pub fn run(&mut self, name: &str, spec: Value) -> Result<(i32, Vec<String>), ClientError> {
        let plan = self.container(name, spec);
        self.run_with(plan, &[])
    }

    /// Waits for the end of a container.
    pub fn wait(&mut self, name: &str) -> Exit {
        loop {
            if let Event::Exited(state) = self.client.event().unwrap()
                && state.container.name == name
                && let ContainerPhase::Exited(exit) = state.phase
            {
                return exit;
            }
        }
    }

    /// Runs to the end; returns the exit and what was written, without log prefixes.
    pub fn output(&mut self, name: &str, spec: Value) -> (Exit, String) {
        self.run(name, spec).unwrap();
        let exit = self.wait(name);
        (exit, self.log(name))
    }

    pub fn raw_log(&self, name: &str) -> String {
        std::fs::read_to_string(self.place.directory.join(format!("{name}.log"))).unwrap_or_default()
    }

    pub fn log(&self, name: &str) -> String {
        let line = |line: &str| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap_or_default());
        self.raw_log(name).lines().map(line).collect()
    }

    pub fn id(&self, name: &str) -> ContainerId {
        ContainerId { name: name.into(), attempt: 0 }
    }

    pub fn exec_plan(&self, name: &str, argv: &[&str]) -> ExecPlan {
        ExecPlan {
            container: self.id(name),
            argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec![],
            cwd: None,
            user: None,
            tty: false,
            stdin: false,
            terminal_size: None,
        }
    }

    /// Runs an exec to its end: exit, stdout, stderr.
    pub fn exec(&mut self, plan: ExecPlan) -> Result<(Exit, String, String), ClientError> {
        let (id, reply, fds) = self.client.request(Request::Exec(Box::new(plan)), &[])?;
        assert!(matches!(reply, Reply::ExecStarted { .. }), "{reply:?}");
        let mut fds = fds.into_iter();
        drop(fds.next());
        let read = |fd| std::io::read_to_string(std::fs::File::from(fd)).unwrap();
        let (out, err) = (read(fds.next().unwrap()), read(fds.next().unwrap()));
        match self.client.reply(id)? {
            (Reply::ExecExited { exit, .. }, _) => Ok((exit, out, err)),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let stopped = self.client.request(Request::Stop, &[]).map(|_| ());
        if let Some(mut child) = self.child.take() {
            if stopped.is_err() {
                let _gone = child.kill();
            }
            child.wait().unwrap();
        }
        if !std::thread::panicking() {
            stopped.unwrap();
            for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
                let left = hierarchy.unwrap().path().join(&self.plan.cgroup);
                assert!(!left.exists(), "{} is left", left.display());
            }
        }
    }
}

/// The failure a request was answered with.
pub fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Failed(failure) => failure,
        other => panic!("{other}"),
    }
}

/// A file opened for its path only.
pub fn path_fd(path: &Path) -> std::os::fd::OwnedFd {
    let fd = rustix::fs::open(path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    fd.as_fd().try_clone_to_owned().unwrap()
}
