//! The discovery documents, derived from the rows: the aggregated form (v2 and v2beta1) that clients ask for first,
//! and the legacy lists (`APIVersions`, `APIGroupList`, `APIGroup`, `APIResourceList`), which drain and can-i still read.

use super::{GroupVersion, GroupVersionKind, Resource, group_versions, resources};
use serde_json::{Value, json};

/// A version of the aggregated discovery format. The two differ in name only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregated {
    V2,
    V2Beta1,
}

impl Aggregated {
    pub fn version(self) -> &'static str {
        match self {
            Aggregated::V2 => "v2",
            Aggregated::V2Beta1 => "v2beta1",
        }
    }

    /// The `Content-Type` that clients compare with what they asked for.
    pub fn content_type(self) -> &'static str {
        match self {
            Aggregated::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Aggregated::V2Beta1 => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
        }
    }

    /// What an `Accept` header prefers: an aggregated version, or `None` for the legacy lists. Media ranges are taken
    /// in their order, because that is how clients write their preference; a range with `q=0` is not wanted.
    pub fn negotiate(accept: &str) -> Option<Self> {
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if !matches!(media, "application/json" | "*/*" | "application/*") {
                continue;
            }
            let (mut group, mut version, mut kind, mut refused) = (None, None, None, false);
            for (key, value) in parts.filter_map(|p| p.split_once('=')) {
                match key {
                    "g" => group = Some(value),
                    "v" => version = Some(value),
                    "as" => kind = Some(value),
                    "q" => refused = value.parse::<f32>().is_ok_and(|q| q == 0.0),
                    _ => {}
                }
            }
            if refused {
                continue;
            }
            match (group, version, kind) {
                (None, None, None) => return None,
                (Some("apidiscovery.k8s.io"), Some("v2"), Some("APIGroupDiscoveryList")) => {
                    return Some(Self::V2);
                }
                (Some("apidiscovery.k8s.io"), Some("v2beta1"), Some("APIGroupDiscoveryList")) => {
                    return Some(Self::V2Beta1);
                }
                _ => {}
            }
        }
        None
    }
}

/// `/api` in aggregated form: the core group.
pub fn aggregated_core(version: Aggregated) -> Value {
    aggregated(version, |group| group.is_empty())
}

/// `/apis` in aggregated form: every other group.
pub fn aggregated_groups(version: Aggregated) -> Value {
    aggregated(version, |group| !group.is_empty())
}

