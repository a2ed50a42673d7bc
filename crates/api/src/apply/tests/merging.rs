use super::*;

fn names(world: &World, pointer: &str) -> Vec<String> {
    let list = world.object().pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

const CONTAINERS: &str = "/spec/template/spec/containers";

fn named(list: &[&str]) -> Value {
    containers(list.iter().map(|name| json!({"name": name, "image": "i"})).collect())
}

#[test]
fn lists_by_key_follow_the_order_of_the_configuration() {
    // What is there, what another applies, what comes out.
    let table: &[(&[&str], &[&str], &str)] = &[
        (&["a", "b", "c"], &["c"], "a b c"),
        (&["a", "b", "c"], &["c", "a"], "b c a"),
        (&["a", "b"], &["x", "b"], "a x b"),
        (&["a", "b"], &["b", "x"], "a b x"),
        (&["a"], &["x"], "a x"),
        (&[], &["x", "y"], "x y"),
        (&["a", "b", "c", "d"], &["d", "x", "b"], "a c d x b"),
    ];
    for (there, applied, want) in table {
        let mut world = World::new("apps/v1", "Deployment");
        world.write("other", named(there));
        world.force("me", named(applied));
        assert_eq!(names(&world, CONTAINERS).join(" "), *want, "{there:?} + {applied:?}");
    }
}

#[test]
fn ports_are_known_by_number_and_defaulted_protocol() {
    let mut world = World::new("apps/v1", "Deployment");
    let ports = |ports: Value| containers(json!([{"name": "a", "ports": ports}]));
    world.write(
        "other",
        ports(json!([{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}])),
    );
    world.apply("me", ports(json!([{"containerPort": 53, "name": "dns"}]))).unwrap();
    let there = &world.object()["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(
        there,
        &json!([{"containerPort": 53, "protocol": "TCP", "name": "dns"}, {"containerPort": 53, "protocol": "UDP"}])
    );
}

#[test]
fn atomic_values_are_replaced_and_sets_are_joined() {
    let mut world = World::new("v1", "Service");
    let service = |selector: Value, finalizers: Value| json!({"metadata": {"name": "s", "finalizers": finalizers}, "spec": {"selector": selector}});
    world.write("other", service(json!({"a": "b"}), json!(["x/a"])));
    world.force("me", service(json!({"c": "d"}), json!(["x/b"])));
    assert_eq!(world.object()["spec"]["selector"], json!({"c": "d"}));
    assert_eq!(world.object()["metadata"]["finalizers"], json!(["x/a", "x/b"]));
    assert_eq!(world.owned("other"), [".metadata.finalizers", ".metadata.finalizers[=\"x/a\"]"]);
}

#[test]
fn what_is_no_longer_applied_goes_unless_others_own_it() {
    let mut world = World::new("apps/v1", "Deployment");
    world
        .apply(
            "one",
            containers(json!([{"name": "a", "image": "i", "tty": true}, {"name": "b", "image": "i"}])),
        )
        .unwrap();
    world.apply("two", containers(json!([{"name": "b", "image": "i"}]))).unwrap();
    world.apply("one", containers(json!([{"name": "a", "image": "i"}]))).unwrap();
    assert_eq!(names(&world, CONTAINERS), ["a", "b"], "two has b too");
    assert_eq!(
        world.object().pointer(CONTAINERS).unwrap()[0],
        json!({"name": "a", "image": "i"}),
        "tty was one's alone"
    );
    world.apply("two", deployment(json!({"replicas": 1}))).unwrap();
    assert_eq!(names(&world, CONTAINERS), ["a"]);
    assert_eq!(world.object()["spec"]["replicas"], 1);
}

#[test]
fn an_item_goes_with_its_owner_also_where_others_set_fields_in_it() {
    let mut world = World::new("apps/v1", "Deployment");
    world
        .apply("one", containers(json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])))
        .unwrap();
    let mut object = world.object().clone();
    object["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] = "Always".into();
    world.write("controller", object);
    world.apply("one", containers(json!([{"name": "a", "image": "i"}]))).unwrap();
    assert_eq!(names(&world, CONTAINERS), ["a"]);
    assert_eq!(world.managers(), ["one"], "what the controller owned went with it");
}

#[test]
fn what_defaults_make_equal_is_no_conflict() {
    let mut world = World::new("networking.k8s.io/v1", "NetworkPolicy");
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}});
    world.apply("one", policy.clone()).unwrap();
    // As it is stored: the list is one value, and has more in it than was said.
    let mut stored = world.object().clone();
    crate::defaults::apply_kind("networking.k8s.io", "NetworkPolicy", &mut stored);
    assert_ne!(stored["spec"]["ingress"], policy["spec"]["ingress"]);
    world.object = Some(stored);
    world.apply("two", policy).unwrap();
    assert_eq!(world.owned("one"), world.owned("two"));

    let mut world = World::new("apps/v1", "Deployment");
    let limit = |cpu: Value| containers(json!([{"name": "a", "resources": {"limits": {"cpu": cpu}}}]));
    world.apply("one", limit("1".into())).unwrap();
    world.apply("two", limit("1000m".into())).unwrap();
    world.apply("three", limit("500m".into())).unwrap_err();
}

#[test]
fn what_go_does_not_write_is_no_conflict() {
    let mut world = World::new("apps/v1", "Deployment");
    let config =
        containers(json!([{"name": "a", "tty": false, "env": [], "resources": {"limits": {"cpu": 1}}}]));
    world.apply("one", config.clone()).unwrap();
    world.apply("two", config).unwrap();
    assert_eq!(world.owned("one"), world.owned("two"));
    assert_eq!(
        world.object().pointer(CONTAINERS).unwrap(),
        &json!([{"name": "a", "resources": {"limits": {"cpu": "1"}}}])
    );
}

#[test]
fn a_whole_struct_goes_with_its_last_field() {
    let mut world = World::new("apps/v1", "Deployment");
    let pod = |spec: Value| deployment(json!({"replicas": 1, "template": {"spec": spec}}));
    world
        .apply(
            "me",
            pod(json!({"securityContext": {"runAsUser": 1}, "nodeSelector": {"a": "b"}, "hostname": "h"})),
        )
        .unwrap();
    world.apply("me", pod(json!({"hostname": "h"}))).unwrap();
    assert_eq!(world.object()["spec"]["template"]["spec"], json!({"hostname": "h"}));
    world.apply("me", deployment(json!({"replicas": 1}))).unwrap();
    assert_eq!(world.object()["spec"], json!({"replicas": 1}));
}

#[test]
fn null_is_a_value() {
    let mut world = World::new("apps/v1", "Deployment");
    world.write("other", deployment(json!({"replicas": 3, "paused": true})));
    let said = world.apply("me", deployment(json!({"replicas": null}))).unwrap_err();
    assert!(said.message.ends_with("conflict with \"other\" using apps/v1: .spec.replicas"), "{said}");
    world.force("me", deployment(json!({"replicas": null})));
    assert_eq!(world.object()["spec"], json!({"paused": true}));
    assert_eq!(world.owned("me"), [".spec.replicas"]);
}
