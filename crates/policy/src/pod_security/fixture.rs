//! Pods to hold a check against: each check has them in its own file, and `tests` runs them at every version they name.

use std::ops::{Bound, RangeBounds};

use serde_json::Value;

use super::NEWEST;

/// Minor versions.
pub struct Versions(pub u32, pub u32);

impl<R: RangeBounds<u32>> From<R> for Versions {
    fn from(range: R) -> Versions {
        let first = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(_) | Bound::Unbounded => 0,
        };
        let last = match range.end_bound() {
            Bound::Included(last) => *last,
            Bound::Excluded(end) => end - 1,
            Bound::Unbounded => NEWEST,
        };
        Versions(first, last)
    }
}

pub enum Subject {
    /// `{ "metadata": …, "spec": … }`; a pod without containers is given one.
    Pod(Value),
    /// What a container named `a` has; it is tried in each of the pod's three lists.
    Container(Value),
}

pub struct Case {
    pub what: &'static str,
    pub versions: Versions,
    pub subject: Subject,
    /// Reason, detail, and the fields: whole for a pod, from the container's root for a container.
    pub refused: Option<(&'static str, &'static str, &'static [&'static str])>,
}

impl Case {
    pub fn pod(what: &'static str, versions: impl Into<Versions>, pod: Value) -> Case {
        Case { what, versions: versions.into(), subject: Subject::Pod(pod), refused: None }
    }

    pub fn container(what: &'static str, versions: impl Into<Versions>, container: Value) -> Case {
        Case { what, versions: versions.into(), subject: Subject::Container(container), refused: None }
    }

    pub fn refused(
        self,
        reason: &'static str,
        detail: &'static str,
        fields: &'static [&'static str],
    ) -> Case {
        Case { refused: Some((reason, detail, fields)), ..self }
    }
}
