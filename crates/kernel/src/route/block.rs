//! Address blocks of either family. A family is a type, so that what belongs to one cannot meet the other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

mod sealed {
    pub trait Sealed {}
    impl Sealed for std::net::Ipv4Addr {}
    impl Sealed for std::net::Ipv6Addr {}
}

/// An address of one family: [`Ipv4Addr`] or [`Ipv6Addr`].
pub trait Ip:
    sealed::Sealed
    + Copy
    + Ord
    + std::hash::Hash
    + fmt::Debug
    + fmt::Display
    + FromStr
    + Into<IpAddr>
    + Send
    + Sync
{
    /// AF_INET or AF_INET6, which are NFPROTO_IPV4 and NFPROTO_IPV6 too.
    const FAMILY: u8;
    /// Of an address: 32 or 128.
    const BITS: u8;
    /// `0.0.0.0` or `::`.
    const UNSPECIFIED: Self;
    /// A block for examples.
    const EXAMPLE: &'static str;

    /// As a number; of an IPv4 address the low 32 bits.
    fn number(self) -> u128;
    /// Bits above [`Ip::BITS`] are cut off.
    fn from_number(number: u128) -> Self;
    /// None for an address of the other family.
    fn of(address: IpAddr) -> Option<Self>;

    /// In network order, 4 or 16 bytes.
    fn bytes(self) -> Vec<u8> {
        self.number().to_be_bytes()[16 - usize::from(Self::BITS / 8)..].to_vec()
    }

    /// None unless there are 4, or 16, bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != usize::from(Self::BITS / 8) {
            return None;
        }
        Some(Self::from_number(bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))))
    }
}

impl Ip for Ipv4Addr {
    const FAMILY: u8 = 2;
    const BITS: u8 = 32;
    const UNSPECIFIED: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    const EXAMPLE: &'static str = "10.244.0.0/16";

    fn number(self) -> u128 {
        u128::from(self.to_bits())
    }

    fn from_number(number: u128) -> Ipv4Addr {
        Ipv4Addr::from_bits(number as u32)
    }

    fn of(address: IpAddr) -> Option<Ipv4Addr> {
        match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }
    }
}

impl Ip for Ipv6Addr {
    const FAMILY: u8 = 10;
    const BITS: u8 = 128;
    const UNSPECIFIED: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
    const EXAMPLE: &'static str = "fd00:cf:244::/56";

    fn number(self) -> u128 {
        self.to_bits()
    }

    fn from_number(number: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(number)
    }

    fn of(address: IpAddr) -> Option<Ipv6Addr> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(v6),
        }
    }
}

/// A block with no host bits set: `10.244.1.0/24`, `fd00:cf:244:1::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Net<A> {
    network: A,
    prefix: u8,
}

pub type Ipv4Net = Net<Ipv4Addr>;
pub type Ipv6Net = Net<Ipv6Addr>;

/// The text is not `address/n` with an address of the family and n at most its length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an {family} address block such as {example}")]
pub struct BlockError {
    text: String,
    family: &'static str,
    example: &'static str,
}

impl Ipv4Net {
    /// Masks the host bits away. `prefix` above 32 is taken as 32.
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Ipv4Net {
        let prefix = if prefix > 32 { 32 } else { prefix };
        let mask = if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) };
        Net { network: Ipv4Addr::from_bits(address.to_bits() & mask), prefix }
    }
}

impl Ipv6Net {
    /// Masks the host bits away. `prefix` above 128 is taken as 128.
    pub const fn new(address: Ipv6Addr, prefix: u8) -> Ipv6Net {
        let prefix = if prefix > 128 { 128 } else { prefix };
        let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - prefix) };
        Net { network: Ipv6Addr::from_bits(address.to_bits() & mask), prefix }
    }
}

impl<A: Ip> Net<A> {
    /// Masks the host bits away. A `prefix` that is too long is taken as a single address.
    pub fn of(address: A, prefix: u8) -> Net<A> {
        let prefix = prefix.min(A::BITS);
        Net { network: A::from_number(address.number() & !Self::host_mask(prefix)), prefix }
    }

    pub fn single(address: A) -> Net<A> {
        Net { network: address, prefix: A::BITS }
    }

    /// `0.0.0.0/0` or `::/0`.
    pub fn everything() -> Net<A> {
        Net { network: A::UNSPECIFIED, prefix: 0 }
    }

