//! How long a container takes: create, exec, reaped. The keeper against runc, crun (where it runs) and a bare clone3 + exec, interleaved in one
//! run so that all see the same machine. `cargo run --release -p keeper --example launch-bench [ROUNDS]`, as root, with /bin/busybox.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keeper::client::{Client, Executable};
use keeper::protocol::*;
use kernel::process::{Fork, ForkArgs};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const CAPABILITIES: [&str; 14] = [
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

/// A default container with a filter as long as RuntimeDefault's.
fn spec() -> Value {
    let numbered: Vec<String> = std::fs::read_to_string("/proc/kallsyms")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split(' ').nth(2)?.strip_prefix("__x64_sys_").map(str::to_owned))
        .filter(|name| !["kexec_load", "bpf", "init_module", "reboot"].contains(&name.as_str()))
        .collect();
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "env": ["PATH=/bin"], "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}, {"type": "cgroup"}],
            "resources": {
                "memory": {"limit": 268_435_456}, "pids": {"limit": 100},
                "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "access": "rwm"}],
            },
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": numbered, "action": "SCMP_ACT_ALLOW"}],
            },
        },
    })
}

fn image(directory: &Path) -> Result<PathBuf> {
    let root = directory.join("image");
    for name in ["bin", "proc", "sys", "dev", "etc"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", root.join("bin/true"))?;
    Ok(root)
}

/// The keeper as it is shipped: static, optimised for size.
fn build_keeper() -> Result<PathBuf> {
    let target = PathBuf::from(std::env::current_exe()?.ancestors().nth(3).unwrap_or(Path::new("target")));
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", triple.to_uppercase().replace('-', "_"));
    let status = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--quiet",
            "--locked",
            "--package",
            "keeper",
            "--bin",
            "keeper",
            "--target",
            &triple,
        ])
        .arg("--target-dir")
        .arg(target.join("static"))
        .env(flags, "-C target-feature=+crt-static -C relocation-model=static")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .status()?;
    if !status.success() {
        return Err("building the keeper failed".into());
    }
    Ok(target.join("static").join(triple).join("release/keeper"))
}

/// clone3 with these namespaces and exec, to the end.
fn bare(namespaces: u64) -> Result<Duration> {
    let (program, argv) = (std::ffi::CString::new("/bin/busybox")?, [c"true".to_owned()]);
    let start = Instant::now();
    match kernel::process::fork(&ForkArgs { namespaces, cgroup: None })? {
        Fork::Child => {
            let error = kernel::process::exec(&program, &argv, &[]);
            kernel::process::exit_now(error.errno.raw_os_error())
        }
        Fork::Parent { pid, .. } => {
            kernel::process::wait_for(pid)?;
        }
    }
    Ok(start.elapsed())
}

fn runtime(program: &str, directory: &Path, id: &str) -> Result<Duration> {
    let start = Instant::now();
    let status = Command::new(program)
        .arg("--root")
        .arg(directory.join(format!("{program}-state")))
        .args(["run", "--bundle"])
        .arg(directory.join("bundle"))
        .arg(id)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let took = start.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{program} run: {status}").into()) }
}

struct Keeper {
    client: Client,
    child: std::process::Child,
}

fn sandbox(program: &Path, directory: &Path, name: &str) -> Result<(Keeper, Duration)> {
    let plan = SandboxPlan {
        pod: PodRef { namespace: "bench".into(), name: name.into(), uid: name.into() },
        hostname: Some("bench".into()),
        net: NamespaceMode::Own,
        ipc: NamespaceMode::Own,
        uts: NamespaceMode::Own,
        pid: PidMode::PerContainer,
        cgroup: format!("cofferdam-bench-{}/{name}", std::process::id()).into(),
        resources: None,
        sysctls: Default::default(),
        shm_size: None,
        socket: directory.join(format!("{name}.sock")),
        state_dir: directory.join(name),
    };
    let start = Instant::now();
    let (child, stream) = keeper::client::spawn(Executable::Path(program), &plan)?;
    let mut client = Client::new(stream);
    client.reply(0)?;
    let took = start.elapsed();
    client.request(Request::Subscribe, &[])?;
    Ok((Keeper { client, child }, took))
}

