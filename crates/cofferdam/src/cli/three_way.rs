//! The strategic merge patch of a client-side apply: what must change in the live object so that it says what the
//! manifest says, and no longer says what only the last manifest said. What others wrote is left alone.

use api::schema::{Field, Type};
use serde_json::{Map, Value, json};

/// `original` is the last manifest applied, `modified` the new one, `current` the live object. `kind` is the schema of
/// the object; without one lists are replaced whole. An empty object says that nothing changes.
pub fn patch(
    original: Option<&Value>,
    modified: &Value,
    current: &Value,
    kind: Option<&'static Type>,
) -> Value {
    let empty = Map::new();
    let map =
        |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_else(|| empty.clone());
    Value::Object(maps(&map(original), &map(Some(modified)), &map(Some(current)), kind))
}

type Object = Map<String, Value>;

fn maps(original: &Object, modified: &Object, current: &Object, kind: Option<&'static Type>) -> Object {
    let mut out = Object::new();
    for (key, want) in modified {
        let field = kind.and_then(|t| t.field(key));
        let below = field.and_then(|f| f.shape.object());
        match (current.get(key), want) {
            (None | Some(Value::Null), Value::Null) => {}
            (None | Some(Value::Null), _) => {
                out.insert(key.clone(), want.clone());
            }
            (Some(Value::Object(have)), Value::Object(want)) => {
                let before = original.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
                let changes = retained(field, want, have, maps(&before, want, have, below));
                if !changes.is_empty() {
                    out.insert(key.clone(), Value::Object(changes));
                }
            }
            (Some(Value::Array(have)), Value::Array(want)) => {
                let before =
                    original.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                match field.filter(|f| f.strategy.merge) {
                    Some(field) => lists(&mut out, key, field, before, want, have),
                    None if have != want => {
                        out.insert(key.clone(), Value::Array(want.clone()));
                    }
                    None => {}
                }
            }
            (Some(have), want) if have != want => {
                out.insert(key.clone(), want.clone());
            }
            _ => {}
        }
    }
    for key in original.keys() {
        if !modified.contains_key(key) && current.get(key).is_some_and(|v| !v.is_null()) {
            out.insert(key.clone(), Value::Null);
        }
    }
    out
}

/// Of a union only the member that is wanted may stay (`$retainKeys`): a strategy that becomes Recreate loses its
/// `rollingUpdate`, which the server had filled in.
fn retained(field: Option<&Field>, want: &Object, have: &Object, mut changes: Object) -> Object {
    let union = field.is_some_and(|f| f.strategy.retain_keys);
    if union && !changes.is_empty() && have.keys().any(|key| !want.contains_key(key)) {
        let keys: Vec<&String> = want.keys().collect();
        // What is not retained goes; to name it as well is refused ("invalid patch format of retainKeys").
        changes.retain(|_, value| !value.is_null());
        changes.insert("$retainKeys".to_owned(), json!(keys));
    }
    changes
}

