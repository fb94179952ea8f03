//! Whom this node is connected to, whom it dials and whom it lets go. In a small mesh everybody, since plans count on
//! measured links; in a large one some near ones and some at random, which keep the mesh in one piece.

use std::collections::{BTreeMap, BTreeSet};

use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::{ADDRESSES_MAX, CONTACTS_MAX};

use super::chance::Chance;
use super::contacts::Contacts;
use super::life::Belief;
use super::{Links, MemberAction, View};

/// A mesh of up to so many nodes is fully connected.
pub(super) const FULL_MESH_NODES_MAX: usize = 32;
/// In a larger one a node dials until it has so many neighbours; as many again dial it, in the mean.
const WANTED: usize = 8;
/// So many of them are drawn; of each further one this many are drawn, and the nearest of them is taken.
const DRAWN: usize = 3;
/// Above this a node of a large mesh lets neighbours go: each costs pings, exchanges and a copy of all that is gossiped,
/// so this is what bounds the busiest node. Few have so many that they dialled or were dialled by (16 in the mean).
const KEPT: usize = 24;
/// Let go of in one look, at most: who is joined at by a thousand is free of them within seconds.
const PARTED_AT_ONCE: usize = 16;
/// A neighbour that came so lately is kept, since it may have no other yet, and so is one that was used lately,
/// milliseconds.
const CAME_MS: u64 = 3_000;
const USED_MS: u64 = 60_000;
/// A connection over which not a byte comes for so long is given up, milliseconds: no second one is opened before,
/// and TCP, which tries again after ever longer pauses, would be still for up to twice as long as the way was cut.
const STALLED_MS: u64 = 6_000;
/// A connection that breaks had worked, and so says that its node is gone, if something was answered over it that was
/// asked within so long, milliseconds; otherwise the node is judged by what is heard of it elsewhere. Pings are answered
/// each second. This is less than [`STALLED_MS`], so who closes because nothing comes is not taken for dead: what it answers was
/// asked before the last byte that came to it. It counts when that was asked, since answers may wait for long behind megabytes, as
/// may the word that it is closed on purpose. Exchanges do not count: late answers would be taken for those to later ones.
const WORKS_MS: u64 = 5_000;
/// A dial is under way for so long, milliseconds.
const DIALLING_MS: u64 = 5_000;
/// How long a connection may take to close, milliseconds.
const PARTING_MS: u64 = 10_000;
/// The whole mesh looks for somebody who is missing so often a second: a few dials, however many nodes there are.
const SEARCHES: usize = 32;
/// Who is missing for so long is looked for less often, milliseconds, by this factor.
const LONG_GONE_MS: u64 = 600_000;
const LONG_GONE_FACTOR: usize = 10;

/// Addresses from before a start that are tried each second, while there is nobody: together with those of `--join`.
const REMEMBERED_AT_ONCE: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Neighbour {
    /// Something came from it, perhaps a part of a message.
    shown_ms: u64,
    /// The last question that it answered was asked then: both directions carried.
    answers_ms: u64,
    came_ms: u64,
    /// Work went to it.
    used_ms: Option<u64>,
}

/// Neighbours and those that are to be.
#[derive(Debug)]
pub(super) struct Neighbours {
    connected: BTreeSet<NodeId>,
    of: BTreeMap<NodeId, Neighbour>,
    dialling: BTreeMap<NodeId, u64>,
    /// Connections that are being closed on purpose, by the time until which that counts.
    parting: BTreeMap<NodeId, u64>,
    contacts: Contacts,
    /// Addresses from before this start.
    remembered: Vec<String>,
}

impl Neighbours {
    pub(super) fn new(contacts: Contacts) -> Self {
        Self {
            connected: BTreeSet::new(),
            of: BTreeMap::new(),
            dialling: BTreeMap::new(),
            parting: BTreeMap::new(),
            contacts,
            remembered: Vec::new(),
        }
    }

    pub(super) fn remember(&mut self, mut addresses: Vec<String>) {
        addresses.truncate(CONTACTS_MAX * ADDRESSES_MAX);
        self.remembered = addresses;
    }

    pub(super) fn connected(&self) -> &BTreeSet<NodeId> {
        &self.connected
    }

    pub(super) fn contacts(&mut self) -> &mut Contacts {
        &mut self.contacts
    }

    pub(super) fn connect(&mut self, now_ms: u64, peer: NodeId) {
        self.connected.insert(peer);
        let (shown_ms, answers_ms, came_ms) = (now_ms, now_ms, now_ms);
        self.of.insert(peer, Neighbour { shown_ms, answers_ms, came_ms, used_ms: None });
        self.dialling.remove(&peer);
        self.parting.remove(&peer);
        self.contacts.reached(peer);
    }

