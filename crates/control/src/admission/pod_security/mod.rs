//! PodSecurity: pods that violate the level their namespace enforces are refused; of levels it only warns of or audits, the
//! client or the audit log is told, for pods and for the templates of what makes pods. A namespace's labels must be readable.
//! The judgement itself is `policy::pod_security`'s. (Source: `k8s.io/pod-security-admission/admission`.)

mod config;
mod existing;
mod update;

use std::collections::BTreeMap;

use api::{
    ApiError,
    field::{Error, ErrorList, Path, quote},
};
use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use policy::pod_security::{Level, LevelVersion, Mode, Policy, Verdict, embedded_pod, evaluate};
use serde::Deserialize;
use serde_json::Value;

pub use config::{ConfigError, PodSecurityConfig};

use super::{Operation, Plugin, Request};

pub struct PodSecurity {
    pub config: PodSecurityConfig,
}

/// Keys of the audit log.
const EXEMPT: &str = "pod-security.kubernetes.io/exempt";
const ENFORCED: &str = "pod-security.kubernetes.io/enforce-policy";
const VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";
const ERROR: &str = "pod-security.kubernetes.io/error";

/// Subresources of a pod that change nothing the standard looks at. Any other is judged.
const HARMLESS: [&str; 8] =
    ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// Whether what is judged will run as it stands, or is a template of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Pod,
    Template,
}

