//! Volumes in the kernel: modes, owners, links and mounts as they are on disk, never as our own log tells. Needs root.

mod files;
mod sub_path;

use std::{
    fs,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use node::volumes::{PodVolumes, references};
use policy::{container::MountSource, env::Sources, node_facts::NodeFacts};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde_json::{Value, json};
use testkit::is_root;

/// A pod's directory, unmounted and removed at the end.
struct Scratch {
    dir: PathBuf,
    volumes: PodVolumes,
}

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cofferdam-volumes-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self { volumes: PodVolumes { root: dir.join("pod/volumes") }, dir }
    }

    fn path(&self, plugin: &str, name: &str) -> PathBuf {
        self.volumes.root.join(format!("kubernetes.io~{plugin}")).join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let torn_down = self.volumes.tear_down();
        let removed = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            torn_down.unwrap();
            removed.unwrap();
        }
    }
}

#[derive(Default)]
struct Objects {
    config_maps: Vec<ConfigMap>,
    secrets: Vec<Secret>,
}

impl Objects {
    fn config(data: Value) -> Self {
        let map = json!({"metadata": {"name": "cm"}, "data": data});
        Self { config_maps: vec![serde_json::from_value(map).unwrap()], secrets: Vec::new() }
    }

    fn secret(data: Value) -> Self {
        let secret = json!({"metadata": {"name": "sec"}, "data": data});
        Self { config_maps: Vec::new(), secrets: vec![serde_json::from_value(secret).unwrap()] }
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            config_maps: self.config_maps.iter().map(|m| (m.metadata.name.clone().unwrap(), m)).collect(),
            secrets: self.secrets.iter().map(|s| (s.metadata.name.clone().unwrap(), s)).collect(),
            ..Sources::default()
        }
    }
}

fn pod(context: Value, volumes: Value, mounts: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "x", "namespace": "ns", "uid": "u", "labels": {"a": "1", "b": "2"}},
        "spec": {"securityContext": context, "volumes": volumes,
            "containers": [{"name": "c", "volumeMounts": mounts}]}
    }))
    .unwrap()
}

fn set_up(scratch: &Scratch, pod: &Pod, objects: &Objects) -> Result<(), String> {
    scratch.volumes.set_up(pod, &objects.sources(), &NodeFacts::default()).map_err(|error| error.to_string())
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

#[test]
fn an_empty_dir_is_for_everyone_or_for_the_group() {
    if !is_root("an_empty_dir_is_for_everyone_or_for_the_group") {
        return;
    }
    for (context, expected) in [(json!({}), (0o777, (0, 0))), (json!({"fsGroup": 2000}), (0o2777, (0, 2000)))]
    {
        let scratch = Scratch::new();
        let pod = pod(context, json!([{"name": "v", "emptyDir": {}}]), json!([]));
        set_up(&scratch, &pod, &Objects::default()).unwrap();
        let path = scratch.path("empty-dir", "v");
        assert_eq!((mode(&path), owner(&path)), expected);
        // A second set-up, after a restart of the agent, keeps what is there.
        fs::write(path.join("file"), "kept").unwrap();
        set_up(&scratch, &pod, &Objects::default()).unwrap();
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "kept");
        let inside = fs::symlink_metadata(path.join("file")).unwrap();
        assert_eq!(inside.gid(), expected.1.1, "the setgid bit hands the group on");
    }
}

