//! `get`: objects as tables, YAML, JSON or names, once or as they change.

use std::io::Write;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use futures::StreamExt;
use kube::{Client, core::WatchEvent};
use serde_json::{Value, json};

use super::manifests;
use super::out;
use super::remote::{Remote, Resource, explain, report, request, with_query};
use super::yaml;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const JSON: &str = "application/json";

#[derive(Args, Debug, Default)]
#[command(after_help = "Examples:
  cofferdam get pods -A -o wide
  cofferdam get deployment/web service/web
  cofferdam get pods -l app=web -w")]
pub struct GetArgs {
    /// TYPE[,TYPE...] [NAME...] or TYPE/NAME...
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
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    /// Only objects with these labels: `app=web,tier!=db`.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Only objects with these fields: `spec.nodeName=node-1`.
    #[arg(long)]
    pub field_selector: Option<String>,
    /// Go on and print what changes.
    #[arg(short, long)]
    pub watch: bool,
    /// No column names.
    #[arg(long)]
    pub no_headers: bool,
    /// One more column with all labels.
    #[arg(long)]
    pub show_labels: bool,
    /// An object that is not there is no error.
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Keep `metadata.managedFields` in JSON and YAML.
    #[arg(long)]
    pub show_managed_fields: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Json,
    Yaml,
    Name,
    Wide,
}

/// Returns the exit code.
pub async fn get(client: Client, args: GetArgs) -> Result<i32> {
    report(run(client, &args, &mut out::stdout()).await)
}

/// Writes what standard output gets to `out`.
pub(super) async fn run(client: Client, args: &GetArgs, out: &mut impl Write) -> Result<i32> {
    let remote = Remote::discover(client).await?;
    let mut targets: Vec<(&Resource, Option<String>, Option<String>)> = Vec::new();
    for manifest in manifests::read_all(&args.filename, false)? {
        let (resource, namespace, name) = manifest.target(&remote, args.namespace.as_deref())?;
        targets.push((resource, Some(name), Some(namespace)));
    }
    if args.filename.is_empty() {
        targets.extend(remote.targets(&args.what)?.into_iter().map(|(r, n)| (r, n, None)));
    }
    if args.all_namespaces && targets.iter().any(|(_, name, _)| name.is_some()) {
        bail!("error: a resource cannot be retrieved by name across all namespaces");
    }
    if args.watch && targets.len() != 1 {
        bail!("error: you may only specify a single resource type");
    }
    match args.output {
        None | Some(Output::Wide) => tables(&remote, args, &targets, out).await,
        Some(output) => objects(&remote, args, &targets, output, out).await,
    }
}

/// The path and query of one target.
fn address(
    remote: &Remote,
    args: &GetArgs,
    (resource, name, namespace): &(&Resource, Option<String>, Option<String>),
) -> (String, Vec<(&'static str, String)>) {
    let given = namespace.as_deref().or(args.namespace.as_deref());
    let namespace = if args.all_namespaces { None } else { Some(remote.namespace(given)) };
    let mut query = Vec::new();
    if let Some(selector) = &args.selector {
        query.push(("labelSelector", selector.clone()));
    }
    if let Some(selector) = &args.field_selector {
        query.push(("fieldSelector", selector.clone()));
    }
    if let Some(name) = name
        && args.watch
    {
        query.push(("fieldSelector", format!("metadata.name={name}")));
    }
    (resource.path(namespace), query)
}

async fn fetch(
    remote: &Remote,
    args: &GetArgs,
    target: &(&Resource, Option<String>, Option<String>),
    accept: &str,
) -> Result<Option<Value>> {
    let (path, query) = address(remote, args, target);
    let result = match &target.1 {
        Some(name) if !args.watch => remote.get(&format!("{path}/{name}"), accept).await,
        _ => {
            let query: Vec<(&str, &str)> = query.iter().map(|(k, v)| (*k, v.as_str())).collect();
            remote.list(&path, &query, accept).await
        }
    };
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if args.ignore_not_found && super::remote::reason(&error) == "NotFound" => Ok(None),
        Err(error) => Err(error),
    }
}

