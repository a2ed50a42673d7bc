//! A YAML stream with the place of every node: where a field stands, and where text can be changed without touching the rest.

use std::collections::HashMap;

use anyhow::{Result, bail};
use granit_parser::{Event, Marker, Parser, ScalarStyle, StructureStyle};
use policy::pod_security::{FieldPath, Segment};

/// Line and column as editors count them, from 1, and the byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub byte: usize,
    pub line: usize,
    pub column: usize,
}

impl From<Marker> for Place {
    fn from(marker: Marker) -> Place {
        let byte = marker.byte_offset().unwrap_or_default();
        Place { byte, line: marker.line(), column: marker.col() + 1 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Block,
    /// `{}`, `[]`; JSON too.
    Flow,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub start: Place,
    /// Behind the last character that is the node's.
    pub end: Place,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Scalar,
    /// Nothing where a value could be, or a word for it.
    Null,
    Mapping(Style, Vec<Entry>),
    Sequence(Style, Vec<Node>),
    /// The anchor that it stands for.
    Alias(usize),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_start: Place,
    pub key_end: Place,
    pub quoted: bool,
    pub value: Node,
}

/// A step from a node into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// A path of a pod's field as steps.
pub fn steps(path: &FieldPath) -> impl Iterator<Item = Step> + '_ {
    path.0.iter().map(|segment| match segment {
        Segment::Field(name) => Step::Key((*name).to_owned()),
        Segment::Key(key) => Step::Key(key.clone()),
        Segment::Index(at) => Step::Index(*at),
    })
}

/// One document of a stream.
#[derive(Debug)]
pub struct Document {
    pub root: Node,
    anchors: HashMap<usize, Node>,
}

/// How far a path leads.
pub struct Found<'a> {
    /// From the root to the last node that is there: what leads to each node, and the node.
    pub way: Vec<(Option<&'a Entry>, &'a Node)>,
    /// How many steps lead there.
    pub steps: usize,
    /// The way goes through an alias or a merged map: what is there is other places' too.
    pub shared: bool,
}

impl<'a> Found<'a> {
    pub fn node(&self) -> &'a Node {
        self.way[self.way.len() - 1].1
    }

    /// The key, where the last node has one; else the node.
    pub fn span(&self) -> (Place, Place) {
        match self.way[self.way.len() - 1] {
            (Some(entry), node) => {
                let short = matches!(node.content, Content::Scalar) && node.end.line == entry.key_start.line;
                (entry.key_start, if short { node.end } else { entry.key_end })
            }
            (None, node) => match &node.content {
                // An object in a list is shown by its first key.
                Content::Mapping(_, entries) if !entries.is_empty() => {
                    (entries[0].key_start, entries[0].key_end)
                }
                _ => (node.start, node.end),
            },
        }
    }
}

impl Document {
    /// Follows `path` as far as it leads.
    pub fn find<'a>(&'a self, path: &[Step]) -> Found<'a> {
        let mut found = Found { way: vec![(None, &self.root)], steps: 0, shared: false };
        for step in path {
            let node = self.resolved(found.node(), &mut found.shared);
            let next = match (step, &node.content) {
                (Step::Key(key), Content::Mapping(_, entries)) => {
                    self.entry(entries, key, &mut found.shared).map(|entry| (Some(entry), &entry.value))
                }
                (Step::Index(at), Content::Sequence(_, items)) => items.get(*at).map(|item| (None, item)),
                _ => None,
            };
            let Some(next) = next else { break };
            found.way.push(next);
            found.steps += 1;
        }
        found
    }

    fn resolved<'a>(&'a self, node: &'a Node, shared: &mut bool) -> &'a Node {
        match &node.content {
            Content::Alias(id) => {
                *shared = true;
                self.anchors.get(id).unwrap_or(node)
            }
            _ => node,
        }
    }

    /// The entry of this key, of a merged map where the map has none of its own. Of a key that stands twice the last counts.
    fn entry<'a>(&'a self, entries: &'a [Entry], key: &str, shared: &mut bool) -> Option<&'a Entry> {
        if let Some(own) = entries.iter().rev().find(|entry| entry.key == key) {
            return Some(own);
        }
        let merged = entries.iter().find(|entry| entry.key == "<<")?;
        let sources = match &merged.value.content {
            Content::Sequence(_, items) => items.iter().collect(),
            _ => vec![&merged.value],
        };
        let found = sources.into_iter().find_map(|source| match &self.resolved(source, &mut false).content {
            Content::Mapping(_, entries) => entries.iter().rev().find(|entry| entry.key == key),
            _ => None,
        });
        *shared |= found.is_some();
        found
    }
}

/// Reads a stream; empty documents are left out.
pub fn parse(text: &str) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let place = Place::from(*error.marker());
                bail!("{}:{}: {error}", place.line, place.column)
            }
        };
        let (start, end) = (Place::from(span.start), Place::from(span.end));
        match event {
            Event::DocumentEnd => {
                let done = std::mem::take(&mut builder);
                let Some(root) = done.root.filter(|root| !matches!(root.content, Content::Null)) else {
                    continue;
                };
                documents.push(Document { root, anchors: done.anchors });
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let content = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Content::Null,
                    _ => Content::Scalar,
                };
                let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
                builder.add(Node { start, end, content }, text.as_ref(), quoted, anchor);
            }
            Event::Alias(id) => {
                builder.add(Node { start, end, content: Content::Alias(id) }, "", false, 0);
            }
            Event::MappingStart(style, anchor, _) => {
                let style = styled(style);
                builder.open.push(Open { start, style, anchor, kind: Kind::Mapping(Vec::new(), None) });
            }
            Event::SequenceStart(style, anchor, _) => {
                let style = styled(style);
                builder.open.push(Open { start, style, anchor, kind: Kind::Sequence(Vec::new()) });
            }
            Event::MappingEnd | Event::SequenceEnd => builder.close(end),
            _ => {}
        }
    }
    Ok(documents)
}