fn aggregated(format: Aggregated, wanted: impl Fn(&str) -> bool) -> Value {
    let items: Vec<Value> = groups()
        .into_iter()
        .filter(|group| wanted(group))
        .map(|group| {
            let versions: Vec<Value> = group_versions()
                .into_iter()
                .filter(|gv| gv.group == group)
                .map(|gv| {
                    let resources: Vec<Value> = in_group_version(gv).map(aggregated_resource).collect();
                    json!({"version": gv.version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !group.is_empty() {
                metadata["name"] = group.into();
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", format.version()),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(r: &Resource) -> Value {
    let mut out = json!({
        "resource": r.plural,
        "responseKind": response_kind(r.group_version_kind()),
        "scope": r.scope.as_str(),
        "singularResource": r.singular,
        "verbs": r.verbs,
    });
    if !r.short_names.is_empty() {
        out["shortNames"] = json!(r.short_names);
    }
    if !r.categories.is_empty() {
        out["categories"] = json!(r.categories);
    }
    if !r.subresources.is_empty() {
        let list: Vec<Value> = r
            .subresources
            .iter()
            .map(|s| json!({"subresource": s.name, "responseKind": response_kind(s.kind), "verbs": s.verbs}))
            .collect();
        out["subresources"] = list.into();
    }
    out
}

fn response_kind(kind: GroupVersionKind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// `/api` in legacy form. `server_address` is what `serverAddressByClientCIDRs` tells clients, `host:port`.
pub fn api_versions(server_address: &str) -> Value {
    let versions: Vec<&str> =
        group_versions().into_iter().filter(|gv| gv.group.is_empty()).map(|gv| gv.version).collect();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis` in legacy form.
pub fn api_group_list() -> Value {
    let list: Vec<Value> = groups().into_iter().filter(|g| !g.is_empty()).map(group_versions_of).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

/// `/apis/{group}` in legacy form; `None` for a group that is not served.
pub fn api_group(group: &str) -> Option<Value> {
    let group = groups().into_iter().find(|g| !g.is_empty() && *g == group)?;
    let mut out = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Value::Object(out), Value::Object(body)) = (&mut out, group_versions_of(group)) {
        out.extend(body);
    }
    Some(out)
}

fn group_versions_of(group: &'static str) -> Value {
    let versions: Vec<Value> = group_versions()
        .into_iter()
        .filter(|gv| gv.group == group)
        .map(|gv| json!({"groupVersion": gv.api_version(), "version": gv.version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
}

/// `/api/v1` and `/apis/{group}/{version}` in legacy form; `None` for a version that is not served.
pub fn api_resource_list(group: &str, version: &str) -> Option<Value> {
    let gv = group_versions().into_iter().find(|gv| gv.group == group && gv.version == version)?;
    let mut list = Vec::new();
    for r in in_group_version(gv) {
        let mut entry = json!({
            "name": r.plural,
            "singularName": r.singular,
            "namespaced": r.namespaced(),
            "kind": r.kind,
            "verbs": r.verbs,
        });
        if !r.short_names.is_empty() {
            entry["shortNames"] = json!(r.short_names);
        }
        if !r.categories.is_empty() {
            entry["categories"] = json!(r.categories);
        }
        list.push(entry);
        for s in r.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", r.plural, s.name),
                "singularName": "",
                "namespaced": r.namespaced(),
                "kind": s.kind.kind,
                "verbs": s.verbs,
            });
            // Group and version are given only where they differ from the list's own; drain finds out by them
            // that it may POST a policy/v1 Eviction.
            if (s.kind.group, s.kind.version) != (gv.group, gv.version) {
                entry["group"] = s.kind.group.into();
                entry["version"] = s.kind.version.into();
            }
            list.push(entry);
        }
    }
    let mut out = json!({"kind": "APIResourceList", "groupVersion": gv.api_version(), "resources": list});
    if !gv.group.is_empty() {
        out["apiVersion"] = "v1".into();
    }
    Some(out)
}

fn groups() -> Vec<&'static str> {
    let mut seen = Vec::new();
    for gv in group_versions() {
        if !seen.contains(&gv.group) {
            seen.push(gv.group);
        }
    }
    seen
}

fn in_group_version(gv: GroupVersion) -> impl Iterator<Item = &'static Resource> {
    resources().iter().filter(move |r| r.group_version() == gv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_choose_the_format() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                       application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let cases = [
            (kubectl, Some(Aggregated::V2)),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
                Some(Aggregated::V2Beta1),
            ),
            ("application/json, */*", None),
            (
                "application/vnd.kubernetes.protobuf, application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io",
                Some(Aggregated::V2),
            ),
            ("application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json", None),
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;q=0", None),
            ("", None),
        ];
        for (accept, want) in cases {
            assert_eq!(Aggregated::negotiate(accept), want, "{accept}");
        }
    }

    #[test]
    fn aggregated_discovery_has_every_resource_once() {
        let core = aggregated_core(Aggregated::V2);
        let rest = aggregated_groups(Aggregated::V2);
        let mut count = 0;
        for doc in [&core, &rest] {
            for group in doc["items"].as_array().unwrap() {
                for version in group["versions"].as_array().unwrap() {
                    count += version["resources"].as_array().unwrap().len();
                }
            }
        }
        assert_eq!(count, resources().len());
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
        assert_eq!(rest["items"][0]["metadata"]["name"], "apps");
    }

    #[test]
    fn drain_finds_the_eviction_subresource() {
        let list = api_resource_list("", "v1").unwrap();
        let entry =
            list["resources"].as_array().unwrap().iter().find(|r| r["name"] == "pods/eviction").unwrap();
        assert_eq!(
            (&entry["group"], &entry["version"], &entry["kind"]),
            (&"policy".into(), &"v1".into(), &"Eviction".into())
        );
    }

    #[test]
    fn unknown_groups_and_versions_have_no_document() {
        assert!(api_group("gadgets.example").is_none());
        assert!(api_group("").is_none());
        assert!(api_resource_list("apps", "v2").is_none());
        assert_eq!(api_group("apps").unwrap()["preferredVersion"]["groupVersion"], "apps/v1");
    }
}
