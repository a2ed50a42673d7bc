//! What the events of one call have changed, as the steps of one transaction.

use std::collections::BTreeSet;

use super::Compiler;
use crate::network_policy::ir::{Change, Direction, SetName};

impl Compiler {
    /// What is different now, in the order of [`crate::network_policy::ir::diff`].
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let touched = std::mem::take(&mut self.touched);
        let mut changes = Vec::new();
        let names: BTreeSet<&SetName> = touched.sets.keys().chain(touched.elements.keys()).collect();
        for name in names {
            let Some(state) = self.sets.get(name) else { continue };
            if touched.sets.get(name) == Some(&None) {
                changes.push(Change::AddSet { name: name.clone(), of: state.key.set_type() });
            }
            let (mut come, mut gone) = (Vec::new(), Vec::new());
            for (element, before) in touched.elements.get(name).into_iter().flatten() {
                match (*before, state.members.contains_key(element)) {
                    (false, true) => come.push(*element),
                    (true, false) => gone.push(*element),
                    _ => {}
                }
            }
            if !gone.is_empty() {
                changes.push(Change::DeleteElements { set: name.clone(), elements: gone });
            }
            if !come.is_empty() {
                changes.push(Change::AddElements { set: name.clone(), elements: come });
            }
        }
        let there = |leading: bool| {
            let states =
                touched.chains.iter().filter_map(|(n, before)| Some((n, before, self.chains.get(n)?)));
            states.filter(move |(.., state)| state.chain.leads_on() == leading)
        };
        for (name, before, state) in there(false).chain(there(true)) {
            let (name, chain) = (name.clone(), (*state.chain).clone());
            match before {
                None => changes.push(Change::AddChain { name, chain }),
                Some(before) if **before != chain => changes.push(Change::ReplaceChain { name, chain }),
                Some(_) => {}
            }
        }
        for direction in Direction::ALL {
            let (mut come, mut gone) = (Vec::new(), Vec::new());
            for ((_, address), before) in touched.verdicts.iter().filter(|((d, _), _)| *d == direction) {
                let map = match direction {
                    Direction::Egress => &self.egress,
                    Direction::Ingress => &self.ingress,
                };
                let now = map.get(address);
                if now != before.as_ref() {
                    gone.extend(before.iter().map(|_| *address));
                    come.extend(now.map(|chain| (*address, chain.clone())));
                }
            }
            if !gone.is_empty() {
                changes.push(Change::DeleteVerdicts { direction, addresses: gone });
            }
            if !come.is_empty() {
                changes.push(Change::AddVerdicts { direction, verdicts: come });
            }
        }
        let gone = |leading: bool| {
            let gone = touched.chains.iter().filter(|(name, _)| !self.chains.contains_key(*name));
            gone.filter(move |(_, before)| before.as_ref().is_some_and(|c| c.leads_on() == leading))
        };
        for (name, _) in gone(true).chain(gone(false)) {
            changes.push(Change::DeleteChain { name: name.clone() });
        }
        for (name, before) in &touched.sets {
            if before.is_some() && !self.sets.contains_key(name) {
                changes.push(Change::DeleteSet { name: name.clone() });
            }
        }
        changes
    }
}
