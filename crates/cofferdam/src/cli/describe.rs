//! `describe`: what an object is and what happened to it, in words. Pods have a page of their own; every other kind is
//! printed field by field, as kubectl prints kinds it does not know, and the events come last.

use std::fmt::Write as _;
use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use kube::Client;
use serde_json::Value;

use super::describe_pod;
use super::manifests;
use super::out;
use super::remote::{Remote, Resource, report, with_query};

const JSON: &str = "application/json";

#[derive(Args, Debug, Default)]
#[command(after_help = "Examples:
  cofferdam describe pod web
  cofferdam describe node/node-1
  cofferdam describe pods -l app=web")]
pub struct DescribeArgs {
    /// TYPE [NAME...] or TYPE/NAME...
    #[arg(value_name = "TYPE[/NAME]")]
    pub what: Vec<String>,
    /// The objects that these manifests name (a file, a directory, - for standard input).
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    pub filename: Vec<String>,
    /// Where to look [default: default].
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects with these labels: `app=web,tier!=db`.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Without the events.
    #[arg(long = "show-events", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub show_events: bool,
}

/// Returns the exit code.
pub async fn describe(client: Client, args: DescribeArgs) -> Result<i32> {
    report(run(client, &args, &mut out::stdout()).await)
}

/// Writes what standard output gets to `out`.
pub(super) async fn run(client: Client, args: &DescribeArgs, out: &mut impl Write) -> Result<i32> {
    let remote = Remote::discover(client).await?;
    let mut found: Vec<(&Resource, Value)> = Vec::new();
    for manifest in manifests::read_all(&args.filename, false)? {
        let (resource, namespace, name) = manifest.target(&remote, args.namespace.as_deref())?;
        found.push((
            resource,
            remote.get(&format!("{}/{name}", resource.path(Some(&namespace))), JSON).await?,
        ));
    }
    if args.filename.is_empty() {
        for (resource, name) in remote.targets(&args.what)? {
            let namespace =
                if args.all_namespaces { None } else { Some(remote.namespace(args.namespace.as_deref())) };
            found.extend(find(&remote, args, resource, namespace, name.as_deref()).await?);
        }
    }
    if found.is_empty() {
        match args.all_namespaces {
            true => eprintln!("No resources found"),
            false => {
                eprintln!("No resources found in {} namespace.", remote.namespace(args.namespace.as_deref()))
            }
        }
    }
    for (i, (resource, object)) in found.iter().enumerate() {
        if i > 0 {
            write!(out, "\n\n")?;
        }
        let events = if args.show_events { events(&remote, object).await? } else { Vec::new() };
        write!(out, "{}", page(resource, object, args.show_events.then_some(&events)))?;
    }
    Ok(0)
}

/// By name; where there is none of that name, all whose names begin so, as kubectl does.
async fn find<'a>(
    remote: &Remote,
    args: &DescribeArgs,
    resource: &'a Resource,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Result<Vec<(&'a Resource, Value)>> {
    let path = resource.path(namespace);
    if let Some(name) = name {
        if args.all_namespaces && resource.namespaced {
            bail!("error: a resource cannot be retrieved by name across all namespaces");
        }
        let exact = remote.get(&format!("{path}/{name}"), JSON).await;
        let missing = match exact {
            Ok(object) => return Ok(vec![(resource, object)]),
            Err(error) if super::remote::reason(&error) == "NotFound" => error,
            Err(error) => return Err(error),
        };
        let list = remote.list(&path, &[], JSON).await?;
        let begin: Vec<_> = items(&list)
            .filter(|object| object["metadata"]["name"].as_str().is_some_and(|n| n.starts_with(name)))
            .map(|object| (resource, object))
            .collect();
        return if begin.is_empty() { Err(missing) } else { Ok(begin) };
    }
    let query: Vec<(&str, &str)> = args.selector.iter().map(|s| ("labelSelector", s.as_str())).collect();
    let list = remote.list(&path, &query, JSON).await?;
    Ok(items(&list).map(|object| (resource, object)).collect())
}

fn items(list: &Value) -> impl Iterator<Item = Value> {
    list["items"].as_array().cloned().unwrap_or_default().into_iter()
}

