//! Meshes of stewards and hosts in virtual time: records and orders over links that lose and delay, nodes that
//! crash, start again and are parted; what must hold all along and once the faults are over.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use stormo_protocol::ids::{DeploymentId, NodeId, ObjectId, VariantId};
use stormo_protocol::model::ObjectRef;
use stormo_protocol::profile::Speeds;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{
    Class, Deployment, Division, Hosted, Load, Machine, NodeRecord, Offer, Order, Place, Signed, Stamp,
    Topic, Variant, Wished,
};

use crate::mesh::{
    Around, Deployments, Heard, Held, KeepAction, Keeping, PartitionKey, Said, Situation, StewardAction,
    Stewardship, View, is_hosted,
};

/// Memory of a block, bytes.
pub(super) const PART_BYTES: u64 = 25;
/// Blocks of the variant.
const BLOCKS: u16 = 4;
/// Longest time to load a part, milliseconds.
pub(super) const LOAD_MS_MAX: u64 = 8_000;
const STEP_MS: u64 = 500;
/// Faults happen until then; what is to hold afterwards holds after this much calm.
const FAULTS_MS: u64 = 100_000;
const CALM_MS: u64 = 150_000;
/// A view leaves out a node that died this long after at most, milliseconds; so long a dead host may be counted on.
const BLIND_MS: u64 = 12_000;

pub(super) fn id(node: u8) -> NodeId {
    NodeId([node; 32])
}

/// What an idle node says of itself.
pub(super) fn record(node: u8, sequence: u64, class: Class) -> NodeRecord {
    NodeRecord {
        node: id(node),
        stamp: Stamp { generation: 1, sequence },
        machine: Machine {
            label: format!("node-{node}"),
            class,
            addresses: vec![],
            cores: 2,
            speeds: Speeds::new([1000.0; 5]),
            memory_budget_bytes: 1000,
        },
        load: Load {
            memory_used_bytes: 0,
            utilisation_permille: 0,
            cold_us: 0,
            cold_us_per_mb: 0,
            leaving: false,
        },
        offer: Offer::default(),
        hosted: vec![],
        links: vec![],
        goals: vec![],
    }
}

/// A record comes in, and with it the sign of life that it is.
pub(super) fn hear(view: &mut View, now_ms: u64, record: &NodeRecord) {
    let (author, body) = (record.node, record.to_bytes());
    let heard = Heard::read(Signed { topic: Topic::Node, author, signature: vec![], body }).unwrap();
    hear_signed(view, now_ms, &heard);
}

fn hear_signed(view: &mut View, now_ms: u64, heard: &Heard) {
    if view.apply(now_ms, heard, None) == crate::mesh::Applied::News {
        view.show(now_ms, heard.signed().author);
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
    let deployment =
        Deployment { name: name.into(), version, publisher, variants, removed, removed_unix_s: 0, wished };
    let body = deployment.to_bytes();
    Heard::read(Signed { topic: Topic::Deployment, author: publisher, signature: vec![], body }).unwrap()
}

fn signed(order: &Order) -> Heard {
    let (author, body) = (order.steward, order.to_bytes());
    Heard::read(Signed { topic: Topic::Order, author, signature: vec![], body }).unwrap()
}

/// An order for the whole on some nodes.
pub(super) fn order_of(deployment: DeploymentId, sequence: u64, steward: NodeId, nodes: &[u8]) -> Heard {
    let place = |node: &u8| Place { node: id(*node), variant: 0, first: 0, end: BLOCKS };
    signed(&Order { deployment, sequence, steward, places: nodes.iter().map(place).collect() })
}

/// What is to happen.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) kills: usize,
    pub(super) partitions: usize,
    /// Nodes that cannot load anything.
    pub(super) refusers: usize,
    /// The steward dies while hosts load for the first time.
    pub(super) kills_steward_early: bool,
    pub(super) restart_all: bool,
    pub(super) removes: bool,
    pub(super) rolls: bool,
    pub(super) load_ms_max: u64,
    /// Share of messages that are lost.
    pub(super) loss: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kills: 0,
            partitions: 0,
            refusers: 0,
            kills_steward_early: false,
            restart_all: false,
            removes: false,
            rolls: false,
            load_ms_max: LOAD_MS_MAX,
            loss: 0.1,
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.bits() % end.max(1)
    }

    fn happens(&mut self, share: f64) -> bool {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64 > 1.0 - share
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    ready_ms: u64,
    ordered: bool,
    used_ms: u64,
}

