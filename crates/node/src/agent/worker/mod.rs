//! One pod: its worker holds what was seen of it, asks `policy::lifecycle` what to do next at every event, does that, and
//! reports. At most one operation (sandbox, volumes, image, start) is under way at a time, and the worker hears its queue
//! meanwhile, so that a pod can be deleted while its image is pulled.

mod killing;
mod outcome;

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, Pod},
    jiff::{SignedDuration, Timestamp},
};
use keeper::protocol::{ContainerId, ContainerPhase, ContainerState, Event, UnixNanos};
use policy::{
    lifecycle::{self, ContainerRecord, Exit, How, PodRecord, Sandbox, Start, State, Stop},
    security_context::{ContainerKind, PodEffective, containers},
};
use tokio::sync::mpsc;

use self::killing::Why;
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

/// An emptyDir on disk with a sizeLimit is measured this often, as kubelet's eviction manager does; nothing tells of its growth.
const MEASURE_PERIOD: SignedDuration = SignedDuration::from_secs(10);

type Operation = Pin<Box<dyn Future<Output = Done> + Send>>;

/// When something that failed is tried again: 10 s doubling to 5 min, as kubelet's image and sync back-off.
#[derive(Clone, Copy)]
struct Retry {
    delay: SignedDuration,
    at: Timestamp,
}

impl Retry {
    const FIRST: SignedDuration = SignedDuration::from_secs(10);
    const LONGEST: SignedDuration = SignedDuration::from_secs(300);

    fn after(previous: Option<Retry>, now: Timestamp) -> Retry {
        let delay = previous.map_or(Self::FIRST, |retry| (retry.delay * 2).min(Self::LONGEST));
        Retry { delay, at: now + delay }
    }
}

