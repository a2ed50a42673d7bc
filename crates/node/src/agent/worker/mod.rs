//! One pod: its worker holds what was seen of it, asks `policy::lifecycle` what to do next at every event, does that, and
//! reports. At most one operation (sandbox, volumes, image, start) is under way at a time, and the worker hears its queue
//! meanwhile, so that a pod can be deleted while its image is pulled.

mod begin;
mod killing;
mod outcome;
mod survey;

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    jiff::{SignedDuration, Timestamp},
};
use keeper::protocol::{ContainerId, Event, UnixNanos};
use policy::{
    lifecycle::{self, ContainerRecord, PodRecord, Start, State, Stop},
    security_context::{ContainerKind, PodEffective, containers},
};
use tokio::sync::mpsc;

use self::begin::{Retry, Subtask};
use super::{
    context::{Context, PodView},
    events::Kind,
    link::Link,
    probes,
    recover::Survivor,
    report::{Reporter, Subject, remove},
    sandbox::{self, SandboxError},
    start::{self, StartError},
    tokens::PodTokens,
};
use crate::{images::Image, volumes::PodVolumes};

/// What the agent tells a worker.
pub enum Message {
    /// The pod as the API server has it now.
    Pod(Arc<Pod>),
    /// The object is gone.
    Gone,
    /// A ConfigMap or Secret of the pod's namespace has changed.
    Source(Arc<Source>),
}

/// What pods take files and variables from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    ConfigMap(String),
    Secret(String),
}

/// The result of the operation under way.
enum Done {
    Sandbox(Box<Result<sandbox::Made, SandboxError>>),
    Volumes(Result<Arc<PodVolumes>, String>),
    Image {
        container: String,
        result: Result<Arc<Image>, crate::images::EnsureError>,
    },
    Run {
        start: Start,
        result: Result<start::Running, StartError>,
    },
    Refreshed(Result<(), String>),
    /// Whether an emptyDir holds more than it may: the message of the eviction.
    Measured(Result<Option<String>, String>),
}

type Operation = Pin<Box<dyn Future<Output = Done> + Send>>;

struct Worker {
    ctx: Arc<Context>,
    pod: Arc<Pod>,
    subject: Subject,
    view: Arc<PodView>,
    record: PodRecord,
    effective: Option<Arc<PodEffective>>,
    link: Option<Link>,
    /// The keeper's process, if this agent started it.
    child: Option<std::process::Child>,
    keeper_events: Option<mpsc::Receiver<Event>>,
    volumes: Option<Arc<PodVolumes>>,
    /// The tokens in its volumes.
    tokens: Arc<PodTokens>,
    images: HashMap<String, Arc<Image>>,
    retries: HashMap<Subtask, Retry>,
    /// The files of some volumes are older than what they come from.
    stale: bool,
    /// When emptyDirs with a limit are measured next.
    measure_at: Option<Timestamp>,
    /// The probes of each running container.
    probes: HashMap<String, probes::Probes>,
    reports: (mpsc::Sender<probes::Report>, mpsc::Receiver<probes::Report>),
    /// Containers asked to end, with the moment of SIGKILL.
    killing: HashMap<String, Timestamp>,
    reporter: Reporter,
    operation: Option<Operation>,
    /// The operation is the pull of an image, which may be dropped.
    pulling: bool,
    /// Everything is taken down; only the object's end is awaited.
    finished: bool,
    /// The API server was told to remove the object.
    removed: bool,
    /// The object is gone from the API server.
    gone: bool,
}