/// A node: what `app/driver` does around the pure rooms.
struct Node {
    number: u8,
    class: Class,
    budget_bytes: u64,
    refuses: bool,
    alive: bool,
    died_ms: u64,
    stamp: Stamp,
    view: View,
    deployments: Deployments,
    stewardship: Stewardship,
    keeping: Keeping,
    slots: BTreeMap<PartitionKey, Slot>,
    /// On its disk.
    stored: Vec<Heard>,
}

impl Node {
    fn begin(&mut self, now_ms: u64) {
        let own = id(self.number);
        self.alive = true;
        self.stamp = Stamp { generation: self.stamp.generation + 1, sequence: 0 };
        (self.view, self.deployments) = (View::new(own), Deployments::default());
        (self.stewardship, self.keeping) = (Stewardship::new(own, now_ms), Keeping::default());
        self.slots.clear();
        for heard in &self.stored {
            self.stewardship.restore(heard);
            self.deployments.apply(heard);
        }
    }

    fn held(&self, now_ms: u64) -> Vec<Held> {
        let held = self.slots.iter().map(|(key, slot)| Held {
            key: *key,
            progress: if slot.ready_ms <= now_ms { Ok(()) } else { Err(500) },
            is_ordered: slot.ordered,
            used_ms: slot.used_ms,
        });
        held.collect()
    }

    fn record(&self, now_ms: u64) -> NodeRecord {
        let hosted = self.slots.iter().filter(|(_, slot)| slot.ready_ms <= now_ms);
        let hosted = hosted.map(|(key, _)| Hosted {
            variant: key.variant,
            first: key.first,
            end: key.end,
            time_us: 1,
            p95_us: 1,
            queue_wait_us: 0,
        });
        let mut record = record(self.number, self.stamp.sequence, self.class);
        record.stamp = self.stamp;
        record.hosted = hosted.collect();
        record.goals = self.keeping.goals(&self.held(now_ms));
        record.machine.memory_budget_bytes = self.budget_bytes;
        record.load.memory_used_bytes = self.slots.keys().map(|key| bytes(key.blocks())).sum();
        record
    }

    fn has(&self, now_ms: u64, variant: VariantId, block: u16) -> bool {
        self.slots.iter().any(|(key, slot)| {
            slot.ready_ms <= now_ms && key.variant == variant && key.blocks().contains(&block)
        })
    }
}

fn bytes(blocks: Range<u16>) -> u64 {
    PART_BYTES * blocks.len() as u64
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
    /// Arrival, receiver, what.
    under_way: Vec<(u64, usize, Heard)>,
    wished: Wished,
    version: u64,
    removed: bool,
    orders_given: Vec<(u64, u64)>,
    served_ms: Option<u64>,
}

