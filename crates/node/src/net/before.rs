//! What the machine had before the first cluster came, and has again after the last: sysctls of forwarding. It is noted
//! where teardown finds it without anything else, in the cluster's own table: in its comment, and in the set `accept-ra`.

use std::collections::BTreeSet;
use std::io;

use kernel::netlink::Socket;
use kernel::nft::{self, Data, DataType, Elements, Set, SetType};
use kernel::route::netns::{SysctlError, read_sysctl, write_sysctl};

use super::fabric::FabricError;

const FORWARD: &str = "net/ipv4/ip_forward";
/// Turning `ip_forward` on turns this off, and the other way round.
const REDIRECTS: &str = "net/ipv4/conf/all/accept_redirects";
const FORWARD6: &str = "net/ipv6/conf/all/forwarding";
/// Holds the links of [`Before6::accept_ra`].
pub const ACCEPT_RA: &str = "accept-ra";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    forward: String,
    redirects: String,
    /// None: the cluster changes nothing of the machine's IPv6.
    v6: Option<Before6>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Before6 {
    forward: String,
    /// Links, and `default` for those to come, that take router advertisements as a host does. A router does not, and
    /// would lose its own default route: they are told to take them all the same (`accept_ra` 2).
    accept_ra: BTreeSet<String>,
}

impl Before {
    /// What was before the first of the clusters, not what that one set.
    pub fn read(rules: &mut Socket, with_v6: bool) -> Result<Before, FabricError> {
        let others = others(rules, None)?;
        let mut before = match others.first() {
            Some(other) => other.clone(),
            None => Before { forward: read_sysctl(FORWARD)?, redirects: read_sysctl(REDIRECTS)?, v6: None },
        };
        before.v6 = match (with_v6, others.into_iter().find_map(|other| other.v6)) {
            (false, _) => None,
            (true, Some(known)) => Some(known),
            (true, None) => Some(Before6::read()?),
        };
        Ok(before)
    }

    pub fn comment(&self) -> String {
        let mut text = format!("before: ip_forward={} accept_redirects={}", self.forward, self.redirects);
        if let Some(v6) = &self.v6 {
            text += &format!(" ip6_forward={}", v6.forward);
        }
        text
    }

    /// The set that goes with the comment, for the same table.
    pub fn links(&self) -> Option<Set> {
        let name = |link: &String| {
            let mut key = link.clone().into_bytes();
            key.resize(16, 0);
            ((key, false), Data::Nothing)
        };
        let elements: Elements = self.v6.as_ref()?.accept_ra.iter().map(name).collect();
        (!elements.is_empty()).then_some(Set { of: SetType::set(&[DataType::IfaceName]), elements })
    }

    fn parse(comment: &str, links: Option<&Set>) -> Option<Before> {
        let mut words = comment.strip_prefix("before: ")?.split(' ');
        let forward = words.next()?.strip_prefix("ip_forward=")?.to_string();
        let redirects = words.next()?.strip_prefix("accept_redirects=")?.to_string();
        let forward6 = words.next().and_then(|word| word.strip_prefix("ip6_forward="));
        let name = |key: &[u8]| String::from_utf8_lossy(key).trim_end_matches('\0').to_string();
        let v6 = forward6.map(|forward| Before6 {
            forward: forward.to_string(),
            accept_ra: links
                .into_iter()
                .flat_map(|set| set.elements.keys())
                .map(|(key, _)| name(key))
                .collect(),
        });
        Some(Before { forward, redirects, v6 })
    }

    /// The note in the table of that name; None where there is none.
    pub fn noted(rules: &mut Socket, table: &str) -> Result<Option<Before>, FabricError> {
        let found = nft::table(rules, nft::Family::Inet, table)?;
        let before = found.and_then(|table| {
            let links = table.sets.get(ACCEPT_RA);
            Before::parse(table.comment.as_deref()?, links)
        });
        Ok(before)
    }

