//! What may be written into a Job's status. Another than this cluster's own controller may be writing it (`managedBy`), and
//! whoever waits for a Job relies on what an end looks like. Of what is wrong, only what changed is said: the spec may have
//! changed under a status that was right (`pkg/registry/batch/job`, `getStatusValidationOptions`).

use std::collections::BTreeSet;

use super::job_policies::read_indexes;
use super::view::At;
use crate::field::{Error, ErrorList};
use crate::time::Instant;

/// A status, and the spec it is of.
struct Seen<'a> {
    spec: At<'a>,
    status: At<'a>,
}

impl<'a> Seen<'a> {
    fn new(root: &At<'a>) -> Seen<'a> {
        Seen { spec: root.child("spec"), status: root.child("status") }
    }

    fn field(&self, name: &str) -> At<'a> {
        self.status.child(name)
    }

    fn count(&self, name: &str) -> i64 {
        self.field(name).int().unwrap_or(0)
    }

    fn is(&self, kind: &str) -> bool {
        let conditions = self.field("conditions").items();
        conditions.iter().any(|c| c.child("type").str() == kind && c.child("status").str() == "True")
    }

    fn is_finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    fn is_indexed(&self) -> bool {
        self.spec.child("completionMode").str() == "Indexed"
    }

    fn time(&self, name: &str) -> Option<Instant> {
        Instant::parse(self.field(name).str())
    }
}

pub(super) fn update(errors: &mut ErrorList, new: &At<'_>, old: &At<'_>) {
    let (new, old) = (Seen::new(new), Seen::new(old));
    for counter in ["active", "succeeded", "failed", "ready", "terminating"] {
        new.field(counter).non_negative(errors);
    }
    uncounted(errors, &new);
    ends(errors, &new, &old);
    times(errors, &new, &old);
    indexes(errors, &new, &old);
    let (ready, active) = (new.field("ready"), new.count("active"));
    let is_said = ["ready", "active"].iter().any(|field| has_changed(&new, &old, field));
    if is_said && ready.int().is_some_and(|ready| ready > active) {
        errors.push(ready.invalid("cannot set more ready pods than active"));
    }
    // With as many at a time as there are, the number of indexes may have shrunk.
    let number = |field: &str| new.spec.child(field).int();
    let may_shrink = new.is_indexed() && number("completions") == number("parallelism");
    for counter in ["failed", "succeeded"] {
        if new.count(counter) < old.count(counter) && !(counter == "succeeded" && may_shrink) {
            errors.push(Error::invalid(
                &new.field(counter).path,
                new.count(counter),
                format!("cannot decrease the {counter} counter"),
            ));
        }
    }
}

fn has_changed(new: &Seen<'_>, old: &Seen<'_>, field: &str) -> bool {
    new.field(field).raw() != old.field(field).raw()
}

fn uncounted(errors: &mut ErrorList, new: &Seen<'_>) {
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for uid in new.field("uncountedTerminatedPods").child(list).items() {
            if uid.str().is_empty() {
                errors.push(uid.invalid("must not be empty"));
            } else if !seen.insert(uid.str()) {
                errors.push(Error::duplicate(&uid.path, uid.value()));
            }
        }
    }
}

