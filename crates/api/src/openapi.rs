//! The OpenAPI v3 documents (`/openapi/v3`), made from the registry and the schema table. kubectl needs them: `create` and
//! `apply` look there for the `fieldValidation` parameter and the patch types of a kind, client-side `apply` computes its
//! strategic patch by their merge keys, and `explain` shows them. They have no descriptions.
//!
//! Documents are made at first use and kept: the table never changes while the program runs.

mod paths;
mod schemas;

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::registry::{self, GroupVersion};

/// What a document is served as.
pub const MEDIA_TYPE: &str = "application/json";

/// One group version's document.
#[derive(Debug)]
pub struct Document {
    pub group_version: GroupVersion,
    /// Below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
    pub path: String,
    /// Changes with the content; clients ask with `?hash=` and may then keep the answer for ever.
    pub hash: String,
    pub json: String,
}

fn documents() -> &'static [Document] {
    static DOCUMENTS: OnceLock<Vec<Document>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| registry::group_versions().into_iter().map(build).collect())
}

/// The body of `/openapi/v3`.
pub fn index() -> &'static str {
    static INDEX: OnceLock<String> = OnceLock::new();
    INDEX.get_or_init(|| {
        let paths: Map<String, Value> = documents()
            .iter()
            .map(|d| {
                let url = format!("/openapi/v3/{}?hash={}", d.path, d.hash);
                (d.path.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        json!({"paths": paths}).to_string()
    })
}

/// The document at `/openapi/v3/{path}`.
pub fn document(path: &str) -> Option<&'static Document> {
    documents().iter().find(|d| d.path == path)
}

fn build(gv: GroupVersion) -> Document {
    let path = root(gv);
    let json = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.35.0"},
        "paths": paths::of(gv),
        "components": {
            "schemas": schemas::of(gv),
            "securitySchemes": {
                "BearerToken": {"type": "apiKey", "in": "header", "name": "authorization"},
            },
        },
    })
    .to_string();
    Document { group_version: gv, hash: hash(json.as_bytes()), path, json }
}

/// `api/v1`, `apis/apps/v1`.
fn root(gv: GroupVersion) -> String {
    if gv.group.is_empty() {
        format!("api/{}", gv.version)
    } else {
        format!("apis/{}/{}", gv.group, gv.version)
    }
}

/// FNV-1a: the hash guards a cache, not a secret.
fn hash(bytes: &[u8]) -> String {
    let of = |seed: u64| bytes.iter().fold(seed, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    format!("{:016X}{:016X}", of(0xcbf2_9ce4_8422_2325), of(0x9ae1_6a3b_2f90_404f))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Value {
        serde_json::from_str(&document(path).unwrap().json).unwrap()
    }

    #[test]
    fn the_index_leads_to_every_document() {
        let index: Value = serde_json::from_str(index()).unwrap();
        let paths = index["paths"].as_object().unwrap();
        assert_eq!(paths.len(), registry::group_versions().len());
        for (path, entry) in paths {
            let url = entry["serverRelativeURL"].as_str().unwrap();
            let hash = &document(path).unwrap().hash;
            assert_eq!(url, format!("/openapi/v3/{path}?hash={hash}"));
        }
        assert!(document("apis/gadgets/v1").is_none());
    }

    /// `kubectl create` and `apply --validate` look for the parameter on the PATCH of the kind.
    #[test]
    fn every_kind_that_can_be_written_says_that_it_validates_fields() {
        for r in registry::resources() {
            let document = parsed(&root(r.group_version()));
            let scope = if r.namespaced() { "namespaces/{namespace}/" } else { "" };
            let collection = format!("/{}/{scope}{}", root(r.group_version()), r.plural);
            let item = format!("{collection}/{{name}}");
            let gvk = json!({"group": r.group, "version": r.version, "kind": r.kind});
            for (path, method, verb) in
                [(&collection, "post", "create"), (&item, "patch", "patch"), (&item, "put", "update")]
            {
                let operation = &document["paths"][path][method];
                assert_eq!(operation.is_object(), r.supports(verb), "{method} {path}");
                if r.supports(verb) {
                    let named = |name: &str| {
                        operation["parameters"].as_array().unwrap().iter().any(|p| p["name"] == name)
                    };
                    assert!(named("fieldValidation") && named("dryRun"), "{method} {path}");
                    assert_eq!(operation["x-kubernetes-group-version-kind"], gvk, "{method} {path}");
                }
            }
        }
    }

    #[test]
    fn every_reference_is_resolved_within_its_document() {
        fn references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
            match value {
                Value::Object(map) => {
                    out.extend(map.get("$ref").and_then(Value::as_str));
                    map.values().for_each(|v| references(v, out));
                }
                Value::Array(items) => items.iter().for_each(|v| references(v, out)),
                _ => {}
            }
        }
        for d in documents() {
            let document = parsed(&d.path);
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(!found.is_empty());
            for reference in found {
                let name = reference.strip_prefix("#/components/schemas/").unwrap();
                assert!(document["components"]["schemas"][name].is_object(), "{}: {name}", d.path);
            }
        }
    }

    /// kubectl computes client-side apply's patch by these.
    #[test]
    fn schemas_carry_the_merge_keys() {
        let core = parsed("api/v1");
        let schemas = &core["components"]["schemas"];
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(containers["x-kubernetes-list-type"], "map");
        let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
        assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
        assert_eq!(
            schemas["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"],
            json!([{"group": "", "version": "v1", "kind": "Pod"}])
        );
        let apps = parsed("apis/apps/v1");
        let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    }
}
