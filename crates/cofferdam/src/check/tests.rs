//! Manifests in, reports and differences out.

mod random;

use policy::pod_security::{Level, Version};

use super::*;
use crate::cli::check::{arguments, run};

const RESTRICTED: LevelVersion = LevelVersion { level: Level::Restricted, version: Version::Latest };

fn source(text: &str) -> Source {
    Source::parse("x.yaml", text.to_owned()).expect("a manifest")
}

/// `line:column rule object message` of each finding that is no warning of a namespace.
fn found(text: &str, policy: LevelVersion) -> Vec<String> {
    let report = check(&[source(text)], policy);
    let findings = report.findings.iter().filter(|finding| finding.rule != NO_NETWORK_POLICY.id);
    findings
        .map(|f| {
            format!("{}:{} {} {}: {}", f.spot.start.line, f.spot.start.column, f.rule, f.object, f.message)
        })
        .collect()
}

const BASELINE: LevelVersion = LevelVersion { level: Level::Baseline, version: Version::Latest };

#[test]
fn every_kind_that_makes_pods_is_checked_in_lists_and_streams() {
    let template = "{spec: {containers: [{name: a, securityContext: {privileged: true}}]}}";
    let said = r#"container "a" must not set securityContext.privileged=true"#;
    for (api_version, kind, body) in [
        ("v1", "Pod", "spec: {containers: [{name: a, securityContext: {privileged: true}}]}".to_owned()),
        ("v1", "PodTemplate", format!("template: {template}")),
        ("v1", "ReplicationController", format!("spec: {{template: {template}}}")),
        ("apps/v1", "Deployment", format!("spec: {{template: {template}}}")),
        ("extensions/v1beta1", "Deployment", format!("spec: {{template: {template}}}")),
        ("apps/v1", "ReplicaSet", format!("spec: {{template: {template}}}")),
        ("apps/v1", "StatefulSet", format!("spec: {{template: {template}}}")),
        ("apps/v1", "DaemonSet", format!("spec: {{template: {template}}}")),
        ("batch/v1", "Job", format!("spec: {{template: {template}}}")),
        ("batch/v1", "CronJob", format!("spec: {{jobTemplate: {{spec: {{template: {template}}}}}}}")),
    ] {
        let one =
            format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x, namespace: n}}\n{body}\n");
        let findings = found(&one, BASELINE);
        assert!(findings.len() == 1 && findings[0].ends_with(said), "{kind}: {findings:?}");
        assert!(
            findings[0].starts_with("4:") && findings[0].contains(&format!(" privileged {kind} n/x: ")),
            "{findings:?}"
        );
        // The same within a List, behind another document.
        let item: String = one
            .lines()
            .enumerate()
            .map(|(at, line)| format!("{}{line}\n", if at == 0 { "- " } else { "  " }))
            .collect();
        let list = format!("a: b\n---\napiVersion: v1\nkind: List\nitems:\n{item}");
        let findings = found(&list, BASELINE);
        assert!(findings.len() == 1 && findings[0].starts_with("9:"), "{kind}: {findings:?}");
    }
    let typed = "kind: PodList\napiVersion: v1\nitems:\n- metadata: {name: x}\n  spec: {hostPID: true, containers: []}\n";
    assert_eq!(found(typed, BASELINE), ["5:10 hostNamespaces Pod default/x: hostPID=true"]);
    assert!(found("apiVersion: v1\nkind: ConfigMap\ndata: {spec: x}\n", BASELINE).is_empty());
}

