//! What the everyday commands share: which resources the server has and how people name them, requests by path, and
//! kubectl's words for what the server refuses.

use std::fmt;

use anyhow::{Context, Result, bail};
use http::Request;
use kube::{Client, core::Status};
use serde_json::Value;

/// Lists come in pieces of this many objects, as kubectl asks for them.
const CHUNK: usize = 500;

/// A resource as discovery describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub listable: bool,
}

impl Resource {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pod`, `deployment.apps`: before the slash in kubectl's messages.
    pub fn prefix(&self) -> String {
        let kind = self.kind.to_lowercase();
        if self.group.is_empty() { kind } else { format!("{kind}.{}", self.group) }
    }

    /// The path of the collection; of all namespaces where `namespace` is none.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// Whether `word` means this resource: plural, singular, short name or kind, with or without group and version.
    fn is_called(&self, word: &str) -> bool {
        let mut names = vec![self.plural.clone(), self.singular.clone(), self.kind.to_lowercase()];
        names.extend(self.short_names.iter().cloned());
        let (name, rest) = word.split_once('.').unwrap_or((word, ""));
        let fits = ["".to_owned(), self.group.clone(), format!("{}.{}", self.version, self.group)];
        names.iter().any(|n| n == name)
            && fits.iter().any(|f| f.trim_end_matches('.') == rest.trim_end_matches('.'))
    }
}

/// The server and what it serves.
pub struct Remote {
    pub client: Client,
    pub resources: Vec<Resource>,
}

impl Remote {
    /// Asks for the aggregated discovery documents.
    pub async fn discover(client: Client) -> Result<Remote> {
        let core = client.list_core_api_versions_aggregated().await.map_err(explain)?;
        let groups = client.list_api_groups_aggregated().await.map_err(explain)?;
        let mut resources = Vec::new();
        for group in core.items.into_iter().chain(groups.items) {
            let name = group.metadata.and_then(|m| m.name).unwrap_or_default();
            // The first version is the preferred one; the others only repeat what it has.
            let mut seen: Vec<String> = Vec::new();
            for version in group.versions {
                for resource in version.resources {
                    let plural = resource.resource.unwrap_or_default();
                    if seen.contains(&plural) {
                        continue;
                    }
                    seen.push(plural.clone());
                    resources.push(Resource {
                        group: name.clone(),
                        version: version.version.clone().unwrap_or_default(),
                        kind: resource.response_kind.and_then(|k| k.kind).unwrap_or_default(),
                        plural,
                        singular: resource.singular_resource.unwrap_or_default(),
                        short_names: resource.short_names,
                        categories: resource.categories,
                        namespaced: resource.scope.as_deref() == Some("Namespaced"),
                        listable: resource.verbs.iter().any(|v| v == "list"),
                    });
                }
            }
        }
        Ok(Remote { client, resources })
    }

    /// The resource people call `word`.
    pub fn resource(&self, word: &str) -> Result<&Resource> {
        let lower = word.to_lowercase();
        match self.resources.iter().find(|r| r.is_called(&lower)) {
            Some(resource) => Ok(resource),
            None => bail!("error: the server doesn't have a resource type {word:?}"),
        }
    }

    /// The resource of a manifest.
    pub fn of_manifest(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.resources.iter().find(|r| r.kind == kind && r.api_version() == api_version)
    }

    /// What `TYPE[,TYPE]… [NAME…]` or `TYPE/NAME…` means: each resource with one name, or with none for all of it.
    pub fn targets(&self, words: &[String]) -> Result<Vec<(&Resource, Option<String>)>> {
        if words.iter().any(|w| w.contains('/')) {
            return words.iter().map(|word| self.slashed(word)).collect();
        }
        let (types, names) = words.split_first().context("error: Required resource not specified.")?;
        let mut out: Vec<(&Resource, Option<String>)> = Vec::new();
        for kind in types.split(',').filter(|t| !t.is_empty()) {
            let category: Vec<&Resource> = self
                .resources
                .iter()
                .filter(|r| r.listable && r.categories.iter().any(|c| c == kind))
                .collect();
            let resources = if category.is_empty() { vec![self.resource(kind)?] } else { category };
            for resource in resources {
                // Two words for one resource ask once.
                if out.iter().any(|(there, _)| *there == resource) {
                    continue;
                }
                if names.is_empty() {
                    out.push((resource, None));
                }
                out.extend(names.iter().map(|name| (resource, Some(name.clone()))));
            }
        }
        Ok(out)
    }

    fn slashed(&self, word: &str) -> Result<(&Resource, Option<String>)> {
        match word.split('/').collect::<Vec<_>>().as_slice() {
            [kind, name] if !kind.is_empty() && !name.is_empty() => {
                Ok((self.resource(kind)?, Some((*name).to_owned())))
            }
            [_] => bail!(
                "error: there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. '<command> get resource/<resource_name>' instead of '<command> get resource resource/<resource_name>'"
            ),
            _ => bail!("error: arguments in resource/name form may not have more than one slash"),
        }
    }

    pub fn namespace<'a>(&'a self, given: Option<&'a str>) -> &'a str {
        given.unwrap_or_else(|| self.client.default_namespace())
    }

    pub async fn get(&self, path: &str, accept: &str) -> Result<Value> {
        self.send("GET", path, &[("accept", accept)], Vec::new()).await
    }

    /// One request with a JSON answer.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Value> {
        self.client.request(request(method, path, headers, body)?).await.map_err(explain)
    }

    /// All pieces of a list or table joined; `items` or `rows` of the later ones go to the first.
    pub async fn list(&self, path: &str, query: &[(&str, &str)], accept: &str) -> Result<Value> {
        let mut first: Option<Value> = None;
        let mut go_on = String::new();
        loop {
            let mut pairs: Vec<(&str, String)> = query.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
            pairs.push(("limit", CHUNK.to_string()));
            if !go_on.is_empty() {
                pairs.push(("continue", go_on.clone()));
            }
            let mut piece = self.get(&with_query(path, &pairs), accept).await?;
            go_on = piece.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or("").to_owned();
            match &mut first {
                None => first = Some(piece),
                Some(all) => {
                    for key in ["items", "rows"] {
                        let more = piece.get_mut(key).and_then(Value::as_array_mut).map(std::mem::take);
                        if let (Some(all), Some(more)) =
                            (all.get_mut(key).and_then(Value::as_array_mut), more)
                        {
                            all.extend(more);
                        }
                    }
                    all["metadata"] = piece["metadata"].take();
                }
            }
            if go_on.is_empty() {
                return first.context("the server sent no list");
            }
        }
    }
}

pub fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Request<Vec<u8>>> {
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body).with_context(|| format!("make the request {method} {path}"))
}

/// A path with its query, values percent-encoded.
pub fn with_query(path: &str, query: &[(&str, String)]) -> String {
    let mut out = path.to_owned();
    for (i, (key, value)) in query.iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    out
}

/// A refusal of the server. `Display` is what kubectl prints.
#[derive(Debug)]
pub struct Refused {
    pub status: Box<Status>,
    /// What was being done, where kubectl says so: `error when creating "x.yaml"`.
    pub doing: Option<String>,
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = &self.status;
        if status.reason == "Invalid"
            && let Some(details) = &status.details
        {
            write!(f, "The {} {:?} is invalid", details.kind, details.name)?;
            return match details.causes.as_slice() {
                [] => Ok(()),
                [one] => write!(f, ": {}: {}", one.field, one.message),
                many => {
                    write!(f, ": ")?;
                    many.iter().try_for_each(|cause| write!(f, "\n* {}: {}", cause.field, cause.message))
                }
            };
        }
        match status.reason.as_str() {
            "" => write!(f, "Error from server: ")?,
            reason => write!(f, "Error from server ({reason}): ")?,
        }
        if let Some(doing) = &self.doing {
            write!(f, "{doing}: ")?;
        }
        f.write_str(&status.message)
    }
}

/// The client's error in kubectl's words.
pub fn explain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => Refused { status, doing: None }.into(),
        kube::Error::Service(source) => {
            anyhow::anyhow!("Unable to connect to the server: {}", innermost(source.as_ref()))
        }
        kube::Error::HyperError(source) => {
            anyhow::anyhow!("Unable to connect to the server: {}", innermost(&source))
        }
        other => anyhow::anyhow!("error: {other}"),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// `error` with what was being done, where it is a refusal.
pub fn while_doing(error: anyhow::Error, doing: String) -> anyhow::Error {
    match error.downcast::<Refused>() {
        Ok(refused) => Refused { doing: Some(doing), ..refused }.into(),
        Err(other) => other,
    }
}

/// The reason of a refusal, "" for any other error.
pub fn reason(error: &anyhow::Error) -> &str {
    error.downcast_ref::<Refused>().map_or("", |refused| refused.status.reason.as_str())
}

/// Prints an error as kubectl does and gives the exit code.
pub fn report(result: Result<i32>) -> Result<i32> {
    match result {
        Ok(code) => Ok(code),
        Err(error) => {
            super::out::complain(format_args!("{error:#}"));
            Ok(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource(group: &str, kind: &str, plural: &str, short: &[&str]) -> Resource {
        Resource {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short_names: short.iter().map(|s| (*s).to_owned()).collect(),
            categories: vec!["all".into()],
            namespaced: true,
            listable: true,
        }
    }

    #[test]
    fn a_resource_has_many_names() {
        let deployment = resource("apps", "Deployment", "deployments", &["deploy"]);
        for word in
            ["deployments", "deployment", "deploy", "deployments.apps", "deployment.v1.apps", "deploy.apps"]
        {
            assert!(deployment.is_called(word), "{word}");
        }
        for word in ["deployments.extensions", "deploys", "", "apps"] {
            assert!(!deployment.is_called(word), "{word}");
        }
        let pod = resource("", "Pod", "pods", &["po"]);
        assert!(pod.is_called("pods.v1.") && pod.is_called("po"));
        assert_eq!((pod.prefix(), deployment.prefix()), ("pod".into(), "deployment.apps".into()));
        assert_eq!(deployment.path(Some("a")), "/apis/apps/v1/namespaces/a/deployments");
        assert_eq!(pod.path(None), "/api/v1/pods");
    }

    #[test]
    fn refusals_read_as_kubectl_writes_them() {
        let said = |status: Value, doing: Option<&str>| {
            let status: Status = serde_json::from_value(status).expect("a Status");
            Refused { status: Box::new(status), doing: doing.map(str::to_owned) }.to_string()
        };
        let missing = json!({"status": "Failure", "reason": "NotFound", "code": 404, "message": "pods \"x\" not found"});
        assert_eq!(said(missing.clone(), None), "Error from server (NotFound): pods \"x\" not found");
        assert_eq!(
            said(missing, Some("error when creating \"f.yaml\"")),
            "Error from server (NotFound): error when creating \"f.yaml\": pods \"x\" not found"
        );
        let invalid = |causes: Value| {
            json!({"status": "Failure", "reason": "Invalid", "code": 422, "message": "…",
                   "details": {"kind": "Pod", "name": "x", "causes": causes}})
        };
        assert_eq!(
            said(invalid(json!([{"field": "spec.a", "message": "Required value"}])), None),
            "The Pod \"x\" is invalid: spec.a: Required value"
        );
        assert_eq!(
            said(invalid(json!([{"field": "a", "message": "b"}, {"field": "c", "message": "d"}])), None),
            "The Pod \"x\" is invalid: \n* a: b\n* c: d"
        );
    }

    #[test]
    fn queries_are_percent_encoded() {
        let query = [("labelSelector", "app in (a,b)".to_owned()), ("limit", "5".to_owned())];
        assert_eq!(with_query("/x", &query), "/x?labelSelector=app%20in%20%28a%2Cb%29&limit=5");
    }
}
