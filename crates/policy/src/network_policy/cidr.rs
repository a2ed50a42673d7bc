//! Address blocks: parsing, membership, and a block minus other blocks cut into disjoint ones. An nf_tables interval
//! set refuses overlapping elements, and has no "except".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ir::{Cidr, Family};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    #[error("{0:?} is not an address block such as 10.9.0.0/16")]
    Malformed(String),
}

impl Cidr {
    /// Masks the host bits away, as Go's `net.ParseCIDR` does for the API server.
    pub fn parse(text: &str) -> Result<Cidr, CidrError> {
        let malformed = || CidrError::Malformed(text.to_string());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
        if prefix > bits(Family::of(&address)) {
            return Err(malformed());
        }
        Ok(Cidr::new(address, prefix))
    }

    /// `prefix` is at most 32 or 128; more is taken as a single address.
    pub fn new(address: IpAddr, prefix: u8) -> Cidr {
        let family = Family::of(&address);
        let prefix = prefix.min(bits(family));
        Cidr { network: to_address(family, to_number(address) & mask(family, prefix)), prefix }
    }

    pub fn family(&self) -> Family {
        Family::of(&self.network)
    }

    pub fn contains(&self, address: &IpAddr) -> bool {
        Family::of(address) == self.family()
            && to_number(*address) & mask(self.family(), self.prefix) == to_number(self.network)
    }

    fn covers(&self, other: &Cidr) -> bool {
        self.prefix <= other.prefix && self.contains(&other.network)
    }

    /// The two halves; None for a single address.
    fn halves(&self) -> Option<[Cidr; 2]> {
        let family = self.family();
        if self.prefix == bits(family) {
            return None;
        }
        let prefix = self.prefix + 1;
        let upper = to_number(self.network) | 1 << (bits(family) - prefix);
        Some([Cidr { network: self.network, prefix }, Cidr { network: to_address(family, upper), prefix }])
    }

    /// First and last address.
    pub fn range(&self) -> (IpAddr, IpAddr) {
        let family = self.family();
        let all = mask(family, bits(family));
        (self.network, to_address(family, to_number(self.network) | (all & !mask(family, self.prefix))))
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// `block` without `except`, as disjoint blocks in ascending order. An `except` outside of `block` takes nothing away.
pub fn subtract(block: Cidr, except: &[Cidr]) -> Vec<Cidr> {
    let touching: Vec<Cidr> =
        except.iter().filter(|e| e.covers(&block) || block.covers(e)).copied().collect();
    if touching.is_empty() {
        return vec![block];
    }
    if touching.iter().any(|e| e.covers(&block)) {
        return Vec::new();
    }
    // Some exception lies strictly inside, so the block has halves. Depth is at most 128, and every level keeps only
    // the exceptions that touch it: linear in the number of exceptions times the prefix length.
    let Some([lower, upper]) = block.halves() else { return Vec::new() };
    let mut blocks = subtract(lower, &touching);
    blocks.extend(subtract(upper, &touching));
    blocks
}

fn bits(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

fn mask(family: Family, prefix: u8) -> u128 {
    let bits = u32::from(bits(family));
    let ones = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
    let host = bits - u32::from(prefix);
    if host == 128 { 0 } else { (ones >> host) << host }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn to_address(family: Family, number: u128) -> IpAddr {
    match family {
        // Only numbers of 32 bits get here: every one comes from an address or a mask of this family.
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).unwrap()
    }

    fn cut(block: &str, except: &[&str]) -> Vec<String> {
        let except: Vec<Cidr> = except.iter().map(|e| cidr(e)).collect();
        subtract(cidr(block), &except).iter().map(Cidr::to_string).collect()
    }

    #[test]
    fn host_bits_are_masked_and_bad_blocks_refused() {
        assert_eq!(cidr("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert_eq!(cidr("fd00::1/64").to_string(), "fd00::/64");
        assert_eq!(cidr("0.0.0.0/0").range().1.to_string(), "255.255.255.255");
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", "x/8", "10.0.0.0/-1", ""] {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exceptions_cut_a_block_into_disjoint_ones() {
        assert_eq!(cut("10.0.0.0/30", &["10.0.0.2/32"]), ["10.0.0.0/31", "10.0.0.3/32"]);
        assert_eq!(cut("10.0.0.0/30", &[]), ["10.0.0.0/30"]);
        assert_eq!(cut("10.0.0.0/30", &["10.0.0.0/30"]), [""; 0]);
        assert_eq!(cut("10.0.0.0/30", &["10.0.0.0/8"]), [""; 0]);
        assert_eq!(cut("10.0.0.0/30", &["192.168.0.0/16", "::/0"]), ["10.0.0.0/30"]);
        assert_eq!(cut("0.0.0.0/0", &["10.0.0.0/8"]).len(), 8);
        assert_eq!(cut("::/0", &["fd00::1/128"]).len(), 128);
        assert_eq!(cut("10.0.0.0/30", &["10.0.0.0/31", "10.0.0.0/32"]), ["10.0.0.2/31"]);
    }
}
