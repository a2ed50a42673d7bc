//! The rows of every kind but the pod.

use serde_json::{Value, json};

use super::{age, age_of, count, list, name, number, text, text_or};

const NONE: &str = "<none>";

/// Kinds with nothing to say but that they are there.
pub(super) fn plain(object: &Value, _: i64) -> Vec<Value> {
    vec![name(object), text(object, "/metadata/creationTimestamp").into()]
}

pub(super) fn replica_set(object: &Value, now: i64) -> Vec<Value> {
    let (names, images) = containers(object);
    vec![
        name(object),
        number(object, "/spec/replicas").into(),
        number(object, "/status/replicas").into(),
        number(object, "/status/readyReplicas").into(),
        age_of(object, now),
        names,
        images,
        selector(object),
    ]
}

pub(super) fn daemon_set(object: &Value, now: i64) -> Vec<Value> {
    let (names, images) = containers(object);
    let wanted = object.pointer("/spec/template/spec/nodeSelector").and_then(Value::as_object);
    let wanted: Vec<String> = wanted
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    vec![
        name(object),
        number(object, "/status/desiredNumberScheduled").into(),
        number(object, "/status/currentNumberScheduled").into(),
        number(object, "/status/numberReady").into(),
        number(object, "/status/updatedNumberScheduled").into(),
        number(object, "/status/numberAvailable").into(),
        if wanted.is_empty() { NONE.into() } else { wanted.join(",").into() },
        age_of(object, now),
        names,
        images,
        selector(object),
    ]
}

pub(super) fn pod_template(object: &Value, _: i64) -> Vec<Value> {
    let (names, images) = containers(&json!({"spec": {"template": object["template"]}}));
    let labels = object.pointer("/template/metadata/labels").and_then(Value::as_object);
    let labels: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    vec![name(object), names, images, if labels.is_empty() { NONE.into() } else { labels.join(",").into() }]
}

