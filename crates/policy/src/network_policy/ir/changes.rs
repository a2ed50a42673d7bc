//! How one rule set becomes another: the steps of a transaction, and what each does, as strictly as the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

use super::{Chain, ChainName, Direction, Element, End, Rule, RuleSet, Set, SetName, SetType};

/// One step of a transaction. [`diff`] gives them in an order in which each step finds what it names, and which the
/// kernel accepts as one batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Change {
    /// An empty set; its elements follow in an [`Change::AddElements`].
    AddSet {
        name: SetName,
        of: SetType,
    },
    /// None of them is there yet. Never empty.
    AddElements {
        set: SetName,
        elements: Vec<Element>,
    },
    /// All of them are there. Never empty, never for [`super::SetKind::Cidrs`].
    DeleteElements {
        set: SetName,
        elements: Vec<Element>,
    },
    /// A new chain with its rules; the emitter appends the drop.
    AddChain {
        name: ChainName,
        chain: Chain,
    },
    /// Flush the chain, then write these rules; map elements that point at it stay.
    ReplaceChain {
        name: ChainName,
        chain: Chain,
    },
    /// The addresses are there; an address whose chain changes is deleted here and added again below.
    DeleteVerdicts {
        direction: Direction,
        addresses: Vec<IpAddr>,
    },
    AddVerdicts {
        direction: Direction,
        verdicts: Vec<(IpAddr, ChainName)>,
    },
    /// Nothing points at it any more. Flush first: its rules hold references to sets.
    DeleteChain {
        name: ChainName,
    },
    /// Nothing uses it any more. Its elements go with it.
    DeleteSet {
        name: SetName,
    },
}

/// The steps from `old` to `new`, for one atomic transaction: new sets and elements, chains, verdicts, then what is
/// unused. Empty if there is no difference.
pub fn diff(old: &RuleSet, new: &RuleSet) -> Vec<Change> {
    let mut changes = Vec::new();
    let empty = BTreeSet::new();
    for (name, set) in &new.sets {
        let before = match old.sets.get(name) {
            Some(before) => &before.elements,
            None => {
                changes.push(Change::AddSet { name: name.clone(), of: set.of.clone() });
                &empty
            }
        };
        // Deleting before adding keeps a set small; the two never name the same element.
        let gone: Vec<Element> = before.difference(&set.elements).copied().collect();
        if !gone.is_empty() {
            changes.push(Change::DeleteElements { set: name.clone(), elements: gone });
        }
        let come: Vec<Element> = set.elements.difference(before).copied().collect();
        if !come.is_empty() {
            changes.push(Change::AddElements { set: name.clone(), elements: come });
        }
    }
    let (leading, leaves): (Vec<_>, Vec<_>) = new.chains.iter().partition(|(_, chain)| chain.leads_on());
    for (name, chain) in leaves.into_iter().chain(leading) {
        match old.chains.get(name) {
            None => changes.push(Change::AddChain { name: name.clone(), chain: chain.clone() }),
            Some(before) if before != chain => {
                changes.push(Change::ReplaceChain { name: name.clone(), chain: chain.clone() });
            }
            Some(_) => {}
        }
    }
    for direction in Direction::ALL {
        let (before, after) = (old.map(direction), new.map(direction));
        let gone: Vec<IpAddr> =
            before.iter().filter(|(a, c)| after.get(a) != Some(c)).map(|(a, _)| *a).collect();
        if !gone.is_empty() {
            changes.push(Change::DeleteVerdicts { direction, addresses: gone });
        }
        let come: Vec<(IpAddr, ChainName)> =
            after.iter().filter(|(a, c)| before.get(a) != Some(c)).map(|(a, c)| (*a, c.clone())).collect();
        if !come.is_empty() {
            changes.push(Change::AddVerdicts { direction, verdicts: come });
        }
    }
    let gone = old.chains.iter().filter(|(name, _)| !new.chains.contains_key(*name));
    let (leading, leaves): (Vec<_>, Vec<_>) = gone.partition(|(_, chain)| chain.leads_on());
    for (name, _) in leading.into_iter().chain(leaves) {
        changes.push(Change::DeleteChain { name: name.clone() });
    }
    for name in old.sets.keys().filter(|name| !new.sets.contains_key(name)) {
        changes.push(Change::DeleteSet { name: name.clone() });
    }
    changes
}

