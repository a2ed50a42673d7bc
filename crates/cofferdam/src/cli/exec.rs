//! `exec`: a command in a running container, with its streams, its terminal and its exit code.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::SinkExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Client;
use kube::api::{Api, AttachParams, AttachedProcess, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::remote::{Remote, explain, report};
use super::{out, pods, terminal};

#[derive(Args, Debug, Default)]
#[command(after_help = "Examples:
  cofferdam exec web -- id
  cofferdam exec -it web -c sidecar -- sh
  tar c . | cofferdam exec -i web -- tar x -C /tmp")]
pub struct ExecArgs {
    /// POD or TYPE/NAME
    #[arg(value_name = "POD|TYPE/NAME")]
    pub what: String,
    /// Pass standard input to the command.
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Standard input is a terminal.
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Which container; by default the one that the pod names as such, else its first.
    #[arg(short, long)]
    pub container: Option<String>,
    /// Where to look [default: default].
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Only what the command prints.
    #[arg(short, long)]
    pub quiet: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Returns the command's exit code.
pub async fn exec(client: Client, args: ExecArgs) -> Result<i32> {
    report(run(client, &args).await)
}

async fn run(client: Client, args: &ExecArgs) -> Result<i32> {
    let remote = Remote::discover(client).await?;
    let namespace = remote.namespace(args.namespace.as_deref()).to_owned();
    let pod = pods::choose(&remote, &namespace, &args.what).await?;
    if let Some(phase @ ("Succeeded" | "Failed")) = pod.object["status"]["phase"].as_str() {
        bail!("error: cannot exec into a container in a completed pod; current phase is {phase}");
    }
    let container = pod.container(args.container.as_deref())?;

    let raw = if args.tty && args.stdin { terminal::Raw::enter()? } else { None };
    if args.tty && args.stdin && raw.is_none() {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let tty = args.tty && (raw.is_some() || !args.stdin);
    let params = AttachParams::default()
        .container(container)
        .stdin(args.stdin)
        .stdout(true)
        // A terminal has one output.
        .stderr(!tty)
        .tty(tty);
    let pods: Api<Pod> = Api::namespaced(remote.client.clone(), &namespace);
    let process = pods.exec(&pod.name, args.command.clone(), &params).await.map_err(explain)?;
    let status = converse(process, args.stdin).await?;
    drop(raw);
    finish(status)
}

/// Carries the streams until the command has ended.
async fn converse(mut process: AttachedProcess, with_stdin: bool) -> Result<Option<Status>> {
    let status = process.take_status().context("the connection has no status channel")?;
    let stdout = process.stdout();
    let stderr = process.stderr();
    let input = if with_stdin { process.stdin() } else { None };
    let sizes = process.terminal_size();

    let output = async {
        let out = copy(stdout, out::stdout());
        let err = copy(stderr, out::stderr());
        tokio::try_join!(out, err)
    };
    let feed = async {
        if let Some(mut input) = input {
            let mut lines = read_stdin();
            while let Some(bytes) = lines.recv().await {
                // The command may have closed its input; its output still counts.
                if input.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            // End of input is said by closing; a connection that is gone has heard it.
            if input.shutdown().await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    let resize = async {
        let Some(mut sizes) = sizes else { return std::future::pending::<()>().await };
        let Ok(mut changed) = signal(SignalKind::window_change()) else {
            return std::future::pending::<()>().await;
        };
        loop {
            if let Some((width, height)) = terminal::size()
                && sizes.send(TerminalSize { width, height }).await.is_err()
            {
                break;
            }
            changed.recv().await;
        }
        std::future::pending::<()>().await;
    };
    let ended = async {
        let result = output.await;
        (result, status.await)
    };
    tokio::select! {
        (result, status) = ended => {
            result?;
            Ok(status)
        }
        () = feed => bail!("error: the connection closed"),
        () = resize => bail!("error: the connection closed"),
    }
}

async fn copy(from: Option<impl AsyncRead + Unpin>, mut to: impl Write) -> std::io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; 32 << 10];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n])?;
        to.flush()?;
    }
}

/// Standard input read by a thread of its own: a read of a terminal cannot be given up, and must not hold the command's
/// end back.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; 16 << 10];
        while let Ok(n @ 1..) = stdin.read(&mut buffer) {
            if send.blocking_send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receive
}

/// The exit code of the status, or why there is none.
fn finish(status: Option<Status>) -> Result<i32> {
    let Some(status) = status else { bail!("error: the connection closed before the command ended") };
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.and_then(|d| d.causes).unwrap_or_default();
    let cause = causes.into_iter().find(|c| c.reason.as_deref() == Some("ExitCode"));
    let code = cause.and_then(|c| c.message).and_then(|m| m.parse::<i32>().ok());
    match code {
        Some(code) => {
            eprintln!("command terminated with exit code {code}");
            Ok(code)
        }
        None => bail!("error: {}", status.message.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_exit_code_is_passed_on() {
        let status = |value: serde_json::Value| serde_json::from_value::<Status>(value).expect("a Status");
        assert_eq!(finish(Some(status(json!({"status": "Success"})))).unwrap(), 0);
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode",
            "message": "command terminated with non-zero exit code: exit status 7",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}});
        assert_eq!(finish(Some(status(failed))).unwrap(), 7);
        let broken = json!({"status": "Failure", "message": "no such file", "reason": "InternalError"});
        assert_eq!(finish(Some(status(broken))).unwrap_err().to_string(), "error: no such file");
        assert!(finish(None).is_err());
    }
}
