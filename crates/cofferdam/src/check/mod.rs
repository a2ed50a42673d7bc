//! `cofferdam check`: manifests held against the Pod Security Standards and against what commonly goes wrong beside them, with
//! no cluster and no root. What is decided is decided in `policy`; here are the files, the places in them, and the words.

mod diff;
mod edit;
mod fix;
pub mod report;
mod source;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::Result;
use policy::{
    lint::{self, NO_NETWORK_POLICY, Severity},
    pod_security::{LevelVersion, evaluate},
};

pub use diff::unified;
pub use fix::fix;
use source::Object;
pub use source::Source;
use tree::{Place, Step, steps};

/// A rule that found something, or could have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub id: &'static str,
    pub about: &'static str,
    pub fix: &'static str,
    pub severity: Severity,
}

/// Where a field stands, or what should have it.
#[derive(Clone, Debug)]
pub struct Spot {
    pub start: Place,
    pub end: Place,
    /// `spec.template.spec.containers[0].securityContext`, from the object's root.
    pub field: String,
}

/// One thing that is wrong, at its places.
#[derive(Clone, Debug)]
pub struct Finding {
    pub rule: &'static str,
    pub severity: Severity,
    /// The file.
    pub source: String,
    /// `Deployment shop/web`.
    pub object: String,
    /// The first of the places that would all have to be changed.
    pub spot: Spot,
    pub others: Vec<Spot>,
    pub message: String,
    pub fix: String,
}

/// All that was found.
#[derive(Debug)]
pub struct Report {
    pub policy: LevelVersion,
    pub sources: usize,
    pub pods: usize,
    /// Documents without a kind: a values file, a text.
    pub passed_over: usize,
    /// By file, then by place.
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

pub const UNKNOWN_FIELD: Rule = Rule {
    id: "unknown-field",
    about: "A field that its kind does not have: the API server ignores it.",
    fix: "Correct its name or its place.",
    severity: Severity::Warning,
};

pub const INVALID: Rule = Rule {
    id: "invalid-manifest",
    about: "A manifest that the API server would refuse.",
    fix: "Correct the field named.",
    severity: Severity::Error,
};

/// Every rule, by identifier; for reports that list them.
pub fn rules() -> Vec<Rule> {
    let checks = policy::pod_security::CHECKS.iter().map(|check| Rule {
        id: check.id,
        about: check.about,
        fix: "Set the fields that the message names as it says.",
        severity: Severity::Error,
    });
    let lints = lint::LINTS.iter().map(|lint| Rule {
        id: lint.id,
        about: lint.about,
        fix: lint.fix,
        severity: lint.severity,
    });
    let namespaces = Rule {
        id: NO_NETWORK_POLICY.id,
        about: NO_NETWORK_POLICY.about,
        fix: NO_NETWORK_POLICY.fix,
        severity: NO_NETWORK_POLICY.severity,
    };
    let mut rules: Vec<Rule> = checks.chain(lints).chain([namespaces, UNKNOWN_FIELD, INVALID]).collect();
    rules.sort_by_key(|rule| rule.id);
    rules
}

/// Checks all sources together: a NetworkPolicy may be in another file than the pods it guards.
pub fn check(sources: &[Source], policy: LevelVersion) -> Report {
    let passed_over = sources.iter().map(|source| source.passed_over).sum();
    let mut report = Report { policy, sources: sources.len(), pods: 0, passed_over, findings: Vec::new() };
    // The first object with a pod of each namespace.
    let mut first: BTreeMap<&str, (&Source, &Object)> = BTreeMap::new();
    for source in sources {
        for object in &source.objects {
            if check_object(source, object, policy, &mut report) {
                report.pods += 1;
                first.entry(&object.namespace).or_insert((source, object));
            }
        }
    }
    let policies = sources.iter().flat_map(|source| &source.objects);
    let policies = policies.filter(|object| object.is("networking.k8s.io", "NetworkPolicy"));
    let policies = policies.map(|object| object.namespace.as_str());
    for namespace in lint::unguarded(first.keys().copied(), policies) {
        let (source, object) = first[namespace];
        let path =
            [object.root.as_slice(), &[Step::Key("metadata".into()), Step::Key("namespace".into())]].concat();
        let message = format!(
            "namespace {namespace} has pods and no NetworkPolicy: every pod of the cluster reaches them"
        );
        let rule = NO_NETWORK_POLICY;
        report.findings.push(at(source, object, &path, rule.id, rule.severity, message, rule.fix));
    }
    report.findings.sort_by(|a, b| {
        let key = |f: &Finding| (f.spot.start, std::cmp::Reverse(f.severity));
        (&a.source, key(a)).cmp(&(&b.source, key(b)))
    });
    report
}

/// Checks one object, and says whether it has a pod.
fn check_object(source: &Source, object: &Object, policy: LevelVersion, report: &mut Report) -> bool {
    let Some(pod_path) = object.pod_path() else { return false };
    let root: Vec<Step> = pod_path.iter().map(|field| Step::Key((*field).to_owned())).collect();
    for (field, message) in unknown_fields(object) {
        let path = [object.root.as_slice(), &parse_path(&field)].concat();
        let rule = UNKNOWN_FIELD;
        report.findings.push(at(source, object, &path, rule.id, rule.severity, message, rule.fix));
    }
    let pod = match object.pod() {
        Ok(Some(pod)) => pod,
        Ok(None) => return false,
        Err(error) => {
            let path = [object.root.as_slice(), &root].concat();
            let rule = INVALID;
            report.findings.push(at(
                source,
                object,
                &path,
                rule.id,
                rule.severity,
                format!("{error:#}"),
                rule.fix,
            ));
            return true;
        }
    };
    let prefix: String = pod_path.iter().map(|field| format!("{field}.")).collect();
    for violation in evaluate(policy, &pod.metadata, &pod.spec).violations {
        let fix = fix::words(&prefix, &violation.remedies);
        let mut paths = violation.fields.iter();
        let Some(first) = paths.next() else { continue };
        let path = |field| pod.root.iter().cloned().chain(steps(field)).collect::<Vec<Step>>();
        let message = match violation.detail.as_str() {
            "" => violation.reason.to_owned(),
            detail => detail.to_owned(),
        };
        let mut finding = at(source, object, &path(first), violation.check, Severity::Error, message, &fix);
        finding.others = paths.map(|field| spot(source, object, &path(field))).collect();
        report.findings.push(finding);
    }
    for (lint, finding) in lint::lint(&pod.metadata, &pod.spec) {
        let path: Vec<Step> = pod.root.iter().cloned().chain(steps(&finding.path)).collect();
        report.findings.push(at(source, object, &path, lint.id, lint.severity, finding.message, lint.fix));
    }
    true
}

/// A finding at a path from the document's root.
fn at(
    source: &Source,
    object: &Object,
    path: &[Step],
    rule: &'static str,
    severity: Severity,
    message: String,
    fix: &str,
) -> Finding {
    Finding {
        rule,
        severity,
        source: source.name.clone(),
        object: object.shown(),
        spot: spot(source, object, path),
        others: Vec::new(),
        message,
        fix: fix.to_owned(),
    }
}

fn spot(source: &Source, object: &Object, path: &[Step]) -> Spot {
    let (start, end) = source.documents[object.document].find(path).span();
    Spot { start, end, field: shown(&path[object.root.len()..]) }
}

/// `spec.containers[0].name`.
fn shown(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Index(at) => out.push_str(&format!("[{at}]")),
            Step::Key(key) if key.contains(['.', '/']) => out.push_str(&format!("[{key}]")),
            Step::Key(key) if out.is_empty() => out.push_str(key),
            Step::Key(key) => out.push_str(&format!(".{key}")),
        }
    }
    out
}

