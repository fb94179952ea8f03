//! A node's part in the mesh: when it speaks, whom it asks for news, whom it dials, whom it forgets.
//! Events and the time in, actions out; keys, sockets and what is loaded here are the caller's.

mod events;

pub use events::{About, MemberAction, MemberEvent, News};

use std::collections::{BTreeMap, BTreeSet};

use stormo_protocol::exchange::{Exchange, Held, ShortId};
use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::CONTACTS_MAX;
use stormo_protocol::state::{Deployment, NodeRecord, Stamp};

use super::chance::Chance;
use super::contacts::Contacts;
use super::copies::Copies;
use super::life::BEAT_MS;
use super::neighbours::{FULL_MESH_NODES_MAX, Neighbours};
use super::speaking::{Speak, Speaking};
use super::telling::Telling;
use super::view::Own;
use super::{Applied, Belief, Deployments, Heard, Links, Said, View};

/// A neighbour is asked for news this often in a small mesh, where pings show life too, and in a large one.
const EXCHANGE_MS: [u64; 2] = [500, 200];
/// Who asks so many already, as when the whole mesh starts at once, leaves it to the clock to ask further ones.
const ASKED_MAX: usize = 3;
/// And up to so much later, so that members do not fall into step.
const EXCHANGE_STRAY_MS: usize = 100;
/// From so many nodes on the lists of an exchange are what a node sends most of, and who has more neighbours than others is
/// asked more often: it asks less, since an exchange brings both what they lack.
const LONG_LISTS_NODES: usize = 500;
/// Answers between two questions of its own that are anybody's share; for each one more, and at most so many, the next
/// question waits so long, milliseconds.
const ANSWERS_FAIR: usize = 2;
const ANSWERS_MORE_MAX: usize = 4;
const WAITS_FOR_ANSWER_MS: u64 = 100;
/// A neighbour answers within this, milliseconds.
pub const SYNC_TIMEOUT_MS: u64 = 5_000;
/// This often it is looked at who is silent, what there is to say, and whose connections carry nothing.
const LOOK_MS: u64 = 250;
/// A look that is so late is that of a node that was starved: what it was told meanwhile it has yet to hear, and it
/// judges nobody for a moment.
const LATE_MS: u64 = 500;
/// One that is so late is that of a node that stood still: it was told nothing, and what it did not hear in that time
/// does not count.
const VERY_LATE_MS: u64 = 3_000;
/// Who stood still reads within this what came meanwhile, milliseconds.
const CATCHES_UP_MS: u64 = 200;
/// This often somebody is dialled who should be a neighbour, or who is missing.
const DIAL_MS: u64 = 1_000;
/// A neighbour is probed this often, one at a time, so that two measurements do not share this node's uplink.
const PROBE_MS: u64 = 2_000;
/// So many neighbours are probed in a small mesh, which is all of them, and in a large one; rates to further ones come
/// from transfers.
const PROBED_MAX: [usize; 2] = [31, 8];
/// A newcomer calls out its record this long after its first connection: gossip needs a moment to begin.
const CALL_AFTER_MS: u64 = 1_000;
/// A probe's rate counts as that of a transfer of this length, bytes.
const PROBE_COUNTS_AS_BYTES: u64 = 1_000_000;

/// This node as a member of its mesh.
#[derive(Debug)]
pub struct Member {
    own: NodeId,
    /// Of the last record.
    stamp: Stamp,
    /// The last record, as it was signed.
    signed: Option<Heard>,
    copies: Copies,
    speaking: Speaking,
    telling: Telling,
    view: View,
    deployments: Deployments,
    links: Links,
    neighbours: Neighbours,
    chance: Chance,
    /// Whom an exchange was begun with that is not answered yet, and when.
    asked: BTreeMap<NodeId, u64>,
    /// Answers since this node's last question.
    answers: usize,
    /// When the record is to be called out to a mesh that this node has just joined.
    call_ms: Option<u64>,
    /// Of the newest record that was called out.
    called: Stamp,
    /// When this node last did anything.
    ran_ms: u64,
    /// It stood still: since when, and until when what it hears may have come in that time.
    stood: Option<(u64, u64)>,
    look_due_ms: u64,
    exchange_due_ms: u64,
    dial_due_ms: u64,
    probe_due_ms: u64,
}

