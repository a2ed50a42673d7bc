//! `delete`: objects by name, by label or by manifest, waiting until they are gone.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use futures::StreamExt;
use kube::{Client, core::WatchEvent};
use serde_json::{Value, json};

use super::duration;
use super::manifests;
use super::out;
use super::remote::{self, Remote, Resource, explain, report, request, while_doing, with_query};

const JSON: &str = "application/json";

#[derive(Args, Debug, Default)]
#[command(after_help = "Examples:
  cofferdam delete -f pod.yaml
  cofferdam delete pod web --now
  cofferdam delete deployments -l app=web --wait=false")]
pub struct DeleteArgs {
    /// TYPE[,TYPE...] NAME... or TYPE/NAME...
    #[arg(value_name = "TYPE[/NAME]")]
    pub what: Vec<String>,
    /// The objects that these manifests name (a file, a directory, - for standard input).
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    pub filename: Vec<String>,
    /// Directories below too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Where to look [default: default].
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Objects with these labels.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// All objects of the type in the namespace.
    #[arg(long)]
    pub all: bool,
    /// Return when the objects are gone.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub wait: bool,
    /// How long to wait (`30s`, `5m`); 0 for as long as it takes.
    #[arg(long, default_value = "0s", value_parser = duration::parse)]
    pub timeout: Duration,
    /// Give containers one second to end.
    #[arg(long)]
    pub now: bool,
    /// Take the object away without waiting for its containers; with --grace-period 0.
    #[arg(long)]
    pub force: bool,
    /// Seconds that containers have to end; -1 for what the pod says.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// What becomes of objects that this one owns.
    #[arg(long, value_parser = ["background", "foreground", "orphan"], default_value = "background")]
    pub cascade: String,
    /// An object that is not there is no error.
    #[arg(long)]
    pub ignore_not_found: bool,
}

/// Returns the exit code.
pub async fn delete(client: Client, args: DeleteArgs) -> Result<i32> {
    report(run(client, &args, &mut out::stdout()).await)
}

/// One object that is to go.
struct Doomed<'a> {
    resource: &'a Resource,
    namespace: String,
    name: String,
    uid: String,
    source: Option<String>,
}

/// Writes what standard output gets to `out`.
pub(super) async fn run(client: Client, args: &DeleteArgs, out: &mut impl Write) -> Result<i32> {
    let grace = grace(args)?;
    if args.all && args.selector.is_some() {
        bail!("error: setting 'all' parameter but found a non empty selector. ");
    }
    let files = manifests::read_all(&args.filename, args.recursive)?;
    let remote = Remote::discover(client).await?;
    let mut doomed = Vec::new();
    for manifest in &files {
        let (resource, namespace, name) = manifest.target(&remote, args.namespace.as_deref())?;
        let source = Some(manifest.source.clone());
        doomed.push(Doomed { resource, namespace, name, uid: String::new(), source });
    }
    if args.filename.is_empty() {
        doomed.extend(by_words(&remote, args).await?);
    }
    if args.force && grace == Some(0) {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The \
             resource may continue to run on the cluster indefinitely."
        );
    }
    let mut code = 0;
    let mut going = Vec::new();
    for mut object in doomed {
        match one(&remote, args, grace, &object).await {
            Ok(uid) => {
                let how = if args.force { "force deleted" } else { "deleted" };
                writeln!(out, "{} {:?} {how}", object.resource.prefix(), object.name)?;
                object.uid = uid;
                going.push(object);
            }
            Err(error) if args.ignore_not_found && remote::reason(&error) == "NotFound" => {}
            Err(error) => {
                eprintln!("{error:#}");
                code = 1;
            }
        }
    }
    if args.wait && !going.is_empty() {
        let all = async {
            for object in &going {
                gone(&remote, object).await?;
            }
            Ok::<(), anyhow::Error>(())
        };
        match args.timeout {
            Duration::ZERO => all.await?,
            limit => match tokio::time::timeout(limit, all).await {
                Ok(result) => result?,
                Err(_) => bail!("error: timed out waiting for the condition on {}", first_left(&going)),
            },
        }
    }
    Ok(code)
}

