//! Every check's fixtures at every version, the verdicts of whole pods in upstream's words, and properties of random pods.

mod random;
mod whole;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{
    fixture::{Case, Subject},
    *,
};

const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

fn typed(mut pod: Value) -> Pod {
    if pod["spec"]["containers"].is_null() {
        pod["spec"]["containers"] = json!([]);
    }
    serde_json::from_value(pod).expect("a pod")
}

/// What a check says of a pod: `None` where it has nothing against it.
fn judge(check: &'static Check, minor: u32, pod: &Value) -> Option<Violation> {
    let revision = check.at(minor)?;
    let pod = typed(pod.clone());
    let spec = pod.spec.unwrap();
    Applicable { check, revision }.run(&PodView { metadata: &pod.metadata, spec: &spec })
}

/// The case as pods, each with the fields that offend in it.
fn pods(case: &Case) -> Vec<(Value, Vec<String>)> {
    let fields = case.refused.map(|(_, _, fields)| fields).unwrap_or_default();
    match &case.subject {
        Subject::Pod(pod) => vec![(pod.clone(), fields.iter().map(|f| (*f).to_owned()).collect())],
        Subject::Container(container) => LISTS
            .iter()
            .map(|list| {
                let mut container = container.clone();
                container["name"] = "a".into();
                let fields = fields.iter().map(|field| format!("spec.{list}[0].{field}")).collect();
                (json!({ "spec": { *list: [container] } }), fields)
            })
            .collect(),
    }
}

#[test]
fn every_fixture_holds_at_every_version_it_names() {
    for check in &CHECKS {
        for case in (check.fixtures)() {
            for (pod, fields) in pods(&case) {
                for minor in case.versions.0..=case.versions.1 {
                    let context = format!("{} at v1.{minor}: {}: {pod}", check.id, case.what);
                    let violation = judge(check, minor, &pod);
                    match (violation, case.refused) {
                        (None, None) => {}
                        (Some(violation), Some((reason, detail, _))) => {
                            assert_eq!(
                                (violation.reason, violation.detail.as_str()),
                                (reason, detail),
                                "{context}"
                            );
                            let paths: Vec<String> =
                                violation.fields.iter().map(FieldPath::to_string).collect();
                            assert_eq!(paths, fields, "{context}");
                            assert_eq!(violation.check, check.id);
                        }
                        (violation, _) => panic!("{context}: {violation:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn no_check_lacks_fixtures_of_any_revision_level_and_kind_of_container() {
    for check in &CHECKS {
        let cases = (check.fixtures)();
        for (at, revision) in check.versions.iter().enumerate() {
            let last = check.versions.get(at + 1).map_or(NEWEST, |next| next.since - 1);
            let covers = |case: &&Case| case.versions.0 <= revision.since && last <= case.versions.1;
            let covering: Vec<&Case> = cases.iter().filter(covers).collect();
            let name = format!("{} from v1.{} to v1.{last}", check.id, revision.since);
            assert!(covering.iter().any(|case| case.refused.is_some()), "{name}: nothing is refused");
            assert!(covering.iter().any(|case| case.refused.is_none()), "{name}: nothing is let in");
            // A check that looks into containers looks into every kind of them.
            let refused = covering.iter().filter(|case| case.refused.is_some());
            let fields: BTreeSet<String> =
                refused.flat_map(|case| pods(case)).flat_map(|(_, fields)| fields).collect();
            let lists: Vec<bool> = LISTS
                .iter()
                .map(|list| fields.iter().any(|field| field.starts_with(&format!("spec.{list}["))))
                .collect();
            assert!(
                lists.iter().all(|there| *there) || lists.iter().all(|there| !there),
                "{name}: only some kinds of containers are refused"
            );
        }
        // What a revision changed shows in a case that ends or begins there.
        for revision in check.versions.iter().filter(|revision| revision.since > 0) {
            let begins = cases.iter().any(|case| case.versions.0 == revision.since);
            let ends = cases.iter().any(|case| case.versions.1 + 1 == revision.since);
            assert!(begins && ends, "{} changes at v1.{} and no case shows how", check.id, revision.since);
        }
    }
}

#[test]
fn remedies_lead_to_a_pod_that_the_check_lets_in() {
    for check in &CHECKS {
        for case in (check.fixtures)().iter().filter(|case| case.refused.is_some()) {
            for (mut pod, _) in pods(case) {
                let minor = case.versions.1;
                let violation = judge(check, minor, &pod).expect("refused");
                assert!(!violation.remedies.is_empty(), "{}: {}", check.id, case.what);
                let by_hand = violation.remedies.iter().any(|remedy| remedy.change == Change::ByHand);
                let before = pod.clone();
                let changed = remedy::apply(violation.remedies.iter(), &mut pod);
                assert_eq!(changed, pod != before);
                let left = judge(check, minor, &pod);
                assert_eq!(left.is_some(), by_hand, "{}: {}: {pod}: {left:?}", check.id, case.what);
            }
        }
    }
}

#[test]
fn the_table_is_in_order_and_replaces_what_there_is() {
    let order: Vec<(Level, &str)> = CHECKS.iter().map(|check| (check.level, check.id)).collect();
    assert!(order.is_sorted() && order.windows(2).all(|pair| pair[0] != pair[1]), "{order:?}");
    for check in &CHECKS {
        assert!(check.level > Level::Privileged && !check.versions.is_empty(), "{}", check.id);
        let since: Vec<u32> = check.versions.iter().map(|revision| revision.since).collect();
        assert!(since.windows(2).all(|pair| pair[0] < pair[1]), "{}: {since:?}", check.id);
        for id in check.versions.iter().flat_map(|revision| revision.replaces) {
            let replaced = CHECKS.iter().find(|other| other.id == *id).expect("a check");
            assert!(replaced.level < check.level, "{} replaces {id}", check.id);
        }
    }
    let newest = CHECKS.iter().flat_map(|check| check.versions).map(|revision| revision.since).max();
    assert_eq!(newest, Some(NEWEST));
}

#[test]
fn what_applies_at_a_level_and_version() {
    let names = |level: Level, minor: u32| {
        let policy = LevelVersion { level, version: Version::V1(minor) };
        applicable(policy).iter().map(|one| one.check.id).collect::<Vec<_>>()
    };
    assert!(names(Level::Privileged, 35).is_empty());
    assert_eq!(
        names(Level::Baseline, 0),
        [
            "appArmorProfile",
            "capabilities_baseline",
            "hostNamespaces",
            "hostPathVolumes",
            "hostPorts",
            "privileged",
            "procMount",
            "seLinuxOptions",
            "seccompProfile_baseline",
            "sysctls",
            "windowsHostProcess"
        ]
    );
    // A check of the baseline is run in restricted until another replaces it.
    for (id, replaced_by, since) in [
        ("capabilities_baseline", "capabilities_restricted", 22),
        ("seccompProfile_baseline", "seccompProfile_restricted", 19),
        ("procMount", "procMount_restricted", 35),
        ("hostPathVolumes", "restrictedVolumes", 0),
    ] {
        for minor in 0..=NEWEST {
            assert!(names(Level::Baseline, minor).contains(&id), "{id} at v1.{minor}");
            let restricted = names(Level::Restricted, minor);
            assert_eq!(restricted.contains(&replaced_by), minor >= since, "{replaced_by} at v1.{minor}");
            assert_eq!(restricted.contains(&id), minor < since, "{id} at v1.{minor}");
        }
    }
    assert_eq!(names(Level::Restricted, 99), names(Level::Restricted, NEWEST));
}
