//! The life of pods as tables: what was seen, what to do, what to show.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "x", "namespace": "default", "uid": "u-1", "generation": 1}, "spec": spec
    }))
    .unwrap()
}

/// A pod with these containers of each kind.
fn pod_of(policy: &str, init: &[&str], sidecars: &[&str], apps: &[&str]) -> Pod {
    let named =
        |names: &[&str]| names.iter().map(|name| json!({"name": name, "image": "i"})).collect::<Vec<_>>();
    let mut before = named(init);
    before.extend(sidecars.iter().map(|name| json!({"name": name, "image": "i", "restartPolicy": "Always"})));
    pod(json!({"restartPolicy": policy, "initContainers": before, "containers": named(apps)}))
}

fn exit(how: How, started: i64, finished: i64) -> Exit {
    Exit {
        how,
        started_at: Some(at(started)),
        finished_at: at(finished),
        message: String::new(),
        container_id: Some("cofferdam://1".to_owned()),
    }
}

fn container(name: &str, state: State) -> ContainerRecord {
    let mut record = ContainerRecord {
        name: name.to_owned(),
        kind: ContainerKind::App,
        state,
        last: None,
        restarts: 0,
        back_off: BackOff::default(),
        image: "i".to_owned(),
        image_id: "sha256:1".to_owned(),
        container_id: Some("cofferdam://1".to_owned()),
    };
    if let State::Exited(exit) = &record.state {
        record.back_off = after_exit(record.back_off, exit);
    }
    record
}

fn running(name: &str) -> ContainerRecord {
    container(name, State::Running { since: at(0), started: true, ready: true })
}

fn exited(name: &str, how: How) -> ContainerRecord {
    container(name, State::Exited(exit(how, 0, 5)))
}

fn record(containers: Vec<ContainerRecord>) -> PodRecord {
    PodRecord {
        started_at: Some(at(0)),
        sandbox: Sandbox::Ready,
        containers,
        host_ips: vec!["10.88.0.2".to_owned()],
        pod_ips: vec!["10.244.0.5".to_owned()],
        ..PodRecord::default()
    }
}

fn starts(decision: &Decision) -> Vec<(&str, u32)> {
    decision.start.iter().map(|start| (start.name.as_str(), start.attempt)).collect()
}

#[test]
fn a_new_pod_gets_a_sandbox_and_its_containers() {
    let pod = pod_of("Always", &[], &[], &["a", "b"]);
    let new = PodRecord { sandbox: Sandbox::None, ..record(Vec::new()) };
    let decision = decide(&pod, &new, at(0));
    assert!(decision.create_sandbox && !decision.finished);
    let decision = decide(&pod, &record(Vec::new()), at(0));
    assert_eq!(starts(&decision), [("a", 0), ("b", 0)]);
    assert!(!decision.create_sandbox);
}

#[test]
fn init_containers_run_one_after_the_other_before_the_apps() {
    let pod = pod_of("Always", &["i1", "i2"], &[], &["a"]);
    for (containers, expected) in [
        (vec![], vec![("i1", 0)]),
        (vec![running("i1")], vec![]),
        (vec![exited("i1", How::Code(0))], vec![("i2", 0)]),
        (vec![exited("i1", How::Code(0)), running("i2")], vec![]),
        (vec![exited("i1", How::Code(0)), exited("i2", How::Code(0))], vec![("a", 0)]),
        // The first restart is at once.
        (vec![exited("i1", How::Code(3))], vec![("i1", 1)]),
        // Initialized once is initialized for good.
        (vec![exited("i1", How::Code(3)), running("a")], vec![]),
    ] {
        let seen = record(containers.clone());
        assert_eq!(starts(&decide(&pod, &seen, at(6))), expected, "{containers:?}");
    }
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let pod = pod_of("Never", &["i1", "i2"], &[], &["a"]);
    let seen = record(vec![exited("i1", How::Code(3))]);
    let decision = decide(&pod, &seen, at(6));
    assert!(decision.finished && decision.start.is_empty());
    assert_eq!(status(&pod, &seen, at(6)).phase.as_deref(), Some("Failed"));
    let on_failure = pod_of("OnFailure", &["i1"], &[], &["a"]);
    assert_eq!(starts(&decide(&on_failure, &seen, at(6))), [("i1", 1)]);
    assert_eq!(status(&on_failure, &seen, at(6)).phase.as_deref(), Some("Pending"));
}