async fn tables(
    remote: &Remote,
    args: &GetArgs,
    targets: &[(&Resource, Option<String>, Option<String>)],
    out: &mut impl Write,
) -> Result<i32> {
    // Names of one resource make one table.
    let mut tables: Vec<(&Resource, Value)> = Vec::new();
    let mut errors = Vec::new();
    for target in targets {
        match fetch(remote, args, target, TABLE).await {
            Ok(Some(mut table)) => match tables.last_mut() {
                Some((resource, all)) if *resource == target.0 => {
                    let more = table["rows"].as_array_mut().map(std::mem::take).unwrap_or_default();
                    if let Some(rows) = all["rows"].as_array_mut() {
                        rows.extend(more);
                    }
                }
                _ => tables.push((target.0, table)),
            },
            Ok(None) => {}
            Err(error) if targets.len() > 1 => errors.push(error),
            Err(error) => return Err(error),
        }
    }
    if !args.watch {
        tables.retain(|(_, table)| table["rows"].as_array().is_some_and(|rows| !rows.is_empty()));
    }
    let many = tables.len() > 1;
    for (i, (resource, table)) in tables.iter().enumerate() {
        let mut printer = Printer::new(table, args, many.then_some(*resource));
        if i > 0 {
            writeln!(out)?;
        }
        printer.print(out, table)?;
        out.flush()?;
        if args.watch {
            return watch(remote, args, &targets[0], table, Some(printer), out).await;
        }
    }
    for error in &errors {
        eprintln!("{error:#}");
    }
    if tables.is_empty() && errors.is_empty() && !args.ignore_not_found {
        let namespaced = targets.iter().any(|t| t.0.namespaced);
        if args.all_namespaces || !namespaced {
            eprintln!("No resources found");
        } else {
            eprintln!("No resources found in {} namespace.", remote.namespace(args.namespace.as_deref()));
        }
    }
    Ok(i32::from(!errors.is_empty()))
}

/// Prints events from the list on, until the server or the user ends it.
async fn watch(
    remote: &Remote,
    args: &GetArgs,
    target: &(&Resource, Option<String>, Option<String>),
    list: &Value,
    mut printer: Option<Printer>,
    out: &mut impl Write,
) -> Result<i32> {
    let (path, mut query) = address(remote, args, target);
    let mut from = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("").to_owned();
    let accept = if printer.is_some() { TABLE } else { JSON };
    loop {
        query.retain(|(key, _)| !["watch", "resourceVersion", "allowWatchBookmarks"].contains(key));
        query.push(("watch", "true".into()));
        query.push(("allowWatchBookmarks", "true".into()));
        query.push(("resourceVersion", from.clone()));
        let request = request("GET", &with_query(&path, &query), &[("accept", accept)], Vec::new())?;
        let events = remote.client.request_events::<Value>(request).await.map_err(explain)?;
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await.transpose().map_err(explain)? {
            let object = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    object
                }
                WatchEvent::Bookmark(bookmark) => {
                    from = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return Err(explain(kube::Error::Api(status))),
            };
            let of = ["/metadata/resourceVersion", "/rows/0/object/metadata/resourceVersion"];
            if let Some(version) = of.iter().find_map(|p| object.pointer(p)).and_then(Value::as_str)
                && !version.is_empty()
            {
                from = version.to_owned();
            }
            match &mut printer {
                Some(printer) => printer.print(out, &object)?,
                None => write_object(out, args, target.0, object)?,
            }
            out.flush()?;
        }
    }
}

fn write_object(out: &mut impl Write, args: &GetArgs, resource: &Resource, mut object: Value) -> Result<()> {
    complete(&mut object, resource, args);
    match args.output {
        Some(Output::Json) => writeln!(out, "{}", pretty(&object)?)?,
        Some(Output::Name) => writeln!(out, "{}/{}", resource.prefix(), name_of(&object))?,
        _ => write!(out, "---\n{}", yaml::to_string(&object))?,
    }
    Ok(())
}

