//! What was found, as text for people, JSON for programs, and SARIF 2.1.0 for what shows findings beside the code.

use std::io::{self, Write};

use policy::lint::Severity;
use serde_json::{Value, json};

use super::{Finding, Report, Spot, rules};

/// `file:line:column: error[rule]: object: message`, and below it what to do.
pub fn text(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for finding in &report.findings {
        let Finding { source, spot: Spot { start, .. }, rule, object, message, fix, .. } = finding;
        let severity = word(finding.severity);
        writeln!(out, "{source}:{}:{}: {severity}[{rule}]: {object}: {message}", start.line, start.column)?;
        let mut lines = vec![start.line];
        for place in finding.others.iter().map(|spot| spot.start) {
            // One place of each line is enough to find it.
            if !lines.contains(&place.line) {
                writeln!(out, "    also: {source}:{}:{}", place.line, place.column)?;
                lines.push(place.line);
            }
        }
        writeln!(out, "    fix: {fix}")?;
    }
    let number = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let (pods, files) = (number(report.pods, "pod"), number(report.sources, "file"));
    match report.passed_over {
        0 => {}
        1 => writeln!(out, "1 document has no kind and was passed over")?,
        count => writeln!(out, "{count} documents have no kind and were passed over")?,
    }
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    match (report.pods, errors + warnings) {
        (0, 0) => writeln!(out, "no pods in {files}: nothing to check"),
        (1, 0) => writeln!(out, "{pods} in {files} keeps to {}", report.policy),
        (_, 0) => writeln!(out, "{pods} in {files} keep to {}", report.policy),
        _ => {
            let found = format!("{}, {}", number(errors, "error"), number(warnings, "warning"));
            writeln!(out, "{pods} in {files} held against {}: {found}", report.policy)
        }
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

pub fn json(report: &Report) -> Value {
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "rule": finding.rule,
                "severity": word(finding.severity),
                "file": finding.source,
                "line": finding.spot.start.line,
                "column": finding.spot.start.column,
                "object": finding.object,
                "field": finding.spot.field,
                "others": finding.others.iter().map(|spot| json!({
                    "line": spot.start.line, "column": spot.start.column, "field": spot.field,
                })).collect::<Vec<_>>(),
                "message": finding.message,
                "fix": finding.fix,
            })
        })
        .collect();
    json!({
        "level": report.policy.level.as_str(),
        "version": report.policy.version.to_string(),
        "files": report.sources,
        "pods": report.pods,
        "passedOver": report.passed_over,
        "errors": report.count(Severity::Error),
        "warnings": report.count(Severity::Warning),
        "findings": findings,
    })
}

/// A log of SARIF 2.1.0 (OASIS): one run, with all rules that could have found something.
pub fn sarif(report: &Report) -> Value {
    let rules = rules();
    let descriptors: Vec<Value> = rules
        .iter()
        .map(|rule| {
            json!({
                "id": rule.id,
                "shortDescription": { "text": rule.about },
                "help": { "text": rule.fix },
                "defaultConfiguration": { "level": word(rule.severity) },
            })
        })
        .collect();
    let results: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            // Several only where each has to be changed, as the standard wants it.
            let spots = std::iter::once(&finding.spot).chain(&finding.others);
            let locations: Vec<Value> = spots.map(|spot| location(finding, spot)).collect();
            json!({
                "ruleId": finding.rule,
                "ruleIndex": rules.iter().position(|rule| rule.id == finding.rule),
                "level": word(finding.severity),
                "message": { "text": format!("{}: {}. Fix: {}", finding.object, finding.message, finding.fix) },
                "locations": locations,
            })
        })
        .collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "cofferdam check",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": descriptors,
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn location(finding: &Finding, spot: &Spot) -> Value {
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(&finding.source) },
            "region": {
                "startLine": spot.start.line,
                "startColumn": spot.start.column,
                "endLine": spot.end.line,
                "endColumn": spot.end.column,
            },
        },
        "logicalLocations": [{ "fullyQualifiedName": format!("{}: {}", finding.object, spot.field), "kind": "member" }],
    })
}

/// A path as a reference to it: relative paths stay relative to where the command ran. (RFC 3986)
fn uri(path: &str) -> String {
    let escaped = path.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    });
    let escaped: String = escaped.collect();
    if escaped.starts_with('/') { format!("file://{escaped}") } else { escaped }
}
