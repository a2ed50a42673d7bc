//! The network of the node this process runs in. One mutex guards everything: each change is a few netlink messages.
//!
//! Until the survivors of an earlier agent are adopted and the policies are known, the table stays as it is found;
//! then, and whenever someone else changed it, it is read back and the difference written. All other changes are
//! written as differences without reading, each transaction naming the generation it builds on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernel::netlink::{Batch, Family, Group, Socket};
use kernel::nft::{self, Transaction};
use kernel::route::netns::write_sysctl;
use kernel::route::{self, Ip, Ipv4Net, Ipv6Net, Net, Route};
use policy::network_policy::ir;
use policy::network_policy::{Compiler, Event, PodRecord};

use super::family::{Role, set_ipv6};
use super::listener::Listener;
use super::pods::{NetError, Network, NodeNetConfig, PodAddresses, PodNet, YOUNGEST};
use super::pool::Pool;
use super::probe;
use super::services::{ServiceChange, ServiceName, Services, layout};
use super::state::{LocalPod, Pod, State, Survivor, index_of, link_name};
use super::table::{self, POD_LINK, TABLE, UPLINK};

/// The network of a node. Share it in an `Arc`: every method takes `&self` and is synchronous.
pub struct NodeNet {
    shared: Arc<Shared>,
    /// Its thread ends when this is dropped. Links, addresses and rules stay.
    _listener: Listener,
}

