//! Who may depend on whom: ARCHITECTURE.md gives each crate its rights, and a dependency would bring in more.

use super::Finding;

/// Crate, what it must not depend on, why.
const NEVER: &[(&str, &[&str], &str)] = &[
    (
        "policy",
        &[
            "api", "kernel", "keeper", "control", "node", "tokio", "futures", "hyper", "rustix", "libc",
            "kube",
        ],
        "decisions are pure: no runtime, no IO",
    ),
    (
        "api",
        &[
            "kernel", "keeper", "control", "node", "tokio", "futures", "hyper", "rustix", "libc", "kube",
            "jiff",
        ],
        "objects as data: no runtime, no IO, no clock",
    ),
    ("kernel", &["api", "policy", "control", "node", "tokio"], "system calls know nothing of Kubernetes"),
    ("keeper", &["api", "control", "node", "tokio", "futures"], "one small process, no threads"),
    (
        "control",
        &["kernel", "keeper", "node"],
        "it holds no privilege and meets nodes through API objects only",
    ),
    ("node", &["control"], "it meets the control process through API objects only"),
];

pub fn check(file: &str, text: &str, findings: &mut Vec<Finding>) {
    let Some(name) = file.strip_prefix("crates/").and_then(|f| f.strip_suffix("/Cargo.toml")) else { return };
    let Some((_, forbidden, why)) = NEVER.iter().find(|(krate, ..)| *krate == name) else { return };
    let mut section = "";
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line;
            // The long form: [dependencies.name]
            if let Some(dependency) = section.strip_prefix("[dependencies.").and_then(|s| s.strip_suffix(']'))
            {
                report(file, at, dependency, forbidden, why, findings);
            }
        } else if section == "[dependencies]"
            || section == "[build-dependencies]"
            || section.ends_with(".dependencies]")
        {
            let dependency = line.split(['.', '=', ' ']).next().unwrap_or_default();
            report(file, at, dependency, forbidden, why, findings);
        }
    }
}

fn report(
    file: &str,
    at: usize,
    dependency: &str,
    forbidden: &[&str],
    why: &str,
    findings: &mut Vec<Finding>,
) {
    if forbidden.contains(&dependency) {
        let what = format!("must not depend on {dependency}: {why}");
        findings.push(Finding { file: file.to_owned(), line: at + 1, what });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_may_not_gain_rights_by_a_dependency() {
        let text = "[package]\nname = \"control\"\n[dependencies]\nserde = \"1\"\nkernel.workspace = true\n\
                    [dependencies.node]\npath = \"x\"\n[dev-dependencies]\nkeeper = \"1\"\n";
        let mut findings = Vec::new();
        check("crates/control/Cargo.toml", text, &mut findings);
        assert_eq!(findings.iter().map(|f| f.line).collect::<Vec<_>>(), [5, 6]);
        findings.clear();
        check("crates/cofferdam/Cargo.toml", text, &mut findings);
        assert!(findings.is_empty());
    }
}
