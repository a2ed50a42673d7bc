//! IPv4 address blocks.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 block with no host bits set: `10.244.1.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Net {
    network: Ipv4Addr,
    prefix: u8,
}

/// The text is not `a.b.c.d/n` with n at most 32.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 address block such as 10.244.0.0/16")]
pub struct BlockError(pub String);

impl Ipv4Net {
    /// Masks the host bits away. `prefix` above 32 is taken as 32.
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Ipv4Net {
        let prefix = if prefix > 32 { 32 } else { prefix };
        Ipv4Net { network: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    pub const fn network(&self) -> Ipv4Addr {
        self.network
    }

    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The last address of the block.
    pub const fn last(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !mask(self.prefix))
    }

    pub const fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }

    pub const fn overlaps(&self, other: &Ipv4Net) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The `n`th address, the network address being 0; None behind the end of the block.
    pub fn nth(&self, n: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from_bits(self.network.to_bits().checked_add(n)?);
        self.contains(address).then_some(address)
    }

    /// The `n`th block of length `prefix` inside this one; None where there is none.
    pub fn subnet(&self, prefix: u8, n: u32) -> Option<Ipv4Net> {
        if prefix < self.prefix || prefix > 32 {
            return None;
        }
        let address = u64::from(self.network.to_bits()) + (u64::from(n) << (32 - prefix));
        let address = Ipv4Addr::from_bits(u32::try_from(address).ok()?);
        self.contains(address).then(|| Ipv4Net::new(address, prefix))
    }
}

const fn mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) }
}

impl FromStr for Ipv4Net {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Ipv4Net, BlockError> {
        let malformed = || BlockError(text.to_string());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address = address.parse().map_err(|_| malformed())?;
        let prefix = prefix.parse().map_err(|_| malformed())?;
        if prefix > 32 {
            return Err(malformed());
        }
        Ok(Ipv4Net::new(address, prefix))
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_parse_mask_and_cut() {
        let pods: Ipv4Net = "10.244.3.9/16".parse().unwrap();
        assert_eq!(pods.to_string(), "10.244.0.0/16");
        assert_eq!(pods.subnet(24, 2).unwrap().to_string(), "10.244.2.0/24");
        assert_eq!(pods.subnet(24, 256), None);
        assert_eq!(pods.subnet(8, 0), None);
        assert_eq!(pods.nth(258), Some(Ipv4Addr::new(10, 244, 1, 2)));
        assert_eq!(pods.nth(1 << 16), None);
        assert_eq!(pods.last(), Ipv4Addr::new(10, 244, 255, 255));
        let all: Ipv4Net = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::BROADCAST) && all.overlaps(&pods) && pods.overlaps(&all));
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", ""] {
            assert!(bad.parse::<Ipv4Net>().is_err(), "{bad}");
        }
    }
}