impl Member {
    /// A node that has not begun. `generation` counts its starts; `join` are addresses to join at; what is drawn, is
    /// drawn from `seed`.
    pub fn new(own: NodeId, generation: u64, join: Vec<String>, seed: u64) -> Self {
        Self {
            own,
            stamp: Stamp { generation, sequence: 0 },
            signed: None,
            copies: Copies::default(),
            speaking: Speaking::default(),
            telling: Telling::default(),
            view: View::new(own),
            deployments: Deployments::default(),
            links: Links::default(),
            neighbours: Neighbours::new(Contacts::new(join)),
            chance: Chance::new(seed),
            asked: BTreeMap::new(),
            answers: 0,
            call_ms: None,
            called: Stamp { generation, sequence: 0 },
            ran_ms: 0,
            stood: None,
            look_due_ms: LOOK_MS,
            exchange_due_ms: EXCHANGE_MS[0],
            dial_due_ms: DIAL_MS,
            probe_due_ms: PROBE_MS,
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

    /// Addresses at which others were reached before this start: it joins there while it has no neighbours.
    pub fn remember(&mut self, addresses: Vec<String>) {
        self.neighbours.remember(addresses);
    }

    /// Addresses that are worth keeping over a restart: of some that live, in the order of their ids.
    pub fn memorable(&self) -> Vec<String> {
        let alive = self.view.iter().filter(|known| known.belief() == Belief::Alive);
        let addresses = alive.take(CONTACTS_MAX).flat_map(|known| {
            let record = &known.record;
            record.machine.addresses.iter().map(|address| format!("{address}/p2p/{}", record.node))
        });
        addresses.collect()
    }

    /// How far neighbours are.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Neighbours: nodes with a connection.
    pub fn connected(&self) -> &BTreeSet<NodeId> {
        self.neighbours.connected()
    }

    /// Of this node's last record.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// When a [`MemberEvent::Tick`] has something to do next, milliseconds.
    pub fn due_ms(&self) -> u64 {
        self.look_due_ms.min(self.exchange_due_ms)
    }

    /// Neighbours from which no message came for so long that they are about to be left out, or their connections to be
    /// closed. Whether bytes came is to be told before each [`MemberEvent::Tick`] ([`MemberEvent::Carried`]).
    pub fn quiet(&self, now_ms: u64) -> BTreeSet<NodeId> {
        let doubtful = self.connected().iter().copied().filter(|peer| self.view.is_doubtful(now_ms, *peer));
        self.neighbours.stalled(now_ms).chain(doubtful).collect()
    }

    /// Takes an event at this time.
    pub fn handle(&mut self, now_ms: u64, event: MemberEvent) -> Vec<MemberAction> {
        self.runs(now_ms);
        match event {
            MemberEvent::Started => {
                self.copies.begin(now_ms);
                self.neighbours.joins(now_ms, &self.view, &mut self.chance)
            }
            MemberEvent::Is(about) => {
                self.speaking.is(about);
                self.speak(now_ms)
            }
            MemberEvent::Connected(peer) => self.connect(now_ms, peer),
            MemberEvent::Found { peer, address } => {
                self.neighbours.contacts().found(peer, &address);
                vec![]
            }
            MemberEvent::Disconnected(peer) => self.disconnect(now_ms, peer),
            MemberEvent::Parting(peer) => {
                self.neighbours.parts(now_ms, peer);
                vec![]
            }
            MemberEvent::DialFailed { address, reason } => {
                let tells = self.neighbours.contacts().should_tell(&address);
                tells.then_some(MemberAction::CannotJoin { address, reason }).into_iter().collect()
            }
            MemberEvent::RoundTrip { peer, micros } => {
                self.show(now_ms, peer);
                self.neighbours.answers(self.came_ms(now_ms).saturating_sub((micros / 1e3) as u64), peer);
                let place = self.view.get(peer).and_then(|known| known.record.coordinate);
                self.links.round_trip(peer, micros, place, &mut self.chance);
                vec![]
            }
            MemberEvent::Carried { peer, ago_ms } => {
                let at_ms = now_ms.saturating_sub(ago_ms);
                self.neighbours.carried(at_ms, peer);
                self.view.carried(self.came_ms(now_ms).min(at_ms), peer);
                vec![]
            }
            MemberEvent::Transferred { peer, bytes, micros } => {
                self.show(now_ms, peer);
                self.neighbours.used(now_ms, peer);
                self.links.transfer(peer, bytes, micros);
                vec![]
            }
            MemberEvent::Probed { peer, bytes_per_second } => {
                self.probed(peer, bytes_per_second);
                vec![]
            }
            MemberEvent::Heard(heard) => self.heard(now_ms, heard, &[]),
            MemberEvent::Answered { peer, news } => self.answered(now_ms, peer, news),
            MemberEvent::Told { peer, news } => {
                self.show(now_ms, peer);
                self.hear(now_ms, news)
            }
            MemberEvent::Tick => self.tick(now_ms),
        }
    }

    /// What this node says of itself now, under the name of its last record.
    pub fn record(&self, about: About) -> NodeRecord {
        let About { machine, load, offer, hosted, goals, domains, demands } = about;
        let (node, stamp, links) = (self.own, self.stamp, self.links.estimates());
        let coordinate = self.links.coordinate();
        NodeRecord { node, stamp, machine, load, offer, hosted, links, coordinate, goals, domains, demands }
    }

    /// A record that is newer than all before, of this node as it said it is; `None` before it said so. What becomes
    /// of it goes to [`Member::signed`].
    pub fn next_record(&mut self) -> Option<NodeRecord> {
        let about = self.speaking.about()?.clone();
        self.stamp.sequence += 1;
        Some(self.record(about))
    }

    /// The next record is signed: exchanges tell it from now on.
    pub fn signed(&mut self, now_ms: u64, heard: Heard) {
        if let Said::Node(record) = heard.said() {
            self.speaking.said(now_ms, record.links.clone(), record.coordinate);
        }
        self.signed = Some(heard);
    }

    /// This node's record as it was signed last.
    pub fn own_record(&self) -> Option<&Heard> {
        self.signed.as_ref()
    }

    /// Answers a neighbour that asks for news.
    pub fn answer(&mut self, now_ms: u64, from: NodeId, exchange: &Exchange) -> News {
        self.runs(now_ms);
        self.answers = self.answers.saturating_add(1);
        self.show(now_ms, from);
        self.links.placed(from, exchange.coordinate);
        self.view.hear(now_ms, &exchange.held);
        let mut difference = self.view.compare(self.own_as_held(now_ms), &exchange.held);
        let told = self.telling.allows(now_ms, difference.heard.len());
        if told < difference.heard.len() {
            // Each asker hears of others.
            let first = self.chance.below(difference.heard.len());
            difference.heard.rotate_left(first);
            difference.heard.truncate(told);
            difference.more = false;
        }
        let mut heard = self.deployments.unknown_to(&exchange.deployments);
        heard.extend(difference.heard);
        News {
            heard,
            beats: difference.beats,
            wanted: difference.wanted,
            more: difference.more,
            coordinate: self.links.coordinate(),
        }
    }

    /// What a neighbour asked for.
    pub fn told(&mut self, now_ms: u64, wanted: &[ShortId]) -> News {
        let wanted = &wanted[..self.telling.allows(now_ms, wanted.len())];
        let (heard, beats) = self.view.wanted(self.own_as_held(now_ms), wanted).into_iter().unzip();
        News { heard, beats, ..News::default() }
    }

    fn own_as_held(&self, now_ms: u64) -> Option<Own<'_>> {
        let heard = self.signed.as_ref()?;
        let Said::Node(record) = heard.said() else { return None };
        Some(Own { heard, stamp: record.stamp, beat: 1 + now_ms / BEAT_MS })
    }

    fn runs(&mut self, now_ms: u64) {
        if now_ms > self.ran_ms + LATE_MS {
            self.stood = Some((self.ran_ms, now_ms + CATCHES_UP_MS));
        }
        self.stood = self.stood.filter(|(_, until_ms)| now_ms < *until_ms);
        self.ran_ms = now_ms;
    }

    /// Something came from a neighbour.
    fn show(&mut self, now_ms: u64, peer: NodeId) {
        self.neighbours.show(now_ms, peer);
        self.view.show(self.came_ms(now_ms), peer);
    }

    /// Since when what comes now may be here. What waited while this node stood still proves only that the other one
    /// lived when that began: it may have died meanwhile.
    fn came_ms(&self, now_ms: u64) -> u64 {
        self.stood.map_or(now_ms, |(since_ms, _)| since_ms)
    }

    fn ask(&mut self, now_ms: u64, peer: NodeId) -> MemberAction {
        self.asked.insert(peer, now_ms);
        let held = self.view.digest(self.own_as_held(now_ms));
        let (deployments, coordinate) = (self.deployments.digest(), self.links.coordinate());
        MemberAction::Exchange { peer, exchange: Exchange { held, deployments, coordinate } }
    }

    fn connect(&mut self, now_ms: u64, peer: NodeId) -> Vec<MemberAction> {
        let was_alone = self.connected().is_empty();
        let was_alive = self.view.get(peer).is_some_and(|known| known.belief() == Belief::Alive);
        self.neighbours.connect(now_ms, peer);
        self.view.connected(now_ms, peer);
        if was_alone && self.call_ms.is_none() {
            self.call_ms = Some(now_ms + CALL_AFTER_MS);
        }
        // Who is known to live is exchanged with in its turn; who was away may come from another part of the mesh.
        let asks = was_alone || !was_alive && self.asked.len() < ASKED_MAX;
        if asks { vec![self.ask(now_ms, peer)] } else { vec![] }
    }

    fn disconnect(&mut self, now_ms: u64, peer: NodeId) -> Vec<MemberAction> {
        self.asked.remove(&peer);
        let mut actions = vec![MemberAction::Lost(peer)];
        if self.neighbours.disconnect(now_ms, peer) {
            self.view.lost(now_ms, peer);
            actions.extend(self.neighbours.dial_again(&self.view, peer));
        }
        actions
    }

    fn answered(&mut self, now_ms: u64, peer: NodeId, news: Option<News>) -> Vec<MemberAction> {
        self.asked.remove(&peer);
        let Some(mut news) = news else { return vec![] };
        self.show(now_ms, peer);
        self.links.placed(peer, news.coordinate);
        let (wanted, more) = (std::mem::take(&mut news.wanted), news.more);
        let mut actions = self.hear(now_ms, news);
        if !wanted.is_empty() {
            actions.push(MemberAction::Tell { peer, wanted });
        }
        if more && self.connected().contains(&peer) {
            actions.push(self.ask(now_ms, peer));
        }
        actions
    }

    fn hear(&mut self, now_ms: u64, news: News) -> Vec<MemberAction> {
        let actions = self.heard(now_ms, news.heard, &news.beats);
        self.view.hear(now_ms, &news.beats);
        actions
    }

    fn heard(&mut self, now_ms: u64, heard: Vec<Heard>, beats: &[Held]) -> Vec<MemberAction> {
        let mut actions = Vec::new();
        let mut strangers = false;
        for heard in heard {
            match heard.said() {
                Said::Node(record) if record.node == self.own => {
                    actions.extend(self.heard_of_self(now_ms, record.stamp));
                }
                Said::Node(record) => {
                    let node = record.node;
                    let short = ShortId::from(node);
                    let said = beats.binary_search_by_key(&short, |held| held.node).ok().map(|at| beats[at]);
                    let beat = said.filter(|held| held.stamp.generation == record.stamp.generation);
                    let before = self.view.get(node).map(|known| known.record.clone());
                    if self.view.apply(now_ms, &heard, beat.map(|held| held.beat)) != Applied::News {
                        continue;
                    }
                    let addresses = &record.machine.addresses;
                    let is_new = |before: &NodeRecord| before.stamp.generation < record.stamp.generation;
                    let begins = before.as_deref().is_none_or(is_new);
                    if before.is_none_or(|before| before.machine.addresses != *addresses) {
                        actions.push(MemberAction::Reachable { node, addresses: addresses.clone() });
                    }
                    if !self.connected().contains(&node) {
                        strangers = true;
                    } else if begins {
                        // Others may be late in passing on what it said: a later record of a known one shows nothing.
                        self.view.connected(now_ms, node);
                    }
                }
                Said::Deployment(wish) => {
                    let published = self.deployments.by_name(&wish.name).map(|known| known.publisher);
                    if self.deployments.apply(&heard) == Applied::News {
                        actions.push(MemberAction::Wished);
                        let Deployment { name, publisher, .. } = &**wish;
                        if published == Some(self.own) && *publisher != self.own {
                            let model = name.clone();
                            actions.push(MemberAction::NameTaken { model, publisher: *publisher });
                        }
                    }
                }
                Said::Order(_) => {
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
    fn heard_of_self(&mut self, now_ms: u64, stamp: Stamp) -> Vec<MemberAction> {
        if stamp <= self.stamp {
            return vec![];
        }
        if self.copies.outdone(now_ms) {
            return vec![MemberAction::Copied];
        }
        self.stamp.generation = stamp.generation + 1;
        let mut actions = vec![MemberAction::Outdone];
        actions.extend(self.call_out());
        actions
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
        let lateness_ms = now_ms.saturating_sub(self.look_due_ms);
        if lateness_ms > VERY_LATE_MS {
            self.view.excuse(now_ms, lateness_ms);
            self.neighbours.excuse(now_ms, lateness_ms);
        }
        if lateness_ms > LATE_MS {
            self.look_due_ms = now_ms + LATE_MS;
        }
        let is_large = self.view.len() >= FULL_MESH_NODES_MAX;
        if is_due(&mut self.look_due_ms, now_ms, LOOK_MS) {
            for gone in self.view.look(now_ms) {
                self.links.forget(gone);
                actions.push(MemberAction::Reachable { node: gone, addresses: vec![] });
            }
            actions.extend(self.neighbours.tidy(now_ms, self.view.len() + 1, &mut self.chance));
            actions.extend(self.speak(now_ms));
            if !is_large {
                actions.extend(self.ask_for_doubtful(now_ms));
            }
        }
        if is_due(&mut self.exchange_due_ms, now_ms, EXCHANGE_MS[usize::from(is_large)]) {
            self.exchange_due_ms += self.chance.below(EXCHANGE_STRAY_MS) as u64 + self.waits_for_answers_ms();
            actions.extend(self.exchange_with_any(now_ms));
        }
        if is_due(&mut self.dial_due_ms, now_ms, DIAL_MS) {
            actions.extend(self.dials(now_ms));
            actions.extend(self.neighbours.joins(now_ms, &self.view, &mut self.chance));
            actions.extend(self.neighbours.search(now_ms, &self.view, &mut self.chance));
        }
        if is_due(&mut self.probe_due_ms, now_ms, PROBE_MS) {
            actions.extend(self.probes());
        }
        actions
    }

    fn speak(&mut self, now_ms: u64) -> Vec<MemberAction> {
        let nodes = self.view.len() as u64 + 1;
        let speak = self.speaking.next(now_ms, nodes, &self.links.estimates(), self.links.coordinate());
        let joins = self.call_ms.is_some_and(|call_ms| now_ms >= call_ms);
        if joins {
            // Never again: further connections are those of a member.
            self.call_ms = Some(u64::MAX);
        }
        match speak {
            Speak::Nothing if !joins => vec![],
            Speak::Note if !joins => vec![MemberAction::Sign],
            // What was called out already has perhaps reached nobody, and gossip takes nothing twice.
            Speak::Nothing if self.called != self.stamp => {
                self.called = self.stamp;
                vec![MemberAction::Gossip]
            }
            Speak::Nothing | Speak::Note | Speak::Call => self.call_out(),
        }
    }

    /// A new record, for all to hear.
    fn call_out(&mut self) -> Vec<MemberAction> {
        self.called = Stamp { sequence: self.stamp.sequence + 1, ..self.stamp };
        vec![MemberAction::Sign, MemberAction::Gossip]
    }

    /// Before a node is left out for its silence it is asked itself, and then others are asked for it, one at each look
    /// (as SWIM does): its connection may only be slow, since packets were lost. In a large mesh an exchange is
    /// long, and so many are under way that these would add little.
    fn ask_for_doubtful(&mut self, now_ms: u64) -> Option<MemberAction> {
        let doubtful: Vec<NodeId> = self.view.doubtful(now_ms).collect();
        let unasked = |node: &&NodeId| self.connected().contains(node) && !self.asked.contains_key(node);
        match doubtful.iter().find(unasked) {
            Some(node) => Some(self.ask(now_ms, *node)),
            None if doubtful.is_empty() => None,
            None => self.exchange_with_any(now_ms),
        }
    }

    /// How much later the next question is, by how many were answered since the last one.
    fn waits_for_answers_ms(&mut self) -> u64 {
        let more = std::mem::take(&mut self.answers).saturating_sub(ANSWERS_FAIR).min(ANSWERS_MORE_MAX);
        if self.view.len() < LONG_LISTS_NODES { 0 } else { more as u64 * WAITS_FOR_ANSWER_MS }
    }

    fn exchange_with_any(&mut self, now_ms: u64) -> Option<MemberAction> {
        self.asked.retain(|_, since_ms| now_ms < *since_ms + SYNC_TIMEOUT_MS);
        let free = self.connected().iter().filter(|peer| !self.asked.contains_key(peer));
        let free: Vec<NodeId> = free.copied().collect();
        let peer = self.chance.pick(&free)?;
        Some(self.ask(now_ms, peer))
    }

    fn probes(&mut self) -> Option<MemberAction> {
        // What the other end measured serves for both, and for a node that was started anew.
        let is_told = |peer: NodeId| {
            let links = self.view.get(peer).map(|known| known.record.links.as_slice()).unwrap_or_default();
            links.iter().any(|link| link.peer == self.own && link.bytes_per_second > 0)
        };
        let unmeasured = |peer: &&NodeId| !self.links.has_rate(**peer) && !is_told(**peer);
        let unmeasured: Vec<NodeId> = self.connected().iter().filter(unmeasured).copied().collect();
        // Any of them, so that not all nodes turn to the same one.
        let peer = self.chance.pick(&unmeasured)?;
        let is_large = self.view.len() >= FULL_MESH_NODES_MAX;
        (self.links.rates() < PROBED_MAX[usize::from(is_large)]).then_some(MemberAction::Probe(peer))
    }

    fn dials(&mut self, now_ms: u64) -> Vec<MemberAction> {
        self.neighbours.dials(now_ms, &self.view, &self.links, &mut self.chance)
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
pub(super) mod testing;
#[cfg(test)]
mod tests;
