//! Sends a pod's status to the API server: only the newest counts, one request at a time, apart from the work
//! itself.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Between attempts while the API server is not there, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Which pod a report is about.
#[derive(Clone, Debug)]
pub struct Subject {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Subject {
    pub fn of(pod: &Pod) -> Subject {
        Subject {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// The sender of one pod's status; it ends, with its last report sent, when this is dropped.
pub struct Reporter {
    newest: watch::Sender<Option<Arc<PodStatus>>>,
    sent: watch::Receiver<Option<Arc<PodStatus>>>,
}

impl Reporter {
    pub fn start(client: kube::Client, subject: Subject) -> Reporter {
        let (newest, mut wanted) = watch::channel(None::<Arc<PodStatus>>);
        let (done, sent) = watch::channel(None);
        tokio::spawn(async move {
            let api = Api::<Pod>::namespaced(client, &subject.namespace);
            let mut pause = FIRST_PAUSE;
            while wanted.changed().await.is_ok() {
                loop {
                    let Some(status) = wanted.borrow_and_update().clone() else { break };
                    let patch = Patch::Merge(body(&subject.uid, &status));
                    match api.patch_status(&subject.name, &PatchParams::default(), &patch).await {
                        Ok(_) => {}
                        // A pod that is gone, or another of its name, wants no report.
                        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {}
                        Err(kube::Error::Api(error)) => {
                            eprintln!("status of pod {}/{}: {error}", subject.namespace, subject.name);
                        }
                        // The API server is not there: what was seen must not be lost.
                        Err(_) => {
                            tokio::time::sleep(pause).await;
                            pause = (pause * 2).min(LONGEST_PAUSE);
                            continue;
                        }
                    }
                    pause = FIRST_PAUSE;
                    if done.send(Some(status)).is_err() {
                        return;
                    }
                    break;
                }
            }
        });
        Reporter { newest, sent }
    }

    /// Replaces what is to be sent; returns at once.
    pub fn send(&self, status: PodStatus) {
        self.newest.send_replace(Some(Arc::new(status)));
    }

    /// Waits until the newest status was sent.
    pub async fn flush(&mut self) {
        let newest = self.newest.borrow().clone();
        let Some(newest) = newest else { return };
        let is_newest =
            |sent: &Option<Arc<PodStatus>>| sent.as_ref().is_some_and(|sent| Arc::ptr_eq(sent, &newest));
        // The task ended: there is nothing more to wait for.
        drop(self.sent.wait_for(is_newest).await);
    }
}

/// A merge patch that replaces the whole status: fields that are not there any more become null.
fn body(uid: &str, status: &PodStatus) -> Value {
    let mut fields = serde_json::to_value(status).unwrap_or_default();
    if let Value::Object(fields) = &mut fields {
        for name in
            ["reason", "message", "podIP", "podIPs", "initContainerStatuses", "ephemeralContainerStatuses"]
        {
            fields.entry(name).or_insert(Value::Null);
        }
    }
    json!({ "metadata": { "uid": uid }, "status": fields })
}

/// The last word on a pod that was asked to go: removes the object, if it still is that pod.
pub async fn remove(client: &kube::Client, subject: &Subject) -> Result<(), kube::Error> {
    let api = Api::<Pod>::namespaced(client.clone(), &subject.namespace);
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(subject.uid.clone()), resource_version: None }),
        ..Default::default()
    };
    match api.delete(&subject.name, &params).await {
        Ok(_) => Ok(()),
        // Gone already, or another pod of that name.
        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}
