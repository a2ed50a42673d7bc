use super::*;
use crate::schema;
use proptest::prelude::*;
use serde_json::json;

fn strategic_on(kind: (&str, &str), object: Value, patch: Value) -> Result<Value, String> {
    let ty = schema::by_kind(kind.0, kind.1).unwrap();
    let patch = Patch::parse(STRATEGIC, patch.to_string().as_bytes()).map_err(|e| e.message)?;
    patch.apply(&object, ty, FieldValidation::Strict).map(|d| d.value).map_err(|e| e.message)
}

/// Applies a strategic merge patch to a pod's spec.
fn spec(before: Value, patch: Value) -> Value {
    let after = strategic_on(("v1", "Pod"), json!({"spec": before}), json!({"spec": patch})).unwrap();
    after["spec"].clone()
}

#[test]
fn lists_with_a_merge_key_are_merged_by_it() {
    let before = json!({"containers": [
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]},
        {"name": "b", "image": "b:1"},
    ]});
    let patch = json!({"containers": [{"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c"}]});
    assert_eq!(
        spec(before, patch),
        json!({"containers": [
            {"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
            {"name": "c"},
            {"name": "b", "image": "b:1"},
        ]})
    );
}

#[test]
fn ports_of_one_number_and_two_protocols_are_one_to_the_merge_key() {
    // Upstream's known limit: the merge key is containerPort alone, so the first match is changed.
    let before = json!({"containers": [{"name": "a", "ports": [
        {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"},
    ]}]});
    let patch = json!({"containers": [{"name": "a", "ports": [{"containerPort": 53, "name": "dns"}]}]});
    assert_eq!(
        spec(before, patch)["containers"][0]["ports"],
        json!([{"containerPort": 53, "protocol": "UDP", "name": "dns"}, {"containerPort": 53, "protocol": "TCP"}])
    );
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    let before = json!({"containers": [{"name": "a", "args": ["1", "2"]}], "tolerations": [{"key": "x"}]});
    let patch = json!({"containers": [{"name": "a", "args": ["3"]}], "tolerations": [{"key": "y"}]});
    assert_eq!(
        spec(before, patch),
        json!({"containers": [{"name": "a", "args": ["3"]}], "tolerations": [{"key": "y"}]})
    );
}

#[test]
fn elements_and_objects_are_deleted_and_replaced_by_directive() {
    let before = || json!({"containers": [{"name": "a"}, {"name": "b", "image": "x"}], "nodeSelector": {"a": "1", "b": "2"}});
    let table = [
        (
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b", "image": "x"}], "nodeSelector": {"a": "1", "b": "2"}}),
        ),
        (
            json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
            json!({"containers": [{"name": "c"}], "nodeSelector": {"a": "1", "b": "2"}}),
        ),
        (
            json!({"nodeSelector": {"$patch": "replace", "c": "3"}}),
            json!({"containers": [{"name": "a"}, {"name": "b", "image": "x"}], "nodeSelector": {"c": "3"}}),
        ),
        (
            json!({"nodeSelector": {"$patch": "delete"}}),
            json!({"containers": [{"name": "a"}, {"name": "b", "image": "x"}]}),
        ),
        (json!({"nodeSelector": null}), json!({"containers": [{"name": "a"}, {"name": "b", "image": "x"}]})),
        (
            json!({"nodeSelector": {"a": null}}),
            json!({"containers": [{"name": "a"}, {"name": "b", "image": "x"}], "nodeSelector": {"b": "2"}}),
        ),
        (
            json!({"containers": [{"name": "new", "image": null}, {"name": "gone", "$patch": "delete"}]}),
            json!({
                "containers": [{"name": "new"}, {"name": "a"}, {"name": "b", "image": "x"}],
                "nodeSelector": {"a": "1", "b": "2"},
            }),
        ),
    ];
    for (patch, want) in table {
        let after = spec(before(), patch.clone());
        // An element that is new goes before or after those of the server; which, the order tests say.
        let names = |v: &Value| {
            let mut n: Vec<String> =
                v["containers"].as_array().unwrap().iter().map(|c| c.to_string()).collect();
            n.sort();
            n
        };
        assert_eq!(names(&after), names(&want), "{patch}");
        assert_eq!(after.get("nodeSelector"), want.get("nodeSelector"), "{patch}");
    }
}

#[test]
fn retain_keys_drops_the_other_members_of_a_union() {
    let before = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let after = strategic_on(("apps/v1", "Deployment"), before, patch).unwrap();
    assert_eq!(after["spec"]["strategy"], json!({"type": "Recreate"}));

    let before = json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]});
    let patch =
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]});
    assert_eq!(
        spec(before.clone(), patch)["volumes"],
        json!([{"name": "v", "hostPath": {"path": "/x"}}, {"name": "w", "emptyDir": {}}])
    );
    let wrong =
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {"path": "/x"}}]}});
    let error = strategic_on(("v1", "Pod"), json!({"spec": before}), wrong).unwrap_err();
    assert_eq!(error, "invalid patch format of retainKeys");
}

