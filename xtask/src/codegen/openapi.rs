//! Reads the types that the registry reaches out of a Swagger 2 document.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

const DEFINITIONS: &str = "#/definitions/";

/// Bodies that are sent or returned without being a served resource's own kind.
const EXTRA: &[&str] = &[
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
    "io.k8s.apimachinery.pkg.version.Info",
];

/// Kinds that belong to every group and version.
const EVERYWHERE: &[&str] = &["DeleteOptions", "WatchEvent", "Status"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The name of a constant of `schema::Kind`.
    Scalar(&'static str),
    /// The full name of another type.
    Object(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    One(Kind),
    List(Kind),
    Map(Kind),
    MapOfLists(Kind),
}

impl Shape {
    pub fn kind(&self) -> &Kind {
        match self {
            Shape::One(k) | Shape::List(k) | Shape::Map(k) | Shape::MapOfLists(k) => k,
        }
    }
}

#[derive(Debug, Default)]
pub struct Merge {
    pub list_type: Option<String>,
    pub keys: Vec<String>,
    pub strategy: Vec<String>,
    pub patch_key: Option<String>,
}

#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub shape: Shape,
    pub required: bool,
    pub merge: Merge,
    /// Protobuf tag of the embedded message and of the field; 0 for none.
    pub via: u8,
    pub tag: u8,
}

#[derive(Debug)]
pub struct Type {
    pub name: String,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Group, version, kind.
    pub kinds: Vec<(String, String, String)>,
    pub atomic: bool,
}

/// All types that the served kinds, their lists, their subresources and the bodies of `EXTRA` reach, sorted by name.
pub fn reachable(document: &Value) -> Result<Vec<Type>> {
    let definitions = document["definitions"].as_object().context("the document has no definitions")?;
    let mut wanted: BTreeSet<(String, String, String)> = BTreeSet::new();
    for r in api::registry::resources() {
        wanted.insert((r.group.into(), r.version.into(), r.kind.into()));
        wanted.insert((r.group.into(), r.version.into(), r.list_kind()));
        for s in r.subresources {
            wanted.insert((s.kind.group.into(), s.kind.version.into(), s.kind.kind.into()));
        }
    }

    let mut roots: Vec<String> = EXTRA.iter().map(|s| (*s).to_owned()).collect();
    for (name, definition) in definitions {
        if kinds_of(definition).iter().any(|gvk| wanted.contains(gvk)) {
            roots.push(name.clone());
        }
    }

    let mut done: BTreeMap<String, Type> = BTreeMap::new();
    while let Some(name) = roots.pop() {
        if done.contains_key(&name) {
            continue;
        }
        let definition = definitions.get(&name).with_context(|| format!("no definition of {name}"))?;
        let mut fields = Vec::new();
        let required: Vec<&str> =
            definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (field, property) in definition["properties"].as_object().into_iter().flatten() {
            let shape = shape(property).with_context(|| format!("{name}.{field}"))?;
            if let Kind::Object(object) = shape.kind() {
                roots.push(object.clone());
            }
            fields.push(Field {
                name: field.clone(),
                shape,
                required: required.contains(&field.as_str()),
                merge: merge(property),
                via: 0,
                tag: 0,
            });
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let mut kinds = kinds_of(definition);
        if kinds.iter().any(|(_, _, kind)| EVERYWHERE.contains(&kind.as_str())) {
            let kind = kinds.swap_remove(0).2;
            kinds = vec![("*".into(), "*".into(), kind)];
        }
        let atomic = definition["x-kubernetes-map-type"] == "atomic";
        done.insert(name.clone(), Type { name, fields, kinds, atomic });
    }
    Ok(done.into_values().collect())
}

fn kinds_of(definition: &Value) -> Vec<(String, String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    definition["x-kubernetes-group-version-kind"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|k| (text(&k["group"]), text(&k["version"]), text(&k["kind"])))
        .collect()
}

fn merge(property: &Value) -> Merge {
    let text = |key: &str| property[key].as_str().map(str::to_owned);
    let list_type = text("x-kubernetes-list-type").or_else(|| text("x-kubernetes-map-type"));
    Merge {
        list_type,
        keys: property["x-kubernetes-list-map-keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|k| k.as_str().map(str::to_owned))
            .collect(),
        strategy: text("x-kubernetes-patch-strategy")
            .map(|s| s.split(',').map(str::to_owned).collect())
            .unwrap_or_default(),
        patch_key: text("x-kubernetes-patch-merge-key"),
    }
}

fn shape(property: &Value) -> Result<Shape> {
    Ok(match property["type"].as_str() {
        Some("array") => Shape::List(kind(&property["items"])?),
        Some("object") if property["additionalProperties"].is_object() => {
            let values = &property["additionalProperties"];
            if values["type"] == "array" {
                Shape::MapOfLists(kind(&values["items"])?)
            } else {
                Shape::Map(kind(values)?)
            }
        }
        _ => Shape::One(kind(property)?),
    })
}

fn kind(property: &Value) -> Result<Kind> {
    if let Some(reference) = property["$ref"].as_str() {
        let name =
            reference.strip_prefix(DEFINITIONS).with_context(|| format!("odd reference {reference}"))?;
        return Ok(match name {
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => Kind::Scalar("Quantity"),
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Kind::Scalar("IntOrString"),
            "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Kind::Scalar("Time"),
            "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Kind::Scalar("MicroTime"),
            "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"
            | "io.k8s.apimachinery.pkg.runtime.RawExtension" => Kind::Scalar("Raw"),
            other => Kind::Object(other.to_owned()),
        });
    }
    Ok(Kind::Scalar(match (property["type"].as_str(), property["format"].as_str()) {
        (Some("string"), None) => "String",
        (Some("string"), Some("byte")) => "Bytes",
        (Some("integer"), Some("int32")) => "Int32",
        (Some("integer"), Some("int64")) => "Int64",
        (Some("boolean"), _) => "Bool",
        (Some("number"), _) => "Number",
        (Some("object"), _) => "Raw",
        (ty, format) => bail!("a type the table cannot express: {ty:?} {format:?}"),
    }))
}
