//! What fields a kind has: one static table for everything that must treat all kinds alike.
//!
//! The rows in `generated.rs` are written by `cargo xtask codegen` from Kubernetes' OpenAPI document (names, types, list and
//! patch behaviour) and its protobuf messages (tags), for every type that a row of [`crate::registry`] reaches. The table
//! is plain static data: nothing is parsed at start. What that document lacks stands in `extra.rs`.

mod extra;
#[rustfmt::skip]
mod generated;

use std::fmt;

/// What one value is. `Object` and its kin are what JSON calls them; the rest are Kubernetes' scalars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    String,
    Int32,
    Int64,
    Bool,
    /// A 64-bit float.
    Number,
    /// `100m`, `1Gi`: a string, or a number on input.
    Quantity,
    IntOrString,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// base64 in JSON.
    Bytes,
    /// Any JSON object, not described further (`RawExtension`, `FieldsV1`).
    Raw,
    /// An object of the type with this index.
    Object(u16),
}

/// How many values a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    One(Kind),
    List(Kind),
    /// Keys are strings.
    Map(Kind),
    /// A map whose values are lists (`extra` of a user).
    MapOfLists(Kind),
}

impl Shape {
    /// What each value is, whatever their number.
    pub fn kind(self) -> Kind {
        match self {
            Shape::One(k) | Shape::List(k) | Shape::Map(k) | Shape::MapOfLists(k) => k,
        }
    }

    /// The type of the object, or of each object of the list or map.
    pub fn object(self) -> Option<&'static Type> {
        match self.kind() {
            Kind::Object(at) if at >= extra::BASE => extra::TYPES.get(usize::from(at - extra::BASE)),
            Kind::Object(at) => Some(&generated::TYPES[at as usize]),
            _ => None,
        }
    }
}

/// How server-side apply looks at a list or map (`x-kubernetes-list-type`, `x-kubernetes-map-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Nothing said: lists are atomic, maps and objects granular.
    Unsaid,
    Atomic,
    Set,
    /// A list of objects known by these fields.
    ByKeys(&'static [&'static str]),
}

/// How a strategic merge patch changes the field (`x-kubernetes-patch-strategy` and `-merge-key`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strategy {
    /// Lists are merged, not replaced.
    pub merge: bool,
    /// A patch may name the keys it retains (`$retainKeys`).
    pub retain_keys: bool,
    /// The field by which objects of the list are matched; none for lists of scalars.
    pub key: Option<&'static str>,
}

/// One field of a type.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its JSON name.
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
    /// Go leaves the field out when it is empty, zero or false, because it does not hold it by pointer: absent and
    /// empty are the same.
    pub omit_empty: bool,
    /// Protobuf tag; 0 where the protobuf message has no such field (`apiVersion` and `kind`).
    pub tag: u8,
    /// The tag of the embedded message that holds the field where Go inlines a struct (`Volume` holds a `VolumeSource`);
    /// 0 where the field stands in the message itself.
    pub via: u8,
    pub merge: Merge,
    pub strategy: Strategy,
}

impl Field {
    const fn new(name: &'static str, shape: Shape, via: u8, tag: u8) -> Field {
        let strategy = Strategy { merge: false, retain_keys: false, key: None };
        let omit_empty = match shape {
            Shape::One(kind) => matches!(kind, Kind::String | Kind::Bytes | Kind::Time | Kind::MicroTime),
            _ => true,
        };
        Field { name, shape, required: false, omit_empty, tag, via, merge: Merge::Unsaid, strategy }
    }

    /// An optional number or boolean that Go holds by value.
    const fn by_value(mut self) -> Field {
        self.omit_empty = true;
        self
    }

    /// An optional string that Go holds by pointer.
    const fn by_pointer(mut self) -> Field {
        self.omit_empty = false;
        self
    }

    const fn required(mut self) -> Field {
        self.required = true;
        self.omit_empty = false;
        self
    }

    const fn atomic(mut self) -> Field {
        self.merge = Merge::Atomic;
        self
    }

    const fn set(mut self) -> Field {
        self.merge = Merge::Set;
        self
    }

    const fn by_keys(mut self, keys: &'static [&'static str]) -> Field {
        self.merge = Merge::ByKeys(keys);
        self
    }

    const fn patch_merge(mut self) -> Field {
        self.strategy.merge = true;
        self
    }

    const fn patch_key(mut self, key: &'static str) -> Field {
        self.strategy.key = Some(key);
        self
    }

    const fn retain_keys(mut self) -> Field {
        self.strategy.retain_keys = true;
        self
    }
}

/// A group, version and kind that a type is the body of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeKind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

