//! Whose rights an identity can take over, and so where it ends: a pod that it makes runs as any ServiceAccount of the
//! namespace; a token that it asks for, an identity that it impersonates, are others'. The way there is the witness.

use std::collections::{BTreeMap, VecDeque};

use super::{Access, Claim, Identity, POWERS, Power, Question, World, claim, powers};
use crate::pod_security::standard::Level;

/// The powers to start a pod. (A command in a pod that runs has that pod's account alone.)
fn makers() -> impl Iterator<Item = &'static Power> {
    POWERS.iter().filter(|power| power.makes_pods)
}

/// The way in which somebody can start pods in a namespace.
fn starts_pods(who: &Identity, namespace: &str, world: &World<'_>) -> Option<&'static Power> {
    makers().find(|power| powers::grant(who, power, namespace, "", world).is_some())
}

/// One step: from an identity to another.
struct Step {
    from: Identity,
    access: Access,
}

/// Everybody whom `start` can become, each with the step there; the nearest first.
fn reachable(start: &Identity, world: &World<'_>) -> BTreeMap<Identity, Step> {
    let mut found: BTreeMap<Identity, Step> = BTreeMap::new();
    let mut queue = VecDeque::from([start.clone()]);
    while let Some(from) = queue.pop_front() {
        for place in &world.namespaces {
            let accounts =
                place.accounts.iter().map(|account| (account, Identity::account(&place.name, account)));
            let mut left = accounts.filter(|(_, who)| who != start && !found.contains_key(who)).peekable();
            if left.peek().is_none() {
                continue;
            }
            let by_pods = starts_pods(&from, &place.name, world);
            let steps: Vec<_> = left
                .filter_map(|(account, who)| {
                    let (power, name) = match by_pods {
                        Some(power) => (power, ""),
                        None => (becomes(&from, &place.name, account, world)?, account.as_str()),
                    };
                    let access = Access { power, namespace: place.name.clone(), name: name.to_owned() };
                    Some((who, Step { from: from.clone(), access }))
                })
                .collect();
            queue.extend(steps.iter().map(|(who, _)| who.clone()));
            found.extend(steps);
        }
    }
    found
}

/// The power by which `from` becomes this ServiceAccount, and no other.
fn becomes(from: &Identity, namespace: &str, account: &str, world: &World<'_>) -> Option<&'static Power> {
    let by_name = [("create", "token"), ("impersonate", "")];
    let mut by_name = by_name.into_iter().filter_map(|(verb, subresource)| {
        POWERS.iter().find(|power| {
            (power.verb, power.resource, power.subresource) == (verb, "serviceaccounts", subresource)
        })
    });
    by_name.find(|power| powers::grant(from, power, namespace, account, world).is_some())
}

/// The steps from the start to `who`.
fn way(who: &Identity, found: &BTreeMap<Identity, Step>) -> String {
    let mut steps = Vec::new();
    let mut at = who;
    while let Some(step) = found.get(at) {
        let Access { power, namespace, .. } = &step.access;
        steps.push(format!("{} in namespace {namespace} → {}", power.words(), short(at)));
        at = &step.from;
    }
    steps.reverse();
    steps.join("; ")
}

fn short(who: &Identity) -> &str {
    who.name.strip_prefix("system:serviceaccount:").unwrap_or(&who.name)
}

/// The most that somebody may do and `start` may not.
fn gain(who: &Identity, start: &Identity, world: &World<'_>) -> Option<usize> {
    let may = |who: &Identity, power, place: &str| powers::grant(who, power, place, "", world).is_some();
    POWERS.iter().position(|power| {
        let places = world.namespaces.iter().map(|place| place.name.as_str());
        std::iter::once("").chain(places).any(|place| may(who, power, place) && !may(start, power, place))
    })
}

/// Those who are had by the same step are one edge; who may do nothing of worth is not worth one.
fn taken_over(start: &Identity, found: &BTreeMap<Identity, Step>, world: &World<'_>) -> Vec<Claim> {
    let mut groups: Vec<(&Step, Vec<(usize, &Identity)>)> = Vec::new();
    for (who, step) in found {
        let Some(gain) = gain(who, start, world) else { continue };
        match groups.iter_mut().find(|(known, _)| (&known.from, &known.access) == (&step.from, &step.access))
        {
            Some((_, members)) => members.push((gain, who)),
            None => groups.push((step, vec![(gain, who)])),
        }
    }
    let groups = groups.into_iter().map(|(step, mut members)| {
        // Who gives most is named first.
        members.sort();
        let (gain, most) = members[0];
        let others = match members.len() - 1 {
            0 => String::new(),
            more => format!(" ({more} more are had so)"),
        };
        let power = &POWERS[gain];
        let question = Question::Access { who: step.from.clone(), any_of: vec![step.access.clone()] };
        Claim {
            target: format!("the rights of {}: {}, {}{others}", short(most), power.gives, power.words()),
            because: way(most, found),
            remedy: Some("keep powerful ServiceAccounts in a namespace where few may make pods"),
            ..claim("take-over", question, true)
        }
    });
    groups.collect()
}

pub(super) fn claims(start: &Identity, world: &World<'_>) -> Vec<Claim> {
    let found = reachable(start, world);
    let mut claims = taken_over(start, &found, world);
    let everybody = std::iter::once(start).chain(found.keys());
    let mut machine: Option<Claim> = None;
    let mut refused = Vec::new();
    for who in everybody {
        for place in &world.namespaces {
            let Some(by) = starts_pods(who, &place.name, world) else { continue };
            let question = Question::PrivilegedPod { who: who.clone(), by, namespace: place.name.clone() };
            if place.enforced != Level::Privileged {
                // Whoever of them makes it, the namespace decides.
                if refused.iter().all(|(known, _)| *known != place) {
                    refused.push((place, question));
                }
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
            makers().map(|power| Access { power, namespace: place.name.clone(), name: String::new() })
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