/// To its exec (verified), and to its end told.
fn container(keeper: &mut Keeper, directory: &Path, at: usize) -> Result<(Duration, Duration)> {
    let name = format!("c{at}");
    let upper = directory.join(&name);
    std::fs::create_dir_all(&upper)?;
    let plan = ContainerPlan {
        name: name.clone(),
        attempt: 0,
        spec: serde_json::from_value(spec_once())?,
        rootfs: Rootfs::Overlay {
            lower: vec![directory.join("image")],
            upper: upper.join("upper"),
            work: upper.join("work"),
        },
        log_path: Some(directory.join("log")),
        tty: false,
        stdin: false,
        stdin_once: false,
        termination_log: None,
    };
    let start = Instant::now();
    keeper.client.request(Request::Run(Box::new(plan)), &[])?;
    let started = start.elapsed();
    loop {
        if let Event::Exited(state) = keeper.client.event()? {
            assert_eq!(state.container.name, name);
            break;
        }
    }
    let ended = start.elapsed();
    keeper.client.request(Request::Remove { container: ContainerId { name, attempt: 0 } }, &[])?;
    Ok((started, ended))
}

fn spec_once() -> Value {
    static SPEC: std::sync::OnceLock<Value> = std::sync::OnceLock::new();
    SPEC.get_or_init(spec).clone()
}

fn resident(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or("?").replace("  ", "");
    format!("{} {}", line("Rss:"), line("Pss:"))
}

fn main() -> Result<()> {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        return Err("needs root and /bin/busybox (package busybox-static)".into());
    }
    let rounds: usize = std::env::args().nth(1).map_or(Ok(40), |text| text.parse())?;
    let directory = PathBuf::from(format!("/tmp/cofferdam-bench-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("bundle"))?;
    let root = image(&directory)?;
    let mut bundle = spec_once();
    bundle["root"]["path"] = json!(root);
    bundle["linux"]["cgroupsPath"] = json!(format!("/cofferdam-bench-{}/runtime", std::process::id()));
    std::fs::write(directory.join("bundle/config.json"), bundle.to_string())?;
    let program = build_keeper()?;

    let mut rows: Vec<(&str, Vec<Duration>)> = [
        "bare clone3 + exec",
        "bare, pid + mnt + ipc + uts + cgroup namespaces",
        "keeper: pod sandbox (spawn to ready)",
        "keeper: container to its verified exec",
        "keeper: container to its end",
        "keeper: next container at once, to its exec",
        "runc run",
        "crun run",
    ]
    .map(|name| (name, Vec::new()))
    .into();
    let mut missing = Vec::new();
    let mut memory = String::new();
    for round in 0..rounds {
        rows[0].1.push(bare(0)?);
        rows[1].1.push(bare(0x2000_0000 | 0x2_0000 | 0x800_0000 | 0x400_0000 | 0x200_0000)?);
        let (mut keeper, took) = sandbox(&program, &directory, &format!("pod{round}"))?;
        rows[2].1.push(took);
        let (started, ended) = container(&mut keeper, &directory, 2 * round)?;
        rows[3].1.push(started);
        rows[4].1.push(ended);
        rows[5].1.push(container(&mut keeper, &directory, 2 * round + 1)?.0);
        memory = resident(keeper.child.id());
        keeper.client.request(Request::Stop, &[])?;
        keeper.child.wait()?;
        for (row, name) in [(6, "runc"), (7, "crun")] {
            if !missing.contains(&name) {
                match runtime(name, &directory, &format!("bench-{}-{round}", std::process::id())) {
                    Ok(took) => rows[row].1.push(took),
                    Err(error) => {
                        eprintln!("SKIPPED {name}: {error}");
                        missing.push(name);
                    }
                }
            }
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{rounds} rounds, interleaved; ms; ratio of medians to the keeper's container to its end")?;
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    let reference = median(&rows[4].1).as_secs_f64();
    for (name, times) in rows.iter().filter(|(_, times)| !times.is_empty()) {
        let min = times.iter().min().copied().unwrap_or_default().as_secs_f64() * 1e3;
        let middle = median(times).as_secs_f64();
        writeln!(out, "{name:<50} min {min:7.2}  median {:7.2}  x{:.2}", middle * 1e3, middle / reference)?;
    }
    writeln!(out, "keeper at rest, one pod: {memory}")?;
    std::fs::remove_dir_all(&directory)?;
    let hierarchies = std::rc::Rc::new(kernel::cgroup::Hierarchies::find()?);
    let path = format!("cofferdam-bench-{}", std::process::id());
    kernel::cgroup::Cgroup::new(hierarchies, Path::new(&path))?.remove()?;
    Ok(())
}
