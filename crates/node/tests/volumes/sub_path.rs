//! subPath: a part of a volume is found within it, or not at all.

use super::*;

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
