//! gossipsub as a model: who is sent what, by the rules of the gossipsub v1.1 and v1.2 specifications
//! (libp2p/specs, pubsub/gossipsub) as libp2p-gossipsub 0.50 follows them with the settings of `net/swarm.rs`:
//! its defaults, records checked before they are passed on, no scores, one topic.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::messages::{MessageId, Messages};
use super::pipes::{HostIndex, PipeIndex};
use super::wire::GossipSizes;
use crate::random::Random;

/// `mesh_n`, `mesh_n_low`, `mesh_n_high`, `mesh_outbound_min`.
const MESH: usize = 6;
const MESH_LOW: usize = 5;
const MESH_HIGH: usize = 12;
const MESH_OUTBOUND_MIN: usize = 2;
/// `gossip_lazy`, `gossip_factor`.
const LAZY_MIN: usize = 6;
const LAZY_FACTOR: f64 = 0.25;
/// `history_length`, `history_gossip`: heartbeats that a message is kept for, and told of.
const HISTORY: usize = 5;
const HISTORY_TOLD: usize = 3;
/// `max_control_messages_sent` in `net/swarm.rs`.
const TOLD_MAX: usize = 500;
/// `heartbeat_initial_delay`, `heartbeat_interval`, microseconds.
pub(super) const HEARTBEAT_FIRST_US: u64 = 5_000_000;
pub(super) const HEARTBEAT_US: u64 = 1_000_000;
/// `prune_backoff`, with its slack of a heartbeat, microseconds.
const BACKOFF_US: u64 = 61_000_000;
/// `iwant_followup_time`, microseconds.
const PROMISE_US: u64 = 3_000_000;
/// `idontwant_message_size_threshold`, bytes of the message as protobuf.
const DONT_WANT_BYTES: u64 = 1_000;
/// `max_ihave_messages_heartbeat`, of one peer.
const HAVES_MAX: u32 = 10;
/// `max_transmit_size` in `net/swarm.rs` and `max_control_message_size`, both 16 KiB: longer ones are refused.
const CONTROL_BYTES_MAX: u64 = 16 << 10;
/// `MAX_SUBSTREAM_ATTEMPTS`: a stream that was refused is opened anew so often, then never again.
pub(super) const STREAMS_MAX: u32 = 5;

/// A message of gossipsub to one peer.
#[derive(Debug, Clone)]
pub(super) enum Rpc {
    Subscribe,
    Graft,
    Prune,
    Publish(MessageId),
    DontWant(MessageId),
    Have(Arc<[MessageId]>),
    Want(Box<[MessageId]>),
}

impl Rpc {
    /// Bytes on the connection.
    pub(super) fn bytes(&self, sizes: GossipSizes, messages: &Messages) -> u64 {
        match self {
            Self::Subscribe => sizes.subscription(),
            Self::Graft => sizes.graft(),
            Self::Prune => sizes.prune(),
            Self::Publish(id) => messages.get(*id).map_or(0, |message| sizes.published(message.data_bytes)),
            Self::DontWant(_) => sizes.want(1),
            Self::Have(ids) => sizes.have(ids.len() as u64),
            Self::Want(ids) => sizes.want(ids.len() as u64),
        }
    }

    /// Whether a receiver refuses it, and with it the stream that it came over.
    pub(super) fn is_too_long(&self, sizes: GossipSizes) -> bool {
        matches!(self, Self::Have(ids) if sizes.have_control(ids.len() as u64) > CONTROL_BYTES_MAX)
    }
}

/// What is to be sent over which connection.
pub(super) type Sends = Vec<(PipeIndex, Rpc)>;

/// The ids up to some thousand before the newest one that are in a set.
#[derive(Debug, Default, Clone)]
struct Recent {
    newest: MessageId,
    bits: Vec<u64>,
}

impl Recent {
    /// More than a mesh of 1,000 nodes says in the 3 s for which gossipsub remembers an IDONTWANT.
    const WINDOW: MessageId = 1 << 12;

    fn place(id: MessageId) -> (usize, u64) {
        let at = id % Self::WINDOW;
        (at as usize / 64, 1 << (at % 64))
    }

