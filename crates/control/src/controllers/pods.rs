//! How controllers make and end the pods they own, with the events that tell of it.

use futures::stream::{self, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::{Client, Resource};

use super::deployment::exactly;
use super::recorder::Recorder;
use super::{Error, World, gone_is_fine};

/// Writes of one owner under way at a time.
const AT_ONCE: usize = 64;

/// Writes as one controller.
pub(super) struct Writer<'a> {
    pub world: &'a World,
    pub client: &'a Client,
    pub recorder: &'a Recorder,
}

impl Writer<'_> {
    fn pods<K: Resource<DynamicType = ()>>(&self, owner: &K) -> Api<Pod> {
        Api::namespaced(self.client.clone(), owner.meta().namespace.as_deref().unwrap_or_default())
    }

    /// The first alone, then all others at once: if the first is refused, so would they be (the reason for upstream's
    /// slow start).
    pub async fn make<K>(&self, owner: &K, pods: Vec<Pod>) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let api = self.pods(owner);
        let mut pods = pods.into_iter();
        let Some(first) = pods.next() else { return Ok(()) };
        self.make_one(owner, &api, first).await?;
        let others = pods.map(|pod| self.make_one(owner, &api, pod));
        all(stream::iter(others).buffer_unordered(AT_ONCE)).await
    }

    async fn make_one<K>(&self, owner: &K, api: &Api<Pod>, pod: Pod) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let name = pod.metadata.name.clone();
        match api.create(&PostParams::default(), &pod).await {
            Ok(pod) => {
                let name = pod.metadata.name.clone().unwrap_or_default();
                self.world.saw(pod);
                self.tell(owner, Write::Create, &name, None);
                Ok(())
            }
            // Another's pod, whose name it shall have, or its own that the watch has not brought yet.
            Err(kube::Error::Api(status)) if name.is_some() && status.reason == "AlreadyExists" => {
                Err(kube::Error::Api(status).into())
            }
            Err(error) => {
                let error = Error::from(error);
                self.tell(owner, Write::Create, &name.unwrap_or_default(), Some(&message_of(&error)));
                Err(error)
            }
        }
    }

    /// By name, in the owner's namespace.
    pub async fn end<K>(&self, owner: &K, names: Vec<String>) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let api = self.pods(owner);
        let deletions = names.into_iter().map(|name| self.end_one(owner, &api, name));
        all(stream::iter(deletions).buffer_unordered(AT_ONCE)).await
    }

    async fn end_one<K>(&self, owner: &K, api: &Api<Pod>, name: String) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let key = (owner.meta().namespace.clone().unwrap_or_default(), name.clone());
        let Some(pod) = self.world.pods.get(&key) else { return Ok(()) };
        let answer = gone_is_fine(api.delete(&name, &exactly(pod.metadata.uid.as_ref())).await);
        match answer.map(|answer| answer.and_then(|answer| answer.left())) {
            Ok(Some(pod)) if pod.metadata.deletion_timestamp.is_some() => self.world.saw(pod),
            Ok(_) => self.world.lost::<Pod>(&pod.metadata),
            Err(error) => {
                self.tell(owner, Write::Delete, &name, Some(&message_of(&error)));
                return Err(error);
            }
        }
        self.tell(owner, Write::Delete, &name, None);
        Ok(())
    }

    /// The event of a write to a pod, in the words of the owner's controller; those of StatefulSets are of an older style.
    pub fn tell<K>(&self, owner: &K, write: Write, pod: &str, failure: Option<&str>)
    where
        K: Resource<DynamicType = ()>,
    {
        let verb = write.verb();
        let kind = K::kind(&());
        let message = match (kind.as_ref(), failure) {
            ("StatefulSet", _) => {
                let set = owner.meta().name.as_deref().unwrap_or_default();
                let how = failure.map_or("successful".to_owned(), |why| format!("failed error: {why}"));
                format!("{} Pod {pod} in StatefulSet {set} {how}", verb.to_lowercase())
            }
            (_, None) => format!("{verb}d pod: {pod}"),
            (_, Some(why)) => format!("Error {}ing: {why}", verb.to_lowercase().trim_end_matches('e')),
        };
        match failure {
            None => self.recorder.normal(owner, &format!("Successful{verb}"), message),
            Some(_) => self.recorder.warning(owner, &format!("Failed{verb}"), message),
        }
    }
}

/// What is done to a pod.
#[derive(Clone, Copy, Debug)]
pub(super) enum Write {
    Create,
    Update,
    Delete,
}

impl Write {
    fn verb(self) -> &'static str {
        match self {
            Write::Create => "Create",
            Write::Update => "Update",
            Write::Delete => "Delete",
        }
    }
}

/// What the API server said.
pub(super) fn message_of(error: &Error) -> String {
    match error {
        Error::Api(kube::Error::Api(status)) => status.message.clone(),
        other => other.to_string(),
    }
}

async fn all(mut writes: impl futures::Stream<Item = Result<(), Error>> + Unpin) -> Result<(), Error> {
    let mut first_error = None;
    while let Some(result) = writes.next().await {
        if let Err(error) = result {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}
