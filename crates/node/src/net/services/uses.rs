//! What several Services need, which is in the table as long as one of them does.

use std::collections::BTreeMap;

/// How many need each.
#[derive(Debug)]
pub struct Uses<K>(BTreeMap<K, u32>);

impl<K> Default for Uses<K> {
    fn default() -> Uses<K> {
        Uses(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Uses<K> {
    /// One more needs it. `before` notes of what is touched whether it was there.
    pub fn take(&mut self, what: K, before: &mut BTreeMap<K, bool>) {
        before.entry(what).or_insert(self.contains(&what));
        *self.0.entry(what).or_default() += 1;
    }

    /// One needs it no more.
    pub fn release(&mut self, what: K, before: &mut BTreeMap<K, bool>) {
        before.entry(what).or_insert(self.contains(&what));
        if let Some(users) = self.0.get_mut(&what) {
            *users = users.saturating_sub(1);
            if *users == 0 {
                self.0.remove(&what);
            }
        }
    }

    pub fn contains(&self, what: &K) -> bool {
        self.0.contains_key(what)
    }

    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}