impl Plugin for PodSecurity {
    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let (Some(object), Operation::Create | Operation::Update) = (object, request.operation) else {
            return Ok(());
        };
        match (request.resource.group, request.resource.plural, request.subresource) {
            ("", "namespaces", "") => self.namespace(request, object, warnings),
            ("", "pods", subresource) if HARMLESS.contains(&subresource) => Ok(()),
            ("", "pods", _) => match request.old {
                Some(old) if !update::is_significant(object, old) => Ok(()),
                _ => self.judge(request, Subject::Pod, object, warnings),
            },
            (group, _, "") => match embedded_pod(group, request.resource.kind) {
                Some(path) => {
                    let template = path.iter().try_fold(object, |at, field| at.get(*field));
                    template.map_or(Ok(()), |pod| self.judge(request, Subject::Template, pod, warnings))
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl PodSecurity {
    /// A namespace's labels, and the pods in it where they ask for more than before.
    fn namespace(
        &self,
        request: &Request<'_>,
        object: &Value,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let labels = labels(object);
        let (policy, errors) = Policy::of_labels(&labels, self.config.defaults);
        let (old, old_errors) = match request.old {
            Some(old) => Policy::of_labels(&self::labels(old), self.config.defaults),
            None => (self.config.defaults, Vec::new()),
        };
        // An old error does not keep other labels from being changed.
        if !errors.is_empty() && (request.old.is_none() || errors != old_errors) {
            let mut list = ErrorList::new();
            let path = Path::new("metadata").child("labels");
            list.extend(
                errors
                    .iter()
                    .map(|e| Error::invalid(&path.key(e.label), e.value.as_str(), e.detail.as_str())),
            );
            return Err(ApiError::invalid("", "Namespace", request.name, &list));
        }
        let (new, old) = (policy.enforce, old.enforce);
        let exempt = self.config.exempt_namespaces.iter().any(|namespace| namespace == request.name);
        let stricter = new != old
            && new.level != Level::Privileged
            && (new.version != old.version || new.level > old.level);
        if exempt && (stricter || request.old.is_none()) {
            warnings.extend(self.ignored(request.name, &policy, &labels));
        } else if stricter && request.old.is_some() {
            let classes = &self.config.exempt_runtime_classes;
            warnings.extend(existing::warnings(request.store, request.name, new, classes));
        }
        Ok(())
    }

    /// That an exempted namespace's labels have no effect.
    fn ignored(&self, name: &str, policy: &Policy, labels: &BTreeMap<String, String>) -> Option<String> {
        if policy.asks_nothing() || *policy == self.config.defaults {
            return None;
        }
        let asked = [(Mode::Enforce, "enforce"), (Mode::Audit, "audit"), (Mode::Warn, "warn")]
            .into_iter()
            .filter(|(mode, _)| {
                let labelled =
                    labels.contains_key(mode.level_label()) || labels.contains_key(mode.version_label());
                labelled && policy.mode(*mode).level != Level::Privileged
            })
            .map(|(mode, name)| format!("{name}={}", policy.mode(mode)));
        Some(format!(
            "namespace {} is exempt from Pod Security, and the policy ({}) will be ignored",
            quote(name),
            asked.collect::<Vec<_>>().join(", ")
        ))
    }

    /// Judges a pod or a template by the policy of its namespace.
    fn judge(
        &self,
        request: &Request<'_>,
        subject: Subject,
        pod: &Value,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        if self.config.exempt_namespaces.iter().any(|namespace| namespace == request.namespace) {
            request.audit.note(EXEMPT, "namespace");
            return Ok(());
        }
        if self.config.exempt_users.contains(&request.user.name) {
            request.audit.note(EXEMPT, "user");
            return Ok(());
        }
        let Some(namespace) = request.store.get(&format!("/namespaces/{}", request.namespace)) else {
            let why = format!("failed to lookup namespace {}", quote(request.namespace));
            return match subject {
                Subject::Pod => Err(ApiError::internal(why)),
                // Its pods will be judged.
                Subject::Template => {
                    request.audit.note(ERROR, why);
                    Ok(())
                }
            };
        };
        let (policy, errors) = Policy::of_labels(&labels(&namespace.value()), self.config.defaults);
        let asks = match subject {
            Subject::Pod => !policy.asks_nothing(),
            Subject::Template => {
                [policy.warn, policy.audit].iter().any(|asked| asked.level != Level::Privileged)
            }
        };
        if errors.is_empty() && !asks {
            return Ok(());
        }
        let (metadata, spec) = match typed(pod) {
            Ok(typed) => typed,
            Err(error) if subject == Subject::Template => {
                request.audit.note(ERROR, format!("failed to extract pod template: {error}"));
                return Ok(());
            }
            Err(error) => return Err(ApiError::bad_request(format!("failed to decode pod: {error}"))),
        };
        if spec.runtime_class_name.as_ref().is_some_and(|c| self.config.exempt_runtime_classes.contains(c)) {
            request.audit.note(EXEMPT, "runtimeClass");
            return Ok(());
        }
        if !errors.is_empty() {
            let errors: Vec<String> = errors
                .iter()
                .map(|e| {
                    format!("metadata.labels[{}]: Invalid value: {}: {}", e.label, quote(&e.value), e.detail)
                })
                .collect();
            request.audit.note(ERROR, format!("Failed to parse policy: {}", errors.join(", ")));
        }

        let mut verdicts = Verdicts { metadata: &metadata, spec: &spec, known: Vec::new() };
        let mut refused = None;
        if subject == Subject::Pod {
            request.audit.note(ENFORCED, policy.enforce.to_string());
            let verdict = verdicts.of(policy.enforce);
            refused = (!verdict.allowed()).then(|| {
                format!("violates PodSecurity {}: {}", quote(&policy.enforce.to_string()), verdict.details())
            });
        }
        let would = |asked: LevelVersion, verdict: &Verdict| {
            format!("would violate PodSecurity {}: {}", quote(&asked.to_string()), verdict.details())
        };
        let verdict = verdicts.of(policy.audit);
        if !verdict.allowed() {
            request.audit.note(VIOLATIONS, would(policy.audit, verdict));
        }
        if let Some(why) = refused {
            return Err(ApiError::forbidden(request.resource, request.name, &why));
        }
        let verdict = verdicts.of(policy.warn);
        if !verdict.allowed() {
            warnings.push(would(policy.warn, verdict));
        }
        Ok(())
    }
}

/// Verdicts on one pod; modes often ask for the same level.
struct Verdicts<'a> {
    metadata: &'a ObjectMeta,
    spec: &'a PodSpec,
    known: Vec<(LevelVersion, Verdict)>,
}

impl Verdicts<'_> {
    fn of(&mut self, asked: LevelVersion) -> &Verdict {
        let at = match self.known.iter().position(|(known, _)| *known == asked) {
            Some(at) => at,
            None => {
                self.known.push((asked, evaluate(asked, self.metadata, self.spec)));
                self.known.len() - 1
            }
        };
        &self.known[at].1
    }
}

fn typed(pod: &Value) -> Result<(ObjectMeta, PodSpec), serde_json::Error> {
    let metadata = pod.get("metadata").filter(|metadata| !metadata.is_null());
    let metadata = metadata.map(ObjectMeta::deserialize).transpose()?.unwrap_or_default();
    let spec = pod.get("spec").filter(|spec| !spec.is_null());
    let spec = spec.map(PodSpec::deserialize).transpose()?.unwrap_or_default();
    Ok((metadata, spec))
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