    /// The last connection is gone; tells whether that says something of the node: nobody wished it, and the connection
    /// had worked both ways until then.
    pub(super) fn disconnect(&mut self, now_ms: u64, peer: NodeId) -> bool {
        self.connected.remove(&peer);
        let worked = self.of.remove(&peer).is_some_and(|of| now_ms < of.answers_ms + WORKS_MS);
        self.parting.remove(&peer).is_none() && worked
    }

    /// A connection is about to be closed on purpose.
    pub(super) fn parts(&mut self, now_ms: u64, peer: NodeId) {
        self.parting.insert(peer, now_ms + PARTING_MS);
    }

    /// Something came from a neighbour.
    pub(super) fn show(&mut self, now_ms: u64, peer: NodeId) {
        if let Some(neighbour) = self.of.get_mut(&peer) {
            neighbour.shown_ms = now_ms;
        }
    }

    /// A neighbour answered what it was asked at this time.
    pub(super) fn answers(&mut self, asked_ms: u64, peer: NodeId) {
        if let Some(neighbour) = self.of.get_mut(&peer) {
            neighbour.answers_ms = asked_ms.max(neighbour.answers_ms);
        }
    }

    /// Work went to a neighbour.
    pub(super) fn used(&mut self, now_ms: u64, peer: NodeId) {
        if let Some(neighbour) = self.of.get_mut(&peer) {
            neighbour.used_ms = Some(now_ms);
        }
    }

    /// Bytes came from a neighbour at this time, whether or not they make a whole message.
    pub(super) fn carried(&mut self, at_ms: u64, peer: NodeId) {
        if let Some(neighbour) = self.of.get_mut(&peer) {
            neighbour.shown_ms = at_ms.max(neighbour.shown_ms);
        }
    }

    /// Whose connections are to be closed: nothing came over them, as far as was told.
    pub(super) fn stalled(&self, now_ms: u64) -> impl Iterator<Item = NodeId> {
        let stalled = self.of.iter().filter(move |(_, of)| now_ms >= of.shown_ms + STALLED_MS);
        stalled.map(|(peer, _)| *peer).filter(|peer| !self.parting.contains_key(peer))
    }

    /// This node stood still. Others may have given its connections up for that, so that these worked does not last longer.
    pub(super) fn excuse(&mut self, now_ms: u64, lateness_ms: u64) {
        for neighbour in self.of.values_mut() {
            neighbour.shown_ms = neighbour.shown_ms.saturating_add(lateness_ms).min(now_ms);
        }
    }

    /// Closes what carries nothing, and what is too much.
    pub(super) fn tidy(&mut self, now_ms: u64, nodes: usize, chance: &mut Chance) -> Vec<MemberAction> {
        self.dialling.retain(|_, until_ms| *until_ms > now_ms);
        self.parting.retain(|_, until_ms| *until_ms > now_ms);
        let may_close = |peer: &NodeId| !self.parting.contains_key(peer);
        let stalled: Vec<NodeId> = self.stalled(now_ms).collect();
        let surplus = self.connected.len().saturating_sub(KEPT + self.parting.len());
        let mut actions: Vec<MemberAction> = stalled.iter().copied().map(MemberAction::Close).collect();
        if nodes > FULL_MESH_NODES_MAX && surplus > 0 {
            let settled = |of: &Neighbour| {
                now_ms >= of.came_ms + CAME_MS && of.used_ms.is_none_or(|used_ms| now_ms >= used_ms + USED_MS)
            };
            let idle = self.of.iter().filter(|(peer, of)| settled(of) && may_close(peer));
            let mut idle: Vec<NodeId> =
                idle.map(|(peer, _)| *peer).filter(|peer| !stalled.contains(peer)).collect();
            for _ in 0..surplus.min(PARTED_AT_ONCE).min(idle.len()) {
                actions.push(MemberAction::Part(idle.swap_remove(chance.below(idle.len()))));
            }
        }
        for action in &actions {
            if let MemberAction::Close(peer) | MemberAction::Part(peer) = action {
                self.parting.insert(*peer, now_ms + PARTING_MS);
            }
        }
        actions
    }

    /// Dials who should be a neighbour.
    pub(super) fn dials(
        &mut self,
        now_ms: u64,
        view: &View,
        links: &Links,
        chance: &mut Chance,
    ) -> Vec<MemberAction> {
        let is_small = view.len() < FULL_MESH_NODES_MAX;
        let wanted = WANTED.saturating_sub(self.connected.len() + self.dialling.len());
        let mut dials = Vec::new();
        if is_small || wanted > 0 {
            let mut strangers: Vec<NodeId> = view
                .iter()
                .filter(|known| matches!(known.belief(), Belief::Alive | Belief::Unproven))
                .map(|known| known.record.node)
                .filter(|node| !self.connected.contains(node))
                .filter(|node| is_small || !self.dialling.contains_key(node))
                .collect();
            if is_small {
                strangers.into_iter().for_each(|node| dials.extend(self.dial(now_ms, view, node)));
            } else {
                for _ in 0..wanted.min(strangers.len()) {
                    let place = self.choose(&strangers, view, links, chance);
                    dials.extend(self.dial(now_ms, view, strangers.swap_remove(place)));
                }
            }
        }
        dials
    }

