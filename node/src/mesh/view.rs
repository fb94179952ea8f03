//! The newest valid record of each node, with the signs of life that it gave.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use stormo_protocol::exchange::{Held, ShortId};
use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::{EXCHANGE_RECORDS_MAX, VIEW_RECORDS_MAX};
use stormo_protocol::state::{NodeRecord, Stamp};

use super::life::{Belief, FORGET_MS, Life, silent_ms};
use super::{Heard, Said};

/// A node and what it said last.
#[derive(Debug, Clone)]
pub struct Known {
    /// What it said.
    pub record: Arc<NodeRecord>,
    /// The same as it was heard, for passing on.
    pub heard: Heard,
    /// When it last gave a sign of life, by this node's clock, milliseconds.
    pub heard_ms: u64,
    life: Life,
}

impl Known {
    /// What is believed of it.
    pub fn belief(&self) -> Belief {
        self.life.belief()
    }

    /// How long it has run, as it says itself, seconds.
    pub(super) fn age_s(&self) -> u64 {
        self.life.beat()
    }

    fn held(&self) -> Held {
        let (node, stamp) = (self.record.node.into(), self.record.stamp);
        // One that never had a heartbeat is told of all the same.
        let beat = match self.belief() {
            Belief::Alive | Belief::Unproven => self.life.beat().max(1),
            Belief::Silent | Belief::Lost => 0,
        };
        Held { node, stamp, beat }
    }

    fn live(&mut self, change: impl FnOnce(&mut Life) -> bool) -> bool {
        let changed = change(&mut self.life);
        self.heard_ms = self.life.shown_ms();
        changed
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is newer than what was known.
    News,
    /// It is known already, or older.
    Old,
    /// It is not to be believed, or there is no room for it.
    Refused,
}

/// What stays of a node that was forgotten: an old record that still travels is no news, and it is looked for.
#[derive(Debug, Clone)]
struct Gone {
    stamp: Stamp,
    /// It gave none above this before it fell silent, as far as can be told.
    beat: u64,
    heard_ms: u64,
    /// Empty if it said that it leaves.
    addresses: Vec<String>,
}

impl Gone {
    /// Whether this can only have been said after it was last heard. A record alone cannot, however new: perhaps it is
    /// one of its last, which did not come here then.
    fn is_outdone_by(&self, stamp: Stamp, beat: u64) -> bool {
        stamp.generation > self.stamp.generation || stamp >= self.stamp && beat > self.beat
    }
}

/// This node's own record and heartbeat, which an exchange speaks of too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) heard: &'a Heard,
    pub(super) stamp: Stamp,
    pub(super) beat: u64,
}

/// What an asker lacks, and what it has that is lacking here.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) heard: Vec<Heard>,
    pub(super) beats: Vec<Held>,
    pub(super) wanted: Vec<ShortId>,
    pub(super) more: bool,
}

/// All nodes that are known, this one excluded.
#[derive(Debug)]
pub struct View {
    own: NodeId,
    nodes: BTreeMap<NodeId, Known>,
    gone: BTreeMap<NodeId, Gone>,
}

impl View {
    /// An empty view of this node.
    pub fn new(own: NodeId) -> Self {
        Self { own, nodes: BTreeMap::new(), gone: BTreeMap::new() }
    }

    /// Takes in a record, with a heartbeat of its node if one was said beside it.
    pub(super) fn apply(&mut self, now_ms: u64, heard: &Heard, beat: Option<u64>) -> Applied {
        let Said::Node(record) = heard.said() else { return Applied::Refused };
        if record.node == self.own {
            return Applied::Old;
        }
        if let Some(known) = self.nodes.get_mut(&record.node) {
            if known.record.stamp >= record.stamp {
                return Applied::Old;
            }
            if known.record.stamp.generation < record.stamp.generation {
                known.life.restarted();
            }
            (known.record, known.heard) = (record.clone(), heard.clone());
            return Applied::News;
        }
        // A record that was forgotten comes back with a heartbeat that is newer than all that it gave before.
        let past = self.gone.get(&record.node);
        if past.is_some_and(|gone| !gone.is_outdone_by(record.stamp, beat.unwrap_or(0))) {
            return Applied::Old;
        }
        if self.nodes.len() >= VIEW_RECORDS_MAX {
            return Applied::Refused;
        }
        let past = self.gone.remove(&record.node);
        let same = past.filter(|gone| gone.stamp.generation == record.stamp.generation);
        let life = Life::new(now_ms, same.map(|gone| gone.beat));
        let (record, heard) = (record.clone(), heard.clone());
        self.nodes.insert(record.node, Known { record, heard, heard_ms: now_ms, life });
        Applied::News
    }

