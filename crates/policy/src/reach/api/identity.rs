//! The pod's own identity: the token that is mounted in its containers.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;

use super::{Claim, Question};
use crate::rbac::Requester;

/// Somebody whom the API server knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    pub name: String,
    pub groups: Vec<String>,
}

impl Identity {
    pub fn account(namespace: &str, name: &str) -> Identity {
        let groups = [
            "system:serviceaccounts",
            &format!("system:serviceaccounts:{namespace}"),
            "system:authenticated",
        ];
        Identity {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: groups.map(str::to_owned).to_vec(),
        }
    }

    pub fn requester(&self) -> Requester<'_> {
        Requester { name: &self.name, groups: &self.groups }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Where admission mounts a token.
const USUAL: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The first container that runs beside the others and has a token for the API server, and the path.
fn token_holder(pod: &Pod) -> Option<(String, String)> {
    let spec = pod.spec.as_ref()?;
    let token_of = |volume: &str| {
        let projected = spec.volumes.iter().flatten().filter(|one| one.name == volume);
        let sources = projected.filter_map(|one| one.projected.as_ref()?.sources.as_ref()).flatten();
        // Another audience's token opens nothing here.
        let mut tokens = sources.filter_map(|source| source.service_account_token.as_ref());
        tokens.find(|token| token.audience.is_none()).map(|token| token.path.clone())
    };
    let mut running = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    running.find_map(|container| {
        let mut mounts = container.volume_mounts.iter().flatten();
        let path =
            mounts.find_map(|mount| Some(format!("{}/{}", mount.mount_path, token_of(&mount.name)?)))?;
        Some((container.name.clone(), path))
    })
}

/// Whether the pod holds a token, and whose.
pub(super) fn claim(pod: &Pod) -> (Claim, Option<Identity>) {
    let spec = pod.spec.clone().unwrap_or_default();
    let account =
        spec.service_account_name.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".into());
    let who = Identity::account(pod.metadata.namespace.as_deref().unwrap_or("default"), &account);
    let holder = token_holder(pod);
    let (container, path) = holder.clone().unwrap_or_else(|| {
        let first = spec.containers.first().map(|container| container.name.clone());
        (first.unwrap_or_default(), USUAL.to_owned())
    });
    let question = Question::Token { container, path };
    let because = match (&holder, spec.automount_service_account_token) {
        (Some((container, _)), _) => format!("a token is mounted in container {container}"),
        (None, Some(false)) => "automountServiceAccountToken: false".to_owned(),
        (None, _) => "no token is mounted: automountServiceAccountToken of the ServiceAccount".to_owned(),
    };
    let of_pod = Claim {
        target: format!("the API server as {who}"),
        because,
        remedy: Some("automountServiceAccountToken: false, where nothing in the pod talks to the API server"),
        ..super::claim("token", question, holder.is_some())
    };
    (of_pod, holder.map(|_| who))
}
