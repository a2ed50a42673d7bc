//! Images for tests, made in memory: layers entry by entry (honest and hostile ones), archives in both formats, and a
//! usable image made of the machine's static busybox.

use std::{fmt::Write, io, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// `sha256:<hex>`.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::from("sha256:"), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String");
        text
    })
}

/// One layer's tar in the making. Names are written as they are given, so that a layer may be hostile.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Anything: name and link target are copied byte by byte.
    pub fn entry(mut self, name: &str, kind: EntryType, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        self.put(header, name, link, content)
    }

    fn put(&mut self, mut header: Header, name: &str, link: &str, content: &[u8]) -> Self {
        let old = header.as_old_mut();
        old.name.fill(0);
        old.linkname.fill(0);
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).expect("writing to memory");
        Self(std::mem::replace(&mut self.0, tar::Builder::new(Vec::new())))
    }

    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(name, EntryType::Directory, mode, "", b"")
    }

    pub fn file(self, name: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.entry(name, EntryType::Regular, mode, "", content.as_ref())
    }

    /// A file or directory that belongs to somebody.
    pub fn owned(mut self, name: &str, mode: u32, (uid, gid): (u64, u64), content: Option<&[u8]>) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(if content.is_some() { EntryType::Regular } else { EntryType::Directory });
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(1_000_000_000);
        header.set_size(content.map_or(0, <[u8]>::len) as u64);
        self.put(header, name, "", content.unwrap_or_default())
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, 0o777, target, b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Link, 0o644, target, b"")
    }

    /// Hides a file or directory of the layers below.
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
        let separator = if parent.is_empty() { "" } else { "/" };
        self.file(&format!("{parent}{separator}.wh.{name}"), 0o644, "")
    }

    /// Hides all that the layers below have in a directory.
    pub fn opaque(self, directory: &str) -> Self {
        self.file(&format!("{directory}/.wh..wh..opq"), 0o644, "")
    }

    /// A pax header for the next entry.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).expect("writing to memory");
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("writing to memory")
    }
}

/// An image in the making. Layers lowest first.
#[derive(Clone)]
pub struct Image {
    pub name: String,
    pub layers: Vec<Vec<u8>>,
    /// The `config` object: `Entrypoint`, `Cmd`, `Env`, `User`, …
    pub config: Value,
}

impl Image {
    pub fn new(name: &str, config: Value) -> Self {
        Self { name: name.to_owned(), layers: Vec::new(), config }
    }

    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer.finish());
        self
    }

    /// The configuration document.
    pub fn config_json(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
        .to_string()
        .into_bytes()
    }

    /// As `docker save` writes it.
    pub fn docker_archive(&self) -> Vec<u8> {
        let mut tar = Layer::new();
        let names: Vec<String> = (0..self.layers.len()).map(|at| format!("{at}/layer.tar")).collect();
        for (name, layer) in names.iter().zip(&self.layers) {
            tar = tar.file(name, 0o644, layer);
        }
        let manifest = json!([{ "Config": "config.json", "RepoTags": [self.name], "Layers": names }]);
        tar.file("config.json", 0o644, self.config_json())
            .file("manifest.json", 0o644, manifest.to_string())
            .finish()
    }

    /// An OCI layout's documents and blobs by path, layers packed by `pack`.
    pub fn oci_layout(&self, media_type: &str, pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
        let mut blob = |content: Vec<u8>| {
            let name = digest(&content);
            let size = content.len();
            files.push((format!("blobs/{}", name.replace(':', "/")), content));
            (name, size)
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| {
                let (name, size) = blob(pack(layer));
                json!({ "mediaType": media_type, "digest": name, "size": size })
            })
            .collect();
        let (name, size) = blob(self.config_json());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": name, "size": size },
            "layers": layers,
        });
        let (name, size) = blob(manifest.to_string().into_bytes());
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": name,
                "size": size,
                "annotations": { "org.opencontainers.image.ref.name": self.name },
            }],
        });
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files
    }

    /// The layout as a tar with plain layers.
    pub fn oci_archive(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in self.oci_layout("application/vnd.oci.image.layer.v1.tar", <[u8]>::to_vec) {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, &content[..]).expect("writing to memory");
        }
        tar.into_inner().expect("writing to memory")
    }
}

/// An image of the machine's static busybox with users, a setuid program, a file that an upper layer hides, and a
/// directory that one empties. Runs a shell. None where `/bin/busybox` is missing.
///
/// # Errors
/// What reading the program says.
pub fn busybox(name: &str) -> io::Result<Option<Image>> {
    let program = match std::fs::read(Path::new("/bin/busybox")) {
        Ok(program) => program,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut base = Layer::new();
    for (directory, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("var", 0o755),
    ] {
        base = base.dir(&format!("{directory}/"), mode);
    }
    base = base.file("bin/busybox", 0o755, &program);
    for applet in [
        "cat", "chmod", "chown", "date", "dd", "df", "echo", "env", "false", "find", "grep", "head",
        "hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv", "nc", "ping", "printf",
        "ps", "pwd", "rm", "sed", "seq", "sh", "sleep", "stat", "stty", "tail", "test", "touch", "true",
        "tty", "umount", "wc", "wget",
    ] {
        base = base.symlink(&format!("bin/{applet}"), "busybox");
    }
    let users = Layer::new()
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000:worker:/home/worker:/bin/sh\n",
        )
        .file("etc/group", 0o644, "root:x:0:\nworker:x:1000:\naudio:x:29:worker\nvideo:x:44:worker\n")
        .owned("home/worker", 0o750, (1000, 1000), None)
        .file("bin/setuid-id", 0o4755, &program)
        .file("hidden", 0o644, "of a lower layer\n")
        .dir("emptied", 0o755)
        .file("emptied/old", 0o644, "of a lower layer\n");
    let top = Layer::new().whiteout("hidden").dir("emptied", 0o755).opaque("emptied").file(
        "emptied/new",
        0o644,
        "new\n",
    );
    Ok(Some(
        Image::new(
            name,
            json!({
                "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
                "Cmd": ["sh"],
                "WorkingDir": "/",
            }),
        )
        .layer(base)
        .layer(users)
        .layer(top),
    ))
}
