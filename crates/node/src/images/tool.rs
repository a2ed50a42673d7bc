//! Images that the program itself brings along: one small static program (the `toolbox` crate) under several names, so
//! that the demo and the tests need no registry. They are built in memory as docker archives and loaded like any other.

use std::borrow::Cow;

use serde_json::json;

use super::{blob, name::ImageRef};
use crate::{
    dns_image::{DNS, DNS_TAG},
    toolbox_image::TOOLBOX,
};

/// The tool image's name in pods.
pub const TOOL_IMAGE: &str = "cofferdam/tool:latest";

/// The names under which the program acts as that command: links in `/bin`.
const COMMANDS: &[&str] = &[
    "alloc",
    "cat",
    "connect",
    "exit",
    "false",
    "fork-bomb",
    "id",
    "ipc",
    "kill",
    "ls",
    "mklink",
    "names",
    "pids",
    "read",
    "resolve",
    "serve",
    "setuid-test",
    "show",
    "shm",
    "signal-echo",
    "sleep",
    "true",
    "write",
];

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/tool\nguest:x:405:100:guest:/dev/null:/sbin/nologin\n\
nginx:x:101:101:nginx:/nonexistent:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &[u8] = b"root:x:0:\nusers:x:100:\nnginx:x:101:nginx\nnogroup:x:65533:\nnobody:x:65534:\n";

/// A docker archive of [`TOOL_IMAGE`]: entry point `/bin/tool`, which sleeps when it gets no arguments.
pub fn tool_image() -> Vec<u8> {
    archive(TOOL_IMAGE, &["/bin/tool"], &["sleep", "infinity"])
}

/// A docker archive that stands in for a well-known image, for manifests that name it where there is no registry:
/// `nginx` answers HTTP on port 80, `busybox` has the everyday commands. None for every other name.
pub fn stand_in(name: &str) -> Option<Vec<u8>> {
    match name {
        "nginx" => Some(archive("nginx:latest", &["/bin/serve"], &["80"])),
        "busybox" => Some(archive("busybox:latest", &[], &["/bin/sleep", "infinity"])),
        _ => None,
    }
}

/// The name of the name server's image: it differs where the program differs.
pub fn dns_image_name() -> String {
    format!("cofferdam/dns:{DNS_TAG}")
}

/// An image that the program holds by itself: it is neither loaded by hand nor pulled, but there when a pod asks for it.
pub(super) fn built_in(reference: &ImageRef) -> Option<Vec<u8>> {
    let name = dns_image_name();
    ImageRef::parse(&name).ok().filter(|own| own == reference)?;
    let mut tar = Tar::default();
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "var"] {
        tar.entry(&format!("{directory}/"), b'5', 0o755, "", &[]);
    }
    tar.file("bin/cofferdam-dns", 0o755, DNS);
    tar.file("etc/passwd", 0o644, b"dns:x:65532:65532::/:/sbin/nologin\n");
    Some(archive_of(
        &name,
        tar.finish(),
        json!({ "Entrypoint": ["/bin/cofferdam-dns"], "User": "65532:65532" }),
    ))
}

fn archive(name: &str, entrypoint: &[&str], command: &[&str]) -> Vec<u8> {
    let mut process = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": command,
        "WorkingDir": "/",
    });
    if !entrypoint.is_empty() {
        process["Entrypoint"] = json!(entrypoint);
    }
    archive_of(name, layer(), process)
}

fn archive_of(name: &str, layer: Vec<u8>, process: serde_json::Value) -> Vec<u8> {
    let diff_id = blob::digest(&layer);
    let config = json!({
        "architecture": super::store::ARCHITECTURE,
        "os": "linux",
        "config": process,
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created_by": "cofferdam" }],
    })
    .to_string();
    let config_name = format!("{}.json", blob::digest(config.as_bytes()).trim_start_matches("sha256:"));
    let manifest =
        json!([{ "Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"] }]).to_string();
    let mut tar = Tar::default();
    tar.file(&config_name, 0o644, config.as_bytes());
    tar.file("layer.tar", 0o644, &layer);
    tar.file("manifest.json", 0o644, manifest.as_bytes());
    tar.finish()
}

fn layer() -> Vec<u8> {
    let mut tar = Tar::default();
    for (directory, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("var", 0o755),
        ("var/log", 0o755),
        ("var/run", 0o755),
    ] {
        tar.entry(&format!("{directory}/"), b'5', mode, "", &[]);
    }
    tar.file("bin/tool", 0o755, TOOLBOX);
    // Its own file, owned by root and setuid: what allowPrivilegeEscalation: false must make harmless.
    tar.file("bin/setuid-tool", 0o4755, TOOLBOX);
    for command in COMMANDS {
        tar.entry(&format!("bin/{command}"), b'2', 0o777, "tool", &[]);
    }
    tar.file("etc/passwd", 0o644, PASSWD);
    tar.file("etc/group", 0o644, GROUP);
    tar.finish()
}

/// Writes a ustar archive; names are ours and short.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, b'0', mode, "", content);
    }

    fn entry(&mut self, name: &str, kind: u8, mode: u32, link: &str, content: &[u8]) {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, text: Cow<'_, str>| {
            for (to, from) in header.iter_mut().skip(at).zip(text.bytes()) {
                *to = from;
            }
        };
        put(0, name.into());
        put(100, format!("{mode:07o}").into());
        put(108, "0000000".into());
        put(116, "0000000".into());
        put(124, format!("{:011o}", content.len()).into());
        // A fixed time: the same program gives the same image.
        put(136, "00000000000".into());
        put(148, "        ".into());
        put(156, char::from(kind).to_string().into());
        put(157, link.into());
        put(257, "ustar\u{0}00".into());
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        for (to, from) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
            *to = from;
        }
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
