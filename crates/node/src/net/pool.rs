//! The addresses of a node's block. Which are in use is not written anywhere: it is read from the routes at start.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use kernel::route::Ipv4Net;

/// Gives addresses out in a circle, so that the one given back last comes last: a client that still talks to a pod
/// that is gone does not reach another one.
#[derive(Debug)]
pub struct Pool {
    block: Ipv4Net,
    used: BTreeSet<Ipv4Addr>,
    last: Ipv4Addr,
}

impl Pool {
    pub fn new(block: Ipv4Net) -> Pool {
        Pool { block, used: BTreeSet::new(), last: block.network() }
    }

    /// Notes an address that a surviving pod has.
    pub fn take(&mut self, address: Ipv4Addr) {
        self.used.insert(address);
        self.last = self.last.max(address);
    }

    /// None when all are in use. The first two and the last of the block are never given out.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        let (first, end) = (self.block.network().to_bits().saturating_add(2), self.block.last().to_bits());
        let start = self.last.to_bits().saturating_add(1).max(first);
        let free = (start..end).chain(first..start.min(end)).map(Ipv4Addr::from_bits);
        let address = free.into_iter().find(|address| !self.used.contains(address))?;
        self.used.insert(address);
        self.last = address;
        Some(address)
    }

    pub fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_last_of_all() {
        let mut pool = Pool::new("10.244.1.0/29".parse().unwrap());
        let ip = |n| Ipv4Addr::new(10, 244, 1, n);
        assert_eq!(pool.allocate(), Some(ip(2)));
        assert_eq!(pool.allocate(), Some(ip(3)));
        pool.release(ip(2));
        for n in [4, 5, 6, 2] {
            assert_eq!(pool.allocate(), Some(ip(n)));
        }
        assert_eq!(pool.allocate(), None, "network, second, and broadcast address are not given out");
        pool.release(ip(4));
        assert_eq!(pool.allocate(), Some(ip(4)));
    }

    #[test]
    fn a_restart_goes_on_behind_the_survivors() {
        let mut pool = Pool::new("10.244.1.0/24".parse().unwrap());
        pool.take(Ipv4Addr::new(10, 244, 1, 9));
        assert_eq!(pool.allocate(), Some(Ipv4Addr::new(10, 244, 1, 10)));
    }
}