    /// Takes in heartbeats, each of which counts in the generation that it is of.
    pub(super) fn hear(&mut self, now_ms: u64, beats: &[Held]) {
        let mut nodes = self.nodes.values_mut().peekable();
        for held in beats {
            while nodes.next_if(|known| ShortId::from(known.record.node) < held.node).is_some() {}
            if let Some(known) = nodes.peek_mut()
                && ShortId::from(known.record.node) == held.node
                && known.record.stamp.generation == held.stamp.generation
            {
                known.live(|life| life.hear(now_ms, held.beat));
            }
        }
    }

    /// Something came over a connection to a node.
    pub(super) fn show(&mut self, now_ms: u64, node: NodeId) {
        self.live(node, |life| life.show(now_ms));
    }

    /// A connection to a node stands.
    pub(super) fn connected(&mut self, now_ms: u64, node: NodeId) {
        self.live(node, |life| life.connected(now_ms));
        if let Some(gone) = self.gone.get_mut(&node) {
            // It lives, even if its clock stood still with its machine: whatever it says is believed.
            gone.beat = 0;
        }
    }

    /// The last connection to a node broke: plans leave it out until it is there again.
    pub(super) fn lost(&mut self, now_ms: u64, node: NodeId) {
        self.live(node, |life| life.lose(now_ms));
    }

