//! The manifest as the level would let it in: remedies of violations become changes of the text, again and again until none is
//! left, and what was changed is held against what the remedies say of the object itself.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use policy::pod_security::{Change, LevelVersion, Remedy, Setting, evaluate, remedy};
use serde_json::Value;

use super::{
    edit::{self, Edit},
    source::{Object, Pod, Source, typed},
    tree::{Content, Step, steps},
};

/// Passes over a file: one remedy may uncover another check, and two may need the same new object.
const PASSES: usize = 12;

pub struct Fixed {
    pub text: String,
    /// What a pod may lack now.
    pub notes: Vec<String>,
    /// What is to be done by hand.
    pub left: Vec<String>,
}

/// What to write, in a sentence; `prefix` is where the pod stands in its object, `spec.template.` or nothing.
pub fn words(prefix: &str, remedies: &[Remedy]) -> String {
    let mut said = BTreeSet::new();
    let words = remedies.iter().map(|remedy| {
        let path = format!("{prefix}{}", remedy.path);
        match (remedy.change, remedy.note) {
            (Change::Set(Setting::Bool(value)), _) => format!("set {path}: {value}"),
            (Change::Set(Setting::Text(text)), _) => format!("set {path}: {text}"),
            (Change::Set(Setting::List(item)), _) => format!("set {path}: [{item:?}]"),
            (Change::Remove, _) => format!("remove {path}"),
            (Change::ByHand, note) => format!("{path}: {}", note.unwrap_or("by hand")),
        }
    });
    let words: Vec<String> = words.filter(|words| said.insert(words.clone())).collect();
    words.join("; ")
}

/// Changes a source's text by all that can be changed by itself.
///
/// # Errors
/// A text whose change would change more than was meant.
pub fn fix(source: &Source, policy: LevelVersion) -> Result<Fixed> {
    let mut notes = Vec::new();
    let mut current = Source::parse(&source.name, source.text.clone())?;
    for _ in 0..PASSES {
        let edits = edits(&current, policy, &mut notes);
        if edits.is_empty() {
            break;
        }
        let text = applied(&current.text, &edits);
        current = Source::parse(&source.name, text)?;
    }
    hold_against_remedies(source, &current, policy)?;
    let mut seen = BTreeSet::new();
    notes.retain(|note: &String| seen.insert(note.clone()));
    Ok(Fixed { left: left(&current, policy), text: current.text, notes })
}

/// The pods of a source that can be read.
fn pods(source: &Source) -> impl Iterator<Item = (&Object, Pod)> {
    source.objects.iter().filter_map(|object| Some((object, object.pod().ok()??)))
}

/// The changes of one pass: those that do not meet.
fn edits(source: &Source, policy: LevelVersion, notes: &mut Vec<String>) -> Vec<Edit> {
    let mut found: Vec<Edit> = Vec::new();
    for (object, pod) in pods(source) {
        let document = &source.documents[object.document];
        let verdict = evaluate(policy, &pod.metadata, &pod.spec);
        let (mut removals, mut settings) = (Vec::new(), Vec::new());
        for remedy in verdict.violations.iter().flat_map(|violation| &violation.remedies) {
            let path: Vec<Step> = pod.root.iter().cloned().chain(steps(&remedy.path)).collect();
            match remedy.change {
                Change::ByHand => continue,
                Change::Remove => removals.push(path),
                Change::Set(value) => settings.push((path, value)),
            }
            if let Some(note) = remedy.note {
                notes.push(format!("{}: {}: {note}", object.shown(), remedy.path));
            }
        }
        let set_paths: Vec<&[Step]> = settings.iter().map(|(path, _)| path.as_slice()).collect();
        let removals = whole(document, removals, &set_paths);
        let removed = removals.iter().filter_map(|path| edit::remove(&source.text, document, path).ok()?);
        let set =
            settings.iter().filter_map(|(path, value)| edit::set(&source.text, document, path, *value).ok());
        found.extend(removed.chain(set));
    }
    // In the text's order, so that an edit meets none but its neighbours.
    found.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut edits: Vec<Edit> = Vec::new();
    for edit in found {
        let mut near = edits.iter().rev().take_while(|other| other.range.end >= edit.range.start);
        if near.all(|other| other.may_stand_beside(&edit)) {
            edits.push(edit);
        }
    }
    edits
}

