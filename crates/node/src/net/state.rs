//! What a node's network knows, and how it gets it into the kernel: links first made, then guarded, then brought up;
//! differences written without reading, and the whole read back where the kernel may hold something else.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use kernel::conntrack;
use kernel::netlink::{Batch, NetlinkError, Socket};
use kernel::nft::{self, CommitError, Table, Transaction};
use kernel::route::netns::{self, SysctlError};
use kernel::route::{self, Mac, Route, VethEnd};
use policy::network_policy::ir::{Change, Protocol};
use policy::network_policy::{Compiler, PodRecord};

use super::fabric::{LINK_PATIENCE, mac_of};
use super::family::{self, Role, set_ipv6};
use super::pods::{NetError, NodeNetConfig, PodAddresses, PodNet};
use super::pool::Pool;
use super::services::{ServiceChange, Services, Stale, layout};
use super::table::{self, POD_LINK, TABLE};

/// Next hop of a pod: no address of anyone, only the key of a permanent neighbour.
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const POD_GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The node's end of every pod link.
const NODE_END: Mac = Mac([0x0a, 0xcf, 0, 0, 0, 2]);

pub(super) struct State {
    pub(super) route: Socket,
    pub(super) rules: Socket,
    /// Of the rule set, after our last transaction.
    pub(super) generation: u32,
    pub(super) compiler: Compiler,
    pub(super) pods: BTreeMap<String, LocalPod>,
    pub(super) pool: Pool,
    /// Links whose pods are detached, that have not gone yet.
    pub(super) leaving: BTreeMap<u32, Ipv4Addr>,
    /// Who had an address last: other nodes may still take it for that pod's.
    pub(super) former: HashMap<IpAddr, PodRecord>,
    /// Links of an earlier agent that no pod has been adopted for yet, by uid.
    pub(super) survivors: BTreeMap<String, Survivor>,
    pub(super) routes: Vec<Route<Ipv4Addr>>,
    pub(super) routes6: Vec<Route<Ipv6Addr>>,
    /// None: not known yet. What an earlier agent wrote stays until it is.
    pub(super) services: Option<Services>,
    pub(super) uplink: u32,
    pub(super) adopted: bool,
    pub(super) synced: bool,
    /// The kernel may differ from what is wanted: read back before the next change.
    pub(super) dirty: bool,
}

pub(super) struct LocalPod {
    pub(super) pod: PodNet,
    pub(super) address: PodAddresses,
    pub(super) link: u32,
    /// The link is gone, with the pod's namespace.
    pub(super) gone: bool,
}

pub(super) struct Survivor {
    pub(super) name: String,
    pub(super) link: u32,
    pub(super) address: Ipv4Addr,
}

