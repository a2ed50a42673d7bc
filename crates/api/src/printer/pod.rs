//! The row of a pod. STATUS is the word users search for: the phase, or the reason of the container that says most.

use serde_json::{Value, json};

use super::{age, age_of, list, name, number, text, text_or};

const NONE: &str = "<none>";

/// What the containers say, summed up.
struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: i64,
    /// Seconds since the epoch.
    last_restart: Option<i64>,
}

pub(super) fn cells(pod: &Value, now: i64) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, age::human_duration(now - last))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = list(pod, "/status/podIPs").first().map_or(text(pod, "/status/podIP"), |ip| text(ip, "/ip"));
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        restarts.into(),
        age_of(pod, now),
        if ip.is_empty() { NONE.into() } else { ip.into() },
        text_or(pod, "/spec/nodeName", NONE).into(),
        text_or(pod, "/status/nominatedNodeName", NONE).into(),
        readiness_gates(pod).into(),
    ]
}

/// Rows of pods that have ended carry a condition by which clients may hide them.
pub(super) fn row_conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match text(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

fn is_true(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer) == Some(&Value::Bool(true))
}

fn condition(pod: &Value, kind: &str) -> bool {
    list(pod, "/status/conditions").iter().any(|c| text(c, "/type") == kind && text(c, "/status") == "True")
}

fn summarize(pod: &Value) -> Summary {
    let init = list(pod, "/spec/initContainers");
    let sidecar =
        |name: &str| init.iter().any(|c| text(c, "/name") == name && text(c, "/restartPolicy") == "Always");
    let sidecars = init.iter().filter(|c| text(c, "/restartPolicy") == "Always").count();
    let gated = list(pod, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == "PodScheduled" && text(c, "/reason") == "SchedulingGated");
    let status = if gated {
        "SchedulingGated".to_owned()
    } else {
        text_or(pod, "/status/reason", text(pod, "/status/phase")).to_owned()
    };
    let mut summary = Summary {
        ready: 0,
        total: list(pod, "/spec/containers").len() + sidecars,
        status,
        restarts: 0,
        last_restart: None,
    };

    // Restarts of init containers count only while they are the story.
    let (mut of_sidecars, mut last_of_sidecars) = (0, None);
    let mut initializing = false;
    for (i, container) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        let lasting = sidecar(text(container, "/name"));
        summary.restarts += number(container, "/restartCount");
        summary.last_restart = summary.last_restart.max(ended_before(container));
        if lasting {
            of_sidecars += number(container, "/restartCount");
            last_of_sidecars = last_of_sidecars.max(ended_before(container));
        }
        let terminated = container.pointer("/state/terminated").filter(|t| !t.is_null());
        let waiting = text(container, "/state/waiting/reason");
        match terminated {
            Some(ended) if number(ended, "/exitCode") == 0 => continue,
            _ if lasting && is_true(container, "/started") => {
                summary.ready += usize::from(is_true(container, "/ready"));
                continue;
            }
            Some(ended) => summary.status = format!("Init:{}", why_ended(ended)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => {
                summary.status = format!("Init:{waiting}");
            }
            None => summary.status = format!("Init:{i}/{}", init.len()),
        }
        initializing = true;
        break;
    }

    if !initializing || condition(pod, "Initialized") {
        summary.restarts = of_sidecars;
        summary.last_restart = last_of_sidecars;
        containers(pod, &mut summary);
    }

    if pod.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null()) {
        if text(pod, "/status/reason") == "NodeLost" {
            summary.status = "Unknown".to_owned();
        } else if !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
            summary.status = "Terminating".to_owned();
        }
    }
    summary
}

/// The containers proper, last first, so that the first one's reason stands.
fn containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for container in list(pod, "/status/containerStatuses").iter().rev() {
        summary.restarts += number(container, "/restartCount");
        summary.last_restart = summary.last_restart.max(ended_before(container));
        let waiting = text(container, "/state/waiting/reason");
        let terminated = container.pointer("/state/terminated").filter(|t| !t.is_null());
        if !waiting.is_empty() {
            summary.status = waiting.to_owned();
        } else if let Some(ended) = terminated {
            summary.status = why_ended(ended);
        } else if is_true(container, "/ready")
            && container.pointer("/state/running").is_some_and(|r| !r.is_null())
        {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.status == "Completed" && running {
        summary.status = if condition(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}

fn why_ended(terminated: &Value) -> String {
    match (text(terminated, "/reason"), number(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// When the run before this one ended.
fn ended_before(container: &Value) -> Option<i64> {
    age::parse_time(text(container, "/lastState/terminated/finishedAt"))
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| condition(pod, text(gate, "/conditionType"))).count();
    format!("{open}/{}", gates.len())
}
