//! Environments: what a container's variables are, in order, and the words of what is missing.

use serde_json::{Value, json};

use super::*;

struct World {
    config_maps: Vec<ConfigMap>,
    secrets: Vec<Secret>,
    services: Vec<Service>,
}

fn world() -> World {
    let object = |value: Value| value;
    World {
        config_maps: vec![
            serde_json::from_value(object(json!({"metadata": {"name": "cm"},
                "data": {"A": "1", "bad=key": "x", "B-dash": "2", "": "y"}})))
            .unwrap(),
        ],
        secrets: vec![
            serde_json::from_value(json!({"metadata": {"name": "sec"},
                "data": {"PW": "aHVudGVyMg==", "BIN": "//8="}}))
            .unwrap(),
            serde_json::from_value(json!({"metadata": {"name": "text"}, "data": {"PW": "aHVudGVyMg=="}})).unwrap(),
        ],
        services: vec![
            serde_json::from_value(json!({"metadata": {"name": "kubernetes", "namespace": "default"},
                "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}}))
            .unwrap(),
            serde_json::from_value(json!({"metadata": {"name": "my-db", "namespace": "ns"},
                "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 5432}, {"name": "dns-udp", "port": 53, "protocol": "UDP"}]}}))
            .unwrap(),
            serde_json::from_value(json!({"metadata": {"name": "headless", "namespace": "ns"},
                "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}))
            .unwrap(),
            serde_json::from_value(json!({"metadata": {"name": "other", "namespace": "elsewhere"},
                "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 1}]}}))
            .unwrap(),
        ],
    }
}

fn pod(container: Value) -> Pod {
    let mut container = container;
    container["name"] = json!("c");
    serde_json::from_value(json!({
        "metadata": {"name": "x", "namespace": "ns", "uid": "u", "labels": {"l": "v", "k": "say \"hi\"\n"},
            "annotations": {"a/b": "note"}},
        "spec": {"nodeName": "node-1", "serviceAccountName": "default", "enableServiceLinks": false,
            "containers": [container, {"name": "other", "resources": {"requests": {"cpu": "1500m"}}}]}
    }))
    .unwrap()
}

fn run(pod: &Pod) -> Result<Environment, ConfigError> {
    let world = world();
    let sources = Sources {
        config_maps: world.config_maps.iter().map(|m| (m.metadata.name.clone().unwrap(), m)).collect(),
        secrets: world.secrets.iter().map(|s| (s.metadata.name.clone().unwrap(), s)).collect(),
        tokens: Default::default(),
        services: world.services.iter().collect(),
        pod_ips: vec!["10.244.0.5".to_owned(), "fd00::5".to_owned()],
        host_ips: vec!["10.88.0.2".to_owned()],
    };
    resolve(pod, &pod.spec.as_ref().unwrap().containers[0], &sources, &NodeFacts::default())
}

/// The container's own variables, without the services'.
fn own(container: Value) -> Vec<(String, String)> {
    let variables = run(&pod(container)).unwrap().variables;
    variables.into_iter().filter(|(name, _)| !name.starts_with("KUBERNETES_")).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn variables_expand_what_came_before_them() {
    let env = json!({"env": [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(LATER)-$$(A)"},
        {"name": "LATER", "value": "x"},
        {"name": "HOST", "value": "$(KUBERNETES_SERVICE_HOST)"},
        {"name": "A", "value": "2"},
        {"name": "EMPTY"}
    ]});
    assert_eq!(
        own(env),
        pairs(&[("A", "2"), ("B", "1-$(LATER)-$(A)"), ("LATER", "x"), ("HOST", "10.96.0.1"), ("EMPTY", "")])
    );
}

#[test]
fn env_beats_env_from_and_bad_names_are_told() {
    let container = json!({
        "envFrom": [{"configMapRef": {"name": "cm"}}, {"prefix": "P_", "secretRef": {"name": "text"}},
            {"configMapRef": {"name": "gone", "optional": true}}],
        "env": [{"name": "A", "value": "own"}]
    });
    let environment = run(&pod(container.clone())).unwrap();
    assert_eq!(own(container), pairs(&[("A", "own"), ("B-dash", "2"), ("P_PW", "hunter2")]));
    assert_eq!(
        environment.events,
        [(
            "InvalidEnvironmentVariableNames",
            "Keys [, bad=key] from the EnvFrom configMap ns/cm were skipped since they are considered invalid environment variable names.".to_owned()
        )]
    );
}

#[test]
fn fields_of_the_pod_are_variables() {
    for (path, expected) in [
        ("metadata.name", "x"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u"),
        ("metadata.labels['l']", "v"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['a/b']", "note"),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "10.88.0.2"),
        ("status.hostIPs", "10.88.0.2"),
        ("status.podIP", "10.244.0.5"),
        ("status.podIPs", "10.244.0.5,fd00::5"),
    ] {
        let env = json!({"env": [{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}]});
        assert_eq!(own(env), pairs(&[("V", expected)]), "{path}");
    }
    assert_eq!(
        format_map(pod(json!({})).metadata.labels.as_ref()),
        "k=\"say \\\"hi\\\"\\n\"\nl=\"v\"",
        "a volume's file"
    );
}

#[test]
fn resources_are_variables_in_units_of_the_divisor() {
    let resources = json!({"limits": {"memory": "65Mi"}, "requests": {"cpu": "250m"}});
    for (resource, divisor, of, expected) in [
        ("requests.cpu", "0", "", "1"),
        ("requests.cpu", "1m", "", "250"),
        ("requests.cpu", "1", "other", "2"),
        ("limits.cpu", "1m", "", "2000"),
        ("limits.memory", "0", "", "68157440"),
        ("limits.memory", "1Mi", "", "65"),
        ("limits.memory", "1Gi", "", "1"),
        ("requests.memory", "1Mi", "", "65"),
        ("requests.ephemeral-storage", "1", "", "0"),
    ] {
        let reference = json!({"resource": resource, "divisor": divisor, "containerName": of});
        let container = json!({"resources": resources,
            "env": [{"name": "V", "valueFrom": {"resourceFieldRef": reference}}]});
        assert_eq!(own(container), pairs(&[("V", expected)]), "{resource}/{divisor} {of}");
    }
}

#[test]
fn what_is_missing_is_named_in_the_kubelets_words() {
    let from = |source: Value| json!({"env": [{"name": "V", "valueFrom": source}]});
    for (container, message) in [
        (json!({"envFrom": [{"configMapRef": {"name": "gone"}}]}), "configmap \"gone\" not found"),
        (json!({"envFrom": [{"secretRef": {"name": "gone"}}]}), "secret \"gone\" not found"),
        (from(json!({"configMapKeyRef": {"name": "gone", "key": "k"}})), "configmap \"gone\" not found"),
        (
            from(json!({"configMapKeyRef": {"name": "cm", "key": "k"}})),
            "couldn't find key k in ConfigMap ns/cm",
        ),
        (from(json!({"secretKeyRef": {"name": "gone", "key": "k"}})), "secret \"gone\" not found"),
        (from(json!({"secretKeyRef": {"name": "sec", "key": "k"}})), "couldn't find key k in Secret ns/sec"),
        (from(json!({"fieldRef": {"fieldPath": "spec.other"}})), "unsupported fieldPath: spec.other"),
        (
            from(json!({"resourceFieldRef": {"resource": "limits.cpu", "containerName": "ghost"}})),
            "container ghost not found",
        ),
        (
            from(json!({"resourceFieldRef": {"resource": "limits.gpu"}})),
            "unsupported container resource : limits.gpu",
        ),
        (
            from(json!({"secretKeyRef": {"name": "sec", "key": "BIN"}})),
            "key BIN of secret \"sec\" is not text: it cannot be a variable",
        ),
    ] {
        let error = run(&pod(container.clone())).expect_err(message);
        assert_eq!(
            (error.reason, error.message.as_str()),
            ("CreateContainerConfigError", message),
            "{container}"
        );
    }
    for optional in [
        from(json!({"configMapKeyRef": {"name": "gone", "key": "k", "optional": true}})),
        from(json!({"configMapKeyRef": {"name": "cm", "key": "k", "optional": true}})),
        from(json!({"secretKeyRef": {"name": "sec", "key": "k", "optional": true}})),
    ] {
        assert_eq!(own(optional), pairs(&[]));
    }
}

#[test]
fn services_are_variables_of_the_pods_namespace_and_of_the_api() {
    let mut pod = pod(json!({}));
    let names = |pod: &Pod| run(pod).unwrap().variables.into_iter().collect::<BTreeMap<_, _>>();
    let without = names(&pod);
    assert_eq!(without.keys().filter(|name| !name.starts_with("KUBERNETES_")).count(), 0);
    assert_eq!(without["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
    assert_eq!(without["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
    assert_eq!(without["KUBERNETES_PORT"], "tcp://10.96.0.1:443");
    pod.spec.as_mut().unwrap().enable_service_links = Some(true);
    let with = names(&pod);
    for (name, value) in [
        ("MY_DB_SERVICE_HOST", "10.96.0.9"),
        ("MY_DB_SERVICE_PORT", "5432"),
        ("MY_DB_SERVICE_PORT_DNS_UDP", "53"),
        ("MY_DB_PORT", "tcp://10.96.0.9:5432"),
        ("MY_DB_PORT_53_UDP", "udp://10.96.0.9:53"),
        ("MY_DB_PORT_53_UDP_PROTO", "udp"),
        ("MY_DB_PORT_53_UDP_PORT", "53"),
        ("MY_DB_PORT_53_UDP_ADDR", "10.96.0.9"),
    ] {
        assert_eq!(with[name], value, "{name}");
    }
    assert!(!with.keys().any(|name| name.starts_with("HEADLESS") || name.starts_with("OTHER")));
}

#[test]
fn references_are_found_in_env_and_env_from() {
    let pod = pod(json!({
        "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
        "env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            {"name": "W", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}}]
    }));
    let found = references(&pod.spec.unwrap().containers[0]);
    assert_eq!(found.config_maps, BTreeSet::from(["a".to_owned(), "c".to_owned()]));
    assert_eq!(found.secrets, BTreeSet::from(["b".to_owned(), "d".to_owned()]));
}
