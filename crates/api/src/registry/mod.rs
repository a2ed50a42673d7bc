//! Which resources the API server serves, and under which names.
//!
//! One row of [`resources`] is one kind of object in one version: its address, the names people may call it by, its
//! verbs and its subresources. Routing, discovery, OpenAPI and the field tables are all derived from these rows,
//! so a kind is served by adding its row (and, when it has rules of its own, its defaults and validation).

pub mod discovery;
mod table;

/// Whether objects of a kind live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Cluster,
    Namespaced,
}

impl Scope {
    /// The word of aggregated discovery (`scope` of `APIResourceDiscovery`).
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Cluster => "Cluster",
            Scope::Namespaced => "Namespaced",
        }
    }
}

/// A group and version; the core group is the empty string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    pub group: &'static str,
    pub version: &'static str,
}

impl GroupVersion {
    /// `v1` for the core group, `apps/v1` for any other.
    pub fn api_version(&self) -> String {
        join_api_version(self.group, self.version)
    }
}

/// A group, version and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupVersionKind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

/// A path below an object, such as `pods/log`.
#[derive(Debug)]
pub struct Subresource {
    /// The last path segment: `status`, `scale`, `log`, …
    pub name: &'static str,
    /// What is sent and returned there; the parent's kind for `status`.
    pub kind: GroupVersionKind,
    /// Sorted, as discovery lists them.
    pub verbs: &'static [&'static str],
}

/// One served kind.
#[derive(Debug)]
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    /// Names for several resources at once; `all` is the one kubectl knows.
    pub categories: &'static [&'static str],
    pub scope: Scope,
    /// Sorted, as discovery lists them.
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// The group and plural under which objects are kept. It differs from this row's own only where one set of
    /// objects is served in two shapes: `events.k8s.io` events are stored as core events.
    pub stored_as: (&'static str, &'static str),
}

impl Resource {
    pub fn api_version(&self) -> String {
        join_api_version(self.group, self.version)
    }

    pub fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group, version: self.version }
    }

    pub fn group_version_kind(&self) -> GroupVersionKind {
        GroupVersionKind { group: self.group, version: self.version, kind: self.kind }
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// `pods`, `deployments.apps`: how error messages name the resource.
    pub fn qualified_resource(&self) -> String {
        qualify(self.plural, self.group)
    }

    /// `Pod`, `Deployment.apps`: how `is invalid` messages name the kind.
    pub fn qualified_kind(&self) -> String {
        qualify(self.kind, self.group)
    }

    /// `PodList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    pub fn supports(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether `status` is written through its own path and ignored on the main one.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// A review: created, answered, never stored.
    pub fn is_review(&self) -> bool {
        self.verbs == ["create"]
    }
}

/// All served resources, groups in the order Kubernetes prefers them, the core group first.
pub fn resources() -> &'static [Resource] {
    table::RESOURCES
}

/// The resource at `/apis/{group}/{version}/…/{plural}` (the core group is `""`).
pub fn by_plural(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    resources().iter().find(|r| r.plural == plural && r.version == version && r.group == group)
}

/// The resource whose objects say this `apiVersion` and `kind`.
pub fn by_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = split_api_version(api_version)?;
    resources().iter().find(|r| r.kind == kind && r.version == version && r.group == group)
}

/// Finds a resource by any name a person may use for it: plural, singular, short name or kind, each optionally
/// followed by `.group`. Names are compared without case, as kubectl does; the first row wins.
pub fn by_any_name(name: &str) -> Option<&'static Resource> {
    let lower = name.to_ascii_lowercase();
    let names = |r: &Resource, n: &str| {
        r.plural == n || r.singular == n || r.short_names.contains(&n) || r.kind.eq_ignore_ascii_case(n)
    };
    resources().iter().find(|r| names(r, &lower)).or_else(|| {
        let (first, group) = lower.split_once('.')?;
        resources().iter().find(|r| {
            names(r, first)
                && (r.group == group
                    || group.strip_prefix(r.version).is_some_and(|g| g == format!(".{}", r.group)))
        })
    })
}

/// All resources of a category, such as `all`.
pub fn by_category(category: &str) -> impl Iterator<Item = &'static Resource> + '_ {
    resources().iter().filter(move |r| r.categories.contains(&category))
}

/// The served group versions, in the order of their first row.
pub fn group_versions() -> Vec<GroupVersion> {
    let mut seen = Vec::new();
    for resource in resources() {
        if !seen.contains(&resource.group_version()) {
            seen.push(resource.group_version());
        }
    }
    seen
}

/// `("", "v1")` from `v1`, `("apps", "v1")` from `apps/v1`; `None` with two slashes or an empty part.
pub fn split_api_version(api_version: &str) -> Option<(&str, &str)> {
    match api_version.split_once('/') {
        None if api_version.is_empty() => None,
        None => Some(("", api_version)),
        Some((group, version)) if group.is_empty() || version.is_empty() || version.contains('/') => None,
        Some(parts) => Some(parts),
    }
}

fn join_api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn qualify(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_reached_by_its_address_and_by_its_kind() {
        for r in resources() {
            let found = by_plural(r.group, r.version, r.plural).expect("address");
            assert!(std::ptr::eq(found, r), "{} is shadowed", r.plural);
            let found = by_kind(&r.api_version(), r.kind).expect("kind");
            assert!(std::ptr::eq(found, r), "{} is shadowed", r.kind);
        }
    }

    #[test]
    fn verbs_are_sorted_as_discovery_lists_them() {
        for r in resources() {
            assert!(r.verbs.is_sorted(), "{}", r.plural);
            for s in r.subresources {
                assert!(s.verbs.is_sorted(), "{}/{}", r.plural, s.name);
            }
        }
    }

    #[test]
    fn people_name_resources_in_many_ways() {
        let cases = [
            ("po", Some("pods")),
            ("Pod", Some("pods")),
            ("deploy", Some("deployments")),
            ("deployments.apps", Some("deployments")),
            ("deployments.v1.apps", Some("deployments")),
            ("deployments.batch", None),
            ("sts", Some("statefulsets")),
            ("netpol", Some("networkpolicies")),
            ("ev", Some("events")),
            ("no", Some("nodes")),
            ("gadgets", None),
        ];
        for (name, want) in cases {
            assert_eq!(by_any_name(name).map(|r| r.plural), want, "{name}");
        }
        assert_eq!(by_any_name("events").map(|r| r.group), Some(""));
        assert_eq!(by_any_name("events.events.k8s.io").map(|r| r.group), Some("events.k8s.io"));
    }

    #[test]
    fn api_versions_are_split_strictly() {
        assert_eq!(split_api_version("v1"), Some(("", "v1")));
        assert_eq!(split_api_version("apps/v1"), Some(("apps", "v1")));
        for bad in ["", "/v1", "apps/", "a/b/c"] {
            assert_eq!(split_api_version(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_all_category_holds_what_kubectl_get_all_shows() {
        let all: Vec<_> = by_category("all").map(|r| r.plural).collect();
        let wanted = [
            "pods",
            "replicationcontrollers",
            "services",
            "daemonsets",
            "deployments",
            "replicasets",
            "statefulsets",
            "cronjobs",
            "jobs",
        ];
        assert_eq!(all, wanted);
    }
}
