//! What of the cluster the answer depends on.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use policy::pod_security::{Level, Policy};
use policy::rbac::{Binding, Index, Rule};
use policy::reach::api::{Place, World};

use crate::cli::netpol::objects::{Objects, all};
use crate::cluster::layout::Layout;

pub struct Known {
    pub network: Objects,
    rbac: Index,
    namespaces: Vec<Place>,
}

impl Known {
    pub async fn fetch(layout: &Layout, client: &kube::Client) -> Result<Known> {
        let network = Objects::fetch(client).await?;
        let mut rbac = Index::default();
        let text = |field: Option<String>| field.unwrap_or_default();
        for role in all::<Role>(client).await? {
            rbac.set_role(&text(role.metadata.namespace), &text(role.metadata.name), Rule::list(role.rules));
        }
        for role in all::<ClusterRole>(client).await? {
            rbac.set_role("", &text(role.metadata.name), Rule::list(role.rules));
        }
        for binding in all::<RoleBinding>(client).await? {
            let (namespace, name) = (text(binding.metadata.namespace), text(binding.metadata.name));
            if let Some(binding) = Binding::new(&namespace, binding.role_ref, binding.subjects) {
                rbac.set_binding(&namespace, &name, binding);
            }
        }
        for binding in all::<ClusterRoleBinding>(client).await? {
            if let Some(made) = Binding::new("", binding.role_ref, binding.subjects) {
                rbac.set_binding("", &text(binding.metadata.name), made);
            }
        }
        let mut accounts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for account in all::<ServiceAccount>(client).await? {
            let namespace = accounts.entry(text(account.metadata.namespace)).or_default();
            namespace.push(text(account.metadata.name));
        }
        let config = pod_security(layout)?;
        let namespaces = network.namespaces.iter().map(|namespace| {
            let name = text(namespace.metadata.name.clone());
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            let enforced = match config.exempt_namespaces.contains(&name) {
                true => Level::Privileged,
                false => Policy::of_labels(&labels, config.defaults).0.enforce.level,
            };
            let accounts = accounts.remove(&name).unwrap_or_default();
            Place { name, enforced, accounts }
        });
        let namespaces = namespaces.collect();
        Ok(Known { network, rbac, namespaces })
    }

    pub fn world(&self) -> World<'_> {
        World { rbac: &self.rbac, namespaces: self.namespaces.clone() }
    }
}

/// What the cluster's administrator has decided of namespaces without labels.
fn pod_security(layout: &Layout) -> Result<control::admission::PodSecurityConfig> {
    let path = layout.pod_security();
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            control::admission::PodSecurityConfig::parse(&text).with_context(|| path.display().to_string())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Default::default()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}