/// Conditions that go together, and what must be over by then.
fn ends(errors: &mut ErrorList, new: &Seen<'_>, old: &Seen<'_>) {
    let turned = |kind: &str| new.is(kind) != old.is(kind);
    let conditions = new.field("conditions").path;
    let refuse = |errors: &mut ErrorList, why: &str| {
        errors.push(Error::invalid_unshown(&conditions, why));
    };
    for (one, other, why) in [
        ("Complete", "Failed", "cannot set Complete=True and Failed=true conditions"),
        ("Complete", "FailureTarget", "cannot set Complete=True and FailureTarget=true conditions"),
        ("SuccessCriteriaMet", "Failed", "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (
            "SuccessCriteriaMet",
            "FailureTarget",
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
    ] {
        if new.is(one) && new.is(other) && (turned(one) || turned(other)) {
            refuse(errors, why);
        }
    }
    for (end, first, why) in [
        (
            "Failed",
            "FailureTarget",
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            "Complete",
            "SuccessCriteriaMet",
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
    ] {
        if new.is(end) && !new.is(first) && (turned(end) || turned(first)) {
            refuse(errors, why);
        }
    }
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if old.is(kind) && !new.is(kind) {
            refuse(errors, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    if old.is("SuccessCriteriaMet") && !new.is("SuccessCriteriaMet") {
        refuse(errors, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if !new.is_finished() {
        return;
    }
    let has_turned = !old.is_finished();
    for counter in ["active", "terminating"] {
        if new.count(counter) > 0 && (has_turned || has_changed(new, old, counter)) {
            errors.push(new.field(counter).invalid(format!("{counter}>0 is invalid for finished job")));
        }
    }
    let waiting = new.field("uncountedTerminatedPods");
    let is_waiting = ["succeeded", "failed"].iter().any(|list| !waiting.child(list).is_empty());
    if is_waiting && (has_turned || has_changed(new, old, "uncountedTerminatedPods")) {
        errors.push(waiting.invalid("uncountedTerminatedPods needs to be empty for finished job"));
    }
}

fn times(errors: &mut ErrorList, new: &Seen<'_>, old: &Seen<'_>) {
    let (start, completion) = (new.field("startTime"), new.field("completionTime"));
    let start_changed = has_changed(new, old, "startTime");
    let completion_changed = has_changed(new, old, "completionTime");
    let has_completed = new.is("Complete") != old.is("Complete");
    if completion.is_set() && !new.is("Complete") && (has_completed || completion_changed) {
        errors.push(completion.invalid("cannot set completionTime when there is no Complete=True condition"));
    }
    if !completion.is_set() && new.is("Complete") && (has_completed || completion_changed) {
        errors.push(completion.required("completionTime is required for Complete jobs"));
    }
    if completion.is_set() && old.field("completionTime").is_set() && completion_changed {
        errors.push(completion.invalid("completionTime cannot be mutated"));
    }
    let is_before =
        new.time("startTime").zip(new.time("completionTime")).is_some_and(|(start, end)| end < start);
    if is_before && (start_changed || completion_changed) {
        errors.push(completion.invalid("completionTime cannot be set before startTime"));
    }
    let spec = &new.spec;
    let is_suspended = spec.child("suspend").bool();
    let asks_nothing = is_suspended && spec.child("completions").int() == Some(0);
    if !start.is_set() && new.is_finished() && !asks_nothing && (!old.is_finished() || start_changed) {
        errors.push(start.required("startTime is required for finished job"));
    }
    // It begins anew when a Job goes on that was suspended.
    if old.field("startTime").is_set() && start_changed && !is_suspended && !old.is("Suspended") {
        errors.push(start.required("startTime cannot be removed for unsuspended job"));
    }
}

fn indexes(errors: &mut ErrorList, new: &Seen<'_>, old: &Seen<'_>) {
    let (completed, failed) = (new.field("completedIndexes"), new.field("failedIndexes"));
    let per_index = new.spec.child("backoffLimitPerIndex").is_set();
    let completions = new.spec.child("completions").int();
    let mut read = Vec::new();
    for (field, name, is_checked) in
        [(&completed, "completedIndexes", true), (&failed, "failedIndexes", per_index)]
    {
        let Some(completions) = completions.filter(|_| is_checked) else { continue };
        match read_indexes(field.str(), completions) {
            Ok(ranges) => read.push(ranges),
            Err(why) if has_changed(new, old, name) => {
                errors.push(field.invalid(format!("error parsing {name}: {why}")));
            }
            Err(_) => {}
        }
    }
    if !completed.is_empty() && !new.is_indexed() && has_changed(new, old, "completedIndexes") {
        errors.push(
            completed.invalid("cannot set non-empty completedIndexes when non-indexed completion mode"),
        );
    }
    if failed.is_set() && !per_index && has_changed(new, old, "failedIndexes") {
        errors.push(failed.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null"));
    }
    let [completed, ended] = read.as_slice() else { return };
    let overlaps = completed.iter().flat_map(|(first, last)| {
        ended.iter().filter(move |(a, b)| first <= b && a <= last).map(move |(a, _)| *first.max(a))
    });
    let has_changed = ["completedIndexes", "failedIndexes"].iter().any(|field| has_changed(new, old, field));
    if let Some(index) = overlaps.min().filter(|_| has_changed) {
        errors.push(failed.invalid(format!("failedIndexes and completedIndexes overlap at index: {index}")));
    }
}
