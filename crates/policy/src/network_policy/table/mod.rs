//! The reachability table: for every two ends the ports on which one reaches the other. Ends are classes: pods that no
//! policy tells apart (same chains, same peers' sets, same named ports), nodes, and parts of the outside that no block
//! tells apart. So a cluster of ten thousand pods costs what its distinct label sets cost, not pairs of pods.
//!
//! Three steps: [`ends`] finds the classes; [`rows`] works out, per distinct chain, the ports towards every end; a cell
//! is the intersection of a row of egress and one of ingress, each distinct pair of port sets worked out once.
//!
//! A table is of one family, that of the pods' range: ends are judged by their address of it. Not in the table, because they are not between classes: that a pod reaches
//! itself, and that a node reaches the pods it runs.

mod ends;
mod ports;
mod rows;

use std::collections::HashMap;
use std::net::IpAddr;

pub use ports::{PortSet, Ranges};

use super::evaluate::Cluster;
use super::ir::{Cidr, Direction};
use ports::{Id, Interner};

/// A class of ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Indices of the cluster's pods.
    Pods(Vec<usize>),
    /// Indices of the cluster's nodes.
    Nodes(Vec<usize>),
    /// Ranges of addresses, first and last, in ascending order.
    Outside { ranges: Vec<(IpAddr, IpAddr)>, largest: bool },
}

/// Who reaches whom on which ports.
#[derive(Debug)]
pub struct Table {
    ends: Vec<End>,
    end_of_pod: Vec<Option<usize>>,
    end_of_node: Vec<Option<usize>>,
    /// By end: its row in `egress`, and in `ingress`.
    row_of: [Vec<usize>; 2],
    rows: [Vec<Vec<Id>>; 2],
    meets: Meets,
    sets: Vec<PortSet>,
    isolated: [Vec<bool>; 2],
}

/// (port set of egress, port set of ingress) → their intersection.
#[derive(Debug)]
enum Meets {
    Dense { width: usize, ids: Vec<Id> },
    Sparse(HashMap<(Id, Id), Id>),
}

const UNKNOWN: Id = Id::MAX;
/// Up to this many pairs of port sets are kept as a matrix.
const DENSE: usize = 16 << 20;

impl Meets {
    fn new(width: usize) -> Meets {
        match width * width <= DENSE {
            true => Meets::Dense { width, ids: vec![UNKNOWN; width * width] },
            false => Meets::Sparse(HashMap::new()),
        }
    }

    fn get(&self, a: Id, b: Id) -> Option<Id> {
        match self {
            Meets::Dense { width, ids } => {
                Some(ids[a as usize * width + b as usize]).filter(|id| *id != UNKNOWN)
            }
            Meets::Sparse(ids) => ids.get(&(a, b)).copied(),
        }
    }

    fn put(&mut self, a: Id, b: Id, id: Id) {
        match self {
            Meets::Dense { width, ids } => ids[a as usize * *width + b as usize] = id,
            Meets::Sparse(ids) => drop(ids.insert((a, b), id)),
        }
    }
}

impl Table {
    /// `pods`: the range that pods' addresses are of. Pods without an address, as in manifests, are in those blocks that
    /// hold the whole range; nodes without one in those that hold every address.
    pub fn new(cluster: &Cluster, pods: Cidr) -> Table {
        let mut interner = Interner::new();
        let policies = rows::Policies::new(cluster, &mut interner);
        let classes = ends::classes(cluster, &policies, pods);
        let (row_of, rows) = rows::rows(&policies, &classes, &mut interner);
        let mut meets = Meets::new(interner.sets().len());
        for (from, egress) in row_of[0].iter().enumerate() {
            let egress = &rows[0][*egress];
            for (to, ingress) in row_of[1].iter().enumerate() {
                let (a, b) = (egress[to], rows[1][*ingress][from]);
                if meets.get(a, b).is_none() {
                    let id = interner.intersection(a, b);
                    meets.put(a, b, id);
                }
            }
        }
        let isolated = Direction::ALL.map(|direction| classes.isolated(direction));
        Table {
            ends: classes.ends,
            end_of_pod: classes.end_of_pod,
            end_of_node: classes.end_of_node,
            row_of,
            rows,
            meets,
            sets: interner.into_sets(),
            isolated,
        }
    }

    pub fn ends(&self) -> &[End] {
        &self.ends
    }

    /// The end of the pod with that index; None for one that has no network of its own: it has finished, or uses its
    /// node's.
    pub fn end_of_pod(&self, pod: usize) -> Option<usize> {
        self.end_of_pod.get(pod).copied().flatten()
    }

    /// The end of the node with that index, and so of the pods that use its network.
    pub fn end_of_node(&self, node: usize) -> Option<usize> {
        self.end_of_node.get(node).copied().flatten()
    }

    /// On which ports `from` reaches `to`; both are indices of [`Table::ends`]. Two ends outside of the cluster are
    /// nobody's business: everything.
    pub fn ports(&self, from: usize, to: usize) -> &PortSet {
        let egress = self.rows[0][self.row_of[0][from]][to];
        let ingress = self.rows[1][self.row_of[1][to]][from];
        let id = self.meets.get(egress, ingress).unwrap_or(ports::NONE);
        &self.sets[id as usize]
    }

    /// Whether policies select the end's pods in that direction.
    pub fn isolated(&self, end: usize, direction: Direction) -> bool {
        self.isolated[direction as usize][end]
    }

    /// How many distinct port sets there are, and about how many bytes the table holds.
    pub fn size(&self) -> (usize, usize) {
        let cells: usize = self.rows.iter().flatten().map(Vec::len).sum();
        let meets = match &self.meets {
            Meets::Dense { ids, .. } => ids.len() * size_of::<Id>(),
            Meets::Sparse(ids) => ids.len() * 16,
        };
        (self.sets.len(), cells * size_of::<Id>() + meets + self.sets.len() * size_of::<PortSet>())
    }
}
