//! Random pods, written as people and programs write them: whatever `--fix` changes, the result is what the remedies say, and
//! nothing but what is to be done by hand is left.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn some(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let values: Vec<_> = values.into_iter().map(|value| prop::option::weighted(0.4, value)).collect();
    values
        .prop_map(move |values| {
            let there =
                names.iter().zip(values).filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
            Value::Object(there.collect::<Map<_, _>>())
        })
        .boxed()
}

fn one_of(values: &[Value]) -> BoxedStrategy<Value> {
    prop::sample::select(values.to_vec()).boxed()
}

fn yes_or_no() -> BoxedStrategy<Value> {
    one_of(&[json!(true), json!(false), Value::Null])
}

fn list(items: BoxedStrategy<Value>, most: usize) -> BoxedStrategy<Value> {
    prop::collection::vec(items, 0..=most).prop_map(Value::from).boxed()
}

fn profile() -> BoxedStrategy<Value> {
    one_of(&[json!({ "type": "RuntimeDefault" }), json!({ "type": "Unconfined" }), Value::Null])
}

fn security(of_container: bool) -> BoxedStrategy<Value> {
    let names =
        || list(one_of(&[json!("ALL"), json!("NET_RAW"), json!("NET_BIND_SERVICE"), json!("CHOWN")]), 3);
    let mut fields = vec![
        ("runAsNonRoot", yes_or_no()),
        ("runAsUser", one_of(&[json!(0), json!(405)])),
        ("seccompProfile", profile()),
        (
            "seLinuxOptions",
            some(vec![
                ("type", one_of(&[json!("spc_t")])),
                ("level", one_of(&[json!("s0")])),
                ("user", one_of(&[json!("u")])),
            ]),
        ),
    ];
    if of_container {
        fields.extend([
            ("privileged", yes_or_no()),
            ("allowPrivilegeEscalation", yes_or_no()),
            ("procMount", one_of(&[json!("Unmasked")])),
            (
                "capabilities",
                prop_oneof![some(vec![("add", names()), ("drop", names())]), Just(Value::Null)].boxed(),
            ),
        ]);
    } else {
        let sysctl = one_of(&[
            json!({ "name": "kernel.msgmax", "value": "1" }),
            json!({ "name": "net.ipv4.tcp_syncookies", "value": "1" }),
        ]);
        fields.push(("sysctls", list(sysctl, 3)));
    }
    prop_oneof![4 => some(fields), 1 => Just(Value::Null), 1 => Just(json!({}))].boxed()
}

fn container() -> BoxedStrategy<Value> {
    let port = one_of(&[
        json!({ "hostPort": 80, "containerPort": 80 }),
        json!({ "containerPort": 81, "hostPort": 81 }),
        json!({ "containerPort": 82, "name": "x" }),
    ]);
    let probe = json!({ "httpGet": { "host": "h", "port": 80 }, "periodSeconds": 5 });
    some(vec![
        ("securityContext", security(true)),
        ("ports", list(port, 3)),
        ("livenessProbe", one_of(&[probe])),
        ("image", one_of(&[json!("x: y # z"), json!("a\nb\n")])),
    ])
}

fn manifest() -> BoxedStrategy<Value> {
    let volume = one_of(&[
        json!({ "name": "a", "emptyDir": {} }),
        json!({ "name": "b", "hostPath": { "path": "/" } }),
    ]);
    let spec = some(vec![
        ("hostNetwork", yes_or_no()),
        ("hostPID", yes_or_no()),
        ("securityContext", security(false)),
        ("volumes", list(volume, 2)),
        ("initContainers", list(container(), 2)),
    ]);
    let annotation = prop::option::of(Just("unconfined"));
    (spec, prop::collection::vec(container(), 1..3), annotation, any::<bool>())
        .prop_map(|(mut spec, containers, annotation, wrapped)| {
            spec["containers"] = containers.into();
            for (kind, name) in [("initContainers", "i"), ("containers", "c")] {
                for (at, container) in spec[kind].as_array_mut().into_iter().flatten().enumerate() {
                    container["name"] = format!("{name}{at}").into();
                }
            }
            let mut metadata = json!({ "name": "p" });
            if let Some(annotation) = annotation {
                metadata["annotations"] = json!({ "container.apparmor.security.beta.kubernetes.io/c0": annotation });
            }
            let pod = json!({ "metadata": metadata, "spec": spec });
            match wrapped {
                true => json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" }, "spec": { "template": pod } }),
                false => json!({ "apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"], "spec": pod["spec"] }),
            }
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_fix_is_what_the_remedies_say_however_the_pod_is_written(manifest in manifest()) {
        let yaml = serde_yaml::to_string(&manifest).expect("YAML");
        // As it is written in most manifests: with comments, and lists not indented.
        let commented: String = yaml.lines().map(|line| {
            let open = line.ends_with(':');
            if open { format!("{line} # why\n") } else { format!("{line}\n") }
        }).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": [manifest, manifest] });
        let texts = [
            yaml.clone(),
            commented,
            format!("# first\n{yaml}---\n{yaml}"),
            yaml.replace('\n', "\r\n"),
            manifest.to_string(),
            format!("{manifest:#}\n"),
            serde_yaml::to_string(&list).expect("YAML"),
        ];
        for text in texts {
            let fixed = match fix(&source(&text), RESTRICTED) {
                Ok(fixed) => fixed,
                Err(error) => return Err(TestCaseError::fail(format!("{error:#}\n{text}"))),
            };
            for line in &fixed.left {
                prop_assert!(line.contains("restricted volume types") && !line.contains("not changed"), "{line}\n{text}\n→\n{}", fixed.text);
            }
            for line in ["spec: # why", "containers: # why"] {
                prop_assert!(!text.contains(line) || fixed.text.contains(line), "{text}
→
{}", fixed.text);
            }
        }
    }
}
