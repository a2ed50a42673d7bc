//! Plans of volumes: which files, which modes, which messages. No root, no files.

use serde_json::{Value, json};

use super::*;

fn pod(volume: Value, containers: Value) -> Pod {
    let mut volume = volume;
    volume["name"] = json!("v");
    serde_json::from_value(json!({
        "metadata": {"name": "x", "namespace": "ns", "labels": {"a": "1"}},
        "spec": {"volumes": [volume], "containers": containers}
    }))
    .unwrap()
}

fn planned(volume: Value, containers: Value) -> Result<VolumePlan, String> {
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "cm"},
        "data": {"a": "1", "b": "2"}, "binaryData": {"bin": "AP8="}}))
    .unwrap();
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "sec"}, "data": {"a": "c2VjcmV0"}})).unwrap();
    let sources = Sources {
        config_maps: [("cm".to_owned(), &map)].into(),
        secrets: [("sec".to_owned(), &secret)].into(),
        ..Sources::default()
    };
    let node = NodeFacts { memory_allocatable: 1 << 30, ..NodeFacts::default() };
    let pod = pod(volume, containers);
    plan(&pod, &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0], &sources, &node)
}

/// Path, content and mode of each file.
fn files(volume: Value) -> Vec<(String, String, u32)> {
    match planned(volume.clone(), json!([{"name": "c"}])) {
        Ok(VolumePlan::Files { files, .. }) => files
            .into_iter()
            .map(|(path, file)| {
                (path.display().to_string(), String::from_utf8_lossy(&file.data).into_owned(), file.mode)
            })
            .collect(),
        other => panic!("{volume}: {other:?}"),
    }
}

fn file(path: &str, data: &str, mode: u32) -> (String, String, u32) {
    (path.to_owned(), data.to_owned(), mode)
}

#[test]
fn files_have_the_items_mode_the_volumes_or_the_default() {
    assert_eq!(
        files(json!({"configMap": {"name": "cm"}})),
        [file("a", "1", 0o644), file("b", "2", 0o644), file("bin", "\0\u{fffd}", 0o644)]
    );
    assert_eq!(
        files(json!({"configMap": {"name": "cm", "defaultMode": 0o400, "items": [
            {"key": "a", "path": "x/y"}, {"key": "b", "path": "z", "mode": 0o777}]}})),
        [file("x/y", "1", 0o400), file("z", "2", 0o777)]
    );
    assert_eq!(files(json!({"configMap": {"name": "gone", "optional": true}})), []);
    assert_eq!(
        files(
            json!({"secret": {"secretName": "sec", "optional": true, "items": [{"key": "no", "path": "x"}]}})
        ),
        []
    );
}

#[test]
fn a_later_projected_source_takes_the_place_of_an_earlier_one() {
    let both = json!({"projected": {"defaultMode": 0o440, "sources": [
        {"configMap": {"name": "cm", "items": [{"key": "a", "path": "a"}]}}, {"secret": {"name": "sec"}}]}});
    assert_eq!(files(both), [file("a", "secret", 0o440)]);
}

#[test]
fn an_empty_dir_in_memory_has_the_smallest_limit() {
    let limited = json!([{"name": "c", "resources": {"limits": {"memory": "64Mi"}}}]);
    let free = json!([{"name": "c"}]);
    let half = json!([{"name": "c", "resources": {"limits": {"memory": "64Mi"}}}, {"name": "d"}]);
    for (asked, containers, expected) in [
        (None, &free, 1u64 << 30),
        (Some("10Mi"), &free, 10 << 20),
        (Some("2Gi"), &free, 1 << 30),
        (None, &limited, 64 << 20),
        (Some("10Mi"), &limited, 10 << 20),
        (Some("100Mi"), &limited, 64 << 20),
        // One container without a limit, and the pod has none.
        (None, &half, 1 << 30),
        (Some("0"), &free, 1 << 30),
    ] {
        let plan = planned(json!({"emptyDir": {"medium": "Memory", "sizeLimit": asked}}), containers.clone());
        assert_eq!(plan, Ok(VolumePlan::Memory { size: expected }), "{asked:?} {containers}");
    }
}