#[test]
fn sidecars_start_before_the_apps_are_kept_up_and_end_last() {
    let pod = pod_of("Never", &[], &["s1", "s2"], &["a"]);
    let starting = || container("s1", State::Running { since: at(0), started: false, ready: false });
    for (containers, expected) in [
        (vec![], vec![("s1", 0)]),
        (vec![starting()], vec![]),
        (vec![running("s1")], vec![("s2", 0)]),
        (vec![running("s1"), running("s2")], vec![("a", 0)]),
        // Kept up whatever the pod's policy is.
        (vec![exited("s1", How::Code(0)), running("s2"), running("a")], vec![("s1", 1)]),
    ] {
        let seen = record(containers.clone());
        assert_eq!(starts(&decide(&pod, &seen, at(6))), expected, "{containers:?}");
    }
    let over = record(vec![running("s1"), running("s2"), exited("a", How::Code(0))]);
    let decision = decide(&pod, &over, at(6));
    assert_eq!((decision.kill.as_slice(), decision.finished), (["s2".to_owned()].as_slice(), false));
    let over = record(vec![running("s1"), exited("s2", How::Signal(15)), exited("a", How::Code(0))]);
    let decision = decide(&pod, &over, at(6));
    assert_eq!((decision.kill.as_slice(), decision.start.len()), (["s1".to_owned()].as_slice(), 0));
    let over =
        record(vec![exited("s1", How::Signal(15)), exited("s2", How::Signal(15)), exited("a", How::Code(0))]);
    assert!(decide(&pod, &over, at(6)).finished);
    assert_eq!(status(&pod, &over, at(6)).phase.as_deref(), Some("Succeeded"));
}

#[test]
fn the_restart_policy_decides_who_comes_back() {
    for (policy, how, restarts, phase) in [
        ("Always", How::Code(0), true, "Running"),
        ("Always", How::Code(1), true, "Running"),
        ("OnFailure", How::Code(0), false, "Succeeded"),
        ("OnFailure", How::Code(1), true, "Running"),
        ("OnFailure", How::OomKilled, true, "Running"),
        ("Never", How::Code(0), false, "Succeeded"),
        ("Never", How::Code(1), false, "Failed"),
        ("Never", How::Signal(9), false, "Failed"),
        ("Never", How::StartError, false, "Failed"),
    ] {
        let pod = pod_of(policy, &[], &[], &["a"]);
        let seen = record(vec![exited("a", how)]);
        let decision = decide(&pod, &seen, at(6));
        assert_eq!(
            (!decision.start.is_empty(), decision.finished),
            (restarts, !restarts),
            "{policy} {how:?}"
        );
        assert_eq!(status(&pod, &seen, at(6)).phase.as_deref(), Some(phase), "{policy} {how:?}");
    }
}

#[test]
fn a_containers_own_rules_beat_the_pods_policy() {
    let own = |container: Value| pod(json!({"restartPolicy": "Never", "containers": [container]}));
    let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    for (container, code, restarts) in [
        (json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules}), 42, true),
        (json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules}), 1, false),
        (json!({"name": "a", "restartPolicy": "OnFailure"}), 1, true),
        (json!({"name": "a", "restartPolicy": "OnFailure"}), 0, false),
    ] {
        let decision = decide(&own(container.clone()), &record(vec![exited("a", How::Code(code))]), at(6));
        assert_eq!(!decision.start.is_empty(), restarts, "{container} {code}");
    }
}

#[test]
fn the_back_off_doubles_to_five_minutes_and_is_forgotten_after_ten() {
    let mut back_off = BackOff::default();
    let mut now = 0;
    let mut delays = Vec::new();
    for _ in 0..9 {
        back_off = after_exit(back_off, &exit(How::Code(1), now, now + 1));
        delays.push(back_off.delay.as_secs());
        now += 1 + back_off.delay.as_secs();
    }
    assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
    let after_ten_minutes = after_exit(back_off, &exit(How::Code(1), now, now + 600));
    assert_eq!(after_ten_minutes.delay.as_secs(), 300, "exactly ten minutes is not more");
    let well = after_exit(back_off, &exit(How::Code(1), now, now + 601));
    assert_eq!(well.delay.as_secs(), 0);
    let again = after_exit(well, &exit(How::Code(1), now, now + 1));
    assert_eq!(again.delay.as_secs(), 10);
    let never_ran = Exit { started_at: None, ..exit(How::StartError, 0, now + 2) };
    assert_eq!(after_exit(again, &never_ran).delay.as_secs(), 20, "what never ran has not run well");
}