/// What kubectl 1.32 sent when `apply` changed a strategy, dropped a container and an env entry, and turned an emptyDir into a
/// hostPath.
#[test]
fn the_patch_of_a_client_side_apply_comes_out_as_applied() {
    let before = json!({"spec": {
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"spec": {
            "containers": [
                {"name": "a", "image": "a:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "b", "image": "b:1"},
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
        }},
    }, "metadata": {"labels": {"a": "b"}}});
    let patch = json!({"metadata": {"labels": null}, "spec": {
        "replicas": 3,
        "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
        "template": {"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "$setElementOrder/volumes": [{"name": "v"}],
            "containers": [
                {"image": "c:1", "name": "c"},
                {
                    "$setElementOrder/env": [{"name": "B"}],
                    "env": [{"name": "B", "value": "3"}, {"$patch": "delete", "name": "A"}],
                    "image": "a:2",
                    "name": "a",
                },
                {"$patch": "delete", "name": "b"},
            ],
            "volumes": [{"$retainKeys": ["hostPath", "name"], "emptyDir": null, "hostPath": {"path": "/x"}, "name": "v"}],
        }},
    }});
    assert_eq!(
        strategic_on(("apps/v1", "Deployment"), before, patch).unwrap(),
        json!({"metadata": {}, "spec": {
            "replicas": 3,
            "strategy": {"type": "Recreate"},
            "template": {"spec": {
                "containers": [
                    {"name": "c", "image": "c:1"},
                    {"name": "a", "image": "a:2", "env": [{"name": "B", "value": "3"}]},
                ],
                "volumes": [{"name": "v", "hostPath": {"path": "/x"}}],
            }},
        }})
    );
}

#[test]
fn scalars_are_added_to_and_deleted_from_sets() {
    let patched = |patch: Value| {
        let before = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
        strategic_on(("v1", "Namespace"), before, json!({"metadata": patch})).unwrap()["metadata"]["finalizers"].clone()
    };
    assert_eq!(patched(json!({"finalizers": ["d", "a"]})), json!(["d", "a", "b", "c"]));
    assert_eq!(patched(json!({"$deleteFromPrimitiveList/finalizers": ["b", "x"]})), json!(["a", "c"]));
    assert_eq!(
        patched(json!({
            "$deleteFromPrimitiveList/finalizers": ["b"],
            "$setElementOrder/finalizers": ["c", "d", "a"],
            "finalizers": ["d"],
        })),
        json!(["c", "d", "a"])
    );
}

#[test]
fn elements_stand_in_the_order_that_the_patch_asks() {
    let before = json!({"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]});
    let patch = json!({
        "$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
        "containers": [{"name": "new", "image": "x"}],
    });
    assert_eq!(
        spec(before.clone(), patch)["containers"],
        json!([{"name": "server"}, {"name": "b"}, {"name": "new", "image": "x"}, {"name": "a"}])
    );
    // Only the order, and a null in place of the list.
    let order = json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]});
    assert_eq!(spec(before, order)["containers"], json!([{"name": "server"}, {"name": "b"}, {"name": "a"}]));
    let wrong =
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}});
    let error = strategic_on(("v1", "Pod"), json!({"spec": {"containers": []}}), wrong).unwrap_err();
    assert_eq!(error, "invalid patch format of setElementOrder list");
}

#[test]
fn patches_that_cannot_be_merged_are_refused() {
    let refused = |patch: Value| {
        strategic_on(("v1", "Pod"), json!({"spec": {"containers": [{"name": "a"}]}}), patch).unwrap_err()
    };
    assert_eq!(
        refused(json!({"spec": {"containers": [{"image": "x"}]}})),
        "map: {\"image\":\"x\"} does not contain declared merge key: name"
    );
    assert_eq!(refused(json!({"$patch": "explode"})), "unknown patch type found: explode");
    assert_eq!(
        refused(json!({"spec": {"containers": [{"$patch": "delete"}]}})),
        "delete patch type with no merge key defined"
    );
    assert!(
        refused(json!({"spec": {"container": []}}))
            .ends_with("strict decoding error: unknown field \"spec.container\"")
    );
    assert!(refused(json!({"spec": {"hostNetwork": "x"}})).contains("of type bool"));
    assert_eq!(Patch::parse("text/plain", b"{}").unwrap_err().code, 415);
    assert_eq!(Patch::parse(STRATEGIC, b"[]").unwrap_err().code, 400);
    assert_eq!(
        Patch::parse(MERGE, b"{").unwrap_err().message,
        "error decoding patch: unexpected end of JSON input"
    );
}

