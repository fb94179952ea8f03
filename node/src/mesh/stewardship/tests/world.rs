//! Meshes of stewards and hosts in virtual time: records and orders over links that lose and delay, nodes that
//! crash, start again and are parted; what must hold all along and once the faults are over.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use stormo_protocol::exchange;
use stormo_protocol::ids::{DeploymentId, NodeId, ObjectId};
use stormo_protocol::model::ObjectRef;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{
    Class, Deployment, Division, Domain, NodeRecord, Order, Place, Signed, Stamp, Topic, Variant, Wished,
};

mod checks;
mod demand;
mod faults;
mod node;

pub(super) use faults::Options;
pub(super) use testing::id;

use crate::mesh::life::BEAT_MS;
use crate::mesh::member::testing;
use crate::mesh::{
    Around, Deployments, Heard, KeepAction, Keeping, PartitionKey, Said, Situation, StewardAction,
    Stewardship, View, is_hosted,
};

use super::random::Random;
use node::{Node, Slot};

/// Memory of a block, bytes.
pub(super) const PART_BYTES: u64 = 25;
/// Blocks of the variant.
const BLOCKS: u16 = 4;
/// Longest time to load a part, milliseconds.
pub(super) const LOAD_MS_MAX: u64 = 8_000;
const STEP_MS: u64 = 500;
/// Faults happen until then; what is to hold afterwards holds after this much calm: what could lie better moves a minute
/// after the last order, and a host that hangs is given up a minute after that.
const FAULTS_MS: u64 = 100_000;
const CALM_MS: u64 = 400_000;
/// A view leaves out a node that died this long after at most, milliseconds; so long a dead host may be counted on.
const BLIND_MS: u64 = 12_000;

/// What an idle node says of itself.
pub(super) fn record(node: u8, sequence: u64, class: Class) -> NodeRecord {
    let mut record = testing::record_of(id(node), 1, sequence);
    (record.machine.class, record.machine.memory_budget_bytes) = (class, 1000);
    record
}

/// A record comes in, and with it the sign of life that it is, and the heartbeat of a node that runs for so long.
pub(super) fn hear(view: &mut View, now_ms: u64, record: &NodeRecord, age_ms: u64) {
    let (author, body) = (record.node, record.to_bytes());
    let heard = Heard::read(Signed { topic: Topic::Node, author, signature: vec![], body }).unwrap();
    hear_signed(view, now_ms, &heard, age_ms);
}

fn hear_signed(view: &mut View, now_ms: u64, heard: &Heard, age_ms: u64) {
    if view.apply(now_ms, heard, None) == crate::mesh::Applied::News {
        view.show(now_ms, heard.signed().author);
    }
    if let Said::Node(record) = heard.said() {
        let beat = 1 + age_ms / BEAT_MS;
        view.hear(now_ms, &[exchange::Held { node: record.node.into(), stamp: record.stamp, beat }]);
    }
    view.look(now_ms);
}

pub(super) fn wish(
    name: &str,
    publisher: u8,
    version: u64,
    replicas: u16,
    division: Division,
    removed: bool,
) -> Heard {
    let manifest = ObjectRef { id: ObjectId([version as u8; 32]), bytes: 1 };
    let variants = vec![Variant { label: "base".into(), manifest, accuracy: None }];
    let wished = Wished { replicas, division };
    let publisher = id(publisher);
    let deployment = Deployment {
        name: name.into(),
        version,
        publisher,
        variants,
        removed,
        removed_unix_s: 0,
        begun_unix_s: 0,
        wished,
    };
    let body = deployment.to_bytes();
    Heard::read(Signed { topic: Topic::Deployment, author: publisher, signature: vec![], body }).unwrap()
}

pub(super) fn signed(order: &Order) -> Heard {
    let (author, body) = (order.steward, order.to_bytes());
    Heard::read(Signed { topic: Topic::Order, author, signature: vec![], body }).unwrap()
}

