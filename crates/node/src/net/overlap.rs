//! What of the machine's own network a cluster's ranges hide from its pods. Nodes and pods have network namespaces of their
//! own, so nothing of the machine's breaks and nothing of the cluster's does; but an address that both have is the
//! cluster's for the pods.

use std::fmt;
use std::net::IpAddr;

use kernel::netlink::{Family, NetlinkError, Socket};
use kernel::route::{self, Ip, Net};

use super::fabric::Ranges;

/// A block of the machine's that a range of the cluster's overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap<A> {
    pub theirs: Net<A>,
    /// The link it is behind, as the machine calls it.
    pub link: String,
    pub range: RangeOf,
    pub ours: Net<A>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeOf {
    Nodes,
    Pods,
    Services,
}

impl RangeOf {
    /// The option of `cofferdam up` that chooses another.
    pub fn option<A: Ip>(self) -> &'static str {
        match (self, A::BITS) {
            (RangeOf::Nodes, 32) => "--node-cidr",
            (RangeOf::Pods, 32) => "--pod-cidr",
            (RangeOf::Services, 32) => "--service-cidr",
            (RangeOf::Nodes, _) => "--node-cidr-v6",
            (RangeOf::Pods, _) => "--pod-cidr-v6",
            (RangeOf::Services, _) => "--service-cidr-v6",
        }
    }

    fn name(self) -> &'static str {
        match self {
            RangeOf::Nodes => "nodes",
            RangeOf::Pods => "pods",
            RangeOf::Services => "Services",
        }
    }
}

impl<A: Ip> fmt::Display for Overlap<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overlap { theirs, link, range, ours } = self;
        write!(
            f,
            "pods cannot reach {theirs} ({link}) of this machine where it overlaps the cluster's range of {}, {ours}: \
             choose another with {}",
            range.name(),
            range.option::<A>()
        )
    }
}

impl<A: Ip> Ranges<A> {
    fn each(&self) -> [(RangeOf, Net<A>); 3] {
        [(RangeOf::Nodes, self.nodes), (RangeOf::Pods, self.pods), (RangeOf::Services, self.services)]
    }

    /// The two ranges that overlap each other, if any do.
    pub fn overlap_themselves(&self) -> Option<(RangeOf, RangeOf)> {
        let all = self.each();
        let pairs = [(0, 1), (0, 2), (1, 2)].map(|(one, other)| (all[one], all[other]));
        let two = pairs.into_iter().find(|((_, one), (_, other))| one.overlaps(other));
        two.map(|((one, _), (other, _))| (one, other))
    }
}

/// What the addresses and routes of the calling thread's network have in common with the ranges, the widest block of each
/// link alone. Nothing on a kernel without that family.
pub fn overlaps<A: Ip>(ranges: &Ranges<A>) -> Result<Vec<Overlap<A>>, NetlinkError> {
    let mut socket = Socket::open(Family::Route)?;
    let names = route::links(&mut socket)?;
    let addresses = route::addresses::<A>(&mut socket)?;
    let routes = route::routes::<A>(&mut socket)?;
    let mut blocks: Vec<(Net<A>, u32)> =
        addresses.iter().map(|one| (Net::of(one.address, one.prefix), one.link)).collect();
    // The default route is no network of anyone.
    blocks.extend(routes.iter().filter(|one| one.to.prefix() > 0).map(|one| (one.to, one.link)));
    blocks.sort_by_key(|(block, link)| (block.prefix(), block.network(), *link));
    let mut found: Vec<Overlap<A>> = Vec::new();
    for (theirs, index) in blocks {
        let link = names.iter().find(|link| link.index == index).map_or("?", |link| link.name.as_str());
        for (range, ours) in ranges.each().into_iter().filter(|(_, ours)| ours.overlaps(&theirs)) {
            let within = |wider: &Overlap<A>| {
                wider.range == range && wider.link == link && wider.theirs.overlaps(&theirs)
            };
            if !found.iter().any(within) {
                found.push(Overlap { theirs, link: link.to_owned(), range, ours });
            }
        }
    }
    Ok(found)
}

/// The range that an address of the machine's world, its name server say, is in.
pub fn range_of<A: Ip>(ranges: &Ranges<A>, address: IpAddr) -> Option<(RangeOf, Net<A>)> {
    let address = A::of(address)?;
    ranges.each().into_iter().find(|(_, range)| range.contains(address))
}