#[test]
fn a_crashing_container_waits_shows_it_and_is_started_when_its_time_comes() {
    let pod = pod_of("Always", &[], &[], &["a"]);
    let mut crashed = exited("a", How::Code(1));
    crashed.restarts = 1;
    crashed.back_off = after_exit(crashed.back_off, &exit(How::Code(1), 4, 5));
    let mut seen = record(vec![crashed]);
    let decision = decide(&pod, &seen, at(6));
    assert!(decision.start.is_empty());
    assert_eq!(decision.wake_at, Some(at(15)));
    assert_eq!(
        decision.back_off_events,
        [("a".to_owned(), "Back-off restarting failed container a in pod x_default(u-1)".to_owned())]
    );
    let shown = status(&pod, &seen, at(6));
    assert_eq!(shown.phase.as_deref(), Some("Running"));
    let status_of_a = &shown.container_statuses.as_ref().unwrap()[0];
    let waiting = status_of_a.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(
        waiting.message.as_deref(),
        Some("back-off 10s restarting failed container=a pod=x_default(u-1)")
    );
    let last = status_of_a.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref(), status_of_a.restart_count), (1, Some("Error"), 1));
    // Told once, not at every look.
    seen.reported = shown;
    assert!(decide(&pod, &seen, at(7)).back_off_events.is_empty());
    let decision = decide(&pod, &seen, at(15));
    assert_eq!(starts(&decision), [("a", 2)]);
}

#[test]
fn ends_are_shown_with_their_reason_and_code() {
    let pod = pod_of("Never", &[], &[], &["a"]);
    for (how, code, reason) in [
        (How::Code(0), 0, "Completed"),
        (How::Code(7), 7, "Error"),
        (How::Signal(9), 137, "Error"),
        (How::Signal(15), 143, "Error"),
        (How::OomKilled, 137, "OOMKilled"),
        (How::StartError, 128, "StartError"),
        (How::CannotRun(127), 127, "ContainerCannotRun"),
        (How::Unknown, 137, "ContainerStatusUnknown"),
    ] {
        let mut ended = exited("a", how);
        if let State::Exited(exit) = &mut ended.state {
            exit.message = "m".to_owned();
        }
        let shown = status(&pod, &record(vec![ended]), at(6));
        let state = shown.container_statuses.unwrap().remove(0).state.unwrap().terminated.unwrap();
        assert_eq!((state.exit_code, state.reason.as_deref()), (code, Some(reason)));
        assert_eq!(state.message.as_deref(), Some("m"));
        assert_eq!(state.finished_at.unwrap().0, at(5));
    }
}

#[test]
fn waiting_containers_say_what_for() {
    let pod = pod_of("Always", &["i"], &[], &["a"]);
    let reason = |status: &PodStatus, init: bool| {
        let list = if init { &status.init_container_statuses } else { &status.container_statuses };
        list.as_ref().unwrap()[0].state.clone().unwrap().waiting.unwrap().reason.unwrap()
    };
    let shown = status(&pod, &record(Vec::new()), at(0));
    assert_eq!(
        (reason(&shown, true), reason(&shown, false)),
        ("PodInitializing".into(), "PodInitializing".into())
    );
    let simple = pod_of("Always", &[], &[], &["a"]);
    assert_eq!(reason(&status(&simple, &record(Vec::new()), at(0)), false), "ContainerCreating");
    let pull = State::Waiting(Some(("ErrImagePull".to_owned(), "no such host".to_owned())));
    let shown = status(&simple, &record(vec![container("a", pull)]), at(0));
    assert_eq!(reason(&shown, false), "ErrImagePull");
    assert_eq!(shown.phase.as_deref(), Some("Pending"));
    let pull = State::Waiting(Some(("ErrImagePull".to_owned(), "no such host".to_owned())));
    assert_eq!(starts(&decide(&simple, &record(vec![container("a", pull)]), at(0))), [("a", 0)]);
}

/// Type, status and reason of each condition.
fn conditions(status: &PodStatus) -> Vec<(String, String, Option<String>)> {
    let list = status.conditions.clone().unwrap();
    list.into_iter().map(|c| (c.type_, c.status, c.reason)).collect()
}

