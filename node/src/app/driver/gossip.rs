//! This node's part in the mesh: its own record, exchanges with neighbours, connections to all.

use std::collections::BTreeMap;
use std::time::Duration;

use stormo_protocol::control::{Request, Response};
use stormo_protocol::ids::{DeploymentId, NodeId};
use stormo_protocol::limits::ADDRESSES_MAX;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{Load, NodeRecord, Signed, Stamp, Topic};

use super::{Driver, Event};
use crate::mesh::Applied;

/// Ticks between two records of a quiet node: 1 s.
const RECORD_TICKS: u64 = 10;
/// Ticks between two sync exchanges: 2 s.
const SYNC_TICKS: u64 = 20;
/// A neighbour answers an exchange within this, or the next one is asked.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits between two dials of the same address, first and longest.
const REDIAL_MS: (u64, u64) = (500, 30_000);
/// Records in one answer: at most some 2 MiB of the 4 that an answer may have.
const NEWS_MAX: usize = 128;
/// Addresses whose last dial is remembered; forgetting them only means dialling sooner.
const REMEMBERED_MAX: usize = 4096;
/// Nodes that are connected to; beyond, gossip goes over others.
const CONNECTIONS_WANTED_MAX: usize = 64;

/// Whom to dial, and when again.
pub(super) struct Contacts {
    join: Vec<String>,
    next: BTreeMap<String, (u64, u64)>,
    told: bool,
}

impl Contacts {
    pub(super) fn new(join: Vec<String>) -> Self {
        Self { join, next: BTreeMap::new(), told: false }
    }

    /// Whether an address is due; if so, the next time is set later.
    fn is_due(&mut self, now_ms: u64, address: &str) -> bool {
        let (due_ms, wait_ms) = self.next.get(address).copied().unwrap_or((now_ms, REDIAL_MS.0));
        if now_ms < due_ms {
            return false;
        }
        if self.next.len() >= REMEMBERED_MAX {
            self.next.clear();
        }
        let later = (now_ms + wait_ms, (wait_ms * 2).min(REDIAL_MS.1));
        self.next.insert(address.to_owned(), later);
        true
    }

    /// Only what the owner asked for is worth a warning, and only once.
    pub(super) fn failed(&mut self, address: &str, reason: &str) {
        let asked_for = self.join.iter().any(|join| address.contains(join.as_str()));
        if asked_for && !self.told {
            self.told = true;
            tracing::warn!(
                address,
                reason,
                "cannot join there yet; trying on. Is that node running, and is this the key of its mesh?"
            );
        } else {
            tracing::debug!(address, reason, "a dial failed");
        }
    }
}

impl Driver {
    pub(super) fn on_connected(&mut self, node: NodeId) {
        tracing::debug!(peer = %node.short(), "connected");
        self.connected.insert(node);
        self.contacts.told = false;
        self.announce();
        self.sync_with(node);
    }

    pub(super) fn on_disconnected(&mut self, node: NodeId) {
        tracing::debug!(peer = %node.short(), "connection lost");
        self.connected.remove(&node);
        self.view.lost(node);
        self.peer_lost(node);
    }

