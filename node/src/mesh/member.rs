//! A node's part in the mesh: when it speaks, whom it asks for news, whom it dials, whom it forgets.
//! Events and the time in, actions out; keys, sockets and what is loaded here are the caller's.

use std::collections::BTreeSet;

use stormo_protocol::ids::{DeploymentId, NodeId};
use stormo_protocol::state::{Hosted, HostingGoal, Load, Machine, NodeRecord, Offer, Stamp};

use super::contacts::Contacts;
use super::{Applied, Deployments, Heard, Links, Said, View};

/// A quiet node speaks this often.
const RECORD_MS: u64 = 1_000;
/// A neighbour is asked for news this often.
const SYNC_MS: u64 = 2_000;
/// A neighbour answers within this, or the next one is asked, milliseconds.
pub const SYNC_TIMEOUT_MS: u64 = 5_000;
/// Records in one answer: at most some 2 MiB of the 4 that an answer may have.
const NEWS_MAX: usize = 128;
/// Nodes that are connected to; beyond, gossip goes over others.
const CONNECTIONS_WANTED_MAX: usize = 64;
/// A probe's rate counts as that of a transfer of this length, bytes.
const PROBE_COUNTS_AS_BYTES: u64 = 1_000_000;

/// What happens to a member.
#[derive(Debug, Clone)]
pub enum MemberEvent {
    /// The node begins.
    Started,
    /// A first connection to a node stands.
    Connected(NodeId),
    /// The last connection to a node is gone.
    Disconnected(NodeId),
    /// A dial failed.
    DialFailed {
        /// What was dialled.
        address: String,
        /// Why it failed.
        reason: String,
    },
    /// A round trip was measured.
    RoundTrip {
        /// To whom.
        peer: NodeId,
        /// How long it took.
        micros: f64,
    },
    /// Bytes went to a node.
    Transferred {
        /// To whom.
        peer: NodeId,
        /// How many.
        bytes: u64,
        /// How long it took, the way back of the receipt included.
        micros: f64,
    },
    /// A probe ended; without a rate, it failed.
    Probed {
        /// Of whom.
        peer: NodeId,
        /// Bytes a second.
        bytes_per_second: Option<u64>,
    },
    /// Others spoke, by gossip or in an answer.
    Heard(Vec<Heard>),
    /// What this node would say of itself is worth saying at once.
    Changed,
    /// Time passes.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberAction {
    /// Sign this node's record as it is now, and gossip it.
    Announce,
    /// Ask a neighbour for what is newer than this.
    Ask {
        /// Whom.
        peer: NodeId,
        /// Records held, by node.
        known: Vec<(NodeId, Stamp)>,
        /// Deployments held, and whether as removed.
        deployments: Vec<(DeploymentId, bool)>,
    },
    /// Connect to an address.
    Dial(String),
    /// Measure the rate from a neighbour.
    Probe(NodeId),
    /// Nothing that goes over this node is to be waited for.
    Lost(NodeId),
    /// The deployments or the orders for them are others than before.
    Wished,
    /// The owner should hear that the mesh cannot be joined there yet.
    CannotJoin {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The owner should hear that others know a newer record of this node than it ever said.
    Outdone,
}

/// What a node says of itself that its member does not know.
#[derive(Debug, Clone)]
pub struct About {
    /// What it is.
    pub machine: Machine,
    /// What it does.
    pub load: Load,
    /// What others may have of it.
    pub offer: Offer,
    /// What it has loaded.
    pub hosted: Vec<Hosted>,
    /// What it was ordered to host and does not yet.
    pub goals: Vec<HostingGoal>,
}

/// An answer to a neighbour that asks for news.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// What is newer here.
    pub heard: Vec<Heard>,
    /// Whether there was more.
    pub more: bool,
}

/// This node as a member of its mesh.
#[derive(Debug)]
pub struct Member {
    own: NodeId,
    /// Of the last record.
    stamp: Stamp,
    view: View,
    deployments: Deployments,
    links: Links,
    connected: BTreeSet<NodeId>,
    contacts: Contacts,
    record_due_ms: u64,
    sync_due_ms: u64,
    /// Exchanges begun by the clock.
    turns: u64,
}

