//! Changes of a manifest's text at the place of a field: what stands around it, comments and order, stays.

use std::ops::Range;

use policy::pod_security::Setting;

use super::tree::{Content, Document, Entry, Found, Node, Step, Style};

/// Bytes that others take the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub range: Range<usize>,
    pub text: String,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Replaces,
    /// Lines that begin with this key.
    InsertsLines(String),
    /// A part of `{…}`, with a comma where others are.
    InsertsPart,
}

impl Edit {
    /// Whether both can be made at once, each at the place it was found for.
    pub fn may_stand_beside(&self, other: &Edit) -> bool {
        let (a, b) = (&self.range, &other.range);
        let apart = a.end <= b.start || b.end <= a.start;
        match (&self.kind, &other.kind) {
            (Kind::Replaces, Kind::Replaces) => apart,
            // Two keys come one below the other; one key that both need is made once.
            (Kind::InsertsLines(one), Kind::InsertsLines(two)) => a != b || one != two,
            (Kind::InsertsLines(_), _) | (_, Kind::InsertsLines(_)) => apart,
            // Whether there is a comma depends on what is beside it.
            (Kind::InsertsPart, _) | (_, Kind::InsertsPart) => a.end < b.start || b.end < a.start,
        }
    }
}

/// Why a text is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It stands behind an anchor.
    Shared,
    Form,
}

impl Refused {
    pub fn words(self) -> &'static str {
        match self {
            Refused::Shared => "it stands behind a YAML anchor, which others use too",
            Refused::Form => "it is written in a way that cannot be changed by itself",
        }
    }
}

/// Where the line ends in which `at` is, or where the next begins; the text's end where there is none.
fn end_of_line(text: &str, at: usize) -> usize {
    // A block scalar ends where the next line begins.
    if at > 0 && text.as_bytes().get(at - 1) == Some(&b'\n') {
        return at;
    }
    text[at..].find('\n').map_or(text.len(), |end| at + end + 1)
}

fn start_of_line(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c == ' ' || c == '\t')
}

fn entry_end(entry: &Entry) -> usize {
    entry.value.end.byte.max(entry.key_end.byte)
}

/// Takes a field or an item away. `None` where it is not written, as a default is not.
pub fn remove(text: &str, document: &Document, path: &[Step]) -> Result<Option<Edit>, Refused> {
    let found = document.find(path);
    if found.steps < path.len() || path.is_empty() {
        return Ok(None);
    }
    if found.shared {
        return Err(Refused::Shared);
    }
    let parent = found.way[found.way.len() - 2].1;
    let range = match (found.way[found.way.len() - 1], &parent.content) {
        ((Some(entry), _), Content::Mapping(Style::Block, entries)) => block_entry(text, entries, entry),
        ((Some(entry), _), Content::Mapping(Style::Flow, entries)) => {
            let spans: Vec<_> = entries.iter().map(|e| (e.key_start.byte, entry_end(e))).collect();
            flow_part(&spans, entry.key_start.byte)
        }
        ((None, item), Content::Sequence(Style::Block, _)) => block_item(text, item)?,
        ((None, item), Content::Sequence(Style::Flow, items)) => {
            let spans: Vec<_> = items.iter().map(|item| (item.start.byte, item.end.byte)).collect();
            flow_part(&spans, item.start.byte)
        }
        _ => return Err(Refused::Form),
    };
    Ok(Some(Edit { range, text: String::new(), kind: Kind::Replaces }))
}

fn block_entry(text: &str, entries: &[Entry], entry: &Entry) -> Range<usize> {
    let key = entry.key_start.byte;
    let line = start_of_line(text, key);
    if is_blank(&text[line..key]) {
        return line..end_of_line(text, entry_end(entry));
    }
    // The first of a list's item stands behind its dash, and the next takes its place there.
    let next = entries.iter().find(|other| other.key_start.byte > key);
    key..next.map_or(entry_end(entry), |next| next.key_start.byte)
}

fn block_item(text: &str, item: &Node) -> Result<Range<usize>, Refused> {
    let dash = text[..item.start.byte].rfind('-').ok_or(Refused::Form)?;
    let line = start_of_line(text, dash);
    let between = text[dash + 1..item.start.byte].trim();
    if !is_blank(&text[line..dash]) || !between.is_empty() {
        return Err(Refused::Form);
    }
    Ok(line..end_of_line(text, item.end.byte))
}

/// A part of `{…}` or `[…]`, with one of the commas around it.
fn flow_part(spans: &[(usize, usize)], start: usize) -> Range<usize> {
    let at = spans.iter().position(|span| span.0 == start).unwrap_or(0);
    match (spans.get(at + 1), at.checked_sub(1).map(|before| spans[before])) {
        (Some(next), _) => start..next.0,
        (None, Some(before)) => before.1..spans[at].1,
        (None, None) => start..spans[at].1,
    }
}