async fn objects(
    remote: &Remote,
    args: &GetArgs,
    targets: &[(&Resource, Option<String>, Option<String>)],
    output: Output,
    out: &mut impl Write,
) -> Result<i32> {
    let mut found: Vec<(&Resource, Value)> = Vec::new();
    let single = targets.len() == 1 && targets[0].1.is_some();
    let mut list_for_watch = None;
    for target in targets {
        let Some(value) = fetch(remote, args, target, JSON).await? else { continue };
        match value.get("items").and_then(Value::as_array) {
            Some(items) => found.extend(items.iter().map(|item| (target.0, item.clone()))),
            None => found.push((target.0, value.clone())),
        }
        list_for_watch = Some(value);
    }
    for (resource, object) in &mut found {
        complete(object, resource, args);
    }
    if args.watch {
        for (resource, object) in found {
            write_object(out, args, resource, object)?;
        }
        return watch(remote, args, &targets[0], &list_for_watch.unwrap_or(Value::Null), None, out).await;
    }
    if output == Output::Name {
        for (resource, object) in &found {
            writeln!(out, "{}/{}", resource.prefix(), name_of(object))?;
        }
        return Ok(0);
    }
    if single && found.is_empty() {
        return Ok(0);
    }
    let whole = if single {
        found.remove(0).1
    } else {
        let items: Vec<Value> = found.into_iter().map(|(_, object)| object).collect();
        json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
    };
    match output {
        Output::Json => writeln!(out, "{}", pretty(&whole)?)?,
        _ => write!(out, "{}", yaml::to_string(&whole))?,
    }
    Ok(0)
}

fn name_of(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("")
}

/// Items of a list do not say what they are; a person wants to know. Field ownership is left out unless asked for.
fn complete(object: &mut Value, resource: &Resource, args: &GetArgs) {
    if let Some(map) = object.as_object_mut() {
        map.entry("apiVersion").or_insert_with(|| resource.api_version().into());
        map.entry("kind").or_insert_with(|| resource.kind.clone().into());
        if !args.show_managed_fields
            && let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("managedFields");
        }
    }
}

/// kubectl indents by four.
fn pretty(value: &Value) -> Result<String> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(value, &mut serializer)?;
    Ok(String::from_utf8(out)?)
}

/// Prints Tables as kubectl's tab writer lays them out: three spaces between columns, no column under six wide, widths
/// that only grow while one command prints.
struct Printer {
    shown: Vec<usize>,
    headers: Vec<String>,
    widths: Vec<usize>,
    head_left: bool,
    namespaces: bool,
    labels: bool,
    /// Put before names where several resources are printed: `pod/web`.
    prefix: Option<String>,
    name_column: Option<usize>,
}

impl Printer {
    fn new(table: &Value, args: &GetArgs, prefix: Option<&Resource>) -> Printer {
        let wide = args.output == Some(Output::Wide);
        let columns = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
        let shown: Vec<usize> = (0..columns.len())
            .filter(|i| wide || columns[*i]["priority"].as_i64().unwrap_or(0) == 0)
            .collect();
        let name_column = columns.iter().position(|c| c["format"] == "name");
        let mut headers: Vec<String> =
            shown.iter().map(|i| columns[*i]["name"].as_str().unwrap_or("").to_uppercase()).collect();
        if args.all_namespaces {
            headers.insert(0, "NAMESPACE".into());
        }
        if args.show_labels {
            headers.push("LABELS".into());
        }
        Printer {
            widths: vec![0; headers.len()],
            shown,
            headers,
            head_left: !args.no_headers,
            namespaces: args.all_namespaces,
            labels: args.show_labels,
            prefix: prefix.map(Resource::prefix),
            name_column,
        }
    }

