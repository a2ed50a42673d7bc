//! A pod as the checks see it, and paths of fields within it.

use std::fmt;

use k8s_openapi::{
    api::core::v1::{
        ContainerPort, Lifecycle, PodSecurityContext, PodSpec, Probe, SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// A step from an object or a list to what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// A field of an object of the API.
    Field(&'static str),
    /// A key of a map, such as an annotation's.
    Key(String),
    Index(usize),
}

/// From the pod's root to a field, which need not be there: `spec.containers[0].securityContext.privileged`,
/// `metadata.annotations[a/b]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldPath(pub Vec<Segment>);

impl FieldPath {
    pub fn new(fields: &[&'static str]) -> FieldPath {
        FieldPath(fields.iter().map(|field| Segment::Field(field)).collect())
    }

    #[must_use]
    pub fn fields(mut self, fields: &[&'static str]) -> FieldPath {
        self.0.extend(fields.iter().map(|field| Segment::Field(field)));
        self
    }

    #[must_use]
    pub fn index(mut self, at: usize) -> FieldPath {
        self.0.push(Segment::Index(at));
        self
    }

    #[must_use]
    pub fn key(mut self, key: &str) -> FieldPath {
        self.0.push(Segment::Key(key.to_owned()));
        self
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if at == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Key(key) => write!(f, "[{key}]")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A pod, or a pod's template.
#[derive(Clone, Copy)]
pub struct PodView<'a> {
    pub metadata: &'a ObjectMeta,
    pub spec: &'a PodSpec,
}

impl<'a> PodView<'a> {
    pub fn security(&self) -> Option<&'a PodSecurityContext> {
        self.spec.security_context.as_ref()
    }

    pub fn volumes(&self) -> &'a [Volume] {
        self.spec.volumes.as_deref().unwrap_or_default()
    }

    /// In the order of the key.
    pub fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.metadata.annotations.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The pod says that it runs on Windows, where what Linux restricts does not exist.
    pub fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// The pod has a user namespace of its own, so that its root is nobody's root.
    pub fn has_user_namespace(&self) -> bool {
        self.spec.host_users == Some(false)
    }

    /// All containers, in the order in which upstream names them: init (sidecars among them), app, ephemeral.
    pub fn containers(&self) -> impl Iterator<Item = ContainerView<'a>> + use<'a> {
        macro_rules! views {
            ($list:literal, $containers:expr) => {
                $containers.enumerate().map(|(index, container)| ContainerView {
                    list: $list,
                    index,
                    name: &container.name,
                    security: container.security_context.as_ref(),
                    ports: container.ports.as_deref().unwrap_or_default(),
                    probes: [
                        ("livenessProbe", container.liveness_probe.as_ref()),
                        ("readinessProbe", container.readiness_probe.as_ref()),
                        ("startupProbe", container.startup_probe.as_ref()),
                    ],
                    lifecycle: container.lifecycle.as_ref(),
                    image: container.image.as_deref(),
                    mounts: container.volume_mounts.as_deref().unwrap_or_default(),
                })
            };
        }
        let spec = self.spec;
        let init = views!("initContainers", spec.init_containers.iter().flatten());
        let app = views!("containers", spec.containers.iter());
        let ephemeral = views!("ephemeralContainers", spec.ephemeral_containers.iter().flatten());
        init.chain(app).chain(ephemeral)
    }
}

/// A container of any kind.
pub struct ContainerView<'a> {
    list: &'static str,
    index: usize,
    pub name: &'a str,
    pub security: Option<&'a SecurityContext>,
    pub ports: &'a [ContainerPort],
    pub probes: [(&'static str, Option<&'a Probe>); 3],
    pub lifecycle: Option<&'a Lifecycle>,
    pub image: Option<&'a str>,
    pub mounts: &'a [VolumeMount],
}

impl ContainerView<'_> {
    pub fn path(&self, fields: &[&'static str]) -> FieldPath {
        FieldPath::new(&["spec", self.list]).index(self.index).fields(fields)
    }
}