pub(super) fn controller_revision(object: &Value, now: i64) -> Vec<Value> {
    let owner = list(object, "/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true);
    let owner = owner.map(|owner| {
        let group = text(owner, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
        let dot = if group.is_empty() { "" } else { "." };
        format!("{}{dot}{group}/{}", text(owner, "/kind").to_lowercase(), text(owner, "/name"))
    });
    vec![
        name(object),
        owner.unwrap_or_else(|| NONE.to_owned()).into(),
        number(object, "/revision").into(),
        age_of(object, now),
    ]
}

pub(super) fn job(object: &Value, now: i64) -> Vec<Value> {
    let (names, images) = containers(object);
    let is = |kind: &str| {
        list(object, "/status/conditions")
            .iter()
            .any(|c| text(c, "/type") == kind && text(c, "/status") == "True")
    };
    let status = match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if !text(object, "/metadata/deletionTimestamp").is_empty() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    let (succeeded, parallelism) = (number(object, "/status/succeeded"), number(object, "/spec/parallelism"));
    let completions = match object.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let time = |field: &str| age::parse_time(text(object, field));
    let took = time("/status/startTime").map(|start| {
        let end = time("/status/completionTime").unwrap_or(now);
        age::human_duration(end - start)
    });
    vec![
        name(object),
        status.into(),
        completions.into(),
        took.unwrap_or_default().into(),
        age_of(object, now),
        names,
        images,
        selector(object),
    ]
}

pub(super) fn cron_job(object: &Value, now: i64) -> Vec<Value> {
    let template = object.pointer("/spec/jobTemplate/spec/template").cloned().unwrap_or_default();
    let (names, images) = containers(&json!({"spec": {"template": template}}));
    let suspend = match object.pointer("/spec/suspend").and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last = age::parse_time(text(object, "/status/lastScheduleTime"));
    vec![
        name(object),
        text(object, "/spec/schedule").into(),
        text_or(object, "/spec/timeZone", NONE).into(),
        suspend.into(),
        list(object, "/status/active").len().into(),
        last.map_or_else(|| NONE.to_owned(), |at| age::human_duration(now - at)).into(),
        age_of(object, now),
        names,
        images,
        // That of the Jobs is made for each.
        NONE.into(),
    ]
}

pub(super) fn deployment(object: &Value, now: i64) -> Vec<Value> {
    let (names, images) = containers(object);
    vec![
        name(object),
        ready_of_wanted(object),
        number(object, "/status/updatedReplicas").into(),
        number(object, "/status/availableReplicas").into(),
        age_of(object, now),
        names,
        images,
        selector(object),
    ]
}

pub(super) fn stateful_set(object: &Value, now: i64) -> Vec<Value> {
    let (names, images) = containers(object);
    vec![name(object), ready_of_wanted(object), age_of(object, now), names, images]
}

fn ready_of_wanted(object: &Value) -> Value {
    format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas")).into()
}

/// Names and images of a template's containers.
fn containers(object: &Value) -> (Value, Value) {
    let of = |field: &str| {
        let all: Vec<&str> =
            list(object, "/spec/template/spec/containers").iter().map(|c| text(c, field)).collect();
        Value::String(all.join(","))
    };
    (of("/name"), of("/image"))
}

/// `spec.selector`: a LabelSelector, or the plain map of ReplicationControllers.
fn selector(object: &Value) -> Value {
    let Some(selector) = object.pointer("/spec/selector") else { return NONE.into() };
    let typed = selector.get("matchLabels").is_some_and(Value::is_object)
        || selector.get("matchExpressions").is_some_and(Value::is_array);
    if typed || selector.as_object().is_some_and(serde_json::Map::is_empty) {
        label_selector(selector).into()
    } else {
        labels(Some(selector)).into()
    }
}

/// `a=b,c in (d,e),f,!g`, "<none>" for the selector that takes all.
fn label_selector(selector: &Value) -> String {
    let mut parts = Vec::new();
    for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
        parts.push((key.clone(), format!("{key}={}", value.as_str().unwrap_or(""))));
    }
    for requirement in list(selector, "/matchExpressions") {
        let key = text(requirement, "/key");
        let mut values: Vec<&str> = list(requirement, "/values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(requirement, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        parts.push((key.to_owned(), part));
    }
    parts.sort();
    match parts.len() {
        0 => NONE.to_owned(),
        _ => parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(","),
    }
}

fn labels(map: Option<&Value>) -> String {
    let mut parts: Vec<String> = map
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    parts.sort();
    if parts.is_empty() { NONE.to_owned() } else { parts.join(",") }
}

pub(super) fn service(object: &Value, now: i64) -> Vec<Value> {
    let ports: Vec<String> = list(object, "/spec/ports")
        .iter()
        .map(|port| {
            let (number, node) = (self::number(port, "/port"), self::number(port, "/nodePort"));
            let protocol = text(port, "/protocol");
            if node > 0 { format!("{number}:{node}/{protocol}") } else { format!("{number}/{protocol}") }
        })
        .collect();
    vec![
        name(object),
        text(object, "/spec/type").into(),
        text_or(object, "/spec/clusterIP", NONE).into(),
        external_ip(object).into(),
        if ports.is_empty() { NONE.into() } else { ports.join(",").into() },
        age_of(object, now),
        labels(object.pointer("/spec/selector")).into(),
    ]
}

fn external_ip(service: &Value) -> String {
    let ips: Vec<&str> = list(service, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match text(service, "/spec/type") {
        "ExternalName" => text_or(service, "/spec/externalName", NONE).to_owned(),
        "LoadBalancer" => {
            let given = list(service, "/status/loadBalancer/ingress")
                .iter()
                .map(|ingress| text_or(ingress, "/ip", text(ingress, "/hostname")));
            let all: Vec<&str> = given.chain(ips.iter().copied()).filter(|ip| !ip.is_empty()).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ if ips.is_empty() => NONE.to_owned(),
        _ => ips.join(","),
    }
}

pub(super) fn node(object: &Value, now: i64) -> Vec<Value> {
    let ready = list(object, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
    let mut status = match ready.map(|c| text(c, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten() {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if key == "kubernetes.io/role" => roles.extend(value.as_str().filter(|v| !v.is_empty())),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    let address = |kind: &str| {
        let found = list(object, "/status/addresses").iter().find(|a| text(a, "/type") == kind);
        Value::from(found.map_or(NONE, |a| text(a, "/address")))
    };
    let info = |field: &str, absent: &str| {
        Value::from(text_or(object, &format!("/status/nodeInfo/{field}"), absent))
    };
    vec![
        name(object),
        status.into(),
        if roles.is_empty() { NONE.into() } else { roles.join(",").into() },
        age_of(object, now),
        info("kubeletVersion", ""),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage", "<unknown>"),
        info("kernelVersion", "<unknown>"),
        info("containerRuntimeVersion", "<unknown>"),
    ]
}

/// Both shapes: core events and those of events.k8s.io, whose old fields are called deprecated.
pub(super) fn event(object: &Value, now: i64) -> Vec<Value> {
    let first_of = |pointers: &[&str]| {
        pointers.iter().map(|p| text(object, p)).find(|t| !t.is_empty()).unwrap_or("").to_owned()
    };
    let first = first_of(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
    let last = first_of(&[
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
        "/firstTimestamp",
        "/deprecatedFirstTimestamp",
        "/eventTime",
    ]);
    let times = ["/series/count", "/count", "/deprecatedCount"].iter().map(|p| number(object, p));
    let times = times.into_iter().find(|n| *n > 0).unwrap_or(1);
    let about = if object.get("regarding").is_some() { "/regarding" } else { "/involvedObject" };
    let kind = text(object, &format!("{about}/kind")).to_lowercase();
    let target = match text(object, &format!("{about}/name")) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = first_of(&[
        "/source/component",
        "/deprecatedSource/component",
        "/reportingComponent",
        "/reportingController",
    ]);
    let host = first_of(&["/source/host", "/deprecatedSource/host", "/reportingInstance"]);
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    vec![
        age::since(&last, now).into(),
        text(object, "/type").into(),
        text(object, "/reason").into(),
        target.into(),
        text(object, &format!("{about}/fieldPath")).into(),
        source.into(),
        text_or(object, "/message", text(object, "/note")).trim().into(),
        age::since(&first, now).into(),
        times.into(),
        name(object),
    ]
}

pub(super) fn namespace(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), text(object, "/status/phase").into(), age_of(object, now)]
}

pub(super) fn config_map(object: &Value, now: i64) -> Vec<Value> {
    let keys = count(object, "/data") + count(object, "/binaryData");
    vec![name(object), keys.into(), age_of(object, now)]
}

pub(super) fn secret(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), text(object, "/type").into(), count(object, "/data").into(), age_of(object, now)]
}

pub(super) fn service_account(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), count(object, "/secrets").into(), age_of(object, now)]
}

pub(super) fn network_policy(object: &Value, now: i64) -> Vec<Value> {
    let selector = object.pointer("/spec/podSelector").map_or(NONE.to_owned(), label_selector);
    vec![name(object), selector.into(), age_of(object, now)]
}

pub(super) fn cluster_network_policy(object: &Value, now: i64) -> Vec<Value> {
    let tier = object.pointer("/spec/tier").and_then(Value::as_str).unwrap_or_default();
    let priority = object.pointer("/spec/priority").map(Value::to_string).unwrap_or_default();
    vec![name(object), tier.into(), priority.into(), age_of(object, now)]
}

/// The first three, and how many more.
fn shortened(all: &[String], absent: &str) -> Value {
    const SHOWN: usize = 3;
    match all.len() {
        0 => absent.into(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN).into(),
        _ => all.join(",").into(),
    }
}

pub(super) fn endpoints(object: &Value, now: i64) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        let ports = list(subset, "/ports");
        for address in list(subset, "/addresses") {
            let ip = text(address, "/ip");
            let shown = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{shown}:{}", number(port, "/port"))));
        }
    }
    vec![name(object), shortened(&all, NONE), age_of(object, now)]
}

pub(super) fn endpoint_slice(object: &Value, now: i64) -> Vec<Value> {
    let ports: Vec<String> = list(object, "/ports")
        .iter()
        .map(|port| match (port.get("port").and_then(Value::as_i64), text(port, "/name")) {
            (Some(number), _) => number.to_string(),
            (None, "") => "*".to_owned(),
            (None, name) => name.to_owned(),
        })
        .collect();
    let addresses: Vec<String> = list(object, "/endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    vec![
        name(object),
        text(object, "/addressType").into(),
        shortened(&ports, "<unset>"),
        shortened(&addresses, "<unset>"),
        age_of(object, now),
    ]
}

pub(super) fn lease(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), text(object, "/spec/holderIdentity").into(), age_of(object, now)]
}

pub(super) fn priority_class(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        number(object, "/value").into(),
        json!(object.get("globalDefault") == Some(&Value::Bool(true))),
        age_of(object, now),
        text(object, "/preemptionPolicy").into(),
    ]
}

pub(super) fn role_binding(object: &Value, now: i64) -> Vec<Value> {
    let of = |kind: &str| {
        let all: Vec<String> = list(object, "/subjects")
            .iter()
            .filter(|s| text(s, "/kind") == kind)
            .map(|s| match (kind, text(s, "/namespace")) {
                ("ServiceAccount", namespace) if !namespace.is_empty() => {
                    format!("{namespace}/{}", text(s, "/name"))
                }
                _ => text(s, "/name").to_owned(),
            })
            .collect();
        Value::String(all.join(", "))
    };
    vec![
        name(object),
        format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name")).into(),
        age_of(object, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

pub(super) fn disruption_budget(object: &Value, now: i64) -> Vec<Value> {
    let amount = |pointer: &str| match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => "N/A".to_owned(),
    };
    vec![
        name(object),
        amount("/spec/minAvailable").into(),
        amount("/spec/maxUnavailable").into(),
        number(object, "/status/disruptionsAllowed").into(),
        age_of(object, now),
    ]
}
