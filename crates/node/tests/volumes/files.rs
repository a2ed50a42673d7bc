//! Volumes of files: ConfigMaps, Secrets, the downward API and projections of them.

use super::*;

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
