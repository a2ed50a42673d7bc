//! Which pod and container `logs` and `exec` mean.

use anyhow::{Result, bail};
use serde_json::Value;

use super::remote::{Remote, with_query};

const JSON: &str = "application/json";

/// A pod and how people name it.
pub struct Chosen {
    pub object: Value,
    pub name: String,
    /// How many pods there were to choose from.
    pub of: usize,
}

impl Chosen {
    fn names(&self, list: &str) -> Vec<String> {
        let containers = self.object.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
        containers.into_iter().flatten().filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
    }

    pub fn all_containers(&self) -> Vec<String> {
        ["initContainers", "containers", "ephemeralContainers"]
            .iter()
            .flat_map(|list| self.names(list))
            .collect()
    }

    /// The container that is meant: the one named (the server says if there is none), the annotated default, or the first
    /// (and kubectl says which).
    pub fn container(&self, given: Option<&str>) -> Result<String> {
        if let Some(given) = given {
            return Ok(given.to_owned());
        }
        let annotated =
            self.object["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
        let containers = self.names("containers");
        if let Some(name) = annotated.filter(|name| containers.iter().any(|c| c == name)) {
            return Ok(name.to_owned());
        }
        let Some(first) = containers.first() else { bail!("error: pod {} has no containers", self.name) };
        if self.all_containers().len() > 1 {
            let mut all = containers.clone();
            all.extend(self.names("ephemeralContainers").into_iter().map(|n| format!("{n} (ephem)")));
            all.extend(self.names("initContainers").into_iter().map(|n| format!("{n} (init)")));
            eprintln!("Defaulted container {first:?} out of: {}", all.join(", "));
        }
        Ok(first.clone())
    }
}

/// `POD`, `pod/POD`, or a pod of `TYPE/NAME`: the one that has been ready longest.
pub async fn choose(remote: &Remote, namespace: &str, word: &str) -> Result<Chosen> {
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let (kind, name) = word.split_once('/').unwrap_or(("pod", word));
    let resource = remote.resource(kind)?;
    if (resource.group.as_str(), resource.kind.as_str()) == ("", "Pod") {
        let object = remote.get(&format!("{pods}/{name}"), JSON).await?;
        return Ok(Chosen { object, name: name.to_owned(), of: 1 });
    }
    let owner = remote.get(&format!("{}/{name}", resource.path(Some(namespace))), JSON).await?;
    let Some(selector) = selector_text(&owner["spec"]["selector"]) else {
        bail!("error: cannot get the logs from {}: it selects no pods", resource.kind);
    };
    let query = [("labelSelector", selector)];
    let list = remote.get(&with_query(&pods, &query), JSON).await?;
    let mut found: Vec<Value> = list["items"].as_array().cloned().unwrap_or_default();
    found.sort_by_key(rank);
    let count = found.len();
    let Some(object) = found.into_iter().next() else {
        bail!("error: timed out waiting for the condition: no pods of {}/{name}", resource.prefix());
    };
    let chosen = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
    Ok(Chosen { object, name: chosen, of: count })
}

/// Lower is better: placed, running, ready, ready for longer.
fn rank(pod: &Value) -> (bool, u8, bool, String) {
    let phase = match pod["status"]["phase"].as_str() {
        Some("Running") => 0,
        Some("Pending") => 1,
        _ => 2,
    };
    let ready = pod["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    let is_ready = ready.is_some_and(|c| c["status"] == "True");
    let since = ready.and_then(|c| c["lastTransitionTime"].as_str()).unwrap_or("").to_owned();
    (pod["spec"]["nodeName"].as_str().unwrap_or("").is_empty(), phase, !is_ready, since)
}

/// A LabelSelector, or the plain map of Services and ReplicationControllers, as a query writes it.
fn selector_text(selector: &Value) -> Option<String> {
    let map = selector.as_object()?;
    let pairs = |labels: &serde_json::Map<String, Value>| -> Vec<String> {
        labels.iter().filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?))).collect()
    };
    let mut parts = match map.get("matchLabels").and_then(Value::as_object) {
        Some(labels) => pairs(labels),
        None if map.contains_key("matchExpressions") => Vec::new(),
        None => pairs(map),
    };
    for requirement in map.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = requirement["key"].as_str()?;
        let values: Vec<&str> =
            requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match requirement["operator"].as_str()? {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_that_is_meant() {
        let pod = |annotations: Value| Chosen {
            object: json!({"metadata": {"annotations": annotations}, "spec": {
                "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}}),
            name: "p".into(),
            of: 1,
        };
        assert_eq!(pod(json!({})).container(None).unwrap(), "a");
        assert_eq!(pod(json!({})).container(Some("i")).unwrap(), "i");
        assert_eq!(
            pod(json!({"kubectl.kubernetes.io/default-container": "b"})).container(None).unwrap(),
            "b"
        );
    }

    #[test]
    fn the_pod_that_is_best_to_look_at() {
        let pod = |phase: &str, ready: &str, since: &str| {
            json!({"spec": {"nodeName": "n"}, "status": {"phase": phase, "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": since}]}})
        };
        let mut pods = [
            pod("Failed", "False", "1"),
            pod("Pending", "False", "1"),
            pod("Running", "False", "1"),
            pod("Running", "True", "3"),
            pod("Running", "True", "2"),
        ];
        pods.sort_by_key(rank);
        assert_eq!(pods[0], pod("Running", "True", "2"));
        assert_eq!(pods[4], pod("Failed", "False", "1"));
    }

    #[test]
    fn selectors_become_queries() {
        let text = |selector: Value| selector_text(&selector);
        assert_eq!(text(json!({"app": "x"})), Some("app=x".into()));
        assert_eq!(
            text(
                json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "NotIn", "values": ["x", "y"]}]})
            ),
            Some("a=b,k notin (x,y)".into())
        );
        assert_eq!(text(json!({})), None);
        assert_eq!(text(Value::Null), None);
    }
}
