//! What a cluster's administrator decides of Pod Security: the levels of namespaces without labels, and who is exempted. The
//! file is upstream's `PodSecurityConfiguration`, bare or within an `AdmissionConfiguration`.

use api::{
    field::{Error, ErrorList, Path},
    validation::names,
};
use policy::pod_security::{Level, LevelVersion, Mode, Policy, Version};
use serde::Deserialize;
use serde_yaml::Value;

/// Nothing is asked and nobody exempted, until a file says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSecurityConfig {
    pub defaults: Policy,
    pub exempt_users: Vec<String>,
    pub exempt_namespaces: Vec<String>,
    pub exempt_runtime_classes: Vec<String>,
}

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Yaml(#[from] serde_yaml::Error),
    #[error(
        "a PodSecurityConfiguration of pod-security.admission.config.k8s.io (v1, v1beta1, v1alpha1) or an \
         AdmissionConfiguration of apiserver.config.k8s.io/v1 with one is needed, not {kind:?} of {version:?}"
    )]
    Kind { version: String, kind: String },
    #[error("plugins: {0}")]
    Plugins(String),
    #[error("{0}")]
    Invalid(ErrorList),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    defaults: Option<Defaults>,
    exemptions: Option<Exemptions>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Defaults {
    enforce: Option<String>,
    enforce_version: Option<String>,
    audit: Option<String>,
    audit_version: Option<String>,
    warn: Option<String>,
    warn_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Exemptions {
    usernames: Option<Vec<String>>,
    namespaces: Option<Vec<String>>,
    runtime_classes: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AdmissionConfiguration {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    plugins: Vec<PluginConfiguration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PluginConfiguration {
    name: String,
    path: Option<String>,
    configuration: Option<Value>,
}

impl PodSecurityConfig {
    /// Reads a file. Every field must be known.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub fn parse(text: &str) -> Result<PodSecurityConfig, ConfigError> {
        let document: Value = serde_yaml::from_str(text)?;
        let field = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (field("apiVersion"), field("kind"));
        match (version.split_once('/'), kind.as_str()) {
            (
                Some(("pod-security.admission.config.k8s.io", "v1" | "v1beta1" | "v1alpha1")),
                "PodSecurityConfiguration",
            ) => from_file(serde_yaml::from_str(text)?),
            (Some(("apiserver.config.k8s.io", "v1")), "AdmissionConfiguration") => within(text),
            _ => Err(ConfigError::Kind { version, kind }),
        }
    }
}

/// The configuration of the plugin PodSecurity; no other plugin can be configured, so none may be there.
fn within(text: &str) -> Result<PodSecurityConfig, ConfigError> {
    let outer: AdmissionConfiguration = serde_yaml::from_str(text)?;
    let [plugin] = <[PluginConfiguration; 1]>::try_from(outer.plugins)
        .map_err(|_| ConfigError::Plugins("one plugin can be configured, PodSecurity".to_owned()))?;
    if plugin.name != "PodSecurity" {
        return Err(ConfigError::Plugins(format!(
            "{:?} cannot be configured, only PodSecurity",
            plugin.name
        )));
    }
    match (plugin.path, plugin.configuration) {
        (None, Some(inner)) => PodSecurityConfig::parse(&serde_yaml::to_string(&inner)?),
        _ => Err(ConfigError::Plugins("PodSecurity: configuration is needed in the same file".to_owned())),
    }
}

fn from_file(file: File) -> Result<PodSecurityConfig, ConfigError> {
    let mut errors = ErrorList::new();
    let defaults = file.defaults.unwrap_or_default();
    let mut policy = Policy::default();
    for (mode, level, version) in [
        (Mode::Enforce, defaults.enforce, defaults.enforce_version),
        (Mode::Warn, defaults.warn, defaults.warn_version),
        (Mode::Audit, defaults.audit, defaults.audit_version),
    ] {
        let name = match mode {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
            Mode::Warn => "warn",
        };
        let path = Path::new("defaults");
        let level = level.filter(|level| !level.is_empty()).map_or(Ok(Level::Privileged), |text| {
            text.parse().map_err(|error| Error::invalid(&path.child(name), text, format!("{error}")))
        });
        let version = version.filter(|version| !version.is_empty()).map_or(Ok(Version::Latest), |text| {
            let path = path.child(&format!("{name}-version"));
            text.parse().map_err(|error| Error::invalid(&path, text, format!("{error}")))
        });
        match (level, version) {
            (Ok(level), Ok(version)) => policy.set(mode, LevelVersion { level, version }),
            (level, version) => errors.extend(level.err().into_iter().chain(version.err())),
        }
    }
    let exemptions = file.exemptions.unwrap_or_default();
    let mut list = |name: &str, given: Option<Vec<String>>, check: &dyn Fn(&Path, &str) -> Option<Error>| {
        let given = given.unwrap_or_default();
        for (at, item) in given.iter().enumerate() {
            let path = Path::new("exemptions").child(name).index(at);
            let twice = || given[..at].contains(item).then(|| Error::duplicate(&path, item.as_str()));
            errors.extend(check(&path, item).or_else(twice));
        }
        given
    };
    let named = |words: Vec<String>, path: &Path, item: &str| {
        (!words.is_empty()).then(|| Error::invalid(path, item, words.join(", ")))
    };
    let exempt_namespaces =
        list("namespaces", exemptions.namespaces, &|path, item| named(names::dns_label(item), path, item));
    let exempt_runtime_classes = list("runtimeClasses", exemptions.runtime_classes, &|path, item| {
        named(names::dns_subdomain(item), path, item)
    });
    let exempt_users = list("usernames", exemptions.usernames, &|path, item| {
        item.is_empty().then(|| Error::required(path, ""))
    });
    if !errors.is_empty() {
        return Err(ConfigError::Invalid(errors));
    }
    Ok(PodSecurityConfig { defaults: policy, exempt_users, exempt_namespaces, exempt_runtime_classes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\n";

    #[test]
    fn upstreams_example_is_read_bare_and_wrapped() {
        let body = "defaults:\n  enforce: baseline\n  enforce-version: v1.34\n  warn: restricted\n\
                    exemptions:\n  usernames: [system:serviceaccount:kube-system:x]\n  namespaces: [kube-system]\n  runtimeClasses: [kata]\n";
        let bare = PodSecurityConfig::parse(&format!("{HEAD}{body}")).unwrap();
        assert_eq!(bare.defaults.enforce.to_string(), "baseline:v1.34");
        assert_eq!(bare.defaults.warn.to_string(), "restricted:latest");
        assert_eq!(bare.defaults.audit.to_string(), "privileged:latest");
        assert_eq!(bare.exempt_users, ["system:serviceaccount:kube-system:x"]);
        assert_eq!(bare.exempt_namespaces, ["kube-system"]);
        assert_eq!(bare.exempt_runtime_classes, ["kata"]);
        let indented: String = format!("{HEAD}{body}").lines().map(|line| format!("    {line}\n")).collect();
        let wrapped = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n  configuration:\n{indented}"
        );
        assert_eq!(PodSecurityConfig::parse(&wrapped).unwrap(), bare);
        assert_eq!(PodSecurityConfig::parse(HEAD).unwrap(), PodSecurityConfig::default());
    }

    #[test]
    fn what_is_wrong_is_said_by_field() {
        let wrapped = |plugins: &str| {
            format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: {plugins}\n"
            )
        };
        for (text, said) in [
            (
                format!("{HEAD}defaults: {{enforce: strict}}"),
                r#"defaults.enforce: Invalid value: "strict": must be one of privileged, baseline, restricted"#,
            ),
            (
                format!("{HEAD}defaults: {{warn-version: \"1.30\"}}"),
                r#"defaults.warn-version: Invalid value: "1.30": must be "latest" or "v1.x""#,
            ),
            (
                format!("{HEAD}exemptions: {{namespaces: [a, Not_One, a]}}"),
                r#"[exemptions.namespaces[1]: Invalid value: "Not_One": "#,
            ),
            (
                format!("{HEAD}exemptions: {{namespaces: [a, a]}}"),
                r#"exemptions.namespaces[1]: Duplicate value: "a""#,
            ),
            (format!("{HEAD}exemptions: {{usernames: [\"\"]}}"), "exemptions.usernames[0]: Required value"),
            (format!("{HEAD}defaults: {{enforced: baseline}}"), "defaults: unknown field `enforced`"),
            (format!("{HEAD}exempt: {{}}"), "unknown field `exempt`"),
            ("apiVersion: v1\nkind: Pod\n".to_owned(), r#"not "Pod" of "v1""#),
            (String::new(), "is needed"),
            (
                wrapped("[{name: ResourceQuota, configuration: {}}]"),
                r#"plugins: "ResourceQuota" cannot be configured"#,
            ),
            (wrapped("[{name: PodSecurity, path: x.yaml}]"), "configuration is needed in the same file"),
            (wrapped("[]"), "one plugin can be configured"),
        ] {
            let error = PodSecurityConfig::parse(&text).expect_err(&text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
