//! Jobs whose pods really run and end.

mod common;

use common::{Cluster, skipped, text};
use serde_json::Value;

const OBJECTS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: all}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: cofferdam/tool, command: [/bin/tool, env]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: cofferdam/tool, command: [/bin/tool, exit, "3"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: again}
spec:
  backoffLimit: 1
  template:
    spec:
      restartPolicy: OnFailure
      containers: [{name: c, image: cofferdam/tool, command: [/bin/tool, exit, "1"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: slow}
spec:
  activeDeadlineSeconds: 2
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: cofferdam/tool, command: [/bin/tool, sleep, infinity]}]
"#;

#[test]
fn jobs_run_to_their_end() {
    if skipped("jobs_run_to_their_end", true) {
        return;
    }
    let cluster = Cluster::with_images(2);
    cluster.apply(OBJECTS);
    cluster.kubectl_ok(&[
        "create",
        "job",
        "one",
        "--image=cofferdam/tool",
        "--",
        "/bin/tool",
        "echo",
        "done",
    ]);
    let wait = |name: &str, condition: &str| {
        let condition = format!("--for=condition={condition}");
        cluster.kubectl_ok(&["wait", &condition, "job", name, "--timeout=60s"]);
    };
    wait("one", "complete");
    assert_eq!(cluster.kubectl_ok(&["logs", "job/one"]), "done\n");
    wait("all", "complete");
    let job = |name: &str| -> Value {
        serde_json::from_str(&cluster.kubectl_ok(&["get", "job", name, "-o", "json"])).expect("JSON")
    };
    let status = &job("all")["status"];
    assert_eq!((&status["completedIndexes"], &status["succeeded"]), (&"0-2".into(), &3.into()), "{status}");
    for index in ["0", "1", "2"] {
        let of = format!("batch.kubernetes.io/job-completion-index={index}");
        let log = cluster.kubectl_ok(&["logs", "--tail=-1", "-l", &of]);
        assert!(log.contains(&format!("JOB_COMPLETION_INDEX={index}\n")), "{log}");
        assert!(log.contains(&format!("HOSTNAME=all-{index}\n")), "{log}");
    }
    let table = cluster.kubectl_ok(&["get", "jobs"]);
    let row = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name)).expect("a row");
        line.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("all"), ["all", "Complete", "3/3"], "{table}");
    for (name, reason) in
        [("bad", "BackoffLimitExceeded"), ("again", "BackoffLimitExceeded"), ("slow", "DeadlineExceeded")]
    {
        wait(name, "failed");
        let job = job(name);
        let conditions = job["status"]["conditions"].as_array().expect("conditions");
        let failed = conditions.iter().find(|condition| condition["type"] == "Failed").expect("Failed");
        assert_eq!(failed["reason"], reason, "{job}");
    }
    let described = cluster.kubectl_ok(&["describe", "job", "bad"]);
    assert!(described.contains("Job has reached the specified backoff limit"), "{described}");
    // What has ended stays to be read; what was ended goes.
    let left = |name: &str| {
        let of = format!("batch.kubernetes.io/job-name={name}");
        cluster.kubectl_ok(&["get", "pods", "-l", &of, "-o", "name"]).lines().count()
    };
    assert_eq!(left("bad"), 1);
    for _ in 0..100 {
        if left("slow") == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(left("slow"), 0);
    cluster.kubectl_ok(&["delete", "jobs", "--all", "--timeout=30s"]);
    let output = cluster.kubectl(&["wait", "--for=delete", "pod", "--all", "--timeout=30s"]);
    assert!(output.status.success() || text(&output).contains("no matching resources"), "{}", text(&output));
}

const TICK: &str = r#"
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "@every 1s"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: cofferdam/tool, command: [/bin/tool, echo, tock]}]
"#;

#[test]
fn a_cron_job_starts_jobs_by_itself_and_by_hand() {
    if skipped("a_cron_job_starts_jobs_by_itself_and_by_hand", true) {
        return;
    }
    let cluster = Cluster::with_images(1);
    cluster.apply(TICK);
    cluster.kubectl_ok(&[
        "wait",
        "--for=jsonpath={.status.lastSuccessfulTime}",
        "cronjob/tick",
        "--timeout=60s",
    ]);
    let described = cluster.kubectl_ok(&["describe", "cronjob", "tick"]);
    assert!(described.contains("Created job tick-") && described.contains("SawCompletedJob"), "{described}");
    let table = cluster.kubectl_ok(&["get", "cj"]);
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..5], ["tick", "@every", "1s", "<none>", "False"], "{table}");

    cluster.kubectl_ok(&["create", "job", "by-hand", "--from=cronjob/tick"]);
    cluster.kubectl_ok(&["wait", "--for=condition=complete", "job/by-hand", "--timeout=60s"]);
    assert_eq!(cluster.kubectl_ok(&["logs", "job/by-hand"]), "tock\n");
    cluster.kubectl_ok(&["delete", "cronjob", "tick", "--cascade=foreground", "--timeout=30s"]);
    let left = cluster.kubectl_ok(&["get", "jobs,pods", "-o", "name"]);
    assert_eq!(left, "", "what it started goes with it, by hand or not");
}
