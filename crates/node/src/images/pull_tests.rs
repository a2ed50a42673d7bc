//! Pulling from a real registry: Debian's docker-registry on loopback, filled by plain HTTP.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use serde_json::{Value, json};
use testkit::images::{self as make, Image as Made, Layer};

use super::*;

struct Registry {
    process: Child,
    address: String,
    dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Registry {
    fn start(test: &str) -> Option<Self> {
        if !testkit::is_root(test) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        // Another test may take the port in between: then this one is tried again with the next.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = format!("127.0.0.1:{port}");
            let config = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
                dir.path().join("data").display()
            );
            fs::write(dir.path().join("config.yml"), config).unwrap();
            let spawned = Command::new("docker-registry")
                .arg("serve")
                .arg(dir.path().join("config.yml"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let Ok(mut process) = spawned else {
                testkit::skipped(test, "docker-registry is not installed");
                return None;
            };
            for _ in 0..200 {
                if TcpStream::connect(&address).is_ok() {
                    return Some(Self { process, address, dir });
                }
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            process.kill().ok();
            process.wait().ok();
        }
        panic!("docker-registry does not start");
    }

    fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    /// Stores a blob and gives its descriptor.
    fn blob(&self, repository: &str, kind: &str, content: &[u8]) -> Value {
        let (code, answer) = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
        assert_eq!(code, 202, "{answer}");
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
        let path = location.split_once(&self.address).unwrap().1;
        let digest = make::digest(content);
        let (code, answer) =
            self.request("PUT", &format!("{path}&digest={digest}"), "application/octet-stream", content);
        assert_eq!(code, 201, "{answer}");
        json!({ "mediaType": kind, "digest": digest, "size": content.len() })
    }

    fn manifest(&self, repository: &str, tag: &str, manifest: &Value) -> Value {
        let kind = manifest["mediaType"].as_str().unwrap();
        let content = manifest.to_string();
        let (code, answer) =
            self.request("PUT", &format!("/v2/{repository}/manifests/{tag}"), kind, content.as_bytes());
        assert_eq!(code, 201, "{answer}");
        json!({ "mediaType": kind, "digest": make::digest(content.as_bytes()), "size": content.len() })
    }

    fn push(&self, repository: &str, tag: &str, image: &Made) -> Value {
        let layers: Vec<Value> = image
            .layers
            .iter()
            .map(|layer| self.blob(repository, "application/vnd.oci.image.layer.v1.tar", layer))
            .collect();
        let config = self.blob(repository, "application/vnd.oci.image.config.v1+json", &image.config_json());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        self.manifest(repository, tag, &manifest)
    }

    fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    fn store(&self, name: &str) -> ImageStore {
        ImageStore::open(self.dir.path().join(name)).unwrap()
    }
}

fn app(content: &str) -> Made {
    Made::new("unused", json!({ "Cmd": [content] }))
        .layer(Layer::new().file("base", 0o644, vec![b'b'; 200_000]))
        .layer(Layer::new().file("content", 0o644, content))
}

async fn ensure(
    store: &ImageStore,
    name: &str,
    policy: PullPolicy,
) -> Result<(Image, Vec<PullEvent>), EnsureError> {
    let events = Mutex::new(Vec::new());
    let image = store.ensure(name, policy, |event| events.lock().unwrap().push(event)).await?;
    Ok((image, events.into_inner().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_decide_when_a_registry_is_asked() {
    let Some(registry) = Registry::start("images: pull policies") else { return };
    let store = registry.store("store");
    let name = format!("{}/team/app:1", registry.address);
    let first = registry.push("team/app", "1", &app("first"));
    let (image, events) = ensure(&store, &name, PullPolicy::IfNotPresent).await.unwrap();
    assert_eq!(image.file("content", 99).unwrap().unwrap(), b"first");
    assert!(!image.pinned);
    assert_eq!(image.names, std::slice::from_ref(&name));
    assert_eq!(
        image.image_id(),
        format!("{}/team/app@{}", registry.address, first["digest"].as_str().unwrap())
    );
    assert_eq!(events.first(), Some(&PullEvent::Resolving));
    let Some(PullEvent::Layers { count: 2, bytes }) = events.get(1) else { panic!("{events:?}") };
    assert!(events.contains(&PullEvent::Downloaded { bytes: *bytes, of: *bytes }), "{events:?}");
    assert_eq!(events.last(), Some(&PullEvent::Unpacking));

    registry.push("team/app", "1", &app("second"));
    let (image, events) = ensure(&store, &name, PullPolicy::IfNotPresent).await.unwrap();
    assert_eq!((image.file("content", 99).unwrap().unwrap(), events.len()), (b"first".to_vec(), 0));
    let (image, _) = ensure(&store, &name, PullPolicy::Always).await.unwrap();
    assert_eq!(image.file("content", 99).unwrap().unwrap(), b"second");
    // By digest the first is still there, and needs no registry.
    let by_digest = format!("{}/team/app@{}", registry.address, first["digest"].as_str().unwrap());
    let (image, events) = ensure(&store, &by_digest, PullPolicy::Never).await.unwrap();
    assert_eq!((image.file("content", 99).unwrap().unwrap(), events.len()), (b"first".to_vec(), 0));
    let other = registry.store("other");
    let (image, _) = ensure(&other, &by_digest, PullPolicy::IfNotPresent).await.unwrap();
    assert_eq!(image.file("content", 99).unwrap().unwrap(), b"first");
    assert!(image.names.is_empty());

    // Loaded by hand, the name is nobody else's.
    let mut mine = app("mine");
    mine.name = name.clone();
    store.load_reader(&mine.docker_archive()[..]).unwrap();
    let (image, events) = ensure(&store, &name, PullPolicy::Always).await.unwrap();
    assert!(image.pinned && events.is_empty());
    assert_eq!(image.file("content", 99).unwrap().unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_gives_this_machines_image() {
    let Some(registry) = Registry::start("images: index") else { return };
    let ours = registry.push("multi", "ours", &app("ours"));
    let theirs = registry.push("multi", "theirs", &app("theirs"));
    let index = |entries: &[(&Value, &str)]| {
        let manifests: Vec<Value> = entries
            .iter()
            .map(|(descriptor, architecture)| {
                let mut entry = (*descriptor).clone();
                entry["platform"] = json!({ "os": "linux", "architecture": architecture });
                entry
            })
            .collect();
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        })
    };
    let both = index(&[(&theirs, "s390x"), (&ours, store::ARCHITECTURE)]);
    let descriptor = registry.manifest("multi", "latest", &both);
    let store = registry.store("store");
    let (image, _) =
        ensure(&store, &format!("{}/multi", registry.address), PullPolicy::Always).await.unwrap();
    assert_eq!(image.file("content", 99).unwrap().unwrap(), b"ours");
    // The repository's digest is the index', as containerd reports it.
    assert!(image.image_id().ends_with(descriptor["digest"].as_str().unwrap()));

    registry.manifest("multi", "foreign", &index(&[(&theirs, "s390x")]));
    let name = format!("{}/multi:foreign", registry.address);
    let error = ensure(&store, &name, PullPolicy::Always).await.unwrap_err();
    assert!(error.to_string().contains("no match for platform in manifest"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_told_in_kubernetes_words_and_leaves_nothing() {
    let Some(registry) = Registry::start("images: pull failures") else { return };
    let store = registry.store("store");
    let image = app("good");
    registry.push("app", "1", &image);
    // The registry's disk rots.
    let digest = make::digest(&image.layers[1]);
    let mut content = fs::read(registry.blob_file(&digest)).unwrap();
    content[600] ^= 1;
    fs::write(registry.blob_file(&digest), content).unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (name, expect) in [
        (format!("{}/app:2", registry.address), format!("{0}/app:2: not found", registry.address)),
        (format!("{}/absent", registry.address), "absent:latest: not found".to_owned()),
        (format!("{}/app:1", registry.address), digest),
        (format!("{closed}/app"), "refused".to_owned()),
    ] {
        let error = ensure(&store, &name, PullPolicy::IfNotPresent).await.expect_err(&name);
        assert_eq!(error.reason(), "ErrImagePull", "{name}");
        let text = error.to_string();
        assert!(text.starts_with("failed to pull and unpack image \""), "{name}: {text}");
        assert!(text.contains(&expect), "{name}: {text}");
        assert!(store.list().unwrap().is_empty(), "{name}");
        for sub in ["staging", "layers"] {
            assert_eq!(fs::read_dir(store.dir().join(sub)).unwrap().count(), 0, "{name}: {sub}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_of_one_name_at_once_are_one() {
    let Some(registry) = Registry::start("images: pulls at once") else { return };
    registry.push("app", "1", &app("once"));
    let name = format!("{}/app:1", registry.address);
    let dir = registry.dir.path().join("store");
    let pulls = (0..6).map(|_| {
        // A handle each, as the agents of several nodes have.
        let (store, name) = (ImageStore::open(&dir).unwrap(), name.clone());
        tokio::spawn(async move { ensure(&store, &name, PullPolicy::IfNotPresent).await.unwrap().1.len() })
    });
    let events: Vec<usize> =
        futures::future::join_all(pulls).await.into_iter().map(|result| result.unwrap()).collect();
    assert_eq!(events.iter().filter(|count| **count > 0).count(), 1, "{events:?}");
}