    /// Lets the machine pass packets on.
    pub fn forward(&self) -> Result<(), SysctlError> {
        if self.forward != "1" {
            write_sysctl(FORWARD, "1")?;
        }
        if let Some(v6) = self.v6.as_ref().filter(|v6| v6.forward != "1") {
            for link in &v6.accept_ra {
                change_accept_ra(link, "1", "2")?;
            }
            write_sysctl(FORWARD6, "1")?;
        }
        Ok(())
    }

    /// Back to what was, as far as no other cluster needs it; `table` is the name of the one that goes. Says what it did.
    pub fn restore(&self, rules: &mut Socket, table: &str) -> Result<Vec<String>, FabricError> {
        let others = others(rules, Some(table))?;
        let mut done = Vec::new();
        if let Some(v6) = self.v6.as_ref().filter(|_| others.iter().all(|other| other.v6.is_none())) {
            if read_sysctl(FORWARD6)? != v6.forward {
                write_sysctl(FORWARD6, &v6.forward)?;
                done.push(format!("IPv6 forwarding is {} again", v6.forward));
            }
            for link in &v6.accept_ra {
                change_accept_ra(link, "2", "1")?;
            }
        }
        if others.is_empty() {
            if read_sysctl(FORWARD)? != self.forward {
                write_sysctl(FORWARD, &self.forward)?;
                done.push(format!("ip_forward is {} again", self.forward));
            }
            if read_sysctl(REDIRECTS)? != self.redirects {
                write_sysctl(REDIRECTS, &self.redirects)?;
            }
        }
        Ok(done)
    }
}

impl Before6 {
    fn read() -> Result<Before6, SysctlError> {
        let forward = read_sysctl(FORWARD6)?;
        let mut accept_ra = BTreeSet::new();
        // A machine that forwards already has this in order.
        if forward != "1" {
            const CONF: &str = "/proc/sys/net/ipv6/conf";
            let failed = |error| SysctlError { call: "list", name: "net/ipv6/conf".to_string(), error };
            for entry in std::fs::read_dir(CONF).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
                if name != "all" && read_accept_ra(&name)?.as_deref() == Some("1") {
                    accept_ra.insert(name);
                }
            }
        }
        Ok(Before6 { forward, accept_ra })
    }
}

/// None: the link is gone.
fn read_accept_ra(link: &str) -> Result<Option<String>, SysctlError> {
    match read_sysctl(&format!("net/ipv6/conf/{link}/accept_ra")) {
        Err(e) if e.error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Unless the link is gone, or someone else changed it meanwhile.
fn change_accept_ra(link: &str, from: &str, to: &str) -> Result<(), SysctlError> {
    match read_accept_ra(link)? {
        Some(value) if value == from => write_sysctl(&format!("net/ipv6/conf/{link}/accept_ra"), to),
        _ => Ok(()),
    }
}

/// The notes of the other clusters.
fn others(rules: &mut Socket, own: Option<&str>) -> Result<Vec<Before>, FabricError> {
    let names = nft::tables(rules, nft::Family::Inet)?.into_iter().map(|(name, _)| name);
    let mut notes = Vec::new();
    for name in names.filter(|name| name.starts_with("cofferdam-") && Some(name.as_str()) != own) {
        notes.extend(Before::noted(rules, &name)?);
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_survives_in_the_table() {
        let v4 = Before { forward: "0".into(), redirects: "1".into(), v6: None };
        assert_eq!(Before::parse(&v4.comment(), None), Some(v4.clone()));
        assert_eq!(v4.links(), None);
        let accept_ra = ["default", "eth0"].map(str::to_string).into();
        let both = Before { v6: Some(Before6 { forward: "0".into(), accept_ra }), ..v4 };
        assert_eq!(Before::parse(&both.comment(), both.links().as_ref()), Some(both));
        assert_eq!(Before::parse("someone else's", None), None);
    }
}