async fn events(remote: &Remote, object: &Value) -> Result<Vec<Value>> {
    let metadata = &object["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or("");
    let path = match text("namespace") {
        // Events of objects without a namespace lie in any.
        "" => "/api/v1/events".to_owned(),
        namespace => format!("/api/v1/namespaces/{namespace}/events"),
    };
    let mut selector = format!("involvedObject.name={}", text("name"));
    for (field, value) in [("namespace", text("namespace")), ("uid", text("uid"))] {
        if !value.is_empty() {
            let _ = write!(selector, ",involvedObject.{field}={value}");
        }
    }
    let query = [("fieldSelector", selector)];
    let list = remote.get(&with_query(&path, &query), JSON).await?;
    let mut all: Vec<Value> = items(&list).collect();
    all.sort_by_key(|event| last_seen(event).to_owned());
    Ok(all)
}

fn last_seen(event: &Value) -> &str {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .iter()
        .find_map(|p| event.pointer(p).and_then(Value::as_str))
        .unwrap_or("")
}

fn page(resource: &Resource, object: &Value, events: Option<&Vec<Value>>) -> String {
    let mut page = Page::default();
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => describe_pod::describe(&mut page, object),
        _ => generic(&mut page, resource, object),
    }
    if let Some(events) = events {
        event_rows(&mut page, events, now());
    }
    page.finish()
}

/// Seconds since the epoch.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

fn event_rows(page: &mut Page, events: &[Value], now: i64) {
    if events.is_empty() {
        page.line(0, &["Events:", "<none>"]);
        return;
    }
    page.line(0, &["Events:"]);
    page.line(1, &["Type", "Reason", "Age", "From", "Message"]);
    page.line(1, &["----", "------", "----", "----", "-------"]);
    for event in events {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let age = api::printer::age::since(last_seen(event), now);
        let count =
            event.pointer("/series/count").or(event.get("count")).and_then(Value::as_i64).unwrap_or(1);
        let age = match api::printer::age::parse_time(text("/firstTimestamp")) {
            Some(first) if count > 1 => {
                format!("{age} (x{count} over {})", api::printer::age::human_duration(now - first))
            }
            _ => age,
        };
        let from = match text("/source/component") {
            "" => text("/reportingComponent"),
            component => component,
        };
        page.line(1, &[text("/type"), text("/reason"), &age, from, text("/message").trim()]);
    }
}

/// Name, labels and annotations first, then every field as it stands.
fn generic(page: &mut Page, resource: &Resource, object: &Value) {
    let metadata = &object["metadata"];
    page.line(0, &["Name:", metadata["name"].as_str().unwrap_or("")]);
    if resource.namespaced {
        page.line(0, &["Namespace:", metadata["namespace"].as_str().unwrap_or("")]);
    }
    page.map(0, "Labels:", &metadata["labels"], "=");
    page.map(0, "Annotations:", &metadata["annotations"], ": ");
    page.line(0, &["API Version:", &resource.api_version()]);
    page.line(0, &["Kind:", &resource.kind]);
    let secret = (resource.group.as_str(), resource.kind.as_str()) == ("", "Secret");
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                let mut rest = value.clone();
                if let Some(map) = rest.as_object_mut() {
                    for shown in ["name", "namespace", "labels", "annotations", "managedFields"] {
                        map.remove(shown);
                    }
                }
                field(page, 0, "metadata", &rest);
            }
            // What is secret stays so; how much there is does not.
            "data" if secret => {
                page.line(0, &["Data:"]);
                for (key, value) in value.as_object().into_iter().flatten() {
                    let text = value.as_str().unwrap_or("");
                    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
                    let bytes = (text.len() / 4 * 3).saturating_sub(padding);
                    page.line(1, &[&format!("{key}:"), &format!("{bytes} bytes")]);
                }
            }
            _ => field(page, 0, key, value),
        }
    }
}