/// What is retried.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Subtask {
    Sandbox,
    Volumes,
    Container(String),
}

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

    /// An earlier agent's pod whose keeper lives.
    fn take_over(&mut self, survivor: Survivor) {
        self.record.sandbox = Sandbox::Ready;
        self.record.pod_ips = survivor.pod_ips;
        self.link = Some(survivor.link);
        self.keeper_events = Some(survivor.events);
        self.volumes = Some(Arc::new(sandbox::pod_volumes(&self.ctx, &self.subject.uid)));
        // The earlier agent's tokens are in the files alone: nobody knows when they are to be replaced.
        self.stale |= !crate::volumes::tokens(&self.pod).is_empty();
        let mut states = survivor.state.containers;
        states.sort_by_key(|state| state.container.attempt);
        for state in states {
            self.adopt(&state);
        }
    }

    /// Brings the record of a container in line with what its keeper says.
    fn adopt(&mut self, state: &ContainerState) {
        let id = &state.container;
        let known = self.record.containers.iter().position(|record| record.name == id.name);
        let index = match known {
            Some(index) => index,
            None => {
                let Some((kind, container)) = self.container(&id.name) else { return };
                let reported = reported_status(&self.record, &id.name);
                self.record.containers.push(ContainerRecord {
                    name: id.name.clone(),
                    kind,
                    state: State::Waiting(None),
                    last: None,
                    restarts: id.attempt,
                    back_off: Default::default(),
                    image: container.image.unwrap_or_default(),
                    image_id: reported.map(|status| status.image_id).unwrap_or_default(),
                    container_id: None,
                });
                self.record.containers.len() - 1
            }
        };
        let container_id = self.container_id(id);
        let (started, ready) = self.first_verdicts(&id.name, &container_id);
        let exit = match &state.phase {
            ContainerPhase::Running => None,
            ContainerPhase::Exited(exit) => {
                Some(exit_of(exit, state, container_id.clone(), self.final_message(state)))
            }
        };
        let record = &mut self.record.containers[index];
        if record.restarts > id.attempt {
            return;
        }
        // Told twice, by the start's answer and by the event: what was found since stays, its end above all (a short
        // run's end may be told before its start's answer is taken in).
        let same =
            record.restarts == id.attempt && record.container_id.as_deref() == Some(container_id.as_str());
        if same && exit.is_none() && !matches!(record.state, State::Waiting(_)) {
            return;
        }
        if id.attempt > record.restarts
            && let State::Exited(exit) = &record.state
        {
            record.last = Some(exit.clone());
        }
        record.restarts = id.attempt;
        record.container_id = Some(container_id);
        match exit {
            None => {
                let since = time(state.started_at);
                record.state = State::Running { since, started, ready };
                self.start_probes(id, since, started);
            }
            Some(exit) => {
                self.probes.remove(&id.name);
                // The next start asks for the image again: its policy may be Always.
                self.images.remove(&id.name);
                let record = &mut self.record.containers[index];
                if !matches!(&record.state, State::Exited(_)) || record.last.is_some() {
                    record.back_off = lifecycle::after_exit(record.back_off, &exit);
                }
                record.state = State::Exited(exit);
            }
        }
    }

    fn final_message(&self, state: &ContainerState) -> String {
        match self.container(&state.container.name) {
            Some((_, container)) => start::termination_message(&container, state),
            None => String::new(),
        }
    }

    fn container(&self, name: &str) -> Option<(ContainerKind, Container)> {
        containers(&self.pod).into_iter().find(|(_, container)| container.name == name)
    }

    /// Whether the container has started and is ready before a probe of this agent has told: as an earlier agent
    /// reported of the same run, else as it is without probes.
    fn first_verdicts(&self, name: &str, container_id: &str) -> (bool, bool) {
        let Some((_, container)) = self.container(name) else { return (true, true) };
        let reported = reported_status(&self.record, name)
            .filter(|status| status.container_id.as_deref() == Some(container_id));
        let before = |of: fn(&ContainerStatus) -> bool| reported.as_ref().is_some_and(of);
        let started = container.startup_probe.is_none() || before(|status| status.started == Some(true));
        let ready = container.readiness_probe.is_none() || before(|status| status.ready);
        (started, started && ready)
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

    /// Decides and begins what is next; returns when to look again if nothing happens.
    async fn step(&mut self) -> Option<Timestamp> {
        if self.finished {
            self.remove_if_asked().await;
            return None;
        }
        let now = self.now();
        let decision = lifecycle::decide(&self.pod, &self.record, now);
        for (container, message) in &decision.back_off_events {
            self.event(Some(container), Kind::Warning, "BackOff", message);
        }
        for name in &decision.kill {
            self.kill(name, Why::Stop, now).await;
        }
        self.kill_overdue(now).await;
        if self.record.stop.is_some() && self.pulling {
            // An image that nothing will run need not be waited for.
            self.operation = None;
            self.pulling = false;
        }
        if self.operation.is_none() {
            if decision.finished || (self.record.stop.is_some() && self.running().next().is_none()) {
                self.take_down().await;
                return None;
            }
            if self.record.stop.is_none() {
                self.begin(&decision, now);
            }
        }
        let retries = self.retries.values().map(|retry| retry.at).filter(|at| *at > now);
        let deadlines = self.killing.values().copied();
        let upkeep = [self.measure_at, self.tokens.renew_at()].into_iter().flatten();
        retries.chain(deadlines).chain(decision.wake_at).chain(upkeep).min()
    }

    fn running(&self) -> impl Iterator<Item = &ContainerRecord> {
        self.record.containers.iter().filter(|record| matches!(record.state, State::Running { .. }))
    }

    fn due(&self, subtask: &Subtask, now: Timestamp) -> bool {
        self.retries.get(subtask).is_none_or(|retry| retry.at <= now)
    }

    fn retry(&mut self, subtask: Subtask) {
        let retry = Retry::after(self.retries.get(&subtask).copied(), self.now());
        self.retries.insert(subtask, retry);
    }

    /// Begins the next operation that is due.
    fn begin(&mut self, decision: &lifecycle::Decision, now: Timestamp) {
        if decision.create_sandbox {
            if self.due(&Subtask::Sandbox, now) {
                let (ctx, pod, tokens) = (self.ctx.clone(), self.pod.clone(), self.tokens.clone());
                self.operation =
                    Some(Box::pin(
                        async move { Done::Sandbox(Box::new(sandbox::make(ctx, pod, tokens).await)) },
                    ));
            }
            return;
        }
        if self.record.sandbox != Sandbox::Ready {
            return;
        }
        if self.volumes.is_none() {
            if self.due(&Subtask::Volumes, now) {
                let (ctx, pod, tokens) = (self.ctx.clone(), self.pod.clone(), self.tokens.clone());
                self.operation =
                    Some(Box::pin(async move { Done::Volumes(sandbox::volumes(&ctx, &pod, &tokens).await) }));
            }
            return;
        }
        let Some(start) = decision
            .start
            .iter()
            .find(|start| self.due(&Subtask::Container(start.name.clone()), now))
            .cloned()
        else {
            return self.begin_upkeep(now);
        };
        match self.images.get(&start.name).cloned() {
            None => self.begin_image(start),
            Some(image) => self.begin_run(start, image),
        }
    }

    /// Keeps the volumes of a pod that runs: new files for what has changed, a measure of what is limited.
    fn begin_upkeep(&mut self, now: Timestamp) {
        let Some(volumes) = self.volumes.clone() else { return };
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        let renews = self.tokens.renew_at().is_some_and(|at| at <= now);
        if std::mem::take(&mut self.stale) || renews {
            let tokens = self.tokens.clone();
            self.operation = Some(Box::pin(async move {
                Done::Refreshed(sandbox::refresh(&ctx, &pod, &volumes, &tokens).await)
            }));
        } else if self.measure_at.is_none_or(|at| at <= now) && has_limited_volume(&pod) {
            self.measure_at = Some(now + MEASURE_PERIOD);
            self.operation =
                Some(Box::pin(async move { Done::Measured(sandbox::measure(&pod, &volumes).await) }));
        }
    }

    fn begin_image(&mut self, start: Start) {
        let Some((_, container)) = self.container(&start.name) else { return };
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        self.pulling = true;
        self.operation = Some(Box::pin(async move {
            let result = start::image(&ctx, &pod, &container).await.map(Arc::new);
            Done::Image { container: start.name, result }
        }));
    }

    fn begin_run(&mut self, start: Start, image: Arc<Image>) {
        let (Some(link), Some(volumes)) = (self.link.clone(), self.volumes.clone()) else { return };
        let request = start::Request {
            ctx: self.ctx.clone(),
            pod: self.pod.clone(),
            link,
            volumes,
            image,
            pod_ips: self.record.pod_ips.clone(),
        };
        self.operation = Some(Box::pin(async move {
            let result = start::run(request, &start).await;
            Done::Run { start, result }
        }));
    }

    async fn keeper_said(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Started(state)) | Some(Event::Exited(state)) => {
                let ended = matches!(state.phase, ContainerPhase::Exited(_));
                let newest = self.record.containers.iter().find(|record| record.name == state.container.name);
                let known_end = newest.is_some_and(|record| {
                    record.restarts == state.container.attempt && matches!(record.state, State::Exited(_))
                });
                if !known_end {
                    self.adopt(&state);
                }
                if ended {
                    self.killing.remove(&state.container.name);
                    start::clean_old(&self.ctx, &self.subject, self.link.as_ref(), &state.container).await;
                }
            }
            Some(Event::LogTrouble { container, message, .. }) => {
                self.event(Some(&container.name), Kind::Warning, "LogTrouble", &message);
            }
            None => self.keeper_gone(),
        }
    }

    /// The keeper died: what it kept is lost and killed, and the pod gets a new sandbox.
    fn keeper_gone(&mut self) {
        self.keeper_events = None;
        self.link = None;
        self.child.take().into_iter().for_each(sandbox::reap);
        if self.finished {
            return;
        }
        let now = self.now();
        self.event(
            None,
            Kind::Warning,
            "SandboxChanged",
            "Pod sandbox changed, it will be killed and re-created.",
        );
        if let Err(error) = sandbox::clear(&self.ctx, &self.subject) {
            self.event(None, Kind::Warning, "FailedKillPod", &format!("error killing pod: {error}"));
        }
        self.record.sandbox = Sandbox::None;
        self.record.pod_ips.clear();
        self.killing.clear();
        // A new sandbox is a new beginning: init containers prepare it again.
        self.record.containers.retain(|record| record.kind != ContainerKind::Init);
        for record in &mut self.record.containers {
            if let State::Running { since, .. } = record.state {
                let exit = Exit {
                    how: How::Unknown,
                    started_at: Some(since),
                    finished_at: now,
                    message: "The container could not be located when the pod was terminated".to_owned(),
                    container_id: record.container_id.clone(),
                };
                record.back_off = lifecycle::after_exit(record.back_off, &exit);
                record.state = State::Exited(exit);
            }
        }
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

fn has_limited_volume(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .into_iter()
        .filter_map(|volume| volume.empty_dir.as_ref())
        .any(|dir| dir.size_limit.is_some() && dir.medium.as_deref().unwrap_or_default().is_empty())
}

fn reported_status(record: &PodRecord, name: &str) -> Option<ContainerStatus> {
    let status = &record.reported;
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name).cloned()
}

fn exit_of(
    exit: &keeper::protocol::Exit,
    state: &ContainerState,
    container_id: String,
    message: String,
) -> Exit {
    let how = match (exit.oom_killed, exit.signal) {
        (true, _) => How::OomKilled,
        (false, Some(signal)) => How::Signal(signal),
        (false, None) => How::Code(exit.code),
    };
    Exit {
        how,
        started_at: Some(time(state.started_at)),
        finished_at: time(exit.finished_at),
        message,
        container_id: Some(container_id),
    }
}

/// A keeper's time as the API's.
pub fn time(nanos: UnixNanos) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos.0)).unwrap_or(Timestamp::UNIX_EPOCH)
}
