//! Field selectors: `status.phase=Running,spec.nodeName!=node-1`. Which fields a kind offers is a table, as in Kubernetes' conversion
//! functions; any other field is refused, because a client that asks for it would silently get too much.

use std::borrow::Cow;

use serde_json::Value;

use crate::error::ApiError;
use crate::field::quote;
use crate::registry::Resource;

/// How the value of a field is found in an object.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The text at this path; empty where there is none.
    Text(&'static [&'static str]),
    /// `true` or `false`; `false` where there is none.
    Bool(&'static [&'static str]),
    /// A number; 0 where there is none.
    Number(&'static [&'static str]),
    /// The first of these that is not empty.
    First(&'static [&'static [&'static str]]),
}

type Row = (&'static str, Source);

const META: &[Row] = &[
    ("metadata.name", Source::Text(&["metadata", "name"])),
    ("metadata.namespace", Source::Text(&["metadata", "namespace"])),
];

const POD: &[Row] = &[
    ("spec.nodeName", Source::Text(&["spec", "nodeName"])),
    // The name of the field in v1beta2, which upstream still takes.
    ("spec.host", Source::Text(&["spec", "nodeName"])),
    ("spec.restartPolicy", Source::Text(&["spec", "restartPolicy"])),
    ("spec.schedulerName", Source::Text(&["spec", "schedulerName"])),
    ("spec.serviceAccountName", Source::Text(&["spec", "serviceAccountName"])),
    ("spec.hostNetwork", Source::Bool(&["spec", "hostNetwork"])),
    ("status.phase", Source::Text(&["status", "phase"])),
    ("status.podIP", Source::Text(&["status", "podIP"])),
    ("status.podIPs", Source::Text(&["status", "podIP"])),
    ("status.nominatedNodeName", Source::Text(&["status", "nominatedNodeName"])),
];

const EVENT: &[Row] = &[
    ("involvedObject.kind", Source::Text(&["involvedObject", "kind"])),
    ("involvedObject.namespace", Source::Text(&["involvedObject", "namespace"])),
    ("involvedObject.name", Source::Text(&["involvedObject", "name"])),
    ("involvedObject.uid", Source::Text(&["involvedObject", "uid"])),
    ("involvedObject.apiVersion", Source::Text(&["involvedObject", "apiVersion"])),
    ("involvedObject.resourceVersion", Source::Text(&["involvedObject", "resourceVersion"])),
    ("involvedObject.fieldPath", Source::Text(&["involvedObject", "fieldPath"])),
    ("reason", Source::Text(&["reason"])),
    ("reportingComponent", Source::Text(&["reportingComponent"])),
    ("source", Source::First(&[&["source", "component"], &["reportingComponent"]])),
    ("type", Source::Text(&["type"])),
];

/// The same events under their names in `events.k8s.io`; they are matched as they are stored, as core events.
const EVENT_V1: &[Row] = &[
    ("regarding.kind", Source::Text(&["involvedObject", "kind"])),
    ("regarding.namespace", Source::Text(&["involvedObject", "namespace"])),
    ("regarding.name", Source::Text(&["involvedObject", "name"])),
    ("regarding.uid", Source::Text(&["involvedObject", "uid"])),
    ("regarding.apiVersion", Source::Text(&["involvedObject", "apiVersion"])),
    ("regarding.resourceVersion", Source::Text(&["involvedObject", "resourceVersion"])),
    ("regarding.fieldPath", Source::Text(&["involvedObject", "fieldPath"])),
    ("reason", Source::Text(&["reason"])),
    ("reportingController", Source::First(&[&["source", "component"], &["reportingComponent"]])),
    ("type", Source::Text(&["type"])),
];

const SERVICE: &[Row] = &[
    ("spec.clusterIP", Source::Text(&["spec", "clusterIP"])),
    ("spec.type", Source::Text(&["spec", "type"])),
];

fn own_rows(group: &str, kind: &str) -> &'static [Row] {
    match (group, kind) {
        ("", "Pod") => POD,
        ("", "Node") => &[("spec.unschedulable", Source::Bool(&["spec", "unschedulable"]))],
        ("", "Namespace") => &[("status.phase", Source::Text(&["status", "phase"]))],
        ("", "Secret") => &[("type", Source::Text(&["type"]))],
        ("", "Service") => SERVICE,
        ("", "Event") => EVENT,
        ("batch", "Job") => &[("status.successful", Source::Number(&["status", "succeeded"]))],
        ("events.k8s.io", "Event") => EVENT_V1,
        _ => &[],
    }
}

/// The fields by which a kind can be selected.
#[cfg(test)]
fn selectable(resource: &Resource) -> impl Iterator<Item = &'static str> {
    META.iter().chain(own_rows(resource.group, resource.kind)).map(|(name, _)| *name)
}

#[derive(Debug, Clone)]
struct Term {
    name: &'static str,
    source: Source,
    equal: bool,
    value: String,
}

