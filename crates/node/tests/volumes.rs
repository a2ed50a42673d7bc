//! Volumes in the kernel: modes, owners, links and mounts as they are on disk, never as our own log tells. Needs root.

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
fn config_maps_are_laid_out_for_atomic_updates() {
    if !is_root("config_maps_are_laid_out_for_atomic_updates") {
        return;
    }
    let scratch = Scratch::new();
    let pod = pod(
        json!({"fsGroup": 2000}),
        json!([{"name": "v", "configMap": {"name": "cm", "defaultMode": 0o600, "items": [
            {"key": "a", "path": "a"}, {"key": "b", "path": "deep/er/b", "mode": 0o400}]}}]),
        json!([]),
    );
    let first = Objects::config(json!({"a": "1", "b": "2", "unused": "3"}));
    set_up(&scratch, &pod, &first).unwrap();
    let path = scratch.path("configmap", "v");
    let version = fs::read_link(path.join("..data")).unwrap();
    assert!(version.to_str().unwrap().starts_with("..20"), "{version:?}");
    assert_eq!(fs::read_link(path.join("a")).unwrap(), Path::new("..data/a"));
    assert_eq!(fs::read_link(path.join("deep")).unwrap(), Path::new("..data/deep"));
    assert_eq!(fs::read_to_string(path.join("deep/er/b")).unwrap(), "2");
    // The group may read, whatever the mode says.
    assert_eq!(mode(&path.join("..data/a")), 0o640);
    assert_eq!(
        (mode(&path.join("..data/deep/er/b")), owner(&path.join("..data/deep/er/b"))),
        (0o440, (0, 2000))
    );
    assert_eq!(mode(&path.join(&version)), 0o2755);

    let same = scratch.volumes.refresh(&pod, &first.sources(), &NodeFacts::default()).unwrap();
    assert!(same.is_empty());
    assert_eq!(fs::read_link(path.join("..data")).unwrap(), version);

    let second = Objects::config(json!({"a": "new", "b": "2"}));
    let changed = scratch.volumes.refresh(&pod, &second.sources(), &NodeFacts::default()).unwrap();
    assert_eq!(changed, ["v"]);
    assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "new");
    assert!(!path.join(&version).exists(), "the old version is removed");
    let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn keys_that_go_leave_no_file() {
    if !is_root("keys_that_go_leave_no_file") {
        return;
    }
    let scratch = Scratch::new();
    let pod = pod(json!({}), json!([{"name": "v", "configMap": {"name": "cm"}}]), json!([]));
    set_up(&scratch, &pod, &Objects::config(json!({"a": "1", "b": "2"}))).unwrap();
    let after = Objects::config(json!({"b": "2"}));
    scratch.volumes.refresh(&pod, &after.sources(), &NodeFacts::default()).unwrap();
    let path = scratch.path("configmap", "v");
    assert!(fs::symlink_metadata(path.join("a")).is_err());
    assert_eq!(fs::read_to_string(path.join("b")).unwrap(), "2");
}

#[test]
fn a_reader_sees_the_old_files_or_the_new_ones_never_a_mixture() {
    if !is_root("a_reader_sees_the_old_files_or_the_new_ones_never_a_mixture") {
        return;
    }
    let scratch = Scratch::new();
    let pod = pod(json!({}), json!([{"name": "v", "configMap": {"name": "cm"}}]), json!([]));
    let version = |n: u32| Objects::config(json!({"a": n.to_string(), "b": n.to_string()}));
    set_up(&scratch, &pod, &version(0)).unwrap();
    let data = scratch.path("configmap", "v").join("..data");
    let done = AtomicBool::new(false);
    let mut seen = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..200 {
                scratch.volumes.refresh(&pod, &version(n).sources(), &NodeFacts::default()).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let Ok(directory) = fs::File::open(&data) else {
                // The link is always there; what it led to a moment ago may just have been removed, as the kubelet's does.
                fs::symlink_metadata(&data).expect("..data is always there");
                continue;
            };
            let read = |name: &str| {
                let fd = rustix::fs::openat(&directory, name, OFlags::RDONLY, Mode::empty()).ok()?;
                std::io::read_to_string(fs::File::from(fd)).ok()
            };
            // Files of a version that is just removed may be gone; none may be of another version.
            if let (Some(a), Some(b)) = (read("a"), read("b")) {
                assert_eq!(a, b);
                seen += 1;
            }
        }
    });
    assert!(seen > 0);
}

