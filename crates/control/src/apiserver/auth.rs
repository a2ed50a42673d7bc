//! Who asks, and what a request asks of whom: the words in which [`crate::authorization`] is asked.

use std::collections::BTreeMap;

use api::{ApiError, registry::Resource};
use policy::rbac::{Request, Target};

use super::{
    ApiServer,
    request::{Asked, Query, Route, Verb},
    select::Selection,
};
use crate::{authorization::Question, tokens};

/// An authenticated client, or nobody in particular ([`User::anonymous`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// "" where the credentials name none.
    pub uid: String,
    pub groups: Vec<String>,
    /// What the credentials say beside who it is.
    pub extra: BTreeMap<String, Vec<String>>,
}

const MASTERS: &str = "system:masters";
const NODES: &str = "system:nodes";

impl User {
    pub const ANONYMOUS: &str = "system:anonymous";
    pub const AUTHENTICATED: &str = "system:authenticated";
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";

    /// `groups` are those its credentials name; `system:authenticated` is added.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> User {
        let mut groups: Vec<String> = groups.into_iter().collect();
        groups.push(User::AUTHENTICATED.into());
        User { name: name.into(), uid: String::new(), groups, extra: BTreeMap::new() }
    }

    /// Whoever says nothing of itself.
    pub fn anonymous() -> User {
        User {
            name: User::ANONYMOUS.into(),
            uid: String::new(),
            groups: vec![User::UNAUTHENTICATED.into()],
            extra: BTreeMap::new(),
        }
    }

    /// The administrator behind the admin socket.
    pub fn admin() -> User {
        User::new("system:admin", [MASTERS.into()])
    }

    /// The ServiceAccount `name` of `namespace`.
    pub fn of_account(namespace: &str, name: &str) -> User {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        User::new(tokens::account_name(namespace, name), groups)
    }

    /// The agent of the node `name`.
    pub fn node(name: &str) -> User {
        User::new(format!("system:node:{name}"), [NODES.into()])
    }

    /// A part of the control process itself that may do everything, such as `system:apiserver`.
    pub fn component(name: &str) -> User {
        User::new(name, [MASTERS.into()])
    }

    /// The name that the part of the control process behind this user has as a program, as upstream's binaries are named: what it
    /// writes is that one's in `metadata.managedFields`.
    pub fn program(&self) -> &'static str {
        match self.name.as_str() {
            "system:apiserver" => "kube-apiserver",
            "system:kube-scheduler" => "kube-scheduler",
            name if name == "system:kube-controller-manager"
                || name.starts_with("system:serviceaccount:kube-system:") =>
            {
                "kube-controller-manager"
            }
            _ => "cofferdam",
        }
    }

    /// May do everything.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }

    /// The node whose agent this is.
    pub fn node_name(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:").filter(|name| !name.is_empty())?;
        self.groups.iter().any(|group| group == NODES).then_some(name)
    }
}

/// What anybody may ask without saying who it is, as an AuthenticationConfiguration with these conditions for anonymous
/// requests; whether the answer is yes, the roles say.
pub fn is_public(path: &str) -> bool {
    matches!(path, "/healthz" | "/livez" | "/readyz" | "/version")
}

/// The name and the node that a list or a watch selects by fields; "" for none.
fn selected(route: &Route, query: &Query) -> (String, String) {
    if !matches!(route.verb, Verb::List | Verb::Watch) || query.find("fieldSelector").is_none() {
        return (String::new(), String::new());
    }
    // One that cannot be read selects nothing here, and is refused when it is used.
    let Ok(selection) = Selection::parse(route.resource, query) else { return Default::default() };
    let own = |text: Option<&str>| text.unwrap_or_default().to_owned();
    (own(selection.name()), own(selection.requires("spec.nodeName")))
}

impl ApiServer {
    /// Whether `user` may do what `route` says; why it may.
    ///
    /// # Errors
    /// Forbidden, in upstream's words.
    pub(super) fn authorize(&self, user: &User, route: &Route, query: &Query) -> Result<String, ApiError> {
        if user.is_master() {
            return Ok(String::new());
        }
        let (name, node) = selected(route, query);
        let name = if route.name.is_empty() { &name } else { &route.name };
        // A namespace lies in itself, so that a role within it can let it be read.
        let is_namespace = (route.resource.group, route.resource.plural) == ("", "namespaces");
        let namespace = if is_namespace { &route.name } else { &route.namespace };
        let target = resource_target(route.resource, route.subresource_name(), namespace, name);
        let request = Request { verb: route.verb.as_str(), target };
        self.authorizer.authorize(user, &Question { request, selected_node: &node })
    }

    /// The same for what is not served: judged by its address alone.
    ///
    /// # Errors
    /// Forbidden, in upstream's words.
    pub(super) fn authorize_asked(&self, user: &User, asked: &Asked) -> Result<String, ApiError> {
        let target = Target::Resource {
            group: &asked.group,
            resource: &asked.resource,
            subresource: &asked.subresource,
            namespace: &asked.namespace,
            name: &asked.name,
        };
        let request = Request { verb: asked.verb, target };
        self.authorizer.authorize(user, &Question { request, selected_node: "" })
    }

    /// The same for a path that is no resource's.
    ///
    /// # Errors
    /// Forbidden, in upstream's words.
    pub(super) fn authorize_path(
        &self,
        user: &User,
        method: &http::Method,
        path: &str,
    ) -> Result<String, ApiError> {
        let verb = method.as_str().to_ascii_lowercase();
        let request = Request { verb: &verb, target: Target::Path(path) };
        self.authorizer.authorize(user, &Question { request, selected_node: "" })
    }

    /// Whether `user` may also create what `route` names: an update of what is not there makes it.
    ///
    /// # Errors
    /// Forbidden, in upstream's words.
    pub(super) fn authorize_create(&self, user: &User, route: &Route) -> Result<(), ApiError> {
        let target = resource_target(route.resource, route.subresource_name(), &route.namespace, &route.name);
        let request = Request { verb: "create", target };
        self.authorizer.authorize(user, &Question { request, selected_node: "" }).map(drop)
    }

    /// A stream that a GET opens (WebSocket) is as good as one that a POST opens, and needs the verb `create` too.
    ///
    /// # Errors
    /// Forbidden, in upstream's words.
    pub(super) fn authorize_stream(&self, user: &User, route: &Route) -> Result<(), ApiError> {
        match route.verb {
            Verb::Create => Ok(()),
            _ => self.authorize_create(user, route),
        }
    }
}

fn resource_target<'a>(
    resource: &'a Resource,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
) -> Target<'a> {
    Target::Resource { group: resource.group, resource: resource.plural, subresource, namespace, name }
}
