//! Label selectors, parsed once into a normal form: two selectors that ask the same words compare equal, so that what
//! is decided for one (an address set, a counter) can be shared.
//!
//! Source of the rules: apimachinery `labels.Requirement.Matches` and `metav1.LabelSelectorAsSelector`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde::Serialize;

pub type Labels = BTreeMap<String, String>;

/// One condition on the labels of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Requirement {
    In(String, BTreeSet<String>),
    /// Also matches where the key is absent.
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
    /// The label's value, as an integer, is greater (node affinity only).
    Gt(String, i64),
    Lt(String, i64),
}

impl Requirement {
    pub fn matches(&self, labels: &Labels) -> bool {
        let number = |key: &String| labels.get(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Requirement::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::DoesNotExist(key) => !labels.contains_key(key),
            Requirement::Gt(key, than) => number(key).is_some_and(|v| v > *than),
            Requirement::Lt(key, than) => number(key).is_some_and(|v| v < *than),
        }
    }

    /// `values` as the API has them. The operators are those of label selectors and of node selectors.
    pub fn parse(key: &str, operator: &str, values: &[String]) -> Result<Requirement, SelectorError> {
        let key = key.to_string();
        let all = || values.iter().cloned().collect::<BTreeSet<String>>();
        let bad = |why| SelectorError::Values { key: key.clone(), operator: operator.to_string(), why };
        let number = || match values {
            [one] => one.parse::<i64>().map_err(|_| bad("the value must be an integer")),
            _ => Err(bad("exactly one value is required")),
        };
        match operator {
            "In" | "NotIn" if values.is_empty() => Err(bad("at least one value is required")),
            "Exists" | "DoesNotExist" if !values.is_empty() => Err(bad("no value may be given")),
            "In" => Ok(Requirement::In(key.clone(), all())),
            "NotIn" => Ok(Requirement::NotIn(key.clone(), all())),
            "Exists" => Ok(Requirement::Exists(key.clone())),
            "DoesNotExist" => Ok(Requirement::DoesNotExist(key.clone())),
            "Gt" => Ok(Requirement::Gt(key.clone(), number()?)),
            "Lt" => Ok(Requirement::Lt(key.clone(), number()?)),
            other => Err(SelectorError::Operator { key: key.clone(), operator: other.to_string() }),
        }
    }
}

/// As `kubectl get -l` takes it.
impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
        match self {
            Requirement::In(key, values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Requirement::In(key, values) => write!(f, "{key} in ({})", list(values)),
            Requirement::NotIn(key, values) if values.len() == 1 => write!(f, "{key}!={}", list(values)),
            Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", list(values)),
            Requirement::Exists(key) => f.write_str(key),
            Requirement::DoesNotExist(key) => write!(f, "!{key}"),
            Requirement::Gt(key, than) => write!(f, "{key}>{than}"),
            Requirement::Lt(key, than) => write!(f, "{key}<{than}"),
        }
    }
}

/// As `kubectl get -l` takes it; `everything` for one without conditions.
impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("everything");
        }
        let words: Vec<String> = self.0.iter().map(Requirement::to_string).collect();
        f.write_str(&words.join(","))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("{operator:?} is not a valid selector operator (key {key:?})")]
    Operator { key: String, operator: String },
    #[error("key {key:?}, operator {operator}: {why}")]
    Values { key: String, operator: String, why: &'static str },
}

/// All of its requirements must match. None at all: everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Selector(BTreeSet<Requirement>);

impl Selector {
    /// Matches everything.
    pub fn everything() -> Selector {
        Selector::default()
    }

    /// An empty selector matches everything; what an *absent* one means is the field's own rule, so it is the caller's.
    pub fn parse(selector: &LabelSelector) -> Result<Selector, SelectorError> {
        let mut requirements: BTreeSet<Requirement> =
            equalities(selector.match_labels.iter().flatten()).collect();
        for LabelSelectorRequirement { key, operator, values } in selector.match_expressions.iter().flatten()
        {
            if matches!(operator.as_str(), "Gt" | "Lt") {
                // Only node selectors compare numbers.
                return Err(SelectorError::Operator { key: key.clone(), operator: operator.clone() });
            }
            requirements.insert(Requirement::parse(key, operator, values.as_deref().unwrap_or_default())?);
        }
        Ok(Selector(requirements))
    }

    /// A map of labels that must all be there: `nodeSelector`, a ReplicationController's or a Service's selector.
    pub fn equal(labels: &Labels) -> Selector {
        Selector(equalities(labels.iter()).collect())
    }

    pub fn of(requirements: impl IntoIterator<Item = Requirement>) -> Selector {
        Selector(requirements.into_iter().collect())
    }

    /// One more condition.
    pub fn and(mut self, requirement: Requirement) -> Selector {
        self.0.insert(requirement);
        self
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The conditions, in a fixed order.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter()
    }
}

fn equalities<'a>(
    labels: impl Iterator<Item = (&'a String, &'a String)>,
) -> impl Iterator<Item = Requirement> {
    labels.map(|(key, value)| Requirement::In(key.clone(), BTreeSet::from([value.clone()])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn requirement(key: &str, operator: &str, values: &[&str]) -> Result<Requirement, SelectorError> {
        Requirement::parse(key, operator, &values.iter().map(|v| v.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn operators_match_as_kubernetes_has_them() {
        let has = labels(&[("app", "web"), ("n", "5")]);
        let table: &[(&str, &str, &[&str], bool)] = &[
            ("app", "In", &["web", "db"], true),
            ("app", "In", &["db"], false),
            ("none", "In", &["web"], false),
            ("app", "NotIn", &["db"], true),
            ("app", "NotIn", &["web"], false),
            ("none", "NotIn", &["web"], true),
            ("app", "Exists", &[], true),
            ("none", "Exists", &[], false),
            ("app", "DoesNotExist", &[], false),
            ("none", "DoesNotExist", &[], true),
            ("n", "Gt", &["4"], true),
            ("n", "Gt", &["5"], false),
            ("n", "Lt", &["6"], true),
            ("app", "Lt", &["6"], false),
        ];
        for (key, operator, values, expected) in table {
            let requirement = requirement(key, operator, values).unwrap();
            assert_eq!(requirement.matches(&has), *expected, "{requirement:?}");
        }
    }

    #[test]
    fn malformed_requirements_are_refused() {
        for (operator, values) in [
            ("In", &[][..]),
            ("NotIn", &[]),
            ("Exists", &["x"]),
            ("Gt", &["x"]),
            ("Gt", &["1", "2"]),
            ("in", &["x"]),
        ] {
            assert!(requirement("app", operator, values).is_err(), "{operator} {values:?}");
        }
    }

    #[test]
    fn equal_words_make_equal_selectors() {
        let by_label = LabelSelector { match_labels: Some(labels(&[("app", "web")])), ..Default::default() };
        let by_expression = LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "app".into(),
                operator: "In".into(),
                values: Some(vec!["web".into(), "web".into()]),
            }]),
            ..Default::default()
        };
        assert_eq!(Selector::parse(&by_label), Selector::parse(&by_expression));
        assert!(Selector::parse(&LabelSelector::default()).unwrap().is_everything());
    }
}
