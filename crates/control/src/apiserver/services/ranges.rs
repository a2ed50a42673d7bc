//! Where addresses and node ports of Services come from.

use std::{net::IpAddr, ops::RangeInclusive};

use policy::network_policy::ir::Family;

/// As the configuration has them.
#[derive(Clone, Debug)]
pub struct ServiceRanges {
    /// `10.96.0.0/16`, and a second one of the other family in a cluster that has both. A Service that asks for no family
    /// gets the first one's.
    pub cidrs: Vec<String>,
    pub node_ports: RangeInclusive<u16>,
}

impl ServiceRanges {
    /// Upstream's ports (`--service-node-port-range`) with addresses of `cidr`.
    pub fn with_cidr(cidr: impl Into<String>) -> ServiceRanges {
        ServiceRanges::with_cidrs([cidr.into()])
    }

    /// The same for a cluster of one family or two.
    pub fn with_cidrs(cidrs: impl IntoIterator<Item = String>) -> ServiceRanges {
        ServiceRanges { cidrs: cidrs.into_iter().collect(), node_ports: 30000..=32767 }
    }

    /// The address of the Service `kubernetes`: the first of the first range.
    ///
    /// # Errors
    /// Ranges that are none.
    pub fn first(&self) -> Result<IpAddr, AllocatorError> {
        let blocks = self.parse()?;
        let block = blocks.first().ok_or(AllocatorError::None)?;
        Ok(block.at(1))
    }

    pub(super) fn parse(&self) -> Result<Vec<Block>, AllocatorError> {
        let blocks: Vec<Block> =
            self.cidrs.iter().map(|cidr| Block::parse(cidr)).collect::<Result<_, _>>()?;
        match blocks.as_slice() {
            [] => Err(AllocatorError::None),
            [_] => Ok(blocks),
            [one, other] if one.family != other.family => Ok(blocks),
            _ => Err(AllocatorError::Several(self.cidrs.join(","))),
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum AllocatorError {
    #[error(
        "service range {0}: neither an IPv4 range with 4 to 24 bits for hosts, such as 10.96.0.0/16, nor an IPv6 range with 4 \
         to 20, such as fd00:cf:96::/112"
    )]
    NoRange(String),
    #[error("there is no service range")]
    None,
    #[error("service ranges {0}: one, or one of each family")]
    Several(String),
}

/// A range of addresses.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub family: Family,
    base: u128,
    size: u128,
    /// As messages show it.
    pub cidr: String,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl Block {
    fn parse(cidr: &str) -> Result<Block, AllocatorError> {
        let bad = || AllocatorError::NoRange(cidr.to_owned());
        let (address, prefix) = cidr.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u32 = prefix.parse().map_err(|_| bad())?;
        let (bits, largest) = if address.is_ipv4() { (32, 24) } else { (128, 20) };
        let host_bits = u32::checked_sub(bits, prefix).filter(|bits| (4..=largest).contains(bits));
        let size = 1u128 << host_bits.ok_or_else(bad)?;
        Ok(Block {
            family: Family::of(&address),
            base: number(address) & !(size - 1),
            size,
            cidr: cidr.to_owned(),
        })
    }

    fn at(&self, offset: u128) -> IpAddr {
        let number = self.base + offset;
        match self.family {
            // The block lies within 32 bits.
            Family::V4 => IpAddr::V4((number as u32).into()),
            Family::V6 => IpAddr::V6(number.into()),
        }
    }

    /// Behind the last offset that may be given: the last address of an IPv4 network is its broadcast address.
    fn end(&self) -> u128 {
        match self.family {
            Family::V4 => self.size - 1,
            Family::V6 => self.size,
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(&address) == self.family
            && number(address).checked_sub(self.base).is_some_and(|offset| (1..self.end()).contains(&offset))
    }

    /// A random address from the upper part of the range first, as upstream, so that fixed ones are best taken below.
    /// `random` chooses where the search starts.
    pub fn free(&self, random: u32, is_taken: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        let below = (self.size / 16).clamp(16, 256).min(self.size / 2);
        let find = |from: u128, to: u128| {
            let count = to.checked_sub(from).filter(|count| *count > 0)?;
            let start = u128::from(random) % count;
            (0..count).map(|at| self.at(from + (start + at) % count)).find(|address| !is_taken(address))
        };
        find(below, self.end()).or_else(|| find(1, below))
    }
}
