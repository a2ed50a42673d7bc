//! A cluster of a test's own: a data directory that nobody else uses, taken down when the test ends, also by a panic.

#![allow(dead_code)] // each test file uses its part

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

/// Says so on the terminal and returns true where a test cannot run.
pub fn skipped(test: &str, needs_kubectl: bool) -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "it needs root"
    } else if needs_kubectl && Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        "it needs kubectl"
    } else {
        return false;
    };
    testkit::skipped(test, why);
    true
}

pub struct Cluster {
    pub data: PathBuf,
}

impl Cluster {
    /// A data directory without a cluster yet.
    pub fn empty() -> Cluster {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Cluster { data: PathBuf::from(format!("/var/tmp/cfd-{}-{number}", std::process::id())) }
    }

    pub fn up(nodes: u32) -> Cluster {
        let cluster = Cluster::empty();
        let output = cluster.run(&["up", "--nodes", &nodes.to_string()]);
        assert!(output.status.success(), "up failed: {}{}", text(&output), cluster.logs());
        cluster
    }

    /// With the tool image and its stand-ins for nginx and busybox.
    pub fn with_images(nodes: u32) -> Cluster {
        let cluster = Cluster::up(nodes);
        for (name, bytes) in [
            ("tool", node::images::tool_image()),
            ("nginx", node::images::stand_in("nginx").expect("a stand-in")),
            ("busybox", node::images::stand_in("busybox").expect("a stand-in")),
        ] {
            cluster.load(name, &bytes);
        }
        cluster
    }

    pub fn load(&self, name: &str, archive: &[u8]) {
        let path = self.data.join(format!("{name}.tar"));
        fs::write(&path, archive).expect("write an image");
        self.ok(&["image", "load", path.to_str().expect("a path")]);
        fs::remove_file(&path).expect("remove an image");
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cofferdam"))
            .arg("--data-dir")
            .arg(&self.data)
            .args(arguments)
            .output()
            .expect("run cofferdam")
    }

    /// Runs a command that must succeed; what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "cofferdam {arguments:?}: {}{}", text(&output), self.logs());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(self.data.join("kubeconfig"))
            .arg("--cache-dir")
            .arg(self.data.join("kubectl-cache"))
            .args(arguments)
            .output()
            .expect("run kubectl")
    }

    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "kubectl {arguments:?}: {}{}", text(&output), self.logs());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Applies a manifest given as text.
    pub fn apply(&self, manifest: &str) {
        let path = self.data.join("manifest.yaml");
        fs::write(&path, manifest).expect("write a manifest");
        self.ok(&["apply", "-f", path.to_str().expect("a path")]);
        fs::remove_file(&path).expect("remove a manifest");
    }

    /// Asks for a pod until it is as wanted, generously.
    #[track_caller]
    pub fn pod_until(&self, pod: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..300 {
            let output = self.run(&["get", "pod", pod, "-o", "json"]);
            if let Ok(value) = serde_json::from_slice::<Value>(&output.stdout) {
                if wanted(&value) {
                    return value;
                }
                last = value;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("pod {pod} is not as expected: {}{}", last["status"], self.logs());
    }

    /// The pids of a role's processes, as the machine numbers them.
    pub fn pids(&self, role: &str) -> Vec<i32> {
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc").expect("read /proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&str> = line.split('\0').collect();
            if words.get(1) == Some(&"internal")
                && words.get(2) == Some(&role)
                && words.get(4).map(Path::new) == Some(&self.data)
            {
                pids.push(pid);
            }
        }
        pids
    }

    pub fn kill(&self, role: &str) {
        for pid in self.pids(role) {
            let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
        }
    }

    /// What the parts wrote last: shown when a test fails.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for entry in fs::read_dir(self.data.join("log")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(15).collect();
            all.push_str(&format!("\n--- {}\n", entry.path().display()));
            all.extend(last.into_iter().rev().map(|line| format!("{line}\n")));
        }
        all
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let output = self.run(&["down"]);
        if !output.status.success() {
            eprintln!("down failed: {}", text(&output));
        }
        // kubectl's cache, if there is one.
        drop(fs::remove_dir_all(&self.data));
    }
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What of the machine a cluster with this id may change: mounts, links, tables, cgroups, sysctls.
pub fn traces(id: &str) -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read mounts");
    traces.extend(
        mounts
            .lines()
            .filter(|line| line.contains("cofferdam") || line.contains("cfd-"))
            .map(|line| format!("mount {line}")),
    );
    for entry in fs::read_dir("/sys/class/net").expect("read links").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(id) {
            traces.insert(format!("link {name}"));
        }
    }
    if let Ok(output) = Command::new("nft").args(["list", "tables"]).output() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        traces.extend(text.lines().filter(|line| line.contains(id)).map(|line| format!("nft {line}")));
    }
    let mut dirs = vec![PathBuf::from("/sys/fs/cgroup")];
    for entry in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        dirs.push(entry.path());
    }
    for dir in dirs {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(id) {
                traces.insert(format!("cgroup {}", entry.path().display()));
            }
        }
    }
    traces
}

/// The first line of the audit log that is as wanted; the writer may be a moment behind.
pub fn audited(
    cluster: &Cluster,
    what: &str,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let path = cluster.data.join("log/audit/audit.log");
    for _ in 0..200 {
        let log = fs::read_to_string(&path).expect("read the audit log");
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        if let Some(line) = lines.find(|line| wanted(line)) {
            return line;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{what} is not in {}{}", path.display(), cluster.logs());
}