    pub(super) fn on_listening(&mut self, address: String) {
        let addresses = &mut self.parts.machine.addresses;
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    /// Takes in records that came by gossip (checked there) or by an exchange.
    pub(super) fn on_records(&mut self, records: Vec<Signed>) {
        let now_ms = self.now_ms();
        let mut strangers = false;
        for signed in records {
            match signed.topic {
                Topic::Node if signed.author == self.own() => self.on_own_record(&signed),
                Topic::Node => {
                    let author = signed.author;
                    let applied = self.view.apply(now_ms, signed);
                    strangers |= applied == Applied::News && !self.connected.contains(&author);
                }
                Topic::Deployment => {
                    if self.deployments.apply(signed) == Applied::News {
                        self.want_manifests();
                        self.drop_unwanted();
                    }
                }
            }
        }
        // At once: a node that was just heard of may be asked to host in the next moment.
        if strangers {
            self.dial_who_is_missing();
        }
    }

    /// What others hold of this node. Something newer than it ever said comes from a copy of its data
    /// folder, or from a folder that was put back from a backup: it must speak louder to be heard.
    fn on_own_record(&mut self, signed: &Signed) {
        let Ok(record) = NodeRecord::from_bytes(&signed.body) else { return };
        let said = Stamp { generation: self.parts.generation, sequence: self.sequence };
        if record.stamp > said {
            tracing::warn!("the mesh knows a newer start of this node; does a copy of its data folder run?");
            self.parts.generation = record.stamp.generation + 1;
            self.announce();
        }
    }

    pub(super) fn on_probed(&mut self, peer: NodeId, rate: Option<u64>) {
        if let Some(bytes_per_second) = rate {
            let micros = 1e12 / bytes_per_second.max(1) as f64;
            self.links.transfer(peer, 1_000_000, micros + self.links.round_trip_us(peer).unwrap_or(0.0));
        }
    }

    pub(super) fn gossip_tick(&mut self) {
        if self.ticks.is_multiple_of(RECORD_TICKS) {
            self.utilisation_permille = self.utilisation.permille();
            self.announce();
            self.dial_who_is_missing();
            self.want_manifests();
            self.drop_unwanted();
        }
        if self.ticks.is_multiple_of(SYNC_TICKS) {
            for gone in self.view.forget_silent(self.now_ms()) {
                self.links.forget(gone);
            }
            self.exchange_in_turn();
        }
    }

    /// One neighbour after the other: asked for news, and probed once.
    fn exchange_in_turn(&mut self) {
        let count = self.connected.len().max(1) as u64;
        let turn = (self.ticks / SYNC_TICKS % count) as usize;
        if let Some(node) = self.connected.iter().nth(turn).copied() {
            self.sync_with(node);
        }
        // One at a time, so that two measurements do not share this node's uplink.
        let unmeasured = self.connected.iter().find(|node| !self.links.has_rate(**node)).copied();
        if let Some(node) = unmeasured {
            let net = self.parts.net.clone();
            self.beside(async move { Event::Probed(node, net.probe(node).await.ok()) });
        }
    }

    fn sync_with(&self, node: NodeId) {
        let request = Request::Sync { known: self.view.digest(), deployments: self.deployments.digest() };
        let net = self.parts.net.clone();
        self.beside(async move {
            let records = match net.ask(node, &request, SYNC_TIMEOUT).await {
                Ok(Response::News { records, .. }) => records,
                Ok(_) => Vec::new(),
                Err(error) => {
                    tracing::debug!(peer = %node.short(), %error, "no exchange");
                    Vec::new()
                }
            };
            Event::Synced(records.into_iter().filter(|signed| net.is_valid(signed)).collect())
        });
    }

    pub(super) fn news_for(
        &self,
        known: &[(NodeId, Stamp)],
        deployments: &[(DeploymentId, bool)],
    ) -> Response {
        let mut records = self.deployments.unknown_to(deployments);
        records.extend(self.signed_at_present());
        records.extend(self.view.newer_than(known));
        let more = records.len() > NEWS_MAX;
        records.truncate(NEWS_MAX);
        Response::News { records, more }
    }

    pub(super) fn own_state(&self) -> Response {
        self.signed_at_present().map_or(Response::Refused(Refusal::Leaving), Response::State)
    }

    /// Gossips this node's record as it is now.
    pub(super) fn announce(&mut self) {
        if let Some(record) = self.signed_record() {
            let net = self.parts.net.clone();
            tokio::spawn(async move { net.publish(&record).await });
        }
    }

    pub(super) fn signed_record(&mut self) -> Option<Signed> {
        self.sequence += 1;
        self.signed_at_present()
    }

    fn signed_at_present(&self) -> Option<Signed> {
        let body = self.record().to_bytes();
        self.parts.identity.sign(Topic::Node, self.parts.mesh, body)
    }

    /// What this node says of itself.
    pub(super) fn record(&self) -> NodeRecord {
        let (cold_us, cold_us_per_mb) = self.hosting.cold_us();
        NodeRecord {
            node: self.own(),
            stamp: Stamp { generation: self.parts.generation, sequence: self.sequence },
            machine: self.parts.machine.clone(),
            load: Load {
                memory_used_bytes: self.hosting.memory_used_bytes(),
                utilisation_permille: self.utilisation_permille,
                cold_us,
                cold_us_per_mb,
                leaving: self.leaving,
            },
            hosted: self.hosting.hosted(),
            links: self.links.estimates(),
        }
    }

    pub(super) fn dial_who_is_missing(&mut self) {
        let now_ms = self.now_ms();
        let mut due: Vec<String> = Vec::new();
        if self.connected.len() < CONNECTIONS_WANTED_MAX {
            for known in self.view.iter().filter(|known| !self.connected.contains(&known.record.node)) {
                let peer = known.record.node;
                let with_peer =
                    known.record.machine.addresses.iter().map(|address| format!("{address}/p2p/{peer}"));
                due.extend(with_peer);
            }
        }
        if self.connected.is_empty() {
            due.extend(self.contacts.join.clone());
        }
        for address in due {
            if self.contacts.is_due(now_ms, &address) {
                let net = self.parts.net.clone();
                tokio::spawn(async move {
                    if let Err(error) = net.dial(&address).await {
                        tracing::debug!(%error, "not dialled");
                    }
                });
            }
        }
    }
}
