//! Label selectors: `app=web,tier in (a,b),!old`. The grammar, the leniences (`a in (x,)`, `a=`) and the words of errors are those
//! of apimachinery's `labels` package.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::field::{self, Path};
use crate::validation::names;

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    /// `=` and `==`
    Equals,
    NotEquals,
    Exists,
    DoesNotExist,
    /// The label is an integer greater than the value.
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, each once.
    values: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

impl From<SelectorError> for ApiError {
    fn from(error: SelectorError) -> Self {
        ApiError::bad_request(error.0)
    }
}

/// All requirements must hold; with none, everything matches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// Sorted by key.
    requirements: Vec<Requirement>,
    /// The selector of an absent `LabelSelector` object.
    nothing: bool,
}

impl Requirement {
    /// Checks key and values as labels, and their number by the operator.
    pub fn new(
        key: &str,
        operator: Operator,
        values: impl IntoIterator<Item = String>,
    ) -> Result<Self, SelectorError> {
        check_key(key)?;
        let values: BTreeSet<String> = values.into_iter().collect();
        let at = Path::root().child("values");
        let shown: Vec<String> = values.iter().cloned().collect();
        let bad = |value: Value, detail: &str| {
            Err(SelectorError(field::Error::invalid(&at, value, detail).to_string()))
        };
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return bad(shown.into(), "for 'in', 'notin' operators, values set can't be empty");
            }
            Operator::Equals | Operator::NotEquals if values.len() != 1 => {
                return bad(shown.into(), "exact-match compatibility requires one single value");
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return bad(shown.into(), "values set must be empty for exists and does not exist");
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                return bad(shown.into(), "for 'Gt', 'Lt' operators, exactly one value is required");
            }
            Operator::GreaterThan | Operator::LessThan => {
                if let Some((i, value)) = values.iter().enumerate().find(|(_, v)| v.parse::<i64>().is_err()) {
                    let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                    let error = field::Error::invalid(&at.index(i), value.as_str(), detail);
                    return Err(SelectorError(error.to_string()));
                }
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                let error = field::Error::invalid(&at.index(i).key(key), value.as_str(), wrong.join("; "));
                return Err(SelectorError(error.to_string()));
            }
        }
        Ok(Requirement { key: key.to_owned(), operator, values })
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn operator(&self) -> Operator {
        self.operator
    }

    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(String::as_str)
    }

    fn matches(&self, label: Option<&str>) -> bool {
        match (self.operator, label) {
            (Operator::In | Operator::Equals, label) => label.is_some_and(|l| self.values.contains(l)),
            (Operator::NotIn | Operator::NotEquals, label) => label.is_none_or(|l| !self.values.contains(l)),
            (Operator::Exists, label) => label.is_some(),
            (Operator::DoesNotExist, label) => label.is_none(),
            (Operator::GreaterThan | Operator::LessThan, None) => false,
            (Operator::GreaterThan | Operator::LessThan, Some(label)) => {
                let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (label.parse::<i64>(), bound) {
                    (Ok(label), Some(bound)) if self.operator == Operator::GreaterThan => label > bound,
                    (Ok(label), Some(bound)) => label < bound,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.values.first().map(String::as_str).unwrap_or_default();
        // The set of only the empty value needs its comma: `()` is read as the empty set.
        let list = || match self.values.iter().map(String::as_str).collect::<Vec<_>>().join(",") {
            text if text.is_empty() => ",".to_owned(),
            text => text,
        };
        match self.operator {
            Operator::Exists => write!(f, "{}", self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::Equals => write!(f, "{}={first}", self.key),
            Operator::NotEquals => write!(f, "{}!={first}", self.key),
            Operator::GreaterThan => write!(f, "{}>{first}", self.key),
            Operator::LessThan => write!(f, "{}<{first}", self.key),
            Operator::In => write!(f, "{} in ({})", self.key, list()),
            Operator::NotIn => write!(f, "{} notin ({})", self.key, list()),
        }
    }
}

impl LabelSelector {
    pub fn everything() -> Self {
        LabelSelector::default()
    }

    pub fn nothing() -> Self {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements, nothing: false }
    }

    /// Reads the `LabelSelector` object of a spec (`matchLabels`, `matchExpressions`): absent selects nothing, empty
    /// selects everything.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else { return Ok(Self::nothing()) };
        let mut out = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            out.push(Requirement::new(key, Operator::Equals, [value])?);
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{} is not a valid label selector operator",
                        field::quote(other)
                    )));
                }
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(|v| v.as_str().map(str::to_owned));
            out.push(Requirement::new(expression["key"].as_str().unwrap_or_default(), operator, values)?);
        }
        Ok(Self::new(out))
    }

    /// Reads a plain map, the selector of a Service. Nothing is checked; absent or empty selects nothing.
    pub fn from_map(labels: Option<&Map<String, Value>>) -> Self {
        let requirements: Vec<Requirement> = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::Equals,
                values: BTreeSet::from([value.as_str().unwrap_or_default().to_owned()]),
            })
            .collect();
        if requirements.is_empty() { Self::nothing() } else { Self::new(requirements) }
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether a set of labels, given as a lookup, is selected.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
    }

    /// Whether an object is selected by its `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(object["metadata"]["labels"].as_object())
    }
}

