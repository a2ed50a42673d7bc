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
        match api.create(&PostParams::default(), &pod).await {
            Ok(pod) => {
                let name = pod.metadata.name.clone().unwrap_or_default();
                self.world.saw(pod);
                self.recorder.normal(owner, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(error) => {
                let message = match &error {
                    kube::Error::Api(status) => status.message.clone(),
                    other => other.to_string(),
                };
                self.recorder.warning(owner, "FailedCreate", format!("Error creating: {message}"));
                Err(error.into())
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
                self.recorder.warning(owner, "FailedDelete", format!("Error deleting: {error}"));
                return Err(error);
            }
        }
        self.recorder.normal(owner, "SuccessfulDelete", format!("Deleted pod: {name}"));
        Ok(())
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
