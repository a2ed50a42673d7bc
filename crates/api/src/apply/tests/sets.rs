use super::*;

fn set(fields: Value) -> FieldSet {
    FieldSet::parse(&fields).unwrap()
}

#[test]
fn a_set_is_its_fields_v1() {
    let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:replicas": {},
        "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
        "f:finalizers": {"v:\"a/b\"": {}}, "f:list": {"i:3": {}}}});
    let parsed = set(fields.clone());
    assert_eq!(parsed.clone().into_fields(), fields);
    let paths: Vec<String> = parsed.to_string().lines().map(str::to_owned).collect();
    assert_eq!(
        paths,
        [
            ".metadata.labels",
            ".metadata.labels.app",
            ".spec.replicas",
            ".spec.finalizers[=\"a/b\"]",
            ".spec.list[3]",
            ".spec.ports[port=80,protocol=\"TCP\"]",
            ".spec.ports[port=80,protocol=\"TCP\"].port",
        ]
    );
    assert!(parsed.contains(&["f:metadata", "f:labels"]) && !parsed.contains(&["f:metadata"]));
}

#[test]
fn what_others_write_differently_is_the_same_set() {
    let theirs = set(
        json!({"f:ports": {"k:{\"protocol\": \"TCP\", \"port\": 80}": {"f:port": {}, ".": {}}}, "x:new": {}}),
    );
    let ours = set(json!({"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}));
    assert_eq!(theirs, ours);
    assert!(set(json!({})).is_empty());
}

#[test]
fn what_is_no_set_is_refused() {
    let table = [
        (json!([]), "expected object, found []"),
        (json!({"f:a": 1}), "expected object, found 1"),
        (json!({"f": {}}), "key must be 2 characters long:"),
        (json!({"spec": {}}), "missing colon: spec"),
        (json!({"é": {}}), "missing colon: é"),
        (json!({"k:{": {}}), "EOF while parsing an object at line 1 column 1"),
        (json!({"i:x": {}}), "invalid digit found in string"),
    ];
    for (fields, why) in table {
        assert_eq!(FieldSet::parse(&fields).unwrap_err().to_string(), why, "{fields}");
    }
}

#[test]
fn sets_are_added_and_subtracted_by_member() {
    let ab = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
    let a = set(json!({"f:a": {}}));
    let b = set(json!({"f:a": {"f:b": {}}}));
    assert_eq!(
        ab.clone().difference(&a),
        set(json!({"f:a": {"f:b": {}}, "f:c": {}})),
        "a child stays without its parent"
    );
    assert_eq!(ab.clone().difference(&b), set(json!({"f:a": {}, "f:c": {}})));
    assert_eq!(ab.clone().difference(&ab), FieldSet::default());
    assert_eq!(a.clone().union(&b), set(json!({"f:a": {".": {}, "f:b": {}}})));
    assert_eq!(ab.intersection(&a), a);
    assert_eq!(a.intersection(&b), FieldSet::default());
}

#[test]
fn a_configuration_owns_its_leaves_keys_and_items() {
    let config = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "labels": {"a": "b"}, "annotations": {},
        "finalizers": ["x/y"]}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], "externalIPs": ["1.2.3.4"]}});
    let mut world = World::new("v1", "Service");
    world.apply("me", config).unwrap();
    assert_eq!(
        world.owned("me"),
        [
            ".metadata.annotations",
            ".metadata.finalizers[=\"x/y\"]",
            ".metadata.labels.a",
            ".spec.externalIPs",
            ".spec.selector",
            ".spec.ports[port=80,protocol=\"TCP\"]",
            ".spec.ports[port=80,protocol=\"TCP\"].port",
        ]
    );
}

#[test]
fn a_creator_owns_what_go_would_not_write_by_itself() {
    let mut world = World::new("apps/v1", "Deployment");
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "strategy": {"rollingUpdate": {"maxSurge": 1}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}});
    world.write("kubectl-create", deployment(spec));
    // As `kubectl create deployment` leaves it in Kubernetes.
    assert_eq!(
        world.managed.clone().into_value().unwrap()[0]["fieldsV1"],
        json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}})
    );
}

#[test]
fn a_configuration_is_checked_in_upstreams_words() {
    let table = [
        (deployment(json!({"foo": 1})), ".spec.foo: field not declared in schema"),
        (
            deployment(json!({"replicas": "1"})),
            ".spec.replicas: expected numeric (int or float), got *value.valueUnstructured",
        ),
        (
            containers(json!([{"image": "i"}])),
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
        ),
        (
            containers(json!([{"name": "a"}, {"name": "a"}])),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            containers(json!([{"name": "a", "env": [{"name": "b", "value": 1}]}])),
            ".spec.template.spec.containers[name=\"a\"].env[name=\"b\"].value: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            deployment(json!({"foo": 1, "paused": "x"})),
            "errors:\n  .spec.foo: field not declared in schema\n  .spec.paused: expected boolean, got &value.valueUnstructured{Value:\"x\"}",
        ),
    ];
    let ty = schema::by_kind("apps/v1", "Deployment").unwrap();
    for (config, why) in table {
        assert_eq!(check(&config, ty).unwrap_err(), why);
    }
    check(&containers(json!([{"name": "a", "resources": {"limits": {"cpu": 1}}}])), ty).unwrap();
}
