//! The cluster's IPv4 ranges: what the user asks for and whether it can be; and what of the machine ranges of either family
//! hide from pods.

use std::{fs, net::Ipv4Addr};

use anyhow::{Context, Result, bail};
use node::net::{
    Ip, Ipv4Net,
    fabric::Ranges,
    overlap::{self, RangeOf},
};

/// What `up` was asked for; what was not is as the cluster has it, or as usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub nodes: Option<Ipv4Net>,
    pub pods: Option<Ipv4Net>,
    pub services: Option<Ipv4Net>,
}

/// Addresses that mean something else, in a cluster of ours or everywhere.
const RESERVED: [(Ipv4Net, &str); 6] = [
    (Ipv4Net::new(Ipv4Addr::new(0, 0, 0, 0), 8), "no host has such an address"),
    (Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8), "these are every host's own"),
    (
        Ipv4Net::new(Ipv4Addr::new(169, 254, 0, 0), 16),
        "these are link-local, and the pods' next hop is one of them",
    ),
    (Ipv4Net::new(Ipv4Addr::new(100, 64, 0, 0), 10), "clusters have their links to the machine there"),
    (Ipv4Net::new(Ipv4Addr::new(198, 18, 0, 0), 15), "clusters have their links to the machine there"),
    (Ipv4Net::new(Ipv4Addr::new(224, 0, 0, 0), 3), "these are for multicast, or reserved"),
];

impl Asked {
    /// The ranges of a new cluster of so many nodes.
    ///
    /// # Errors
    /// Ranges that overlap, mean something else, or are too small or too large: names the option.
    pub fn for_new(self, nodes: u32) -> Result<Ranges<Ipv4Addr>> {
        let usual = Ranges::<Ipv4Addr>::DEFAULT;
        let ranges = Ranges {
            nodes: self.nodes.unwrap_or(usual.nodes),
            pods: self.pods.unwrap_or(usual.pods),
            services: self.services.unwrap_or(usual.services),
        };
        let each = [
            (RangeOf::Nodes, ranges.nodes),
            (RangeOf::Pods, ranges.pods),
            (RangeOf::Services, ranges.services),
        ];
        for (of, range) in each {
            if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| reserved.overlaps(&range)) {
                bail!("{} {range}: {why}", of.option::<Ipv4Addr>());
            }
        }
        if let Some((one, other)) = ranges.overlap_themselves() {
            let range =
                |of| each.iter().find(|(is, _)| *is == of).map_or(String::new(), |(_, r)| r.to_string());
            let option = RangeOf::option::<Ipv4Addr>;
            bail!("{} {} and {} {} overlap", option(one), range(one), option(other), range(other));
        }
        // The fabric and the two ends of the range are no nodes; the first /24 of the pods' range is no node's.
        let node_room = size(ranges.nodes).saturating_sub(3);
        if node_room < u64::from(nodes) {
            bail!("--node-cidr {} has room for {node_room} nodes, not {nodes}", ranges.nodes);
        }
        let pod_room = (size(ranges.pods) / 256).saturating_sub(1);
        if pod_room < u64::from(nodes) {
            bail!(
                "--pod-cidr {} has room for {pod_room} nodes, not {nodes}: each has a /24 of it, and the first is nobody's",
                ranges.pods
            );
        }
        // Kubernetes takes no larger one; a smaller one has no room for the Service kubernetes and what else comes.
        if !(12..=28).contains(&ranges.services.prefix()) {
            bail!("--service-cidr {}: the prefix must be between 12 and 28", ranges.services);
        }
        Ok(ranges)
    }

    /// Whether a cluster that is there has what is asked for.
    ///
    /// # Errors
    /// Names the option and both ranges.
    pub fn agree_with(self, is: &Ranges<Ipv4Addr>) -> Result<()> {
        for (option, asked, is) in [
            ("--node-cidr", self.nodes, is.nodes),
            ("--pod-cidr", self.pods, is.pods),
            ("--service-cidr", self.services, is.services),
        ] {
            if let Some(asked) = asked.filter(|asked| *asked != is) {
                bail!("the cluster has {option} {is}, not {asked}: `cofferdam down` it first");
            }
        }
        Ok(())
    }
}

