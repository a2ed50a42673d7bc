//! Whether a cluster has IPv6, and with which ranges: what the user asks for, and whether it can be.

use std::net::Ipv6Addr;

use anyhow::{Result, bail};
use node::net::{Ipv6Net, fabric::Ranges};

use super::layout::Ipv6Ranges;

/// Which addresses pods, nodes and Services have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IpFamily {
    /// A pod has no IPv6 at all.
    Ipv4,
    /// IPv4 and IPv6.
    Dual,
}

/// What `up` was asked for; what was not is as the cluster has it, or as usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedV6 {
    pub family: Option<IpFamily>,
    pub nodes: Option<Ipv6Net>,
    pub pods: Option<Ipv6Net>,
    pub services: Option<Ipv6Net>,
}

/// Addresses that mean something else, in a cluster of ours or everywhere.
const RESERVED: [(Ipv6Net, &str); 4] = [
    (Ipv6Net::new(Ipv6Addr::UNSPECIFIED, 8), "these are every host's own, or IPv4 in other words"),
    (Ipv6Net::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), "these are link-local"),
    (Ipv6Net::new(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), "these are for multicast"),
    (
        Ipv6Net::new(Ipv6Addr::new(0xfd00, 0xcf, 0x64, 0, 0, 0, 0, 0), 48),
        "clusters have their links to the machine there",
    ),
];

impl AskedV6 {
    fn each(self) -> [(&'static str, Option<Ipv6Net>); 3] {
        [("--node-cidr-v6", self.nodes), ("--pod-cidr-v6", self.pods), ("--service-cidr-v6", self.services)]
    }

    /// The ranges of a new cluster of so many nodes; None for IPv4 alone.
    ///
    /// # Errors
    /// Ranges without `--ip-family dual`, or that overlap, mean something else or are too small: names the option.
    pub fn for_new(self, nodes: u32) -> Result<Option<Ipv6Ranges>> {
        if self.family != Some(IpFamily::Dual) {
            if let Some((option, _)) = self.each().into_iter().find(|(_, asked)| asked.is_some()) {
                bail!("{option} is for a cluster that has IPv6: give --ip-family dual too");
            }
            return Ok(None);
        }
        let usual = Ranges::<Ipv6Addr>::DEFAULT;
        let ranges = Ranges {
            nodes: self.nodes.unwrap_or(usual.nodes),
            pods: self.pods.unwrap_or(usual.pods),
            services: self.services.unwrap_or(usual.services),
        };
        let each = [
            ("--node-cidr-v6", ranges.nodes),
            ("--pod-cidr-v6", ranges.pods),
            ("--service-cidr-v6", ranges.services),
        ];
        for (place, (option, range)) in each.iter().enumerate() {
            if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| reserved.overlaps(range)) {
                bail!("{option} {range}: {why}");
            }
            if let Some((other, second)) = each[place + 1..].iter().find(|(_, other)| other.overlaps(range)) {
                bail!("{option} {range} and {other} {second} overlap");
            }
        }
        if ranges.node(nodes).is_err() {
            bail!(
                "--node-cidr-v6 {} and --pod-cidr-v6 {} have no room for {nodes} nodes: each has an address of the one \
                 and a /64 of the other, and the first /64 is nobody's",
                ranges.nodes,
                ranges.pods
            );
        }
        // As Kubernetes bounds it: what is larger could not be kept account of.
        if !(108..=124).contains(&ranges.services.prefix()) {
            bail!("--service-cidr-v6 {}: the prefix must be between 108 and 124", ranges.services);
        }
        Ok(Some(Ipv6Ranges {
            node_cidr: ranges.nodes.to_string(),
            pod_cidr: ranges.pods.to_string(),
            service_cidr: ranges.services.to_string(),
        }))
    }

