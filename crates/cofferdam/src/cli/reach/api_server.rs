//! What the API server says: whose a token is, what an identity may do, whether a pod would be let in. Reviews and dry runs
//! change nothing.

use futures::{StreamExt as _, stream};
use kube::Client;
use policy::reach::Sight;
use policy::reach::api::{Access, Identity, Question};
use serde_json::{Value, json};

use super::processes::Processes;
use crate::cli::remote;

/// Reviews under way at a time.
const AT_ONCE: usize = 32;

/// # Errors
/// Why nothing can be said.
pub async fn look(client: &Client, question: &Question, processes: &Processes) -> Result<Sight, String> {
    match question {
        Question::Token { container, path } => token(client, container, path, processes).await,
        Question::Access { who, any_of } => access(client, who, any_of).await,
        Question::PrivilegedPod { who, by, namespace } => {
            let access = Access { power: by, namespace: namespace.clone(), name: String::new() };
            let may = review(client, who, &access).await?;
            if !may.is_there {
                return Ok(may);
            }
            privileged_pod(client, namespace).await
        }
    }
}

async fn post(client: &Client, path: &str, body: &Value) -> Result<Value, String> {
    let headers = [("content-type", "application/json")];
    let request = remote::request("POST", path, &headers, body.to_string().into_bytes());
    let request = request.map_err(|error| format!("{error:#}"))?;
    client.request(request).await.map_err(|error| format!("{:#}", remote::explain(error)))
}

async fn token(client: &Client, container: &str, path: &str, processes: &Processes) -> Result<Sight, String> {
    let Some(token) = processes.token(container, path)? else {
        return Ok(Sight { is_there: false, witness: format!("no file {path} in container {container}") });
    };
    let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": token } });
    let answer = post(client, "/apis/authentication.k8s.io/v1/tokenreviews", &body).await?;
    let status = &answer["status"];
    let witness = match (status["authenticated"] == true, status["user"]["username"].as_str()) {
        (true, Some(user)) => format!("{path} is taken for {user}'s"),
        _ => format!("{path} is refused: {}", status["error"].as_str().unwrap_or("it is nobody's")),
    };
    Ok(Sight { is_there: status["authenticated"] == true, witness })
}

/// Whether any is allowed.
async fn access(client: &Client, who: &Identity, any_of: &[Access]) -> Result<Sight, String> {
    let mut reviews = stream::iter(any_of).map(|access| review(client, who, access)).buffered(AT_ONCE);
    let mut asked = 0;
    while let Some(seen) = reviews.next().await {
        let seen = seen?;
        asked += 1;
        if seen.is_there {
            return Ok(seen);
        }
    }
    Ok(Sight { is_there: false, witness: format!("{asked} access reviews say no") })
}

async fn review(client: &Client, who: &Identity, access: &Access) -> Result<Sight, String> {
    let Access { power, namespace, name } = access;
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": who.name,
            "groups": who.groups,
            "resourceAttributes": {
                "verb": power.verb,
                "group": power.group,
                "resource": power.resource,
                "subresource": power.subresource,
                "namespace": namespace,
                "name": name,
            },
        },
    });
    let answer = post(client, "/apis/authorization.k8s.io/v1/subjectaccessreviews", &body).await?;
    let is_there = answer["status"]["allowed"] == true;
    let word = if is_there { "yes" } else { "no" };
    Ok(Sight { is_there, witness: format!("an access review of {} for {who} says {word}", power.words()) })
}

/// A dry run, as one whom no role holds back: what is left to refuse it is Pod Security.
async fn privileged_pod(client: &Client, namespace: &str) -> Result<Sight, String> {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "generateName": "reach-" },
        "spec": {
            "hostPID": true,
            "automountServiceAccountToken": false,
            "containers": [{ "name": "c", "image": "c", "securityContext": { "privileged": true } }],
        },
    });
    let headers = [("content-type", "application/json")];
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let request = remote::request("POST", &path, &headers, body.to_string().into_bytes());
    match client.request::<Value>(request.map_err(|error| format!("{error:#}"))?).await {
        Ok(_) => Ok(Sight { is_there: true, witness: "a dry run of such a pod is let in".into() }),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Ok(Sight { is_there: false, witness: format!("a dry run: {}", status.message) })
        }
        Err(error) => Err(format!("{:#}", remote::explain(error))),
    }
}
