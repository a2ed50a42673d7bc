//! The store against archives made in memory. Unpacking sets owners, so all of these need root.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use ::tar::EntryType;
use serde_json::json;
use testkit::images::{self as make, Image as Made, Layer};

use super::{archive::LoadError, store::StoreError, *};

/// A store of its own, removed at the end. None without root, said so.
pub(super) struct Fixture {
    pub store: ImageStore,
    dir: tempfile::TempDir,
}

pub(super) fn fixture(test: &str) -> Option<Fixture> {
    if !testkit::is_root(test) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("images")).unwrap();
    Some(Fixture { store, dir })
}

impl Fixture {
    fn load(&self, image: &Made) -> Result<Vec<ImageRef>, LoadError> {
        self.store.load_reader(&image.docker_archive()[..])
    }

    /// Loads an image of these layers, and gives their directories, lowest first.
    pub fn layers(&self, layers: impl IntoIterator<Item = Layer>) -> Result<Vec<PathBuf>, LoadError> {
        let image = layers.into_iter().fold(Made::new("test", json!({})), Made::layer);
        self.load(&image)?;
        let mut layers = self.store.resolve("test").unwrap().unwrap().layers;
        layers.reverse();
        Ok(layers)
    }

    fn entries(&self, sub: &str) -> usize {
        fs::read_dir(self.store.dir().join(sub)).unwrap().count()
    }

    /// Nothing named, nothing staged, no layer, no blob.
    pub fn assert_empty(&self, case: &str) {
        assert!(self.store.list().unwrap().is_empty(), "{case}: an image appeared");
        for sub in ["staging", "layers", "blobs/sha256"] {
            assert_eq!(self.entries(sub), 0, "{case}: something was left in {sub}");
        }
    }
}

#[test]
fn a_loaded_image_is_found_under_every_spelling_of_its_name_and_pinned() {
    let Some(fixture) = fixture("images: names") else { return };
    let names = fixture.store.load_reader(&stand_in("nginx").unwrap()[..]).unwrap();
    assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["docker.io/library/nginx:latest"]);
    for name in
        ["nginx", "nginx:latest", "docker.io/nginx", "library/nginx", "docker.io/library/nginx:latest"]
    {
        let image = fixture.store.resolve(name).unwrap().expect(name);
        assert!(image.pinned, "{name}");
        assert_eq!(image.layers.len(), 1);
    }
    assert!(fixture.store.resolve("nginx:1.25").unwrap().is_none());
    let image = fixture.store.resolve("nginx").unwrap().unwrap();
    assert_eq!(fixture.store.resolve(&image.id).unwrap().unwrap().id, image.id);
    let process = image.config.config().as_ref().unwrap();
    assert_eq!(process.entrypoint().as_ref().unwrap(), &["/bin/serve"]);
    assert_eq!(process.cmd().as_ref().unwrap(), &["80"]);
    assert!(String::from_utf8(image.passwd().unwrap().unwrap()).unwrap().contains("guest:x:405:100"));
    let listed = fixture.store.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].names[0].pinned);
}

#[test]
fn the_tool_image_runs_and_is_the_same_every_time() {
    let Some(fixture) = fixture("images: tool image") else { return };
    assert_eq!(tool_image(), tool_image());
    fixture.store.load_reader(&tool_image()[..]).unwrap();
    let image = fixture.store.resolve(TOOL_IMAGE).unwrap().unwrap();
    let run = |args: &[&str]| {
        let output = Command::new("chroot").arg(&image.layers[0]).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&["/bin/exit", "7"]).0, Some(7));
    assert_eq!(run(&["/bin/tool", "echo", "a", "b"]), (Some(0), "a b\n".to_owned()));
    assert_eq!(run(&["/bin/tool", "nonsense"]).0, Some(64));
    assert!(run(&["/bin/ls", "/bin/setuid-tool"]).1.starts_with("-4755 0 0"));
}

#[tokio::test]
async fn a_pinned_image_is_never_pulled_and_never_means_never() {
    let Some(fixture) = fixture("images: policies") else { return };
    fixture.store.load_reader(&stand_in("busybox").unwrap()[..]).unwrap();
    let ensure = |name: &'static str, policy| {
        let store = fixture.store.clone();
        async move { store.ensure(name, policy, |event| panic!("asked a registry: {event:?}")).await }
    };
    for policy in [PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never] {
        assert!(ensure("busybox", policy).await.unwrap().pinned);
    }
    let error = ensure("absent", PullPolicy::Never).await.unwrap_err();
    assert_eq!(error.reason(), "ErrImageNeverPull");
    assert_eq!(error.to_string(), "Container image \"absent\" is not present with pull policy of Never");
    let error = ensure("Wrong", PullPolicy::Always).await.unwrap_err();
    assert_eq!(error.reason(), "InvalidImageName");
    assert_eq!(
        error.to_string(),
        "Failed to apply default image tag \"Wrong\": couldn't parse image name \"Wrong\": invalid reference format: \
         repository name (library/Wrong) must be lowercase"
    );
}