/// Drives one pod until its object is gone and nothing of it is left.
pub async fn run(
    ctx: Arc<Context>,
    pod: Arc<Pod>,
    mut queue: mpsc::Receiver<Message>,
    survivor: Option<Survivor>,
) {
    let subject = Subject::of(&pod);
    let view = ctx.view(&subject);
    let reporter = Reporter::start(ctx.client.clone(), subject.clone());
    let mut images_changed = ctx.images_changed.clone();
    let mut worker = Worker {
        record: first_record(&ctx, &pod),
        ctx,
        pod,
        subject,
        view,
        effective: None,
        link: None,
        child: None,
        keeper_events: None,
        volumes: None,
        tokens: Arc::default(),
        images: HashMap::new(),
        retries: HashMap::new(),
        stale: false,
        measure_at: None,
        probes: HashMap::new(),
        reports: mpsc::channel(16),
        killing: HashMap::new(),
        reporter,
        operation: None,
        pulling: false,
        finished: false,
        removed: false,
        gone: false,
    };
    if let Some(survivor) = survivor {
        worker.take_over(survivor);
    }
    worker.hear(worker.pod.clone());
    loop {
        let wake = worker.step().await;
        worker.publish();
        if worker.finished && worker.gone {
            break;
        }
        tokio::select! {
            biased;
            // The queue closes behind the news that the object is gone; the end of its containers is still to come.
            message = queue.recv(), if !worker.gone => match message {
                Some(Message::Pod(pod)) => worker.hear(pod),
                Some(Message::Gone) => worker.object_gone(),
                Some(Message::Source(source)) => worker.source_changed(&source),
                // The agent is ending: pods live on without it.
                None => return,
            },
            event = next_event(&mut worker.keeper_events) => worker.keeper_said(event).await,
            done = finish(&mut worker.operation) => worker.done(done),
            Some(report) = worker.reports.1.recv() => worker.probed(report).await,
            changed = images_changed.changed() => if changed.is_ok() {
                worker.retries.retain(|subtask, _| !matches!(subtask, Subtask::Container(_)));
            },
            () = sleep_until(wake) => {}
        }
    }
    worker.ctx.forget(&worker.subject);
    sandbox::remove_files(&worker.ctx, &worker.subject);
}

