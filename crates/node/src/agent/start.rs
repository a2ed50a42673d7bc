//! One container: its image, its Spec, its start; and what is read of it when it has ended.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
    time::Instant,
};

use k8s_openapi::api::core::v1::{Container, Pod};
use keeper::protocol::{ContainerId, ContainerPhase, ContainerPlan, ContainerState, Rootfs};
use policy::{
    container::{ContainerInput, NamespacePaths},
    lifecycle::Start,
    security_context::{ConfigError, Seccomp, UserDatabase, resolve, resolve_pod},
};

use super::{
    context::Context,
    events::Kind,
    files,
    link::{Link, LinkError},
    objects, probes,
    report::Subject,
};
use crate::{
    images::{EnsureError, Image, PullEvent, PullPolicy},
    volumes::PodVolumes,
};

/// The most of a termination message, in bytes (kubelet's limit).
const LONGEST_MESSAGE: u64 = 4096;
/// The most of a log's end that stands in for a missing message, in bytes and lines (kubelet's limits).
const LONGEST_LOG_TAIL: u64 = 2048;
const LOG_TAIL_LINES: usize = 80;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The container waits with the reason it carries.
    #[error("{0}")]
    Refused(#[from] ConfigError),
    #[error("{0}")]
    Keeper(#[from] LinkError),
}

/// What a start needs of its pod.
pub struct Request {
    pub ctx: Arc<Context>,
    pub pod: Arc<Pod>,
    pub link: Link,
    pub volumes: Arc<PodVolumes>,
    pub image: Arc<Image>,
    pub pod_ips: Vec<String>,
}

/// A container that runs.
pub struct Running {
    pub state: ContainerState,
    pub image_id: String,
    /// Warnings to record: reason and message.
    pub events: Vec<(String, String)>,
}

/// Has the container's image on the node, by its pull policy.
pub async fn image(ctx: &Context, pod: &Pod, container: &Container) -> Result<Image, EnsureError> {
    let name = container.image.clone().unwrap_or_default();
    let policy = match container.image_pull_policy.as_deref() {
        Some("Never") => PullPolicy::Never,
        Some("Always") => PullPolicy::Always,
        _ => PullPolicy::IfNotPresent,
    };
    let began = Instant::now();
    let tell = |reason: &str, message: &str| {
        ctx.recorder.pod(pod, Some(&container.name), Kind::Normal, reason, message)
    };
    let mut pulled = false;
    let image = ctx
        .images
        .ensure(&name, policy, |progress: PullEvent| {
            // The first word of a pull: before it the store has answered by itself.
            if matches!(progress, PullEvent::Resolving) && !pulled {
                pulled = true;
                tell("Pulling", &format!("Pulling image \"{name}\""));
            }
        })
        .await?;
    if pulled {
        let took = began.elapsed();
        tell(
            "Pulled",
            &format!(
                "Successfully pulled image \"{name}\" in {}ms ({}ms including waiting). Image size: {} bytes.",
                took.as_millis(),
                took.as_millis(),
                image.size
            ),
        );
    } else {
        tell("Pulled", &format!("Container image \"{name}\" already present on machine"));
    }
    Ok(image)
}

/// Starts one attempt of a container and returns when its first instruction was verified.
pub async fn run(request: Request, start: &Start) -> Result<Running, StartError> {
    let Request { ctx, pod, link, volumes, image, pod_ips } = request;
    let subject = Subject::of(&pod);
    let Some((kind, container)) = policy::security_context::containers(&pod)
        .into_iter()
        .find(|(_, container)| container.name == start.name)
    else {
        return Err(ConfigError::config(format!("no container named \"{}\"", start.name)).into());
    };
    let pod_effective = resolve_pod(&pod, &ctx.facts)?;
    let unreadable = |error: crate::images::FileError| ConfigError::create(error.to_string());
    let (passwd, group) = (image.passwd().map_err(unreadable)?, image.group().map_err(unreadable)?);
    let users = UserDatabase { passwd: passwd.as_deref(), group: group.as_deref() };
    let effective = resolve(&pod, &container, kind, &image.config, &users, &ctx.facts)?;
    let environment = objects::environment(&ctx, &pod, &container, &pod_ips).await?;
    let (mounts, fds) = volumes.mounts(&pod, &container, &environment.variables)?;

    let dir =
        ctx.config.pod_dir(&subject.uid).join("containers").join(&start.name).join(start.attempt.to_string());
    let failed = |what: &str, error: io::Error| ConfigError::create(format!("{what}: {error}"));
    let termination_log =
        files::termination_log(&dir).map_err(|error| failed("create the termination message file", error))?;
    let mut pod_files = files::paths(&ctx.config, &subject.uid);
    pod_files.termination_log = Some(termination_log.clone());
    let seccomp_profile = match &effective.seccomp.value {
        Seccomp::Localhost(path) => Some(fs::read(path).map_err(|error| {
            ConfigError::create(format!("cannot load seccomp profile \"{}\": {error}", path.display()))
        })?),
        _ => None,
    };
    let cgroup = Path::new("/")
        .join(ctx.config.pod_cgroup(&subject.uid))
        .join(format!("{}_{}", start.name, start.attempt));
    let spec = policy::container::spec(&ContainerInput {
        pod: &pod,
        container: &container,
        kind,
        effective: &effective,
        image: &image.config,
        env: &environment.variables,
        mounts: &mounts,
        hostname: &pod_effective.hostname,
        cgroups_path: &cgroup,
        namespaces: NamespacePaths::default(),
        root: Path::new("rootfs"),
        files: pod_files,
        seccomp_profile: seccomp_profile.as_deref(),
        node: &ctx.facts,
    })?;
    let log_path = ctx.config.log_dir(&subject).join(&start.name).join(format!("{}.log", start.attempt));
    let plan = ContainerPlan {
        name: start.name.clone(),
        attempt: start.attempt,
        spec,
        rootfs: Rootfs::Overlay {
            lower: image.layers.clone(),
            upper: dir.join("upper"),
            work: dir.join("work"),
        },
        log_path: Some(log_path.clone()),
        tty: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        termination_log: Some(termination_log.clone()),
    };
    let cgroup = ctx.config.pod_cgroup(&subject.uid).join(format!("{}_{}", start.name, start.attempt));
    let tell = |reason: &str, message: String| {
        ctx.recorder.pod(&pod, Some(&start.name), Kind::Normal, reason, &message);
    };
    tell("Created", format!("Created container: {}", start.name));
    let started = link.run(plan, fds).await?;
    let id = ContainerId { name: start.name.clone(), attempt: start.attempt };
    tell("Started", format!("Started container {}", start.name));
    if let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
        && let Some(ip) = pod_ips.first().and_then(|ip| ip.parse().ok())
    {
        let target = probes::Target::new(&id, &container, ip, Some(link.clone()));
        // Not reported as running before its hook has ended; one that fails ends the container.
        if let Err(error) = probes::hook(hook, &target).await {
            let message = format!("PostStartHook failed: {error}");
            ctx.recorder.pod(&pod, Some(&start.name), Kind::Warning, "FailedPostStartHook", &message);
            link.kill(id.clone()).await?;
        }
    }
    let mut events: Vec<(String, String)> =
        environment.events.into_iter().map(|(reason, message)| (reason.to_owned(), message)).collect();
    events.extend(started.warnings.into_iter().map(|warning| ("ContainerWarning".to_owned(), warning)));
    Ok(Running {
        state: ContainerState {
            container: id,
            pid: started.pid,
            started_at: started.started_at,
            phase: ContainerPhase::Running,
            log_path: Some(log_path),
            termination_log: Some(termination_log),
            cgroup,
            tty: container.tty.unwrap_or(false),
        },
        image_id: image.image_id().to_owned(),
        events,
    })
}

/// What a container left as its last word: its message file, or the end of its log where the policy says so.
pub fn termination_message(container: &Container, state: &ContainerState) -> String {
    let mut message = String::new();
    if let Some(path) = &state.termination_log {
        message = read_bounded(path, LONGEST_MESSAGE).unwrap_or_else(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                String::new()
            } else {
                format!("Error on reading termination message from logs: {error}")
            }
        });
    }
    let failed = matches!(&state.phase, ContainerPhase::Exited(exit) if exit.code != 0);
    let fall_back = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if message.is_empty()
        && failed
        && fall_back
        && let Some(path) = &state.log_path
    {
        message = log_tail(path)
            .unwrap_or_else(|error| format!("Error on reading termination message from logs: {error}"));
    }
    message
}