    /// Whether a cluster that is there has what is asked for.
    ///
    /// # Errors
    /// Names the option and what the cluster has.
    pub fn agree_with(self, is: Option<&Ranges<Ipv6Addr>>) -> Result<()> {
        match (self.family, is) {
            (Some(IpFamily::Ipv4), Some(_)) => {
                bail!("the cluster has --ip-family dual, not ipv4: `cofferdam down` it first")
            }
            (Some(IpFamily::Dual), None) => {
                bail!("the cluster has --ip-family ipv4, not dual: `cofferdam down` it first")
            }
            _ => {}
        }
        for (place, (option, asked)) in self.each().into_iter().enumerate() {
            let Some(asked) = asked else { continue };
            let Some(is) = is.map(|is| [is.nodes, is.pods, is.services][place]) else {
                bail!("{option} {asked}: the cluster has no IPv6: `cofferdam down` it first");
            };
            if asked != is {
                bail!("the cluster has {option} {is}, not {asked}: `cofferdam down` it first");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_cannot_be_are_refused_by_their_option() {
        let block = |text: &str| (!text.is_empty()).then(|| text.parse().expect("a block"));
        let dual = Some(IpFamily::Dual);
        for (family, (node, pod, service), nodes, expected) in [
            (dual, ("", "", ""), 32, Ok("fd00:cf:88::/64 fd00:cf:244::/56 fd00:cf:96::/112")),
            (dual, ("fd01::/64", "fd02::/48", "fd03::/112"), 3, Ok("fd01::/64 fd02::/48 fd03::/112")),
            (None, ("", "", ""), 1, Ok("")),
            (
                None,
                ("", "fd02::/48", ""),
                1,
                Err("--pod-cidr-v6 is for a cluster that has IPv6: give --ip-family dual too"),
            ),
            (
                dual,
                ("", "fd00:cf:64::/48", ""),
                1,
                Err("--pod-cidr-v6 fd00:cf:64::/48: clusters have their links to the machine there"),
            ),
            (dual, ("fe80::/64", "", ""), 1, Err("--node-cidr-v6 fe80::/64: these are link-local")),
            (
                dual,
                ("fd02::/64", "fd02::/48", ""),
                1,
                Err("--node-cidr-v6 fd02::/64 and --pod-cidr-v6 fd02::/48 overlap"),
            ),
            (
                dual,
                ("", "fd02::/63", ""),
                2,
                Err(
                    "--node-cidr-v6 fd00:cf:88::/64 and --pod-cidr-v6 fd02::/63 have no room for 2 nodes: each has an \
                     address of the one and a /64 of the other, and the first /64 is nobody's",
                ),
            ),
            (
                dual,
                ("", "", "fd03::/64"),
                1,
                Err("--service-cidr-v6 fd03::/64: the prefix must be between 108 and 124"),
            ),
        ] {
            let asked = AskedV6 { family, nodes: block(node), pods: block(pod), services: block(service) };
            let made = asked.for_new(nodes).map_err(|error| error.to_string()).map(|made| {
                made.map(|v6| format!("{} {} {}", v6.node_cidr, v6.pod_cidr, v6.service_cidr))
                    .unwrap_or_default()
            });
            assert_eq!(made, expected.map(str::to_owned).map_err(str::to_owned));
        }
        let is = Ranges::<Ipv6Addr>::DEFAULT;
        AskedV6::default().agree_with(Some(&is)).expect("what is not asked for is as it is");
        let other = AskedV6 { pods: block("fd02::/48"), ..AskedV6::default() };
        for (asked, is, error) in [
            (
                other,
                Some(&is),
                "the cluster has --pod-cidr-v6 fd00:cf:244::/56, not fd02::/48: `cofferdam down` it first",
            ),
            (other, None, "--pod-cidr-v6 fd02::/48: the cluster has no IPv6: `cofferdam down` it first"),
            (
                AskedV6 { family: dual, ..AskedV6::default() },
                None,
                "the cluster has --ip-family ipv4, not dual: `cofferdam down` it first",
            ),
        ] {
            assert_eq!(asked.agree_with(is).unwrap_err().to_string(), error);
        }
    }
}
