//! Reads tags out of Rust sources that prost wrote: `pub struct Name {` and, in it, `#[prost(kind, …, tag = "N")]`
//! before `pub field: Type`. Field names are compared with the JSON names without underscores and case, because
//! prost's snake case cannot be turned back (`pod_i_ps`).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::openapi::{Kind, Shape, Type};

#[derive(Debug, Clone)]
struct Member {
    /// `podips`
    name: String,
    tag: u8,
    /// The first word of the attribute: `string`, `message`, `btree_map = "string, string"`, …
    wire: String,
    repeated: bool,
    /// The last path segment of a message's type, without its generics.
    message: String,
}

type Messages = HashMap<String, Vec<Member>>;

/// Fills in `tag` and `via`. A type without a message (the version info) keeps none; a type with one must have a tag for each
/// of its fields but `apiVersion` and `kind`.
pub fn add_tags(types: &mut [Type], crate_src: &Path) -> Result<()> {
    let mut modules: BTreeMap<String, Messages> = BTreeMap::new();
    for ty in types.iter_mut() {
        let Some((module, short)) = ty.name.rsplit_once('.') else { continue };
        let Some(folder) = module.strip_prefix("io.k8s.") else { continue };
        let file = crate_src.join(folder.replace('.', "/")).join("mod.rs");
        if !modules.contains_key(module) {
            // Not every package has messages: the version info is JSON only.
            let messages = if file.exists() { read(&file)? } else { Messages::new() };
            modules.insert(module.to_owned(), messages);
        }
        let messages = &modules[module];
        let Some(members) = messages.get(&short.to_lowercase()) else { continue };
        let mut left: Vec<Member> = members.clone();
        let mut unmatched = Vec::new();
        for field in &mut ty.fields {
            match left.iter().position(|m| m.name == squash(&field.name)) {
                Some(at) => {
                    let member = left.swap_remove(at);
                    check(&field.shape, &member).with_context(|| format!("{}.{}", ty.name, field.name))?;
                    field.tag = member.tag;
                }
                None => unmatched.push(field),
            }
        }
        for field in unmatched {
            let found = left.iter().find_map(|outer| {
                let inner = messages.get(&outer.message.to_lowercase())?;
                let member = inner.iter().find(|m| m.name == squash(&field.name))?;
                Some((outer.tag, member))
            });
            match found {
                Some((via, member)) => {
                    check(&field.shape, member).with_context(|| format!("{}.{}", ty.name, field.name))?;
                    (field.via, field.tag) = (via, member.tag);
                }
                None if matches!(field.name.as_str(), "apiVersion" | "kind") => {}
                None => bail!("{}.{} has no protobuf tag", ty.name, field.name),
            }
        }
    }
    if modules.values().all(HashMap::is_empty) {
        bail!("no protobuf messages below {}: it wants the crate's src folder", crate_src.display());
    }
    Ok(())
}

/// The wire type must be the one that the decoder derives from the JSON type.
fn check(shape: &Shape, member: &Member) -> Result<()> {
    let scalar = |kind: &Kind| match kind {
        Kind::Scalar("String") => "string",
        Kind::Scalar("Int32") => "int32",
        Kind::Scalar("Int64") => "int64",
        Kind::Scalar("Bool") => "bool",
        Kind::Scalar("Number") => "double",
        Kind::Scalar("Bytes") => "bytes",
        _ => "message",
    };
    let (want, repeated) = match shape {
        Shape::One(kind) => (scalar(kind).to_owned(), false),
        Shape::List(kind) => (scalar(kind).to_owned(), true),
        Shape::Map(kind) => (format!("map string, {}", scalar(kind)), false),
        Shape::MapOfLists(_) => ("map string, message".to_owned(), false),
    };
    if (&want, repeated) != (&member.wire, member.repeated) {
        bail!("JSON says {want} (repeated: {repeated}), protobuf {} ({})", member.wire, member.repeated);
    }
    Ok(())
}

fn squash(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_lowercase()
}

fn read(file: &Path) -> Result<Messages> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    messages(&text).with_context(|| format!("in {}", file.display()))
}

fn messages(text: &str) -> Result<Messages> {
    let mut out = Messages::new();
    let mut current: Option<(String, Vec<Member>)> = None;
    let mut attribute: Option<String> = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line.starts_with("//") {
            continue;
        }
        if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.trim_end_matches(['{', '}', ' ']).to_lowercase();
            // A message of nothing is closed on the same line.
            if rest.ends_with("{}") {
                out.insert(name, Vec::new());
            } else {
                current = Some((name, Vec::new()));
            }
        } else if line == "}" {
            if let Some((name, members)) = current.take() {
                out.insert(name, members);
            }
        } else if let Some(rest) = line.strip_prefix("#[prost(") {
            let mut whole = rest.to_owned();
            while !whole.ends_with(")]") {
                whole.push_str(lines.next().context("an attribute without an end")?.trim());
            }
            attribute = Some(whole.trim_end_matches(")]").to_owned());
        } else if let (Some(rest), Some((_, members))) = (line.strip_prefix("pub "), current.as_mut()) {
            let Some(attribute) = attribute.take() else { continue };
            let (name, ty) = rest.split_once(':').context("a field without a type")?;
            let mut ty = ty.to_owned();
            while !ty.ends_with(',') {
                ty.push_str(lines.next().context("a type without an end")?.trim());
            }
            members.push(member(name.trim_start_matches("r#"), &attribute, &ty)?);
        }
    }
    Ok(out)
}

fn member(name: &str, attribute: &str, ty: &str) -> Result<Member> {
    let after = |key: &str| {
        let rest = &attribute[attribute.find(key)? + key.len()..];
        Some(&rest[..rest.find('"')?])
    };
    let tag = after("tag = \"").context("no tag")?.parse().with_context(|| format!("the tag of {name}"))?;
    let wire = match after("btree_map = \"") {
        Some(types) => format!("map {types}"),
        None => attribute.split([',', ' ', '=']).next().unwrap_or_default().to_owned(),
    };
    let message = ty.trim_end_matches([',', '>']).rsplit([':', '<']).next().unwrap_or_default().to_owned();
    Ok(Member { name: squash(name), tag, wire, repeated: attribute.contains("repeated"), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_from_what_prost_writes() {
        let text = r#"
            /// Words with { braces } and #[prost(string, tag = "9")].
            #[derive(Clone, ::prost::Message)]
            pub struct Volume {
                #[prost(string, optional, tag = "1")]
                pub name: ::core::option::Option<String>,
                #[prost(message, optional, tag = "2")]
                pub volume_source: ::core::option::Option<
                    super::VolumeSource,
                >,
                #[prost(btree_map = "string, message", tag = "3")]
                pub r#type: ::prost::alloc::collections::BTreeMap<String, super::Quantity>,
            }
            pub struct Empty {}
        "#;
        let found = messages(text).unwrap();
        assert!(found["empty"].is_empty());
        let volume = &found["volume"];
        assert_eq!((volume[0].name.as_str(), volume[0].tag, volume[0].wire.as_str()), ("name", 1, "string"));
        assert_eq!((volume[1].tag, volume[1].message.as_str()), (2, "VolumeSource"));
        assert_eq!((volume[2].name.as_str(), volume[2].wire.as_str()), ("type", "map string, message"));
    }
}