/// Why a step cannot be taken; a kernel would refuse the whole transaction for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("set {0} is there already")]
    SetExists(SetName),
    #[error("no set {0}")]
    NoSet(SetName),
    #[error("set {0} is used by chain {1}")]
    SetUsed(SetName, ChainName),
    #[error("element {1:?} is in set {0} already")]
    ElementExists(SetName, Element),
    #[error("no element {1:?} in set {0}")]
    NoElement(SetName, Element),
    #[error("chain {0} is there already")]
    ChainExists(ChainName),
    #[error("no chain {0}")]
    NoChain(ChainName),
    #[error("chain {0} is used by the verdict of {1}")]
    ChainUsed(ChainName, IpAddr),
    #[error("chain {0} is where chain {1} leads to")]
    ChainLedTo(ChainName, ChainName),
    #[error("{1} has a verdict in the {0:?} map already")]
    VerdictExists(Direction, IpAddr),
    #[error("{1} has no verdict in the {0:?} map")]
    NoVerdict(Direction, IpAddr),
}

impl RuleSet {
    /// Takes one step, as strictly as the kernel does. What `node::net` keeps as its picture of the kernel.
    pub fn apply(&mut self, change: &Change) -> Result<(), ApplyError> {
        match change {
            Change::AddSet { name, of } => {
                let set = Set { of: of.clone(), elements: BTreeSet::new() };
                if self.sets.insert(name.clone(), set).is_some() {
                    return Err(ApplyError::SetExists(name.clone()));
                }
            }
            Change::AddElements { set: name, elements } => {
                let set = self.sets.get_mut(name).ok_or_else(|| ApplyError::NoSet(name.clone()))?;
                for element in elements {
                    if !set.elements.insert(*element) {
                        return Err(ApplyError::ElementExists(name.clone(), *element));
                    }
                }
            }
            Change::DeleteElements { set: name, elements } => {
                let set = self.sets.get_mut(name).ok_or_else(|| ApplyError::NoSet(name.clone()))?;
                for element in elements {
                    if !set.elements.remove(element) {
                        return Err(ApplyError::NoElement(name.clone(), *element));
                    }
                }
            }
            Change::AddChain { name, chain } => {
                self.check_rules(chain)?;
                if self.chains.insert(name.clone(), chain.clone()).is_some() {
                    return Err(ApplyError::ChainExists(name.clone()));
                }
            }
            Change::ReplaceChain { name, chain } => {
                self.check_rules(chain)?;
                if self.chains.insert(name.clone(), chain.clone()).is_none() {
                    return Err(ApplyError::NoChain(name.clone()));
                }
            }
            Change::DeleteVerdicts { direction, addresses } => {
                for address in addresses {
                    if self.map_mut(*direction).remove(address).is_none() {
                        return Err(ApplyError::NoVerdict(*direction, *address));
                    }
                }
            }
            Change::AddVerdicts { direction, verdicts } => {
                for (address, chain) in verdicts {
                    if !self.chains.contains_key(chain) {
                        return Err(ApplyError::NoChain(chain.clone()));
                    }
                    if self.map_mut(*direction).insert(*address, chain.clone()).is_some() {
                        return Err(ApplyError::VerdictExists(*direction, *address));
                    }
                }
            }
            Change::DeleteChain { name } => {
                let user = Direction::ALL
                    .into_iter()
                    .flat_map(|direction| self.map(direction))
                    .find(|(_, chain)| *chain == name);
                if let Some((address, _)) = user {
                    return Err(ApplyError::ChainUsed(name.clone(), *address));
                }
                if let Some((from, _)) =
                    self.chains.iter().find(|(_, chain)| chain.end == End::Goto(name.clone()))
                {
                    return Err(ApplyError::ChainLedTo(name.clone(), from.clone()));
                }
                if self.chains.remove(name).is_none() {
                    return Err(ApplyError::NoChain(name.clone()));
                }
            }
            Change::DeleteSet { name } => {
                let user =
                    self.chains.iter().find(|(_, c)| c.rules.iter().any(|r| r.sets().any(|s| s == name)));
                if let Some((chain, _)) = user {
                    return Err(ApplyError::SetUsed(name.clone(), chain.clone()));
                }
                if self.sets.remove(name).is_none() {
                    return Err(ApplyError::NoSet(name.clone()));
                }
            }
        }
        Ok(())
    }

    fn check_rules(&self, chain: &Chain) -> Result<(), ApplyError> {
        for name in chain.rules.iter().flat_map(Rule::sets) {
            if !self.sets.contains_key(name) {
                return Err(ApplyError::NoSet(name.clone()));
            }
        }
        match &chain.end {
            End::Goto(next) if !self.chains.contains_key(next) => Err(ApplyError::NoChain(next.clone())),
            _ => Ok(()),
        }
    }
}