#[test]
fn secrets_lie_in_memory_with_their_modes() {
    if !is_root("secrets_lie_in_memory_with_their_modes") {
        return;
    }
    let scratch = Scratch::new();
    let volumes = json!([{"name": "v", "secret": {"secretName": "sec", "defaultMode": 0o400}}]);
    set_up(&scratch, &pod(json!({}), volumes, json!([])), &Objects::secret(json!({"pw": "/wA="}))).unwrap();
    let path = scratch.path("secret", "v");
    assert_eq!(fs::read(path.join("pw")).unwrap(), [0xff, 0]);
    assert_eq!(mode(&path.join("..data/pw")), 0o400);
    assert_ne!(fs::metadata(&path).unwrap().dev(), fs::metadata(path.parent().unwrap()).unwrap().dev());
    scratch.volumes.tear_down().unwrap();
    assert!(!scratch.volumes.root.exists());
    scratch.volumes.tear_down().unwrap();
}

#[test]
fn downward_and_projected_files_hold_what_the_pod_says() {
    if !is_root("downward_and_projected_files_hold_what_the_pod_says") {
        return;
    }
    let scratch = Scratch::new();
    let objects = Objects {
        secrets: Objects::secret(json!({"pw": "cHc="})).secrets,
        ..Objects::config(json!({"key": "value"}))
    };
    let labels = json!({"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}});
    let cpu = json!({"path": "cpu", "mode": 0o600,
        "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}});
    let volumes = json!([
        {"name": "d", "downwardAPI": {"items": [labels, cpu]}},
        {"name": "p", "projected": {"sources": [
            {"configMap": {"name": "cm"}}, {"secret": {"name": "sec", "items": [{"key": "pw", "path": "s/pw"}]}},
            {"downwardAPI": {"items": [labels]}}, {"configMap": {"name": "gone", "optional": true}}]}}
    ]);
    let pod = pod(json!({}), volumes, json!([]));
    assert_eq!(references(&pod).config_maps.len(), 2);
    set_up(&scratch, &pod, &objects).unwrap();
    let (downward, projected) = (scratch.path("downward-api", "d"), scratch.path("projected", "p"));
    assert_eq!(fs::read_to_string(downward.join("labels")).unwrap(), "a=\"1\"\nb=\"2\"");
    assert_eq!(fs::read_to_string(downward.join("cpu")).unwrap(), "2000");
    assert_eq!(mode(&downward.join("..data/cpu")), 0o600);
    assert_eq!(fs::read_to_string(projected.join("key")).unwrap(), "value");
    assert_eq!(fs::read_to_string(projected.join("s/pw")).unwrap(), "pw");
    assert_eq!(fs::read_to_string(projected.join("labels")).unwrap(), "a=\"1\"\nb=\"2\"");
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
fn target(fd: &impl AsRawFd) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
}

#[test]
fn sub_paths_are_made_and_handed_over_as_descriptors() {
    if !is_root("sub_paths_are_made_and_handed_over_as_descriptors") {
        return;
    }
    let scratch = Scratch::new();
    let mounts = json!([
        {"name": "v", "mountPath": "/a"},
        {"name": "v", "mountPath": "/b", "subPath": "one/two"},
        {"name": "v", "mountPath": "/c", "subPathExpr": "$(WHO)/$$x", "readOnly": true},
        {"name": "cm", "mountPath": "/d", "subPath": "key"}
    ]);
    let volumes = json!([{"name": "v", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "cm"}}]);
    let pod = pod(json!({"fsGroup": 2000}), volumes, mounts);
    set_up(&scratch, &pod, &Objects::config(json!({"key": "value"}))).unwrap();
    let env = [("WHO".to_owned(), "me".to_owned())];
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let (mounts, fds) = scratch.volumes.mounts(&pod, container, &env).unwrap();
    let root = scratch.path("empty-dir", "v");
    assert_eq!(mounts[0].source, MountSource::Path(root.clone()));
    assert_eq!(
        (&mounts[1].source, &mounts[2].source),
        (&MountSource::Descriptor(0), &MountSource::Descriptor(1))
    );
    assert_eq!((target(&fds[0]), target(&fds[1])), (root.join("one/two"), root.join("me/$x")));
    // Of the volume's own mode and group, whatever the umask.
    assert_eq!((mode(&root.join("one/two")), owner(&root.join("one/two"))), (0o2777, (0, 2000)));
    let read_only: Vec<bool> = mounts.iter().map(|mount| mount.read_only).collect();
    assert_eq!(read_only, [false, false, true, true], "files of a configMap are never writable");
    assert!(mounts.iter().all(|mount| mount.nosuid_nodev));
    assert!(target(&fds[2]).to_str().unwrap().ends_with("/key"));
    assert!(target(&fds[2]).to_str().unwrap().contains("/..20"), "the file itself, not its link");
}

#[test]
fn sub_paths_never_leave_their_volume() {
    if !is_root("sub_paths_never_leave_their_volume") {
        return;
    }
    let scratch = Scratch::new();
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    set_up(&scratch, &pod(json!({}), volumes.clone(), json!([])), &Objects::default()).unwrap();
    let root = scratch.path("empty-dir", "v");
    fs::create_dir(root.join("inside")).unwrap();
    symlink("inside", root.join("good")).unwrap();
    symlink("/etc", root.join("absolute")).unwrap();
    symlink("../../../../../..", root.join("up")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    let try_one = |sub_path: &str| {
        let mounts = json!([{"name": "v", "mountPath": "/m", "subPath": sub_path}]);
        let pod = pod(json!({}), volumes.clone(), mounts);
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        scratch.volumes.mounts(&pod, &container, &[])
    };
    let (_, fds) = try_one("good").unwrap();
    assert_eq!(target(&fds[0]), root.join("inside"));
    for path in [
        "absolute",
        "absolute/passwd",
        "up",
        "up/etc",
        "magic",
        "magic/etc",
        "loop",
        "dangling",
        "dangling/x",
    ] {
        let error = try_one(path).expect_err(path);
        assert_eq!(error.reason, "CreateContainerConfigError");
        let start = "failed to prepare subPath for volumeMount \"v\" of container \"c\": ";
        assert!(error.message.starts_with(start), "{path}: {error}");
    }
    assert!(try_one("../x").unwrap_err().message.contains("must not contain '..'"));
    assert!(try_one("/x").unwrap_err().message.contains("must not be an absolute path"));
    assert!(!Path::new("/nowhere").exists(), "nothing was made outside");
}

/// CVE-2021-25741: a container swaps a directory for a link while its subPath is looked up.
#[test]
fn a_swap_while_a_sub_path_is_looked_up_leads_nowhere() {
    if !is_root("a_swap_while_a_sub_path_is_looked_up_leads_nowhere") {
        return;
    }
    let scratch = Scratch::new();
    let mounts = json!([{"name": "v", "mountPath": "/m", "subPath": "door/secret"}]);
    let pod = pod(json!({}), json!([{"name": "v", "emptyDir": {}}]), mounts);
    set_up(&scratch, &pod, &Objects::default()).unwrap();
    let root = scratch.path("empty-dir", "v");
    let outside = scratch.dir.join("outside");
    fs::create_dir_all(outside.join("secret")).unwrap();
    fs::create_dir(root.join("door")).unwrap();
    symlink(&outside, root.join("link")).unwrap();
    let container = pod.spec.as_ref().unwrap().containers[0].clone();
    let done = AtomicBool::new(false);
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, root.join("door"), CWD, root.join("link"), exchange).unwrap();
            }
        });
        for _ in 0..5000 {
            match scratch.volumes.mounts(&pod, &container, &[]) {
                Ok((_, fds)) => {
                    let target = target(&fds[0]);
                    assert!(target.starts_with(&root), "{}", target.display());
                    inside += 1;
                }
                Err(_) => refused += 1,
            }
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(fs::read_dir(outside.join("secret")).unwrap().count(), 0);
    assert!(inside > 0, "{inside} inside, {refused} refused");
}

#[test]
fn sub_path_expressions_need_their_variables() {
    if !is_root("sub_path_expressions_need_their_variables") {
        return;
    }
    let scratch = Scratch::new();
    let mounts = json!([{"name": "v", "mountPath": "/m", "subPathExpr": "$(A)/$(B)"}]);
    let pod = pod(json!({}), json!([{"name": "v", "emptyDir": {}}]), mounts);
    set_up(&scratch, &pod, &Objects::default()).unwrap();
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let error = scratch.volumes.mounts(&pod, container, &[("A".to_owned(), String::new())]).unwrap_err();
    assert_eq!(error.message, "missing value for A, B");
}

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