fn size(range: Ipv4Net) -> u64 {
    1 << (32 - u32::from(range.prefix()))
}

/// What of the machine's network pods cannot reach because of these ranges, a line each.
pub fn hidden<A: Ip>(ranges: &Ranges<A>) -> Result<Vec<String>> {
    let overlaps = overlap::overlaps(ranges).context("list the machine's addresses and routes")?;
    let mut lines: Vec<String> = overlaps.iter().map(ToString::to_string).collect();
    // Pods that keep the machine's name server would look for it in the cluster.
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    lines.extend(resolv.lines().filter_map(|line| {
        let server = line.strip_prefix("nameserver")?.trim().parse().ok()?;
        let (of, range) = overlap::range_of(ranges, server)?;
        Some(format!(
            "pods cannot reach this machine's name server {server}, which is inside of {range}: choose another with {}",
            of.option::<A>()
        ))
    }));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(nodes: &str, pods: &str, services: &str) -> Asked {
        let parse = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        Asked { nodes: parse(nodes), pods: parse(pods), services: parse(services) }
    }

    #[test]
    fn ranges_that_cannot_be_are_refused_by_the_option_s_name() {
        let table = [
            (("", "", ""), 32, Ok(())),
            (("192.168.7.0/28", "172.20.0.0/16", "172.21.0.0/20"), 3, Ok(())),
            (
                ("", "10.96.0.0/12", ""),
                1,
                Err("--pod-cidr 10.96.0.0/12 and --service-cidr 10.96.0.0/16 overlap"),
            ),
            (
                ("10.244.9.0/24", "", ""),
                1,
                Err("--node-cidr 10.244.9.0/24 and --pod-cidr 10.244.0.0/16 overlap"),
            ),
            (("10.88.0.0/29", "", ""), 5, Ok(())),
            (("10.88.0.0/29", "", ""), 6, Err("--node-cidr 10.88.0.0/29 has room for 5 nodes, not 6")),
            (("10.88.0.0/32", "", ""), 1, Err("--node-cidr 10.88.0.0/32 has room for 0 nodes, not 1")),
            (("", "10.244.0.0/22", ""), 3, Ok(())),
            (
                ("", "10.244.0.0/22", ""),
                4,
                Err(
                    "--pod-cidr 10.244.0.0/22 has room for 3 nodes, not 4: each has a /24 of it, and the first is nobody's",
                ),
            ),
            (
                ("", "", "10.96.0.0/30"),
                1,
                Err("--service-cidr 10.96.0.0/30: the prefix must be between 12 and 28"),
            ),
            (("127.0.0.0/24", "", ""), 1, Err("--node-cidr 127.0.0.0/24: these are every host's own")),
            (
                ("", "100.64.0.0/16", ""),
                1,
                Err("--pod-cidr 100.64.0.0/16: clusters have their links to the machine there"),
            ),
            (("", "0.0.0.0/0", ""), 1, Err("--pod-cidr 0.0.0.0/0: no host has such an address")),
        ];
        for ((nodes, pods, services), count, want) in table {
            let got =
                asked(nodes, pods, services).for_new(count).map(drop).map_err(|error| error.to_string());
            assert_eq!(got, want.map_err(str::to_owned), "{nodes} {pods} {services} {count}");
        }
    }

    #[test]
    fn a_cluster_that_is_there_keeps_its_ranges() {
        let is = Asked::default().for_new(1).unwrap();
        assert!(Asked::default().agree_with(&is).is_ok());
        assert!(asked("10.88.0.0/24", "", "").agree_with(&is).is_ok());
        let error = asked("", "10.1.0.0/16", "").agree_with(&is).unwrap_err().to_string();
        assert_eq!(
            error,
            "the cluster has --pod-cidr 10.244.0.0/16, not 10.1.0.0/16: `cofferdam down` it first"
        );
    }
}
