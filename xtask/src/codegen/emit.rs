//! Writes the table as Rust statics, one line per field.

use std::fmt::Write;

use super::go;
use super::openapi::{Field, Kind, Shape, Type};

pub fn source(types: &[Type]) -> String {
    let mut out = String::from(
        "//! Written by `cargo xtask codegen` from Kubernetes' OpenAPI document and protobuf messages. Do not edit.\n\n\
         use super::Kind::*;\nuse super::Shape::{List, Map, MapOfLists, One};\nuse super::{Field, Type, TypeKind};\n\n\
         const fn f(name: &'static str, shape: super::Shape, via: u8, tag: u8) -> Field {\n    \
         Field::new(name, shape, via, tag)\n}\n\n\
         const fn k(group: &'static str, version: &'static str, kind: &'static str) -> TypeKind {\n    \
         TypeKind { group, version, kind }\n}\n\n",
    );
    out.push_str("/// Sorted by name.\npub(super) static TYPES: &[Type] = &[\n");
    for ty in types {
        let kinds: Vec<String> = ty.kinds.iter().map(|(g, v, k)| format!("k({g:?}, {v:?}, {k:?})")).collect();
        let _ = writeln!(
            out,
            "    Type {{ name: {:?}, kinds: &[{}], atomic: {}, fields: &[",
            ty.name,
            kinds.join(", "),
            ty.atomic
        );
        for field in &ty.fields {
            let _ = writeln!(out, "        {},", line(&ty.name, field, types));
        }
        out.push_str("    ] },\n");
    }
    out.push_str("];\n\n/// Kind, group, version, index of the type; sorted.\n");
    let mut kinds: Vec<(&str, &str, &str, usize)> = Vec::new();
    for (at, ty) in types.iter().enumerate() {
        kinds.extend(ty.kinds.iter().map(|(g, v, k)| (k.as_str(), g.as_str(), v.as_str(), at)));
    }
    kinds.sort_unstable();
    out.push_str("pub(super) static KINDS: &[(&str, &str, &str, u16)] = &[\n");
    for (kind, group, version, at) in kinds {
        let _ = writeln!(out, "    ({kind:?}, {group:?}, {version:?}, {at}),");
    }
    out.push_str("];\n");
    out
}

fn line(ty: &str, field: &Field, types: &[Type]) -> String {
    let (shape, kind) = match &field.shape {
        Shape::One(k) => ("One", k),
        Shape::List(k) => ("List", k),
        Shape::Map(k) => ("Map", k),
        Shape::MapOfLists(k) => ("MapOfLists", k),
    };
    let kind = match kind {
        Kind::Scalar(name) => (*name).to_owned(),
        Kind::Object(name) => {
            let at = types.iter().position(|t| t.name == *name).expect("every reached type is in the table");
            format!("Object({at})")
        }
    };
    let mut out = format!("f({:?}, {shape}({kind}), {}, {})", field.name, field.via, field.tag);
    if field.required {
        out.push_str(".required()");
    }
    if go::BY_VALUE.contains(&(ty, &field.name)) {
        out.push_str(".by_value()");
    }
    if go::STRINGS_BY_POINTER.contains(&(ty, &field.name)) {
        out.push_str(".by_pointer()");
    }
    match field.merge.list_type.as_deref() {
        Some("atomic") => out.push_str(".atomic()"),
        Some("set") => out.push_str(".set()"),
        Some("map") => {
            let _ = write!(out, ".by_keys(&{:?})", field.merge.keys);
        }
        _ => {}
    }
    for strategy in &field.merge.strategy {
        match strategy.as_str() {
            "merge" => out.push_str(".patch_merge()"),
            "retainKeys" => out.push_str(".retain_keys()"),
            _ => {}
        }
    }
    if let Some(key) = &field.merge.patch_key {
        let _ = write!(out, ".patch_key({key:?})");
    }
    out
}
