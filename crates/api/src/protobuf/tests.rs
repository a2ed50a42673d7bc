use super::*;
use proptest::prelude::*;
use serde_json::json;

fn expected<'a>(api_version: &'a str, kind: &'a str) -> Expected<'a> {
    Expected { api_version, kind }
}

/// The bodies in `captured/` are what kubectl 1.32 sent to a listener.
#[test]
fn the_bodies_that_kubectl_sends_are_read() {
    let none = || json!({});
    let table: &[(&[u8], &str, &str, Value)] = &[
        (
            include_bytes!("captured/create-namespace.bin"),
            "v1",
            "Namespace",
            json!({"metadata": {"name": "x"}, "spec": {}, "status": {}}),
        ),
        (
            include_bytes!("captured/create-deployment.bin"),
            "apps/v1",
            "Deployment",
            json!({
                "metadata": {"name": "web", "labels": {"app": "web"}},
                "spec": {
                    "replicas": 3,
                    "selector": {"matchLabels": {"app": "web"}},
                    "strategy": {},
                    "template": {
                        "metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [{
                            "name": "nginx",
                            "image": "nginx:1.27",
                            "ports": [{"containerPort": 80}],
                            "resources": {},
                        }]},
                    },
                },
                "status": {},
            }),
        ),
        (
            include_bytes!("captured/create-token.bin"),
            "authentication.k8s.io/v1",
            "TokenRequest",
            json!({
                "metadata": {},
                "spec": {
                    "audiences": ["api"],
                    "expirationSeconds": 600,
                    "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u1"},
                },
                "status": {"token": ""},
            }),
        ),
        (
            include_bytes!("captured/can-i.bin"),
            "authorization.k8s.io/v1",
            "SelfSubjectAccessReview",
            json!({
                "metadata": {},
                "spec": {"resourceAttributes": {"namespace": "default", "resource": "pods", "verb": "create"}},
                "status": {"allowed": false},
            }),
        ),
        (
            include_bytes!("captured/can-i-list.bin"),
            "authorization.k8s.io/v1",
            "SelfSubjectRulesReview",
            json!({"metadata": {}, "spec": {"namespace": "default"}, "status": {"incomplete": false}}),
        ),
        (
            include_bytes!("captured/whoami.bin"),
            "authentication.k8s.io/v1",
            "SelfSubjectReview",
            json!({"metadata": {}, "status": {"userInfo": {}}}),
        ),
        (
            include_bytes!("captured/create-configmap.bin"),
            "v1",
            "ConfigMap",
            json!({"metadata": {"name": "c"}, "data": {"a": "b"}}),
        ),
        (
            include_bytes!("captured/create-secret.bin"),
            "v1",
            "Secret",
            json!({"metadata": {"name": "s"}, "data": {"a": "Yg=="}}),
        ),
        (
            include_bytes!("captured/create-service.bin"),
            "v1",
            "Service",
            json!({
                "metadata": {"name": "web", "labels": {"app": "web"}},
                "spec": {
                    "type": "NodePort",
                    "selector": {"app": "web"},
                    "ports": [{"name": "80-8080", "nodePort": 30080, "port": 80, "protocol": "TCP", "targetPort": 8080}],
                },
                "status": {"loadBalancer": {}},
            }),
        ),
        (include_bytes!("captured/drain-delete.bin"), "v1", "DeleteOptions", none()),
    ];
    for (body, api_version, kind, want) in table {
        let got = decode(body, expected(api_version, kind)).unwrap_or_else(|e| panic!("{kind}: {e}")).value;
        let mut want = want.clone();
        want["apiVersion"] = (*api_version).into();
        want["kind"] = (*kind).into();
        assert_eq!(got, want, "{kind}\n{got:#}");
    }
}

fn body(raw: &[u8]) -> Vec<u8> {
    let mut out = b"k8s\0".to_vec();
    out.extend([0x12, raw.len() as u8]);
    out.extend(raw);
    out
}

#[test]
fn damaged_bodies_are_refused() {
    let pod = expected("v1", "Pod");
    let table: &[(Vec<u8>, ProtobufError)] = &[
        (b"{}".to_vec(), ProtobufError::NoPrefix),
        (b"k8s\0\x12\x05a".to_vec(), ProtobufError::Truncated),
        (body(&[0x0a, 0xff]), ProtobufError::Truncated),
        (body(&[0xff; 12]), ProtobufError::VarintOverflow),
        (body(&[0x08, 0x01]), ProtobufError::WireType { ty: "v1.Pod", tag: 1, wire: 0 }),
        (body(&[0x00]), ProtobufError::IllegalTag(0)),
        (body(&[0x0a, 0x03, 0x0a, 0x01, 0xff]), ProtobufError::Utf8("v1.ObjectMeta")),
    ];
    for (bytes, want) in table {
        assert_eq!(to_json(bytes, pod).as_ref(), Err(want), "{bytes:?}");
    }
    assert!(matches!(to_json(b"k8s\0", expected("v1", "Gadget")), Err(ProtobufError::UnknownKind { .. })));
}

#[test]
fn unknown_tags_are_skipped_and_inlined_structs_are_unfolded() {
    // spec.volumes[0] = { name: "v", volumeSource: { emptyDir: {} } }, and tag 100 of the pod, a varint.
    let volume = [0x0a, 1, b'v', 0x12, 2, 0x12, 0];
    let mut spec = vec![0x0a, volume.len() as u8];
    spec.extend(volume);
    let mut pod = vec![0xa0, 0x06, 0x07, 0x12, spec.len() as u8];
    pod.extend(spec);
    assert_eq!(
        to_json(&body(&pod), expected("v1", "Pod")).unwrap(),
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}})
    );
}

#[test]
fn a_time_that_no_calendar_has_is_refused() {
    // metadata.creationTimestamp = { seconds: 2^62 }
    let mut time = vec![0x08];
    time.extend([0x80; 8]);
    time.push(0x40);
    let mut meta = vec![0x42, time.len() as u8];
    meta.extend(&time);
    let mut pod = vec![0x0a, meta.len() as u8];
    pod.extend(meta);
    assert_eq!(to_json(&body(&pod), expected("v1", "Pod")), Err(ProtobufError::Time(1 << 62)));
}

proptest! {
    #[test]
    fn no_message_makes_it_panic(
        at in 0usize..200,
        flips in prop::collection::vec(any::<u8>(), 1..8),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut body = include_bytes!("captured/create-deployment.bin").to_vec();
        for (i, flip) in flips.iter().enumerate() {
            let place = 4 + (at + i) % (body.len() - 4);
            body[place] ^= flip;
        }
        let _ = decode(&body, expected("apps/v1", "Deployment"));
        let _ = decode(&noise, expected("v1", "Pod"));
    }
}