/// An order for the whole on some nodes.
pub(super) fn order_of(deployment: DeploymentId, sequence: u64, steward: NodeId, nodes: &[u8]) -> Heard {
    let place = |node: &u8| Place { node: id(*node), variant: 0, first: 0, end: BLOCKS };
    signed(&Order { deployment, sequence, steward, places: nodes.iter().map(place).collect() })
}

fn bytes(blocks: Range<u16>) -> u64 {
    PART_BYTES * blocks.len() as u64
}

fn number_of(index: usize) -> u8 {
    index as u8 + 1
}

/// One of three.
fn site(number: u8) -> Domain {
    format!("site:{}", number % 3).parse().unwrap()
}

/// Ranges that a division makes.
fn ranges(division: &Division) -> Vec<(u16, u16)> {
    match division {
        Division::Parts(2) => vec![(0, 2), (2, 4)],
        _ => vec![(0, BLOCKS)],
    }
}

pub(super) struct World {
    seed: u64,
    options: Options,
    random: Random,
    now_ms: u64,
    nodes: Vec<Node>,
    /// Which group each node is in.
    groups: Vec<u8>,
    /// Arrival, receiver, what, and how long its author had run when it was sent, milliseconds.
    under_way: Vec<(u64, usize, Heard, u64)>,
    wished: Wished,
    version: u64,
    /// The site whose nodes ask.
    asks_at: Option<u8>,
    moves: usize,
    removed: bool,
    orders_given: Vec<(u64, u64)>,
    served_ms: Option<u64>,
    /// Since when ranges are on more nodes than are wanted, with all nodes within reach of each other.
    doubled_ms: BTreeMap<PartitionKey, u64>,
    /// When the mesh was one again after it was parted, and when all named one steward after that.
    joined_ms: Option<u64>,
    agreed_ms: Option<u64>,
}

impl World {
    pub(super) fn new(seed: u64, options: Options) -> Self {
        let mut random = Random::new(seed);
        let count = if options.halves { 8 } else { 5 + random.below(6) as usize };
        let replicas = 1 + random.below(3) as u16;
        let division = if random.happens(0.5) { Division::Whole } else { Division::Parts(2) };
        let nodes = (0..count).map(|index| {
            let number = number_of(index);
            Node {
                number,
                class: if random.happens(0.2) { Class::Device } else { Class::Edge },
                domains: if options.is_sited { vec![site(number)] } else { vec![] },
                budget_bytes: 200 + random.below(200),
                refuses: false,
                hangs: false,
                alive: true,
                begun_ms: 0,
                died_ms: 0,
                stamp: Stamp { generation: 0, sequence: 0 },
                view: View::new(id(number)),
                deployments: Deployments::default(),
                stewardship: Stewardship::new(id(number), 0),
                keeping: Keeping::default(),
                slots: BTreeMap::new(),
                stored: vec![],
            }
        });
        let mut nodes: Vec<Node> = nodes.collect();
        nodes.iter_mut().for_each(|node| node.begin(0));
        for _ in 0..options.refusers {
            let index = random.below(count as u64) as usize;
            nodes[index].refuses = true;
        }
        for _ in 0..options.hangers {
            let index = random.below(count as u64) as usize;
            nodes[index].hangs = true;
        }
        Self {
            seed,
            options,
            random,
            now_ms: 0,
            groups: vec![0; count],
            nodes,
            under_way: vec![],
            wished: Wished { replicas, division },
            version: 0,
            asks_at: None,
            moves: 0,
            removed: false,
            orders_given: vec![],
            served_ms: None,
            doubled_ms: BTreeMap::new(),
            joined_ms: None,
            agreed_ms: None,
        }
    }

