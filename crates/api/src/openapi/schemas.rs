//! `components.schemas`: the types that a group version's kinds reach.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::registry::{self, GroupVersion};
use crate::schema::{self, Field, Kind, Merge, Shape, Type};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
/// A patch is any object or list.
pub const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

pub fn of(gv: GroupVersion) -> Map<String, Value> {
    let mut left: Vec<&'static Type> = Vec::new();
    let mut reach = |api_version: &str, kind: &str| left.extend(schema::by_kind(api_version, kind));
    for r in registry::resources().iter().filter(|r| r.group_version() == gv) {
        reach(&r.api_version(), r.kind);
        reach(&r.api_version(), &r.list_kind());
        for s in r.subresources {
            reach(&GroupVersion { group: s.kind.group, version: s.kind.version }.api_version(), s.kind.kind);
        }
    }
    reach("v1", "DeleteOptions");
    reach("v1", "Status");

    let mut out = Map::new();
    let mut done = BTreeSet::new();
    while let Some(ty) = left.pop() {
        if done.insert(ty.name) {
            out.insert(ty.name.to_owned(), object(ty));
            left.extend(ty.fields.iter().filter_map(|f| f.shape.object()));
        }
    }
    for (name, schema) in scalars() {
        out.insert(name.to_owned(), schema);
    }
    out
}

fn scalars() -> [(&'static str, Value); 6] {
    [
        (QUANTITY, json!({"oneOf": [{"type": "string"}, {"type": "number"}]})),
        (
            INT_OR_STRING,
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        ),
        (TIME, json!({"type": "string", "format": "date-time"})),
        (MICRO_TIME, json!({"type": "string", "format": "date-time"})),
        (RAW, json!({"type": "object"})),
        (PATCH, json!({"type": "object"})),
    ]
}

fn object(ty: &'static Type) -> Value {
    let properties: Map<String, Value> = ty.fields.iter().map(|f| (f.name.to_owned(), property(f))).collect();
    let mut out = json!({"type": "object", "properties": properties});
    let required: Vec<&str> = ty.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    if !required.is_empty() {
        out["required"] = json!(required);
    }
    if ty.atomic {
        out["x-kubernetes-map-type"] = "atomic".into();
    }
    if !ty.kinds.is_empty() {
        // Types of every group are listed once, for the core group.
        let kinds: Vec<Value> = ty
            .kinds
            .iter()
            .map(|k| match k.group {
                "*" => json!({"group": "", "version": "v1", "kind": k.kind}),
                group => json!({"group": group, "version": k.version, "kind": k.kind}),
            })
            .collect();
        out["x-kubernetes-group-version-kind"] = kinds.into();
    }
    out
}

fn property(field: &'static Field) -> Value {
    let mut out = match field.shape {
        Shape::One(kind) => one(kind),
        Shape::List(kind) => json!({"type": "array", "items": one(kind)}),
        Shape::Map(kind) => json!({"type": "object", "additionalProperties": one(kind)}),
        Shape::MapOfLists(kind) => {
            json!({"type": "object", "additionalProperties": {"type": "array", "items": one(kind)}})
        }
    };
    let mut extensions = Map::new();
    let merge = match field.merge {
        Merge::Unsaid => None,
        Merge::Atomic => Some("atomic"),
        Merge::Set => Some("set"),
        Merge::ByKeys(keys) => {
            extensions.insert("x-kubernetes-list-map-keys".into(), json!(keys));
            Some("map")
        }
    };
    if let Some(merge) = merge {
        let name = if matches!(field.shape, Shape::List(_)) {
            "x-kubernetes-list-type"
        } else {
            "x-kubernetes-map-type"
        };
        extensions.insert(name.into(), merge.into());
    }
    let strategy = field.strategy;
    let words: Vec<&str> = [("merge", strategy.merge), ("retainKeys", strategy.retain_keys)]
        .iter()
        .filter(|w| w.1)
        .map(|w| w.0)
        .collect();
    if !words.is_empty() {
        extensions.insert("x-kubernetes-patch-strategy".into(), words.join(",").into());
    }
    if let Some(key) = strategy.key {
        extensions.insert("x-kubernetes-patch-merge-key".into(), key.into());
    }
    if !extensions.is_empty() {
        // A reference may have no siblings in OpenAPI 3.0.
        if out.get("$ref").is_some() {
            out = json!({"allOf": [out]});
        }
        if let Value::Object(out) = &mut out {
            out.extend(extensions);
        }
    }
    out
}

fn one(kind: Kind) -> Value {
    match kind {
        Kind::String => json!({"type": "string"}),
        Kind::Int32 => json!({"type": "integer", "format": "int32"}),
        Kind::Int64 => json!({"type": "integer", "format": "int64"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Number => json!({"type": "number", "format": "double"}),
        Kind::Bytes => json!({"type": "string", "format": "byte"}),
        Kind::Quantity => reference(QUANTITY),
        Kind::IntOrString => reference(INT_OR_STRING),
        Kind::Time => reference(TIME),
        Kind::MicroTime => reference(MICRO_TIME),
        Kind::Raw => reference(RAW),
        Kind::Object(_) => reference(Shape::One(kind).object().map_or(RAW, |t| t.name)),
    }
}

pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