/// All terms must hold; with none, everything matches.
#[derive(Debug, Clone, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Reads the query parameter `fieldSelector` for a kind.
    pub fn parse(text: &str, resource: &Resource) -> Result<Self, ApiError> {
        let own = own_rows(resource.group, resource.kind);
        let mut terms = Vec::new();
        for part in split(text) {
            if part.is_empty() {
                continue;
            }
            let wrong = |what: &str| {
                ApiError::bad_request(format!("invalid selector: '{text}'; can't understand '{what}'"))
            };
            let (name, equal, value) = split_term(part).ok_or_else(|| wrong(part))?;
            let value = unescape(value).ok_or_else(|| wrong(part))?;
            let Some((name, source)) = META.iter().chain(own).find(|(known, _)| *known == name) else {
                return Err(ApiError::bad_request(if own.is_empty() {
                    format!(
                        "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                        quote(name)
                    )
                } else {
                    format!("field label not supported: {name}")
                }));
            };
            terms.push(Term { name, source: *source, equal, value });
        }
        Ok(FieldSelector { terms })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object, in the form it is stored in, is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| (value_of(object, term.source) == term.value) == term.equal)
    }

    /// The value that a field must have, where the selector says so: `metadata.name=x` needs no search.
    pub fn requires(&self, name: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.name == name).map(|t| t.value.as_str())
    }
}

fn value_of(object: &Value, source: Source) -> Cow<'_, str> {
    let at = |path: &[&str]| path.iter().try_fold(object, |value, key| value.get(key));
    let text = match source {
        Source::Number(path) => {
            return Cow::Owned(at(path).and_then(Value::as_i64).unwrap_or_default().to_string());
        }
        Source::Text(path) => at(path).and_then(Value::as_str).unwrap_or_default(),
        Source::Bool(path) => match at(path).and_then(Value::as_bool) {
            Some(true) => "true",
            _ => "false",
        },
        Source::First(paths) => {
            paths.iter().filter_map(|p| at(p)?.as_str()).find(|s| !s.is_empty()).unwrap_or_default()
        }
    };
    Cow::Borrowed(text)
}

/// Cuts at commas that no backslash precedes.
fn split(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                out.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

/// Name, whether it is to be equal, and the value still escaped: cut at the first operator.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    term.char_indices().find_map(|(at, _)| {
        let (name, rest) = term.split_at(at);
        [("!=", false), ("==", true), ("=", true)]
            .into_iter()
            .find_map(|(operator, equal)| Some((name, equal, rest.strip_prefix(operator)?)))
    })
}

/// Takes `\\`, `\,` and `\=` for what they stand for; a bare comma or equals sign is refused, as upstream does.
fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('\\' | ',' | '=') => out.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{by_plural, resources};
    use proptest::prelude::*;
    use serde_json::json;

    fn pods() -> &'static Resource {
        by_plural("", "v1", "pods").unwrap()
    }

    #[test]
    fn pods_are_selected_by_their_fields() {
        let pod = json!({
            "metadata": {"name": "x", "namespace": "a"},
            "spec": {"nodeName": "node-1", "hostNetwork": true},
            "status": {"phase": "Running"},
        });
        for (text, want) in [
            ("", true),
            ("metadata.name=x", true),
            ("metadata.name=x,metadata.namespace=b", false),
            ("spec.nodeName==node-1", true),
            ("spec.nodeName!=node-1", false),
            ("spec.nodeName=", false),
            ("status.phase!=Succeeded,status.phase!=Failed", true),
            ("spec.hostNetwork=true", true),
            ("status.podIP=", true),
        ] {
            let selector = FieldSelector::parse(text, pods()).unwrap();
            assert_eq!(selector.matches(&pod), want, "{text}");
        }
        let one = FieldSelector::parse("status.phase!=Failed,metadata.name=x", pods()).unwrap();
        assert_eq!((one.requires("metadata.name"), one.requires("status.phase")), (Some("x"), None));
    }

    #[test]
    fn fields_that_a_kind_does_not_offer_are_refused() {
        let message = |text, resource| FieldSelector::parse(text, resource).unwrap_err().message;
        assert_eq!(message("spec.image=x", pods()), "field label not supported: spec.image");
        assert_eq!(message("nonsense", pods()), "invalid selector: 'nonsense'; can't understand 'nonsense'");
        let configmaps = by_plural("", "v1", "configmaps").unwrap();
        assert_eq!(
            message("data.x=1", configmaps),
            "\"data.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        for resource in resources() {
            for field in selectable(resource) {
                assert!(FieldSelector::parse(&format!("{field}=x"), resource).is_ok(), "{field}");
            }
        }
    }

    #[test]
    fn events_are_found_by_what_they_are_about() {
        let event = json!({"involvedObject": {"name": "x", "uid": "u"}, "source": {"component": "kubelet"}});
        let core = by_plural("", "v1", "events").unwrap();
        let new = by_plural("events.k8s.io", "v1", "events").unwrap();
        assert!(
            FieldSelector::parse("involvedObject.name=x,involvedObject.uid=u,source=kubelet", core)
                .unwrap()
                .matches(&event)
        );
        assert!(
            FieldSelector::parse("regarding.name=x,reportingController=kubelet", new)
                .unwrap()
                .matches(&event)
        );
        assert!(FieldSelector::parse("regarding.name=x", core).is_err());
    }

    #[test]
    fn escapes_are_taken_off() {
        let secrets = by_plural("", "v1", "secrets").unwrap();
        let selector = FieldSelector::parse(r"type=a\,b\=c\\,metadata.name!=x", secrets).unwrap();
        assert_eq!(selector.requires("type"), Some(r"a,b=c\"));
        assert!(FieldSelector::parse(r"type=a\x", secrets).is_err());
        assert!(FieldSelector::parse("type=a=b", secrets).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r"[a-z.=!,\\ é]{0,40}") {
            let _ = FieldSelector::parse(&text, pods());
        }
    }
}