#[test]
fn an_empty_dir_in_memory_is_a_limited_tmpfs() {
    if !is_root("an_empty_dir_in_memory_is_a_limited_tmpfs") {
        return;
    }
    let scratch = Scratch::new();
    let volumes = json!([{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]);
    let pod = pod(json!({"fsGroup": 2000}), volumes, json!([]));
    set_up(&scratch, &pod, &Objects::default()).unwrap();
    set_up(&scratch, &pod, &Objects::default()).unwrap();
    let path = scratch.path("empty-dir", "v");
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines: Vec<&str> = info.lines().filter(|line| line.contains(path.to_str().unwrap())).collect();
    assert_eq!(lines.len(), 1, "mounted once: {lines:?}");
    assert!(lines[0].contains("nosuid,nodev") && lines[0].contains(" tmpfs "), "{}", lines[0]);
    assert_eq!((mode(&path), owner(&path)), (0o3777, (0, 2000)));
    let error = fs::write(path.join("big"), vec![0; 2 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()));
}

#[test]
fn host_paths_are_checked_by_their_type() {
    if !is_root("host_paths_are_checked_by_their_type") {
        return;
    }
    let scratch = Scratch::new();
    let dir = scratch.dir.join("host");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "x").unwrap();
    let socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    let check = |path: &Path, kind: &str| {
        let volumes = json!([{"name": "v", "hostPath": {"path": path, "type": kind}}]);
        set_up(&scratch, &pod(json!({"fsGroup": 2000}), volumes, json!([])), &Objects::default())
    };
    for (path, kind, problem) in [
        ("file", "", None),
        ("file", "File", None),
        ("", "Directory", None),
        ("socket", "Socket", None),
        ("/dev/null", "CharDevice", None),
        ("made/deep", "DirectoryOrCreate", None),
        ("made-file", "FileOrCreate", None),
        ("file", "FileOrCreate", None),
        ("unset", "", None),
        ("file", "Directory", Some("is not a directory")),
        ("file", "DirectoryOrCreate", Some("is not a directory")),
        ("gone", "Directory", Some("is not a directory")),
        ("", "File", Some("is not a file")),
        ("", "FileOrCreate", Some("is not a file")),
        ("gone", "File", Some("is not a file")),
        ("file", "Socket", Some("is not a socket file")),
        ("gone", "Socket", Some("is not a socket file")),
        ("file", "CharDevice", Some("is not a character device")),
        ("/dev/null", "BlockDevice", Some("is not a block device")),
    ] {
        let path = dir.join(path);
        let expected = problem.map(|problem| {
            format!(
                "MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {} {problem}",
                path.display()
            )
        });
        assert_eq!(check(&path, kind).err(), expected, "{} {kind}", path.display());
    }
    assert!(check(&dir.join("gone/deep"), "FileOrCreate").unwrap_err().contains("open"));
    assert!(check(Path::new("/tmp/../etc"), "").unwrap_err().contains("must not contain '..'"));
    assert_eq!(mode(&dir.join("made/deep")), 0o755);
    assert_eq!(mode(&dir.join("made-file")), 0o644);
    assert!(fs::metadata(dir.join("unset")).unwrap().is_dir());
    // fsGroup never touches a hostPath.
    assert_eq!(owner(&dir.join("file")), (0, 0));
    assert_eq!(mode(&dir), 0o755);
    drop(socket);
    match fs::read_dir("/dev")
        .unwrap()
        .flatten()
        .find(|e| e.file_type().is_ok_and(|kind| kind.is_block_device()))
    {
        Some(device) => assert_eq!(check(&device.path(), "BlockDevice"), Ok(())),
        None => {
            testkit::skipped("host_paths_are_checked_by_their_type: BlockDevice", "no block device in /dev")
        }
    }
}

#[test]
fn what_is_missing_is_said_in_the_kubelets_words() {
    if !is_root("what_is_missing_is_said_in_the_kubelets_words") {
        return;
    }
    let scratch = Scratch::new();
    let prefix = "MountVolume.SetUp failed for volume \"v\" : ";
    let objects = Objects {
        secrets: Objects::secret(json!({"k": ""})).secrets,
        ..Objects::config(json!({"k": "", "..up": ""}))
    };
    for (source, message) in [
        (json!({"configMap": {"name": "gone"}}), "configmap \"gone\" not found"),
        (json!({"secret": {"secretName": "gone"}}), "secret \"gone\" not found"),
        (
            json!({"configMap": {"name": "cm", "items": [{"key": "no", "path": "p"}]}}),
            "references non-existent config key: no",
        ),
        (
            json!({"secret": {"secretName": "sec", "items": [{"key": "no", "path": "p"}]}}),
            "references non-existent secret key: no",
        ),
        (
            json!({"configMap": {"name": "cm", "items": [{"key": "k", "path": "../../etc/x"}]}}),
            "invalid path: must not contain '..': ../../etc/x",
        ),
        (
            json!({"configMap": {"name": "cm", "items": [{"key": "k", "path": "/etc/x"}]}}),
            "invalid path: must be relative path: /etc/x",
        ),
        (json!({"configMap": {"name": "cm"}}), "invalid path: must not start with '..': ..up"),
        (json!({"nfs": {"server": "s", "path": "/"}}), "volume type nfs is not supported"),
        (json!({"emptyDir": {"medium": "HugePages"}}), "emptyDir.medium: \"HugePages\" is not supported"),
    ] {
        let mut volume = source.clone();
        volume["name"] = json!("v");
        let error = set_up(&scratch, &pod(json!({}), json!([volume]), json!([])), &objects).unwrap_err();
        assert_eq!(error, format!("{prefix}{message}"), "{source}");
    }
    let optional = json!([{"name": "v", "configMap": {"name": "gone", "optional": true}}]);
    set_up(&scratch, &pod(json!({}), optional, json!([])), &objects).unwrap();
    assert!(scratch.path("configmap", "v").is_dir());
}