    /// One of them at random, or the nearest of some.
    fn choose(&self, strangers: &[NodeId], view: &View, links: &Links, chance: &mut Chance) -> usize {
        let first = chance.below(strangers.len());
        if self.connected.len() + self.dialling.len() < DRAWN {
            return first;
        }
        let further = (1..DRAWN).map(|_| chance.below(strangers.len()));
        let far = |place: &usize| links.foretold_us(view, strangers[*place]).unwrap_or(f64::MAX);
        std::iter::once(first)
            .chain(further)
            .min_by(|one, other| far(one).total_cmp(&far(other)))
            .unwrap_or(first)
    }

    fn dial(&mut self, now_ms: u64, view: &View, node: NodeId) -> Vec<MemberAction> {
        let Some(known) = view.get(node) else { return vec![] };
        let contacts = &mut self.contacts;
        let addresses = known.record.machine.addresses.iter();
        let due = addresses.filter(|address| contacts.is_due(now_ms, Some(node), address));
        let dials: Vec<MemberAction> = due.map(|address| dial(address, node)).collect();
        if !dials.is_empty() {
            self.dialling.insert(node, now_ms + DIALLING_MS);
        }
        dials
    }

    /// The addresses to join at, unless who is there is known to live. Who has neighbours takes turns with them: others
    /// name the same addresses, and half a mesh that finds the other half again would ask one node for all of it.
    pub(super) fn joins(&mut self, now_ms: u64, view: &View, chance: &mut Chance) -> Vec<MemberAction> {
        if !self.connected.is_empty() && !chance.once_in((view.len() / SEARCHES).max(1)) {
            return vec![];
        }
        let lives = |peer: NodeId| {
            self.connected.contains(&peer)
                || view.get(peer).is_some_and(|known| known.belief() == Belief::Alive)
        };
        let listens_there = |address: &str| {
            let there = |known: &&super::Known| {
                known.record.machine.addresses.iter().any(|listens| address.starts_with(listens.as_str()))
            };
            view.iter().filter(there).any(|known| known.belief() == Belief::Alive)
        };
        let wanted = self.contacts.join().iter().filter(|join| match join.peer {
            Some(peer) => !lives(peer),
            None => !listens_there(&join.address),
        });
        let wanted: Vec<String> = wanted.map(|join| join.address.clone()).collect();
        let remembered: Vec<String> = match self.connected.is_empty() {
            true => (0..REMEMBERED_AT_ONCE)
                .filter_map(|_| self.remembered.get(chance.below(self.remembered.len())).cloned())
                .collect(),
            false => Vec::new(),
        };
        let wanted = wanted.into_iter().chain(remembered);
        let due = wanted.filter(|address| self.contacts.is_due(now_ms, None, address));
        due.map(MemberAction::Dial).collect()
    }

    /// Dials one of those that are missing, for as long as anybody is.
    pub(super) fn search(&mut self, now_ms: u64, view: &View, chance: &mut Chance) -> Vec<MemberAction> {
        let missing: Vec<(NodeId, &[String], u64)> = view
            .missing()
            .filter(|(node, ..)| !self.connected.contains(node) && !self.dialling.contains_key(node))
            .collect();
        let recent = missing.iter().any(|(.., heard_ms)| now_ms < heard_ms + LONG_GONE_MS);
        let rarely = if recent { 1 } else { LONG_GONE_FACTOR };
        let Some((node, addresses, _)) = chance.pick(&missing) else { return vec![] };
        if !chance.once_in(rarely * (view.len() / SEARCHES).max(1)) {
            return vec![];
        }
        addresses.iter().map(|address| dial(address, node)).collect()
    }

    /// A neighbour was lost: perhaps only the connection was.
    pub(super) fn dial_again(&self, view: &View, peer: NodeId) -> Vec<MemberAction> {
        let known = view.get(peer).filter(|known| !known.record.load.leaving);
        let addresses = known.iter().flat_map(|known| known.record.machine.addresses.iter());
        addresses.map(|address| dial(address, peer)).collect()
    }
}

fn dial(address: &str, node: NodeId) -> MemberAction {
    MemberAction::Dial(format!("{address}/p2p/{node}"))
}
