//! Whether a request may be made. Asked in turn, as upstream asks with `--authorization-mode=Node,RBAC`: members of
//! `system:masters` may do everything; a node may do what a node needs, and read what the pods bound to it refer to
//! ([`node`]); everybody may do what a role that is bound to them says ([`policy::rbac`]). What nobody allows is refused.
//!
//! What it decides by is never older than the last acknowledged write: before each decision it takes in what the store has
//! published since the one before ([`state`]), which costs by the change and not by the cluster.

pub mod bootstrap;
mod escalation;
mod graph;
mod node;
mod roles;
mod state;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{ApiError, field::quote};
use policy::rbac::{Held, Request, Requester, RoleKind, Rule, Target};

use crate::{apiserver::User, store::Store};
use state::State;

pub use escalation::Written;
pub use graph::{Kind as Referred, references};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub request: Request<'a>,
    /// What a list's field selector requires of `spec.nodeName`; "" for nothing.
    pub selected_node: &'a str,
}

/// The answer and why it was given, in upstream's words; "" where there is nothing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allowed(String),
    Refused(String),
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allowed(_))
    }
}

/// Decides; shared by every request.
pub struct Authorizer {
    store: Store,
    state: Mutex<State>,
}

fn requester(user: &User) -> Requester<'_> {
    Requester { name: &user.name, groups: &user.groups }
}

impl Authorizer {
    pub fn new(store: &Store) -> Authorizer {
        Authorizer { store: store.clone(), state: Mutex::new(State::read(store)) }
    }

    /// The state as of the last acknowledged write.
    fn current(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.catch_up().is_err() {
            // More has happened since the last decision than the store keeps for one who lags.
            *state = State::read(&self.store);
        }
        state
    }

    pub fn decide(&self, user: &User, question: &Question<'_>) -> Decision {
        if user.is_master() {
            return Decision::Allowed(String::new());
        }
        let state = self.current();
        let mut reasons = Vec::new();
        if let Some(node) = user.node_name() {
            match node::decide(&state.graph, node, question) {
                Ok(()) => return Decision::Allowed(String::new()),
                Err(why) => reasons.extend((!why.is_empty()).then_some(why)),
            }
        }
        let missing = match state.index.decide(requester(user), &question.request) {
            Ok(grant) => return Decision::Allowed(grant.to_string()),
            Err(missing) => missing,
        };
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        match missing.as_slice() {
            [] => {}
            [one] => reasons.push(format!("RBAC: {one}")),
            many => reasons.push(format!("RBAC: [{}]", many.join(", "))),
        }
        Decision::Refused(reasons.join("\n"))
    }

    /// Lets pass what is allowed, and says why.
    ///
    /// # Errors
    /// Forbidden, in upstream's words.
    pub fn authorize(&self, user: &User, question: &Question<'_>) -> Result<String, ApiError> {
        match self.decide(user, question) {
            Decision::Allowed(why) => Ok(why),
            Decision::Refused(why) => Err(refusal(user, &question.request, &why)),
        }
    }

    /// All rules that roles give the user in a namespace, or with "" in the cluster.
    pub fn held(&self, user: &User, namespace: &str) -> Held {
        self.current().index.held(requester(user), namespace)
    }

    /// The rules of a role that a binding in `namespace` may refer to.
    fn role(&self, kind: RoleKind, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        self.current().index.role(kind, namespace, name).cloned()
    }
}

fn refusal(user: &User, request: &Request<'_>, why: &str) -> ApiError {
    let (name, verb) = (quote(&user.name), request.verb);
    let (resource, object, what) = match request.target {
        Target::Path(path) => (("", ""), "", format!("User {name} cannot {verb} path {}", quote(path))),
        Target::Resource { group, resource, subresource, namespace, name: object } => {
            let whole = match subresource {
                "" => resource.to_owned(),
                sub => format!("{resource}/{sub}"),
            };
            let place = match namespace {
                "" => " at the cluster scope".to_owned(),
                namespace => format!(" in the namespace {}", quote(namespace)),
            };
            let (whole, group_name) = (quote(&whole), quote(group));
            let what = format!("User {name} cannot {verb} resource {whole} in API group {group_name}{place}");
            ((group, resource), object, what)
        }
    };
    let what = if why.is_empty() { what } else { format!("{what}: {why}") };
    ApiError::forbidden(resource, object, &what)
}