impl Member {
    /// A node that has not begun. `generation` counts its starts; `join` are addresses to join at.
    pub fn new(own: NodeId, generation: u64, join: Vec<String>) -> Self {
        Self {
            own,
            stamp: Stamp { generation, sequence: 0 },
            view: View::new(own),
            deployments: Deployments::default(),
            links: Links::default(),
            connected: BTreeSet::new(),
            contacts: Contacts::new(join),
            record_due_ms: RECORD_MS,
            sync_due_ms: SYNC_MS,
            turns: 0,
        }
    }

    /// Others, as far as they are known.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What the mesh is asked to run.
    pub fn deployments(&self) -> &Deployments {
        &self.deployments
    }

    /// The same, to settle which of them count, and the others.
    pub fn settling(&mut self) -> (&mut Deployments, &View) {
        (&mut self.deployments, &self.view)
    }

    /// How far neighbours are.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Neighbours: nodes with a connection.
    pub fn connected(&self) -> &BTreeSet<NodeId> {
        &self.connected
    }

    /// Of this node's last record.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// When a [`MemberEvent::Tick`] has something to do next, milliseconds.
    pub fn due_ms(&self) -> u64 {
        self.record_due_ms.min(self.sync_due_ms)
    }

    /// Takes an event at this time.
    pub fn handle(&mut self, now_ms: u64, event: MemberEvent) -> Vec<MemberAction> {
        match event {
            MemberEvent::Started => self.dials(now_ms),
            MemberEvent::Connected(peer) => self.connected_to(peer),
            MemberEvent::Disconnected(peer) => {
                self.connected.remove(&peer);
                self.view.lost(peer);
                vec![MemberAction::Lost(peer)]
            }
            MemberEvent::DialFailed { address, reason } => {
                let tells = self.contacts.should_tell(&address);
                tells.then_some(MemberAction::CannotJoin { address, reason }).into_iter().collect()
            }
            MemberEvent::RoundTrip { peer, micros } => {
                self.links.round_trip(peer, micros);
                vec![]
            }
            MemberEvent::Transferred { peer, bytes, micros } => {
                self.links.transfer(peer, bytes, micros);
                vec![]
            }
            MemberEvent::Probed { peer, bytes_per_second } => {
                self.probed(peer, bytes_per_second);
                vec![]
            }
            MemberEvent::Heard(heard) => self.heard(now_ms, heard),
            MemberEvent::Changed => vec![self.announce()],
            MemberEvent::Tick => self.tick(now_ms),
        }
    }

    /// What this node says of itself now.
    pub fn record(&self, about: About) -> NodeRecord {
        let About { machine, load, offer, hosted, goals } = about;
        let (node, stamp, links) = (self.own, self.stamp, self.links.estimates());
        NodeRecord { node, stamp, machine, load, offer, hosted, links, goals }
    }

    /// What an asker with this view does not know yet; `own` is this node's record as it is now.
    pub fn news(
        &self,
        own: Option<Heard>,
        known: &[(NodeId, Stamp)],
        deployments: &[(DeploymentId, bool)],
    ) -> News {
        let mut heard = self.deployments.unknown_to(deployments);
        heard.extend(own);
        heard.extend(self.view.newer_than(known));
        let more = heard.len() > NEWS_MAX;
        heard.truncate(NEWS_MAX);
        News { heard, more }
    }

    /// The record that is made next is newer than all before.
    pub fn renew(&mut self) {
        self.stamp.sequence += 1;
    }

    fn announce(&mut self) -> MemberAction {
        self.renew();
        MemberAction::Announce
    }

    fn ask(&self, peer: NodeId) -> MemberAction {
        MemberAction::Ask { peer, known: self.view.digest(), deployments: self.deployments.digest() }
    }

    fn connected_to(&mut self, peer: NodeId) -> Vec<MemberAction> {
        self.connected.insert(peer);
        self.contacts.reached();
        vec![self.announce(), self.ask(peer)]
    }

