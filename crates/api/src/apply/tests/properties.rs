//! What holds of all configurations.

use proptest::{collection, option, prelude::*, sample};
use serde_json::Map;

use super::*;

/// Values that some appliers share and others do not.
fn scalar() -> impl Strategy<Value = String> + Clone {
    sample::select(vec!["x", "y", "z"]).prop_map(str::to_owned)
}

fn map() -> impl Strategy<Value = Value> {
    collection::btree_map(sample::select(vec!["a", "b", "c"]), scalar(), 0..3).prop_map(|map| json!(map))
}

/// An object of those of the fields that are there.
fn object(fields: Vec<(&'static str, Option<Value>)>) -> Value {
    let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect::<Map<_, _>>())
}

fn keyed(
    key: &'static str,
    keys: Vec<&'static str>,
    rest: impl Strategy<Value = Value> + Clone + 'static,
) -> impl Strategy<Value = Value> {
    sample::subsequence(keys.clone(), 0..=keys.len()).prop_shuffle().prop_flat_map(move |keys| {
        let items: Vec<_> = keys
            .into_iter()
            .map(|name| {
                rest.clone().prop_map(move |mut item| {
                    item[key] = name.into();
                    item
                })
            })
            .collect();
        items.prop_map(Value::Array)
    })
}

fn env() -> impl Strategy<Value = Value> {
    keyed(
        "name",
        vec!["E", "F"],
        option::of(scalar()).prop_map(|v| object(vec![("value", v.map(Value::from))])),
    )
}

fn container() -> impl Strategy<Value = Value> + Clone {
    let port = (1..3u16, option::of(sample::select(vec!["TCP", "UDP"]))).prop_map(|(port, protocol)| {
        object(vec![("containerPort", Some(port.into())), ("protocol", protocol.map(Value::from))])
    });
    let ports = collection::vec(port, 0..3).prop_map(|ports| {
        let mut seen = std::collections::HashSet::new();
        let key =
            |port: &Value| format!("{}{}", port["containerPort"], port["protocol"].as_str().unwrap_or("TCP"));
        Value::Array(ports.into_iter().filter(|port| seen.insert(key(port))).collect())
    });
    let resources = map().prop_map(|map| json!({"limits": map.as_object().unwrap().keys().map(|key| (key.clone(), json!("1"))).collect::<Map<_, _>>()}));
    (
        option::of(scalar()),
        option::of(env()),
        option::of(ports),
        option::of(resources),
        option::of(any::<bool>()),
    )
        .prop_map(|(image, env, ports, resources, tty)| {
            object(vec![
                ("image", image.map(Value::from)),
                ("env", env),
                ("ports", ports),
                ("resources", resources),
                ("tty", tty.map(Value::from)),
            ])
        })
        .boxed()
}

fn config() -> impl Strategy<Value = Value> {
    let metadata = (
        option::of(map()),
        option::of(map()),
        option::of(sample::subsequence(vec!["x/a", "x/b", "x/c"], 0..=3)),
    );
    let pod = (
        option::of(keyed("name", vec!["a", "b", "c"], container())),
        option::of(map()),
        option::of(scalar()),
        option::of(collection::vec(scalar().prop_map(|key| json!({"key": key})), 0..3)),
    );
    let spec = (option::of(0..3i64), option::of(pod), option::of(map()));
    (metadata, option::of(spec)).prop_map(|((labels, annotations, finalizers), spec)| {
        let mut metadata = object(vec![
            ("labels", labels),
            ("annotations", annotations),
            ("finalizers", finalizers.map(|list| json!(list))),
        ]);
        metadata["name"] = "web".into();
        let spec = spec.map(|(replicas, pod, labels)| {
            let pod = pod.map(|(containers, selector, hostname, tolerations)| {
                object(vec![
                    ("containers", containers),
                    ("nodeSelector", selector),
                    ("hostname", hostname.map(Value::from)),
                    ("tolerations", tolerations.map(Value::from)),
                ])
            });
            let template =
                object(vec![("metadata", labels.map(|labels| json!({"labels": labels}))), ("spec", pod)]);
            object(vec![("replicas", replicas.map(Value::from)), ("template", Some(template))])
        });
        object(vec![
            ("apiVersion", Some("apps/v1".into())),
            ("kind", Some("Deployment".into())),
            ("metadata", Some(metadata)),
            ("spec", spec),
        ])
    })
}

fn world() -> World {
    World::new("apps/v1", "Deployment")
}

/// Cleaned as the server cleans what it stores.
fn cleaned(mut value: Value) -> Value {
    crate::strict::conform(&mut value, world().ty).unwrap();
    value
}

/// The same in what people can tell apart: nothing empty, what is listed by key in any order.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let inner = map.iter().map(|(key, value)| (key.clone(), plain(value)));
            Value::Object(inner.filter(|(_, value)| !super::super::node::is_empty(value)).collect())
        }
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(plain).collect();
            list.sort_by_key(Value::to_string);
            Value::Array(list)
        }
        scalar => scalar.clone(),
    }
}