fn styled(style: StructureStyle) -> Style {
    match style {
        StructureStyle::Block => Style::Block,
        StructureStyle::Flow => Style::Flow,
    }
}

enum Kind {
    /// The entries, and the key whose value comes next.
    Mapping(Vec<Entry>, Option<Key>),
    Sequence(Vec<Node>),
}

struct Key {
    text: String,
    start: Place,
    end: Place,
    quoted: bool,
}

/// A collection whose end has not come.
struct Open {
    start: Place,
    style: Style,
    anchor: usize,
    kind: Kind,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
}

impl Builder {
    fn add(&mut self, mut node: Node, text: &str, quoted: bool, anchor: usize) {
        // 0 is no anchor.
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(Kind::Sequence(items)) => items.push(node),
            Some(Kind::Mapping(entries, key)) => match key.take() {
                None => *key = Some(Key { text: text.to_owned(), start: node.start, end: node.end, quoted }),
                Some(key) => {
                    // Nothing stands behind the colon, whatever place the parser gives it.
                    if matches!(node.content, Content::Null) && node.start.byte >= node.end.byte {
                        let colon = Place { byte: key.end.byte + 1, column: key.end.column + 1, ..key.end };
                        (node.start, node.end) = (colon, colon);
                    }
                    entries.push(Entry {
                        key: key.text,
                        key_start: key.start,
                        key_end: key.end,
                        quoted: key.quoted,
                        value: node,
                    });
                }
            },
        }
    }

    fn close(&mut self, end: Place) {
        let Some(open) = self.open.pop() else { return };
        // A block ends with what is in it; the parser says where the next one begins.
        let (content, last) = match open.kind {
            Kind::Mapping(entries, _) => {
                let last = entries.iter().map(|entry| entry.value.end.max(entry.key_end)).max();
                (Content::Mapping(open.style, entries), last)
            }
            Kind::Sequence(items) => {
                let last = items.iter().map(|item| item.end).max();
                (Content::Sequence(open.style, items), last)
            }
        };
        let end = match open.style {
            Style::Flow => end,
            Style::Block => last.unwrap_or(open.start),
        };
        self.add(Node { start: open.start, end, content }, "", false, open.anchor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Step {
        Step::Key(text.into())
    }

    #[test]
    fn fields_are_found_where_they_stand() {
        let text = "# first\nkind: Pod\nspec:\n  containers:\n  - name: ä\n    \"securityContext\": {privileged: true, x: [1, 2]}\n  -\n    name: b\n    empty:\n---\n~\n---\n{\"a\": {\"b\": 1}}\n";
        let documents = parse(text).unwrap();
        assert_eq!(documents.len(), 2);
        let spot = |document: usize, path: &[Step]| {
            let found = documents[document].find(path);
            let (start, end) = found.span();
            (found.steps, &text[start.byte..end.byte], start.line, start.column)
        };
        let containers = [key("spec"), key("containers")];
        let at = |rest: &[Step]| [containers.as_slice(), rest].concat();
        assert_eq!(spot(0, &[key("kind")]), (1, "kind: Pod", 2, 1));
        assert_eq!(spot(0, &containers), (2, "containers", 4, 3));
        assert_eq!(spot(0, &at(&[Step::Index(0)])), (3, "name", 5, 5));
        assert_eq!(
            spot(0, &at(&[Step::Index(0), key("securityContext"), key("privileged")])),
            (5, "privileged: true", 6, 25)
        );
        assert_eq!(
            spot(0, &at(&[Step::Index(0), key("securityContext"), key("x"), Step::Index(1)])),
            (6, "2", 6, 50)
        );
        // What is not there is shown by what should have it.
        assert_eq!(
            spot(0, &at(&[Step::Index(1), key("securityContext"), key("privileged")])),
            (3, "name", 8, 5)
        );
        assert_eq!(spot(0, &at(&[Step::Index(1), key("empty"), key("x")])), (4, "empty", 9, 5));
        assert_eq!(spot(0, &at(&[Step::Index(9)])), (2, "containers", 4, 3));
        assert_eq!(spot(1, &[key("a"), key("b")]), (2, "\"b\": 1", 13, 8));
    }

    #[test]
    fn aliases_and_merges_are_followed_and_said() {
        let text = "base: &b {x: 1}\none: *b\ntwo:\n  <<: *b\n  y: 2\nthree:\n  <<: [*b]\n";
        let document = &parse(text).unwrap()[0];
        for (path, shared, line) in [
            (vec![key("one"), key("x")], true, 1),
            (vec![key("two"), key("x")], true, 1),
            (vec![key("two"), key("y")], false, 5),
            (vec![key("three"), key("x")], true, 1),
            (vec![key("two"), key("z")], false, 3),
        ] {
            let found = document.find(&path);
            assert_eq!((found.shared, found.span().0.line), (shared, line), "{path:?}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_said_with_its_place() {
        let error = parse("a: b\nc: [").unwrap_err().to_string();
        assert!(error.starts_with("2:") || error.starts_with("3:"), "{error}");
    }
}