fn first_left(going: &[Doomed<'_>]) -> String {
    going.first().map_or_else(String::new, |object| format!("{}/{}", object.resource.plural, object.name))
}

/// Seconds of grace to ask for, none for the object's own.
fn grace(args: &DeleteArgs) -> Result<Option<i64>> {
    match (args.now, args.force, args.grace_period) {
        (true, _, period) if period != -1 => {
            bail!("error: --now and --grace-period cannot be specified together")
        }
        (true, _, _) => Ok(Some(1)),
        (_, true, period) if period > 0 => {
            bail!("error: --force and --grace-period greater than 0 cannot be specified together")
        }
        (_, true, _) => Ok(Some(0)),
        // Zero without force would leave the containers behind; kubectl waits a second instead.
        (_, false, 0) => Ok(Some(1)),
        (_, _, period) if period < 0 => Ok(None),
        (_, _, period) => Ok(Some(period)),
    }
}

async fn by_words<'a>(remote: &'a Remote, args: &DeleteArgs) -> Result<Vec<Doomed<'a>>> {
    let mut out = Vec::new();
    for (resource, name) in remote.targets(&args.what)? {
        let namespace = if resource.namespaced {
            remote.namespace(args.namespace.as_deref()).to_owned()
        } else {
            String::new()
        };
        let doomed = |name: &str| Doomed {
            resource,
            namespace: namespace.clone(),
            name: name.to_owned(),
            uid: String::new(),
            source: None,
        };
        match name {
            Some(name) => out.push(doomed(&name)),
            None if !args.all && args.selector.is_none() => {
                bail!("error: resource(s) were provided, but no name was specified")
            }
            None => {
                let query: Vec<(&str, &str)> =
                    args.selector.iter().map(|s| ("labelSelector", s.as_str())).collect();
                let list = remote.list(&resource.path(Some(&namespace)), &query, JSON).await?;
                for item in list["items"].as_array().into_iter().flatten() {
                    out.push(doomed(item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("")));
                }
                if out.is_empty() {
                    eprintln!("No resources found");
                }
            }
        }
    }
    Ok(out)
}

/// Deletes; returns the uid of what was there.
async fn one(remote: &Remote, args: &DeleteArgs, grace: Option<i64>, object: &Doomed<'_>) -> Result<String> {
    let path = format!("{}/{}", object.resource.path(Some(&object.namespace)), object.name);
    let policy = match args.cascade.as_str() {
        "foreground" => "Foreground",
        "orphan" => "Orphan",
        _ => "Background",
    };
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
    if let Some(seconds) = grace {
        options["gracePeriodSeconds"] = seconds.into();
    }
    let answer = remote
        .send("DELETE", &path, &[("content-type", JSON), ("accept", JSON)], serde_json::to_vec(&options)?)
        .await
        .map_err(|error| match &object.source {
            Some(source) => while_doing(error, format!("error when deleting {source:?}")),
            None => error,
        })?;
    let uid =
        ["/metadata/uid", "/details/uid"].iter().find_map(|p| answer.pointer(p)).and_then(Value::as_str);
    Ok(uid.unwrap_or("").to_owned())
}

/// Waits until the object, or at least this object of that name, is no more.
async fn gone(remote: &Remote, object: &Doomed<'_>) -> Result<()> {
    let path = object.resource.path(Some(&object.namespace));
    let only = ("fieldSelector", format!("metadata.name={}", object.name));
    let same = |found: &Value| {
        let uid = found.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or("");
        object.uid.is_empty() || uid == object.uid
    };
    loop {
        let list = remote.get(&with_query(&path, std::slice::from_ref(&only)), JSON).await?;
        if !list["items"].as_array().is_some_and(|items| items.iter().any(same)) {
            return Ok(());
        }
        let from = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("").to_owned();
        let query = [only.clone(), ("watch", "true".into()), ("resourceVersion", from)];
        let request = request("GET", &with_query(&path, &query), &[("accept", JSON)], Vec::new())?;
        let events = remote.client.request_events::<Value>(request).await.map_err(explain)?;
        let mut events = std::pin::pin!(events);
        // A watch that ends, or is too old, begins again with the list.
        while let Some(event) = events.next().await.transpose().map_err(explain)? {
            match event {
                WatchEvent::Deleted(found) if same(&found) => return Ok(()),
                WatchEvent::Error(_) => break,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_that_is_asked_for() {
        let args =
            |now, force, grace_period| DeleteArgs { now, force, grace_period, ..DeleteArgs::default() };
        assert_eq!(grace(&args(false, false, -1)).unwrap(), None);
        assert_eq!(grace(&args(false, false, 5)).unwrap(), Some(5));
        assert_eq!(grace(&args(false, false, 0)).unwrap(), Some(1));
        assert_eq!(grace(&args(true, false, -1)).unwrap(), Some(1));
        assert_eq!(grace(&args(false, true, -1)).unwrap(), Some(0));
        assert_eq!(grace(&args(false, true, 0)).unwrap(), Some(0));
        assert!(grace(&args(false, true, 5)).is_err());
        assert!(grace(&args(true, false, 5)).is_err());
    }
}