    pub(super) fn run(mut self) {
        let faults = self.schedule();
        let mut faults = faults.into_iter().peekable();
        let publisher = 0;
        while self.now_ms < self.options.faults_ms + CALM_MS {
            self.now_ms += STEP_MS;
            while faults.peek().is_some_and(|(at_ms, _)| *at_ms <= self.now_ms) {
                let Some((_, fault)) = faults.next() else { break };
                self.act(publisher, fault);
            }
            self.deliver();
            for index in 0..self.nodes.len() {
                if self.nodes[index].alive {
                    self.live(index);
                }
            }
            self.check_serving();
            self.check_doubled();
            self.note_agreement();
        }
        self.check_end();
    }

    /// What the planner does: each range on nodes with memory, as many as there are.
    fn find_places(&self, index: usize, deployment: DeploymentId) -> Vec<Place> {
        let node = &self.nodes[index];
        let own = node.record(self.now_ms);
        let view = &node.view;
        let others = view.iter().filter(|known| view.is_usable(self.now_ms, known.record.node));
        let records = std::iter::once(&own).chain(others.map(|known| known.record.as_ref()));
        let mut free: BTreeMap<NodeId, u64> = records
            .map(|record| (record.node, record.machine.memory_budget_bytes - record.load.memory_used_bytes))
            .collect();
        let mut places = Vec::new();
        for (first, end) in ranges(&self.wished.division) {
            let mut hosts = BTreeSet::new();
            for _ in 0..self.wished.replicas {
                let fitting =
                    free.iter().filter(|(node, free)| **free >= bytes(first..end) && !hosts.contains(*node));
                let Some(node) = fitting.max_by_key(|(_, free)| **free).map(|(node, _)| *node) else { break };
                hosts.insert(node);
                *free.get_mut(&node).unwrap() -= bytes(first..end);
                places.push(Place { node, variant: 0, first, end });
            }
        }
        let _ = deployment;
        places
    }

    fn give(&mut self, index: usize, order: &Order) {
        if order.places.is_empty() {
            return;
        }
        self.orders_given.push((self.now_ms, order.sequence));
        let heard = signed(order);
        self.nodes[index].deployments.apply(&heard);
        self.spread(index, &heard);
    }

    /// Links lose nothing any more once all is to be well.
    fn is_lost(&mut self) -> bool {
        let share = if self.now_ms < self.options.faults_ms + CALM_MS / 2 { self.options.loss } else { 0.0 };
        self.random.happens(share)
    }