#[test]
fn a_finding_stands_at_the_field_or_at_what_should_have_it() {
    let text = "\
apiVersion: v1
kind: Pod
metadata:
  name: p
  annotations:
    container.apparmor.security.beta.kubernetes.io/main: unconfined
spec:
  hostNetwork: yes   # of 1.1
  dnsPolicy: Default
  volumes:
  - name: host
    hostPath: {path: /}
  containers:
  - name: main
    image: x
    ports:
    - containerPort: 80
    securityContext:
      capabilities:
        add:
        - NET_BIND_SERVICE
        - SYS_ADMIN
  - name: side
    securityContex: {}
";
    assert_eq!(
        found(text, RESTRICTED),
        [
            r#"6:5 appArmorProfile Pod default/p: annotation must not set AppArmor profile type to "container.apparmor.security.beta.kubernetes.io/main="unconfined"""#,
            "8:3 hostNamespaces Pod default/p: hostNetwork=true",
            r#"12:5 restrictedVolumes Pod default/p: volume "host" uses restricted volume type "hostPath""#,
            r#"17:7 hostPorts Pod default/p: container "main" uses hostPort 80"#,
            r#"18:5 allowPrivilegeEscalation Pod default/p: containers "main", "side" must set securityContext.allowPrivilegeEscalation=false"#,
            r#"18:5 runAsNonRoot Pod default/p: pod or containers "main", "side" must set securityContext.runAsNonRoot=true"#,
            r#"18:5 seccompProfile_restricted Pod default/p: pod or containers "main", "side" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#,
            r#"19:7 capabilities_restricted Pod default/p: containers "main", "side" must set securityContext.capabilities.drop=["ALL"]; container "main" must not include "SYS_ADMIN" in securityContext.capabilities.add"#,
            r#"24:5 unknown-field Pod default/p: unknown field "spec.containers[1].securityContex": the API server ignores it"#,
        ]
    );
}

#[test]
fn a_namespace_without_policy_is_warned_of_once() {
    let pod = |namespace: &str, name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{containers: []}}\n---\n"
        )
    };
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: b}\nspec: {podSelector: {}}\n";
    let sources = [source(&format!("{}{}{}", pod("a", "x"), pod("a", "y"), pod("b", "z"))), source(policy)];
    let report = check(&sources, BASELINE);
    let said: Vec<_> =
        report.findings.iter().map(|f| (f.rule, f.spot.start.line, f.message.as_str())).collect();
    assert_eq!(
        said,
        [(
            "no-network-policy",
            3,
            "namespace a has pods and no NetworkPolicy: every pod of the cluster reaches them"
        )]
    );
}

#[test]
fn what_is_no_manifest_is_said() {
    let error = |text: &str| format!("{:#}", Source::parse("x.yaml", text.into()).err().expect("an error"));
    assert!(error("a: [").contains("x.yaml"), "{}", error("a: ["));
    assert!(error("{{ if .Values.x }}\na: b\n{{ end }}\n").contains("helm template"));
    let wrong = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, ports: 5}]}\n";
    let findings = found(wrong, BASELINE);
    assert!(
        findings.len() == 1 && findings[0].contains("invalid-manifest") && findings[0].contains("ports"),
        "{findings:?}"
    );
    let no_spec = found("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n", BASELINE);
    assert!(no_spec.len() == 1 && no_spec[0].contains("has no spec.template"), "{no_spec:?}");
}

#[test]
fn sarif_names_rules_and_places() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  hostPID: true\n  containers: []\n";
    let mut source = source(text);
    source.name = "a b/ä.yaml".into();
    let log = report::sarif(&check(&[source], BASELINE));
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let ids: Vec<&str> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
    for id in policy::pod_security::CHECKS.iter().map(|check| check.id) {
        assert!(ids.contains(&id), "{id}");
    }
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
    }
    let result = results.iter().find(|result| result["ruleId"] == "hostNamespaces").unwrap();
    assert_eq!(result["level"], "error");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "a%20b/%C3%A4.yaml");
    assert_eq!(
        place["region"],
        serde_json::json!({"startLine": 5, "startColumn": 3, "endLine": 5, "endColumn": 16})
    );
}