/// One type of object.
#[derive(Debug)]
pub struct Type {
    /// Its name in Kubernetes' OpenAPI document: `io.k8s.api.core.v1.Container`.
    pub name: &'static str,
    /// Sorted by name.
    pub fields: &'static [Field],
    /// What it is the body of; empty for the parts of other types.
    pub kinds: &'static [TypeKind],
    /// The whole object is one value to server-side apply.
    pub atomic: bool,
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.binary_search_by(|f| f.name.cmp(name)).ok().map(|at| &self.fields[at])
    }

    /// `Container`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// `v1.Container`: how Go prints the type.
    pub fn go_name(&self) -> &'static str {
        match self.name.rmatch_indices('.').nth(1) {
            Some((at, _)) => &self.name[at + 1..],
            None => self.name,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every type that Kubernetes' document has, sorted by name.
pub fn types() -> &'static [Type] {
    generated::TYPES
}

/// The type with this OpenAPI name.
pub fn by_name(name: &str) -> Option<&'static Type> {
    let types = generated::TYPES;
    let found = types.binary_search_by(|t| t.name.cmp(name)).ok().map(|at| &types[at]);
    found.or_else(|| extra::TYPES.iter().find(|t| t.name == name))
}

/// The type of objects that say this `apiVersion` and `kind`. The options types (`DeleteOptions` and the like) and
/// `Status` belong to every group.
pub fn by_kind(api_version: &str, kind: &str) -> Option<&'static Type> {
    let (group, version) = crate::registry::split_api_version(api_version)?;
    let at = generated::KINDS.partition_point(|(k, ..)| *k < kind);
    generated::KINDS[at..]
        .iter()
        .take_while(|(k, ..)| *k == kind)
        .find(|(_, g, v, _)| (*g == group && *v == version) || *g == "*")
        .map(|(.., index)| &generated::TYPES[*index as usize])
        .or_else(|| {
            let is = |k: &TypeKind| k.kind == kind && k.group == group && k.version == version;
            extra::TYPES.iter().find(|t| t.kinds.iter().any(is))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    #[test]
    fn every_served_kind_and_subresource_has_a_type() {
        // The options of attach, exec and port-forward travel as query parameters.
        let by_query = ["PodAttachOptions", "PodExecOptions", "PodPortForwardOptions"];
        for r in registry::resources() {
            assert!(by_kind(&r.api_version(), r.kind).is_some(), "{}", r.qualified_kind());
            if !r.is_review() {
                assert!(by_kind(&r.api_version(), &r.list_kind()).is_some(), "{}", r.list_kind());
            }
            for s in r.subresources.iter().filter(|s| !by_query.contains(&s.kind.kind)) {
                let gv = registry::GroupVersion { group: s.kind.group, version: s.kind.version };
                assert!(by_kind(&gv.api_version(), s.kind.kind).is_some(), "{}/{}", r.plural, s.name);
            }
        }
    }

    #[test]
    fn the_table_is_sorted_and_closed() {
        assert!(types().is_sorted_by(|a, b| a.name < b.name));
        for t in types().iter().chain(extra::TYPES) {
            assert!(t.fields.is_sorted_by(|a, b| a.name < b.name), "{t}");
            for f in t.fields {
                f.shape.object();
                if let (Some(key), Some(item)) = (f.strategy.key, f.shape.object()) {
                    assert!(item.field(key).is_some(), "{t}.{}", f.name);
                }
            }
        }
    }

    #[test]
    fn protobuf_tags_are_unique_within_a_message() {
        for t in types() {
            let mut seen = std::collections::HashSet::new();
            for f in t.fields.iter().filter(|f| f.tag != 0) {
                assert!(seen.insert((f.via, f.tag)), "{t}.{}", f.name);
            }
            // A message embedded for Go's inlining has a tag of its own.
            for f in t.fields.iter().filter(|f| f.via != 0) {
                assert!(!t.fields.iter().any(|g| g.via == 0 && g.tag == f.via), "{t}.{}", f.name);
            }
        }
    }

    #[test]
    fn known_facts_are_in_the_table() {
        let pod = by_kind("v1", "Pod").unwrap();
        let spec = pod.field("spec").unwrap().shape.object().unwrap();
        assert_eq!(spec.go_name(), "v1.PodSpec");
        let containers = spec.field("containers").unwrap();
        assert_eq!(containers.strategy, Strategy { merge: true, retain_keys: false, key: Some("name") });
        assert!(containers.required);
        let ports = containers.shape.object().unwrap().field("ports").unwrap();
        assert_eq!(ports.merge, Merge::ByKeys(&["containerPort", "protocol"]));
        assert_eq!(ports.strategy.key, Some("containerPort"));
        let volumes = spec.field("volumes").unwrap();
        assert!(volumes.strategy.retain_keys && volumes.strategy.merge);
        let host_path = volumes.shape.object().unwrap().field("hostPath").unwrap();
        assert_eq!((host_path.via, host_path.tag), (2, 1));
        let secret = by_kind("v1", "Secret").unwrap();
        assert_eq!(secret.field("data").unwrap().shape, Shape::Map(Kind::Bytes));
        assert!(by_kind("apps/v1", "DeleteOptions").is_some());
        assert!(by_kind("apps/v1", "Pod").is_none());
    }
}