#[test]
fn paths_that_would_leave_or_hide_something_are_refused() {
    let at = |path: &str| {
        let item = json!([{"key": "a", "path": path}, {"key": "b", "path": "dir/file"}]);
        planned(json!({"configMap": {"name": "cm", "items": item}}), json!([]))
    };
    for path in ["", "/x", "../x", "x/../../y", "..data", "..x", "dir", "dir/file/below", ".", "./.", "a\0b"]
    {
        assert!(at(path).is_err(), "{path:?}");
    }
    assert!(at(&"x/".repeat(2100)).is_err());
    assert!(at(&"x".repeat(256)).is_err());
    for path in ["x", "x/y", "x..y", "...x/../x"] {
        let refused = at(path).is_err();
        assert_eq!(refused, path.contains("/../") || path.starts_with(".."), "{path:?}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    for (volume, message) in [
        (
            json!({"persistentVolumeClaim": {"claimName": "c"}}),
            "volume type persistentVolumeClaim is not supported",
        ),
        (json!({"csi": {"driver": "d"}}), "volume type csi is not supported"),
        (json!({"image": {"reference": "r"}}), "volume type image is not supported"),
        (
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}),
            "failed to fetch token: there is none",
        ),
        (json!({"hostPath": {"path": "/x", "type": "Door"}}), "hostPath.type: \"Door\" is not supported"),
        (
            json!({"downwardAPI": {"items": [{"path": "x", "resourceFieldRef": {"containerName": "no", "resource": "limits.cpu"}}]}}),
            "container no not found",
        ),
        (
            json!({"downwardAPI": {"items": [{"path": "x"}]}}),
            "downwardAPI: file x has neither fieldRef nor resourceFieldRef",
        ),
    ] {
        assert_eq!(planned(volume.clone(), json!([])).unwrap_err(), message, "{volume}");
    }
}

#[test]
fn a_token_is_for_the_one_user_or_the_group_that_the_pod_names() {
    let table = [
        (json!({ "containers": [{ "name": "c" }] }), (0o644, 0)),
        (json!({ "securityContext": { "runAsUser": 1000 }, "containers": [{ "name": "c" }] }), (0o600, 1000)),
        (json!({ "securityContext": { "fsGroup": 7 }, "containers": [{ "name": "c" }] }), (0o600, 0)),
        (
            json!({ "securityContext": { "runAsUser": 1000 }, "containers": [{ "name": "c" },
                { "name": "d", "securityContext": { "runAsUser": 1001 } }] }),
            (0o644, 0),
        ),
        (
            json!({ "initContainers": [{ "name": "i" }],
                "containers": [{ "name": "c", "securityContext": { "runAsUser": 1000 } }] }),
            (0o644, 0),
        ),
    ];
    let source = TokenSource { audience: "vault".into(), seconds: 600 };
    let token = json!({ "audience": "vault", "expirationSeconds": 600, "path": "t" });
    let volume = json!({ "name": "v", "projected": { "sources": [{ "serviceAccountToken": token }] } });
    let volume: Volume = serde_json::from_value(volume).expect("a volume");
    for (spec, want) in table {
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).expect("a pod");
        let sources = Sources { tokens: [(source.clone(), "abc".into())].into(), ..Sources::default() };
        let VolumePlan::Files { files, .. } =
            super::plan(&pod, &volume, &sources, &NodeFacts::default()).expect("a plan")
        else {
            panic!("no files")
        };
        let file = &files[Path::new("t")];
        assert_eq!(((file.mode, file.uid), file.data.as_slice()), (want, &b"abc"[..]), "{spec}");
        let none = super::plan(&pod, &volume, &Sources::default(), &NodeFacts::default());
        assert_eq!(none, Err("failed to fetch token: there is none".to_owned()));
    }
}
