//! How a write is to be done, from its query and headers: upstream's CreateOptions, UpdateOptions and PatchOptions.

use api::{
    ApiError,
    field::{Error, ErrorList, Path},
    patch::APPLY,
};
use http::{HeaderMap, header};

use super::{
    decode,
    request::{Query, Route, Verb},
};

/// The longest name of a field manager, bytes.
const MAX_MANAGER: usize = 128;

#[derive(Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    /// Whose the written fields are: `fieldManager`, else the name of the client's program.
    pub manager: String,
    /// An apply takes what others own.
    pub force: bool,
}

/// What of a character of a manager's name people can see: Go's `unicode.IsPrint`.
fn is_printable(c: char) -> bool {
    c == ' '
        || !c.is_control()
            && !c.is_whitespace()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}')
}

/// The part of a User-Agent before the first slash, as far as it can be printed.
fn program(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or_default();
    let mut out = String::new();
    for c in name.chars().filter(|c| is_printable(*c)) {
        if out.len() + c.len_utf8() > MAX_MANAGER {
            break;
        }
        out.push(c);
    }
    out
}

impl WriteOptions {
    /// # Errors
    /// Invalid, for all that is wrong at once.
    pub fn read(route: &Route, query: &Query, headers: &HeaderMap) -> Result<WriteOptions, ApiError> {
        if !route.verb.writes() {
            return Ok(WriteOptions::default());
        }
        let mut errors = ErrorList::new();
        let manager = query.get("fieldManager");
        let path = Path::new("fieldManager");
        let deletes = matches!(route.verb, Verb::Delete | Verb::DeleteCollection);
        if route.verb == Verb::Patch {
            let applies = decode::media_type(headers) == APPLY;
            if !applies && query.find("force").is_some() {
                errors
                    .push(Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
            }
            if applies && manager.is_empty() {
                errors.push(Error::required(&path, "is required for apply patch"));
            }
        }
        if !deletes && manager.len() > MAX_MANAGER {
            errors.push(Error::too_long(&path, MAX_MANAGER));
        }
        for (at, c) in manager.char_indices().filter(|(_, c)| !deletes && !is_printable(*c)) {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
            errors.push(Error::invalid(&path, manager, why));
        }
        let dry_run = query.all("dryRun").next().is_some();
        for value in query.all("dryRun").filter(|value| *value != "All") {
            errors.push(Error::not_supported(&Path::new("dryRun"), value, &["All"]));
        }
        if !errors.is_empty() {
            let kind = match route.verb {
                Verb::Create => "CreateOptions",
                Verb::Patch => "PatchOptions",
                Verb::Update => "UpdateOptions",
                _ => "DeleteOptions",
            };
            return Err(ApiError::invalid("meta.k8s.io", kind, "", &errors));
        }
        let manager = if manager.is_empty() {
            let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
            program(agent.unwrap_or_default())
        } else {
            manager.to_owned()
        };
        Ok(WriteOptions { dry_run, manager, force: query.flag("force") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_by_its_user_agent() {
        let long = "x".repeat(200);
        let table = [
            ("kubectl/v1.32.4 (linux/amd64) kubernetes/0123abc", "kubectl"),
            ("Mozilla", "Mozilla"),
            ("a\u{7}b c/1", "ab c"),
            ("", ""),
            (&long, &long[..128]),
        ];
        for (agent, want) in table {
            assert_eq!(program(agent), want);
        }
    }
}
