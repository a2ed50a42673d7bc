//! How the server is set up: by arguments, and by what every pod is given.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

/// Where a pod's token and the API server's certificate lie.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[derive(Debug, Clone)]
pub struct Config {
    pub domain: String,
    pub listen: SocketAddr,
    /// HTTP: `/ready`, `/health`, `/metrics`.
    pub health: SocketAddr,
    /// `https://host:port`, or `http://` for a server that asks for nothing.
    pub api: String,
    pub credentials: PathBuf,
    /// Addresses whose names nobody but the cluster knows.
    pub ranges: Vec<Range>,
    /// The servers for all other names.
    pub upstreams: Vec<SocketAddr>,
}

/// An address block: `10.96.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    bits: u8,
}

impl Range {
    pub fn parse(text: &str) -> Option<Range> {
        let (base, bits) = text.split_once('/')?;
        let (base, bits): (IpAddr, u8) = (base.parse().ok()?, bits.parse().ok()?);
        (bits <= if base.is_ipv4() { 32 } else { 128 }).then_some(Range { base, bits })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        // The first `bits` bits are the same; a shift by the whole width leaves nothing to compare.
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                base.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                base.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

pub const USAGE: &str = "cofferdam-dns [--domain NAME] [--listen ADDRESS:PORT] [--health ADDRESS:PORT] [--api URL] \
[--credentials DIR] [--range BLOCK]… [--upstream ADDRESS[:PORT]]…";

impl Config {
    /// Reads the arguments; what they do not say comes from the pod's environment and files.
    ///
    /// # Errors
    /// What was wrong with which argument.
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Result<Config, String> {
        let any = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let mut config = Config {
            domain: "cluster.local".to_owned(),
            listen: any(53),
            health: any(8181),
            api: String::new(),
            credentials: SERVICE_ACCOUNT.into(),
            ranges: Vec::new(),
            upstreams: Vec::new(),
        };
        let mut named_upstreams = false;
        while let Some(arg) = args.next() {
            let value = args.next().ok_or_else(|| format!("{arg} takes a value\nusage: {USAGE}"))?;
            let wrong = || format!("{arg} {value}: no such value");
            match arg.as_str() {
                "--domain" => config.domain = value,
                "--listen" => config.listen = value.parse().map_err(|_| wrong())?,
                "--health" => config.health = value.parse().map_err(|_| wrong())?,
                "--api" => config.api = value,
                "--credentials" => config.credentials = value.into(),
                "--range" => config.ranges.push(Range::parse(&value).ok_or_else(wrong)?),
                "--upstream" => {
                    named_upstreams = true;
                    config.upstreams.push(server(&value).ok_or_else(wrong)?);
                }
                _ => return Err(format!("no option {arg}\nusage: {USAGE}")),
            }
        }
        if !named_upstreams {
            config.upstreams = resolv_conf(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        }
        if config.api.is_empty() {
            let variable =
                |name: &str| std::env::var(name).map_err(|_| format!("neither --api nor {name} is set"));
            let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            config.api = format!("https://{host}:{port}");
        }
        Ok(config)
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)))
}

fn resolv_conf(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| server(words.next()?)).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_addresses() {
        for (range, address, inside) in [
            ("10.96.0.0/16", "10.96.255.1", true),
            ("10.96.0.0/16", "10.97.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
            ("::/0", "fe80::1", true),
        ] {
            let range = Range::parse(range).expect("a range");
            assert_eq!(range.contains(address.parse().expect("an address")), inside, "{range:?} {address}");
        }
        for wrong in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/129"] {
            assert_eq!(Range::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn upstreams_come_from_resolv_conf() {
        let found = resolv_conf("search x\nnameserver 192.0.2.1\nnameserver fd00::1\nnameserver nonsense\n");
        assert_eq!(found, ["192.0.2.1:53".parse().expect("v4"), "[fd00::1]:53".parse().expect("v6")]);
    }
}
