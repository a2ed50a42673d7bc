//! Verdicts of whole pods, labels, and where a pod is embedded.

use std::collections::BTreeMap;

use super::*;

fn verdict(level: &str, version: &str, pod: &Value) -> Verdict {
    let policy = LevelVersion { level: level.parse().unwrap(), version: version.parse().unwrap() };
    let pod = typed(pod.clone());
    evaluate(policy, &pod.metadata, &pod.spec.unwrap())
}

#[test]
fn a_plain_pod_is_told_all_that_restricted_demands() {
    let pod = json!({ "spec": { "containers": [{ "name": "a" }] } });
    for (level, version, details) in [
        ("privileged", "latest", ""),
        ("baseline", "latest", ""),
        (
            "restricted",
            "latest",
            r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ),
        (
            "restricted",
            "v1.21",
            r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false), runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ),
        (
            "restricted",
            "v1.0",
            r#"runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)"#,
        ),
    ] {
        assert_eq!(verdict(level, version, &pod).details(), details, "{level}:{version}");
    }
}

#[test]
fn a_node_agents_pod_is_told_in_upstreams_order() {
    let pod = json!({ "spec": {
        "hostNetwork": true, "hostPID": true,
        "volumes": [{ "name": "root", "hostPath": { "path": "/" } }],
        "containers": [{ "name": "agent", "securityContext": { "privileged": true }, "ports": [{ "containerPort": 9100, "hostPort": 9100 }] }],
    } });
    let baseline = verdict("baseline", "latest", &pod);
    assert_eq!(
        baseline.details(),
        r#"host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume "root"), hostPort (container "agent" uses hostPort 9100), privileged (container "agent" must not set securityContext.privileged=true)"#
    );
    assert_eq!(baseline.reasons(), "host namespaces, hostPath volumes, hostPort, privileged");
    assert_eq!(
        verdict("restricted", "v1.35", &pod).reasons(),
        "host namespaces, hostPort, privileged, allowPrivilegeEscalation != false, unrestricted capabilities, \
         restricted volume types, runAsNonRoot != true, seccompProfile"
    );
}

#[test]
fn the_restricted_example_is_let_in_at_every_version() {
    let pod = json!({ "spec": {
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{ "name": "a", "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }],
    } });
    for minor in 0..=NEWEST + 5 {
        assert!(verdict("restricted", &format!("v1.{minor}"), &pod).allowed(), "v1.{minor}");
    }
}

#[test]
fn versions_are_read_as_upstream_reads_them() {
    for (text, version) in [
        ("latest", Some(Version::Latest)),
        ("v1.0", Some(Version::V1(0))),
        ("v1.35", Some(Version::V1(35))),
        ("v1.999", Some(Version::V1(999))),
        ("v1.00", None),
        ("v1.01", None),
        ("v1.", None),
        ("v1.+1", None),
        ("v1.-1", None),
        ("v1.99999999999", None),
        ("v2.0", None),
        ("1.30", None),
        ("V1.30", None),
        ("Latest", None),
        ("", None),
    ] {
        assert_eq!(text.parse().ok(), version, "{text:?}");
    }
    assert!(Version::V1(999) < Version::Latest && Version::V1(9) < Version::V1(10));
}

#[test]
fn a_namespaces_labels_make_its_policy() {
    let default = LevelVersion { level: Level::Baseline, version: Version::V1(30) };
    let defaults = Policy { enforce: default, audit: default, warn: default };
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let table: &[(Pairs<'_>, [&str; 3], Pairs<'_>)] = &[
        (&[], ["baseline:v1.30"; 3], &[]),
        // Who is enforced more than warned of is warned of that, unless a label says otherwise.
        (&[("enforce", "restricted")], ["restricted:v1.30", "baseline:v1.30", "restricted:v1.30"], &[]),
        (
            &[("enforce", "restricted"), ("enforce-version", "v1.7")],
            ["restricted:v1.7", "baseline:v1.30", "restricted:v1.7"],
            &[],
        ),
        (
            &[("enforce", "restricted"), ("enforce-version", "v1.7"), ("warn-version", "v1.8")],
            ["restricted:v1.7", "baseline:v1.30", "restricted:v1.8"],
            &[],
        ),
        (
            &[("enforce", "restricted"), ("warn", "baseline")],
            ["restricted:v1.30", "baseline:v1.30", "baseline:v1.30"],
            &[],
        ),
        (&[("enforce", "privileged")], ["privileged:v1.30", "baseline:v1.30", "baseline:v1.30"], &[]),
        (
            &[("enforce", "x")],
            ["restricted:v1.30", "baseline:v1.30", "baseline:v1.30"],
            &[("enforce", "must be one of privileged, baseline, restricted")],
        ),
        (
            &[("warn", "privileged"), ("warn-version", "latest"), ("audit-version", "v1.3")],
            ["baseline:v1.30", "baseline:v1.3", "privileged:latest"],
            &[],
        ),
        // What cannot be read is enforced as the strictest, and neither audited nor warned of.
        (
            &[("enforce", "Restricted"), ("audit", "x"), ("warn", "")],
            ["restricted:v1.30", "privileged:v1.30", "privileged:v1.30"],
            &[
                ("enforce", "must be one of privileged, baseline, restricted"),
                ("audit", "must be one of privileged, baseline, restricted"),
                ("warn", "must be one of privileged, baseline, restricted"),
            ],
        ),
        (
            &[("enforce-version", "1.30"), ("enforce", "privileged")],
            ["privileged:latest", "baseline:v1.30", "baseline:v1.30"],
            &[("enforce-version", r#"must be "latest" or "v1.x""#)],
        ),
    ];
    for (labels, policy, errors) in table {
        let labels: BTreeMap<String, String> = labels
            .iter()
            .map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), (*value).to_owned()))
            .collect();
        let (found, wrong) = Policy::of_labels(&labels, defaults);
        assert_eq!(Mode::ALL.map(|mode| found.mode(mode).to_string()), *policy, "{labels:?}");
        let wrong: Vec<(String, String)> = wrong
            .into_iter()
            .map(|error| (error.label.replace("pod-security.kubernetes.io/", ""), error.detail))
            .collect();
        let errors: Vec<(String, String)> =
            errors.iter().map(|(label, detail)| ((*label).to_owned(), (*detail).to_owned())).collect();
        assert_eq!(wrong, errors, "{labels:?}");
    }
}

#[test]
fn every_kind_that_makes_pods_says_where() {
    for (group, kind, path) in [
        ("", "Pod", Some("")),
        ("", "PodTemplate", Some("template")),
        ("", "ReplicationController", Some("spec.template")),
        ("apps", "Deployment", Some("spec.template")),
        ("apps", "ReplicaSet", Some("spec.template")),
        ("apps", "StatefulSet", Some("spec.template")),
        ("apps", "DaemonSet", Some("spec.template")),
        ("batch", "Job", Some("spec.template")),
        ("batch", "CronJob", Some("spec.jobTemplate.spec.template")),
        ("", "Deployment", None),
        ("", "Service", None),
        ("example.com", "Pod", None),
    ] {
        assert_eq!(embedded_pod(group, kind).map(|path| path.join(".")), path.map(str::to_owned), "{kind}");
    }
}
