use serde_json::{Value, json};

use super::{Place, Question, World, claims};
use crate::pod_security::standard::Level;
use crate::rbac::{Binding, Index, Rule};
use crate::reach::{Claim, Probe};

fn rbac(roles: &[(&str, &str, Value, &str)]) -> Index {
    let mut index = Index::default();
    for (namespace, name, rules, account) in roles {
        index.set_role(namespace, name, Rule::list(serde_json::from_value(rules.clone()).unwrap()));
        let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
        let role = serde_json::from_value(json!({ "apiGroup": "", "kind": kind, "name": name })).unwrap();
        let (of, account) = account.split_once('/').unwrap();
        let subjects = json!([{ "kind": "ServiceAccount", "namespace": of, "name": account }]);
        let subjects = serde_json::from_value(subjects).unwrap();
        index.set_binding(namespace, name, Binding::new(namespace, role, Some(subjects)).unwrap());
    }
    index
}

fn rule(verbs: &str, group: &str, resources: &str) -> Value {
    json!([{ "verbs": [verbs], "apiGroups": [group], "resources": [resources] }])
}

fn world(rbac: &Index, enforced: Level) -> World<'_> {
    let place = |name: &str, enforced, accounts: &[&str]| Place {
        name: name.into(),
        enforced,
        accounts: accounts.iter().map(|name| (*name).to_owned()).collect(),
    };
    let namespaces =
        vec![place("a", enforced, &["default", "web"]), place("b", Level::Restricted, &["robot"])];
    World { rbac, namespaces }
}

/// A pod of the ServiceAccount `web` in namespace `a`, with its token.
fn pod(mounted: bool) -> Value {
    let mounts = if mounted { json!([{ "name": "t", "mountPath": "/run/secrets" }]) } else { json!([]) };
    json!({ "metadata": { "namespace": "a", "name": "p" },
            "spec": { "serviceAccountName": "web", "automountServiceAccountToken": mounted,
                      "volumes": [{ "name": "t", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }],
                      "containers": [{ "name": "c", "volumeMounts": mounts }] } })
}

fn of(index: &Index, enforced: Level) -> Vec<Claim> {
    claims(&serde_json::from_value(pod(true)).unwrap(), &world(index, enforced))
}

fn open(index: &Index, enforced: Level) -> Vec<(&'static str, String, String)> {
    let claims = of(index, enforced).into_iter().filter(|claim| claim.open && claim.id != "token");
    claims.map(|claim| (claim.id, claim.target, claim.because)).collect()
}

#[test]
fn a_pod_without_a_token_is_nobody() {
    let index = rbac(&[("", "all", rule("*", "*", "*"), "a/web")]);
    let none = claims(&serde_json::from_value(pod(false)).unwrap(), &world(&index, Level::Privileged));
    let [token] = none.as_slice() else { panic!("{none:?}") };
    assert_eq!((token.open, token.because.as_str()), (false, "automountServiceAccountToken: false"));
    let claims = of(&index, Level::Privileged);
    let Probe::Api(Question::Token { container, path }) = &claims[0].probe else { panic!("{claims:?}") };
    assert_eq!((container.as_str(), path.as_str(), claims[0].open), ("c", "/run/secrets/token", true));
}

#[test]
fn who_may_do_nothing_is_told_so() {
    let index = rbac(&[("a", "reader", rule("get", "", "configmaps"), "a/web")]);
    assert_eq!(open(&index, Level::Privileged), []);
    let closed: Vec<_> = of(&index, Level::Privileged).iter().filter(|c| !c.open).map(|c| c.id).collect();
    assert_eq!(closed, ["rights", "privileged-pod"]);
}

