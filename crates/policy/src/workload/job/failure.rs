//! What a failed pod means to its Job: `podFailurePolicy` (`pkg/controller/job/pod_failure_policy.go`), and when it failed.

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Counted,
    /// It does not count towards `backoffLimit`.
    Ignored,
    /// Its index fails with it.
    FailsIndex,
    /// The message says by which rule.
    FailsJob(String),
}

/// By the first rule that matches.
pub fn judge(spec: &JobSpec, pod: &Pod) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (at, rule) in rules.enumerate() {
        let matched = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            // A pod that is not at its end yet has no codes.
            (Some(_), _) if pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed") => {
                by_exit_code(rule, pod)
            }
            (None, Some(_)) => by_condition(rule, pod),
            _ => None,
        };
        let Some(what) = matched else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignored,
            "FailIndex" => Verdict::FailsIndex,
            "FailJob" => Verdict::FailsJob(format!("{what} matching FailJob rule at index {at}")),
            _ => Verdict::Counted,
        };
    }
    Verdict::Counted
}

fn full_name(pod: &Pod) -> String {
    let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
    format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    status.into_iter().flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten())
}

fn by_exit_code(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let asked = rule.on_exit_codes.as_ref()?;
    containers(pod).find_map(|container| {
        if asked.container_name.as_ref().is_some_and(|name| *name != container.name) {
            return None;
        }
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let listed = asked.values.contains(&code);
        // Zero is no failure, whatever is listed.
        let matches = code != 0 && if asked.operator == "NotIn" { !listed } else { listed };
        let of = full_name(pod);
        matches.then(|| format!("Container {} for pod {of} failed with exit code {code}", container.name))
    })
}

fn by_condition(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let asked = rule.on_pod_conditions.as_ref()?;
    let has = pod.status.as_ref()?.conditions.as_ref()?;
    let found = has.iter().find(|one| {
        asked
            .iter()
            .any(|asked| asked.type_ == one.type_ && asked.status.as_deref().unwrap_or("True") == one.status)
    })?;
    Some(format!("Pod {} has condition {}", full_name(pod), found.type_))
}

/// When a pod ended: with the last of its containers, else when it was not ready any more, else when it was deleted.
pub fn ended(pod: &Pod, now: Timestamp) -> Timestamp {
    last_container(pod).or_else(|| not_ready(pod)).or_else(|| deleted(pod)).unwrap_or(now)
}

/// None while one of them runs.
fn last_container(pod: &Pod) -> Option<Timestamp> {
    let sidecar = |name: &str| {
        let all = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        all.into_iter().any(|one| one.name == name && one.restart_policy.as_deref() == Some("Always"))
    };
    let status = pod.status.as_ref()?;
    let sidecars = status.init_container_statuses.iter().flatten().filter(|one| sidecar(&one.name));
    let ends: Option<Vec<Timestamp>> = sidecars
        .chain(status.container_statuses.iter().flatten())
        .map(|one| Some(one.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0))
        .collect();
    ends?.into_iter().max()
}

fn not_ready(pod: &Pod) -> Option<Timestamp> {
    let ready = crate::workload::ready_condition(pod).filter(|ready| ready.status == "False")?;
    ready.last_transition_time.as_ref().map(|at| at.0)
}

/// The deadline of its deletion, less the time it was given.
fn deleted(pod: &Pod) -> Option<Timestamp> {
    let meta = &pod.metadata;
    let grace = SignedDuration::from_secs(meta.deletion_grace_period_seconds.unwrap_or(0));
    meta.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
}

/// Reasons of events are words of this program.
pub fn reason(reason: &str) -> &'static str {
    match reason {
        "PodFailurePolicy" => "PodFailurePolicy",
        "DeadlineExceeded" => "DeadlineExceeded",
        "FailedIndexes" => "FailedIndexes",
        "MaxFailedIndexesExceeded" => "MaxFailedIndexesExceeded",
        _ => "BackoffLimitExceeded",
    }
}