/// A regular file's beginning; a container may have put anything there, so links are not followed.
fn read_bounded(path: &Path, longest: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(longest).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn open_regular(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

fn log_tail(path: &Path) -> io::Result<String> {
    let mut file = open_regular(path)?;
    let length = file.metadata()?.len();
    // Each line begins with its time and stream: read enough for the longest tail with those.
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_LOG_TAIL * 8)))?;
    let mut bytes = Vec::new();
    file.take(LONGEST_LOG_TAIL * 8).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
    let mut cut = tail.len().saturating_sub(LONGEST_LOG_TAIL as usize);
    while !tail.is_char_boundary(cut) {
        cut += 1;
    }
    Ok(tail[cut..].to_owned())
}

/// The signal that asks a container to end: the pod's, else the image's, else SIGTERM.
pub fn stop_signal(container: Option<Container>, image: Option<&Arc<Image>>) -> i32 {
    let asked = container.and_then(|container| container.lifecycle?.stop_signal);
    let image = image.and_then(|image| image.config.config().as_ref()?.stop_signal().clone());
    asked.or(image).and_then(|name| signal_number(&name)).unwrap_or(15)
}

fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    if let Some(index) = NAMES.iter().position(|known| *known == bare) {
        return i32::try_from(index + 1).ok();
    }
    match bare.split_once('+').map_or((bare, Some(0)), |(base, offset)| (base, offset.parse().ok())) {
        ("RTMIN", Some(offset @ 0..=30)) => Some(34 + offset),
        ("RTMAX", Some(0)) => Some(64),
        _ => None,
    }
}

