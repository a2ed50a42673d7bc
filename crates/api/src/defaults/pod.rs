//! Defaults of pods and of pod templates. A template gets what `SetDefaults_PodSpec` and the containers' and
//! volumes' functions give; a pod also what only pods get (`SetDefaults_Pod`) and what the always-on admission
//! plugins ServiceAccount, Priority and DefaultTolerationSeconds fill in.

use serde_json::{Map, Value, json};

use super::{each, maybe, object_at, set, set_absent, text, unset};
use crate::validation::quantity::Quantity;

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// `defaultMode` of secret, configMap, downwardAPI and projected volumes: 0644.
const DEFAULT_MODE: i64 = 0o644;

/// How long a pod stays on a node that is not ready or unreachable.
const TOLERATION_SECONDS: i64 = 300;

pub(super) fn pod(root: &mut Map<String, Value>) {
    let is_mirror = maybe(root, "metadata")
        .and_then(|metadata| maybe(metadata, "annotations"))
        .is_some_and(|annotations| annotations.contains_key("kubernetes.io/config.mirror"));
    let Some(spec) = object_at(root, "spec") else { return };
    self::spec(spec);
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
        }
    }
    set_absent(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["containers", "initContainers"] {
            for port in each(spec, list).flat_map(|container| each(container, "ports")) {
                if let Some(number) = port.get("containerPort").cloned() {
                    set(port, "hostPort", number);
                }
            }
        }
    }
    // A pod that its node runs by itself is nobody's account.
    if !is_mirror {
        set(spec, "serviceAccountName", "default");
        spec.insert("serviceAccount".to_owned(), spec["serviceAccountName"].clone());
    }
    admission(spec);
    if let Some(status) = object_at(root, "status") {
        set(status, "phase", "Pending");
    }
}

/// A PodTemplate object.
pub(super) fn template(root: &mut Map<String, Value>) {
    if let Some(template) = maybe(root, "template")
        && let Some(spec) = maybe(template, "spec")
    {
        self::spec(spec);
    }
}

/// What pods and templates share.
pub(super) fn spec(spec: &mut Map<String, Value>) {
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "restartPolicy", "Always");
    object_at(spec, "securityContext");
    set_absent(spec, "terminationGracePeriodSeconds", 30);
    set(spec, "schedulerName", "default-scheduler");
    // `serviceAccount` is the old name of `serviceAccountName`; upstream's conversion keeps both equal.
    if unset(spec, "serviceAccountName") && !unset(spec, "serviceAccount") {
        spec.insert("serviceAccountName".to_owned(), spec["serviceAccount"].clone());
    }
    if !unset(spec, "serviceAccountName") {
        spec.insert("serviceAccount".to_owned(), spec["serviceAccountName"].clone());
    }
    for list in CONTAINERS {
        for container in each(spec, list) {
            self::container(container);
        }
    }
    for volume in each(spec, "volumes") {
        self::volume(volume);
    }
    if let Some(overhead) = maybe(spec, "overhead") {
        canonical_quantities(overhead);
    }
}

fn admission(spec: &mut Map<String, Value>) {
    let priority = match text(spec, "priorityClassName") {
        "" => Some(0),
        "system-cluster-critical" => Some(2_000_000_000),
        "system-node-critical" => Some(2_000_001_000),
        _ => None,
    };
    if let Some(priority) = priority {
        set_absent(spec, "priority", priority);
    }
    set_absent(spec, "preemptionPolicy", "PreemptLowerPriority");

    set_absent(spec, "tolerations", json!([]));
    let Some(tolerations) = spec.get_mut("tolerations").and_then(Value::as_array_mut) else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().filter_map(Value::as_object).any(|t| {
            (text(t, "key") == key || text(t, "key").is_empty())
                && matches!(text(t, "effect"), "NoExecute" | "")
        });
        if !tolerated {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS
            }));
        }
    }
}