/// A pod whose own elements change with a transaction.
pub(super) enum Pod<'a> {
    Comes(&'a LocalPod),
    Goes(&'a LocalPod),
}

impl State {
    /// Differences may be written without reading.
    pub(super) fn live(&self) -> bool {
        self.adopted && self.synced
    }

    pub(super) fn check_host_ports(&self, pod: &PodNet) -> Result<(), NetError> {
        for asked in &pod.host_ports {
            for other in self.pods.values() {
                if let Some(port) = other.pod.host_ports.iter().find(|port| port.collides(asked)) {
                    let user = format!("{}/{}", other.pod.namespace, other.pod.name);
                    return Err(NetError::HostPortInUse(port.describe(), user));
                }
            }
        }
        Ok(())
    }

    pub(super) fn attach(
        &mut self,
        config: &NodeNetConfig,
        pod: PodNet,
        name: &str,
        address: PodAddresses,
        netns: &OwnedFd,
        inside: &mut Socket,
    ) -> Result<(), NetError> {
        let mac = mac_of(address.v4);
        let mut batch = Batch::new();
        route::add_veth(
            &mut batch,
            VethEnd { name, mac: NODE_END, netns: None },
            VethEnd { name: "eth0", mac, netns: Some(netns.as_fd()) },
            config.mtu,
        );
        self.route.request(&batch)?;
        let link = index_of(&mut self.route, name)?;

        // The rules, before a packet can pass.
        let uid = pod.uid.clone();
        let changes = self.compiler.upsert_pod(pod.record(address));
        let local = LocalPod { pod, address, link, gone: false };
        if self.live() {
            let committed = self.commit_pod(config, &changes, local);
            committed?;
        } else {
            self.pods.insert(uid.clone(), local);
        }
        if let Some(local) = self.pods.get(&uid) {
            // Packets of a client that came before the pod have made entries that lead nowhere.
            forget_udp(&mut self.rules, local)?;
        }

        let mut batch = Batch::new();
        route::set_up(&mut batch, link);
        route::set_alias(&mut batch, link, &uid);
        family::branch(&mut batch, link, address.v4, mac, config.v4.node_ip);
        if let (Some(address), Some(network)) = (address.v6, &config.v6) {
            family::branch(&mut batch, link, address, mac, network.node_ip);
        }
        self.route.request(&batch)?;

        let role = address.v6.map(|_| Role::Host);
        let sysctls: Result<(), SysctlError> =
            netns::run_in(netns.as_fd(), || set_ipv6(role, &["eth0"])).map_err(NetError::Enter)?;
        sysctls?;
        let (lo, eth0) = (index_of(inside, "lo")?, index_of(inside, "eth0")?);
        let mut batch = Batch::new();
        route::set_up(&mut batch, lo);
        route::set_up(&mut batch, eth0);
        family::leaf(&mut batch, eth0, address.v4, POD_GATEWAY, NODE_END);
        if let Some(address) = address.v6 {
            family::leaf(&mut batch, eth0, address, POD_GATEWAY6, NODE_END);
        }
        inside.request(&batch)?;
        // Both ends are up now; without this the first packets of and to the pod may be lost.
        for (socket, link) in [(&mut self.route, link), (inside, eth0)] {
            if !route::wait_running(socket, link, LINK_PATIENCE)? {
                return Err(NetError::LinkDown(name.to_string()));
            }
        }
        Ok(())
    }

    fn commit_pod(
        &mut self,
        config: &NodeNetConfig,
        changes: &[Change],
        local: LocalPod,
    ) -> Result<(), NetError> {
        let uid = local.pod.uid.clone();
        let mut transaction = Transaction::new(nft::Family::Inet, TABLE);
        put(&mut transaction, changes, &[Pod::Comes(&local)]);
        self.pods.insert(uid, local);
        self.commit_transaction(config, transaction)
    }

    pub(super) fn undo(
        &mut self,
        config: &NodeNetConfig,
        uid: &str,
        name: &str,
        address: PodAddresses,
    ) -> Result<(), NetError> {
        let local = self.pods.remove(uid);
        let changes = self.remove_from_rules(uid);
        if let Some(local) = local.as_ref().filter(|_| self.live()) {
            self.commit(config, Some((&changes, &[Pod::Goes(local)])))?;
        }
        let mut batch = Batch::new();
        route::delete_link(&mut batch, name);
        kernel::netlink::ignore_missing(self.route.request(&batch))?;
        self.pool.release(address.v4);
        Ok(())
    }

    /// Takes a local pod out of the rule set, and remembers who had its address.
    pub(super) fn remove_from_rules(&mut self, uid: &str) -> Vec<Change> {
        if let Some(record) = self.compiler.pod(uid) {
            let record = record.clone();
            self.former.extend(record.addresses.iter().map(|address| (*address, record.clone())));
        }
        self.compiler.remove_pod(uid)
    }

    /// Writes a difference. Without one, or where the kernel may have another state than we think, reads back.
    pub(super) fn commit(
        &mut self,
        config: &NodeNetConfig,
        difference: Option<(&[Change], &[Pod<'_>])>,
    ) -> Result<(), NetError> {
        let Some((changes, pods)) = difference else { return self.reconcile(config).map(|_| ()) };
        let mut transaction = Transaction::new(nft::Family::Inet, TABLE);
        put(&mut transaction, changes, pods);
        self.commit_transaction(config, transaction)
    }

    pub(super) fn commit_transaction(
        &mut self,
        config: &NodeNetConfig,
        transaction: Transaction,
    ) -> Result<(), NetError> {
        if self.dirty {
            return self.reconcile(config).map(|_| ());
        }
        if transaction.is_empty() {
            return Ok(());
        }
        match transaction.commit_at(&mut self.rules, self.generation) {
            Ok(()) => {
                self.generation = next(self.generation);
                Ok(())
            }
            Err(CommitError::Stale(_)) => self.reconcile(config).map(|_| ()),
            // Refused, though it follows from what we wrote: so the kernel holds something else.
            Err(CommitError::Netlink(NetlinkError::Refused { .. } | NetlinkError::Overrun(_))) => {
                self.dirty = true;
                self.reconcile(config).map(|_| ())
            }
            Err(other) => {
                // The compiler is ahead of the kernel now: the next change reads back.
                self.dirty = true;
                Err(other.into())
            }
        }
    }

    /// Commits what is beside our table, from a socket of its own, without our table being read back because of it.
    pub(super) fn beside(
        &mut self,
        config: &NodeNetConfig,
        socket: &mut Socket,
        transaction: impl Fn() -> Transaction,
    ) -> Result<(), NetError> {
        for _ in 0..8 {
            match transaction().commit_at(socket, self.generation) {
                Ok(()) => {
                    self.generation = next(self.generation);
                    return Ok(());
                }
                Err(CommitError::Stale(_)) => {
                    self.reconcile(config)?;
                }
                Err(other) => return Err(other.into()),
            }
        }
        Err(NetError::Contended)
    }

    /// Reads the table back and writes what differs, in one transaction. True if something did.
    pub(super) fn reconcile(&mut self, config: &NodeNetConfig) -> Result<bool, NetError> {
        if !self.live() {
            return Ok(false);
        }
        let wanted = self.wanted(config);
        for _ in 0..8 {
            let generation = nft::generation(&mut self.rules)?;
            let is = match nft::table(&mut self.rules, nft::Family::Inet, TABLE) {
                Ok(is) => is,
                // Changed, or gone, while it was read.
                Err(NetlinkError::Interrupted(_)) => continue,
                Err(e) if e.errno() == Some(rustix::io::Errno::NOENT) => continue,
                Err(e) => return Err(e.into()),
            };
            let mut wanted = wanted.clone();
            if let (None, Some(is)) = (&self.services, &is) {
                layout::keep(is, &mut wanted);
            }
            let mut transaction = Transaction::new(nft::Family::Inet, TABLE);
            match &is {
                None => {
                    transaction.add_table(None);
                    transaction.add_all(&wanted);
                }
                Some(is) => {
                    if !transaction.change(is, &wanted) {
                        transaction.add_table(None);
                        transaction.delete_table();
                        transaction.add_table(None);
                        transaction.add_all(&wanted);
                    }
                }
            }
            if transaction.is_empty() {
                self.generation = generation;
                self.dirty = false;
                return Ok(false);
            }
            match transaction.commit_at(&mut self.rules, generation) {
                Ok(()) => {
                    self.generation = next(generation);
                    self.dirty = false;
                    return Ok(true);
                }
                Err(CommitError::Stale(_)) => {}
                Err(other) => {
                    self.dirty = true;
                    return Err(other.into());
                }
            }
        }
        self.dirty = true;
        Err(NetError::Contended)
    }

    pub(super) fn change_services(
        &mut self,
        config: &NodeNetConfig,
        changes: Vec<ServiceChange>,
    ) -> Result<(), NetError> {
        let services = self.services.get_or_insert_with(|| Services::new(config.own()));
        let (difference, error) = services.change(changes);
        let mut transaction = Transaction::new(nft::Family::Inet, TABLE);
        if !transaction.change(&difference.old, &difference.new) {
            self.dirty = true;
        }
        if self.live() {
            self.commit_transaction(config, transaction)?;
        }
        self.forget_stale(config, &difference.stale)?;
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Behind the commit: what comes from now on makes entries that are right.
    pub(super) fn forget_stale(&mut self, config: &NodeNetConfig, stale: &[Stale]) -> Result<(), NetError> {
        if stale.is_empty() {
            return Ok(());
        }
        let own = config.own();
        let own = |address: IpAddr| address.is_loopback() || own.contains(&address);
        conntrack::delete_where(&mut self.rules, |entry| stale.iter().any(|stale| stale.is(entry, own)))?;
        Ok(())
    }

    /// The whole table as it should be.
    pub(super) fn wanted(&self, config: &NodeNetConfig) -> Table {
        let mut wanted = table::skeleton(config);
        for local in self.pods.values() {
            for (set, key, data) in table::pod_elements(local.link, local.address, &local.pod.host_ports) {
                if let Some(set) = wanted.sets.get_mut(&set) {
                    set.elements.insert((key, false), data);
                }
            }
        }
        if let Some(services) = &self.services {
            services.add_to(&mut wanted);
        }
        table::add_rule_set(&mut wanted, &self.compiler.rule_set());
        wanted
    }

    /// A link of ours is gone.
    pub(super) fn link_gone(&mut self, link: u32) {
        if let Some(address) = self.leaving.remove(&link) {
            self.pool.release(address);
        } else if let Some(local) = self.pods.values_mut().find(|local| local.link == link) {
            local.gone = true;
        }
    }

    /// Events were lost: looks which links are still there.
    pub(super) fn find_gone(&mut self) -> Result<(), NetlinkError> {
        let there: Vec<u32> = route::links(&mut self.route)?.into_iter().map(|link| link.index).collect();
        let mine = self.leaving.keys().copied().chain(self.pods.values().map(|local| local.link));
        for link in mine.filter(|link| !there.contains(link)).collect::<Vec<_>>() {
            self.link_gone(link);
        }
        Ok(())
    }

    pub(super) fn forget_udp(&mut self, local: &LocalPod) -> Result<(), NetError> {
        forget_udp(&mut self.rules, local)
    }
}

fn put(transaction: &mut Transaction, changes: &[Change], pods: &[Pod<'_>]) {
    for change in changes {
        table::put_change(transaction, change);
    }
    for pod in pods {
        let (Pod::Comes(local) | Pod::Goes(local)) = pod;
        for (set, key, data) in table::pod_elements(local.link, local.address, &local.pod.host_ports) {
            match pod {
                Pod::Comes(_) => transaction.add_elements(&set, [(key.as_slice(), false, &data)]),
                Pod::Goes(_) => transaction.delete_elements(&set, [(key.as_slice(), false)]),
            }
        }
    }
}

/// Deletes the UDP entries of a pod's host ports: their client may keep its port, and would never reach another pod.
fn forget_udp(socket: &mut Socket, local: &LocalPod) -> Result<(), NetError> {
    let ports: Vec<u16> = local
        .pod
        .host_ports
        .iter()
        .filter(|port| port.protocol == Protocol::Udp)
        .map(|port| port.host_port)
        .collect();
    if ports.is_empty() {
        return Ok(());
    }
    conntrack::delete_where(socket, |entry| {
        entry.original.protocol == Protocol::Udp.number() && ports.contains(&entry.original.destination_port)
    })?;
    Ok(())
}

/// The kernel skips 0 when the counter wraps.
fn next(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

pub(super) fn index_of(socket: &mut Socket, name: &str) -> Result<u32, NetError> {
    route::index_of(socket, name)?.ok_or_else(|| NetError::NoLink(name.to_string()))
}

/// Unique on the node as long as the address is in use, and 15 bytes long.
pub(super) fn link_name(uid: &str, address: Ipv4Addr) -> String {
    let hash = uid.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
    format!("{POD_LINK}{:04x}{hash:08x}", address.to_bits() & 0xffff)
}