    fn print(&mut self, out: &mut impl Write, table: &Value) -> Result<()> {
        let mut lines: Vec<Vec<String>> = Vec::new();
        // The head waits for the first row.
        if table["rows"].as_array().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        if std::mem::take(&mut self.head_left) {
            lines.push(self.headers.clone());
        }
        for row in table["rows"].as_array().into_iter().flatten() {
            lines.push(self.line(row));
        }
        for line in &lines {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max((cell.chars().count() + 3).max(6));
            }
        }
        for line in lines {
            let mut text = String::new();
            for (i, (cell, width)) in line.iter().zip(&self.widths).enumerate() {
                if i + 1 == line.len() {
                    text.push_str(cell);
                } else {
                    text.push_str(&format!("{cell:width$}", width = *width));
                }
            }
            writeln!(out, "{text}")?;
        }
        Ok(())
    }

    fn line(&self, row: &Value) -> Vec<String> {
        let cells = row["cells"].as_array();
        let cell = |i: usize| match cells.and_then(|c| c.get(i)) {
            None | Some(Value::Null) => "<none>".to_owned(),
            // A cell is one line: control characters would move the cursor (CVE-2021-25743).
            Some(Value::String(text)) => printable(text),
            Some(other) => other.to_string(),
        };
        let mut line: Vec<String> = self
            .shown
            .iter()
            .map(|i| match &self.prefix {
                Some(prefix) if self.name_column == Some(*i) => format!("{prefix}/{}", cell(*i)),
                _ => cell(*i),
            })
            .collect();
        let metadata = &row["object"]["metadata"];
        if self.namespaces {
            line.insert(0, metadata["namespace"].as_str().unwrap_or("").to_owned());
        }
        if self.labels {
            let labels: Vec<String> = metadata["labels"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
                .collect();
            line.push(if labels.is_empty() { "<none>".into() } else { labels.join(",") });
        }
        line
    }
}

/// The first line, with control characters escaped; "..." where there was more.
fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\u{c}' => {
                out.push_str("...");
                break;
            }
            c if c.is_control() && c != '\t' => out.push_str(&c.escape_unicode().to_string()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name", "format": "name", "priority": 0},
                {"name": "Ready", "priority": 0},
                {"name": "IP", "priority": 1}
            ],
            "rows": [
                {"cells": ["a-long-name", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "n", "labels": {"a": "b"}}}},
                {"cells": ["b", 3, null], "object": {"metadata": {"namespace": "n"}}}
            ]
        })
    }

    fn printed(args: &GetArgs, prefix: Option<&Resource>) -> String {
        let mut out = Vec::new();
        Printer::new(&table(), args, prefix).print(&mut out, &table()).expect("write to memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_table_is_laid_out_as_kubectl_does() {
        assert_eq!(
            printed(&GetArgs::default(), None),
            "NAME          READY\na-long-name   1/1\nb             3\n"
        );
        let wide = GetArgs { output: Some(Output::Wide), no_headers: true, ..GetArgs::default() };
        assert_eq!(printed(&wide, None), "a-long-name   1/1   10.0.0.1\nb             3     <none>\n");
        let all = GetArgs { all_namespaces: true, show_labels: true, ..GetArgs::default() };
        assert_eq!(
            printed(&all, None),
            "NAMESPACE   NAME          READY   LABELS\nn           a-long-name   1/1     a=b\nn           b             3       <none>\n"
        );
    }

    #[test]
    fn widths_only_grow_while_watching() {
        let mut printer = Printer::new(&table(), &GetArgs::default(), None);
        let mut out = Vec::new();
        printer.print(&mut out, &table()).expect("write to memory");
        out.clear();
        let event = json!({"rows": [{"cells": ["c", "0/1", ""]}]});
        printer.print(&mut out, &event).expect("write to memory");
        assert_eq!(String::from_utf8_lossy(&out), "c             0/1\n");
    }

    #[test]
    fn a_cell_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("one\ntwo"), "one...");
    }
}