fn container(container: &mut Map<String, Value>) {
    if unset(container, "imagePullPolicy") {
        let policy = pull_policy(text(container, "image"));
        container.insert("imagePullPolicy".to_owned(), policy.into());
    }
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    if let Some(resources) = object_at(container, "resources") {
        for list in ["limits", "requests"] {
            if let Some(list) = maybe(resources, list) {
                canonical_quantities(list);
            }
        }
    }
    for port in each(container, "ports") {
        set(port, "protocol", "TCP");
    }
    for env in each(container, "env") {
        if let Some(source) = maybe(env, "valueFrom") {
            field_ref(source);
            if let Some(resource) = maybe(source, "resourceFieldRef") {
                set(resource, "divisor", "0");
            }
            if let Some(file) = maybe(source, "fileKeyRef") {
                set_absent(file, "optional", false);
            }
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = maybe(container, probe) else { continue };
        set(probe, "timeoutSeconds", 1);
        set(probe, "periodSeconds", 10);
        set(probe, "successThreshold", 1);
        set(probe, "failureThreshold", 3);
        http_get(probe);
        if let Some(grpc) = maybe(probe, "grpc") {
            set_absent(grpc, "service", "");
        }
    }
    if let Some(lifecycle) = maybe(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = maybe(lifecycle, hook) {
                http_get(hook);
            }
        }
    }
}

fn http_get(action: &mut Map<String, Value>) {
    if let Some(http) = maybe(action, "httpGet") {
        set(http, "path", "/");
        set(http, "scheme", "HTTP");
    }
}

fn field_ref(source: &mut Map<String, Value>) {
    if let Some(field) = maybe(source, "fieldRef") {
        set(field, "apiVersion", "v1");
    }
}

fn requests_from_limits(container: &mut Map<String, Value>) {
    let Some(resources) = maybe(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    let Some(requests) = object_at(resources, "requests") else { return };
    for (name, quantity) in limits {
        requests.entry(name).or_insert(quantity);
    }
}

/// Quantities are stored in their canonical form ("1000m" is "1"), rounded up to milli-units.
fn canonical_quantities(list: &mut Map<String, Value>) {
    for value in list.values_mut() {
        let text = match value {
            Value::String(s) => s.clone(),
            Value::Number(n) => n.to_string(),
            _ => continue,
        };
        if let Ok(quantity) = Quantity::parse(&text) {
            *value = Value::String(quantity.round_up_to_milli().to_string());
        }
    }
}

fn volume(volume: &mut Map<String, Value>) {
    let has_source = volume.iter().any(|(key, value)| key != "name" && !value.is_null());
    if !has_source {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = maybe(volume, source) {
            set_absent(source, "defaultMode", DEFAULT_MODE);
        }
    }
    if let Some(host_path) = maybe(volume, "hostPath") {
        set_absent(host_path, "type", "");
    }
    if let Some(downward) = maybe(volume, "downwardAPI") {
        downward_items(downward);
    }
    if let Some(projected) = maybe(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(token) = maybe(source, "serviceAccountToken") {
                set_absent(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = maybe(source, "downwardAPI") {
                downward_items(downward);
            }
        }
    }
    if let Some(image) = maybe(volume, "image")
        && unset(image, "pullPolicy")
    {
        let policy = pull_policy(text(image, "reference"));
        image.insert("pullPolicy".to_owned(), policy.into());
    }
    if let Some(memory) = maybe(volume, "emptyDir")
        && let Some(limit) = memory.get("sizeLimit").and_then(Value::as_str)
        && let Ok(limit) = Quantity::parse(limit)
    {
        memory.insert("sizeLimit".to_owned(), limit.to_string().into());
    }
}

fn downward_items(source: &mut Map<String, Value>) {
    for item in each(source, "items") {
        field_ref(item);
        if let Some(resource) = maybe(item, "resourceFieldRef") {
            set(resource, "divisor", "0");
        }
    }
}

/// Always for the tag `latest`, also where it is implied; a digest pins the image.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
        None if digest => "IfNotPresent",
        None => "Always",
    }
}

/// The pod's quality of service class: `status.qosClass`, from the cpu and memory of its containers
/// (`GetPodQOS`). `pod` has been defaulted.
pub fn qos_class(pod: &Value) -> &'static str {
    let empty = Vec::new();
    let list = |name: &str| {
        pod.pointer(&format!("/spec/{name}")).and_then(Value::as_array).unwrap_or(&empty).clone()
    };
    let mut any = false;
    let mut guaranteed = true;
    for container in list("initContainers").iter().chain(&list("containers")) {
        let get = |set: &str, name: &str| -> Option<Quantity> {
            let text = container.pointer(&format!("/resources/{set}/{name}"))?.as_str()?;
            Quantity::parse(text).ok().filter(|q| !q.is_zero())
        };
        for name in ["cpu", "memory"] {
            let (limit, request) = (get("limits", name), get("requests", name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