/// Where a descriptor leads.
#[test]
fn mounts_of_no_volume_and_of_bad_modes_are_refused() {
    if !is_root("mounts_of_no_volume_and_of_bad_modes_are_refused") {
        return;
    }
    let scratch = Scratch::new();
    for (mount, message) in [
        (json!({"name": "ghost"}), "cannot find volume \"ghost\" to mount into container \"c\""),
        (
            json!({"name": "v", "recursiveReadOnly": "Enabled"}),
            "container c: volumeMounts.recursiveReadOnly: may only be specified when readOnly is true",
        ),
        (
            json!({"name": "v", "mountPropagation": "Sideways"}),
            "container c: volumeMounts.mountPropagation: \"Sideways\" is not supported",
        ),
    ] {
        let mut mount = mount;
        mount["mountPath"] = json!("/m");
        let pod = pod(json!({}), json!([{"name": "v", "emptyDir": {}}]), json!([mount]));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        assert_eq!(scratch.volumes.mounts(&pod, container, &[]).unwrap_err().message, message);
    }
}

#[test]
fn an_empty_dir_over_its_limit_is_told() {
    if !is_root("an_empty_dir_over_its_limit_is_told") {
        return;
    }
    let scratch = Scratch::new();
    let pod = pod(json!({}), json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]), json!([]));
    set_up(&scratch, &pod, &Objects::default()).unwrap();
    let path = scratch.path("empty-dir", "v");
    // A hole takes no room, and a file with two names takes it once; what a link leads to is elsewhere.
    fs::File::create(path.join("sparse")).unwrap().set_len(1 << 30).unwrap();
    fs::write(path.join("part"), vec![1; 600 << 10]).unwrap();
    fs::hard_link(path.join("part"), path.join("again")).unwrap();
    fs::write(scratch.dir.join("outside"), vec![1; 4 << 20]).unwrap();
    symlink(&scratch.dir, path.join("link")).unwrap();
    assert_eq!(scratch.volumes.over_size_limit(&pod).unwrap(), None);
    fs::create_dir(path.join("d")).unwrap();
    fs::write(path.join("d/more"), vec![1; 600 << 10]).unwrap();
    assert_eq!(
        scratch.volumes.over_size_limit(&pod).unwrap().as_deref(),
        Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ")
    );
}

#[test]
fn tearing_down_follows_no_link_and_takes_everything() {
    if !is_root("tearing_down_follows_no_link_and_takes_everything") {
        return;
    }
    let scratch = Scratch::new();
    let host = scratch.dir.join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("precious"), "x").unwrap();
    let volumes = json!([{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}},
        {"name": "h", "hostPath": {"path": host}}]);
    set_up(&scratch, &pod(json!({}), volumes, json!([])), &Objects::default()).unwrap();
    let path = scratch.path("empty-dir", "v");
    symlink(&host, path.join("link")).unwrap();
    fs::create_dir(path.join("sticky")).unwrap();
    fs::set_permissions(path.join("sticky"), fs::Permissions::from_mode(0o000)).unwrap();
    // A mount that a container left in the volume, over a blank in its name.
    let blank = path.join("a b");
    fs::create_dir(&blank).unwrap();
    let tmpfs = kernel::mount::new_file_system("tmpfs", &[], 0).unwrap();
    let onto = rustix::fs::open(&blank, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    kernel::mount::attach(&tmpfs, &onto, "a b").unwrap();
    fs::write(blank.join("file"), "x").unwrap();
    drop((tmpfs, onto));
    // Deeper than any path can say.
    let mut directory = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&directory, "deep", Mode::from_raw_mode(0o755)).unwrap();
        directory = rustix::fs::openat(&directory, "deep", OFlags::RDONLY, Mode::empty()).unwrap();
        rustix::fs::symlinkat("/etc", &directory, "link").unwrap();
    }
    drop(directory);
    scratch.volumes.tear_down().unwrap();
    assert!(!scratch.volumes.root.exists());
    assert_eq!(fs::read_to_string(host.join("precious")).unwrap(), "x");
    assert!(Path::new("/etc/passwd").exists());
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!info.contains(scratch.dir.to_str().unwrap()), "no mount is left");
    let stat = rustix::fs::statat(CWD, &scratch.dir, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    assert!(stat.st_nlink >= 2);
}
