//! This node's part in the mesh, carried out as `mesh::Member` decides: its record signed and gossiped,
//! exchanges with neighbours, connections.

use std::time::Duration;

use stormo_protocol::control::{Request, Response};
use stormo_protocol::exchange::{self, Exchange};
use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::ADDRESSES_MAX;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{Load, NodeRecord, Signed, Stamp, Topic};

use super::{Driver, Event};
use crate::files;
use crate::mesh::{About, Heard, MemberAction, MemberEvent, News, SYNC_TIMEOUT_MS, Said};
use crate::net::Net;
use crate::serve::json::{NodeNamed, What};

/// Ticks between two looks at this node's own load, and at what its deployments lack or no longer need: 1 s.
const HOUSEKEEPING_TICKS: u64 = 10;
/// Ticks between two looks at whether contacts are to be written: 5 s.
const CONTACTS_TICKS: u64 = 50;
/// What the log calls the spreading of records, which `cargo mesh bench gossip` follows.
const SPREAD: &str = "stormo::spread";
/// What needs no answer is received within this.
const TELL_MAX: Duration = Duration::from_secs(5);
/// A node that ends waits so long for its neighbours to hear that it goes; who stands still does not keep it.
const GOODBYE_MAX: Duration = Duration::from_millis(300);
/// The same over a connection that carries nothing, though perhaps in one direction only.
const STALLED_TELL_MAX: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn on_member(&mut self, event: MemberEvent) {
        if tracing::enabled!(target: SPREAD, tracing::Level::TRACE) {
            self.trace_spread(&event);
        }
        for action in self.member.handle(self.now_ms(), event) {
            self.act_as_member(action);
        }
    }

    /// Which records this node hears for the first time.
    fn trace_spread(&self, event: &MemberEvent) {
        let (MemberEvent::Heard(heard)
        | MemberEvent::Answered { news: Some(News { heard, .. }), .. }
        | MemberEvent::Told { news: News { heard, .. }, .. }) = event
        else {
            return;
        };
        for heard in heard {
            let Said::Node(record) = heard.said() else { continue };
            let (node, Stamp { generation, sequence }) = (record.node, record.stamp);
            if self.member.view().get(node).is_none_or(|known| known.record.stamp < record.stamp) {
                tracing::trace!(target: SPREAD, %node, generation, sequence, "known");
            }
        }
    }

    fn act_as_member(&mut self, action: MemberAction) {
        match action {
            MemberAction::Sign => self.sign(),
            MemberAction::Gossip => self.gossip(),
            MemberAction::Exchange { peer, exchange } => self.exchange(peer, &exchange),
            MemberAction::Tell { peer, wanted } => {
                let news = to_wire(&self.member.told(self.now_ms(), &wanted));
                self.tell(peer, Request::Tell(news.to_bytes()));
            }
            MemberAction::Dial(address) => self.dial(address),
            MemberAction::Part(peer) => self.part(peer),
            MemberAction::Close(peer) => self.close(peer),
            MemberAction::Reachable { node, addresses } => {
                let net = self.parts.net.clone();
                tokio::spawn(async move { net.reachable(node, &addresses).await });
            }
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
                self.keep_generation();
                tracing::warn!(
                    "the mesh knows a newer start of this node; was its data folder put back from a backup, or does a copy \
                     of it run?"
                );
            }
            MemberAction::NameTaken { model, publisher: node } => {
                let label = self.label_of(node);
                tracing::warn!(
                    model,
                    publisher = label,
                    "this name belongs to another node now, which claimed it last"
                );
                self.watching.tell(|| What::NameTaken { model, publisher: NodeNamed { node, label } });
            }
            MemberAction::Copied => self.is_copied = true,
        }
    }

    /// A later start goes on from there, and is not outdone again.
    fn keep_generation(&mut self) {
        let (path, generation) = (self.parts.starts.clone(), self.member.stamp().generation);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = files::write_whole(&path, generation.to_string().as_bytes()) {
                tracing::warn!(path = %path.display(), %error, "the number of this start is not kept");
            }
        });
    }

    pub(super) fn on_listening(&mut self, address: String) {
        let addresses = &mut self.parts.machine.addresses;
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    /// An address went, as that of a network which a laptop leaves. The last one stays: a record wants one, and it may come
    /// back.
    pub(super) fn on_not_listening(&mut self, address: &str) {
        let addresses = &mut self.parts.machine.addresses;
        if addresses.len() > 1 {
            addresses.retain(|known| known != address);
        }
    }

    pub(super) fn on_connected(&mut self, node: NodeId) {
        tracing::debug!(peer = %node.short(), "connected");
        self.on_member(MemberEvent::Connected(node));
    }

    pub(super) fn on_found(&mut self, peer: NodeId, address: String) {
        self.on_member(MemberEvent::Found { peer, address });
    }

    pub(super) fn on_disconnected(&mut self, node: NodeId) {
        tracing::debug!(peer = %node.short(), "connection lost");
        self.on_member(MemberEvent::Disconnected(node));
    }

    pub(super) fn on_dial_failed(&mut self, address: String, reason: String) {
        tracing::debug!(address, reason, "a dial failed");
        self.on_member(MemberEvent::DialFailed { address, reason });
    }

    /// Each dial finds it again, so it is not told each time.
    pub(super) fn on_foreign(&mut self, node: NodeId, speaks: &str) {
        if let Some(left_out) = self.log.foreign.next(self.now_ms()) {
            tracing::warn!(
                peer = %node.short(), speaks, left_out,
                "a peer speaks another version of the protocol, so neither works with the other; run the same version of \
                 stormo on all nodes"
            );
        }
    }

    /// Takes in records and deployments that came by gossip, or with a question: checked where they came.
    pub(super) fn on_records(&mut self, records: Vec<Signed>) {
        let heard = records.into_iter().filter_map(Heard::read).collect();
        self.on_member(MemberEvent::Heard(heard));
    }

    /// A neighbour tells what it was asked for. Signatures are checked beside the loop.
    pub(super) fn on_told(&self, peer: NodeId, bytes: &[u8]) -> Response {
        let Ok(news) = exchange::News::from_bytes(bytes) else { return Response::Refused(Refusal::BadFrame) };
        let net = self.parts.net.clone();
        self.beside(async move { Event::Told(peer, checked(&net, news)) });
        Response::Done
    }

    pub(super) fn on_parting(&mut self, peer: NodeId) -> Response {
        self.on_member(MemberEvent::Parting(peer));
        Response::Done
    }

    /// Something about this node is other than before.
    pub(super) fn on_changed(&mut self) {
        let about = self.about();
        self.on_member(MemberEvent::Is(about));
    }

    pub(super) fn gossip_tick(&mut self) {
        let keeps_house = self.ticks.is_multiple_of(HOUSEKEEPING_TICKS);
        if keeps_house {
            self.look_at_load();
            self.look_after_owner();
            self.demand.look(self.started.elapsed().as_millis() as u64);
            self.on_changed();
        }
        self.look_at_quiet();
        self.on_member(MemberEvent::Tick);
        if self.ticks.is_multiple_of(CONTACTS_TICKS) {
            self.store_contacts();
            self.look_at_contacts();
        }
        if keeps_house {
            self.look_after_deployments();
        }
    }

    /// Who is about to be given up, since no message came, is not if bytes of one did.
    fn look_at_quiet(&mut self) {
        for peer in self.member.quiet(self.now_ms()) {
            if let Some(still_for) = self.parts.net.still_for(peer) {
                let ago_ms = u64::try_from(still_for.as_millis()).unwrap_or(u64::MAX);
                self.on_member(MemberEvent::Carried { peer, ago_ms });
            }
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

    fn exchange(&self, peer: NodeId, exchange: &Exchange) {
        let net = self.parts.net.clone();
        let request = Request::Exchange(exchange.to_bytes());
        self.beside(async move {
            let news = match net.ask(peer, &request, Duration::from_millis(SYNC_TIMEOUT_MS)).await {
                Ok(Response::News(bytes)) => {
                    exchange::News::from_bytes(&bytes).ok().map(|news| checked(&net, news))
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::debug!(peer = %peer.short(), %error, "no exchange");
                    None
                }
            };
            Event::Answered(peer, news)
        });
    }

    /// Closes the connections to a node once it heard that this is on purpose. Who does not hear it, as behind much that is
    /// under way, would take this node for lost: its connections stay, and it may be told another time.
    fn part(&self, peer: NodeId) {
        let net = self.parts.net.clone();
        tokio::spawn(async move {
            match net.ask(peer, &Request::Parting, TELL_MAX).await {
                Ok(_) => net.close(peer).await,
                Err(error) => tracing::debug!(peer = %peer.short(), %error, "not parted"),
            }
        });
    }

    /// Closes the connections to a node that carry nothing. It is told, if something gets there; otherwise it finds that
    /// they did not carry its questions either.
    fn close(&self, peer: NodeId) {
        let net = self.parts.net.clone();
        tokio::spawn(async move {
            let _ = net.ask(peer, &Request::Parting, STALLED_TELL_MAX).await;
            net.close(peer).await;
        });
    }

    fn tell(&self, peer: NodeId, request: Request) {
        let net = self.parts.net.clone();
        tokio::spawn(async move {
            if let Err(error) = net.ask(peer, &request, TELL_MAX).await {
                tracing::debug!(peer = %peer.short(), %error, "not told");
            }
        });
    }

    /// Tells all neighbours that this node goes, as its newest record says, and waits until they have it: what is
    /// only gossiped may still be here when the process ends.
    pub(super) async fn say_goodbye(&self) {
        let Some(signed) = self.member.own_record().map(|heard| heard.signed().as_ref().clone()) else {
            return;
        };
        self.parts.net.publish(&signed).await;
        let news = exchange::News { records: vec![signed], ..exchange::News::default() };
        let request = Request::Tell(news.to_bytes());
        let told =
            self.member.connected().iter().map(|peer| self.parts.net.ask(*peer, &request, GOODBYE_MAX));
        // Each within that time, all of them at once.
        futures::future::join_all(told).await;
    }

    pub(super) fn news_for(&mut self, from: NodeId, bytes: &[u8]) -> Response {
        let Ok(exchange) = Exchange::from_bytes(bytes) else { return Response::Refused(Refusal::BadFrame) };
        let news = self.member.answer(self.now_ms(), from, &exchange);
        Response::News(to_wire(&news).to_bytes())
    }

    /// Signs this node's record as it is now.
    pub(super) fn sign(&mut self) {
        let Some(record) = self.member.next_record() else { return };
        let signed = self.parts.identity.sign(Topic::Node, self.parts.mesh, record.to_bytes());
        if let Some(heard) = signed.and_then(Heard::read) {
            self.member.signed(self.now_ms(), heard);
        } else if self.log.record.next(self.now_ms()).is_some() {
            // It would be refused by all others as well.
            tracing::error!(
                "this node's own record is not as records are to be, so others do not hear of it"
            );
        }
    }

    /// Gossips the record that was signed last.
    fn gossip(&self) {
        if let Some(heard) = self.member.own_record() {
            let Stamp { generation, sequence } = self.member.stamp();
            tracing::trace!(target: SPREAD, node = %self.own(), generation, sequence, "said");
            let (net, signed) = (self.parts.net.clone(), heard.signed().clone());
            tokio::spawn(async move { net.publish(&signed).await });
        }
    }

    /// What this node says of itself.
    pub(super) fn record(&self) -> NodeRecord {
        self.member.record(self.about())
    }

    fn about(&self) -> About {
        let (cold_us, cold_us_per_mb) = self.hosting.cold_us();
        let load = Load {
            memory_used_bytes: self.hosting.memory_used_bytes(),
            utilisation_permille: self.utilisation_permille,
            cold_us,
            cold_us_per_mb,
            leaving: self.leaving,
        };
        let (hosted, goals) = (self.hosting.hosted(), self.keeping.goals(&self.hosting.held()));
        About {
            machine: self.parts.machine.clone(),
            load,
            offer: self.offer(),
            hosted,
            goals,
            domains: self.parts.domains.clone(),
            demands: self.demand.told(),
        }
    }
}

/// What was told, as far as its authors really signed it.
fn checked(net: &Net, news: exchange::News) -> News {
    let exchange::News { records, beats, wanted, more, coordinate } = news;
    let valid = records.into_iter().filter(|signed| net.is_valid(signed));
    News { heard: valid.filter_map(Heard::read).collect(), beats, wanted, more, coordinate }
}

fn to_wire(news: &News) -> exchange::News {
    exchange::News {
        records: news.heard.iter().map(|heard| heard.signed().as_ref().clone()).collect(),
        beats: news.beats.clone(),
        wanted: news.wanted.clone(),
        more: news.more,
        coordinate: news.coordinate,
    }
}
