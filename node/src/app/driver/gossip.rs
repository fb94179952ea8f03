//! This node's part in the mesh, carried out as `mesh::Member` decides: its record signed and gossiped,
//! exchanges with neighbours, connections.

use std::time::Duration;

use stormo_protocol::control::{Request, Response};
use stormo_protocol::ids::{DeploymentId, NodeId};
use stormo_protocol::limits::ADDRESSES_MAX;
use stormo_protocol::state::{Load, NodeRecord, Offer, Signed, Stamp, Topic};

use super::{Driver, Event};
use crate::mesh::{About, Heard, MemberAction, MemberEvent, SYNC_TIMEOUT_MS};

/// Ticks between two looks at this node's own load, and at what its deployments lack or no longer need: 1 s.
const HOUSEKEEPING_TICKS: u64 = 10;

impl Driver {
    pub(super) fn on_member(&mut self, event: MemberEvent) {
        for action in self.member.handle(self.now_ms(), event) {
            self.act_as_member(action);
        }
    }

    fn act_as_member(&mut self, action: MemberAction) {
        match action {
            MemberAction::Announce => self.announce(),
            MemberAction::Ask { peer, known, deployments } => {
                self.sync_with(peer, Request::Sync { known, deployments });
            }
            MemberAction::Dial(address) => self.dial(address),
            MemberAction::Probe(peer) => {
                let net = self.parts.net.clone();
                self.beside(async move { Event::Probed(peer, net.probe(peer).await.ok()) });
            }
            MemberAction::Lost(peer) => self.peer_lost(peer),
            MemberAction::Wished => self.look_after_deployments(),
            MemberAction::CannotJoin { address, reason } => tracing::warn!(
                address,
                reason,
                "cannot join there yet; trying on. Is that node running, and is this the key of its mesh?"
            ),
            MemberAction::Outdone => {
                tracing::warn!(
                    "the mesh knows a newer start of this node; does a copy of its data folder run?"
                );
            }
        }
    }

    pub(super) fn on_listening(&mut self, address: String) {
        let addresses = &mut self.parts.machine.addresses;
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    pub(super) fn on_connected(&mut self, node: NodeId) {
        tracing::debug!(peer = %node.short(), "connected");
        self.on_member(MemberEvent::Connected(node));
    }

    pub(super) fn on_disconnected(&mut self, node: NodeId) {
        tracing::debug!(peer = %node.short(), "connection lost");
        self.on_member(MemberEvent::Disconnected(node));
    }

    pub(super) fn on_dial_failed(&mut self, address: String, reason: String) {
        tracing::debug!(address, reason, "a dial failed");
        self.on_member(MemberEvent::DialFailed { address, reason });
    }

    /// Takes in records that came by gossip (checked there) or by an exchange.
    pub(super) fn on_records(&mut self, records: Vec<Signed>) {
        let heard = records.into_iter().filter_map(Heard::read).collect();
        self.on_member(MemberEvent::Heard(heard));
    }

    pub(super) fn gossip_tick(&mut self) {
        let keeps_house = self.ticks.is_multiple_of(HOUSEKEEPING_TICKS);
        if keeps_house {
            self.look_at_load();
        }
        self.on_member(MemberEvent::Tick);
        if keeps_house {
            self.look_after_deployments();
        }
    }

    fn dial(&self, address: String) {
        let net = self.parts.net.clone();
        tokio::spawn(async move {
            if let Err(error) = net.dial(&address).await {
                tracing::debug!(%error, "not dialled");
            }
        });
    }

    fn sync_with(&self, peer: NodeId, request: Request) {
        let net = self.parts.net.clone();
        self.beside(async move {
            let records = match net.ask(peer, &request, Duration::from_millis(SYNC_TIMEOUT_MS)).await {
                Ok(Response::News { records, .. }) => records,
                Ok(_) => Vec::new(),
                Err(error) => {
                    tracing::debug!(peer = %peer.short(), %error, "no exchange");
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
        let own = self.signed_record().and_then(Heard::read);
        let news = self.member.news(own, known, deployments);
        let records = news.heard.iter().map(|heard| heard.signed().as_ref().clone()).collect();
        Response::News { records, more: news.more }
    }

    /// Gossips this node's record as it is now.
    fn announce(&mut self) {
        if let Some(record) = self.signed_record() {
            let net = self.parts.net.clone();
            tokio::spawn(async move { net.publish(&record).await });
        }
    }

    pub(super) fn signed_record(&self) -> Option<Signed> {
        let body = self.record().to_bytes();
        self.parts.identity.sign(Topic::Node, self.parts.mesh, body)
    }

    /// What this node says of itself.
    pub(super) fn record(&self) -> NodeRecord {
        let (cold_us, cold_us_per_mb) = self.hosting.cold_us();
        let load = Load {
            memory_used_bytes: self.hosting.memory_used_bytes(),
            utilisation_permille: self.utilisation_permille,
            cold_us,
            cold_us_per_mb,
            leaving: self.leaving,
        };
        let (hosted, goals) = (self.hosting.hosted(), self.keeping.goals(&self.hosting.held()));
        self.member.record(About {
            machine: self.parts.machine.clone(),
            load,
            offer: Offer::default(),
            hosted,
            goals,
        })
    }
}
