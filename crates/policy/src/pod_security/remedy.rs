//! Carries remedies out on a pod's JSON.

use serde_json::{Map, Value};

use super::{
    check::{Change, Remedy, Setting},
    pod::Segment,
};

impl Setting {
    pub fn value(self) -> Value {
        match self {
            Setting::Bool(value) => value.into(),
            Setting::Text(text) => text.into(),
            Setting::List(item) => Value::from(vec![item]),
        }
    }
}

/// Changes `pod` (`{ "metadata": …, "spec": … }`) by the remedies of one verdict, and says whether any changed it. What is
/// to be done by hand stays.
pub fn apply<'a>(remedies: impl DoubleEndedIterator<Item = &'a Remedy>, pod: &mut Value) -> bool {
    // From the last to the first: the places of a list's items hold until those behind them are gone.
    remedies.rev().fold(false, |changed, remedy| remedy.apply(pod) | changed)
}

impl Remedy {
    fn apply(&self, pod: &mut Value) -> bool {
        let Some((last, way)) = self.path.0.split_last() else { return false };
        match self.change {
            Change::ByHand => false,
            Change::Remove => {
                let parent = way.iter().try_fold(pod, |at, segment| match segment {
                    Segment::Field(name) => at.get_mut(*name),
                    Segment::Key(key) => at.get_mut(key.as_str()),
                    Segment::Index(index) => at.get_mut(*index),
                });
                match (last, parent) {
                    (Segment::Field(name), Some(Value::Object(map))) => map.remove(*name).is_some(),
                    (Segment::Key(key), Some(Value::Object(map))) => map.remove(key).is_some(),
                    (Segment::Index(index), Some(Value::Array(items))) if *index < items.len() => {
                        items.remove(*index);
                        true
                    }
                    _ => false,
                }
            }
            Change::Set(setting) => {
                let place = self.path.0.iter().try_fold(pod, |at, segment| match segment {
                    Segment::Field(name) => Some(made(at)?.entry(*name).or_insert(Value::Null)),
                    Segment::Key(key) => Some(made(at)?.entry(key.as_str()).or_insert(Value::Null)),
                    Segment::Index(index) => at.get_mut(*index),
                });
                let (Some(place), value) = (place, setting.value()) else { return false };
                let changed = *place != value;
                *place = value;
                changed
            }
        }
    }
}

/// The object here, made where there is none.
fn made(at: &mut Value) -> Option<&mut Map<String, Value>> {
    if at.is_null() {
        *at = Value::Object(Map::new());
    }
    at.as_object_mut()
}