    fn heard(&mut self, now_ms: u64, heard: Vec<Heard>) -> Vec<MemberAction> {
        let mut actions = Vec::new();
        let mut strangers = false;
        for heard in heard {
            match heard.said() {
                Said::Node(record) if record.node == self.own => {
                    actions.extend(self.heard_of_self(record.stamp));
                }
                Said::Node(record) => {
                    let stranger = !self.connected.contains(&record.node);
                    strangers |= self.view.apply(now_ms, &heard) == Applied::News && stranger;
                }
                Said::Deployment(_) | Said::Order(_) => {
                    if self.deployments.apply(&heard) == Applied::News {
                        actions.push(MemberAction::Wished);
                    }
                }
            }
        }
        // At once: a node that was just heard of may be asked to host in the next moment.
        if strangers {
            actions.extend(self.dials(now_ms));
        }
        actions
    }

    /// What others hold of this node. Something newer than it ever said comes from a copy of its data
    /// folder, or from a folder that was put back from a backup: it must speak louder to be heard.
    fn heard_of_self(&mut self, stamp: Stamp) -> Vec<MemberAction> {
        if stamp <= self.stamp {
            return vec![];
        }
        self.stamp.generation = stamp.generation + 1;
        vec![MemberAction::Outdone, self.announce()]
    }

    fn probed(&mut self, peer: NodeId, bytes_per_second: Option<u64>) {
        if let Some(rate) = bytes_per_second {
            let micros = PROBE_COUNTS_AS_BYTES as f64 * 1e6 / rate.max(1) as f64;
            let round_trip_us = self.links.round_trip_us(peer).unwrap_or(0.0);
            self.links.transfer(peer, PROBE_COUNTS_AS_BYTES, micros + round_trip_us);
        }
    }

    fn tick(&mut self, now_ms: u64) -> Vec<MemberAction> {
        let mut actions = Vec::new();
        if is_due(&mut self.record_due_ms, now_ms, RECORD_MS) {
            actions.push(self.announce());
            actions.extend(self.dials(now_ms));
        }
        if is_due(&mut self.sync_due_ms, now_ms, SYNC_MS) {
            for gone in self.view.forget_silent(now_ms) {
                self.links.forget(gone);
            }
            actions.extend(self.exchange_in_turn());
        }
        actions
    }

    /// One neighbour after the other: asked for news, and probed once.
    fn exchange_in_turn(&mut self) -> Vec<MemberAction> {
        self.turns += 1;
        let turn = self.turns % self.connected.len().max(1) as u64;
        let asked = self.connected.iter().nth(turn as usize).map(|peer| self.ask(*peer));
        // One at a time, so that two measurements do not share this node's uplink.
        let unmeasured = self.connected.iter().find(|peer| !self.links.has_rate(**peer));
        asked.into_iter().chain(unmeasured.map(|peer| MemberAction::Probe(*peer))).collect()
    }

    fn dials(&mut self, now_ms: u64) -> Vec<MemberAction> {
        let Self { view, connected, contacts, .. } = self;
        let mut dials = Vec::new();
        if connected.len() < CONNECTIONS_WANTED_MAX {
            for known in view.iter().filter(|known| !connected.contains(&known.record.node)) {
                let peer = known.record.node;
                let addresses = known.record.machine.addresses.iter();
                let due = addresses.filter(|address| contacts.is_due(now_ms, Some(peer), address));
                dials.extend(due.map(|address| MemberAction::Dial(format!("{address}/p2p/{peer}"))));
            }
        }
        if connected.is_empty() {
            let due = contacts.join().to_vec().into_iter();
            dials
                .extend(due.filter(|address| contacts.is_due(now_ms, None, address)).map(MemberAction::Dial));
        }
        dials
    }
}

/// Whether something periodic is due; if so, the next time is set. A clock that jumped ahead, or a node
/// that was starved, skips what it missed.
fn is_due(due_ms: &mut u64, now_ms: u64, period_ms: u64) -> bool {
    if now_ms < *due_ms {
        return false;
    }
    *due_ms = if now_ms < *due_ms + period_ms { *due_ms + period_ms } else { now_ms + period_ms };
    true
}

#[cfg(test)]
mod tests;
