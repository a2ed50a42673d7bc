//! `cofferdam plan`: what a pod's containers would be and may do, without running anything.

use std::{io::Write, path::Path};

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use node::images::ImageStore;
use policy::{
    container::{ContainerInput, MountSource, NamespacePaths, PodFiles, Propagation, VolumeMount},
    node_facts::NodeFacts,
    security_context::{Effective, UserDatabase, containers, resolve, resolve_pod},
};
use serde_json::{Value, json};

use super::manifests::{self, Manifest};
use super::out;
use super::plan_env::{self, Environment, Objects};
use crate::cluster::layout::Layout;

#[derive(Args)]
#[command(
    after_help = "ConfigMaps and Secrets in the same file are read for the environment; what is not known before the pod is \
there is said. Without -o, prints who each container's processes are and who decided it; with -o json, the whole OCI \
runtime Spec too.

Examples:
  cofferdam plan -f pod.yaml
  cofferdam plan -f pod.yaml -o json | jq '.containers[0].spec.process.capabilities'"
)]
pub struct PlanArgs {
    /// A manifest of a pod, or `-` for standard input.
    #[arg(short, long = "filename", value_name = "FILE")]
    file: String,
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

pub fn run(layout: &Layout, args: &PlanArgs) -> Result<()> {
    let (mut pods, mut objects) = (Vec::new(), Objects::default());
    for Manifest { object: value, .. } in manifests::read_all(std::slice::from_ref(&args.file), false)? {
        match (value["apiVersion"].as_str(), value["kind"].as_str()) {
            (Some("v1"), Some("ConfigMap")) => {
                let map: ConfigMap = serde_json::from_value(value).context("the manifest's ConfigMap")?;
                objects.config_maps.insert(map.metadata.name.clone().unwrap_or_default(), map);
            }
            (Some("v1"), Some("Secret")) => {
                let secret = serde_json::from_value(value).context("the manifest's Secret")?;
                objects.add_secret(secret);
            }
            _ => pods.push(value),
        }
    }
    if pods.is_empty() {
        bail!("no Pod in {}: nothing to plan", args.file);
    }
    let mut plans = Vec::new();
    for pod in pods {
        plans.push(plan(layout, pod, &objects)?);
    }
    let mut out = out::stdout();
    for plan in plans {
        if args.output == "json" {
            serde_json::to_writer_pretty(&mut out, &plan.json())?;
            writeln!(out)?;
        } else {
            plan.write(&mut out)?;
        }
    }
    Ok(())
}

struct Plan {
    name: String,
    containers: Vec<ContainerPlan>,
}

struct ContainerPlan {
    name: String,
    image: String,
    image_known: bool,
    effective: Effective,
    environment: Environment,
    spec: Value,
}

fn plan(layout: &Layout, mut object: Value, objects: &Objects) -> Result<Plan> {
    let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
    if (version, kind) != (Some("v1"), Some("Pod")) {
        bail!(
            "a plan is made of a Pod of v1 (with the ConfigMaps and Secrets it uses beside it), not of a {} of {}",
            kind.unwrap_or("?"),
            version.unwrap_or("?")
        );
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if let Some(ty) = api::schema::by_kind("v1", "Pod") {
        // The words that the API server has for the same.
        for unknown in
            api::strict::conform(&mut object, ty).map_err(|why| anyhow::anyhow!("Pod {name}: {why}"))?
        {
            out::complain(format_args!("warning: Pod {name}: {unknown}"));
        }
    }
    if let Some(resource) = api::registry::by_kind("v1", "Pod") {
        api::defaults::apply(resource, &mut object);
    }
    let pod: Pod = serde_json::from_value(object).context("the manifest is not a Pod")?;
    let facts = NodeFacts::default();
    let pod_effective = resolve_pod(&pod, &facts).map_err(anyhow::Error::msg)?;
    // Looked at where it is; none is made for it.
    let store = layout.images().is_dir().then(|| ImageStore::open(layout.images()).ok()).flatten();
    let mut plans = Vec::new();
    for (kind, container) in containers(&pod) {
        let name = container.image.clone().unwrap_or_default();
        let image = store.as_ref().and_then(|store| store.resolve(&name).ok().flatten());
        let config = image.as_ref().map(|image| image.config.clone()).unwrap_or_default();
        let (passwd, group) = match &image {
            Some(image) => (image.passwd()?, image.group()?),
            None => (None, None),
        };
        let users = UserDatabase { passwd: passwd.as_deref(), group: group.as_deref() };
        let effective =
            resolve(&pod, &container, kind, &config, &users, &facts).map_err(anyhow::Error::msg)?;
        let root = Path::new("/var/lib/cofferdam/pods/UID");
        let mounts: Vec<VolumeMount> = container
            .volume_mounts
            .iter()
            .flatten()
            .map(|mount| VolumeMount {
                source: MountSource::Path(root.join("volumes").join(&mount.name)),
                destination: mount.mount_path.clone().into(),
                read_only: mount.read_only.unwrap_or(false),
                recursive_read_only: matches!(mount.recursive_read_only.as_deref(), Some("Enabled")),
                propagation: match mount.mount_propagation.as_deref() {
                    Some("HostToContainer") => Propagation::HostToContainer,
                    Some("Bidirectional") => Propagation::Bidirectional,
                    _ => Propagation::None,
                },
                nosuid_nodev: true,
            })
            .collect();
        let environment =
            plan_env::environment(&pod, &container, objects, &facts).map_err(anyhow::Error::msg)?;
        let spec = policy::container::spec(&ContainerInput {
            pod: &pod,
            container: &container,
            kind,
            effective: &effective,
            image: &config,
            env: &environment.variables,
            mounts: &mounts,
            hostname: &pod_effective.hostname,
            cgroups_path: &Path::new("/cofferdam/node-1/podUID").join(format!("{}_0", container.name)),
            namespaces: NamespacePaths::default(),
            root: Path::new("rootfs"),
            files: PodFiles::default(),
            seccomp_profile: None,
            node: &facts,
        })
        .map_err(anyhow::Error::msg);
        let spec = match spec {
            Ok(spec) => serde_json::to_value(spec)?,
            // The command may be the image's, which is not here.
            Err(error) if image.is_none() => json!({ "error": error.to_string() }),
            Err(error) => return Err(error),
        };
        plans.push(ContainerPlan {
            name: container.name.clone(),
            image: name,
            image_known: image.is_some(),
            effective,
            environment,
            spec,
        });
    }
    Ok(Plan { name: pod.metadata.name.unwrap_or_default(), containers: plans })
}

impl Plan {
    fn json(&self) -> Value {
        let containers: Vec<Value> = self
            .containers
            .iter()
            .map(|plan| {
                json!({ "name": plan.name, "image": plan.image, "imageKnown": plan.image_known,
                    "effective": plan.effective, "spec": plan.spec, "unknown": plan.environment.unknown })
            })
            .collect();
        json!({ "pod": self.name, "containers": containers })
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        for plan in &self.containers {
            let note = if plan.image_known {
                ""
            } else {
                ", not on this machine: its user and command are not known"
            };
            writeln!(out, "pod {}, container {} (image {}{note})", self.name, plan.name, plan.image)?;
            let fields = serde_json::to_value(&plan.effective)?;
            for (name, field) in fields.as_object().into_iter().flatten() {
                let (value, origin) = match (field.get("value"), field.get("origin")) {
                    (Some(value), Some(origin)) => {
                        (value.clone(), origin.as_str().unwrap_or_default().to_owned())
                    }
                    _ => (field.clone(), String::new()),
                };
                if !value.is_null() {
                    writeln!(out, "  {name:22} {:<10} {}", origin, brief(&value))?;
                }
            }
            for (name, value) in &plan.environment.variables {
                writeln!(out, "  {:22} {:<10} {name}={value}", "environment", "")?;
            }
            for line in &plan.environment.unknown {
                writeln!(out, "  {:22} {:<10} {line}", "not known yet", "")?;
            }
        }
        Ok(())
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => match items.len() {
            0 => "none".into(),
            _ => items.iter().map(brief).collect::<Vec<_>>().join(" "),
        },
        Value::Object(fields) => match (fields.get("value"), fields.get("origin")) {
            (Some(value), Some(origin)) => format!("{} ({})", brief(value), brief(origin)),
            _ => fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", brief(value)))
                .collect::<Vec<_>>()
                .join("\n                                    "),
        },
        other => other.to_string(),
    }
}
