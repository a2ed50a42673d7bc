//! One connection, judged at both ends.

use k8s_openapi::api::core::v1::Pod;

use super::answer::{
    Connection, Judgement, LiveElement, Party, PartyKind, PolicyReport, Reason, RuleAt, Says, SentTo, shown,
    tier_name,
};
use super::miss::{Miss, peer_miss, port_miss, ports_shown};
use super::{World, full_name};
use crate::network_policy::cluster_policy::{ClusterPolicy, TierRule, field_of};
use crate::network_policy::ir::{Action, ChainName, Cidr, Direction, Family, Flow, Layer4, SetName, Tier};
use crate::network_policy::model::{AllowRule, Namespaces, Peer, PodRecord, Policy, Port};
use crate::network_policy::sets::{SetKey, chain_name, tier_chain_name};
use crate::selector::Labels;

/// Who connects to whom, and whom each side's policies take the other for.
pub(super) struct Ends {
    pub client: Party,
    pub server: Party,
    pub port: Layer4,
    /// Where the client's node sends it, if another node translates it.
    pub sent_to: Option<SentTo>,
    /// As whom the server's node sees the client, if not as itself.
    pub seen_as: Option<Party>,
    pub translation: Option<usize>,
}

impl Ends {
    pub fn direct(client: &Party, server: &Party, port: Layer4) -> Ends {
        let (client, server) = (client.clone(), server.clone());
        Ends { client, server, port, sent_to: None, seen_as: None, translation: None }
    }
}

pub(super) fn connection(world: &World, ends: Ends) -> Connection {
    let Ends { client, server, port, sent_to, seen_as, translation } = ends;
    let (to, to_port) = sent_to.as_ref().map_or((&server, port), |sent| (&sent.to, sent.port));
    let from = seen_as.as_ref().unwrap_or(&client);
    let out = Flow { client: client.address, server: to.address, layer4: to_port };
    let egress = judge(world, Direction::Egress, &client, to, &out);
    let within = Flow { client: from.address, server: server.address, layer4: port };
    let ingress = judge(world, Direction::Ingress, &server, from, &within);
    let allowed = egress.allowed && ingress.allowed;
    Connection { allowed, client, server, port, sent_to, seen_as, translation, egress, ingress }
}

fn judge(world: &World, direction: Direction, subject: &Party, peer: &Party, flow: &Flow) -> Judgement {
    let exempt = |reason: Reason, because: String| Judgement {
        direction,
        allowed: true,
        reason,
        because,
        policies: Vec::new(),
        elements: Vec::new(),
        node: None,
    };
    match subject.kind {
        PartyKind::Outside => {
            let because = format!("{} is outside of the cluster: no policy is about it", subject.address);
            return exempt(Reason::Outside, because);
        }
        PartyKind::Node | PartyKind::HostNetworkPod => {
            let what = match (subject.kind, direction) {
                (PartyKind::HostNetworkPod, _) => {
                    "a hostNetwork pod has its node's network, which policies do not guard"
                }
                (_, Direction::Egress) => "no policy is about what a node sends",
                (_, Direction::Ingress) => {
                    "no policy is about what reaches a node: only the sender's egress counts"
                }
            };
            return exempt(Reason::NodeNetwork, what.to_string());
        }
        PartyKind::Pod => {}
    }
    if flow.client == flow.server {
        return exempt(Reason::Itself, "a pod always reaches itself".to_string());
    }
    let pod = world.cluster.pods.iter().find(|pod| subject.name.as_deref() == Some(&full_name(pod)));
    let Some(pod) = pod else {
        return exempt(Reason::Outside, format!("{subject} is no pod any more"));
    };
    let status = pod.status.as_ref();
    let hosts = status.and_then(|s| s.host_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
    let mut hosts = hosts.chain(status.and_then(|s| s.host_ip.as_deref()));
    let its_node =
        hosts.any(|ip| ip.parse() == Ok(peer.address)) || (peer.node.is_some() && peer.node == subject.node);
    if direction == Direction::Ingress && peer.kind != PartyKind::Pod && its_node {
        let because = "the node a pod runs on always reaches it, for probes".to_string();
        return exempt(Reason::FromItsNode, because);
    }
    Asked::new(world, direction, pod, subject, peer, flow).answer()
}

/// What a rule is asked about.
pub(super) struct Asked<'a> {
    pub world: &'a World<'a>,
    pub direction: Direction,
    pub subject: PodRecord,
    pub party: &'a Party,
    pub peer: &'a Party,
    /// The pod that has the peer's address for itself.
    pub peer_pod: Option<PodRecord>,
    pub peer_labels: Option<&'a Labels>,
    pub server_pod: Option<PodRecord>,
    pub flow: &'a Flow,
}

