use super::*;
use proptest::prelude::*;
use serde_json::json;

const POD: Expected<'static> = Expected { api_version: "v1", kind: "Pod" };

fn strict(body: &str) -> Result<Decoded, ApiError> {
    decode_json(body.as_bytes(), POD, FieldValidation::Strict)
}

fn refusal(body: Value) -> String {
    strict(&body.to_string()).expect_err("should be refused").message
}

#[test]
fn unknown_and_duplicate_fields_are_named() {
    let body = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","name":"x"},
        "spec":{"foo":1,"containers":[{"name":"a","imag":"b"}]}}"#;
    assert_eq!(
        strict(body).unwrap_err().message,
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: duplicate field \"metadata.name\", \
         unknown field \"spec.containers[0].imag\", unknown field \"spec.foo\""
    );
    let warned = decode_json(body.as_bytes(), POD, FieldValidation::Warn).unwrap();
    assert_eq!(
        warned.warnings,
        [
            "duplicate field \"metadata.name\"",
            "unknown field \"spec.containers[0].imag\"",
            "unknown field \"spec.foo\""
        ]
    );
    assert_eq!(warned.value["spec"], json!({"containers": [{"name": "a"}]}));
    assert!(decode_json(body.as_bytes(), POD, FieldValidation::Ignore).unwrap().warnings.is_empty());
}

#[test]
fn wrong_types_are_refused_in_every_mode() {
    let with = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "spec": spec});
    let prefix = "Pod in version \"v1\" cannot be handled as a Pod: ";
    let table = [
        (
            json!({"containers": [{"ports": [{"containerPort": "80"}]}]}),
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            json!({"containers": "none"}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            json!({"hostNetwork": "true"}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
        (
            json!({"priority": 3_000_000_000u64}),
            "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            json!({"nodeSelector": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field PodSpec.spec.nodeSelector of type string",
        ),
        (
            json!({"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            json!({"containers": [{"resources": {"limits": {"cpu": "1KiM"}}}]}),
            "unable to parse quantity's suffix",
        ),
        (
            json!({"containers": [{"livenessProbe": {"tcpSocket": {"port": 1.5}}}]}),
            "json: cannot unmarshal number 1.5 into Go value of type int32",
        ),
    ];
    for (spec, want) in table {
        let body = with(spec).to_string();
        for mode in [FieldValidation::Ignore, FieldValidation::Warn, FieldValidation::Strict] {
            let error = decode_json(body.as_bytes(), POD, mode).unwrap_err();
            assert_eq!(error.message, format!("{prefix}{want}"));
            assert_eq!(error.code, 400);
        }
    }
    let secret = Expected { api_version: "v1", kind: "Secret" };
    let error = decode_json(br#"{"data":{"a":"!!"}}"#, secret, FieldValidation::Ignore).unwrap_err();
    assert_eq!(
        error.message,
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0"
    );
}

#[test]
fn the_kind_of_the_body_must_be_that_of_the_path() {
    assert_eq!(
        refusal(json!({"apiVersion": "apps/v1", "kind": "Deployment"})),
        "the API version in the data (apps/v1) does not match the expected API version (v1)"
    );
    assert!(
        refusal(json!({"apiVersion": "v1", "kind": "ConfigMap"}))
            .starts_with("ConfigMap in version \"v1\" cannot be handled as a Pod:")
    );
    assert!(
        refusal(json!({"apiVersion": "v1", "kind": "Gadget"}))
            .starts_with("no kind \"Gadget\" is registered")
    );
    let filled = strict("{}").unwrap().value;
    assert_eq!(filled, json!({"apiVersion": "v1", "kind": "Pod"}));
    assert_eq!(
        refusal(json!([])).split(':').next(),
        Some("Pod in version \"v1\" cannot be handled as a Pod")
    );
    assert_eq!(
        strict("{").unwrap_err().message,
        "the object provided is unrecognized (must be of type Pod): unexpected end of JSON input ({)"
    );
}

#[test]
fn nulls_and_what_omitempty_leaves_out_are_left_out() {
    let body = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "x", "creationTimestamp": null, "labels": {}, "namespace": ""},
        "spec": {
            "volumes": [{"name": "v", "emptyDir": {}}],
            "nodeSelector": {"a": null},
            "hostNetwork": false,
            "automountServiceAccountToken": false,
            "securityContext": {},
            "containers": [{"name": "", "image": "", "resources": {"limits": {"cpu": 2}}}],
            "tolerations": [],
        },
        "status": {},
    });
    assert_eq!(
        strict(&body.to_string()).unwrap().value,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "x"},
            "spec": {
                "volumes": [{"name": "v", "emptyDir": {}}],
                "nodeSelector": {"a": ""},
                "automountServiceAccountToken": false,
                "securityContext": {},
                "containers": [{"name": "", "resources": {"limits": {"cpu": "2"}}}],
            },
            "status": {},
        })
    );
}