#[test]
fn a_right_is_named_with_its_place_and_its_binding() {
    let index = rbac(&[("b", "reader", rule("get", "", "secrets"), "a/web")]);
    let found = open(&index, Level::Privileged);
    let [(id, target, because)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((*id, target.as_str()), ("rights", "Secrets: get secrets in namespace b"));
    assert!(because.contains("RoleBinding \"reader/b\" of Role \"reader\""), "{because}");
}

#[test]
fn who_makes_pods_has_the_node_but_for_pod_security() {
    for (group, resources) in [("", "pods"), ("apps", "deployments"), ("batch", "cronjobs")] {
        let index = rbac(&[("a", "maker", rule("create", group, resources), "a/web")]);
        let found = open(&index, Level::Privileged);
        let machine = found.iter().find(|(id, ..)| *id == "privileged-pod");
        let (_, target, because) = machine.unwrap_or_else(|| panic!("{resources}: {found:?}"));
        assert_eq!(target, "the node, by a privileged pod in namespace a");
        assert_eq!(because, "a:web may make pods there, and Pod Security enforces privileged on them");
        let found = open(&index, Level::Baseline);
        assert!(found.iter().all(|(id, ..)| *id != "privileged-pod"), "{found:?}");
    }
}

#[test]
fn rights_of_others_are_taken_over_step_by_step() {
    let index = rbac(&[
        ("b", "maker", rule("create", "", "serviceaccounts/token"), "a/web"),
        ("", "robot", rule("get", "", "secrets"), "b/robot"),
        ("a", "more", rule("create", "apps", "deployments"), "b/robot"),
    ]);
    let found = open(&index, Level::Privileged);
    let over: Vec<_> = found.iter().filter(|(id, ..)| *id == "take-over").collect();
    let [(_, target, because)] = over.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        target,
        "the rights of b:robot: pods: Secrets and ServiceAccounts of their namespace, create deployments"
    );
    assert_eq!(because, "create serviceaccounts/token in namespace b → b:robot");
    let (_, _, because) = found.iter().find(|(id, ..)| *id == "privileged-pod").unwrap();
    assert!(
        because.starts_with("create serviceaccounts/token in namespace b → b:robot; b:robot may make pods"),
        "{because}"
    );
}

#[test]
fn a_token_of_one_name_is_no_token_of_another() {
    let rules = json!([{ "verbs": ["create"], "apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["robot"] }]);
    let robot = ("", "robot", rule("*", "*", "*"), "b/robot");
    let of_name = |name: &str| {
        let mut rules = rules.clone();
        rules[0]["resourceNames"] = json!([name]);
        open(&rbac(&[("b", "maker", rules, "a/web"), robot.clone()]), Level::Restricted)
    };
    assert!(
        of_name("robot").iter().any(|(id, target, _)| *id == "take-over" && target.contains("everything"))
    );
    let of_other = of_name("other");
    let [(id, target, _)] = of_other.as_slice() else { panic!("{of_other:?}") };
    let told = "tokens of ServiceAccounts: create serviceaccounts/token other in namespace b";
    assert_eq!((*id, target.as_str()), ("rights", told));
}

#[test]
fn who_are_had_by_one_step_are_one_edge_with_the_one_that_gives_most() {
    let index = rbac(&[
        ("a", "maker", rule("create", "batch", "jobs"), "a/web"),
        ("", "reader", rule("get", "", "secrets"), "a/web"),
        ("", "root", rule("*", "*", "*"), "a/default"),
        ("", "binder", rule("bind", crate::rbac::GROUP, "clusterroles"), "a/other"),
    ]);
    let mut world = world(&index, Level::Baseline);
    world.namespaces[0].accounts.push("other".into());
    let claims = claims(&serde_json::from_value(pod(true)).unwrap(), &world);
    let over: Vec<_> = claims.iter().filter(|claim| claim.id == "take-over").collect();
    let [edge, rest @ ..] = over.as_slice() else { panic!("{claims:?}") };
    assert_eq!(edge.target, "the rights of a:default: everything, * * (1 more are had so)");
    assert_eq!(edge.because, "create jobs in namespace a → a:default");
    // From there everybody is.
    assert!(rest.iter().all(|edge| edge.because.starts_with(&over[0].because)), "{rest:?}");
}

#[test]
fn a_right_over_one_name_is_no_right_over_all_and_is_told() {
    let one = |namespace| {
        let rules = json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["key"] }]);
        rbac(&[(namespace, "one", rules, "a/web")])
    };
    for (namespace, place) in [("b", "in namespace b"), ("", "in every namespace")] {
        let index = one(namespace);
        let claims = of(&index, Level::Restricted);
        let rights: Vec<_> = claims.iter().filter(|claim| claim.id == "rights" && claim.open).collect();
        let [edge] = rights.as_slice() else { panic!("{rights:?}") };
        assert_eq!(edge.target, format!("Secrets: get secrets key {place}"));
        let Probe::Api(Question::Access { any_of, .. }) = &edge.probe else { panic!("{edge:?}") };
        assert!(
            any_of.iter().all(|access| access.name == "key" && access.namespace == namespace),
            "{any_of:?}"
        );
    }
}