    fn live(&mut self, node: NodeId, change: impl FnOnce(&mut Life)) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.live(|life| {
                change(life);
                true
            });
        }
    }

    /// This node itself stood still for so long, milliseconds.
    pub(super) fn excuse(&mut self, now_ms: u64, lateness_ms: u64) {
        for known in self.nodes.values_mut() {
            known.live(|life| {
                life.excuse(now_ms, lateness_ms);
                true
            });
        }
    }

    /// Time passes: who is silent is left out, who was silent for long is forgotten; tells who.
    pub(super) fn look(&mut self, now_ms: u64) -> Vec<NodeId> {
        let silent_ms = silent_ms(self.nodes.len() + 1);
        let mut gone = Vec::new();
        for (node, known) in &mut self.nodes {
            known.live(|life| life.look(now_ms, silent_ms));
            if now_ms >= known.heard_ms + FORGET_MS {
                gone.push(*node);
            }
        }
        gone.iter().for_each(|node| self.forget(*node));
        gone
    }

    /// Whether a node has been silent for so long that it is about to be left out.
    pub(super) fn is_doubtful(&self, now_ms: u64, node: NodeId) -> bool {
        let silent_ms = silent_ms(self.nodes.len() + 1);
        self.nodes.get(&node).is_some_and(|known| known.life.is_doubtful(now_ms, silent_ms))
    }

    /// Bytes came from a node at this time.
    pub(super) fn carried(&mut self, at_ms: u64, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.live(|life| life.carried(at_ms));
        }
    }

    /// Who has been silent for so long that it is about to be left out.
    pub(super) fn doubtful(&self, now_ms: u64) -> impl Iterator<Item = NodeId> {
        let silent_ms = silent_ms(self.nodes.len() + 1);
        let doubtful = move |known: &&Known| known.life.is_doubtful(now_ms, silent_ms);
        self.nodes.values().filter(doubtful).map(|known| known.record.node)
    }

    fn forget(&mut self, node: NodeId) {
        let Some(known) = self.nodes.remove(&node) else { return };
        if self.gone.len() >= VIEW_RECORDS_MAX
            && let Some(oldest) = self.gone.iter().min_by_key(|(_, gone)| gone.heard_ms)
        {
            let oldest = *oldest.0;
            self.gone.remove(&oldest);
        }
        let record = &known.record;
        let addresses = if record.load.leaving { vec![] } else { record.machine.addresses.clone() };
        let (stamp, beat, heard_ms) = (record.stamp, known.life.last_beat(), known.life.shown_ms());
        let gone = Gone { stamp, beat, heard_ms, addresses };
        self.gone.insert(node, gone);
    }

    /// Whether plans may use a node now.
    pub fn is_usable(&self, now_ms: u64, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|known| !known.record.load.leaving && known.life.is_usable(now_ms))
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> Option<&Known> {
        self.nodes.get(&node)
    }

    /// All nodes but this one, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.nodes.values()
    }

    /// How many are known, this one excluded.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nobody else is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Nodes that went without a word, with their addresses and when they were last heard.
    pub(super) fn missing(&self) -> impl Iterator<Item = (NodeId, &[String], u64)> {
        let away = |known: &&Known| {
            matches!(known.belief(), Belief::Silent | Belief::Lost) && !known.record.load.leaving
        };
        let away = self.nodes.values().filter(away);
        let away = away.map(|known| {
            (known.record.node, known.record.machine.addresses.as_slice(), known.life.shown_ms())
        });
        let gone = self.gone.iter().map(|(node, gone)| (*node, gone.addresses.as_slice(), gone.heard_ms));
        away.chain(gone.filter(|(_, addresses, _)| !addresses.is_empty()))
    }

    /// What an exchange asks with. Who is not believed to live is listed without a heartbeat: its record is held, and
    /// nobody is to ask for it.
    pub(super) fn digest(&self, own: Option<Own<'_>>) -> Vec<Held> {
        self.all(own).map(|(held, ..)| held).collect()
    }

    /// Everybody, this node included, each short id once and in ascending order.
    fn all<'a>(&'a self, own: Option<Own<'a>>) -> impl Iterator<Item = (Held, &'a Heard)> {
        let node = self.own;
        let mut own =
            own.map(|own| (Held { node: node.into(), stamp: own.stamp, beat: own.beat }, own.heard));
        let mut others = self.nodes.values().map(|known| (known.held(), &known.heard)).peekable();
        let mut last = None;
        std::iter::from_fn(move || {
            loop {
                let own_first = match (&own, others.peek()) {
                    (Some((own, _)), Some((other, _))) => own.node <= other.node,
                    (own, _) => own.is_some(),
                };
                let next = if own_first { own.take() } else { others.next() }?;
                if last.replace(next.0.node) != Some(next.0.node) {
                    return Some(next);
                }
            }
        })
    }

    /// Compares with what another holds.
    pub(super) fn compare(&self, own: Option<Own<'_>>, held: &[Held]) -> Difference {
        let mut difference = Difference::default();
        let mut theirs = held.iter().copied().peekable();
        for (ours, heard) in self.all(own) {
            while let Some(their) = theirs.next_if(|their| their.node < ours.node) {
                self.consider_wanting(their, &mut difference);
            }
            match theirs.next_if(|their| their.node == ours.node) {
                None if ours.beat == 0 => {}
                None => difference.tell(ours, heard),
                Some(their) => match their.stamp.cmp(&ours.stamp) {
                    Ordering::Less => difference.tell(ours, heard),
                    Ordering::Greater => difference.want(their.node),
                    Ordering::Equal if their.beat < ours.beat => difference.beats.push(ours),
                    Ordering::Equal => {}
                },
            }
        }
        theirs.for_each(|their| self.consider_wanting(their, &mut difference));
        difference
    }

    /// Another speaks of a node that is not known here, or was forgotten.
    fn consider_wanting(&self, their: Held, difference: &mut Difference) {
        let (from, to) = bounds(their.node);
        let gone = self.gone.range(from..=to).next().map(|(_, gone)| gone);
        if their.beat > 0 && gone.is_none_or(|gone| gone.is_outdone_by(their.stamp, their.beat)) {
            difference.want(their.node);
        }
    }

    /// Records that another one asked for, as far as they are here, with their heartbeats.
    pub(super) fn wanted(&self, own: Option<Own<'_>>, wanted: &[ShortId]) -> Vec<(Heard, Held)> {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        let asked = |held: &Held| wanted.binary_search(&held.node).is_ok();
        self.all(own).filter(|(held, _)| asked(held)).map(|(held, heard)| (heard.clone(), held)).collect()
    }
}

impl Difference {
    fn tell(&mut self, held: Held, heard: &Heard) {
        if self.heard.len() < EXCHANGE_RECORDS_MAX {
            self.heard.push(heard.clone());
            self.beats.push(held);
        } else {
            self.more = true;
        }
    }

    fn want(&mut self, node: ShortId) {
        if self.wanted.len() < EXCHANGE_RECORDS_MAX {
            self.wanted.push(node);
        }
    }
}

/// The first and the last id that begin so.
fn bounds(short: ShortId) -> (NodeId, NodeId) {
    [0, 255]
        .map(|rest| {
            let mut id = [rest; 32];
            id[..8].copy_from_slice(&short.0);
            NodeId(id)
        })
        .into()
}

#[cfg(test)]
mod tests;