pub(super) struct Shared {
    pub(super) config: NodeNetConfig,
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves at worst a difference to the kernel, which the next reconciliation finds.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodeNet {
    /// To be called in the node's network namespace. Writes sysctls and the base table, or takes over what an earlier
    /// agent left without a moment of change; starts the listener's thread.
    ///
    /// Packets of pods pass once both [`NodeNet::adopted`] and [`NodeNet::apply`] were called.
    pub fn start(config: NodeNetConfig) -> Result<NodeNet, NetError> {
        set_ipv6(config.v6.as_ref().map(|_| Role::Router), &[])?;
        let mut route = Socket::open(Family::Route)?;
        let mut rules = Socket::open(Family::Netfilter)?;
        let uplink = index_of(&mut route, UPLINK)?;
        let mut pool = Pool::new(config.v4.pod_cidr);
        let survivors = survivors(&mut route, &mut pool, config.v4.pod_cidr)?;
        if nft::tables(&mut rules, nft::Family::Inet)?.iter().all(|(name, _)| name != TABLE) {
            let mut transaction = Transaction::new(nft::Family::Inet, TABLE);
            transaction.add_table(None);
            transaction.add_all(&table::skeleton(&config));
            transaction.commit(&mut rules)?;
        }
        // Behind the table: it loads conntrack, whose sysctls are not there before; and nothing is forwarded without it.
        set_sysctls()?;
        let generation = nft::generation(&mut rules)?;
        let state = State {
            route,
            rules,
            generation,
            compiler: match config.v6 {
                Some(_) => Compiler::new(&[ir::Family::V4, ir::Family::V6]),
                None => Compiler::new(&[ir::Family::V4]),
            },
            pods: BTreeMap::new(),
            pool,
            leaving: BTreeMap::new(),
            former: HashMap::new(),
            survivors,
            routes: Vec::new(),
            routes6: Vec::new(),
            services: None,
            uplink,
            adopted: false,
            synced: false,
            dirty: false,
        };
        let shared = Arc::new(Shared { config, state: Mutex::new(state) });
        let listener = Listener::start(shared.clone())?;
        Ok(NodeNet { shared, _listener: listener })
    }

    /// On restart: takes over a pod whose sandbox survived. None if it has no link here. What is not adopted when
    /// [`NodeNet::adopted`] is called is removed.
    pub fn adopt(&self, pod: PodNet) -> Result<Option<PodAddresses>, NetError> {
        let mut state = self.shared.lock();
        let Some(survivor) = state.survivors.remove(&pod.uid) else { return Ok(None) };
        let address = addresses(&self.shared.config, survivor.address);
        let changes = state.compiler.upsert_pod(pod.record(address));
        let link = survivor.link;
        state.pods.insert(pod.uid.clone(), LocalPod { pod, address, link, gone: false });
        if state.live() {
            state.commit(&self.shared.config, Some((&changes, &[])))?;
        }
        Ok(Some(address))
    }

    /// All survivors are adopted: removes links and addresses of the others.
    pub fn adopted(&self) -> Result<(), NetError> {
        let mut state = self.shared.lock();
        for survivor in std::mem::take(&mut state.survivors).into_values() {
            let mut batch = Batch::new();
            route::delete_link(&mut batch, &survivor.name);
            kernel::netlink::ignore_missing(state.route.request(&batch))?;
            state.pool.release(survivor.address);
        }
        state.adopted = true;
        if state.synced { state.reconcile(&self.shared.config).map(|_| ()) } else { Ok(()) }
    }

    /// Gives a new pod its network: address allocated → rules committed → link up. The workload's first instruction
    /// comes after this returns. `netns` is the pod's network namespace, `route_socket` a NETLINK_ROUTE socket opened
    /// in it. Undone on error. Before the first [`NodeNet::apply`] the link comes up but no packet passes.
    pub fn prepare(
        &self,
        pod: PodNet,
        netns: &OwnedFd,
        route_socket: OwnedFd,
    ) -> Result<PodAddresses, NetError> {
        let mut inside = Socket::from_fd(route_socket)?;
        let mut state = self.shared.lock();
        let state = &mut *state;
        if state.pods.contains_key(&pod.uid) {
            return Err(NetError::Attached(format!("{}/{}", pod.namespace, pod.name)));
        }
        state.check_host_ports(&pod)?;
        let config = &self.shared.config;
        let v4 = state.pool.allocate().ok_or(NetError::NoAddress(config.v4.pod_cidr))?;
        let address = addresses(config, v4);
        let name = link_name(&pod.uid, v4);
        let uid = pod.uid.clone();
        let attached = state.attach(config, pod, &name, address, netns, &mut inside);
        if let Err(error) = attached {
            // No half-attached pod stays: rules, then the link, then the address.
            let undone = state.undo(config, &uid, &name, address);
            if let Err(second) = undone {
                eprintln!("take back the network of pod {uid}: {second}");
                state.dirty = true;
            }
            return Err(error);
        }
        Ok(address)
    }

    /// The pod's processes are gone: removes its rules and host ports. The link goes with the pod's namespace, which
    /// the caller drops; its address is given out again only after that, last of all. Not an error if unknown.
    pub fn detach(&self, uid: &str) -> Result<(), NetError> {
        let mut state = self.shared.lock();
        let Some(local) = state.pods.remove(uid) else { return Ok(()) };
        let changes = state.remove_from_rules(uid);
        if local.gone {
            state.pool.release(local.address.v4);
        } else {
            state.leaving.insert(local.link, local.address.v4);
        }
        if state.live() {
            state.commit(&self.shared.config, Some((&changes, &[Pod::Goes(&local)])))?;
        }
        state.forget_udp(&local)
    }

    /// What happened to pods, namespaces and policies anywhere in the cluster. Takes effect at once, on established
    /// connections too. Returns the generation of the rule set that holds it.
    ///
    /// Addresses of local pods in the events count for nothing: this module gave them. Nor does the removal of a pod
    /// that is still attached: it is guarded until it is detached.
    pub fn apply(&self, events: Vec<Event>) -> Result<u32, NetError> {
        let mut state = self.shared.lock();
        let state = &mut *state;
        let pods = &state.pods;
        let events = events.into_iter().filter_map(|event| match event {
            Event::UpsertPod(mut record) if record.local => {
                match pods.get(&record.uid) {
                    Some(local) => {
                        record.addresses = local.address.all();
                        record.created = YOUNGEST.to_string();
                    }
                    None => record.addresses.clear(),
                }
                Some(Event::UpsertPod(record))
            }
            Event::RemovePod(uid) if pods.contains_key(&uid) => None,
            other => Some(other),
        });
        let changes = state.compiler.apply(events);
        let config = &self.shared.config;
        if !state.synced {
            state.synced = true;
            if state.adopted {
                state.reconcile(config)?;
            }
        } else if state.live() {
            state.commit(config, Some((&changes, &[])))?;
        }
        Ok(state.generation)
    }

    /// The pod blocks of all nodes; this node's own is passed over. Replaces the earlier list.
    pub fn set_routes(&self, v4: &[Ipv4Net], v6: &[Ipv6Net]) -> Result<(), NetError> {
        let mut state = self.shared.lock();
        let state = &mut *state;
        let config = &self.shared.config;
        let wanted = routes(&config.v4, state.uplink, v4);
        let wanted6 = config.v6.as_ref().map(|v6_net| routes(v6_net, state.uplink, v6)).unwrap_or_default();
        let mut batch = Batch::new();
        put_routes(&mut batch, &state.routes, &wanted);
        put_routes(&mut batch, &state.routes6, &wanted6);
        kernel::netlink::ignore_missing(state.route.request(&batch))?;
        (state.routes, state.routes6) = (wanted, wanted6);
        Ok(())
    }

    /// All Services of the cluster: those that are not among them are gone. See [`NodeNet::change_services`].
    pub fn set_services(&self, mut services: Vec<ServiceChange>) -> Result<(), NetError> {
        let mut state = self.shared.lock();
        let Some(known) = &state.services else {
            // An earlier agent may have written others: the first list goes by what the kernel holds.
            let mut known = Services::new(self.shared.config.own());
            let (difference, error) = known.change(services);
            state.services = Some(known);
            state.reconcile(&self.shared.config)?;
            state.forget_stale(&self.shared.config, &difference.stale)?;
            return error.map_or(Ok(()), |error| Err(error.into()));
        };
        let told: HashSet<&ServiceName> = services.iter().map(|service| &service.name).collect();
        let gone: Vec<ServiceName> = known.names().filter(|name| !told.contains(name)).cloned().collect();
        services.extend(gone.into_iter().map(|name| ServiceChange { name, ports: Vec::new() }));
        state.change_services(&self.shared.config, services)
    }

    /// Some Services changed. New connections go by it at once; established ones stay with their endpoint, but for UDP's
    /// whose endpoint is gone. The cost follows the change.
    pub fn change_services(&self, changes: Vec<ServiceChange>) -> Result<(), NetError> {
        self.shared.lock().change_services(&self.shared.config, changes)
    }

    /// The addresses of a pod prepared or adopted.
    pub fn address(&self, uid: &str) -> Option<PodAddresses> {
        self.shared.lock().pods.get(uid).map(|local| local.address)
    }

    /// A pod anywhere in the cluster as the rule set has it.
    pub fn record(&self, uid: &str) -> Option<PodRecord> {
        self.shared.lock().compiler.pod(uid).cloned()
    }

    /// The nodes, at most `most` of them, that must know the address of this pod, prepared here, before the pod uses it:
    /// they have pods of a policy that means it as a peer, or meant the pod that had the address before. `node_of` is
    /// the node of a pod, by its uid.
    pub fn audience(
        &self,
        uid: &str,
        most: usize,
        node_of: impl Fn(&str) -> Option<String>,
    ) -> BTreeSet<String> {
        let state = self.shared.lock();
        let mut nodes = BTreeSet::new();
        let Some(record) = state.compiler.pod(uid) else { return nodes };
        let former = record.addresses.iter().filter_map(|address| state.former.get(address));
        let interested = former.chain([record]).flat_map(|record| state.compiler.interested_in(record));
        for subject in interested.filter(|subject| !subject.local) {
            nodes.extend(node_of(&subject.uid));
            if nodes.len() >= most {
                break;
            }
        }
        nodes
    }

    /// The generation of the rule set after our last transaction.
    pub fn generation(&self) -> u32 {
        self.shared.lock().generation
    }

    /// What of the table follows from the policies, as it is wanted.
    pub fn rule_set(&self) -> ir::RuleSet {
        self.shared.lock().compiler.rule_set()
    }

    /// From now on one packet is followed through all rule sets of this node, whoever sends it. To be called in the
    /// node's network namespace.
    pub fn watch(&self, asked: probe::Asked) -> Result<probe::Watch, NetError> {
        let mut traces = Socket::open(Family::Netfilter)?;
        traces.join(Group::NftTrace)?;
        let others = [Socket::open(Family::Netfilter)?, Socket::open(Family::Route)?];
        let name = probe::name(&asked);
        let mut state = self.shared.lock();
        state.beside(&self.shared.config, &mut traces, || {
            let mut transaction = Transaction::new(nft::Family::Inet, &name);
            transaction.add_owned_table();
            transaction.add_all(&probe::table(&asked));
            transaction
        })?;
        let [rules, links] = others;
        Ok(probe::Watch::new(asked, name, [traces, rules, links]))
    }

    /// Reads the table back and says what differs from what is wanted, a line each; empty if nothing does.
    pub fn verify(&self) -> Result<Vec<String>, NetError> {
        let mut state = self.shared.lock();
        let mut wanted = state.wanted(&self.shared.config);
        let Some(is) = nft::table(&mut state.rules, nft::Family::Inet, TABLE)? else {
            return Ok(vec![format!("there is no table {TABLE}")]);
        };
        if state.services.is_none() {
            layout::keep(&is, &mut wanted);
        }
        let mut lines = Vec::new();
        if is.flags != wanted.flags {
            lines.push(format!("the table's flags are {}", is.flags));
        }
        for name in is.sets.keys().chain(wanted.sets.keys()) {
            if is.sets.get(name) != wanted.sets.get(name) {
                lines.push(format!("set {name} differs"));
            }
        }
        for name in is.chains.keys().chain(wanted.chains.keys()) {
            if is.chains.get(name) != wanted.chains.get(name) {
                lines.push(format!("chain {name} differs"));
            }
        }
        lines.dedup();
        Ok(lines)
    }
}

/// A pod has the same number in the node's blocks of both families.
fn addresses(config: &NodeNetConfig, v4: Ipv4Addr) -> PodAddresses {
    let number = config.v4.pod_cidr.index_of(v4);
    let v6 = config.v6.as_ref().and_then(|v6| v6.pod_cidr.nth(number?));
    PodAddresses { v4, v6 }
}

/// Every other node is behind the fabric, which knows it by its block.
fn routes<A: Ip>(network: &Network<A>, uplink: u32, blocks: &[Net<A>]) -> Vec<Route<A>> {
    let others = blocks.iter().filter(|block| **block != network.pod_cidr);
    let (via, source) = (Some(network.gateway), Some(network.node_ip));
    others.map(|block| Route { to: *block, link: uplink, via, source }).collect()
}

fn put_routes<A: Ip>(batch: &mut Batch, is: &[Route<A>], wanted: &[Route<A>]) {
    is.iter().filter(|route| !wanted.contains(route)).for_each(|route| route::delete_route(batch, *route));
    wanted.iter().filter(|route| !is.contains(route)).for_each(|route| route::replace_route(batch, *route));
}

fn survivors(
    socket: &mut Socket,
    pool: &mut Pool,
    block: Ipv4Net,
) -> Result<BTreeMap<String, Survivor>, NetError> {
    let routes = route::routes::<Ipv4Addr>(socket)?;
    let mut survivors = BTreeMap::new();
    for link in route::links(socket)?.into_iter().filter(|link| link.name.starts_with(POD_LINK)) {
        let route = routes
            .iter()
            .find(|r| r.link == link.index && r.to.prefix() == 32 && block.contains(r.to.network()));
        let (Some(uid), Some(route)) = (&link.alias, route) else {
            // Cut off between its making and its coming up: no pod has it.
            let mut batch = Batch::new();
            route::delete_link(&mut batch, &link.name);
            kernel::netlink::ignore_missing(socket.request(&batch))?;
            continue;
        };
        let address = route.to.network();
        pool.take(address);
        survivors.insert(uid.clone(), Survivor { name: link.name, link: link.index, address });
    }
    Ok(survivors)
}

fn set_sysctls() -> Result<(), NetError> {
    // After an entry expires, a packet in the middle of a TCP connection must not make a new one: it could be turned
    // round, and the client would be taken for the server.
    write_sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")?;
    for (name, value) in [
        // Every link of the node routes, and answers nobody's ARP but for its own addresses: pods have permanent
        // neighbours, and the node no proxy ARP.
        ("rp_filter", "1"),
        ("send_redirects", "0"),
        ("accept_redirects", "0"),
        ("accept_source_route", "0"),
        ("arp_ignore", "1"),
    ] {
        write_sysctl(&format!("net/ipv4/conf/all/{name}"), value)?;
        write_sysctl(&format!("net/ipv4/conf/default/{name}"), value)?;
    }
    // For pods' links, which come later, and for pods of other nodes: 127.0.0.1 of the node reaches host ports and node
    // ports. The table's chain `raw` drops what comes from elsewhere with a loopback address (CVE-2020-8558).
    write_sysctl("net/ipv4/conf/default/route_localnet", "1")?;
    write_sysctl(&format!("net/ipv4/conf/{UPLINK}/route_localnet"), "1")?;
    write_sysctl("net/ipv4/ip_forward", "1")?;
    Ok(())
}
