//! What is refused and in which words. Each row changes one thing of a good object (`/pointer = value`) and names
//! what must be said of it; an empty list says the change is fine.

use serde_json::{Value, json};

use super::{validate_create_kind, validate_update_kind};
use crate::defaults::apply_kind;
use crate::field::ErrorList;

mod cron_jobs;
mod jobs;
mod metadata;
mod objects;
mod pod_parts;
mod pods;
mod random;
mod rbac;
mod stateful_sets;

/// `object` with the value at `pointer` put in or, where it is null, taken out. Parents are made as objects.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let parts: Vec<&str> = pointer.trim_start_matches('/').split('/').collect();
    let (last, parents) = parts.split_last().expect("a pointer");
    let mut at = &mut object;
    for part in parents {
        at = match at {
            Value::Array(list) => &mut list[part.parse::<usize>().expect("an index")],
            other => other
                .as_object_mut()
                .expect("an object")
                .entry(part.replace("~1", "/"))
                .or_insert_with(|| json!({})),
        };
    }
    match at {
        Value::Array(list) => list[last.parse::<usize>().expect("an index")] = value,
        other => {
            let map = other.as_object_mut().expect("an object");
            if value.is_null() {
                map.remove(&last.replace("~1", "/"));
            } else {
                map.insert(last.replace("~1", "/"), value);
            }
        }
    }
    object
}

fn messages(list: &ErrorList) -> Vec<String> {
    let mut all: Vec<String> = list.iter().map(ToString::to_string).collect();
    all.dedup();
    all
}

fn is_namespaced(kind: &str) -> bool {
    !matches!(kind, "Namespace" | "Node" | "ClusterRole" | "ClusterRoleBinding")
}

/// Creates the object after defaulting, as the server does.
fn create(group: &str, kind: &str, mut object: Value) -> Vec<String> {
    apply_kind(group, kind, &mut object);
    messages(&validate_create_kind(group, kind, is_namespaced(kind), &object))
}

fn update(group: &str, kind: &str, subresource: &str, mut new: Value, mut old: Value) -> Vec<String> {
    apply_kind(group, kind, &mut new);
    apply_kind(group, kind, &mut old);
    messages(&validate_update_kind(group, kind, is_namespaced(kind), subresource, &new, &old))
}

/// The good object is good; each row is said of exactly.
fn table(group: &str, kind: &str, good: Value, rows: &[(&str, Value, &[&str])]) {
    assert_eq!(create(group, kind, good.clone()), Vec::<String>::new(), "the good {kind}");
    for (pointer, value, want) in rows {
        let got = create(group, kind, with(good.clone(), pointer, value.clone()));
        assert_eq!(got, *want, "{kind} with {pointer} = {value}");
    }
}

/// As [`table`], comparing the beginnings of messages: for the long sentences.
fn table_starts(group: &str, kind: &str, good: Value, rows: &[(&str, Value, &[&str])]) {
    for (pointer, value, want) in rows {
        let got = create(group, kind, with(good.clone(), pointer, value.clone()));
        let fits = got.len() == want.len() && got.iter().zip(*want).all(|(g, w)| g.starts_with(w));
        assert!(fits, "{kind} with {pointer} = {value}\n got {got:#?}\nwant {want:#?}");
    }
}