#[test]
fn the_three_kinds_of_patch_reach_the_object() {
    let ty = schema::by_kind("v1", "ConfigMap").unwrap();
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "1"}});
    let want = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "1", "b": "2"}});
    for (media, body) in [
        (JSON, r#"[{"op":"add","path":"/data/b","value":"2"}]"#),
        (MERGE, r#"{"data":{"b":"2"}}"#),
        ("application/strategic-merge-patch+json; charset=utf-8", r#"{"data":{"b":"2"}}"#),
    ] {
        let patch = Patch::parse(media, body.as_bytes()).unwrap();
        assert_eq!(patch.apply(&object, ty, FieldValidation::Strict).unwrap().value, want, "{media}");
    }
    let twice = Patch::parse(MERGE, br#"{"data":{"b":"1","b":"2"},"x":1}"#).unwrap();
    let warned = twice.apply(&object, ty, FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, ["duplicate field \"data.b\"", "unknown field \"x\""]);
    assert_eq!(twice.apply(&object, ty, FieldValidation::Strict).unwrap_err().code, 422);
}

fn containers() -> impl Strategy<Value = Value> {
    let container = ("[a-e]", prop::option::of("[xyz]"), prop::collection::btree_map("[A-C]", "[0-9]", 0..3));
    prop::collection::vec(container, 0..5).prop_map(|list| {
        let mut seen = std::collections::BTreeSet::new();
        let list: Vec<Value> = list
            .into_iter()
            .filter(|(name, ..)| seen.insert(name.clone()))
            .map(|(name, image, env)| {
                let mut c = json!({"name": name});
                if let Some(image) = image {
                    c["image"] = image.into();
                }
                let env: Vec<Value> = env.iter().map(|(k, v)| json!({"name": k, "value": v})).collect();
                if !env.is_empty() {
                    c["env"] = env.into();
                }
                c
            })
            .collect();
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": list}})
    })
}

/// The strategic merge patch from one list of containers to the other, by the definition of the directives.
fn difference(before: &Value, after: &Value) -> Value {
    let list = |v: &Value| v["spec"]["containers"].as_array().unwrap().clone();
    let order: Vec<Value> = list(after).iter().map(|c| json!({"name": c["name"]})).collect();
    let mut changes: Vec<Value> = list(after)
        .into_iter()
        .map(|mut c| {
            c["$patch"] = "replace".into();
            c.as_object_mut().unwrap().remove("$patch");
            let old = list(before).into_iter().find(|o| o["name"] == c["name"]);
            if let Some(old) = old {
                if old.get("image").is_some() && c.get("image").is_none() {
                    c["image"] = Value::Null;
                }
                let old_env = old["env"].as_array().cloned().unwrap_or_default();
                let new_env = c["env"].as_array().cloned().unwrap_or_default();
                let mut env = new_env.clone();
                for gone in old_env.iter().filter(|o| !new_env.iter().any(|n| n["name"] == o["name"])) {
                    env.push(json!({"name": gone["name"], "$patch": "delete"}));
                }
                if !env.is_empty() {
                    c["env"] = env.into();
                }
            }
            c
        })
        .collect();
    for gone in list(before).iter().filter(|o| !list(after).iter().any(|n| n["name"] == o["name"])) {
        changes.push(json!({"name": gone["name"], "$patch": "delete"}));
    }
    json!({"spec": {"$setElementOrder/containers": order, "containers": changes}})
}

proptest! {
    #[test]
    fn a_strategic_patch_leads_from_any_object_to_any_other(before in containers(), after in containers()) {
        let patch = difference(&before, &after);
        let mut got = strategic_on(("v1", "Pod"), before, patch).unwrap();
        let mut want = after;
        conform(&mut want, schema::by_kind("v1", "Pod").unwrap()).unwrap();
        conform(&mut got, schema::by_kind("v1", "Pod").unwrap()).unwrap();
        prop_assert_eq!(got, want);
    }

    #[test]
    fn a_merge_patch_leads_from_any_object_to_any_other(before in containers(), after in containers()) {
        fn diff(a: &Value, b: &Value) -> Value {
            let (Value::Object(a), Value::Object(b)) = (a, b) else { return b.clone() };
            let mut out = serde_json::Map::new();
            for key in a.keys().filter(|k| !b.contains_key(*k)) {
                out.insert(key.clone(), Value::Null);
            }
            for (key, value) in b.iter().filter(|(k, v)| a.get(*k) != Some(v)) {
                out.insert(key.clone(), diff(&a.get(key).cloned().unwrap_or(json!({})), value));
            }
            Value::Object(out)
        }
        let mut got = before.clone();
        merge::apply(&mut got, &diff(&before, &after));
        prop_assert_eq!(got, after);
    }
}