async fn next_event(events: &mut Option<mpsc::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

async fn finish(operation: &mut Option<Operation>) -> Done {
    match operation {
        Some(running) => {
            let done = running.await;
            *operation = None;
            done
        }
        None => std::future::pending().await,
    }
}

async fn sleep_until(wake: Option<Timestamp>) {
    match wake {
        Some(at) => {
            let left = Timestamp::now().duration_until(at);
            tokio::time::sleep(Duration::try_from(left).unwrap_or(Duration::ZERO)).await;
        }
        None => std::future::pending().await,
    }
}

/// The record of a pod seen for the first time, with what an earlier agent reported.
fn first_record(ctx: &Context, pod: &Pod) -> PodRecord {
    let reported = pod.status.clone().unwrap_or_default();
    PodRecord {
        started_at: Some(reported.start_time.as_ref().map_or_else(Timestamp::now, |time| time.0)),
        host_ips: ctx.config.ips(),
        reported,
        ..Default::default()
    }
}

impl Worker {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn event(&self, container: Option<&str>, kind: Kind, reason: &str, message: &str) {
        self.ctx.recorder.pod(&self.pod, container, kind, reason, message);
    }

    /// The pod's newest object.
    fn hear(&mut self, pod: Arc<Pod>) {
        let labels = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
        // Files of the downward API may show them.
        self.stale |= labels(&self.pod) != labels(&pod);
        self.pod = pod;
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.stop(Stop::Deleted);
            let latest = self.now() + self.grace();
            for deadline in self.killing.values_mut() {
                *deadline = (*deadline).min(latest);
            }
        }
    }

    fn source_changed(&mut self, source: &Source) {
        let (config_map, secret) = match source {
            Source::ConfigMap(name) => (Some(name.as_str()), None),
            Source::Secret(name) => (None, Some(name.as_str())),
        };
        self.stale |= !crate::volumes::affected(&self.pod, config_map, secret).is_empty();
        // What waited for it to be there is tried again at once.
        self.retries.retain(|subtask, _| *subtask == Subtask::Sandbox);
    }

    fn object_gone(&mut self) {
        self.gone = true;
        self.stop(Stop::Deleted);
        // Nobody waits for a graceful end of what the API server has forgotten.
        let now = self.now();
        self.killing.values_mut().for_each(|deadline| *deadline = now);
    }

    fn stop(&mut self, stop: Stop) {
        if self.record.stop.is_none() {
            self.record.stop = Some(stop);
            self.probes.values_mut().for_each(probes::Probes::only_readiness);
        }
    }

    fn grace(&self) -> SignedDuration {
        if self.gone {
            return SignedDuration::ZERO;
        }
        let spec = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        SignedDuration::from_secs(
            self.pod.metadata.deletion_grace_period_seconds.or(spec).unwrap_or(30).max(0),
        )
    }

    fn container(&self, name: &str) -> Option<(ContainerKind, Container)> {
        containers(&self.pod).into_iter().find(|(_, container)| container.name == name)
    }

    fn container_id(&self, id: &ContainerId) -> String {
        format!("cofferdam://{}/{}/{}", self.subject.uid, id.name, id.attempt)
    }

    fn record_mut(&mut self, name: &str) -> Option<&mut ContainerRecord> {
        self.record.containers.iter_mut().find(|record| record.name == name)
    }

    /// What a container waits for; makes its record if there is none.
    fn waits(&mut self, name: &str, reason: &str, message: &str) {
        let state = State::Waiting(Some((reason.to_owned(), message.to_owned())));
        if let Some(record) = self.record_mut(name) {
            // A crashed container keeps its end to show while it waits for its next start.
            if let State::Exited(exit) = &record.state {
                record.last = Some(exit.clone());
            }
            record.state = state;
            return;
        }
        let Some((kind, container)) = self.container(name) else { return };
        self.record.containers.push(ContainerRecord {
            name: name.to_owned(),
            kind,
            state,
            last: None,
            restarts: 0,
            back_off: Default::default(),
            image: container.image.unwrap_or_default(),
            image_id: String::new(),
            container_id: None,
        });
    }

    fn running(&self) -> impl Iterator<Item = &ContainerRecord> {
        self.record.containers.iter().filter(|record| matches!(record.state, State::Running { .. }))
    }

    /// Nothing runs and nothing will: takes sandbox, network and volumes away, reports the end, and removes the object if
    /// it was asked to go.
    async fn take_down(&mut self) {
        self.finished = true;
        self.keeper_events = None;
        let link = self.link.take();
        let volumes = self.volumes.take();
        if let Err(error) = sandbox::take_down(&self.ctx, &self.subject, link, volumes).await {
            self.event(None, Kind::Warning, "FailedKillPod", &format!("error killing pod: {error}"));
        }
        self.child.take().into_iter().for_each(sandbox::reap);
        self.publish();
        if self.gone {
            return;
        }
        self.reporter.flush().await;
        self.remove_if_asked().await;
    }

    /// The last step of a graceful deletion: everything is down, so the object can go.
    async fn remove_if_asked(&mut self) {
        if self.removed || self.gone || self.pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        match remove(&self.ctx.client, &self.subject).await {
            Ok(()) => self.removed = true,
            // Tried again with the pod's next event, or by the next agent.
            Err(error) => eprintln!("remove pod {}/{}: {error}", self.subject.namespace, self.subject.name),
        }
    }

    /// Shows the record: the status to the API server, the containers to whoever asks for logs or exec.
    fn publish(&mut self) {
        let running: BTreeMap<String, (u32, bool)> = self
            .record
            .containers
            .iter()
            .map(|record| {
                (record.name.clone(), (record.restarts, matches!(record.state, State::Running { .. })))
            })
            .collect();
        self.view.show(self.link.clone(), running, self.pod.clone());
        if self.gone {
            return;
        }
        let status = lifecycle::status(&self.pod, &self.record, self.now());
        if status != self.record.reported {
            self.record.reported = status.clone();
            self.reporter.send(status);
        }
    }
}

/// A keeper's time as the API's.
pub fn time(nanos: UnixNanos) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos.0)).unwrap_or(Timestamp::UNIX_EPOCH)
}