    pub fn network(&self) -> A {
        self.network
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    fn host_mask(prefix: u8) -> u128 {
        match u32::from(A::BITS - prefix) {
            128 => u128::MAX,
            bits => (1 << bits) - 1,
        }
    }

    /// The last address of the block.
    pub fn last(&self) -> A {
        A::from_number(self.network.number() | Self::host_mask(self.prefix))
    }

    pub fn contains(&self, address: A) -> bool {
        address.number() & !Self::host_mask(self.prefix) == self.network.number()
    }

    pub fn overlaps(&self, other: &Net<A>) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The `n`th address, the network address being 0; None behind the end of the block.
    pub fn nth(&self, n: u32) -> Option<A> {
        let number = self.network.number().checked_add(u128::from(n))?;
        (number <= self.last().number()).then(|| A::from_number(number))
    }

    /// Which address of the block this is; None outside of it, or where the number does not fit.
    pub fn index_of(&self, address: A) -> Option<u32> {
        self.contains(address).then(|| u32::try_from(address.number() - self.network.number()).ok())?
    }

    /// The `n`th block of length `prefix` inside this one; None where there is none.
    pub fn subnet(&self, prefix: u8, n: u32) -> Option<Net<A>> {
        if prefix < self.prefix || prefix > A::BITS {
            return None;
        }
        let shift = u32::from(A::BITS - prefix);
        let offset = u128::from(n).checked_mul(1u128.checked_shl(shift)?)?;
        let number = self.network.number().checked_add(offset)?;
        (number <= self.last().number()).then(|| Net { network: A::from_number(number), prefix })
    }
}

impl<A: Ip> FromStr for Net<A> {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Net<A>, BlockError> {
        let family = if A::BITS == 32 { "IPv4" } else { "IPv6" };
        let malformed = || BlockError { text: text.to_string(), family, example: A::EXAMPLE };
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address = address.parse().map_err(|_| malformed())?;
        let prefix = prefix.parse().map_err(|_| malformed())?;
        if prefix > A::BITS {
            return Err(malformed());
        }
        Ok(Net::of(address, prefix))
    }
}

impl<A: fmt::Display> fmt::Display for Net<A> {
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
        assert_eq!(pods.index_of(Ipv4Addr::new(10, 244, 1, 2)), Some(258));
        assert_eq!(pods.index_of(Ipv4Addr::new(10, 245, 1, 2)), None);
        assert_eq!(pods.nth(1 << 16), None);
        assert_eq!(pods.last(), Ipv4Addr::new(10, 244, 255, 255));
        let all: Ipv4Net = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::BROADCAST) && all.overlaps(&pods) && pods.overlaps(&all));
        assert_eq!(all, Net::everything());
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "", "fd00::/8"] {
            assert!(bad.parse::<Ipv4Net>().is_err(), "{bad}");
        }
    }

    #[test]
    fn blocks_of_ipv6_too() {
        let pods: Ipv6Net = "fd00:cf:244:7::9/56".parse().unwrap();
        assert_eq!(pods.to_string(), "fd00:cf:244::/56");
        assert_eq!(pods.subnet(64, 2).unwrap().to_string(), "fd00:cf:244:2::/64");
        assert_eq!(pods.subnet(64, 255).unwrap().to_string(), "fd00:cf:244:ff::/64");
        assert_eq!(pods.subnet(64, 256), None);
        assert_eq!(pods.nth(258), Some("fd00:cf:244::102".parse().unwrap()));
        assert_eq!(pods.last(), "fd00:cf:244:ff:ffff:ffff:ffff:ffff".parse::<Ipv6Addr>().unwrap());
        assert_eq!(pods.index_of(pods.last()), None, "more than a u32 holds");
        let all: Ipv6Net = "::/0".parse().unwrap();
        assert!(all.contains(Ipv6Addr::LOCALHOST) && all.overlaps(&pods) && pods.overlaps(&all));
        assert_eq!(all.subnet(0, 1), None);
        assert_eq!(Ipv6Addr::from_bytes(&pods.last().bytes()), Some(pods.last()));
        assert_eq!(Ipv6Net::new(pods.last(), 64), Net::of(pods.last(), 64));
        for bad in ["fd00::", "fd00::/129", "10.0.0.0/8", ""] {
            assert!(bad.parse::<Ipv6Net>().is_err(), "{bad}");
        }
        let error = "fd00::".parse::<Ipv6Net>().unwrap_err();
        assert_eq!(error.to_string(), "\"fd00::\" is not an IPv6 address block such as fd00:cf:244::/56");
    }
}
