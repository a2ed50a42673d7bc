//! The page of a pod, in kubectl's order and words.

use serde_json::Value;

use super::describe::Page;

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// `Mon, 23 Nov 2026 20:30:00 +0000` (RFC 1123) of an RFC 3339 time in UTC, which is what the server writes; anything
/// else as it is.
fn time(text: &str) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Some(seconds) = api::printer::age::parse_time(text).filter(|_| text.ends_with('Z')) else {
        return text.to_owned();
    };
    // The epoch was a Thursday.
    let day = usize::try_from(seconds.div_euclid(86_400).rem_euclid(7)).unwrap_or(0);
    let month = text[5..7].parse::<usize>().unwrap_or(1);
    format!("{}, {} {} {} {} +0000", DAYS[day], &text[8..10], MONTHS[month - 1], &text[..4], &text[11..19])
}

/// `True` and `False`, as Go's describer writes them.
fn title(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

pub(super) fn describe(page: &mut Page, pod: &Value) {
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    page.line(0, &["Name:", text(metadata, "/name")]);
    page.line(0, &["Namespace:", text(metadata, "/namespace")]);
    page.line(0, &["Priority:", &shown(spec.get("priority").unwrap_or(&Value::from(0)))]);
    for (label, field) in
        [("Runtime Class Name:", "/runtimeClassName"), ("Service Account:", "/serviceAccountName")]
    {
        if !text(spec, field).is_empty() {
            page.line(0, &[label, text(spec, field)]);
        }
    }
    let node = match (text(spec, "/nodeName"), text(status, "/hostIP")) {
        ("", _) => "<none>".to_owned(),
        (node, ip) => format!("{node}/{ip}"),
    };
    page.line(0, &["Node:", &node]);
    if !text(status, "/startTime").is_empty() {
        page.line(0, &["Start Time:", &time(text(status, "/startTime"))]);
    }
    page.map(0, "Labels:", &metadata["labels"], "=");
    page.map(0, "Annotations:", &metadata["annotations"], ": ");
    if text(metadata, "/deletionTimestamp").is_empty() {
        page.line(0, &["Status:", text(status, "/phase")]);
    } else {
        page.line(0, &["Status:", &format!("Terminating (since {})", text(metadata, "/deletionTimestamp"))]);
        let grace = shown(&metadata["deletionGracePeriodSeconds"]);
        page.line(0, &["Termination Grace Period:", &format!("{grace}s")]);
    }
    for (label, field) in [("Reason:", "/reason"), ("Message:", "/message")] {
        if !text(status, field).is_empty() {
            page.line(0, &[label, text(status, field)]);
        }
    }
    security(page, 0, &spec["securityContext"]);
    page.line(0, &["IP:", text(status, "/podIP")]);
    let ips = list(status, "/podIPs");
    if ips.is_empty() {
        page.line(0, &["IPs:", "<none>"]);
    } else {
        page.line(0, &["IPs:"]);
        for ip in ips {
            page.line(1, &["IP:", text(ip, "/ip")]);
        }
    }
    let owner = list(metadata, "/ownerReferences").iter().find(|o| o["controller"] == true);
    if let Some(owner) = owner {
        page.line(0, &["Controlled By:", &format!("{}/{}", text(owner, "/kind"), text(owner, "/name"))]);
    }
    for (label, list_name, statuses) in [
        ("Init Containers:", "initContainers", "initContainerStatuses"),
        ("Containers:", "containers", "containerStatuses"),
        ("Ephemeral Containers:", "ephemeralContainers", "ephemeralContainerStatuses"),
    ] {
        let containers = list(spec, &format!("/{list_name}"));
        if containers.is_empty() {
            continue;
        }
        page.line(0, &[label]);
        for container in containers {
            let name = text(container, "/name");
            let statuses = list(status, &format!("/{statuses}"));
            let status = statuses.iter().find(|s| text(s, "/name") == name).unwrap_or(&Value::Null);
            page.line(1, &[&format!("{name}:")]);
            self::container(page, container, status);
        }
    }
    conditions(page, status);
    volumes(page, spec);
    page.line(0, &["QoS Class:", text(status, "/qosClass")]);
    page.map(0, "Node-Selectors:", &spec["nodeSelector"], "=");
    tolerations(page, spec);
}

/// Who the processes are: not in kubectl's page, but what this program is about.
fn security(page: &mut Page, level: usize, context: &Value) {
    let Some(map) = context.as_object().filter(|map| !map.is_empty()) else { return };
    page.line(level, &["Security Context:"]);
    for (key, value) in map {
        page.line(level + 1, &[&format!("{key}:"), &shown(value)]);
    }
}

fn container(page: &mut Page, container: &Value, status: &Value) {
    let line = |page: &mut Page, label: &str, value: &str| page.line(2, &[label, value]);
    let reported = status.is_object();
    if reported {
        line(page, "Container ID:", text(status, "/containerID"));
    }
    line(page, "Image:", text(container, "/image"));
    if reported {
        line(page, "Image ID:", text(status, "/imageID"));
    }
    let ports = list(container, "/ports");
    let joined = |field: &str| {
        let all: Vec<String> = ports
            .iter()
            .map(|p| format!("{}/{}", p[field].as_i64().unwrap_or(0), text(p, "/protocol")))
            .collect();
        if all.is_empty() { "<none>".to_owned() } else { all.join(", ") }
    };
    let plural = if ports.len() > 1 { ("Ports:", "Host Ports:") } else { ("Port:", "Host Port:") };
    line(page, plural.0, &joined("containerPort"));
    line(page, plural.1, &joined("hostPort"));
    for (label, field) in [("Command:", "/command"), ("Args:", "/args")] {
        let words = list(container, field);
        if !words.is_empty() {
            page.line(2, &[label]);
            for word in words {
                page.line(3, &[&shown(word)]);
            }
        }
    }
    if reported {
        state(page, "State:", &status["state"]);
        if status["lastState"].as_object().is_some_and(|s| !s.is_empty()) {
            state(page, "Last State:", &status["lastState"]);
        }
        line(page, "Ready:", title(status["ready"] == true));
        line(page, "Restart Count:", &status["restartCount"].as_i64().unwrap_or(0).to_string());
    }
    for (label, field) in [("Limits:", "limits"), ("Requests:", "requests")] {
        let Some(amounts) = container["resources"][field].as_object().filter(|a| !a.is_empty()) else {
            continue;
        };
        page.line(2, &[label]);
        for (name, amount) in amounts {
            page.line(3, &[&format!("{name}:"), &shown(amount)]);
        }
    }
    for (label, field) in
        [("Liveness:", "livenessProbe"), ("Readiness:", "readinessProbe"), ("Startup:", "startupProbe")]
    {
        if container[field].is_object() {
            line(page, label, &probe(&container[field]));
        }
    }
    security(page, 2, &container["securityContext"]);
    environment(page, container);
    let mounts = list(container, "/volumeMounts");
    if mounts.is_empty() {
        line(page, "Mounts:", "<none>");
    } else {
        page.line(2, &["Mounts:"]);
        for mount in mounts {
            let mut flags = vec![if mount["readOnly"] == true { "ro".to_owned() } else { "rw".to_owned() }];
            if !text(mount, "/subPath").is_empty() {
                flags.push(format!("path={:?}", text(mount, "/subPath")));
            }
            let (path, volume) = (text(mount, "/mountPath"), text(mount, "/name"));
            page.line(3, &[&format!("{path} from {volume} ({})", flags.join(","))]);
        }
    }
}

fn state(page: &mut Page, label: &str, state: &Value) {
    if state["running"].is_object() {
        page.line(2, &[label, "Running"]);
        page.line(3, &["Started:", &time(text(state, "/running/startedAt"))]);
    } else if let Some(ended) = state.get("terminated").filter(|t| t.is_object()) {
        page.line(2, &[label, "Terminated"]);
        for (label, field) in [("Reason:", "/reason"), ("Message:", "/message")] {
            if !text(ended, field).is_empty() {
                page.line(3, &[label, text(ended, field)]);
            }
        }
        page.line(3, &["Exit Code:", &shown(&ended["exitCode"])]);
        if ended["signal"].as_i64().unwrap_or(0) > 0 {
            page.line(3, &["Signal:", &shown(&ended["signal"])]);
        }
        page.line(3, &["Started:", &time(text(ended, "/startedAt"))]);
        page.line(3, &["Finished:", &time(text(ended, "/finishedAt"))]);
    } else {
        page.line(2, &[label, "Waiting"]);
        for (label, field) in [("Reason:", "/waiting/reason"), ("Message:", "/waiting/message")] {
            if !text(state, field).is_empty() {
                page.line(3, &[label, text(state, field)]);
            }
        }
    }
}

fn probe(probe: &Value) -> String {
    let number = |field: &str| probe[field].as_i64().unwrap_or(0);
    let what = if probe["exec"].is_object() {
        let words: Vec<String> = list(probe, "/exec/command").iter().map(shown).collect();
        format!("exec [{}]", words.join(" "))
    } else if let Some(http) = probe.get("httpGet").filter(|h| h.is_object()) {
        let scheme = text(http, "/scheme").to_lowercase();
        format!("http-get {scheme}://{}:{}{}", text(http, "/host"), shown(&http["port"]), text(http, "/path"))
    } else if probe["tcpSocket"].is_object() {
        format!("tcp-socket {}:{}", text(probe, "/tcpSocket/host"), shown(&probe["tcpSocket"]["port"]))
    } else if probe["grpc"].is_object() {
        format!("grpc <pod>:{} {}", shown(&probe["grpc"]["port"]), text(probe, "/grpc/service"))
    } else {
        "unknown".to_owned()
    };
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds"),
        number("timeoutSeconds"),
        number("periodSeconds"),
        number("successThreshold"),
        number("failureThreshold")
    )
}

