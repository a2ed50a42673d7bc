//! All roles and bindings, by whom they name: a decision looks at the bindings of the user and its groups, in the cluster
//! and in the request's namespace, and at nothing else. A change touches what it names.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use super::{Binding, GROUP, Request, Requester, RoleKind, Rule, Subject, Target};

/// A namespace's roles and bindings; under "" those of the cluster.
#[derive(Debug, Default)]
struct Place {
    roles: HashMap<String, Arc<[Rule]>>,
    bindings: HashMap<String, Binding>,
    /// By the name of a user: the bindings that name it, each with the subject's place in it.
    users: HashMap<String, BTreeMap<String, usize>>,
    groups: HashMap<String, BTreeMap<String, usize>>,
}

impl Place {
    fn is_empty(&self) -> bool {
        self.roles.is_empty() && self.bindings.is_empty()
    }

    fn named(&mut self, subject: &Subject) -> (&mut HashMap<String, BTreeMap<String, usize>>, String) {
        match subject {
            Subject::User(name) => (&mut self.users, name.clone()),
            Subject::Group(name) => (&mut self.groups, name.clone()),
            Subject::ServiceAccount { namespace, name } => {
                (&mut self.users, format!("system:serviceaccount:{namespace}:{name}"))
            }
        }
    }

    fn unbind(&mut self, name: &str) {
        let Some(binding) = self.bindings.remove(name) else { return };
        for subject in &binding.subjects {
            let (index, key) = self.named(subject);
            if let Some(bindings) = index.get_mut(&key) {
                bindings.remove(name);
                if bindings.is_empty() {
                    index.remove(&key);
                }
            }
        }
    }

    fn bind(&mut self, name: &str, binding: Binding) {
        self.unbind(name);
        for (at, subject) in binding.subjects.iter().enumerate() {
            let (index, key) = self.named(subject);
            index.entry(key).or_default().entry(name.to_owned()).or_insert(at);
        }
        self.bindings.insert(name.to_owned(), binding);
    }

    /// The bindings that name the requester, and the subject by which they do. One that names it twice comes twice.
    fn of<'a>(
        &'a self,
        who: Requester<'a>,
    ) -> impl Iterator<Item = (&'a str, &'a Binding, &'a Subject)> + 'a {
        let groups = who.groups.iter().filter_map(|group| self.groups.get(group));
        self.users.get(who.name).into_iter().chain(groups).flatten().filter_map(|(name, at)| {
            let binding = self.bindings.get(name)?;
            Some((name.as_str(), binding, binding.subjects.get(*at)?))
        })
    }
}

/// Why a request is allowed. Its text is upstream's.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// "" for a ClusterRoleBinding.
    pub namespace: &'a str,
    pub name: &'a str,
    pub binding: &'a Binding,
    pub subject: &'a Subject,
}

impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self.namespace {
            "" => ("ClusterRoleBinding", self.name.to_owned()),
            namespace => ("RoleBinding", format!("{}/{namespace}", self.name)),
        };
        let Binding { role, role_name, .. } = self.binding;
        write!(f, "RBAC: allowed by {kind} {name:?} of {} {role_name:?} to {}", role.as_str(), self.subject)
    }
}

/// A role that a binding of the requester refers to and that is not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingRole {
    kind: &'static str,
    name: String,
}

impl fmt::Display for MissingRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{GROUP} {:?} not found", self.kind, self.name)
    }
}

impl MissingRole {
    fn of(binding: &Binding) -> MissingRole {
        let kind = match binding.role {
            RoleKind::Role => "role",
            RoleKind::ClusterRole => "clusterrole",
        };
        MissingRole { kind, name: binding.role_name.clone() }
    }
}

/// All that somebody may do in a place.
#[derive(Debug, Default)]
pub struct Held {
    pub rules: Vec<Rule>,
    pub missing: BTreeSet<MissingRole>,
}

/// Every role and binding of a cluster.
#[derive(Debug, Default)]
pub struct Index {
    places: HashMap<String, Place>,
}

impl Index {
    /// Puts a Role of `namespace`, or with "" a ClusterRole, in place of what was there.
    pub fn set_role(&mut self, namespace: &str, name: &str, rules: Arc<[Rule]>) {
        self.place(namespace).roles.insert(name.to_owned(), rules);
    }

    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        self.change(namespace, |place| drop(place.roles.remove(name)));
    }

    /// Puts a RoleBinding of `namespace`, or with "" a ClusterRoleBinding, in place of what was there.
    pub fn set_binding(&mut self, namespace: &str, name: &str, binding: Binding) {
        self.place(namespace).bind(name, binding);
    }

    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        self.change(namespace, |place| place.unbind(name));
    }

    fn place(&mut self, namespace: &str) -> &mut Place {
        self.places.entry(namespace.to_owned()).or_default()
    }

    fn change(&mut self, namespace: &str, change: impl FnOnce(&mut Place)) {
        let Some(place) = self.places.get_mut(namespace) else { return };
        change(place);
        if place.is_empty() {
            self.places.remove(namespace);
        }
    }

    /// The rules of a role that a binding in `namespace` may refer to.
    pub fn role(&self, kind: RoleKind, namespace: &str, name: &str) -> Option<&Arc<[Rule]>> {
        let place = match kind {
            RoleKind::Role => namespace,
            RoleKind::ClusterRole => "",
        };
        self.places.get(place)?.roles.get(name)
    }

    /// The places a request looks at: the cluster, then its namespace.
    fn places<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a str, &'a Place)> + 'a {
        let own = Some(namespace).filter(|namespace| !namespace.is_empty());
        std::iter::once("").chain(own).filter_map(|name| Some((name, self.places.get(name)?)))
    }

    /// The grant that allows a request.
    ///
    /// # Errors
    /// Nothing does; with the roles that might have and are not there.
    pub fn decide<'a>(
        &'a self,
        who: Requester<'a>,
        request: &Request<'a>,
    ) -> Result<Grant<'a>, BTreeSet<MissingRole>> {
        let mut missing = BTreeSet::new();
        let namespace = match request.target {
            Target::Resource { namespace, .. } => namespace,
            Target::Path(_) => "",
        };
        for (namespace, place) in self.places(namespace) {
            for (name, binding, subject) in place.of(who) {
                match self.role(binding.role, namespace, &binding.role_name) {
                    Some(rules) if rules.iter().any(|rule| rule.allows(request)) => {
                        return Ok(Grant { namespace, name, binding, subject });
                    }
                    Some(_) => {}
                    None => drop(missing.insert(MissingRole::of(binding))),
                }
            }
        }
        Err(missing)
    }

    /// All rules the requester holds in `namespace` ("" for the cluster's alone), each role's once.
    pub fn held(&self, who: Requester<'_>, namespace: &str) -> Held {
        let mut held = Held::default();
        let mut seen = BTreeSet::new();
        for (namespace, place) in self.places(namespace) {
            for (_, binding, _) in place.of(who) {
                let place = if binding.role == RoleKind::Role { namespace } else { "" };
                if !seen.insert((place, binding.role_name.as_str())) {
                    continue;
                }
                match self.role(binding.role, namespace, &binding.role_name) {
                    Some(rules) => held.rules.extend(rules.iter().cloned()),
                    None => drop(held.missing.insert(MissingRole::of(binding))),
                }
            }
        }
        held
    }
}