/// Gives a field a value, and makes what is missing on the way to it.
pub fn set(text: &str, document: &Document, path: &[Step], value: Setting) -> Result<Edit, Refused> {
    let found = document.find(path);
    if found.shared || matches!(found.node().content, Content::Alias(_)) {
        return Err(Refused::Shared);
    }
    let json = matches!(document.root.content, Content::Mapping(Style::Flow, _));
    let missing: Vec<&str> = path[found.steps..]
        .iter()
        .map(|step| match step {
            Step::Key(key) => Ok(key.as_str()),
            Step::Index(_) => Err(Refused::Form),
        })
        .collect::<Result<_, _>>()?;
    match missing.as_slice() {
        [] => replace(text, &found, &rendered(value, json)),
        missing => insert(text, &found, missing, value, json),
    }
}

fn rendered(value: Setting, quoted: bool) -> String {
    match value {
        Setting::Bool(value) => value.to_string(),
        Setting::Text(text) if quoted => format!("\"{text}\""),
        Setting::Text(text) => text.to_owned(),
        Setting::List(item) => format!("[\"{item}\"]"),
    }
}

/// The value that is there becomes another.
fn replace(text: &str, found: &Found<'_>, value: &str) -> Result<Edit, Refused> {
    let (entry, node) = found.way[found.way.len() - 1];
    let is_block =
        matches!(node.content, Content::Mapping(Style::Block, _) | Content::Sequence(Style::Block, _));
    let behind_colon = |entry: &Entry| {
        let key = entry.key_end.byte;
        text[key..].find(':').map(|colon| key + colon + 1).ok_or(Refused::Form)
    };
    let (range, value) = match entry {
        // A block begins on a line of its own; what takes its place stands beside the key.
        Some(entry) if is_block => (behind_colon(entry)?..node.end.byte, format!(" {value}")),
        Some(entry) if node.start.byte == node.end.byte => {
            let colon = behind_colon(entry)?;
            (colon..colon, format!(" {value}"))
        }
        _ => (node.start.byte..node.end.byte, value.to_owned()),
    };
    Ok(Edit { range, text: value, kind: Kind::Replaces })
}

/// Fields that are not there come into the last object that is.
fn insert(
    text: &str,
    found: &Found<'_>,
    missing: &[&str],
    value: Setting,
    json: bool,
) -> Result<Edit, Refused> {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let (entry, node) = found.way[found.way.len() - 1];
    let lines = |at: usize, indent: usize| {
        let mut lines = block(missing, &rendered(value, false), indent, newline);
        if at > 0 && !text[..at].ends_with('\n') {
            lines = format!("{newline}{}", lines.trim_end());
        }
        Edit { range: at..at, text: lines, kind: Kind::InsertsLines(missing[0].to_owned()) }
    };
    match &node.content {
        Content::Mapping(Style::Block, entries) if !entries.is_empty() => {
            let indent = entries[0].key_start.column - 1;
            // Below the key whose value this is, where a reader looks first; an item of a list is added to at its end.
            let at = match entry {
                Some(entry) => end_of_line(text, entry.key_end.byte),
                None => end_of_line(text, node.end.byte),
            };
            Ok(lines(at, indent))
        }
        Content::Mapping(_, entries) => {
            let quoted = json || entries.iter().any(|entry| entry.quoted);
            let inner = flow(missing, &rendered(value, quoted), quoted);
            let (range, part) = match entries.last() {
                Some(last) => (entry_end(last)..entry_end(last), format!(", {inner}")),
                None => {
                    let (start, end) = (node.start.byte, node.end.byte);
                    let pad = if text[start..end].contains(' ') { " " } else { "" };
                    (start..end, format!("{{{pad}{inner}{pad}}}"))
                }
            };
            Ok(Edit { range, text: part, kind: Kind::InsertsPart })
        }
        Content::Null => {
            let Some(entry) = entry else { return Err(Refused::Form) };
            let parent = found.way[found.way.len() - 2].1;
            let in_block = matches!(parent.content, Content::Mapping(Style::Block, _));
            if in_block && node.start.byte == node.end.byte {
                return Ok(lines(end_of_line(text, entry.key_end.byte), entry.key_start.column + 1));
            }
            let quoted = json || entry.quoted;
            let inner = format!("{{{}}}", flow(missing, &rendered(value, quoted), quoted));
            replace(text, found, &inner)
        }
        _ => Err(Refused::Form),
    }
}

fn block(keys: &[&str], value: &str, indent: usize, newline: &str) -> String {
    let mut out = String::new();
    for (depth, key) in keys.iter().enumerate() {
        let last = depth + 1 == keys.len();
        let value = if last { format!(" {value}") } else { String::new() };
        out.push_str(&format!("{:width$}{key}:{value}{newline}", "", width = indent + 2 * depth));
    }
    out
}

fn flow(keys: &[&str], value: &str, quoted: bool) -> String {
    let name = |key: &str| if quoted { format!("\"{key}\"") } else { key.to_owned() };
    match keys {
        [] => value.to_owned(),
        [last] => format!("{}: {value}", name(last)),
        [first, rest @ ..] => format!("{}: {{{}}}", name(first), flow(rest, value, quoted)),
    }
}
