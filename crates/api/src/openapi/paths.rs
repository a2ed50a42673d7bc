//! `paths`: what can be done to each resource, with which bodies and parameters.

use serde_json::{Map, Value, json};

use super::schemas::{self, reference};
use crate::patch;
use crate::registry::{self, GroupVersion, GroupVersionKind, Resource, Subresource};
use crate::schema;

pub fn of(gv: GroupVersion) -> Map<String, Value> {
    let mut out = Map::new();
    let root = format!("/{}", super::root(gv));
    out.insert(format!("{root}/"), json!({"get": operation("get", None, Vec::new(), None, None)}));
    for r in registry::resources().iter().filter(|r| r.group_version() == gv) {
        let collection = if r.namespaced() {
            format!("{root}/namespaces/{{namespace}}/{}", r.plural)
        } else {
            format!("{root}/{}", r.plural)
        };
        if r.namespaced() && r.supports("list") {
            let gvk = r.group_version_kind();
            let get = operation("list", Some(gvk), list_parameters(), None, list_type(r));
            out.insert(format!("{root}/{}", r.plural), json!({"get": get}));
        }
        insert(&mut out, collection.clone(), on_collection(r), r, false);
        insert(&mut out, format!("{collection}/{{name}}"), on_item(r), r, true);
        for s in r.subresources {
            insert(&mut out, format!("{collection}/{{name}}/{}", s.name), on_subresource(s), r, true);
        }
    }
    out
}

fn insert(
    out: &mut Map<String, Value>,
    path: String,
    mut item: Map<String, Value>,
    r: &Resource,
    named: bool,
) {
    if item.is_empty() {
        return;
    }
    let in_path = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
    let mut parameters = Vec::new();
    if named {
        parameters.push(in_path("name"));
    }
    if r.namespaced() {
        parameters.push(in_path("namespace"));
    }
    parameters.push(query("pretty", "string"));
    item.insert("parameters".into(), parameters.into());
    out.insert(path, item.into());
}

fn list_type(r: &Resource) -> Option<&'static str> {
    schema::by_kind(&r.api_version(), &r.list_kind()).map(|t| t.name)
}

fn type_of(gvk: GroupVersionKind) -> Option<&'static str> {
    let gv = GroupVersion { group: gvk.group, version: gvk.version };
    schema::by_kind(&gv.api_version(), gvk.kind).map(|t| t.name)
}

fn delete_options() -> Option<Value> {
    schema::by_kind("v1", "DeleteOptions").map(|t| body(&["*/*"], t.name))
}

fn on_collection(r: &Resource) -> Map<String, Value> {
    let gvk = r.group_version_kind();
    let ty = type_of(gvk);
    let mut out = Map::new();
    if r.supports("list") {
        out.insert("get".into(), operation("list", Some(gvk), list_parameters(), None, list_type(r)));
    }
    if let (true, Some(name)) = (r.supports("create"), ty) {
        let sent = Some(body(&["*/*"], name));
        out.insert("post".into(), operation("post", Some(gvk), write_parameters(), sent, ty));
    }
    if r.supports("deletecollection") {
        let mut parameters = list_parameters();
        parameters.extend(delete_parameters());
        let deleted = operation("deletecollection", Some(gvk), parameters, delete_options(), status());
        out.insert("delete".into(), deleted);
    }
    out
}

fn on_item(r: &Resource) -> Map<String, Value> {
    let mut out = read_and_write(r.group_version_kind(), r.verbs);
    // Creating is done on the collection.
    out.remove("post");
    if r.supports("delete") {
        let gvk = Some(r.group_version_kind());
        out.insert(
            "delete".into(),
            operation("delete", gvk, delete_parameters(), delete_options(), status()),
        );
    }
    out
}

fn on_subresource(s: &Subresource) -> Map<String, Value> {
    if matches!(s.name, "attach" | "exec" | "portforward") {
        let connect = || operation("connect", Some(s.kind), Vec::new(), None, None);
        return Map::from_iter([("get".to_owned(), connect()), ("post".to_owned(), connect())]);
    }
    read_and_write(s.kind, s.verbs)
}

fn read_and_write(gvk: GroupVersionKind, verbs: &[&str]) -> Map<String, Value> {
    let ty = type_of(gvk);
    let mut out = Map::new();
    if verbs.contains(&"get") {
        out.insert("get".into(), operation("get", Some(gvk), Vec::new(), None, ty));
    }
    let sent = || ty.map(|name| body(&["*/*"], name));
    if verbs.contains(&"create") {
        out.insert("post".into(), operation("post", Some(gvk), write_parameters(), sent(), ty));
    }
    if verbs.contains(&"update") {
        out.insert("put".into(), operation("put", Some(gvk), write_parameters(), sent(), ty));
    }
    if verbs.contains(&"patch") {
        let mut parameters = write_parameters();
        parameters.push(query("force", "boolean"));
        let sent = Some(body(&patch::MEDIA_TYPES, schemas::PATCH));
        out.insert("patch".into(), operation("patch", Some(gvk), parameters, sent, ty));
    }
    out
}

fn status() -> Option<&'static str> {
    schema::by_kind("v1", "Status").map(|t| t.name)
}

fn body(media: &[&str], name: &str) -> Value {
    let content: Map<String, Value> =
        media.iter().map(|m| ((*m).to_owned(), json!({"schema": reference(name)}))).collect();
    json!({"content": content, "required": true})
}

fn operation(
    action: &str,
    gvk: Option<GroupVersionKind>,
    parameters: Vec<Value>,
    body: Option<Value>,
    answer: Option<&str>,
) -> Value {
    let ok = match answer {
        Some(name) => {
            json!({"description": "OK", "content": {"application/json": {"schema": reference(name)}}})
        }
        None => json!({"description": "OK"}),
    };
    let mut out = json!({"responses": {"200": ok, "401": {"description": "Unauthorized"}}});
    if let Some(gvk) = gvk {
        out["x-kubernetes-action"] = action.into();
        out["x-kubernetes-group-version-kind"] =
            json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
    }
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    if let Some(body) = body {
        out["requestBody"] = body;
    }
    out
}

fn query(name: &str, ty: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}})
}

fn write_parameters() -> Vec<Value> {
    vec![query("dryRun", "string"), query("fieldManager", "string"), query("fieldValidation", "string")]
}

fn delete_parameters() -> Vec<Value> {
    vec![
        query("dryRun", "string"),
        query("gracePeriodSeconds", "integer"),
        query("orphanDependents", "boolean"),
        query("propagationPolicy", "string"),
    ]
}

fn list_parameters() -> Vec<Value> {
    [
        ("allowWatchBookmarks", "boolean"),
        ("continue", "string"),
        ("fieldSelector", "string"),
        ("labelSelector", "string"),
        ("limit", "integer"),
        ("resourceVersion", "string"),
        ("resourceVersionMatch", "string"),
        ("timeoutSeconds", "integer"),
        ("watch", "boolean"),
    ]
    .into_iter()
    .map(|(name, ty)| query(name, ty))
    .collect()
}