/// The text form, requirements sorted by key: what a Scale's `status.selector` holds.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { rest: text };
        let mut requirements = Vec::new();
        loop {
            match parser.peek() {
                Token::End => break,
                Token::Word(_) | Token::Symbol("!") => {
                    let requirement = parser
                        .requirement()
                        .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
                    requirements.push(requirement);
                }
                other => {
                    return Err(SelectorError(format!(
                        "found '{other}', expected: !, identifier, or 'end of string'"
                    )));
                }
            }
            match parser.next() {
                Token::End => break,
                Token::Symbol(",") => match parser.peek() {
                    Token::Word(_) | Token::Symbol("!") => {}
                    other => {
                        return Err(SelectorError(format!(
                            "found '{other}', expected: identifier after ','"
                        )));
                    }
                },
                other => {
                    return Err(SelectorError(format!("found '{other}', expected: ',' or 'end of string'")));
                }
            }
        }
        Ok(Self::new(requirements))
    }
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    let wrong = names::qualified_name(key);
    if wrong.is_empty() {
        return Ok(());
    }
    Err(SelectorError(field::Error::invalid(&Path::root(), key, wrong.join("; ")).to_string()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    End,
    Word(&'a str),
    Symbol(&'static str),
    /// Special characters that are no symbol.
    Unknown(&'a str),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::End => Ok(()),
            Token::Word(text) | Token::Unknown(text) => f.write_str(text),
            Token::Symbol(text) => f.write_str(text),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        Parser { rest: self.rest }.next()
    }

    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = self.rest.chars().next() else { return Token::End };
        if !is_special(first) {
            let end = self.rest.find(|c| is_special(c) || matches!(c, ' ' | '\t' | '\r' | '\n'));
            let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
            self.rest = rest;
            return Token::Word(word);
        }
        for symbol in ["==", "!=", "=", "!", "(", ")", ",", ">", "<"] {
            if let Some(rest) = self.rest.strip_prefix(symbol) {
                self.rest = rest;
                return Token::Symbol(symbol);
            }
        }
        let (unknown, rest) = self.rest.split_at(first.len_utf8());
        self.rest = rest;
        Token::Unknown(unknown)
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.next();
        let negated = token == Token::Symbol("!");
        if negated {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return Err(SelectorError(format!("found '{token}', expected: identifier")));
        };
        check_key(key)?;
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, []);
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, []);
        }
        let operator = match self.next() {
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            Token::Symbol("=" | "==") => Operator::Equals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            other => {
                return Err(SelectorError(format!(
                    "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                )));
            }
        };
        match operator {
            Operator::In | Operator::NotIn => Requirement::new(key, operator, self.list()?),
            _ => match self.peek() {
                Token::End | Token::Symbol(",") => Requirement::new(key, operator, [String::new()]),
                _ => match self.next() {
                    Token::Word(value) => Requirement::new(key, operator, [value.to_owned()]),
                    other => Err(SelectorError(format!("found '{other}', expected: identifier"))),
                },
            },
        }
    }

    /// `(a,b)`; an empty place between commas is the empty value.
    fn list(&mut self) -> Result<Vec<String>, SelectorError> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(SelectorError(format!("found '{open}' expected: '('")));
        }
        let mut out = Vec::new();
        if self.peek() == Token::Symbol(")") {
            self.next();
            return Ok(out);
        }
        loop {
            match self.peek() {
                Token::Word(value) => {
                    self.next();
                    out.push(value.to_owned());
                }
                Token::Symbol("," | ")") => out.push(String::new()),
                other => return Err(SelectorError(format!("found '{other}', expected: ',', or identifier"))),
            }
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(out),
                other => return Err(SelectorError(format!("found '{other}', expected: ',' or ')'"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn selectors_match_as_their_text_says() {
        let labels = json!({"app": "web", "tier": "front", "empty": "", "n": "5"});
        let labels = labels.as_object();
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier in (front, back)", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (a,b)", false),
            ("other notin (a,b)", true),
            ("app notin (web)", false),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("empty=", true),
            ("empty in (,x)", true),
            ("app in (x,)", false),
            ("n>4", true),
            ("n<5", false),
            ("app>4", false),
            ("example.com/app=web", false),
            ("in=x", false),
            ("!in", true),
        ] {
            let selector: LabelSelector = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(labels), want, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_in_upstreams_words() {
        for (text, want) in [
            (",", "found ',', expected: !, identifier, or 'end of string'"),
            ("a=b,", "found '', expected: identifier after ','"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            ("a===b", "unable to parse requirement: found '=', expected: identifier"),
            ("a ~ b", "unable to parse requirement: found '~', expected: in, notin, =, ==, !=, gt, lt"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(text.parse::<LabelSelector>().unwrap_err().to_string(), want, "{text}");
        }
        let bad_key = "-a=b".parse::<LabelSelector>().unwrap_err().to_string();
        assert!(
            bad_key.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must"),
            "{bad_key}"
        );
    }

    #[test]
    fn an_absent_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(!LabelSelector::from_object(None).unwrap().matches(None));
        assert!(!LabelSelector::from_object(Some(&Value::Null)).unwrap().matches(None));
        assert!(LabelSelector::from_object(Some(&json!({}))).unwrap().matches(None));
        assert!(!LabelSelector::from_map(None).matches(None));
        let selector = LabelSelector::from_object(Some(&json!({
            "matchLabels": {"b": "1"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}],
        })))
        .unwrap();
        assert_eq!(selector.to_string(), "a in (x,y),b=1,!c");
        let error =
            LabelSelector::from_object(Some(&json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})));
        assert_eq!(error.unwrap_err().to_string(), "\"Is\" is not a valid label selector operator");
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        let key = "[a-z]([a-z0-9.]{0,5}[a-z0-9])?";
        let value = "([a-z0-9]([a-z0-9_.-]{0,5}[a-z0-9])?)?";
        (key, prop::collection::vec(value, 1..4), 0..7u8, any::<i16>()).prop_map(
            |(key, values, which, number)| {
                let one = [values[0].clone()];
                match which {
                    0 => Requirement::new(&key, Operator::In, values),
                    1 => Requirement::new(&key, Operator::NotIn, values),
                    2 => Requirement::new(&key, Operator::Equals, one),
                    3 => Requirement::new(&key, Operator::NotEquals, one),
                    4 => Requirement::new(&key, Operator::Exists, []),
                    5 => Requirement::new(&key, Operator::DoesNotExist, []),
                    _ => Requirement::new(&key, Operator::GreaterThan, [number.unsigned_abs().to_string()]),
                }
                .unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(requirements in prop::collection::vec(requirement(), 0..4)) {
            let selector = LabelSelector::new(requirements);
            prop_assert_eq!(selector.to_string().parse::<LabelSelector>(), Ok(selector));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}", dense in "[a!=(),<> in]{0,30}") {
            let _ = text.parse::<LabelSelector>();
            let _ = dense.parse::<LabelSelector>();
        }
    }
}
