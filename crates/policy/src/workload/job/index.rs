//! Sets of completion indexes as a Job's status and policies write them: `1,3-5,7`.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::api::core::v1::Pod;

use super::INDEX;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Those below a number: a Job may have got fewer. What cannot be read is left out: validation refuses it in a spec, and
    /// the status is our own.
    pub fn parse(text: &str, below: i32) -> Indexes {
        let mut all = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                all.extend(first..=last.min(below.saturating_sub(1)));
            }
        }
        Indexes(all)
    }

    pub fn insert(&mut self, index: i32) {
        self.0.insert(index);
    }

    pub fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    pub fn len(&self) -> i32 {
        self.0.len() as i32
    }

    /// How many are in both; None is everything.
    pub fn common(&self, other: Option<&Indexes>) -> i32 {
        other.map_or(self.len(), |other| self.0.intersection(&other.0).count() as i32)
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(i32, i32)> = Vec::new();
        for &index in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == index => *last = index,
                _ => runs.push((index, index)),
            }
        }
        for (at, (first, last)) in runs.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// A pod's completion index.
pub fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok().filter(|index| *index >= 0)
}