#[test]
fn both_archive_formats_and_all_packings_give_the_same_image() {
    let Some(fixture) = fixture("images: formats") else { return };
    let image = Made::new("app:1", json!({ "User": "7:8" }))
        .layer(Layer::new().dir("etc", 0o755).file("etc/a", 0o640, "a\n"))
        .layer(Layer::new().dir("etc", 0o755).file("etc/b", 0o600, "b\n"));
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    // Two frames with a skippable one between, as zstd:chunked layers have them.
    let zstd = |bytes: &[u8]| {
        let (first, second) = bytes.split_at(700);
        let pack = |part: &[u8]| {
            ruzstd::encoding::compress_to_vec(part, ruzstd::encoding::CompressionLevel::Fastest)
        };
        [pack(first), vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], pack(second)].concat()
    };
    let mut sources: Vec<(&str, PathBuf)> = Vec::new();
    let file = |name: &str, content: &[u8]| {
        let path = fixture.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    sources.push(("docker archive", file("docker.tar", &image.docker_archive())));
    sources.push(("packed docker archive", file("docker.tar.gz", &gzip(&image.docker_archive()))));
    sources.push(("OCI archive", file("oci.tar", &image.oci_archive())));
    for (name, media_type, pack) in [
        ("gzip", "application/vnd.oci.image.layer.v1.tar+gzip", &gzip as &dyn Fn(&[u8]) -> Vec<u8>),
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd", &zstd),
    ] {
        let dir = fixture.dir.path().join(name);
        for (path, content) in image.oci_layout(media_type, pack) {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        sources.push((name, dir));
    }
    let id = make::digest(&image.config_json());
    for (case, path) in sources {
        let store = ImageStore::open(fixture.dir.path().join(format!("store of {case}"))).unwrap();
        store.load(&path).unwrap_or_else(|error| panic!("{case}: {error}"));
        let found = store.resolve("app:1").unwrap().expect(case);
        assert_eq!(found.id, id, "{case}");
        assert_eq!(found.config.config().as_ref().unwrap().user().as_deref(), Some("7:8"));
        assert_eq!(found.file("/etc/a", 10).unwrap().as_deref(), Some(&b"a\n"[..]), "{case}");
        assert_eq!(found.file("/etc/b", 10).unwrap().as_deref(), Some(&b"b\n"[..]), "{case}");
        assert_eq!(found.repo_digests.len(), usize::from(!case.contains("docker")), "{case}");
        assert_eq!(found.size, 4, "{case}");
    }
}

#[test]
fn an_archive_comes_through_a_pipe() {
    let Some(fixture) = fixture("images: pipe") else { return };
    let (reader, mut writer) = std::io::pipe().unwrap();
    let archive =
        Made::new("piped", json!({})).layer(Layer::new().file("a", 0o644, vec![1; 200_000])).docker_archive();
    let writing = std::thread::spawn(move || writer.write_all(&archive).unwrap());
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    fixture.store.load(path).unwrap();
    writing.join().unwrap();
    assert!(fixture.store.resolve("piped").unwrap().is_some());
}

#[test]
fn overlayfs_shows_whiteouts_and_opaque_directories_as_the_image_means_them() {
    let Some(fixture) = fixture("images: overlay") else { return };
    let Some(image) = make::busybox("busybox").unwrap() else {
        testkit::skipped("images: overlay", "no /bin/busybox");
        return;
    };
    fixture.load(&image).unwrap();
    let found = fixture.store.resolve("busybox").unwrap().unwrap();
    let lower = found.layers.iter().map(|layer| layer.to_str().unwrap()).collect::<Vec<_>>().join(":");
    let target = fixture.dir.path().join("merged");
    fs::create_dir(&target).unwrap();
    let script = format!(
        "mount -t overlay overlay -o lowerdir={lower} {target} && exec chroot {target} /bin/sh -c \
         'ls -a /emptied; test -e /hidden || echo no hidden; stat -c %u:%g:%a /home/worker /bin/setuid-id'",
        target = target.display()
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        ".\n..\nnew\nno hidden\n1000:1000:750\n0:0:4755\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // The reader without a mount sees the same.
    assert_eq!(found.file("/hidden", 100).unwrap(), None);
    assert_eq!(found.file("/emptied/old", 100).unwrap(), None);
    assert_eq!(found.file("/emptied/new", 100).unwrap().as_deref(), Some(&b"new\n"[..]));
}

#[test]
fn entries_keep_owner_mode_time_links_and_allowed_attributes() {
    let Some(fixture) = fixture("images: metadata") else { return };
    let long = "a".repeat(90);
    let deep = format!("{long}/{long}");
    let layers = fixture
        .layers([Layer::new()
            .owned("./", 0o711, (5, 6), None)
            .owned("home/", 0o2750, (1000, 1001), None)
            .owned("home/su", 0o4755, (1000, 1001), Some(b"x"))
            .hard_link("home/same", "home/su")
            .symlink("home/up", "../../../etc/passwd")
            .entry("home/pipe", EntryType::Fifo, 0o620, "", b"")
            .pax(&[
                ("path", deep.as_bytes()),
                ("SCHILY.xattr.user.note", b"kept"),
                ("SCHILY.xattr.security.selinux", b"dropped"),
                ("mtime", b"1234567890.25"),
                ("uid", b"3000000000"),
            ])
            .file("short", 0o600, "deep")])
        .unwrap();
    let at = |path: &str| fs::symlink_metadata(layers[0].join(path)).unwrap();
    assert_eq!((at("").uid(), at("").gid(), at("").mode() & 0o7777), (5, 6, 0o711));
    assert_eq!((at("home").uid(), at("home").gid(), at("home").mode() & 0o7777), (1000, 1001, 0o2750));
    assert_eq!((at("home/su").uid(), at("home/su").mode() & 0o7777), (1000, 0o4755));
    assert_eq!(at("home/su").ino(), at("home/same").ino());
    assert_eq!(
        at("home").mtime(),
        1_000_000_000,
        "directories keep their time though files were made in them"
    );
    assert_eq!(fs::read_link(layers[0].join("home/up")).unwrap(), Path::new("../../../etc/passwd"));
    assert!(at("home/pipe").file_type().is_fifo());
    let file = layers[0].join(&deep);
    assert_eq!(
        (at(&deep).mtime(), at(&deep).mtime_nsec(), at(&deep).uid()),
        (1_234_567_890, 250_000_000, 3_000_000_000)
    );
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(&file, "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"kept");
    assert!(rustix::fs::getxattr(&file, "security.selinux", &mut value[..]).is_err());
}

#[test]
fn what_a_layer_takes_for_granted_comes_from_the_layers_below() {
    let Some(fixture) = fixture("images: borrowed") else { return };
    let base = || Layer::new().owned("tmp", 0o1777, (7, 8), None).file("tmp/one", 0o640, "one");
    // No entry for tmp, and a hard link to a file of the lower layer.
    let top = || Layer::new().file("tmp/two", 0o600, "two").hard_link("tmp/link", "tmp/one");
    let layers = fixture.layers([base(), top()]).unwrap();
    let meta = fs::metadata(layers[1].join("tmp")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7, 8, 0o1777));
    assert_eq!(fs::read(layers[1].join("tmp/link")).unwrap(), b"one");
    // The same layer on another base has its own copy; on the same base it is shared.
    let other = fixture.layers([Layer::new().dir("tmp", 0o700).file("tmp/one", 0o600, "1"), top()]).unwrap();
    assert_ne!(other[1], layers[1]);
    assert_eq!(fs::read(other[1].join("tmp/link")).unwrap(), b"1");
    assert_eq!(fixture.layers([base(), top()]).unwrap(), layers);
    assert_eq!(fixture.entries("staging"), 0);
}

#[test]
fn the_last_entry_of_a_name_wins_and_whiteouts_give_way() {
    let Some(fixture) = fixture("images: duplicates") else { return };
    let layers = fixture
        .layers([
            Layer::new().dir("d", 0o755).file("d/old", 0o644, ""),
            Layer::new()
                .file("a", 0o600, "first")
                .file("a", 0o644, "second")
                .whiteout("a")
                .whiteout("d")
                .dir("d", 0o755)
                .file("d/new", 0o644, ""),
        ])
        .unwrap();
    assert_eq!(fs::read(layers[1].join("a")).unwrap(), b"second");
    let image = fixture.store.resolve("test").unwrap().unwrap();
    assert_eq!(
        image.file("d/old", 10).unwrap(),
        None,
        "the whiteout of the directory holds for what is below"
    );
    assert!(image.file("d/new", 10).unwrap().is_some());
}

#[test]
fn user_files_are_read_inside_the_layers_only_and_bounded() {
    let Some(fixture) = fixture("images: users") else { return };
    let read = |layers: Vec<Layer>| {
        fixture.layers(layers).unwrap();
        fixture.store.resolve("test").unwrap().unwrap().passwd().map_err(|error| error.to_string())
    };
    let text = |text: &str| Ok(Some(text.as_bytes().to_vec()));
    assert_eq!(read(vec![Layer::new().dir("etc", 0o755)]), Ok(None));
    let link = |target: &str| Layer::new().dir("etc", 0o755).symlink("etc/passwd", target);
    // The machine has such a file; the image has not.
    assert_eq!(read(vec![link("/etc/hostname")]), Ok(None));
    assert_eq!(read(vec![link("../../../../etc/hostname")]), Ok(None));
    assert_eq!(
        read(vec![Layer::new().dir("usr", 0o755).file("usr/users", 0o644, "a"), link("/usr/users")]),
        text("a")
    );
    assert_eq!(
        read(vec![Layer::new().dir("usr", 0o755).file("usr/users", 0o644, "a"), link("../usr/./users")]),
        text("a")
    );
    assert_eq!(
        read(vec![
            Layer::new().dir("real", 0o755).file("real/passwd", 0o644, "b").symlink("etc", "real"),
            Layer::new().dir("real", 0o755),
        ]),
        text("b")
    );
    assert!(read(vec![link("passwd")]).unwrap_err().contains("too many levels of symbolic links"));
    assert!(
        read(vec![Layer::new().entry("etc/passwd", EntryType::Fifo, 0o644, "", b"")])
            .unwrap_err()
            .contains("no regular file")
    );
    let huge = vec![b'x'; USER_FILE_LIMIT + 1];
    let error = read(vec![Layer::new().file("etc/passwd", 0o644, huge)]).unwrap_err();
    assert!(error.contains("larger than 1048576 bytes"), "{error}");
    assert_eq!(
        read(vec![
            Layer::new().file("etc/passwd", 0o644, "a"),
            Layer::new().file("etc/.wh.passwd", 0o644, "")
        ]),
        Ok(None)
    );
}

#[test]
fn equal_layers_are_stacked_once_and_an_image_of_none_has_an_empty_one() {
    let Some(fixture) = fixture("images: equal layers") else { return };
    let layer = || Layer::new().file("a", 0o644, "1");
    let layers = fixture.layers([layer(), Layer::new().whiteout("a"), layer()]).unwrap();
    assert_eq!(layers.len(), 2);
    assert!(fixture.store.resolve("test").unwrap().unwrap().file("a", 9).unwrap().is_some());
    let layers = fixture.layers([]).unwrap();
    assert_eq!(layers.len(), 1);
    assert_eq!(fs::read_dir(&layers[0]).unwrap().count(), 0);
}

#[test]
fn several_handles_load_at_once_and_agree() {
    let Some(fixture) = fixture("images: at once") else { return };
    let archives: Vec<Vec<u8>> = (0..4)
        .map(|at| {
            Made::new(&format!("app{}", at % 2), json!({}))
                .layer(Layer::new().file("shared", 0o644, vec![1; 100_000]))
                .layer(Layer::new().file("own", 0o644, format!("{}", at % 2)))
                .docker_archive()
        })
        .collect();
    std::thread::scope(|scope| {
        for archive in &archives {
            let dir = fixture.store.dir();
            scope.spawn(move || ImageStore::open(dir).unwrap().load_reader(&archive[..]).unwrap());
        }
    });
    assert_eq!(fixture.store.list().unwrap().len(), 2);
    assert_eq!(fixture.entries("layers"), 3);
    assert_eq!(fixture.entries("staging"), 0);
    // What is shared stays while one of them needs it.
    assert!(fixture.store.remove("app0").unwrap());
    assert_eq!(fixture.entries("layers"), 2);
    assert!(!fixture.store.remove("app0").unwrap());
    let left = fixture.store.resolve("app1").unwrap().unwrap();
    assert!(left.layers.iter().all(|layer| layer.is_dir()));
}

#[test]
fn opening_clears_what_crashed_processes_left_but_not_what_is_being_made() {
    let Some(fixture) = fixture("images: staging") else { return };
    let abandoned = fixture.store.dir().join("staging/abandoned");
    fs::create_dir_all(abandoned.join("layer")).unwrap();
    let busy = fixture.store.stage("busy").unwrap();
    let again = ImageStore::open(fixture.store.dir()).unwrap();
    assert!(!abandoned.exists());
    assert!(busy.path.is_dir());
    let path = busy.path.clone();
    drop(busy);
    assert!(!path.exists());
    assert!(matches!(again.resolve("UPPER"), Err(StoreError::Name(..))));
    assert_eq!(fs::metadata(again.dir()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_waiting_pod_hears_of_a_load_in_another_process() {
    let Some(fixture) = fixture("images: watch") else { return };
    let mut watch = fixture.store.watch().unwrap();
    let other = ImageStore::open(fixture.store.dir()).unwrap();
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(50), watch.changed()).await;
    assert!(quiet.is_err(), "nothing has changed yet");
    let load = tokio::task::spawn_blocking(move || other.load_reader(&tool_image()[..]).map(drop));
    watch.changed().await.unwrap();
    load.await.unwrap().unwrap();
    assert!(fixture.store.resolve(TOOL_IMAGE).unwrap().is_some());
}
