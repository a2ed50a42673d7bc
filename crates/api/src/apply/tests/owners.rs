use super::*;

#[test]
fn two_appliers_of_one_value_share_it_and_of_two_values_conflict() {
    let mut world = World::new("apps/v1", "Deployment");
    world.apply("one", deployment(json!({"replicas": 1}))).unwrap();
    world.apply("two", deployment(json!({"replicas": 1}))).unwrap();
    assert_eq!(
        (world.owned("one"), world.owned("two")),
        (vec![".spec.replicas".to_owned()], vec![".spec.replicas".to_owned()])
    );
    let said = world.apply("two", deployment(json!({"replicas": 2}))).unwrap_err();
    assert_eq!(said.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    assert_eq!((said.code, said.reason.as_str()), (409, "Conflict"));
    let cause = &said.details.unwrap().causes[0];
    assert_eq!(
        (cause.reason.as_str(), cause.message.as_str(), cause.field.as_str()),
        ("FieldManagerConflict", "conflict with \"one\"", ".spec.replicas")
    );
    assert_eq!(world.object()["spec"]["replicas"], 1, "nothing was done");
    world.force("two", deployment(json!({"replicas": 2})));
    assert_eq!(world.managers(), ["two"], "one owns nothing any more");
}

#[test]
fn many_conflicts_are_listed_by_manager() {
    let mut world = World::new("apps/v1", "Deployment");
    world.write("kubectl-create", deployment(json!({"replicas": 1, "paused": true})));
    world.apply("zed", deployment(json!({"minReadySeconds": 3}))).unwrap();
    let said = world
        .apply("me", deployment(json!({"replicas": 2, "paused": false, "minReadySeconds": 4})))
        .unwrap_err();
    assert_eq!(
        said.message,
        "Apply failed with 3 conflicts: conflicts with \"kubectl-create\" using apps/v1:\n- .spec.paused\n- .spec.replicas\n\
         conflicts with \"zed\":\n- .spec.minReadySeconds"
    );
}

#[test]
fn a_writer_owns_what_it_changed_and_appliers_do_no_more() {
    let mut world = World::new("apps/v1", "Deployment");
    world.apply("me", deployment(json!({"replicas": 1, "paused": true}))).unwrap();
    let mut object = world.object().clone();
    object["spec"]["replicas"] = 5.into();
    object["metadata"]["resourceVersion"] = "7".into();
    object["status"] = json!({"replicas": 5});
    world.write("scaler", object.clone());
    assert_eq!(world.owned("me"), [".spec.paused"]);
    assert_eq!(world.owned("scaler"), [".spec.replicas"], "neither the version nor the status");
    let times = world.managed.clone();
    world.write("scaler", object.clone());
    assert_eq!(world.managed, times, "a write that changes nothing leaves no time");
    object["spec"].as_object_mut().unwrap().remove("replicas");
    world.write("other", object);
    assert_eq!(world.managers(), ["me"]);
}

#[test]
fn of_an_object_without_managers_the_first_apply_finds_one() {
    let mut world = World::new("apps/v1", "Deployment");
    let mut old = deployment(json!({"replicas": 1, "paused": true}));
    old["status"] = json!({"replicas": 1});
    world.object = Some(old);
    world.write("late", deployment(json!({"replicas": 2, "paused": true})));
    assert!(world.managed.is_empty(), "nothing is tracked before an apply");
    let said = world.apply("me", deployment(json!({"replicas": 3}))).unwrap_err();
    assert_eq!(
        said.message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
    world.force("me", deployment(json!({"replicas": 3})));
    assert_eq!(world.owned("before-first-apply"), [".spec.paused"]);
}

#[test]
fn client_side_apply_is_taken_over_by_kubectl_alone() {
    let annotated = |image: &str| {
        let config = containers(json!([{"name": "a", "image": image}]));
        let mut object = config.clone();
        object["metadata"]["annotations"] = json!({LAST_APPLIED: config.to_string()});
        object
    };
    let mut world = World::new("apps/v1", "Deployment");
    world.write("kubectl-client-side-apply", annotated("i:1"));
    let new = containers(json!([{"name": "a", "image": "i:2"}]));
    let said = world.apply("me", new.clone()).unwrap_err();
    assert!(said.message.contains("conflict with \"kubectl-client-side-apply\" using apps/v1"), "{said}");
    world.apply("kubectl", new.clone()).unwrap();
    let annotation = world.object()["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert!(annotation.ends_with('\n'));
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), new, "it says what was applied last");

    // Somebody changed it since: then it is not what the annotation says, and that one is asked for.
    let mut edited = world.object().clone();
    edited["spec"]["template"]["spec"]["containers"][0]["image"] = "i:3".into();
    world.write("editor", edited);
    let said = world.apply("kubectl", containers(json!([{"name": "a", "image": "i:4"}]))).unwrap_err();
    assert!(
        said.message.contains(
            "conflict with \"editor\" using apps/v1: .spec.template.spec.containers[name=\"a\"].image"
        ),
        "{said}"
    );
}

#[test]
fn old_updaters_are_put_together() {
    let mut world = World::new("v1", "ConfigMap");
    let mut object = json!({"metadata": {"name": "c"}, "data": {}});
    world.apply("applier", object.clone()).unwrap();
    for number in 0..14 {
        object["data"][format!("k{number:02}")] = "v".into();
        world.write(&format!("w{number:02}"), object.clone());
    }
    let managers = world.managers();
    assert_eq!(managers.len(), 10, "{managers:?}");
    assert_eq!((managers[0], managers[9]), ("ancient-changes", "w13"));
    let ancient = world.owned("ancient-changes");
    assert_eq!(ancient.len(), 6, "{ancient:?}");
    assert!(ancient.contains(&".data.k04".to_owned()) && ancient.contains(&".data".to_owned()));
}

#[test]
fn what_a_request_says_of_managers_counts_where_it_can_be_read() {
    let live = json!([{"manager": "a", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}}]);
    let sent = |value: Value| {
        Managed::of_request(value, Some(&live))
            .entries()
            .iter()
            .map(|e| e.manager.clone())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut renamed = live.clone();
    renamed[0]["manager"] = "b".into();
    let mut broken = renamed.clone();
    broken[0]["operation"] = "Steal".into();
    let mut untyped = renamed.clone();
    untyped[0].as_object_mut().unwrap().remove("fieldsType");
    let table = [
        (Value::Null, "a"),
        (live.clone(), "a"),
        (renamed, "b"),
        (broken, "a"),
        (untyped, "a"),
        (json!([]), ""),
        (json!([{}]), ""),
        (json!([{}, {}]), "a"),
    ];
    for (value, want) in table {
        assert_eq!(sent(value.clone()), want, "{value}");
    }
}

#[test]
fn entries_are_read_and_written_as_upstream_lists_them() {
    let value = json!([
        {"manager": "z", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:09Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}},
        {"manager": "a", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:01Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}},
        {"manager": "a", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:01Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}, "subresource": "status"},
    ]);
    assert_eq!(Managed::parse(&value).unwrap().into_value().unwrap(), value);
    let mut later = value.clone();
    later[1]["time"] = "2026-01-01T00:00:02Z".into();
    assert!(same_but_times(Some(&value), Some(&later)) && !same_but_times(Some(&value), None));
    later[1]["fieldsV1"] = json!({"f:immutable": {}});
    assert!(!same_but_times(Some(&value), Some(&later)));
}
