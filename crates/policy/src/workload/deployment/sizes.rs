//! How many pods each replica set has next: in a rollout (`rolling.go`), and in proportion where the Deployment's own size
//! changes in the middle of one (`sync.go`, scale).

use super::{
    DESIRED_REPLICAS, MAX_REPLICAS, Note, Step, annotation, available_of, fenceposts, name_of, size_of,
};

impl Step<'_> {
    /// The annotations by which a change of the Deployment's size is noticed.
    pub(super) fn mark_size(&mut self, index: usize) -> bool {
        let desired = self.replicas();
        let most = desired + self.max_surge();
        let annotations = self.sets[index].object.metadata.annotations.get_or_insert_default();
        let mut changed = false;
        for (key, value) in [(DESIRED_REPLICAS, desired), (MAX_REPLICAS, most)] {
            let value = value.to_string();
            if annotations.get(key) != Some(&value) {
                annotations.insert(key.to_string(), value);
                changed = true;
            }
        }
        changed
    }

    /// True if the size changes.
    pub(super) fn resize(&mut self, index: usize, size: i32) -> bool {
        let marked = self.mark_size(index);
        let held = &mut self.sets[index];
        let before = size_of(&held.object);
        if before == size && !marked {
            return false;
        }
        held.is_changed = true;
        if let Some(spec) = &mut held.object.spec {
            spec.replicas = Some(size);
        }
        if before != size {
            let way = if size > before { "up" } else { "down" };
            let name = name_of(&held.object);
            let message = format!("Scaled {way} replica set {name} from {before} to {size}");
            self.notes.push(Note::normal("ScalingReplicaSet", message));
        }
        before != size
    }

    pub(super) fn total(&self) -> i32 {
        self.sets.iter().map(|held| size_of(&held.object)).sum()
    }

    pub(super) fn available(&self) -> i32 {
        self.sets.iter().map(|held| available_of(&held.object)).sum()
    }

    pub(super) fn new_size(&self) -> i32 {
        let Some(new) = self.new else { return 0 };
        let has = size_of(&self.sets[new].object);
        if self.spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate") {
            return self.replicas();
        }
        let room = self.replicas() + self.max_surge() - self.total();
        if room <= 0 { has } else { has + room.min(self.replicas() - has) }
    }

    /// True if it changed.
    pub(super) fn grow_new(&mut self) -> bool {
        let Some(new) = self.new.filter(|new| !self.sets[*new].is_created) else { return self.new.is_some() };
        let has = size_of(&self.sets[new].object);
        if has == self.replicas() {
            return false;
        }
        let size = if has > self.replicas() { self.replicas() } else { self.new_size() };
        self.resize(new, size)
    }

    /// True if any old replica set shrank.
    pub(super) fn shrink_old(&mut self) -> bool {
        let old: Vec<usize> = self.old().filter(|i| size_of(&self.sets[*i].object) > 0).collect();
        if old.is_empty() {
            return false;
        }
        let least = self.replicas() - self.max_unavailable();
        let new_unavailable =
            self.new.map_or(0, |i| size_of(&self.sets[i].object) - available_of(&self.sets[i].object));
        let most_gone = self.total() - least - new_unavailable;
        if most_gone <= 0 {
            return false;
        }
        // Pods that do not work go first: they can go without anybody noticing.
        let (mut gone, mut changed) = (0, false);
        for index in &old {
            let (size, available) =
                (size_of(&self.sets[*index].object), available_of(&self.sets[*index].object));
            let go = (most_gone - gone).min(size - available);
            if go > 0 {
                changed |= self.resize(*index, size - go);
                gone += go;
            }
        }
        // Then as many of those that work as may be missing.
        let mut left = self.available() - least;
        for index in &old {
            let size = size_of(&self.sets[*index].object);
            let go = left.min(size);
            if go > 0 {
                changed |= self.resize(*index, size - go);
                left -= go;
            }
        }
        changed
    }

    /// The Deployment's size was changed since its replica sets were sized.
    pub(super) fn is_scaling(&self) -> bool {
        self.sets.iter().filter(|held| size_of(&held.object) > 0).any(|held| {
            let desired =
                annotation(&held.object.metadata, DESIRED_REPLICAS).and_then(|t| t.parse::<i32>().ok());
            desired.is_some_and(|desired| desired != self.replicas())
        })
    }

    pub(super) fn scale_proportionally(&mut self) {
        let replicas = self.replicas();
        let active: Vec<usize> =
            (0..self.sets.len()).filter(|i| size_of(&self.sets[*i].object) > 0).collect();
        let active_or_latest = match active.as_slice() {
            [] => self.new.or_else(|| self.old().last()),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(index) = active_or_latest {
            if size_of(&self.sets[index].object) != replicas {
                self.resize(index, replicas);
            }
            return;
        }
        if active.is_empty() {
            return;
        }
        // The new one is all there: the old ones have no more to do.
        let saturated = self.new.is_some_and(|new| {
            let object = &self.sets[new].object;
            let desired = annotation(&object.metadata, DESIRED_REPLICAS).and_then(|t| t.parse().ok());
            size_of(object) == replicas && desired == Some(replicas) && available_of(object) == replicas
        });
        if saturated {
            for index in self.old().filter(|i| active.contains(i)).collect::<Vec<_>>() {
                self.resize(index, 0);
            }
            return;
        }
        if self.spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate") {
            return;
        }
        let allowed = if replicas > 0 { replicas + self.max_surge() } else { 0 };
        let to_add = allowed - self.total();
        let mut order = active;
        // The largest takes the rounding; of equal ones the newest grows and the oldest shrinks.
        order.sort_by_key(|i| {
            let age = if to_add > 0 { -(*i as i64) } else { *i as i64 };
            (-size_of(&self.sets[*i].object), age)
        });
        let mut added = 0;
        let mut sizes: Vec<(usize, i32)> = Vec::new();
        for index in order {
            let size = size_of(&self.sets[index].object);
            let share = self.share(index, to_add, added);
            added += share;
            sizes.push((index, size + share));
        }
        if let Some((_, size)) = sizes.first_mut()
            && to_add != 0
        {
            *size = (*size + to_add - added).max(0);
        }
        for (index, size) in sizes {
            self.resize(index, size);
        }
    }

    /// What of `to_add` falls to one replica set, by its part of the whole (`GetReplicaSetProportion`).
    fn share(&self, index: usize, to_add: i32, added: i32) -> i32 {
        let object = &self.sets[index].object;
        let size = size_of(object);
        if size == 0 || to_add == 0 || to_add == added {
            return 0;
        }
        let left = to_add - added;
        let fraction = if self.replicas() == 0 {
            -size
        } else {
            let most = annotation(&object.metadata, MAX_REPLICAS).and_then(|t| t.parse::<i32>().ok());
            let status = self.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
            let whole = most.filter(|most| *most > 0).unwrap_or(status).max(1);
            let now = f64::from(size) * f64::from(self.replicas() + self.max_surge()) / f64::from(whole);
            now.round() as i32 - size
        };
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    fn max_surge(&self) -> i32 {
        fenceposts(self.spec).0
    }

    pub(super) fn max_unavailable(&self) -> i32 {
        if self.replicas() == 0 { 0 } else { fenceposts(self.spec).1.min(self.replicas()) }
    }
}
