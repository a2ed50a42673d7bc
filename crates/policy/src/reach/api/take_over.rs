//! Whose rights an identity can take over, and so where it ends: a pod that it makes runs as any ServiceAccount of the
//! namespace; a token that it asks for, an identity that it impersonates, are others'. The way there is the witness.

use std::collections::{BTreeMap, VecDeque};

use super::{Access, Claim, Identity, POWERS, Power, Question, World, claim, powers};
use crate::pod_security::standard::Level;

/// How the pod of a namespace's ServiceAccount is had. A command in a pod that runs has that pod's.
const PODS: [(&str, &str, &str); 8] = [
    ("", "pods", ""),
    ("apps", "deployments", ""),
    ("apps", "replicasets", ""),
    ("apps", "daemonsets", ""),
    ("apps", "statefulsets", ""),
    ("batch", "jobs", ""),
    ("batch", "cronjobs", ""),
    ("", "replicationcontrollers", ""),
];

fn power(verb: &str, (group, resource, subresource): (&str, &str, &str)) -> Option<&'static Power> {
    POWERS.iter().find(|power| {
        power.verb == verb
            && (power.group, power.resource, power.subresource) == (group, resource, subresource)
    })
}

/// The way in which somebody can start pods in a namespace.
fn starts_pods(who: &Identity, namespace: &str, world: &World<'_>) -> Option<&'static Power> {
    PODS.into_iter()
        .filter_map(|path| power("create", path))
        .find(|power| powers::grant(who, power, namespace, "", world).is_some())
}

/// One step: from an identity to another.
#[derive(Clone)]
struct Step {
    from: Identity,
    /// `create pods in namespace a`
    by: String,
    access: Access,
}

/// A way by which `from` becomes the ServiceAccount.
fn becomes(from: &Identity, namespace: &str, account: &str, world: &World<'_>) -> Option<Step> {
    let step = |power: &'static Power, name: &str| Step {
        from: from.clone(),
        by: format!("{} in namespace {namespace}", power.words()),
        access: Access { power, namespace: namespace.to_owned(), name: name.to_owned() },
    };
    if let Some(power) = starts_pods(from, namespace, world) {
        return Some(step(power, ""));
    }
    let by_name = [
        power("create", ("", "serviceaccounts", "token")),
        power("impersonate", ("", "serviceaccounts", "")),
    ];
    let mut by_name = by_name.into_iter().flatten();
    by_name
        .find(|power| powers::grant(from, power, namespace, account, world).is_some())
        .map(|power| step(power, account))
}

/// Everybody whom `start` can become, each with the step there; the nearest first.
fn reachable(start: &Identity, world: &World<'_>) -> BTreeMap<Identity, Step> {
    let mut found: BTreeMap<Identity, Step> = BTreeMap::new();
    let mut queue = VecDeque::from([start.clone()]);
    while let Some(from) = queue.pop_front() {
        for place in &world.namespaces {
            for account in &place.accounts {
                let who = Identity::account(&place.name, account);
                if who == *start || found.contains_key(&who) {
                    continue;
                }
                if let Some(step) = becomes(&from, &place.name, account, world) {
                    found.insert(who.clone(), step);
                    queue.push_back(who);
                }
            }
        }
    }
    found
}

/// The steps from the start to `who`.
fn way(who: &Identity, found: &BTreeMap<Identity, Step>) -> String {
    let mut steps = Vec::new();
    let mut at = who;
    while let Some(step) = found.get(at) {
        steps.push(format!("{} → {}", step.by, short(at)));
        at = &step.from;
    }
    steps.reverse();
    steps.join("; ")
}

fn short(who: &Identity) -> &str {
    who.name.strip_prefix("system:serviceaccount:").unwrap_or(&who.name)
}

pub(super) fn claims(start: &Identity, world: &World<'_>) -> Vec<Claim> {
    let found = reachable(start, world);
    let mut claims = Vec::new();
    for (who, step) in &found {
        // Who may do nothing of worth is not worth a line.
        let gains = POWERS.iter().find(|power| {
            let places = world.namespaces.iter().map(|place| place.name.as_str());
            let may = |who: &Identity, place: &str| powers::grant(who, power, place, "", world).is_some();
            std::iter::once("").chain(places).any(|place| may(who, place) && !may(start, place))
        });
        let Some(gains) = gains else { continue };
        let question = Question::Access { who: step.from.clone(), any_of: vec![step.access.clone()] };
        claims.push(Claim {
            target: format!(
                "the rights of {}: {}, {} and what else it has",
                short(who),
                gains.gives,
                gains.words()
            ),
            because: way(who, &found),
            remedy: Some("keep powerful ServiceAccounts in a namespace where few may make pods"),
            ..claim("take-over", question, true)
        });
    }
    let everybody = std::iter::once(start).chain(found.keys());
    let mut machine: Option<Claim> = None;
    let mut refused = Vec::new();
    for who in everybody {
        for place in &world.namespaces {
            let Some(by) = starts_pods(who, &place.name, world) else { continue };
            let question = Question::PrivilegedPod { who: who.clone(), by, namespace: place.name.clone() };
            if place.enforced != Level::Privileged {
                refused.push((place, question));
                continue;
            }
            let so_far = way(who, &found);
            let so_far = if so_far.is_empty() { so_far } else { format!("{so_far}; ") };
            machine.get_or_insert_with(|| Claim {
                target: format!("the node, by a privileged pod in namespace {}", place.name),
                because: format!(
                    "{so_far}{} may make pods there, and Pod Security enforces {} on them",
                    short(who),
                    place.enforced.as_str()
                ),
                remedy: Some(
                    "label the namespace pod-security.kubernetes.io/enforce: baseline, or restricted",
                ),
                ..claim("privileged-pod", question, true)
            });
        }
    }
    claims.extend(machine);
    claims.extend(refused.into_iter().map(|(place, question)| Claim {
        target: format!("the node, by a privileged pod in namespace {}", place.name),
        because: format!("Pod Security enforces {} there", place.enforced.as_str()),
        ..claim("privileged-pod", question, false)
    }));
    if found.is_empty() && claims.is_empty() {
        let any_of = world.namespaces.iter().flat_map(|place| {
            PODS.into_iter().filter_map(|path| power("create", path)).map(|power| Access {
                power,
                namespace: place.name.clone(),
                name: String::new(),
            })
        });
        claims.push(Claim {
            target: "another pod of its own making, and so the node or another's rights".into(),
            because: "it may make none in any namespace".into(),
            ..claim(
                "privileged-pod",
                Question::Access { who: start.clone(), any_of: any_of.collect() },
                false,
            )
        });
    }
    claims
}
