//! Manifests as they were written, and the pods that are in them.

use anyhow::{Context, Result, bail};
use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use policy::pod_security::embedded_pod;
use serde::Deserialize;
use serde_json::{Value, json};

use super::tree::{self, Document, Step};

/// A file, or standard input.
pub struct Source {
    /// As it was given.
    pub name: String,
    pub text: String,
    pub documents: Vec<Document>,
    pub objects: Vec<Object>,
    /// How many documents are no objects of Kubernetes: they have no kind.
    pub passed_over: usize,
}

/// An object of a source.
#[derive(Clone, Debug)]
pub struct Object {
    /// The index of its document.
    pub document: usize,
    /// From the document's root to the object: none but within a List.
    pub root: Vec<Step>,
    pub api_version: String,
    pub kind: String,
    pub name: String,
    /// "default" where it says none.
    pub namespace: String,
    pub value: Value,
}

/// A pod, or the template of one, with its defaults.
pub struct Pod {
    /// From the document's root to what holds `metadata` and `spec`.
    pub root: Vec<Step>,
    pub metadata: ObjectMeta,
    pub spec: PodSpec,
}

impl Source {
    pub fn parse(name: &str, text: String) -> Result<Source> {
        // The strict reader first: it limits depth and aliases.
        let values = api::json::parse_yaml_documents(text.as_bytes(), api::json::Limits::default())
            .map_err(anyhow::Error::msg)
            .with_context(|| name.to_owned());
        let values = match values {
            Err(error) if text.contains("{{") => {
                return Err(error.context(
                    "this looks like a template: check what `helm template` prints, by a pipe and -f -",
                ));
            }
            values => values?,
        };
        let documents = tree::parse(&text).with_context(|| name.to_owned())?;
        if documents.len() != values.len() {
            bail!("{name}: {} documents were read as {}", values.len(), documents.len());
        }
        let (mut objects, mut passed_over) = (Vec::new(), 0);
        for (document, parsed) in values.into_iter().enumerate() {
            collect(document, Vec::new(), parsed.value, "", &mut objects, &mut passed_over);
        }
        Ok(Source { name: name.to_owned(), text, documents, objects, passed_over })
    }
}

/// Adds an object, or those of a List; counts what is neither.
fn collect(
    document: usize,
    root: Vec<Step>,
    value: Value,
    item_kind: &str,
    out: &mut Vec<Object>,
    passed_over: &mut usize,
) {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = match text("/kind") {
        kind if kind.is_empty() => item_kind.to_owned(),
        kind => kind,
    };
    // The items of a PodList need not say that they are Pods.
    if let (Some(item_kind), Some(items)) = (kind.strip_suffix("List"), value["items"].as_array()) {
        let version = &value["apiVersion"];
        for (at, item) in items.iter().enumerate() {
            let mut item = item.clone();
            if item.is_object() && item["apiVersion"].is_null() && !item_kind.is_empty() {
                item["apiVersion"] = version.clone();
            }
            let root = [root.as_slice(), &[Step::Key("items".into()), Step::Index(at)]].concat();
            collect(document, root, item, item_kind, out, passed_over);
        }
        return;
    }
    if !value.is_object() || kind.is_empty() {
        *passed_over += usize::from(!value.is_null());
        return;
    }
    let namespace = match text("/metadata/namespace") {
        namespace if namespace.is_empty() => "default".to_owned(),
        namespace => namespace,
    };
    let name = match text("/metadata/name") {
        name if name.is_empty() => format!("{}*", text("/metadata/generateName")),
        name => name,
    };
    out.push(Object { document, root, api_version: text("/apiVersion"), kind, name, namespace, value });
}

impl Object {
    fn group(&self) -> &str {
        match self.api_version.split_once('/') {
            // Workloads were in this group before 1.16.
            Some(("extensions", _)) => "apps",
            Some((group, _)) => group,
            None => "",
        }
    }

    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group() == group && self.kind == kind
    }

    /// The path to the pod in it, from the object's root.
    pub fn pod_path(&self) -> Option<&'static [&'static str]> {
        embedded_pod(self.group(), &self.kind)
    }

    /// The pod in it, `None` where its kind has none. Defaults are those that the API server would give.
    ///
    /// # Errors
    /// The pod is none: a field has another type.
    pub fn pod(&self) -> Result<Option<Pod>> {
        let Some(path) = self.pod_path() else { return Ok(None) };
        let Some(template) = path.iter().try_fold(&self.value, |at, field| at.get(*field)) else {
            bail!("{} has no {}", self.shown(), path.join("."));
        };
        let root = path.iter().map(|field| Step::Key((*field).to_owned()));
        let root = [self.root.clone(), root.collect()].concat();
        let (metadata, spec) = typed(template).with_context(|| self.shown())?;
        Ok(Some(Pod { root, metadata, spec }))
    }

    /// `Deployment shop/web`.
    pub fn shown(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A pod with its defaults, as the API server would read it.
pub fn typed(template: &Value) -> Result<(ObjectMeta, PodSpec)> {
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"] });
    if !pod["spec"].is_object() {
        bail!("spec: a pod needs one");
    }
    if pod["metadata"].is_null() {
        pod["metadata"] = json!({});
    }
    // What is unknown was said before; nulls are absent.
    if let Some(ty) = api::schema::by_kind("v1", "Pod") {
        api::strict::conform(&mut pod, ty).map_err(anyhow::Error::msg)?;
    }
    api::defaults::apply_kind("", "Pod", &mut pod);
    let metadata = ObjectMeta::deserialize(&pod["metadata"]).context("metadata")?;
    let spec = PodSpec::deserialize(&pod["spec"]).context("spec")?;
    Ok((metadata, spec))
}