fn field(page: &mut Page, level: usize, key: &str, value: &Value) {
    let label = format!("{}:", words(key));
    match value {
        Value::Object(map) => {
            page.line(level, &[&label]);
            for (key, value) in map {
                field(page, level + 1, key, value);
            }
        }
        Value::Array(list) => {
            page.line(level, &[&label]);
            for item in list {
                match item {
                    Value::Object(map) => {
                        for (key, value) in map {
                            field(page, level + 1, key, value);
                        }
                    }
                    other => page.line(level + 1, &[&plain(other)]),
                }
            }
        }
        other => {
            let text = plain(other);
            let mut lines = text.lines();
            page.line(level, &[&label, lines.next().unwrap_or("")]);
            for line in lines {
                page.line(level, &["", line]);
            }
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// `creationTimestamp` → `Creation Timestamp`; keys that are no field names (`app.kubernetes.io/x`) as they are.
fn words(key: &str) -> String {
    if !key.chars().all(|c| c.is_ascii_alphanumeric()) || key.is_empty() {
        return key.to_owned();
    }
    const INITIALS: [&str; 7] = ["API", "IP", "IPs", "UID", "PID", "URL", "ID"];
    let mut parts: Vec<String> = Vec::new();
    let mut last_upper = false;
    for c in key.chars() {
        let upper = c.is_ascii_uppercase();
        match parts.last_mut() {
            Some(part) if !upper || last_upper => part.push(c),
            _ => parts.push(c.to_string()),
        }
        last_upper = upper;
    }
    let parts = parts.into_iter().map(|part| {
        if let Some(initial) = INITIALS.iter().find(|i| i.eq_ignore_ascii_case(&part)) {
            return (*initial).to_owned();
        }
        let mut chars = part.chars();
        chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// Lines of cells, laid out as Go's tabwriter does: a column is as wide as its widest cell among neighbouring lines that
/// have it, and two spaces.
#[derive(Default)]
pub struct Page {
    lines: Vec<Vec<String>>,
}

impl Page {
    /// One line, indented by `level`.
    pub fn line(&mut self, level: usize, cells: &[&str]) {
        let mut cells: Vec<String> = cells.iter().map(|cell| clean(cell)).collect();
        if let Some(first) = cells.first_mut() {
            first.insert_str(0, &"  ".repeat(level));
        }
        self.lines.push(cells);
    }

    /// A map, an entry a line behind one label.
    pub fn map(&mut self, level: usize, label: &str, map: &Value, between: &str) {
        let mut label = label;
        for (key, value) in map.as_object().into_iter().flatten() {
            if key == "kubectl.kubernetes.io/last-applied-configuration" {
                continue;
            }
            self.line(level, &[label, &format!("{key}{between}{}", plain(value))]);
            label = "";
        }
        if !label.is_empty() {
            self.line(level, &[label, "<none>"]);
        }
    }

    pub fn finish(self) -> String {
        let mut widths: Vec<Vec<usize>> = self.lines.iter().map(|cells| vec![0; cells.len()]).collect();
        let columns = self.lines.iter().map(Vec::len).max().unwrap_or(0);
        for column in 0..columns {
            // The last cell of a line is not followed by anything and counts for no width.
            let has = |line: usize| self.lines[line].len() > column + 1;
            let mut start = 0;
            while start < self.lines.len() {
                if !has(start) {
                    start += 1;
                    continue;
                }
                let end = (start..self.lines.len()).find(|line| !has(*line)).unwrap_or(self.lines.len());
                let widest = self.lines[start..end].iter().map(|cells| cells[column].chars().count()).max();
                for line in &mut widths[start..end] {
                    line[column] = widest.unwrap_or(0) + 2;
                }
                start = end;
            }
        }
        let mut out = String::new();
        for (cells, widths) in self.lines.iter().zip(&widths) {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(widths) {
                let _ = write!(line, "{cell:width$}", width = *width);
            }
            out.push_str(&line);
            out.push('\n');
        }
        out
    }
}

/// Without control characters: what a pod writes must not move the user's cursor.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource(kind: &str) -> Resource {
        Resource {
            group: String::new(),
            version: "v1".into(),
            kind: kind.into(),
            plural: String::new(),
            singular: String::new(),
            short_names: vec![],
            categories: vec![],
            namespaced: true,
            listable: true,
        }
    }

    #[test]
    fn any_kind_is_printed_field_by_field() {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b", "c": "d"}},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], "list": ["x"]}
        });
        assert_eq!(
            page(&resource("Service"), &object, Some(&vec![])),
            "Name:         web\n\
             Namespace:    default\n\
             Labels:       a=b\n\
             \x20             c=d\n\
             Annotations:  <none>\n\
             API Version:  v1\n\
             Kind:         Service\n\
             Metadata:\n\
             \x20 Creation Timestamp:  2026-01-01T00:00:00Z\n\
             Spec:\n\
             \x20 Cluster IP:  10.96.0.1\n\
             \x20 List:\n\
             \x20   x\n\
             \x20 Ports:\n\
             \x20   Port:  80\n\
             Events:    <none>\n"
        );
    }

    #[test]
    fn secrets_are_not_told() {
        let object = json!({"metadata": {"name": "s"}, "data": {"password": "aHVudGVyMg=="}});
        let text = page(&resource("Secret"), &object, None);
        assert!(text.contains("password:  7 bytes") && !text.contains("aHVudGVyMg"), "{text}");
    }

    #[test]
    fn events_say_how_often() {
        let event = json!({"type": "Warning", "reason": "BackOff", "count": 3, "message": "no\n", "source": {"component": "kubelet"},
            "firstTimestamp": "2026-11-23T20:20:00Z", "lastTimestamp": "2026-11-23T20:29:00Z"});
        let mut page = Page::default();
        event_rows(&mut page, &[event], 1_795_465_800);
        assert_eq!(
            page.finish(),
            "Events:\n\
             \x20 Type     Reason   Age                From     Message\n\
             \x20 ----     ------   ----               ----     -------\n\
             \x20 Warning  BackOff  60s (x3 over 10m)  kubelet  no\n"
        );
    }

    #[test]
    fn field_names_become_words() {
        for (key, want) in [
            ("creationTimestamp", "Creation Timestamp"),
            ("podIP", "Pod IP"),
            ("uid", "UID"),
            ("a.b/c", "a.b/c"),
            ("hostIPs", "Host IPs"),
        ] {
            assert_eq!(words(key), want);
        }
    }
}
