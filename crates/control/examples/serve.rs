//! A control process to try things with: `cargo run -p control --example serve -- DIR` serves from a new or known directory on
//! a random port of 127.0.0.1, with `DIR/kubeconfig` and `DIR/run/control.sock`.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::OpenOptionsExt, net::UnixListener},
    path::PathBuf,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: serve DIR")?);
    fs::create_dir_all(dir.join("run/nodes/node-1"))?;
    fs::create_dir_all(dir.join("control"))?;
    let listen = |name: &str| {
        let path = dir.join(name);
        drop(fs::remove_file(&path));
        UnixListener::bind(path)
    };
    let kubeconfig =
        fs::OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join("kubeconfig"))?;
    let config = control::Config {
        data_dir: dir.join("control"),
        run_dir: dir.join("run"),
        kubeconfig,
        tls: TcpListener::bind("127.0.0.1:0")?,
        tls_for_pods: None,
        audit: None,
        admin: listen("run/control.sock")?,
        nodes: vec![("node-1".into(), listen("run/nodes/node-1/control.sock")?)],
        service_cidrs: vec!["10.96.0.0/16".into()],
        cluster_id: "example".into(),
        name_service: None,
        pod_security: Default::default(),
    };
    println!("KUBECONFIG={}", dir.join("kubeconfig").display());
    control::run_blocking(config)?;
    Ok(())
}
