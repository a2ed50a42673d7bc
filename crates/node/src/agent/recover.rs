//! After an agent's restart: finds the keepers that went on without it, and what they know.

use std::{fs, io, os::unix::net::UnixStream, path::Path};

use k8s_openapi::api::core::v1::Pod;
use keeper::protocol::{Event, KeeperState, NamespaceMode};
use tokio::sync::mpsc;

use super::{
    context::Context,
    link::{Link, LinkError},
    report::Subject,
    sandbox,
};

/// How long a keeper may take to end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// A pod that outlived the agent that started it.
pub struct Survivor {
    pub link: Link,
    pub events: mpsc::Receiver<Event>,
    pub state: KeeperState,
    pub pod_ips: Vec<String>,
}

/// The uids of the pods that have a directory here.
pub fn uids(pods_dir: &Path) -> io::Result<Vec<String>> {
    let mut uids = Vec::new();
    for entry in fs::read_dir(pods_dir)? {
        uids.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(uids)
}

/// Connects to the pod's keeper; None if there is none that lives, and then nothing of the pod is left running.
pub async fn find(ctx: &Context, pod: &Pod) -> Result<Option<Survivor>, String> {
    let subject = Subject::of(pod);
    let socket = ctx.config.pod_dir(&subject.uid).join("keeper.sock");
    let Ok(stream) = UnixStream::connect(&socket) else {
        if ctx.config.pod_dir(&subject.uid).exists() {
            sandbox::clear(ctx, &subject)?;
        }
        return Ok(None);
    };
    let survivor = async {
        let (link, events) = Link::open(stream)?;
        link.subscribe().await?;
        let state = link.state().await?;
        Ok::<_, LinkError>((link, events, state))
    };
    let (link, events, state) = survivor.await.map_err(|error| error.to_string())?;
    let own_network = state.sandbox.as_ref().is_some_and(|plan| plan.net == NamespaceMode::Own);
    let pod_ips = match own_network {
        true => ctx.net.adopt(sandbox::pod_net(pod)).map_err(|error| error.to_string())?.map(sandbox::texts),
        false => Some(ctx.config.ips()),
    };
    match pod_ips {
        Some(pod_ips) => Ok(Some(Survivor { link, events, state, pod_ips })),
        // A sandbox without its link is none: it is made anew.
        None => {
            link.stop().await.map_err(|error| error.to_string())?;
            sandbox::clear(ctx, &subject)?;
            Ok(None)
        }
    }
}

/// Ends a sandbox that cannot be taken over: its keeper, if it hears at all, and what runs in it.
pub async fn end(ctx: &Context, subject: &Subject) -> Result<(), String> {
    let socket = ctx.config.pod_dir(&subject.uid).join("keeper.sock");
    let stopped = async {
        let (link, _events) = Link::open(UnixStream::connect(&socket)?)?;
        link.stop().await
    };
    // It did not do what it was asked before; that its processes end does not depend on it.
    if !matches!(tokio::time::timeout(PATIENCE, stopped).await, Ok(Ok(()))) {
        eprintln!("the keeper behind {} does not end when asked to", socket.display());
    }
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
        _ => {}
    }
    sandbox::clear(ctx, subject)
}

/// Ends what runs for a pod that the API server has forgotten while no agent looked.
pub async fn end_orphan(ctx: &Context, uid: &str) -> Result<(), String> {
    if let Ok(stream) = UnixStream::connect(ctx.config.pod_dir(uid).join("keeper.sock")) {
        let (link, _events) = Link::open(stream).map_err(|error| error.to_string())?;
        link.stop().await.map_err(|error| error.to_string())?;
    }
    let cgroup = ctx.config.pod_cgroup(uid);
    kernel::cgroup::kill_and_remove(&cgroup).map_err(|error| error.to_string())?;
    ctx.net.detach(uid).map_err(|error| error.to_string())?;
    sandbox::pod_volumes(ctx, uid).tear_down().map_err(|error| error.to_string())?;
    match fs::remove_dir_all(ctx.config.pod_dir(uid)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}