#[test]
fn conditions_follow_the_containers() {
    let pod = pod_of("Always", &["i"], &[], &["a", "b"]);
    let unready = container("b", State::Running { since: at(0), started: true, ready: false });
    for (containers, sandbox, expected) in [
        (
            vec![],
            Sandbox::None,
            [
                ("False", ""),
                ("False", "ContainersNotInitialized"),
                ("False", "ContainersNotReady"),
                ("False", "ContainersNotReady"),
            ],
        ),
        (
            vec![running("i")],
            Sandbox::Ready,
            [
                ("True", ""),
                ("False", "ContainersNotInitialized"),
                ("False", "ContainersNotReady"),
                ("False", "ContainersNotReady"),
            ],
        ),
        (
            vec![exited("i", How::Code(0)), running("a"), unready],
            Sandbox::Ready,
            [("True", ""), ("True", ""), ("False", "ContainersNotReady"), ("False", "ContainersNotReady")],
        ),
        (
            vec![exited("i", How::Code(0)), running("a"), running("b")],
            Sandbox::Ready,
            [("True", ""), ("True", ""), ("True", ""), ("True", "")],
        ),
    ] {
        let seen = PodRecord { sandbox, ..record(containers.clone()) };
        let shown = status(&pod, &seen, at(9));
        let names = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];
        let mut expected: Vec<_> = names
            .into_iter()
            .zip(expected)
            .map(|(name, (value, reason))| {
                (name.to_owned(), value.to_owned(), Some(reason.to_owned()).filter(|r| !r.is_empty()))
            })
            .collect();
        expected.push(("PodScheduled".to_owned(), "True".to_owned(), None));
        assert_eq!(conditions(&shown), expected, "{containers:?}");
    }
    let shown = status(&pod, &record(vec![exited("i", How::Code(0)), running("a")]), at(9));
    let message = shown.conditions.unwrap()[2].message.clone();
    assert_eq!(message.as_deref(), Some("containers with unready status: [b]"));
}

#[test]
fn conditions_keep_their_time_while_they_hold_and_those_of_others_stay() {
    let mut pod = pod_of("Always", &[], &[], &["a"]);
    pod.spec.as_mut().unwrap().readiness_gates =
        Some(serde_json::from_value(json!([{"conditionType": "example.com/gate"}])).unwrap());
    let mut seen = record(vec![running("a")]);
    seen.reported = status(&pod, &seen, at(10));
    let ready = |status: &PodStatus| status.conditions.as_ref().unwrap()[2].clone();
    assert_eq!(
        ready(&seen.reported).message.as_deref(),
        Some("corresponding condition of pod readiness gate \"example.com/gate\" does not exist.")
    );
    pod.status = Some(
        serde_json::from_value(json!({"conditions": [{"type": "example.com/gate", "status": "True"}]}))
            .unwrap(),
    );
    let shown = status(&pod, &seen, at(20));
    assert_eq!(ready(&shown).status, "True");
    assert_eq!(ready(&shown).last_transition_time.unwrap().0, at(20));
    let list = shown.conditions.unwrap();
    assert_eq!(list[3].last_transition_time.as_ref().unwrap().0, at(10), "ContainersReady was true before");
    assert_eq!(list.last().unwrap().type_, "example.com/gate");
}

#[test]
fn a_deleted_pod_is_stopped_and_never_started_again() {
    let pod = pod_of("Always", &[], &["s"], &["a", "b"]);
    let mut seen = record(vec![running("s"), running("a"), exited("b", How::Code(1))]);
    seen.stop = Some(Stop::Deleted);
    let decision = decide(&pod, &seen, at(6));
    assert_eq!((decision.kill.as_slice(), decision.start.len()), (["a".to_owned()].as_slice(), 0));
    seen.containers =
        vec![exited("s", How::Signal(15)), exited("a", How::Signal(15)), exited("b", How::Code(1))];
    assert!(decide(&pod, &seen, at(6)).finished);
    assert_eq!(status(&pod, &seen, at(6)).phase.as_deref(), Some("Failed"));
}

#[test]
fn a_refused_pod_fails_with_its_reason_once_nothing_runs() {
    let pod = pod_of("Always", &[], &[], &["a"]);
    let mut seen = record(vec![running("a")]);
    seen.stop = Some(Stop::Failed { reason: "Evicted".to_owned(), message: "too much".to_owned() });
    assert_eq!(status(&pod, &seen, at(6)).phase.as_deref(), Some("Running"), "a process of it still runs");
    seen.containers = vec![exited("a", How::Signal(9))];
    let shown = status(&pod, &seen, at(6));
    let seen = (shown.phase.as_deref(), shown.reason.as_deref(), shown.message.as_deref());
    assert_eq!(seen, (Some("Failed"), Some("Evicted"), Some("too much")));
}