#[test]
fn every_place_that_has_to_be_changed_is_shown() {
    let text = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - {name: a, ports: [{containerPort: 1, hostPort: 1}, {containerPort: 2, hostPort: 2}]}\n  - name: b\n    ports:\n    - {containerPort: 3, hostPort: 3}\n";
    let report = check(&[source(text)], BASELINE);
    let mut out = Vec::new();
    report::text(&report, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(
        out.contains("x.yaml:5:42: error[hostPorts]: Pod default/*: containers \"a\", \"b\" use hostPorts 1, 2, 3\n    also: x.yaml:8:26\n    fix: "),
        "{out}"
    );
    let others = &report::json(&report)["findings"][1]["others"];
    assert_eq!(others[1]["field"], "spec.containers[1].ports[0].hostPort");
    let log = report::sarif(&report);
    let result =
        log["runs"][0]["results"].as_array().unwrap().iter().find(|r| r["ruleId"] == "hostPorts").unwrap();
    let lines: Vec<_> = result["locations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["physicalLocation"]["region"]["startLine"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [5, 5, 8]);
}

/// What the level would let in, and what is left to be done by hand.
fn fixed(text: &str) -> (String, Vec<String>) {
    let fixed = fix(&source(text), RESTRICTED).expect("a fix");
    (fixed.text, fixed.left)
}

#[test]
fn a_fix_changes_what_it_must_and_keeps_the_rest() {
    let table = [
        // Nothing said.
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p # the name\nspec:\n  # the containers\n  containers:\n  - name: a\n    image: x # an image\n\n  # the end\n",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p # the name\nspec:\n  securityContext:\n    seccompProfile:\n      type: RuntimeDefault\n    runAsNonRoot: true\n  # the containers\n  containers:\n  - name: a\n    image: x # an image\n    securityContext:\n      capabilities:\n        drop: [\"ALL\"]\n      allowPrivilegeEscalation: false\n\n  # the end\n",
        ),
        // All that can be removed, and what becomes empty with it.
        (
            "apiVersion: v1\nkind: Pod\nspec:\n  hostNetwork: true # no\n  hostPID: true\n  securityContext:\n    runAsNonRoot: true\n    runAsUser: 0\n    seccompProfile: {type: Unconfined}\n    sysctls:\n    - name: kernel.msgmax\n      value: \"1\"\n    - name: net.ipv4.tcp_syncookies\n      value: \"1\"\n  containers:\n  - ports:\n    - hostPort: 80\n      containerPort: 80\n    name: a\n    securityContext:\n      privileged: true\n      capabilities:\n        drop:\n        - NET_RAW\n        add:\n        - SYS_ADMIN\n        - NET_ADMIN\n      seLinuxOptions:\n        user: u\n",
            "apiVersion: v1\nkind: Pod\nspec:\n  securityContext:\n    runAsNonRoot: true\n    seccompProfile: {type: RuntimeDefault}\n    sysctls:\n    - name: net.ipv4.tcp_syncookies\n      value: \"1\"\n  containers:\n  - ports:\n    - containerPort: 80\n    name: a\n    securityContext:\n      allowPrivilegeEscalation: false\n      capabilities:\n        drop: [\"ALL\"]\n",
        ),
        // One line.
        (
            "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"spec\": {\"hostPID\": true, \"containers\": [{\"name\": \"a\", \"securityContext\": {}}]}}",
            "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"spec\": {\"containers\": [{\"name\": \"a\", \"securityContext\": {\"allowPrivilegeEscalation\": false, \"capabilities\": {\"drop\": [\"ALL\"]}}}], \"securityContext\": {\"runAsNonRoot\": true, \"seccompProfile\": {\"type\": \"RuntimeDefault\"}}}}",
        ),
        // Spaces within braces are kept.
        (
            "apiVersion: v1\nkind: Pod\nspec:\n  securityContext: { runAsNonRoot: true, seccompProfile: { type: Localhost } }\n  containers:\n  - name: a\n    securityContext: { privileged: true }\n",
            "apiVersion: v1\nkind: Pod\nspec:\n  securityContext: { runAsNonRoot: true, seccompProfile: { type: Localhost } }\n  containers:\n  - name: a\n    securityContext: { allowPrivilegeEscalation: false, capabilities: {drop: [\"ALL\"]} }\n",
        ),
        // A template without a last newline, and a key without a value.
        (
            "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      securityContext:\n      containers:\n        - name: a\n          securityContext: {readOnlyRootFilesystem: true}",
            "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      securityContext:\n        runAsNonRoot: true\n        seccompProfile:\n          type: RuntimeDefault\n      containers:\n        - name: a\n          securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [\"ALL\"]}}",
        ),
    ];
    for (text, expected) in table {
        let (new, left) = fixed(text);
        assert_eq!((new.as_str(), left.len()), (expected, 0), "{left:?}");
        assert!(found(&new, RESTRICTED).iter().all(|line| !line.contains("must")), "{new}");
        assert_eq!(fixed(&new).0, new, "a fix of a fix changes nothing");
    }
}

#[test]
fn what_cannot_be_fixed_is_said_and_left() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  volumes: [{name: v, hostPath: {path: /}}]\n  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}\n  containers: []\n";
    let (new, left) = fixed(text);
    assert_eq!(new, text);
    assert_eq!(
        left,
        [
            "Pod default/p: restricted volume types (volume \"v\" uses restricted volume type \"hostPath\"): use an emptyDir, a \
             persistentVolumeClaim, a configMap or a projected volume, as the data asks for"
        ]
    );
    // What stands behind an anchor is changed at the anchor alone.
    let text = "apiVersion: v1\nkind: Pod\nspec:\n  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}\n  containers:\n  - name: a\n    securityContext: &careless\n      privileged: true\n  - name: b\n    securityContext: *careless\n";
    let (new, left) = fixed(text);
    assert!(left.is_empty(), "{left:?}");
    assert!(new.contains("&careless") && new.contains("*careless") && !new.contains("privileged"), "{new}");
}