fn environment(page: &mut Page, container: &Value) {
    let from = list(container, "/envFrom");
    if !from.is_empty() {
        page.line(2, &["Environment Variables from:"]);
        for source in from {
            let (kind, reference) = if source["configMapRef"].is_object() {
                ("ConfigMap", &source["configMapRef"])
            } else {
                ("Secret", &source["secretRef"])
            };
            let optional = title(reference["optional"] == true).to_lowercase();
            page.line(3, &[text(reference, "/name"), kind, &format!("Optional: {optional}")]);
        }
    }
    let vars = list(container, "/env");
    if vars.is_empty() {
        page.line(2, &["Environment:", "<none>"]);
        return;
    }
    page.line(2, &["Environment:"]);
    for var in vars {
        let label = format!("{}:", text(var, "/name"));
        let source = &var["valueFrom"];
        let optional = |reference: &Value| title(reference["optional"] == true).to_lowercase();
        let value = if source["fieldRef"].is_object() {
            format!(" ({}:{})", text(source, "/fieldRef/apiVersion"), text(source, "/fieldRef/fieldPath"))
        } else if source["resourceFieldRef"].is_object() {
            format!("({})", text(source, "/resourceFieldRef/resource"))
        } else if let Some(reference) = source.get("secretKeyRef").filter(|r| r.is_object()) {
            let (key, name) = (text(reference, "/key"), text(reference, "/name"));
            format!("<set to the key '{key}' in secret '{name}'>  Optional: {}", optional(reference))
        } else if let Some(reference) = source.get("configMapKeyRef").filter(|r| r.is_object()) {
            let (key, name) = (text(reference, "/key"), text(reference, "/name"));
            format!("<set to the key '{key}' of config map '{name}'>  Optional: {}", optional(reference))
        } else {
            text(var, "/value").to_owned()
        };
        page.line(3, &[&label, &value]);
    }
}

