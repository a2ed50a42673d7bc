//! Whether somebody who gives rules away holds them (upstream's `ConfirmNoEscalation`), and how those it lacks are said.

use std::collections::HashMap;

use super::{Rule, rule::matches_path};

const ALL: &str = "*";

/// A rule in its smallest parts: one verb on one resource, name or path each. A part is covered by one rule or by none.
fn parts(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut out = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let part = Rule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    out.push(part);
                    continue;
                }
                out.extend(
                    rule.resource_names.iter().map(|name| Rule { resource_names: one(name), ..part.clone() }),
                );
            }
        }
    }
    for url in &rule.non_resource_urls {
        for verb in &rule.verbs {
            out.push(Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() });
        }
    }
    out
}

fn has_all(list: &[String], wanted: &[String]) -> bool {
    wanted.iter().all(|one| list.contains(one))
}

fn has_star_or_all(list: &[String], wanted: &[String]) -> bool {
    list.iter().any(|one| one == ALL) || has_all(list, wanted)
}

fn covers_resources(list: &[String], wanted: &[String]) -> bool {
    let by_any_parent = |resource: &String| {
        resource.split_once('/').is_some_and(|(_, sub)| list.contains(&format!("*/{sub}")))
    };
    has_star_or_all(list, wanted)
        || wanted.iter().all(|resource| list.contains(resource) || by_any_parent(resource))
}

fn covers_part(rule: &Rule, part: &Rule) -> bool {
    has_star_or_all(&rule.verbs, &part.verbs)
        && has_star_or_all(&rule.api_groups, &part.api_groups)
        && covers_resources(&rule.resources, &part.resources)
        && (rule.resource_names.is_empty()
            || !part.resource_names.is_empty() && has_all(&rule.resource_names, &part.resource_names))
        && part
            .non_resource_urls
            .iter()
            .all(|wanted| rule.non_resource_urls.iter().any(|pattern| matches_path(pattern, wanted)))
}

/// Whether who holds `held` may give `given` away.
///
/// # Errors
/// The smallest parts that are not held.
pub fn covers(held: &[Rule], given: &[Rule]) -> Result<(), Vec<Rule>> {
    let lacking: Vec<Rule> = given
        .iter()
        .flat_map(parts)
        .filter(|part| !held.iter().any(|rule| covers_part(rule, part)))
        .collect();
    if lacking.is_empty() { Ok(()) } else { Err(lacking) }
}

/// Rules for one resource, which differ in their verbs alone, as one.
pub fn compact(rules: &[Rule]) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    let mut simple: HashMap<(&String, &String, Option<&String>), usize> = HashMap::new();
    for rule in rules {
        let key =
            match (rule.api_groups.as_slice(), rule.resources.as_slice(), rule.resource_names.as_slice()) {
                ([group], [resource], []) if rule.non_resource_urls.is_empty() => (group, resource, None),
                ([group], [resource], [name]) if rule.non_resource_urls.is_empty() => {
                    (group, resource, Some(name))
                }
                _ => {
                    out.push(rule.clone());
                    continue;
                }
            };
        match simple.get(&key) {
            Some(at) => {
                let verbs = &mut out[*at].verbs;
                let more: Vec<String> =
                    rule.verbs.iter().filter(|verb| !verbs.contains(verb)).cloned().collect();
                verbs.extend(more);
            }
            None => {
                simple.insert(key, out.len());
                out.push(rule.clone());
            }
        }
    }
    out
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`
pub fn describe(rule: &Rule) -> String {
    let lists = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> = lists
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted(list)))
        .collect();
    format!("{{{}}}", parts.join(", "))
}

/// A list of strings as Go's `%q` prints it: `["a" "b"]`.
pub fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