#[test]
fn the_examples_are_fixed_but_for_what_is_the_nodes() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/chapter");
    let sources = read(&[folder.display().to_string()], false).expect("the examples");
    assert!(sources.len() > 10);
    for source in &sources {
        let fixed = fix(source, RESTRICTED).expect("a fix");
        assert!(fixed.left.is_empty(), "{}: {:?}", source.name, fixed.left);
        let again = Source::parse(&source.name, fixed.text).expect("YAML");
        let report = check(&[again], RESTRICTED);
        let errors: Vec<_> = report.findings.iter().filter(|f| f.severity == Severity::Error).collect();
        assert!(
            errors.iter().all(|f| f.rule == "read-only-root-needs-volume"),
            "{}: {errors:?}",
            source.name
        );
    }
}

#[test]
fn the_exit_code_is_for_ci() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("write");
        path
    };
    let head = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n";
    let plain = write("plain.yaml", &format!("{head}spec: {{containers: [{{name: a}}]}}\n"));
    let host = write(
        "host.yaml",
        &format!("{head}spec:\n  volumes: [{{name: v, hostPath: {{path: /}}}}]\n  containers: []\n"),
    );
    let none = write("none.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n");
    for (files, rest, code, said) in [
        (vec![&plain], vec![], 1, "1 pod in 1 file held against restricted:latest: 4 errors, 1 warning"),
        (vec![&plain], vec!["--level", "baseline"], 0, "0 errors, 1 warning"),
        (vec![&plain], vec!["--level", "baseline", "--strict"], 1, "0 errors, 1 warning"),
        (vec![&plain], vec!["--version", "v1.7", "-o", "json"], 1, "\"version\": \"v1.7\""),
        (vec![&plain], vec!["-o", "sarif"], 1, "\"runs\""),
        (vec![&none], vec![], 0, "no pods in 1 file: nothing to check"),
        (
            vec![&plain, &none],
            vec!["--level", "privileged"],
            0,
            "1 pod in 2 files held against privileged:latest: 0 errors, 1 warning",
        ),
        (vec![&plain], vec!["--fix"], 0, "+      allowPrivilegeEscalation"),
        (vec![&host], vec!["--fix"], 1, "+  securityContext"),
    ] {
        let files: Vec<&std::path::Path> = files.into_iter().map(|path| path.as_path()).collect();
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let got = run(&arguments(&files, &rest), &mut out, &mut notes).expect("a report");
        let out = String::from_utf8(out).expect("text");
        let said = said.replace("+      allowPrivilegeEscalation", "allowPrivilegeEscalation: false");
        let said = said.replace("+  securityContext", "--- /");
        let by_hand = rest.contains(&"--fix") && code == 1;
        assert_eq!((got, out.contains(&said) || by_hand), (code, true), "{rest:?}: {out}");
        assert_eq!(!notes.is_empty() && String::from_utf8_lossy(&notes).contains("by hand"), by_hand);
    }
}