fn spoken(world: &World) -> Vec<(String, String)> {
    let entries = world.managed.entries().iter();
    entries.map(|entry| (entry.manager.clone(), entry.fields.to_string())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_apply_twice_is_an_apply_once(first in config(), second in config(), own in config()) {
        let mut world = world();
        world.force("a", first);
        world.write("b", cleaned(second));
        world.force("me", own.clone());
        let (object, owners) = (world.object().clone(), spoken(&world));
        world.apply("me", own).unwrap();
        prop_assert_eq!(world.object(), &object);
        prop_assert_eq!(spoken(&world), owners);
    }

    #[test]
    fn what_is_applied_is_there_afterwards(first in config(), own in config()) {
        let mut world = world();
        world.write("other", cleaned(first));
        world.force("me", own.clone());
        let mut again = world.object().clone();
        again = merge::merge(&again, &own, node::Node::Object(world.ty));
        prop_assert_eq!(cleaned(again), world.object().clone());
    }

    #[test]
    fn a_sole_applier_has_what_it_applied_last_and_nothing_else(first in config(), second in config()) {
        let mut world = world();
        world.apply("me", first).unwrap();
        world.apply("me", second.clone()).unwrap();
        prop_assert_eq!(plain(world.object()), plain(&cleaned(second)));
    }

    #[test]
    fn what_another_applies_too_stays(shared in config()) {
        let mut world = world();
        world.apply("other", shared.clone()).unwrap();
        world.apply("me", shared.clone()).unwrap();
        // Gives all of it up.
        world.apply("me", json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}})).unwrap();
        prop_assert_eq!(plain(world.object()), plain(&cleaned(shared)));
    }

    #[test]
    fn one_who_conflicts_changes_nothing_and_forced_takes_it(first in config(), own in config()) {
        let mut world = world();
        world.apply("other", first).unwrap();
        let (object, owners) = (world.object().clone(), spoken(&world));
        match world.apply("me", own.clone()) {
            Ok(()) => {}
            Err(refused) => {
                prop_assert_eq!(refused.code, 409);
                prop_assert_eq!(world.object(), &object);
                prop_assert_eq!(spoken(&world), owners);
                let causes = refused.details.unwrap().causes;
                world.force("me", own);
                let theirs = world.owned("other");
                for cause in causes {
                    prop_assert!(!theirs.contains(&cause.field), "{}", cause.field);
                }
            }
        }
    }

    #[test]
    fn fields_that_have_nothing_in_common_never_conflict(one in config(), two in config()) {
        // One has the metadata, the other the spec.
        let (mut one, mut two) = (one, two);
        one.as_object_mut().unwrap().remove("spec");
        two["metadata"] = json!({"name": "web"});
        let mut world = world();
        world.apply("one", one.clone()).unwrap();
        world.apply("two", two.clone()).unwrap();
        world.apply("one", one).unwrap();
        world.apply("two", two).unwrap();
    }

    #[test]
    fn sets_go_through_their_encoding(value in config()) {
        let mut world = world();
        world.apply("me", value.clone()).unwrap();
        world.write("other", cleaned(value));
        let encoded = world.managed.clone().into_value();
        let read = encoded.as_ref().map(|value| Managed::parse(value).unwrap()).unwrap_or_default();
        prop_assert_eq!(read.into_value(), encoded);
    }

    #[test]
    fn sets_obey_the_laws_of_sets(one in config(), two in config()) {
        let set = |value: &Value| extract::extract(value, world().ty);
        let (a, b) = (set(&one), set(&two));
        let both = a.intersection(&b);
        prop_assert_eq!(a.clone().difference(&b).union(&both), a.clone());
        prop_assert_eq!(a.clone().union(&b), b.clone().union(&a));
        prop_assert_eq!(a.clone().difference(&b).intersection(&b), FieldSet::default());
        prop_assert_eq!(b.intersection(&a), both);
        let mut paths = 0;
        a.clone().union(&b).for_each(&mut |path| {
            paths += 1;
            assert!(a.contains(path) || b.contains(path));
        });
        prop_assert!(paths >= a.to_string().lines().count());
    }

    #[test]
    fn a_comparison_says_what_leads_from_one_to_the_other(one in config(), two in config()) {
        let (one, two) = (cleaned(one), cleaned(two));
        let ty = world().ty;
        let there = compare::compare(&one, &two, ty, Reach::All);
        let back = compare::compare(&two, &one, ty, Reach::All);
        prop_assert_eq!(&there.added, &back.removed);
        prop_assert_eq!(&there.removed, &back.added);
        prop_assert_eq!(&there.modified, &back.modified);
        prop_assert!(compare::compare(&one, &one, ty, Reach::All).is_same());
        prop_assert!(!there.is_same() || plain(&one) == plain(&two));
    }
}