#[test]
fn times_are_kept_in_utc_at_the_precision_of_their_kind() {
    let lease = Expected { api_version: "coordination.k8s.io/v1", kind: "Lease" };
    let body = json!({
        "metadata": {"creationTimestamp": "2026-01-01T01:30:00.999+02:00"},
        "spec": {"renewTime": "2026-01-01T00:00:00.1234567Z", "acquireTime": "2026-01-01T00:00:00Z"},
    });
    let got = decode_json(body.to_string().as_bytes(), lease, FieldValidation::Strict).unwrap().value;
    assert_eq!(got["metadata"]["creationTimestamp"], "2025-12-31T23:30:00Z");
    assert_eq!(got["spec"]["renewTime"], "2026-01-01T00:00:00.123456Z");
    assert_eq!(got["spec"]["acquireTime"], "2026-01-01T00:00:00.000000Z");
    let wrong =
        decode_json(br#"{"spec":{"renewTime":"yesterday"}}"#, lease, FieldValidation::Ignore).unwrap_err();
    assert_eq!(
        wrong.message,
        "Lease in version \"v1\" cannot be handled as a Lease: parsing time \"yesterday\" as \
         \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\""
    );
}

#[test]
fn quantities_are_what_the_upstream_parser_takes() {
    for good in ["0", "1", "-1", "+1.5", ".5", "5.", "100m", "1Gi", "1e3", "1E3", "1E", "12e-3", "1n", "64Mi"]
    {
        assert!(is_quantity(good), "{good}");
    }
    for bad in ["", "a", "1 Gi", "1gi", "1KB", "--1", "1.2.3", ".", "1e", "0x10", "1mi"] {
        assert!(!is_quantity(bad), "{bad}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "metadata",
        "spec",
        "status",
        "containers",
        "name",
        "ports",
        "containerPort",
        "volumes",
        "emptyDir",
        "resources",
        "limits",
        "cpu",
        "labels",
        "env",
        "valueFrom",
        "x",
        "",
        "securityContext",
        "creationTimestamp",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_map(|f| json!(f)),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..5).prop_map(|entries| Value::Object(
                entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn no_document_makes_it_panic_and_what_it_accepts_it_accepts_unchanged(mut body in any_json()) {
        if let Value::Object(map) = &mut body {
            map.insert("kind".into(), "Pod".into());
            map.insert("apiVersion".into(), "v1".into());
        }
        let text = body.to_string();
        if let Ok(first) = decode_json(text.as_bytes(), POD, FieldValidation::Warn) {
            let again = decode_json(first.value.to_string().as_bytes(), POD, FieldValidation::Strict).unwrap();
            prop_assert_eq!(again.value, first.value);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_json(&body, POD, FieldValidation::Strict);
        let _ = decode_yaml(&body, POD, FieldValidation::Strict);
    }
}

#[test]
fn an_empty_list_of_managers_is_kept_and_no_other_empty_list() {
    let body = json!({"metadata": {"name": "x", "managedFields": [], "finalizers": []},
        "spec": {"containers": [], "volumes": []}});
    let decoded = strict(&body.to_string()).unwrap().value;
    assert_eq!(decoded["metadata"], json!({"name": "x", "managedFields": []}));
    assert_eq!(decoded["spec"], json!({"containers": []}));
}