fn conditions(page: &mut Page, status: &Value) {
    let conditions = list(status, "/conditions");
    if conditions.is_empty() {
        return;
    }
    page.line(0, &["Conditions:"]);
    page.line(1, &["Type", "Status"]);
    for condition in conditions {
        page.line(1, &[text(condition, "/type"), text(condition, "/status")]);
    }
}

fn volumes(page: &mut Page, spec: &Value) {
    let volumes = list(spec, "/volumes");
    if volumes.is_empty() {
        page.line(0, &["Volumes:", "<none>"]);
        return;
    }
    page.line(0, &["Volumes:"]);
    for volume in volumes {
        page.line(1, &[&format!("{}:", text(volume, "/name"))]);
        let source =
            volume.as_object().into_iter().flatten().find(|(key, value)| *key != "name" && value.is_object());
        let Some((kind, source)) = source else { continue };
        let words = match kind.as_str() {
            "emptyDir" => "EmptyDir (a temporary directory that shares a pod's lifetime)",
            "hostPath" => "HostPath (bare host directory volume)",
            "secret" => "Secret (a volume populated by a Secret)",
            "configMap" => "ConfigMap (a volume populated by a ConfigMap)",
            "downwardAPI" => "DownwardAPI (a volume populated by information about the pod)",
            "projected" => "Projected (a volume that contains injected data from multiple sources)",
            "persistentVolumeClaim" => {
                "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)"
            }
            other => other,
        };
        page.line(2, &["Type:", words]);
        let mut line = |label: &str, value: String| page.line(2, &[label, &value]);
        match kind.as_str() {
            "emptyDir" => {
                line("Medium:", text(source, "/medium").to_owned());
                line(
                    "SizeLimit:",
                    match text(source, "/sizeLimit") {
                        "" => "<unset>".to_owned(),
                        limit => limit.to_owned(),
                    },
                );
            }
            "hostPath" => {
                line("Path:", text(source, "/path").to_owned());
                line("HostPathType:", text(source, "/type").to_owned());
            }
            "secret" => {
                line("SecretName:", text(source, "/secretName").to_owned());
                line("Optional:", title(source["optional"] == true).to_lowercase());
            }
            "configMap" => {
                line("Name:", text(source, "/name").to_owned());
                line("Optional:", title(source["optional"] == true).to_lowercase());
            }
            "persistentVolumeClaim" => {
                line("ClaimName:", text(source, "/claimName").to_owned());
                line("ReadOnly:", title(source["readOnly"] == true).to_lowercase());
            }
            "projected" => {
                for part in list(source, "/sources") {
                    for (name, label) in [("secret", "SecretName:"), ("configMap", "ConfigMapName:")] {
                        if part[name].is_object() {
                            line(label, text(part, &format!("/{name}/name")).to_owned());
                        }
                    }
                    if part["serviceAccountToken"].is_object() {
                        line(
                            "TokenExpirationSeconds:",
                            shown(&part["serviceAccountToken"]["expirationSeconds"]),
                        );
                    }
                    if part["downwardAPI"].is_object() {
                        line("DownwardAPI:", "true".to_owned());
                    }
                }
            }
            _ => {}
        }
    }
}

