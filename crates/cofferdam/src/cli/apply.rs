//! `apply`: objects become what the manifests say, as `kubectl apply` on the client side does it: the manifest is kept in
//! an annotation, and the next one changes only what the two manifests differ in.

use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use kube::Client;
use serde_json::{Value, json};

use super::manifests::{self, Manifest};
use super::out;
use super::remote::{self, Remote, Resource, report, while_doing, with_query};
use super::three_way;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const MANAGER: &str = "kubectl-client-side-apply";
const JSON: &str = "application/json";

#[derive(Args, Debug, Default)]
#[command(after_help = "Examples:
  cofferdam apply -f pod.yaml
  cofferdam apply -f manifests/ -R
  cofferdam apply -f pod.yaml --server-side
  cat pod.yaml | cofferdam apply -f -")]
pub struct ApplyArgs {
    /// A file, a directory, or - for standard input; may be given again.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub filename: Vec<String>,
    /// Directories below too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// The namespace of objects that name none.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Say what would be done: `client` asks the server for nothing but what is there, `server` goes through all its
    /// checks.
    #[arg(long, value_enum, default_value = "none")]
    pub dry_run: DryRun,
    /// Let the server merge: it knows who owns which field, and refuses to take one from another owner.
    #[arg(long)]
    pub server_side: bool,
    /// Take fields from other owners.
    #[arg(long, requires = "server_side")]
    pub force_conflicts: bool,
    /// As whom to apply server-side.
    #[arg(long, value_name = "NAME", default_value = "kubectl", requires = "server_side")]
    pub field_manager: String,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DryRun {
    #[default]
    None,
    Client,
    Server,
}

/// Returns the exit code. One manifest that fails does not keep the others from being applied.
pub async fn apply(client: Client, args: ApplyArgs) -> Result<i32> {
    report(run(client, &args, &mut out::stdout()).await)
}

/// Applies manifests that have been read.
pub async fn apply_read(client: Client, manifests: &[Manifest]) -> Result<i32> {
    report(run_read(client, &ApplyArgs::default(), manifests, &mut out::stdout()).await)
}

/// Writes what standard output gets to `out`.
pub(super) async fn run(client: Client, args: &ApplyArgs, out: &mut impl Write) -> Result<i32> {
    let manifests = manifests::read_all(&args.filename, args.recursive)?;
    if manifests.is_empty() {
        bail!("error: no objects passed to apply");
    }
    run_read(client, args, &manifests, out).await
}

async fn run_read(
    client: Client,
    args: &ApplyArgs,
    manifests: &[Manifest],
    out: &mut impl Write,
) -> Result<i32> {
    let remote = Remote::discover(client).await?;
    let mut code = 0;
    for manifest in manifests {
        match one(&remote, args, manifest).await {
            Ok(line) => writeln!(out, "{line}")?,
            Err(error) => {
                eprintln!("{error:#}");
                code = 1;
            }
        }
    }
    Ok(code)
}

async fn one(remote: &Remote, args: &ApplyArgs, manifest: &Manifest) -> Result<String> {
    let (resource, namespace, name) = manifest.target(remote, args.namespace.as_deref())?;
    if name.is_empty() {
        match manifest.object.pointer("/metadata/generateName").and_then(Value::as_str) {
            Some(prefix) => bail!("error: from {prefix}: cannot use generate name with apply"),
            None => bail!(
                "error: error when retrieving current configuration of {:?}: resource name may not be empty",
                manifest.source
            ),
        }
    }
    let collection = resource.path(Some(&namespace));
    let path = format!("{collection}/{name}");
    let suffix = match args.dry_run {
        DryRun::None => "",
        DryRun::Client => " (dry run)",
        DryRun::Server => " (server dry run)",
    };
    let done = |what: &str| format!("{}/{name} {what}{suffix}", resource.prefix());

    if args.server_side {
        server_side(remote, args, &path, manifest).await?;
        return Ok(done("serverside-applied"));
    }
    let modified = prepared(&manifest.object, resource, &namespace)?;
    let current = match remote.get(&path, JSON).await {
        Ok(current) => current,
        Err(error) if remote::reason(&error) == "NotFound" => {
            if args.dry_run != DryRun::Client {
                let query = query(args);
                remote
                    .send(
                        "POST",
                        &with_query(&collection, &query),
                        &[("content-type", JSON)],
                        serde_json::to_vec(&modified)?,
                    )
                    .await
                    .map_err(|e| while_doing(e, format!("error when creating {:?}", manifest.source)))?;
            }
            return Ok(done("created"));
        }
        Err(error) => {
            let doing = format!("error when retrieving current configuration of {:?}", manifest.source);
            return Err(while_doing(error, doing));
        }
    };
    let last =
        current.pointer("/metadata/annotations").and_then(|a| a.get(LAST_APPLIED)).and_then(Value::as_str);
    if last.is_none() {
        eprintln!(
            "Warning: resource {}/{name} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. kubectl \
             apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl \
             apply. The missing annotation will be patched automatically.",
            resource.plural
        );
    }
    let original: Option<Value> = last.map(serde_json::from_str).transpose().with_context(|| {
        format!("error: the annotation {LAST_APPLIED} of {}/{name} is not JSON", resource.prefix())
    })?;
    let kind = api::schema::by_kind(&resource.api_version(), &resource.kind);
    let patch = three_way::patch(original.as_ref(), &modified, &current, kind);
    if patch == json!({}) {
        return Ok(done("unchanged"));
    }
    if args.dry_run != DryRun::Client {
        let content = match kind {
            Some(_) => "application/strategic-merge-patch+json",
            None => "application/merge-patch+json",
        };
        remote
            .send(
                "PATCH",
                &with_query(&path, &query(args)),
                &[("content-type", content)],
                serde_json::to_vec(&patch)?,
            )
            .await
            .map_err(|e| {
                while_doing(e, format!("error when applying patch:\n{patch}\nfor: {:?}", manifest.source))
            })?;
    }
    Ok(done("configured"))
}

/// The server does it all; what it refuses for other owners' sake can be taken, or left to them.
async fn server_side(remote: &Remote, args: &ApplyArgs, path: &str, manifest: &Manifest) -> Result<()> {
    if args.dry_run == DryRun::Client {
        bail!(
            "error: --dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)"
        );
    }
    let mut query = query(args);
    query.retain(|(name, _)| *name != "fieldManager");
    query.push(("fieldManager", args.field_manager.clone()));
    query.push(("force", args.force_conflicts.to_string()));
    let headers = [("content-type", api::patch::APPLY)];
    let body = serde_json::to_vec(&manifest.object)?;
    match remote.send("PATCH", &with_query(path, &query), &headers, body).await {
        Ok(_) => Ok(()),
        Err(error) if remote::reason(&error) == "Conflict" => Err(error.context(
            "others own fields that the manifest would change: leave these out of it, or take them with --force-conflicts",
        )),
        Err(error) => Err(while_doing(error, format!("error when applying {:?}", manifest.source))),
    }
}

fn query(args: &ApplyArgs) -> Vec<(&'static str, String)> {
    let mut query = vec![("fieldManager", MANAGER.to_owned()), ("fieldValidation", "Strict".to_owned())];
    if args.dry_run == DryRun::Server {
        query.push(("dryRun", "All".to_owned()));
    }
    query
}

/// The manifest with its namespace and with itself in the annotation, byte for byte as kubectl writes it, so that the two
/// programs can take turns.
fn prepared(manifest: &Value, resource: &Resource, namespace: &str) -> Result<Value> {
    let mut object = manifest.clone();
    let Some(root) = object.as_object_mut() else { bail!("error: the manifest is not an object") };
    // What only the server writes is no wish of the user's.
    root.remove("status");
    let metadata = root.entry("metadata").or_insert_with(|| json!({}));
    let Some(metadata) = metadata.as_object_mut() else { bail!("error: metadata is not an object") };
    if resource.namespaced {
        metadata.insert("namespace".into(), namespace.into());
    }
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    let Some(annotations) = annotations.as_object_mut() else {
        bail!("error: metadata.annotations is not an object")
    };
    annotations.remove(LAST_APPLIED);
    let text = format!("{}\n", serde_json::to_string(&object)?);
    object["metadata"]["annotations"][LAST_APPLIED] = text.into();
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_kept_as_kubectl_keeps_it() {
        let pods = Resource {
            group: String::new(),
            version: "v1".into(),
            kind: "Pod".into(),
            plural: "pods".into(),
            singular: "pod".into(),
            short_names: vec![],
            categories: vec![],
            namespaced: true,
            listable: true,
        };
        let manifest = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}, "status": {}});
        let object = prepared(&manifest, &pods, "default").expect("a manifest");
        let kept = object["metadata"]["annotations"][LAST_APPLIED].as_str().expect("the annotation");
        assert_eq!(
            kept,
            "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"annotations\":{},\"name\":\"a\",\"namespace\":\"default\"}}\n"
        );
        assert!(object.get("status").is_none());
        // Applying what was kept keeps the same.
        let again: Value = serde_json::from_str(kept).expect("JSON");
        assert_eq!(prepared(&again, &pods, "default").expect("a manifest"), object);
    }
}