/// Fields that the object's kind does not have, each with what is said of it.
fn unknown_fields(object: &Object) -> Vec<(String, String)> {
    let Some(ty) = api::schema::by_kind(&object.api_version, &object.kind) else { return Vec::new() };
    let unknown = api::strict::conform(&mut object.value.clone(), ty).unwrap_or_default();
    unknown
        .into_iter()
        .filter_map(|words| {
            let field = words.strip_prefix("unknown field \"")?.strip_suffix('"')?.to_owned();
            Some((field, format!("{words}: the API server ignores it")))
        })
        .collect()
}

/// The reverse of [`shown`], for paths without keys of maps.
fn parse_path(path: &str) -> Vec<Step> {
    path.split('.')
        .flat_map(|part| {
            let mut pieces = part.split('[');
            let name = pieces.next().filter(|name| !name.is_empty()).map(|name| Step::Key(name.to_owned()));
            let indices = pieces.map(|piece| {
                let inner = piece.trim_end_matches(']');
                inner.parse().map_or_else(|_| Step::Key(inner.to_owned()), Step::Index)
            });
            name.into_iter().chain(indices).collect::<Vec<_>>()
        })
        .collect()
}

/// Reads sources by name; `-` is standard input, a directory gives its manifests.
pub fn read(names: &[String], recursive: bool) -> Result<Vec<Source>> {
    let files = crate::cli::manifests::read_texts(names, recursive)?;
    files.into_iter().map(|(name, text)| Source::parse(&name, text)).collect()
}