    fn insert(&mut self, id: MessageId) {
        if self.bits.is_empty() || id > self.newest.saturating_add(Self::WINDOW) {
            self.bits = vec![0; Self::WINDOW as usize / 64];
            self.newest = id;
        }
        while self.newest < id {
            self.newest += 1;
            let (word, bit) = Self::place(self.newest);
            self.bits[word] &= !bit;
        }
        if self.newest - id < Self::WINDOW {
            let (word, bit) = Self::place(id);
            self.bits[word] |= bit;
        }
    }

    fn contains(&self, id: MessageId) -> bool {
        let (word, bit) = Self::place(id);
        let known = !self.bits.is_empty() && id <= self.newest && self.newest - id < Self::WINDOW;
        known && self.bits[word] & bit != 0
    }
}

/// A connected peer.
#[derive(Debug)]
struct Peer {
    /// The way to it.
    pipe: PipeIndex,
    host: HostIndex,
    /// Whether this host dialled it.
    outbound: bool,
    subscribed: bool,
    haves: u32,
}

/// A peer that every message is passed on to.
#[derive(Debug)]
struct MeshPeer {
    pipe: PipeIndex,
    host: HostIndex,
    dont_send: Recent,
}

/// gossipsub at one host.
#[derive(Debug)]
pub(super) struct Gossip {
    own: HostIndex,
    random: Random,
    peers: Vec<Peer>,
    mesh: Vec<MeshPeer>,
    backoff_us: BTreeMap<HostIndex, u64>,
    history: VecDeque<Vec<MessageId>>,
    promised_us: BTreeMap<MessageId, u64>,
}

impl Gossip {
    pub(super) fn new(own: HostIndex, seed: u64) -> Self {
        Self {
            own,
            random: Random::new(seed),
            peers: Vec::new(),
            mesh: Vec::new(),
            backoff_us: BTreeMap::new(),
            history: VecDeque::from([vec![]]),
            promised_us: BTreeMap::new(),
        }
    }

    /// Peers in its mesh.
    pub(super) fn degree(&self) -> usize {
        self.mesh.len()
    }

    pub(super) fn connected(&mut self, pipe: PipeIndex, host: HostIndex, outbound: bool) -> Sends {
        self.peers.push(Peer { pipe, host, outbound, subscribed: false, haves: 0 });
        vec![(pipe, Rpc::Subscribe)]
    }

    pub(super) fn disconnected(&mut self, pipe: PipeIndex) {
        self.peers.retain(|peer| peer.pipe != pipe);
        self.mesh.retain(|peer| peer.pipe != pipe);
    }

    /// Gossips an own message: to all who listen (`flood_publish`).
    pub(super) fn publish(&mut self, id: MessageId) -> Sends {
        self.history[0].push(id);
        self.peers.iter().filter(|peer| peer.subscribed).map(|peer| (peer.pipe, Rpc::Publish(id))).collect()
    }

    /// A message came over the connection whose way back is `pipe`; tells whether it is new here.
    pub(super) fn received(
        &mut self,
        messages: &mut Messages,
        sizes: GossipSizes,
        pipe: PipeIndex,
        id: MessageId,
        sends: &mut Sends,
    ) -> bool {
        if !messages.see(id, self.own) {
            return false;
        }
        let Some(message) = messages.get(id) else { return false };
        self.promised_us.remove(&id);
        let author = message.author;
        let others = || self.mesh.iter().filter(|peer| peer.pipe != pipe && peer.host != author);
        if sizes.message(message.data_bytes) > DONT_WANT_BYTES {
            sends.extend(others().map(|peer| (peer.pipe, Rpc::DontWant(id))));
        }
        let wanting = others().filter(|peer| !peer.dont_send.contains(id));
        sends.extend(wanting.map(|peer| (peer.pipe, Rpc::Publish(id))));
        self.history[0].push(id);
        true
    }