/// Keeps the last two attempts of a container (their logs are `kubectl logs` and `--previous`) and forgets older ones.
pub async fn clean_old(ctx: &Arc<Context>, subject: &Subject, link: Option<&Link>, newest: &ContainerId) {
    let dir = ctx.config.pod_dir(&subject.uid).join("containers").join(&newest.name);
    let logs = ctx.config.log_dir(subject).join(&newest.name);
    if let (Some(link), Some(attempt)) = (link, newest.attempt.checked_sub(1)) {
        let old = ContainerId { name: newest.name.clone(), attempt };
        // It may be forgotten already, or never have started.
        drop(link.remove(old).await);
    }
    let attempt = newest.attempt;
    tokio::task::spawn_blocking(move || {
        // The overlay of an attempt that has ended is of no more use; removing one takes milliseconds.
        for part in ["upper", "work"] {
            remove(&dir.join(attempt.to_string()).join(part));
        }
        if let Some(older) = attempt.checked_sub(1) {
            remove(&dir.join(older.to_string()));
        }
        if let Some(older) = attempt.checked_sub(2) {
            remove(&logs.join(format!("{older}.log")));
        }
    });
}

fn remove(path: &Path) {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        eprintln!("remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_number_and_name() {
        for (name, number) in [
            ("SIGTERM", Some(15)),
            ("TERM", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGWINCH", Some(28)),
            ("0", None),
            ("SIGNOTHING", None),
        ] {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }
}