#[test]
fn the_deadline_ends_a_pod() {
    let mut pod = pod_of("Always", &[], &[], &["a"]);
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(30);
    let seen = record(vec![running("a")]);
    assert_eq!(decide(&pod, &seen, at(29)).wake_at, Some(at(30)));
    assert!(decide(&pod, &seen, at(29)).kill.is_empty());
    assert_eq!(decide(&pod, &seen, at(30)).kill, ["a"]);
    let seen = record(vec![exited("a", How::Signal(15))]);
    let shown = status(&pod, &seen, at(31));
    assert_eq!((shown.phase.as_deref(), shown.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}

#[test]
fn a_final_phase_stays() {
    let mut pod = pod_of("OnFailure", &[], &[], &["a"]);
    pod.status = Some(PodStatus { phase: Some("Succeeded".to_owned()), ..PodStatus::default() });
    let lost = PodRecord { sandbox: Sandbox::None, ..record(Vec::new()) };
    let decision = decide(&pod, &lost, at(0));
    assert!(decision.finished && !decision.create_sandbox && decision.start.is_empty());
    assert_eq!(status(&pod, &lost, at(0)).phase.as_deref(), Some("Succeeded"));
}

#[test]
fn ephemeral_containers_start_once() {
    let mut pod = pod_of("Always", &[], &[], &["a"]);
    pod.spec.as_mut().unwrap().ephemeral_containers =
        Some(serde_json::from_value(json!([{"name": "e", "image": "i"}])).unwrap());
    assert_eq!(starts(&decide(&pod, &record(vec![running("a")]), at(0))), [("e", 0)]);
    let seen = record(vec![running("a"), exited("e", How::Code(1))]);
    assert!(decide(&pod, &seen, at(100)).start.is_empty());
    assert_eq!(status(&pod, &seen, at(6)).phase.as_deref(), Some("Running"));
}

fn any_state() -> impl Strategy<Value = Option<State>> {
    prop_oneof![
        Just(None),
        Just(Some(State::Waiting(None))),
        Just(Some(State::Waiting(Some(("ErrImagePull".to_owned(), String::new()))))),
        (any::<bool>(), any::<bool>()).prop_map(|(started, ready)| Some(State::Running {
            since: at(0),
            started,
            ready
        })),
        (0i32..3, 0i64..100).prop_map(|(code, end)| Some(State::Exited(exit(How::Code(code), 0, end)))),
        Just(Some(State::Exited(exit(How::Signal(9), 0, 7)))),
    ]
}

proptest! {
    /// Whatever was seen: what runs is not started, nothing ended is started against its policy, and a pod is over only
    /// when nothing of it runs.
    #[test]
    fn decisions_agree_with_what_runs(
        states in proptest::collection::vec(any_state(), 5),
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        deleted in any::<bool>(),
        now in 0i64..1000,
    ) {
        let pod = pod_of(policy, &["i1", "i2"], &["s"], &["a", "b"]);
        let names = ["i1", "i2", "s", "a", "b"];
        let containers = names.iter().zip(states).filter_map(|(n, s)| Some(container(n, s?))).collect();
        let mut seen = record(containers);
        seen.stop = deleted.then_some(Stop::Deleted);
        let decision = decide(&pod, &seen, at(now));
        for start in &decision.start {
            prop_assert!(!seen.container(&start.name).is_some_and(ContainerRecord::is_running));
        }
        if deleted {
            prop_assert!(decision.start.is_empty() && !decision.create_sandbox);
        }
        let runs = seen.containers.iter().any(ContainerRecord::is_running);
        prop_assert!(!(decision.finished && runs));
        let shown = status(&pod, &seen, at(now));
        let phase = shown.phase.as_deref().unwrap();
        if matches!(phase, "Succeeded" | "Failed") {
            prop_assert!(decision.start.is_empty(), "a final phase starts nothing");
        }
        // Nothing to do, nothing to wait for and nothing running would be a pod that hangs.
        let idle = decision.start.is_empty() && decision.wake_at.is_none() && decision.kill.is_empty();
        prop_assert!(!idle || decision.finished || runs);
    }
}