    /// Anything but a message came over the connection whose way back is `pipe`.
    pub(super) fn told(&mut self, now_us: u64, messages: &Messages, pipe: PipeIndex, rpc: Rpc) -> Sends {
        match rpc {
            Rpc::Subscribe => self.subscribed(now_us, pipe),
            Rpc::Graft => self.grafted(now_us, pipe),
            Rpc::Prune => {
                if let Some(place) = self.mesh.iter().position(|peer| peer.pipe == pipe) {
                    self.mesh.remove(place);
                }
                self.back_off(now_us, pipe);
                vec![]
            }
            Rpc::DontWant(id) => {
                if let Some(peer) = self.mesh.iter_mut().find(|peer| peer.pipe == pipe) {
                    peer.dont_send.insert(id);
                }
                vec![]
            }
            Rpc::Have(ids) => self.offered(now_us, messages, pipe, &ids),
            Rpc::Want(ids) => {
                let kept = |id: &MessageId| self.history.iter().any(|beat| beat.contains(id));
                ids.iter().filter(|id| kept(id)).map(|id| (pipe, Rpc::Publish(*id))).collect()
            }
            Rpc::Publish(_) => vec![],
        }
    }

    fn peer(&self, pipe: PipeIndex) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.pipe == pipe)
    }

    fn is_in_mesh(&self, pipe: PipeIndex) -> bool {
        self.mesh.iter().any(|peer| peer.pipe == pipe)
    }

    fn backs_off(&self, now_us: u64, host: HostIndex) -> bool {
        self.backoff_us.get(&host).is_some_and(|until_us| *until_us > now_us)
    }

    fn back_off(&mut self, now_us: u64, pipe: PipeIndex) {
        if let Some(host) = self.peer(pipe).map(|peer| peer.host) {
            self.backoff_us.insert(host, now_us + BACKOFF_US);
        }
    }

    fn join_mesh(&mut self, pipe: PipeIndex) {
        if let Some(host) = self.peer(pipe).map(|peer| peer.host) {
            self.mesh.push(MeshPeer { pipe, host, dont_send: Recent::default() });
        }
    }

    fn subscribed(&mut self, now_us: u64, pipe: PipeIndex) -> Sends {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.pipe == pipe) else { return vec![] };
        peer.subscribed = true;
        let host = peer.host;
        if self.mesh.len() >= MESH_LOW || self.is_in_mesh(pipe) || self.backs_off(now_us, host) {
            return vec![];
        }
        self.join_mesh(pipe);
        vec![(pipe, Rpc::Graft)]
    }

    fn grafted(&mut self, now_us: u64, pipe: PipeIndex) -> Sends {
        let Some(peer) = self.peer(pipe) else { return vec![] };
        let (host, outbound) = (peer.host, peer.outbound);
        if self.is_in_mesh(pipe) {
            return vec![];
        }
        if self.backs_off(now_us, host) || self.mesh.len() >= MESH_HIGH && !outbound {
            self.back_off(now_us, pipe);
            return vec![(pipe, Rpc::Prune)];
        }
        self.join_mesh(pipe);
        vec![]
    }

    fn offered(&mut self, now_us: u64, messages: &Messages, pipe: PipeIndex, ids: &[MessageId]) -> Sends {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.pipe == pipe) else { return vec![] };
        peer.haves += 1;
        if peer.haves > HAVES_MAX {
            return vec![];
        }
        let is_promised =
            |id: &MessageId| self.promised_us.get(id).is_some_and(|until_us| *until_us > now_us);
        let wanted = ids.iter().filter(|id| !messages.is_seen(**id, self.own) && !is_promised(id));
        let wanted: Box<[MessageId]> = wanted.copied().collect();
        self.promised_us.extend(wanted.iter().map(|id| (*id, now_us + PROMISE_US)));
        if wanted.is_empty() { vec![] } else { vec![(pipe, Rpc::Want(wanted))] }
    }

    /// Each second: the mesh is kept at its degree, and some of those outside it hear what there is.
    pub(super) fn heartbeat(&mut self, now_us: u64) -> Sends {
        let mut sends = Vec::new();
        self.backoff_us.retain(|_, until_us| *until_us > now_us);
        self.promised_us.retain(|_, until_us| *until_us > now_us);
        self.peers.iter_mut().for_each(|peer| peer.haves = 0);
        if self.mesh.len() < MESH_LOW {
            let missing = MESH - self.mesh.len();
            self.graft(now_us, missing, |_| true, &mut sends);
        }
        if self.mesh.len() >= MESH_HIGH {
            self.thin_out(now_us, &mut sends);
        }
        let outbound = self.mesh.iter().filter(|peer| self.is_outbound(peer.pipe)).count();
        if self.mesh.len() >= MESH_LOW && outbound < MESH_OUTBOUND_MIN {
            self.graft(now_us, MESH_OUTBOUND_MIN - outbound, |peer| peer.outbound, &mut sends);
        }
        self.offer(&mut sends);
        self.history.push_front(vec![]);
        self.history.truncate(HISTORY);
        sends
    }

    fn is_outbound(&self, pipe: PipeIndex) -> bool {
        self.peer(pipe).is_some_and(|peer| peer.outbound)
    }

    fn graft(&mut self, now_us: u64, count: usize, fits: impl Fn(&Peer) -> bool, sends: &mut Sends) {
        let may = |peer: &&Peer| {
            peer.subscribed && fits(peer) && !self.is_in_mesh(peer.pipe) && !self.backs_off(now_us, peer.host)
        };
        let mut found: Vec<PipeIndex> = self.peers.iter().filter(may).map(|peer| peer.pipe).collect();
        shuffle(&mut self.random, &mut found);
        for pipe in found.into_iter().take(count) {
            self.join_mesh(pipe);
            sends.push((pipe, Rpc::Graft));
        }
    }

    /// Back to the degree, with enough peers left that this host chose itself.
    fn thin_out(&mut self, now_us: u64, sends: &mut Sends) {
        let mut order: Vec<PipeIndex> = self.mesh.iter().map(|peer| peer.pipe).collect();
        shuffle(&mut self.random, &mut order);
        let mut outbound = order.iter().filter(|pipe| self.is_outbound(**pipe)).count();
        for pipe in order {
            if self.mesh.len() <= MESH {
                break;
            }
            if self.is_outbound(pipe) {
                if outbound <= MESH_OUTBOUND_MIN {
                    continue;
                }
                outbound -= 1;
            }
            self.mesh.retain(|peer| peer.pipe != pipe);
            self.back_off(now_us, pipe);
            sends.push((pipe, Rpc::Prune));
        }
    }

    /// IHAVE to some who are not in the mesh.
    fn offer(&mut self, sends: &mut Sends) {
        let told = self.history.iter().take(HISTORY_TOLD).flatten().copied();
        let ids: Arc<[MessageId]> = told.take(TOLD_MAX).collect();
        let outside = |peer: &&Peer| peer.subscribed && !self.is_in_mesh(peer.pipe);
        let mut outside: Vec<PipeIndex> = self.peers.iter().filter(outside).map(|peer| peer.pipe).collect();
        let count = LAZY_MIN.max((LAZY_FACTOR * outside.len() as f64) as usize).min(outside.len());
        if !ids.is_empty() {
            shuffle(&mut self.random, &mut outside);
            sends.extend(outside.into_iter().take(count).map(|pipe| (pipe, Rpc::Have(ids.clone()))));
        }
    }
}

fn shuffle(random: &mut Random, items: &mut [PipeIndex]) {
    for place in (1..items.len()).rev() {
        items.swap(place, (random.bits() % (place as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_ids_remembers_the_latest_and_forgets_the_oldest() {
        let mut recent = Recent::default();
        assert!(!recent.contains(0));
        for id in (0..20_000).step_by(3) {
            recent.insert(id);
        }
        let newest = 19_998;
        for id in 0..20_000 {
            let known = id % 3 == 0 && newest - Recent::WINDOW < id && id <= newest;
            assert_eq!(recent.contains(id), known, "{id}");
        }
        recent.insert(newest - 1);
        assert!(recent.contains(newest - 1));
        recent.insert(0);
        assert!(!recent.contains(0), "too old to be remembered");
    }
}