impl World {
    pub(super) fn new(seed: u64, options: Options) -> Self {
        let mut random = Random(seed);
        let count = 5 + random.below(6) as usize;
        let replicas = 1 + random.below(3) as u16;
        let division = if random.happens(0.5) { Division::Whole } else { Division::Parts(2) };
        let nodes = (0..count).map(|index| {
            let number = index as u8 + 1;
            Node {
                number,
                class: if random.happens(0.2) { Class::Device } else { Class::Edge },
                budget_bytes: 200 + random.below(200),
                refuses: false,
                alive: true,
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
            removed: false,
            orders_given: vec![],
            served_ms: None,
        }
    }

    fn told(&self) -> String {
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| {
                let order =
                    node.deployments.by_name("a").and_then(|known| node.stewardship.order(known.id()));
                let order = order.map(|order| (order.sequence, order.steward.0[0]));
                let slots: Vec<(u16, u16)> = node.slots.keys().map(|key| (key.first, key.end)).collect();
                format!(
                    "{}{}{} {:?} steward {:?} order {order:?} slots {slots:?}",
                    node.number,
                    if node.alive { "" } else { " (dead)" },
                    if node.refuses { " (refuses)" } else { "" },
                    node.class,
                    node.stewardship.steward("a").map(|steward| steward.node.0[0]),
                )
            })
            .collect();
        format!(
            "seed {} at {} ms, {:?}, {:?}\n{}",
            self.seed,
            self.now_ms,
            self.wished,
            self.options,
            nodes.join("\n")
        )
    }

    fn check(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\n{}", self.told());
    }

    pub(super) fn run(mut self) {
        let faults = self.schedule();
        let mut faults = faults.into_iter().peekable();
        let publisher = 0;
        while self.now_ms < FAULTS_MS + CALM_MS {
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
        }
        self.check_end();
    }

    fn schedule(&mut self) -> Vec<(u64, Fault)> {
        let mut all = vec![(2_000 + self.random.below(8_000), Fault::Deploy)];
        let within = |random: &mut Random| 15_000 + random.below(FAULTS_MS - 45_000);
        for _ in 0..self.options.kills {
            let at_ms = within(&mut self.random);
            all.push((at_ms, Fault::Kill(self.random.bits())));
            if self.random.happens(0.5) {
                let after_ms = 1_000 + self.random.below(25_000);
                all.push((at_ms + after_ms, Fault::StartAll));
            }
        }
        for _ in 0..self.options.partitions {
            let at_ms = within(&mut self.random);
            let until_ms = at_ms + 5_000 + self.random.below(25_000);
            all.push((at_ms, Fault::Part(self.random.bits())));
            all.push((until_ms, Fault::Join));
        }
        if self.options.kills_steward_early {
            all.push((all[0].0 + 1_000 + self.random.below(4_000), Fault::KillSteward));
        }
        if self.options.restart_all {
            let at_ms = 50_000 + self.random.below(20_000);
            all.push((at_ms, Fault::KillAll));
            all.push((at_ms + 1_000 + self.random.below(5_000), Fault::StartAll));
        }
        if self.options.removes {
            all.push((35_000 + self.random.below(10_000), Fault::Remove));
        }
        if self.options.rolls {
            all.push((30_000 + self.random.below(30_000), Fault::Deploy));
        }
        all.sort_by_key(|(at_ms, _)| *at_ms);
        all
    }

    fn act(&mut self, publisher: usize, fault: Fault) {
        match fault {
            Fault::Deploy => self.deploy(publisher),
            Fault::Remove => {
                self.removed = true;
                self.publish(publisher, true);
            }
            // The publisher has all objects, and is the one who may remove: it stays.
            Fault::Kill(bits) => {
                let index = 1 + bits as usize % (self.nodes.len() - 1);
                self.kill(index);
            }
            Fault::KillSteward => {
                let steward = self.nodes[publisher].stewardship.steward("a").map(|steward| steward.node);
                let index = self.nodes.iter().position(|node| Some(id(node.number)) == steward);
                if let Some(index) = index.filter(|index| *index != publisher) {
                    self.kill(index);
                }
            }
            Fault::KillAll => {
                (0..self.nodes.len()).for_each(|index| self.kill(index));
                // One comes back without its disk: all that it knows it hears from others.
                let last = self.nodes.len() - 1;
                self.nodes[last].stored.clear();
            }
            Fault::StartAll => {
                let now_ms = self.now_ms;
                self.nodes.iter_mut().filter(|node| !node.alive).for_each(|node| node.begin(now_ms));
            }
            Fault::Part(bits) => {
                self.groups = (0..self.nodes.len()).map(|index| (bits >> index & 1) as u8).collect();
            }
            Fault::Join => self.groups = vec![0; self.nodes.len()],
        }
    }

    fn kill(&mut self, index: usize) {
        let now_ms = self.now_ms;
        if !std::mem::replace(&mut self.nodes[index].alive, false) {
            return;
        }
        self.nodes[index].died_ms = now_ms;
        // Those connected to it see its connections break, or do not.
        let node = id(self.nodes[index].number);
        for other in 0..self.nodes.len() {
            if self.groups[other] == self.groups[index] && self.random.happens(0.7) {
                self.nodes[other].view.lost(now_ms, node);
            }
        }
    }

    fn publish(&mut self, publisher: usize, removed: bool) -> DeploymentId {
        let Wished { replicas, division } = self.wished.clone();
        let heard = wish("a", self.nodes[publisher].number, self.version, replicas, division, removed);
        let Said::Deployment(deployment) = heard.said() else { unreachable!("a wish") };
        let id = deployment.id();
        self.nodes[publisher].deployments.apply(&heard);
        self.spread(publisher, &heard);
        id
    }

    /// What `stormo deploy` does.
    fn deploy(&mut self, publisher: usize) {
        self.version += 1;
        let deployment = self.publish(publisher, false);
        let places = self.find_places(publisher, deployment);
        let node = &self.nodes[publisher];
        let order = node.stewardship.next_order(&node.deployments, deployment, places);
        assert_eq!(order.sequence, 1);
        self.give(publisher, &order);
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
        let share = if self.now_ms < FAULTS_MS + CALM_MS / 2 { self.options.loss } else { 0.0 };
        self.random.happens(share)
    }

    fn spread(&mut self, from: usize, heard: &Heard) {
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            if self.groups[to] == self.groups[from] && !self.is_lost() {
                let delay_ms = 20 + self.random.below(900);
                self.under_way.push((self.now_ms + delay_ms, to, heard.clone()));
            }
        }
    }

    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let (due, later) =
            std::mem::take(&mut self.under_way).into_iter().partition(|(at_ms, ..)| *at_ms <= now_ms);
        self.under_way = later;
        for (_, to, heard) in due {
            self.hear(to, &heard);
        }
    }

    fn hear(&mut self, to: usize, heard: &Heard) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[to];
        match heard.said() {
            _ if !node.alive => {}
            Said::Node(_) => hear_signed(&mut node.view, now_ms, heard),
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
            let mut news = self.nodes[from].deployments.unknown_to(&digest);
            // And records, of those that it heard lately.
            let known = &self.nodes[from].view;
            let fresh = known.iter().filter(|known| self.now_ms.saturating_sub(known.heard_ms) < 2_000);
            news.extend(fresh.map(|known| known.heard.clone()));
            for heard in news {
                self.hear(to, &heard);
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
            let record = node.record(now_ms);
            let (author, body) = (record.node, record.to_bytes());
            let heard = Heard::read(Signed { topic: Topic::Node, author, signature: vec![], body }).unwrap();
            self.spread(index, &heard);
        }
    }

    fn steer(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[index];
        let own = node.record(now_ms);
        let usable = node.view.iter().filter(|known| node.view.is_usable(now_ms, known.record.node));
        let records: Vec<&NodeRecord> = usable.map(|known| known.record.as_ref()).chain([&own]).collect();
        node.deployments.settle(now_ms, |known| is_hosted(known, &records, |_| Some(0..BLOCKS)));
        let memory_bytes = |_, blocks: Range<u16>| Some(bytes(blocks));
        let situation = Situation { now_ms, own: &own, view: &node.view, memory_bytes: &memory_bytes };
        let actions = node.stewardship.look(&mut node.deployments, &situation);
        for action in actions {
            match action {
                StewardAction::Counts(_) => {}
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
                    self.nodes[index].slots.remove(&key);
                    self.check_made_before_broken(index, key);
                }
            }
        }
    }

    fn load(&mut self, index: usize, key: PartitionKey) {
        let loads_ms = 500 + self.random.below(self.options.load_ms_max);
        let (now_ms, node) = (self.now_ms, &mut self.nodes[index]);
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

    /// Whoever lets go of a part knows others that have it, or had it until just now.
    fn check_made_before_broken(&self, index: usize, key: PartitionKey) {
        let node = &self.nodes[index];
        if node.deployments.by_id(key.variant.deployment).is_none() {
            return;
        }
        for block in key.blocks() {
            let has = |other: &Node| {
                let lately = other.alive || self.now_ms - other.died_ms < BLIND_MS;
                lately && (other.has(self.now_ms, key.variant, block) || self.options.partitions > 0)
            };
            self.check(
                self.nodes.iter().any(has),
                &format!("{} broke {key:?} before it was made", node.number),
            );
        }
    }

    fn is_served(&self, version: u64, at: &Node) -> bool {
        let Some(known) = at.deployments.live().find(|known| known.name == "a" && known.version == version)
        else {
            return false;
        };
        let variant = VariantId { deployment: known.id(), index: 0 };
        let has = |block| self.nodes.iter().any(|node| node.alive && node.has(self.now_ms, variant, block));
        (0..BLOCKS).all(has)
    }

    /// Once a version serves, the name serves on while it rolls, unless every host of a part was killed.
    fn check_serving(&mut self) {
        if !self.options.rolls || self.options.kills > 0 {
            return;
        }
        for node in self.nodes.iter().filter(|node| node.alive) {
            let Some(serving) = node.deployments.serving("a") else { continue };
            let is_served = self.is_served(serving.version, node);
            if is_served {
                self.served_ms.get_or_insert(self.now_ms);
            }
            let since_ms = self.served_ms.map_or(0, |served_ms| self.now_ms - served_ms);
            let holds = is_served || self.served_ms.is_none() || since_ms < 5_000;
            self.check(
                holds,
                &format!(
                    "node {} has version {} serve, which is hosted nowhere",
                    node.number, serving.version
                ),
            );
        }
    }

    fn check_end(&self) {
        let alive: Vec<&Node> = self.nodes.iter().filter(|node| node.alive).collect();
        let stewards: BTreeSet<_> =
            alive.iter().map(|node| node.stewardship.steward("a").map(|steward| steward.node)).collect();
        self.check(stewards.len() == 1, "they do not agree who is steward");
        if self.removed {
            let is_gone = |node: &&Node| node.deployments.by_name("a").is_none() && node.slots.is_empty();
            self.check(alive.iter().all(is_gone), "what was removed is back");
            return;
        }
        let order = |node: &Node| {
            let known = node.deployments.by_name("a")?;
            node.stewardship.order(known.id()).cloned()
        };
        let orders: Vec<_> = alive.iter().map(|node| order(node)).collect();
        self.check(
            orders.iter().all(|order| *order == orders[0] && order.is_some()),
            "they do not follow one order",
        );
        let Some(order) = &orders[0] else { return };
        let late =
            self.orders_given.iter().filter(|(at_ms, _)| *at_ms > FAULTS_MS + CALM_MS - 50_000).count();
        // Nodes that refused are asked again in growing pauses.
        self.check(late <= self.options.refusers, &format!("{late} orders long after all faults"));
        for node in &alive {
            let listed: BTreeSet<(u16, u16)> = order
                .places
                .iter()
                .filter(|place| place.node == id(node.number))
                .map(|place| (place.first, place.end))
                .collect();
            let slots: BTreeSet<(u16, u16)> = node.slots.keys().map(|key| (key.first, key.end)).collect();
            let holds = slots == listed || (node.refuses && slots.is_subset(&listed));
            self.check(holds, &format!("node {} does not host what is ordered: {listed:?}", node.number));
            self.check(node.deployments.live().count() == 1, "an old version is still held");
        }
        self.check_replicas(&alive);
    }

    fn check_replicas(&self, alive: &[&Node]) {
        let able = alive.iter().filter(|node| !node.refuses).count();
        for (first, end) in ranges(&self.wished.division) {
            let has = |node: &&&Node| {
                node.slots
                    .iter()
                    .any(|(key, slot)| (key.first, key.end) == (first, end) && slot.ready_ms <= self.now_ms)
            };
            let hosts = alive.iter().filter(has).count();
            // Every node has memory for all parts of two versions.
            let wanted = usize::from(self.wished.replicas).min(able);
            self.check(
                hosts == wanted,
                &format!("blocks {first} to {end} are on {hosts} nodes, not {wanted}"),
            );
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Deploy,
    Remove,
    Kill(u64),
    KillSteward,
    KillAll,
    StartAll,
    Part(u64),
    Join,
}