/// Removals, with all items of a list or all fields of an object replaced by the list or the object.
fn whole(document: &super::tree::Document, removals: Vec<Vec<Step>>, settings: &[&[Step]]) -> Vec<Vec<Step>> {
    let mut removals: Vec<Vec<Step>> = {
        let there = |path: &Vec<Step>| document.find(path).steps == path.len();
        removals.into_iter().filter(there).collect::<BTreeSet<_>>().into_iter().collect()
    };
    loop {
        let emptied = removals.iter().find_map(|path| {
            let (_, parent) = path.split_last()?;
            let is_field =
                matches!(parent.last(), Some(Step::Key(name)) if name != "spec" && name != "metadata");
            let children = match &document.find(parent).node().content {
                Content::Mapping(_, entries) => entries.len(),
                Content::Sequence(_, items) => items.len(),
                _ => return None,
            };
            let going = removals.iter().filter(|other| other.split_last().is_some_and(|(_, p)| p == parent));
            let stays = settings.iter().any(|setting| setting.starts_with(parent));
            (is_field && !stays && going.count() == children).then(|| parent.to_vec())
        });
        match emptied {
            Some(parent) => {
                removals.retain(|path| !path.starts_with(&parent));
                removals.push(parent);
            }
            None => return removals,
        }
    }
}

/// The text with edits that are in its order.
fn applied(text: &str, edits: &[Edit]) -> String {
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for edit in edits {
        out.push_str(&text[at..edit.range.start]);
        out.push_str(&edit.text);
        at = edit.range.end;
    }
    out.push_str(&text[at..]);
    out
}

/// The objects of the new text must be those of the old one with the remedies carried out, and nothing else.
fn hold_against_remedies(old: &Source, new: &Source, policy: LevelVersion) -> Result<()> {
    let differs = || format!("{}: a change would change more than was meant; change it by hand", old.name);
    if old.objects.len() != new.objects.len() {
        bail!(differs());
    }
    for (old, new) in old.objects.iter().zip(&new.objects) {
        // What could not be changed may be as it was, so the remedies are carried out on both.
        if finished(old, policy) != finished(new, policy) {
            bail!(differs());
        }
    }
    Ok(())
}

/// Carries all remedies out on a pod's JSON.
fn remedied(template: &mut Value, policy: LevelVersion) {
    for _ in 0..PASSES {
        let Ok((metadata, spec)) = typed(template) else { return };
        let verdict = evaluate(policy, &metadata, &spec);
        let remedies = verdict.violations.iter().flat_map(|violation| &violation.remedies);
        let remedies: Vec<&Remedy> = remedies.collect();
        if !remedy::apply(remedies.into_iter(), template) {
            return;
        }
    }
}

/// The object with all remedies carried out.
fn finished(object: &Object, policy: LevelVersion) -> Value {
    let mut value = object.value.clone();
    let mut path = object.pod_path().into_iter().flatten();
    let template = object.pod_path().and_then(|_| path.try_fold(&mut value, |at, field| at.get_mut(*field)));
    if let Some(template) = template {
        remedied(template, policy);
    }
    without_nothing(&mut value);
    value
}

/// Takes nulls and empty objects and lists away, which mean the same as nothing where remedies are carried out.
fn without_nothing(value: &mut Value) {
    fn is_nothing(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        }
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_nothing),
        Value::Object(map) => {
            map.values_mut().for_each(without_nothing);
            map.retain(|_, value| !is_nothing(value));
        }
        _ => {}
    }
}

/// What the level still refuses.
fn left(source: &Source, policy: LevelVersion) -> Vec<String> {
    let mut left = Vec::new();
    for (object, pod) in pods(source) {
        for violation in evaluate(policy, &pod.metadata, &pod.spec).violations {
            let document = &source.documents[object.document];
            let whys = violation.remedies.iter().map(|remedy| {
                let path: Vec<Step> = pod.root.iter().cloned().chain(steps(&remedy.path)).collect();
                let refused = match remedy.change {
                    Change::ByHand => return remedy.note.unwrap_or("by hand").to_owned(),
                    Change::Remove => edit::remove(&source.text, document, &path).err(),
                    Change::Set(value) => edit::set(&source.text, document, &path, value).err(),
                };
                let why =
                    refused.map_or_else(|| "it was not changed".to_owned(), |why| why.words().to_owned());
                format!("{}: {why}", remedy.path)
            });
            let whys: BTreeSet<String> = whys.collect();
            let whys: Vec<String> = whys.into_iter().collect();
            left.push(format!("{}: {violation}: {}", object.shown(), whys.join("; ")));
        }
    }
    left.extend(
        source.objects.iter().filter_map(|object| object.pod().err()).map(|error| format!("{error:#}")),
    );
    left
}
