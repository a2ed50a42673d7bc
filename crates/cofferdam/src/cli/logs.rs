//! `logs`: what a container wrote, and what it goes on writing.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::AsyncReadExt;
use kube::Client;

use super::duration;
use super::out;
use super::pods::{self, Chosen};
use super::remote::{self, Remote, explain, report, request, with_query};

#[derive(Args, Debug, Default)]
#[command(after_help = "Examples:
  cofferdam logs web -f --tail 20
  cofferdam logs deployment/web -c sidecar
  cofferdam logs web --previous")]
pub struct LogsArgs {
    /// POD or TYPE/NAME
    #[arg(value_name = "POD|TYPE/NAME")]
    pub what: String,
    /// The container, as with -c.
    #[arg(value_name = "CONTAINER")]
    pub positional: Option<String>,
    /// Which container; by default the one that the pod names as such, else its first.
    #[arg(short, long)]
    pub container: Option<String>,
    /// Where to look [default: default].
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Go on until the container ends.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines; -1 for all.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub tail: i64,
    /// Only lines newer than this: `5s`, `2m`, `3h`.
    #[arg(long, value_parser = duration::parse)]
    pub since: Option<Duration>,
    /// Only lines after this time (RFC 3339).
    #[arg(long, conflicts_with = "since")]
    pub since_time: Option<String>,
    /// Of the container's run before this one.
    #[arg(short, long)]
    pub previous: bool,
    /// The time before each line.
    #[arg(long)]
    pub timestamps: bool,
    /// Of every container, one after the other.
    #[arg(long)]
    pub all_containers: bool,
    /// At most so many bytes.
    #[arg(long)]
    pub limit_bytes: Option<u64>,
}

/// Returns the exit code.
pub async fn logs(client: Client, args: LogsArgs) -> Result<i32> {
    report(run(client, &args).await)
}

async fn run(client: Client, args: &LogsArgs) -> Result<i32> {
    let remote = Remote::discover(client).await?;
    let namespace = remote.namespace(args.namespace.as_deref()).to_owned();
    let pod = match pods::choose(&remote, &namespace, &args.what).await {
        Err(error) if remote::reason(&error) == "NotFound" => {
            let error = error.to_string().replacen("Error from server", "error: error from server", 1);
            bail!("{error} in namespace {namespace:?}")
        }
        chosen => chosen?,
    };
    if pod.of > 1 {
        eprintln!("Found {} pods, using pod/{}", pod.of, pod.name);
    }
    if let Some(given) = args.container.as_deref().or(args.positional.as_deref())
        && !pod.all_containers().iter().any(|name| name == given)
    {
        bail!("error: container {given} is not valid for pod {}", pod.name);
    }
    if args.all_containers {
        let containers = pod.all_containers();
        // Followed ones interleave; each line stays whole.
        let streams = containers.iter().map(|name| stream(&remote, args, &namespace, &pod, name));
        if args.follow {
            futures::future::try_join_all(streams).await?;
        } else {
            for one in streams {
                one.await?;
            }
        }
        return Ok(0);
    }
    let container = pod.container(args.container.as_deref().or(args.positional.as_deref()))?;
    stream(&remote, args, &namespace, &pod, &container).await?;
    Ok(0)
}

async fn stream(
    remote: &Remote,
    args: &LogsArgs,
    namespace: &str,
    pod: &Chosen,
    container: &str,
) -> Result<()> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{}/log", pod.name);
    let request = request("GET", &with_query(&path, &query(args, container)), &[], Vec::new())?;
    let mut body = std::pin::pin!(remote.client.request_stream(request).await.map_err(explain)?);
    let mut buffer = vec![0; 64 << 10];
    let mut line = Vec::new();
    loop {
        let n = body.read(&mut buffer).await.context("error: read the log")?;
        if n == 0 {
            break;
        }
        line.extend_from_slice(&buffer[..n]);
        let whole = match line.iter().rposition(|b| *b == b'\n') {
            Some(end) => end + 1,
            // A line without end is printed as it comes.
            None if line.len() >= buffer.len() => line.len(),
            None => 0,
        };
        write(&line[..whole])?;
        line.drain(..whole);
    }
    write(&line)
}

fn write(bytes: &[u8]) -> Result<()> {
    let mut out = out::stdout();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

fn query(args: &LogsArgs, container: &str) -> Vec<(&'static str, String)> {
    let mut query = vec![("container", container.to_owned())];
    for (name, on) in [("follow", args.follow), ("previous", args.previous), ("timestamps", args.timestamps)]
    {
        if on {
            query.push((name, "true".to_owned()));
        }
    }
    if args.tail >= 0 {
        query.push(("tailLines", args.tail.to_string()));
    }
    if let Some(since) = args.since {
        // Whole seconds, rounded up: 0 would mean all.
        let seconds = since.as_secs() + u64::from(since.subsec_nanos() > 0);
        query.push(("sinceSeconds", seconds.max(1).to_string()));
    }
    if let Some(time) = &args.since_time {
        query.push(("sinceTime", time.clone()));
    }
    if let Some(bytes) = args.limit_bytes {
        query.push(("limitBytes", bytes.to_string()));
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_the_query() {
        let args = LogsArgs {
            follow: true,
            previous: true,
            tail: 0,
            since: Some(Duration::from_millis(1500)),
            ..LogsArgs::default()
        };
        let query = query(&args, "a");
        let text: Vec<String> = query.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text, ["container=a", "follow=true", "previous=true", "tailLines=0", "sinceSeconds=2"]);
    }
}