    fn spread(&mut self, from: usize, heard: &Heard) {
        let age_ms = self.nodes[from].age_ms(self.now_ms);
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            if self.groups[to] == self.groups[from] && !self.is_lost() {
                let delay_ms = 20 + self.random.below(900);
                self.under_way.push((self.now_ms + delay_ms, to, heard.clone(), age_ms));
            }
        }
    }

    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let (due, later) =
            std::mem::take(&mut self.under_way).into_iter().partition(|(at_ms, ..)| *at_ms <= now_ms);
        self.under_way = later;
        for (_, to, heard, age_ms) in due {
            self.hear(to, &heard, age_ms);
        }
    }

    fn hear(&mut self, to: usize, heard: &Heard, age_ms: u64) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[to];
        match heard.said() {
            _ if !node.alive => {}
            Said::Node(_) => hear_signed(&mut node.view, now_ms, heard, age_ms),
            _ => drop(node.deployments.apply(heard)),
        }
    }

    /// An exchange with some other node that can be reached.
    fn exchange(&mut self, index: usize) {
        let reached = (0..self.nodes.len()).filter(|other| {
            *other != index && self.nodes[*other].alive && self.groups[*other] == self.groups[index]
        });
        let reached: Vec<usize> = reached.collect();
        if reached.is_empty() || self.is_lost() {
            return;
        }
        let other = reached[self.random.below(reached.len() as u64) as usize];
        for (from, to) in [(other, index), (index, other)] {
            let digest = self.nodes[to].deployments.digest();
            let news = self.nodes[from].deployments.unknown_to(&digest).into_iter().map(|heard| (heard, 0));
            // And records, of those that it heard lately, with the heartbeats that it knows of them.
            let known = &self.nodes[from].view;
            let fresh = known.iter().filter(|known| self.now_ms.saturating_sub(known.heard_ms) < 2_000);
            let fresh = fresh.map(|known| (known.heard.clone(), known.age_s().saturating_sub(1) * BEAT_MS));
            for (heard, age_ms) in news.chain(fresh).collect::<Vec<_>>() {
                self.hear(to, &heard, age_ms);
            }
        }
    }

    /// A step of one node: the driver's housekeeping.
    fn live(&mut self, index: usize) {
        let now_ms = self.now_ms;
        if (now_ms / STEP_MS + index as u64).is_multiple_of(4) {
            self.exchange(index);
        }
        self.steer(index);
        self.keep(index);
        let node = &mut self.nodes[index];
        node.stored = node.deployments.wishes().chain(node.stewardship.orders()).cloned().collect();
        if (now_ms / STEP_MS + index as u64).is_multiple_of(2) {
            node.stamp.sequence += 1;
            let record = self.asking(index);
            let (author, body) = (record.node, record.to_bytes());
            let heard = Heard::read(Signed { topic: Topic::Node, author, signature: vec![], body }).unwrap();
            self.spread(index, &heard);
        }
    }

    fn steer(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let own = self.asking(index);
        let node = &mut self.nodes[index];
        let usable = node.view.iter().filter(|known| node.view.is_usable(now_ms, known.record.node));
        let records: Vec<&NodeRecord> = usable.map(|known| known.record.as_ref()).chain([&own]).collect();
        node.deployments.settle(now_ms, |known| is_hosted(known, &records, |_| Some(0..BLOCKS)));
        let memory_bytes = |_, blocks: Range<u16>| Some(bytes(blocks));
        let situation = Situation {
            now_ms,
            own: &own,
            view: &node.view,
            memory_bytes: &memory_bytes,
            is_suspect: &|_| false,
        };
        let actions = node.stewardship.look(&mut node.deployments, &situation);
        for action in actions {
            match action {
                StewardAction::Counts(_) => {}
                StewardAction::Compare(id) => self.compare(index, id),
                StewardAction::Give(order) => self.give(index, &order),
                StewardAction::Place(id) => {
                    let places = self.find_places(index, id);
                    let node = &self.nodes[index];
                    let order = node.stewardship.next_order(&node.deployments, id, places);
                    self.give(index, &order);
                }
            }
        }
    }

    fn keep(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[index];
        let (own, held) = (node.record(now_ms), node.held(now_ms));
        let around = Around {
            now_ms,
            own: &own,
            view: &node.view,
            deployments: &node.deployments,
            stewardship: &node.stewardship,
        };
        for action in node.keeping.look(&around, &held) {
            match action {
                KeepAction::Load(key) => self.load(index, key),
                KeepAction::Drop(key) => {
                    let slot = self.nodes[index].slots.remove(&key);
                    if slot.is_some_and(|slot| slot.ready_ms <= now_ms) {
                        self.check_made_before_broken(index, key);
                    }
                }
            }
        }
    }

    fn load(&mut self, index: usize, key: PartitionKey) {
        let loads_ms = 500 + self.random.below(self.options.load_ms_max);
        let (now_ms, node) = (self.now_ms, &mut self.nodes[index]);
        let loads_ms = if node.hangs { u64::MAX / 2 } else { loads_ms };
        if let Some(slot) = node.slots.get_mut(&key) {
            slot.ordered = true;
            return;
        }
        let used: u64 = node.slots.keys().map(|key| bytes(key.blocks())).sum();
        let why = if node.refuses {
            Some(Refusal::Storage)
        } else {
            (used + bytes(key.blocks()) > node.budget_bytes).then_some(Refusal::NoMemory)
        };
        match why {
            Some(reason) => node.keeping.refused(now_ms, key, reason),
            None => {
                let slot = Slot { ready_ms: now_ms + loads_ms, ordered: true, used_ms: now_ms };
                node.slots.insert(key, slot);
            }
        }
    }
}