/// A list whose elements are known by a key, or a set of plain values.
fn lists(out: &mut Object, name: &str, field: &Field, before: &[Value], want: &[Value], have: &[Value]) {
    let Some(key) = field.strategy.key else {
        let added: Vec<&Value> = want.iter().filter(|v| !have.contains(v)).collect();
        if !added.is_empty() {
            out.insert(name.to_owned(), json!(added));
        }
        let gone: Vec<&Value> = before.iter().filter(|v| !want.contains(v) && have.contains(v)).collect();
        if !gone.is_empty() {
            out.insert(format!("$deleteFromPrimitiveList/{name}"), json!(gone));
        }
        return;
    };
    let find = |list: &[Value], id: &Value| list.iter().find(|item| item.get(key) == Some(id)).cloned();
    let mut changes = Vec::new();
    for item in want {
        // An element without its key cannot be matched: the server says what is wrong with it.
        let Some(id) = item.get(key) else {
            changes.push(item.clone());
            continue;
        };
        let (Some(Value::Object(current)), Value::Object(modified)) = (find(have, id), item) else {
            changes.push(item.clone());
            continue;
        };
        let original = find(before, id).and_then(|v| v.as_object().cloned()).unwrap_or_default();
        let mut change = maps(&original, modified, &current, field.shape.object());
        change = retained(Some(field), modified, &current, change);
        if !change.is_empty() {
            change.insert(key.to_owned(), id.clone());
            changes.push(Value::Object(change));
        }
    }
    for item in before {
        let Some(id) = item.get(key) else { continue };
        if find(want, id).is_none() && find(have, id).is_some() {
            changes.push(json!({"$patch": "delete", key: id}));
        }
    }
    if !changes.is_empty() {
        out.insert(name.to_owned(), Value::Array(changes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(original: Value, modified: Value, current: Value) -> Value {
        let kind = api::schema::by_kind("apps/v1", "Deployment");
        assert!(kind.is_some(), "the schema has Deployments");
        patch(Some(&original), &modified, &current, kind)
    }

    fn with(image: &str, more: Value) -> Value {
        let mut container = json!({"name": "a", "image": image});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    }

    #[test]
    fn what_the_server_filled_in_is_no_change() {
        let live = with("x", json!({"imagePullPolicy": "Always", "resources": {}}));
        let manifest = with("x", json!({}));
        assert_eq!(deployment(manifest.clone(), manifest, live), json!({}));
    }

    #[test]
    fn elements_are_found_by_their_key() {
        let live = with(
            "x",
            json!({"imagePullPolicy": "Always", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}),
        );
        let last = with("x", json!({"env": [{"name": "A", "value": "1"}]}));
        let next = with("y", json!({"env": [{"name": "C", "value": "3"}]}));
        assert_eq!(
            deployment(last, next, live),
            json!({"spec": {"template": {"spec": {"containers": [{
                "name": "a", "image": "y",
                "env": [{"name": "C", "value": "3"}, {"$patch": "delete", "name": "A"}]
            }]}}}})
        );
    }

    #[test]
    fn what_only_the_last_manifest_said_goes() {
        let last =
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 3, "paused": true}});
        let next = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 3}});
        let live = json!({"metadata": {"labels": {"a": "1", "b": "2", "theirs": "x"}}, "spec": {"replicas": 5, "paused": true, "minReadySeconds": 0}});
        assert_eq!(
            deployment(last.clone(), next.clone(), live),
            json!({"metadata": {"labels": {"b": null}}, "spec": {"replicas": 3, "paused": null}})
        );
        // What somebody has removed already is not removed again.
        assert_eq!(
            deployment(last, next, json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 3}})),
            json!({})
        );
    }

    #[test]
    fn a_union_retains_only_the_member_that_is_wanted() {
        let live =
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}}});
        let next = json!({"spec": {"strategy": {"type": "Recreate"}}});
        assert_eq!(
            deployment(json!({}), next, live),
            json!({"spec": {"strategy": {"type": "Recreate", "$retainKeys": ["type"]}}})
        );
    }

    /// From any manifest to any other: what the server makes of the patch is what it would have made of the manifest
    /// alone, and applying again changes nothing.
    #[test]
    fn every_manifest_follows_every_other() {
        let manifest = |replicas: Value, strategy: Value, spec: Value| {
            let mut out = json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
                "spec": {
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}
                }
            });
            for (key, value) in [("replicas", replicas), ("strategy", strategy)] {
                if !value.is_null() {
                    out["spec"][key] = value;
                }
            }
            out
        };
        let one = |more: Value| {
            let mut container = json!({"name": "a", "image": "x:1"});
            container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"containers": [container]})
        };
        let manifests = [
            manifest(json!(null), json!(null), one(json!({}))),
            manifest(json!(3), json!({"type": "Recreate"}), one(json!({"image": "y:1"}))),
            manifest(
                json!(0),
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}),
                one(json!({"command": ["a", "b"]})),
            ),
            manifest(
                json!(1),
                json!(null),
                one(json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]})),
            ),
            manifest(
                json!(1),
                json!(null),
                one(
                    json!({"env": [{"name": "B", "value": "3"}, {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
                ),
            ),
            manifest(
                json!(2),
                json!(null),
                one(json!({"ports": [{"containerPort": 80}, {"containerPort": 81, "name": "x"}]})),
            ),
            manifest(
                json!(2),
                json!(null),
                one(json!({"ports": [{"containerPort": 81}], "resources": {"limits": {"cpu": "1"}}})),
            ),
            manifest(
                json!(null),
                json!(null),
                json!({
                    "containers": [{"name": "b", "image": "z:1"}, {"name": "a", "image": "x:1"}],
                    "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "hostPath": {"path": "/x"}}],
                    "securityContext": {"runAsUser": 1, "supplementalGroups": [1, 2]}, "nodeSelector": {"a": "b"}
                }),
            ),
            manifest(
                json!(null),
                json!(null),
                json!({
                    "containers": [{"name": "b", "image": "z:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
                    "volumes": [{"name": "v", "configMap": {"name": "c"}}],
                    "securityContext": {"fsGroup": 5}, "tolerations": [{"operator": "Exists"}]
                }),
            ),
        ];
        let stored = |manifest: &Value| {
            let mut object = manifest.clone();
            api::defaults::apply_kind("apps", "Deployment", &mut object);
            sorted(object)
        };
        let kind = api::schema::by_kind("apps/v1", "Deployment").expect("the schema has Deployments");
        for (i, before) in manifests.iter().enumerate() {
            for (j, after) in manifests.iter().enumerate() {
                let live = stored(before);
                let body = serde_json::to_vec(&patch(Some(before), after, &live, Some(kind))).expect("JSON");
                let patch_read = api::patch::Patch::parse("application/strategic-merge-patch+json", &body)
                    .expect("a patch");
                let decoded = patch_read
                    .apply(&live, kind, api::strict::FieldValidation::Strict)
                    .unwrap_or_else(|e| panic!("{i} to {j}: {e}"));
                let got = stored(&decoded.value);
                let mut want = stored(after);
                // What nobody ever said again stays: the server cannot tell its own defaults from wishes that ended.
                keep_defaults(&mut want, &got);
                assert_eq!(got, want, "{i} to {j}: {}", String::from_utf8_lossy(&body));
                assert_eq!(patch(Some(after), after, &got, Some(kind)), json!({}), "{i} to {j}, again");
            }
        }
    }

    /// Lists of named things in the order of their names: a patch adds at the front or the end.
    fn sorted(mut value: Value) -> Value {
        match &mut value {
            Value::Array(list) => {
                list.iter_mut().for_each(|v| *v = sorted(v.take()));
                list.sort_by_key(|v| {
                    let key = ["name", "containerPort"].iter().find_map(|k| v.get(*k)).cloned();
                    key.map(|k| k.to_string())
                });
            }
            Value::Object(map) => map.values_mut().for_each(|v| *v = sorted(v.take())),
            _ => {}
        }
        value
    }

    /// Fields that defaulting filled in and the next manifest leaves open.
    fn keep_defaults(want: &mut Value, got: &Value) {
        if got["spec"]["strategy"]["type"] == "RollingUpdate"
            && want["spec"]["strategy"]["type"] == "RollingUpdate"
        {
            want["spec"]["strategy"] = got["spec"]["strategy"].clone();
        }
    }

    #[test]
    fn without_a_schema_lists_are_replaced() {
        let list = |items: Value| json!({"spec": {"items": items}});
        assert_eq!(patch(None, &list(json!([1])), &list(json!([1, 2])), None), list(json!([1])));
        assert_eq!(patch(None, &list(json!([1])), &list(json!([1])), None), json!({}));
    }
}
