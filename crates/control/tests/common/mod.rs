//! A control process within the test: its own directory, a random port, both kinds of sockets.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    fs::{self, File},
    io::Write as _,
    net::TcpListener,
    os::unix::{fs::OpenOptionsExt, net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Output},
};

pub struct Control {
    dir: tempfile::TempDir,
    // Dropped first: ends the server.
    runtime: Option<tokio::runtime::Runtime>,
}

/// What a control process in `dir` is given; for the first start there or a later one.
pub fn config(dir: &Path) -> control::Config {
    fs::create_dir_all(dir.join("run/nodes/node-1")).unwrap();
    fs::create_dir_all(dir.join("control")).unwrap();
    let listen = |name: &str| {
        let path = dir.join(name);
        if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        UnixListener::bind(path).unwrap()
    };
    let kubeconfig: File =
        fs::OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join("kubeconfig")).unwrap();
    control::Config {
        data_dir: dir.join("control"),
        run_dir: dir.join("run"),
        kubeconfig,
        tls: TcpListener::bind("127.0.0.1:0").unwrap(),
        tls_for_pods: None,
        audit: Some(audit(dir)),
        admin: listen("run/control.sock"),
        nodes: vec![("node-1".into(), listen("run/nodes/node-1/control.sock"))],
        service_cidrs: vec!["10.96.0.0/16".into()],
        cluster_id: "c0ffee".into(),
        name_service: None,
        pod_security: Default::default(),
    }
}

fn audit(dir: &Path) -> std::os::fd::OwnedFd {
    fs::create_dir_all(dir.join("audit")).unwrap();
    File::open(dir.join("audit")).unwrap().into()
}

impl Control {
    pub fn start() -> Control {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.spawn(async move {
            let error = control::run(config).await;
            eprintln!("control ended: {error:?}");
        });
        let control = Control { dir, runtime: Some(runtime) };
        // A connection waits in the backlog until the server accepts, so one request is enough to know that it serves.
        let health = control.curl_admin(&["http://c/readyz"]);
        assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
        control
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_with(arguments, "", &[])
    }

    /// kubectl with `input` on its stdin and these environment variables.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Output {
        let mut child = Command::new("kubectl")
            .args(arguments)
            .env("KUBECONFIG", self.path("kubeconfig"))
            .env("HOME", self.dir.path())
            .envs(environment.iter().copied())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// kubectl's output, which must be a success.
    pub fn ok(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let out = self.kubectl(&arguments);
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "kubectl {line}\n{stdout}{stderr}");
        format!("{stdout}{stderr}")
    }

    /// What kubectl says when it is refused.
    pub fn refused(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let out = self.kubectl(&arguments);
        assert!(
            !out.status.success(),
            "kubectl {line} was not refused: {}",
            String::from_utf8_lossy(&out.stdout)
        );
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    /// kubectl reading `input`.
    pub fn feed(&self, line: &str, input: &str) -> Result<String, String> {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let out = self.kubectl_with(&arguments, input, &[]);
        let text =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        if out.status.success() { Ok(text) } else { Err(text) }
    }

    fn curl_admin(&self, arguments: &[&str]) -> Output {
        Command::new("curl")
            .args(["-sS", "--fail-with-body", "--max-time", "20", "--unix-socket"])
            .arg(self.path("run/control.sock"))
            .args(arguments)
            .output()
            .unwrap()
    }

    /// As [`curl`](Self::curl), also where the server refuses.
    pub fn curl_any(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_slice(&self.curl_admin(arguments).stdout).unwrap()
    }

    /// curl over the administrator's socket: the body, which is JSON.
    pub fn curl(&self, arguments: &[&str]) -> serde_json::Value {
        let out = self.curl_admin(arguments);
        serde_json::from_slice(&out.stdout).unwrap_or_else(|error| {
            panic!(
                "{arguments:?}: {error}: {}{}",
                String::from_utf8_lossy(&out.stdout),
                String::from_utf8_lossy(&out.stderr)
            )
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Whether a program is there; says on the terminal that the test is skipped where it is not.
pub fn has(program: &str, test: &str) -> bool {
    let there =
        Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if !there {
        testkit::skipped(test, format_args!("{program} is not installed"));
    }
    there
}

/// A manifest that people could have.
pub const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: nginx, ports: [{containerPort: 80}]}
";

/// Every part stands in the text.
#[track_caller]
pub fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}
