//! Which updates of a pod are judged again: those that change what runs in it. Anything else was let in before, and a level
//! that became stricter since then must not stop a label or a finalizer from being changed.

use serde_json::Value;

/// Whether the standard looks at what an update changes: the containers there are, and their images. (Not the annotations of
/// old: validation keeps AppArmor's as they are, and seccomp's say nothing any more.)
pub fn is_significant(new: &Value, old: &Value) -> bool {
    let list = |pod: &Value, name: &str| pod["spec"][name].as_array().cloned().unwrap_or_default();
    for name in ["containers", "initContainers"] {
        let (new, old) = (list(new, name), list(old, name));
        if new.len() != old.len() || new.iter().zip(&old).any(|(new, old)| new["image"] != old["image"]) {
            return true;
        }
    }
    let old = list(old, "ephemeralContainers");
    list(new, "ephemeralContainers").iter().any(|container| {
        match old.iter().find(|old| old["name"] == container["name"]) {
            Some(old) => old["image"] != container["image"],
            None => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_runs_is_significant_and_nothing_else() {
        let pod = || {
            json!({ "metadata": { "annotations": { "a": "b" } }, "spec": {
                "containers": [{ "name": "a", "image": "x" }], "initContainers": [{ "name": "i", "image": "x" }],
                "ephemeralContainers": [{ "name": "e", "image": "x" }] } })
        };
        let table: [(&str, &str, Value, bool); 9] = [
            ("nothing", "/spec/containers/0/name", json!("a"), false),
            ("an annotation", "/metadata/annotations/a", json!("c"), false),
            ("a deadline", "/spec/activeDeadlineSeconds", json!(5), false),
            (
                "a profile of old",
                "/metadata/annotations/container.seccomp.security.alpha.kubernetes.io~1a",
                json!("unconfined"),
                false,
            ),
            ("an image", "/spec/containers/0/image", json!("y"), true),
            ("an init container's image", "/spec/initContainers/0/image", json!("y"), true),
            ("an ephemeral container's image", "/spec/ephemeralContainers/0/image", json!("y"), true),
            (
                "an ephemeral container",
                "/spec/ephemeralContainers/1",
                json!({ "name": "f", "image": "x" }),
                true,
            ),
            ("a container less", "/spec/containers", json!([]), true),
        ];
        for (what, pointer, value, significant) in table {
            let mut new = pod();
            let (parent, last) = pointer.rsplit_once('/').unwrap();
            match new.pointer_mut(parent).unwrap() {
                Value::Array(items) => items.push(value),
                parent => parent[last.replace("~1", "/")] = value,
            }
            assert_eq!(is_significant(&new, &pod()), significant, "{what}");
        }
    }
}