/// How near a rule comes.
enum Hit {
    Matches { peer: Option<usize>, port: Option<usize> },
    Misses(Miss),
}

static NO_LABELS: Labels = Labels::new();

impl<'a> Asked<'a> {
    fn new(
        world: &'a World<'a>,
        direction: Direction,
        pod: &Pod,
        party: &'a Party,
        peer: &'a Party,
        flow: &'a Flow,
    ) -> Asked<'a> {
        let record_of = |party: &Party| {
            let named = |pod: &&Pod| party.name.as_deref() == Some(&full_name(pod));
            let pod = world.cluster.pods.iter().filter(|_| party.kind == PartyKind::Pod).find(named)?;
            Some(PodRecord::from_api(pod, ""))
        };
        let peer_pod = record_of(peer);
        let subject = PodRecord::from_api(pod, "");
        let server_pod = match direction {
            Direction::Egress => peer_pod.clone(),
            Direction::Ingress => Some(subject.clone()),
        };
        let peer_labels = peer_pod.as_ref().and_then(|pod| labels_of(world, &pod.namespace));
        Asked { world, direction, subject, party, peer, peer_pod, peer_labels, server_pod, flow }
    }

    fn answer(&self) -> Judgement {
        let direction = self.direction;
        let namespace = &self.subject.namespace;
        let labels = labels_of(self.world, namespace);
        let mut policies: Vec<(usize, Policy)> = Vec::new();
        for (index, policy) in self.world.cluster.policies.iter().enumerate() {
            if policy.metadata.namespace.as_ref() != Some(namespace) {
                continue;
            }
            let (policy, _) = Policy::from_api(policy);
            if policy.subject.matches(&self.subject.labels) && policy.rules(direction).is_some() {
                policies.push((index, policy));
            }
        }
        policies.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        let tier = |tier: Tier| {
            let all = self.world.cluster.cluster_policies.iter().enumerate();
            let parsed = all.map(|(index, policy)| (index, ClusterPolicy::from_api(policy).0));
            let mut selecting: Vec<(usize, ClusterPolicy)> = parsed
                .filter(|(_, p)| {
                    p.tier == tier
                        && !p.rules(direction).is_empty()
                        && p.selects(labels, &self.subject.labels)
                })
                .collect();
            selecting.sort_by(|(_, a), (_, b)| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
            selecting
        };
        let (admin, baseline) = (tier(Tier::Admin), tier(Tier::Baseline));

        // The chains, as the compiler names them.
        let names =
            |all: &[(usize, ClusterPolicy)]| all.iter().map(|(_, p)| p.name.clone()).collect::<Vec<_>>();
        let own: Vec<String> = policies.iter().map(|(_, policy)| policy.name.clone()).collect();
        let behind = match (own.is_empty(), baseline.is_empty()) {
            (false, _) => Some(chain_name(direction, namespace, &own)),
            (true, false) => Some(tier_chain_name(Tier::Baseline, direction, &names(&baseline), None)),
            (true, true) => None,
        };
        let first = (!admin.is_empty())
            .then(|| tier_chain_name(Tier::Admin, direction, &names(&admin), behind.as_ref()));
        let mut elements = Vec::new();
        if let Some(entry) = first.as_ref().or(behind.as_ref()) {
            let map = match direction {
                Direction::Egress => "egress",
                Direction::Ingress => "ingress",
            };
            let element = self.party.address.to_string();
            elements.push(LiveElement::Verdict { map: map.into(), element, chain: entry.0.clone() });
        }

        let mut reports = Vec::new();
        let mut decided: Option<(Reason, bool)> = None;
        if let Some(chain) = &first {
            decided = self.tier(&admin, Tier::Admin, chain, &mut reports, &mut elements);
            if let (None, Some(behind)) = (&decided, &behind) {
                elements.push(LiveElement::Goto { chain: chain.0.clone(), to: behind.0.clone() });
            }
        }
        if let (false, Some(chain)) = (own.is_empty(), &behind) {
            let asked = decided.is_none();
            let reason = self.network_policies(&policies, chain, asked, &mut reports, &mut elements);
            decided = decided.or(reason);
        } else if let Some(chain) = &behind {
            match &decided {
                Some(_) => reports.extend(baseline.iter().map(|(_, p)| report(p, Says::NotAsked))),
                None => decided = self.tier(&baseline, Tier::Baseline, chain, &mut reports, &mut elements),
            }
        }
        let silent = match (first.is_some(), behind.is_some()) {
            (false, false) => Reason::NoPolicy,
            _ => Reason::NoTierRule,
        };
        let (reason, allowed) = decided.unwrap_or((silent, true));
        let because = self.because(&reason, &reports);
        let node = self.party.node.clone();
        Judgement { direction, allowed, reason, because, policies: reports, elements, node }
    }

    /// The first rule of a tier that matches; None where that passes on, or none does.
    fn tier(
        &self,
        policies: &[(usize, ClusterPolicy)],
        tier: Tier,
        chain: &ChainName,
        reports: &mut Vec<PolicyReport>,
        elements: &mut Vec<LiveElement>,
    ) -> Option<(Reason, bool)> {
        let mut decided: Option<(RuleAt, Action)> = None;
        for (index, policy) in policies {
            if decided.is_some() {
                reports.push(report(policy, Says::NotAsked));
                continue;
            }
            let mut nearest: Option<(String, Miss)> = None;
            for (rule, parsed) in policy.rules(self.direction).iter().enumerate() {
                let at = format!("spec.{}[{rule}]", field_of(self.direction));
                match self.tier_hit(*index, rule, parsed) {
                    Hit::Matches { peer, port } => {
                        let path = |list: &str, i: usize| format!("{at}.{list}[{i}]");
                        let rule_at = RuleAt {
                            policy: policy.name.clone(),
                            tier,
                            action: action_name(parsed.action),
                            rule: at.clone(),
                            name: parsed.name.clone(),
                            peer: peer.map(|i| path(self.peers_field(), i)),
                            port: port.map(|i| path("protocols", i)),
                        };
                        reports.push(report(policy, Says::Matches(rule_at.clone())));
                        if let Some(matches) = &parsed.matches {
                            self.rule_elements(chain, matches, (peer, port), elements);
                        }
                        decided = Some((rule_at, parsed.action));
                        break;
                    }
                    Hit::Misses(miss) => {
                        if nearest.as_ref().is_none_or(|(_, other)| miss.near > other.near) {
                            nearest = Some((at, miss));
                        }
                    }
                }
            }
            if decided.is_none() {
                let says = match nearest {
                    Some((nearest, miss)) => Says::Misses { nearest, why: miss.why },
                    None => Says::NoRules,
                };
                reports.push(report(policy, says));
            }
        }
        match decided {
            Some((at, Action::Allow)) => Some((Reason::Rule(at), true)),
            Some((at, Action::Deny)) => Some((Reason::Rule(at), false)),
            Some((_, Action::Pass)) | None => None,
        }
    }

    fn tier_hit(&self, policy: usize, rule: usize, parsed: &TierRule) -> Hit {
        match &parsed.matches {
            Some(matches) => self.hit(matches, |peer| {
                let policy = self.world.cluster.cluster_policies.get(policy)?;
                let rules = match self.direction {
                    Direction::Ingress => &policy.spec.ingress,
                    Direction::Egress => &policy.spec.egress,
                };
                let networks = rules.get(rule)?.peers(self.direction).get(peer)?.networks.clone()?;
                Some((networks, Vec::new()))
            }),
            None => {
                Hit::Misses(Miss { near: 0, why: "it cannot be understood, so it matches nothing".into() })
            }
        }
    }

    /// All NetworkPolicies that select the pod: any rule of any of them allows.
    fn network_policies(
        &self,
        policies: &[(usize, Policy)],
        chain: &ChainName,
        asked: bool,
        reports: &mut Vec<PolicyReport>,
        elements: &mut Vec<LiveElement>,
    ) -> Option<(Reason, bool)> {
        let mut by: Option<RuleAt> = None;
        for (index, policy) in policies {
            let full = format!("{}/{}", policy.namespace, policy.name);
            let mut says = match asked {
                true => Says::NoRules,
                false => Says::NotAsked,
            };
            let mut near = None;
            let rules = policy.rules(self.direction).unwrap_or_default();
            for (rule, allow) in rules.iter().enumerate().take_while(|_| asked) {
                let at = format!("spec.{}[{rule}]", field_of(self.direction));
                let hit = self.hit(allow, |peer| {
                    let spec = self.world.cluster.policies.get(*index)?.spec.as_ref()?;
                    let peers = match self.direction {
                        Direction::Ingress => spec.ingress.as_ref()?.get(rule)?.from.as_ref()?,
                        Direction::Egress => spec.egress.as_ref()?.get(rule)?.to.as_ref()?,
                    };
                    let block = peers.get(peer)?.ip_block.as_ref()?;
                    Some((vec![block.cidr.clone()], block.except.clone().unwrap_or_default()))
                });
                match hit {
                    Hit::Matches { peer, port } => {
                        let path = |list: &str, i: usize| format!("{at}.{list}[{i}]");
                        let rule_at = RuleAt {
                            policy: full.clone(),
                            tier: Tier::NetworkPolicy,
                            action: "Accept",
                            rule: at.clone(),
                            name: String::new(),
                            peer: peer.map(|i| path(self.peers_field(), i)),
                            port: port.map(|i| path("ports", i)),
                        };
                        if by.is_none() {
                            self.rule_elements(chain, allow, (peer, port), elements);
                            by = Some(rule_at.clone());
                        }
                        says = Says::Matches(rule_at);
                        break;
                    }
                    Hit::Misses(miss) => {
                        if near.is_none_or(|near| miss.near > near) {
                            near = Some(miss.near);
                            says = Says::Misses { nearest: at, why: miss.why };
                        }
                    }
                }
            }
            reports.push(PolicyReport { policy: full, tier: Tier::NetworkPolicy, priority: None, says });
        }
        if !asked {
            return None;
        }
        match by {
            Some(at) => Some((Reason::Rule(at), true)),
            None => {
                elements.push(LiveElement::End { chain: chain.0.clone(), rule: "drop".into() });
                Some((Reason::NoRule, false))
            }
        }
    }

    fn peers_field(&self) -> &'static str {
        match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        }
    }

    /// `blocks` gives what a peer's blocks and exceptions are in its author's words.
    fn hit(&self, rule: &AllowRule, blocks: impl Fn(usize) -> Option<(Vec<String>, Vec<String>)>) -> Hit {
        let peer = match rule.peers.is_empty() {
            true => Ok(None),
            false => match rule.peers.iter().position(|peer| self.peer_matches(peer)) {
                Some(index) => Ok(Some(index)),
                None => Err(()),
            },
        };
        let port = match rule.ports.is_empty() {
            true => Ok(None),
            false => match rule.ports.iter().position(|port| self.port_matches(port)) {
                Some(index) => Ok(Some(index)),
                None => Err(()),
            },
        };
        let peer_why = || {
            let misses = rule.peers.iter().enumerate().map(|(i, peer)| (i, peer_miss(self, peer, blocks(i))));
            let nearest = misses.reduce(|best, next| if next.1.near > best.1.near { next } else { best });
            nearest.map_or_else(
                || Miss { near: 0, why: String::new() },
                |(i, miss)| Miss {
                    near: miss.near,
                    why: format!("{}[{i}]: {}", self.peers_field(), miss.why),
                },
            )
        };
        match (peer, port) {
            (Ok(peer), Ok(port)) => Hit::Matches { peer, port },
            (Ok(_), Err(())) => {
                let why = format!("matches the peer but not the port: {}", port_miss(self, &rule.ports));
                Hit::Misses(Miss { near: 20, why })
            }
            (Err(()), Ok(_)) => {
                let miss = peer_why();
                Hit::Misses(Miss {
                    near: 10 + miss.near,
                    why: format!("matches the port but not the peer: {}", miss.why),
                })
            }
            (Err(()), Err(())) => {
                let miss = peer_why();
                let why = format!(
                    "matches neither the port (it is for {}) nor the peer: {}",
                    ports_shown(&rule.ports),
                    miss.why
                );
                Hit::Misses(Miss { near: miss.near, why })
            }
        }
    }

    fn peer_matches(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Pods { namespaces, pods } => self.peer_pod.as_ref().is_some_and(|pod| {
                let inside = match namespaces {
                    Namespaces::Named(name) => *name == pod.namespace,
                    Namespaces::Matching(selector) => {
                        self.peer_labels.is_some_and(|labels| selector.matches(labels))
                    }
                };
                inside && pods.matches(&pod.labels)
            }),
            Peer::Blocks(blocks) => blocks.iter().any(|block| block.contains(&self.peer.address)),
            Peer::Nodes(selector) => self.world.cluster.nodes.iter().any(|node| {
                let record = crate::network_policy::NodeRecord::from_api(node);
                record.addresses.contains(&self.peer.address) && selector.matches(&record.labels)
            }),
        }
    }

    fn port_matches(&self, port: &Port) -> bool {
        let Layer4::Port(protocol, number) = self.flow.layer4 else { return false };
        let named = |asked: crate::network_policy::ir::Protocol, name: &String| {
            let ports = self.server_pod.as_ref().map(|pod| &pod.named_ports);
            ports.and_then(|ports| ports.get(&(asked, name.clone()))) == Some(&number)
        };
        match port {
            Port::Every(asked) => *asked == protocol,
            Port::Range(asked, range) => *asked == protocol && (range.first..=range.last).contains(&number),
            Port::Named(asked, name) => *asked == protocol && named(*asked, name),
            Port::NamedAny(name) => named(protocol, name),
        }
    }

    /// The elements of the sets that the matching rule looks up.
    fn rule_elements(
        &self,
        chain: &ChainName,
        rule: &AllowRule,
        (peer, port): (Option<usize>, Option<usize>),
        elements: &mut Vec<LiveElement>,
    ) {
        let family = Family::of(&self.peer.address);
        let before = elements.len();
        let mut add = |set: SetName, element: String| {
            elements.push(LiveElement::Element { chain: chain.0.clone(), set: set.0, element });
        };
        match peer.and_then(|index| rule.peers.get(index)) {
            Some(Peer::Pods { namespaces, pods }) => {
                let (namespaces, pods) = (namespaces.clone(), pods.clone());
                add(SetKey::Pods { family, namespaces, pods }.name(), self.peer.address.to_string());
            }
            Some(Peer::Nodes(nodes)) => {
                add(SetKey::Nodes { family, nodes: nodes.clone() }.name(), self.peer.address.to_string());
            }
            Some(Peer::Blocks(blocks)) => {
                let blocks: Vec<Cidr> = blocks.iter().filter(|b| b.family() == family).copied().collect();
                let block = blocks.iter().find(|block| block.contains(&self.peer.address));
                let element = block.map(Cidr::to_string).unwrap_or_default();
                add(SetKey::Cidrs { family, blocks }.name(), element);
            }
            None => {}
        }
        let named = match (port.and_then(|index| rule.ports.get(index)), self.flow.layer4) {
            (Some(Port::Named(protocol, name)), _) => Some((*protocol, name.clone())),
            (Some(Port::NamedAny(name)), Layer4::Port(protocol, _)) => Some((protocol, name.clone())),
            _ => None,
        };
        if let (Some((protocol, name)), Layer4::Port(_, number)) = (named, self.flow.layer4) {
            let set = SetKey::NamedPort { family: Family::of(&self.flow.server), protocol, name };
            add(set.name(), format!("{} . {number}", self.flow.server));
        }
        if elements.len() == before {
            let rule = match self.flow.layer4 {
                _ if port.is_none() => "any peer, any port".to_string(),
                layer4 => format!("any peer, {}", shown(&layer4)),
            };
            elements.push(LiveElement::Rule { chain: chain.0.clone(), rule });
        }
    }

    fn because(&self, reason: &Reason, reports: &[PolicyReport]) -> String {
        let who = &self.party;
        let word = field_of(self.direction);
        match reason {
            Reason::NoPolicy => format!("no policy isolates {} for {word}", short(who)),
            Reason::NoTierRule => {
                "no rule of a ClusterNetworkPolicy matches, and no NetworkPolicy isolates it".into()
            }
            Reason::NoRule => {
                let all: Vec<&str> = reports
                    .iter()
                    .filter(|report| report.tier == Tier::NetworkPolicy)
                    .map(|report| report.policy.as_str())
                    .collect();
                let isolate = if all.len() == 1 { "isolates" } else { "isolate" };
                format!("{} {isolate} it for {word}, and no rule allows this", all.join(", "))
            }
            Reason::Rule(at) => {
                let mut text = match at.tier {
                    Tier::NetworkPolicy => {
                        format!("{} allows it by {}", at.policy, at.peer.as_ref().unwrap_or(&at.rule))
                    }
                    tier => format!(
                        "{} ({} tier) says {} in {}",
                        at.policy,
                        tier_name(tier),
                        at.action,
                        at.peer.as_ref().unwrap_or(&at.rule)
                    ),
                };
                if !at.name.is_empty() {
                    text.push_str(&format!(" {:?}", at.name));
                }
                if let Some(port) = &at.port {
                    let short = port.strip_prefix(&at.rule).unwrap_or(port);
                    text.push_str(&format!(" and {}", short.trim_start_matches('.')));
                }
                text
            }
            Reason::Outside | Reason::NodeNetwork | Reason::Itself | Reason::FromItsNode => String::new(),
        }
    }
}

fn short(party: &Party) -> String {
    party.name.clone().unwrap_or_else(|| party.address.to_string())
}

fn report(policy: &ClusterPolicy, says: Says) -> PolicyReport {
    PolicyReport { policy: policy.name.clone(), tier: policy.tier, priority: Some(policy.priority), says }
}

pub(super) fn action_name(action: Action) -> &'static str {
    match action {
        Action::Allow => "Accept",
        Action::Deny => "Deny",
        Action::Pass => "Pass",
    }
}

/// None for a namespace that is not known: nothing matches it.
fn labels_of<'a>(world: &World<'a>, namespace: &str) -> Option<&'a Labels> {
    let found = world.cluster.namespaces.iter().find(|n| n.metadata.name.as_deref() == Some(namespace))?;
    Some(found.metadata.labels.as_ref().unwrap_or(&NO_LABELS))
}
