//! Objects as the rows people read: the `meta.k8s.io/v1` Table that `kubectl get` asks for, with upstream's columns.
//! One [`Printer`] per kind: its columns and a function that fills one row; columns of priority 1 are for `-o wide`
//! and are always sent. A kind without a printer of its own has its name and its age.

pub mod age;
mod columns;
mod pod;
mod rows;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use crate::registry::Resource;

/// `includeObject` of a Table request: what each row carries of its object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The value of the query parameter; `None` where upstream refuses it ("must be 'Metadata', 'Object', 'None', or
    /// empty").
    pub fn parse(text: &str) -> Option<IncludeObject> {
        match text {
            "" | "Metadata" => Some(IncludeObject::Metadata),
            "None" => Some(IncludeObject::None),
            "Object" => Some(IncludeObject::Object),
            _ => None,
        }
    }
}

/// One column of a table.
struct Column {
    name: &'static str,
    /// OpenAPI type of the cells.
    kind: &'static str,
    /// "name" for the column that names the object.
    format: &'static str,
    description: &'static str,
    /// 0 is always shown, more only where there is room.
    priority: i64,
}

/// One object at a time (seconds since the epoch) → the cells of its row.
type Cells = fn(&Value, i64) -> Vec<Value>;

/// How one kind is printed.
struct Printer {
    columns: &'static [Column],
    cells: Cells,
}

/// A Table of `objects`, all of `resource`. `now` is seconds since the epoch, for the ages. The caller adds
/// `metadata` (resourceVersion, continue, remainingItemCount) from its list or object.
pub fn table(resource: &Resource, objects: &[Value], now: i64, include: IncludeObject) -> Value {
    table_kind(resource.group, resource.kind, objects, now, include)
}

/// As [`table`], by group and kind.
pub fn table_kind(group: &str, kind: &str, objects: &[Value], now: i64, include: IncludeObject) -> Value {
    let printer = columns::printer(group, kind);
    let rows: Vec<Value> =
        objects.iter().map(|object| row(&printer, group, kind, object, now, include)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": definitions(&printer),
        "rows": rows,
    })
}

fn definitions(printer: &Printer) -> Vec<Value> {
    let definition = |column: &Column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    };
    printer.columns.iter().map(definition).collect()
}

fn row(
    printer: &Printer,
    group: &str,
    kind: &str,
    object: &Value,
    now: i64,
    include: IncludeObject,
) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), Value::Array((printer.cells)(object, now)));
    if (group, kind) == ("", "Pod")
        && let Some(conditions) = pod::row_conditions(object)
    {
        row.insert("conditions".to_owned(), conditions);
    }
    let carried = match include {
        IncludeObject::None => None,
        IncludeObject::Object => Some(object.clone()),
        IncludeObject::Metadata => Some(json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
        })),
    };
    // A client reads `object` of every row; null says there is none.
    row.insert("object".to_owned(), carried.unwrap_or(Value::Null));
    Value::Object(row)
}

/// The text at `pointer`, "" where there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The text at `pointer`, or what stands for its absence.
fn text_or<'a>(object: &'a Value, pointer: &str, absent: &'a str) -> &'a str {
    match text(object, pointer) {
        "" => absent,
        text => text,
    }
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

fn name(object: &Value) -> Value {
    text(object, "/metadata/name").into()
}

fn age_of(object: &Value, now: i64) -> Value {
    age::since(text(object, "/metadata/creationTimestamp"), now).into()
}