fn tolerations(page: &mut Page, spec: &Value) {
    let mut label = "Tolerations:";
    for toleration in list(spec, "/tolerations") {
        let mut line = text(toleration, "/key").to_owned();
        for (before, field) in [("=", "/value"), (":", "/effect")] {
            if !text(toleration, field).is_empty() {
                line.push_str(before);
                line.push_str(text(toleration, field));
            }
        }
        if text(toleration, "/operator") == "Exists" {
            line.push_str(if line.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
            line.push_str(&format!(" for {seconds}s"));
        }
        page.line(0, &[label, or_none(&line)]);
        label = "";
    }
    if !label.is_empty() {
        page.line(0, &[label, "<none>"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_written_as_kubectl_writes_them() {
        assert_eq!(time("2026-11-23T20:30:00Z"), "Mon, 23 Nov 2026 20:30:00 +0000");
        assert_eq!(time("1970-01-01T00:00:00Z"), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(time("whenever"), "whenever");
    }

    #[test]
    fn the_page_of_a_pod() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": true}]},
            "spec": {
                "nodeName": "node-1", "serviceAccountName": "default", "priority": 0,
                "securityContext": {"runAsUser": 1000},
                "containers": [{
                    "name": "a", "image": "nginx", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "env": [{"name": "A", "value": "1"}, {"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
                    "volumeMounts": [{"name": "v", "mountPath": "/data", "readOnly": true}]
                }],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]
            },
            "status": {
                "phase": "Running", "hostIP": "10.88.0.2", "podIP": "10.244.0.2", "podIPs": [{"ip": "10.244.0.2"}],
                "qosClass": "BestEffort", "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{"name": "a", "ready": false, "restartCount": 1, "imageID": "sha256:1",
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"reason": "Error", "exitCode": 1, "startedAt": "2026-11-23T20:30:00Z", "finishedAt": "2026-11-23T20:30:01Z"}}}]
            }
        });
        let mut page = Page::default();
        describe(&mut page, &pod);
        let text = page.finish();
        let lines: Vec<String> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for want in [
            "Name: web",
            "Node: node-1/10.88.0.2",
            "Labels: app=web",
            "Annotations: <none>",
            "Status: Running",
            "runAsUser: 1000",
            "IP: 10.244.0.2",
            "Controlled By: ReplicaSet/web-1",
            "Port: 80/TCP",
            "Host Port: 0/TCP",
            "State: Waiting",
            "Reason: CrashLoopBackOff",
            "Last State: Terminated",
            "Exit Code: 1",
            "Finished: Mon, 23 Nov 2026 20:30:01 +0000",
            "Restart Count: 1",
            "A: 1",
            "IP: (v1:status.podIP)",
            "/data from v (ro)",
            "Ready False",
            "Type: EmptyDir (a temporary directory that shares a pod's lifetime)",
            "QoS Class: BestEffort",
            "Tolerations: k:NoExecute op=Exists for 300s",
        ] {
            assert!(lines.iter().any(|line| line == want), "{want:?} in\n{text}");
        }
        // A pod that has nothing yet has a page too.
        let mut page = Page::default();
        describe(&mut page, &json!({}));
        assert!(page.finish().contains("<none>"));
    }
}
