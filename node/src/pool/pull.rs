//! Which groups of which objects are asked of which peer next, and what follows from how it went.
//! Pure: the time is passed in, and nothing is sent, verified or stored here.

use std::collections::{BTreeMap, BTreeSet};

use stormo_protocol::ids::NodeId;
use stormo_protocol::model::ObjectRef;
use stormo_protocol::object::{Part, group_count};

/// Questions under way at once. Each holds one group of 1 MiB in memory.
pub(super) const LANES_MAX: usize = 8;
/// Of them with one peer: enough to fill a link of 50 ms and 1 Gbit/s with runs of several groups.
const LANES_PER_PEER_MAX: usize = 4;
/// Groups that one question asks for while plenty is left; fewer towards the end, so that peers end together.
const RUN_GROUPS_MAX: u32 = 8;
/// Peers that one pull considers.
pub(super) const PEERS_MAX: usize = 16;
/// A peer that breaks off so often without a new group in between is given up.
const BREAKS_MAX: u32 = 4;
/// A peer that breaks off is left alone for so long, doubled each time: time for a new connection.
const BREAK_PAUSE_MS: u64 = 250;
/// A peer that says so often in a row that it is busy is given up (20 s).
const BUSY_MAX: u32 = 40;
/// Pause before a busy peer is asked again.
const BUSY_PAUSE_MS: u64 = 500;
/// What one peer has not brought for so long, a peer with nothing else to do is asked for as well.
const DOUBLE_AFTER_MS: u64 = 2_000;
/// The same of a peer that has brought nothing yet: it may be one that stands still, or is gone, and nobody knows so far.
const DOUBLE_UNPROVEN_AFTER_MS: u64 = 400;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask this of a peer.
    Ask(Order),
    /// Wait for an answer, at most until this time.
    Wait(Option<u64>),
    /// Everything is here.
    Done,
    /// This object is to be had from nobody.
    Failed(usize),
}

/// A question to put to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// Names it in what is told of it.
    pub(super) ticket: u64,
    /// Whom.
    pub(super) peer: NodeId,
    /// Which object.
    pub(super) goal: usize,
    /// Which part.
    pub(super) part: Part,
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All came.
    Finished,
    /// It was not put after all.
    NotAsked,
    /// The peer does not have the object.
    NotThere,
    /// The peer sends too much already.
    Busy,
    /// The peer sent what does not belong to the object.
    Wrong,
    /// Unreachable, broken off, silent.
    Broken,
}

/// What a verified group meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Noted {
    /// It was not here before.
    pub(super) fresh: bool,
    /// It was the last one of its object.
    pub(super) complete: bool,
}

/// What became of a peer, for the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It does not have the object.
    Lacks,
    /// It sent wrong bytes.
    Lied,
    /// It broke off too often.
    Broke,
    /// It was busy too often.
    Busy,
    /// Nothing against it.
    Fine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Missing,
    Asked(u8),
    Here,
}

#[derive(Debug)]
struct Goal {
    outline: Unit,
    groups: Vec<Unit>,
    left: u32,
}

impl Goal {
    fn unit(&mut self, part: Unitary) -> Option<&mut Unit> {
        match part {
            Unitary::Outline => Some(&mut self.outline),
            Unitary::Group(group) => self.groups.get_mut(group as usize),
        }
    }

    /// The first part that nobody was asked for.
    fn missing(&self, run_max: u32) -> Option<Part> {
        match self.outline {
            Unit::Missing => return Some(Part::Outline),
            Unit::Asked(_) => return None,
            Unit::Here => {}
        }
        let first = self.groups.iter().position(|unit| *unit == Unit::Missing)?;
        let run = self.groups[first..].iter().take_while(|unit| **unit == Unit::Missing).count();
        Some(Part::Groups { first: first as u32, count: (run as u32).min(run_max) })
    }
}

/// One outline, or one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unitary {
    Outline,
    Group(u32),
}

fn units(part: Part) -> BTreeSet<Unitary> {
    match part {
        Part::Outline => BTreeSet::from([Unitary::Outline]),
        Part::Groups { first, count } => (first..first + count).map(Unitary::Group).collect(),
    }
}

#[derive(Debug)]
struct Peer {
    node: NodeId,
    lanes: usize,
    /// Whether anything came from it.
    is_proven: bool,
    breaks: u32,
    busy: u32,
    free_at_ms: u64,
    out: Option<Fate>,
    lacks: BTreeSet<usize>,
}

#[derive(Debug)]
struct Ticket {
    peer: usize,
    goal: usize,
    left: BTreeSet<Unitary>,
    moved_ms: u64,
}

/// A pull of several objects from several peers.
#[derive(Debug)]
pub(super) struct Pull {
    goals: Vec<Goal>,
    peers: Vec<Peer>,
    tickets: BTreeMap<u64, Ticket>,
    tickets_given: u64,
    /// All goals before it are complete.
    first_open: usize,
}

impl Pull {
    /// A pull of these objects; the first [`PEERS_MAX`] peers are considered, earlier ones first.
    pub(super) fn new(objects: &[ObjectRef], peers: &[NodeId]) -> Self {
        let goal = |object: &ObjectRef| {
            let groups = group_count(object.bytes);
            let outline = if groups == 1 { Unit::Here } else { Unit::Missing };
            Goal { outline, groups: vec![Unit::Missing; groups as usize], left: groups }
        };
        let peer = |node: &NodeId| Peer {
            node: *node,
            lanes: 0,
            is_proven: false,
            breaks: 0,
            busy: 0,
            free_at_ms: 0,
            out: None,
            lacks: BTreeSet::new(),
        };
        Self {
            goals: objects.iter().map(goal).collect(),
            peers: peers.iter().take(PEERS_MAX).map(peer).collect(),
            tickets: BTreeMap::new(),
            tickets_given: 0,
            first_open: 0,
        }
    }

    /// An earlier run left this object's outline and these groups; true when nothing is missing.
    pub(super) fn found(&mut self, goal: usize, groups: &[u32]) -> bool {
        let goal = &mut self.goals[goal];
        goal.outline = Unit::Here;
        for group in groups {
            if let Some(unit) = goal.groups.get_mut(*group as usize)
                && *unit != Unit::Here
            {
                *unit = Unit::Here;
                goal.left -= 1;
            }
        }
        goal.left == 0
    }

    /// What to do now.
    pub(super) fn next(&mut self, now_ms: u64) -> Next {
        while self.goals.get(self.first_open).is_some_and(|goal| goal.left == 0) {
            self.first_open += 1;
        }
        if self.first_open == self.goals.len() {
            return Next::Done;
        }
        if let Some(hopeless) = self.hopeless() {
            return Next::Failed(hopeless);
        }
        if self.tickets.len() < LANES_MAX {
            let mut free: Vec<usize> =
                (0..self.peers.len()).filter(|peer| self.is_free(*peer, now_ms)).collect();
            free.sort_by_key(|peer| (self.stalls(*peer, now_ms), self.peers[*peer].lanes));
            let job = free.iter().find_map(|peer| Some((*peer, self.job(*peer)?)));
            let job = job.or_else(|| free.iter().find_map(|peer| Some((*peer, self.double(*peer, now_ms)?))));
            if let Some((peer, (goal, part))) = job {
                return Next::Ask(self.ask(peer, goal, part, now_ms));
            }
        }
        Next::Wait(self.wake_ms(now_ms))
    }

    fn is_free(&self, peer: usize, now_ms: u64) -> bool {
        let peer = &self.peers[peer];
        peer.out.is_none() && peer.free_at_ms <= now_ms && peer.lanes < LANES_PER_PEER_MAX
    }

    /// An object that nobody is being asked for and nobody is left to be asked for.
    fn hopeless(&self) -> Option<usize> {
        (self.first_open..self.goals.len()).find(|goal| {
            self.goals[*goal].left > 0
                && !self.peers.iter().any(|peer| peer.out.is_none() && !peer.lacks.contains(goal))
                && !self.tickets.values().any(|ticket| ticket.goal == *goal)
        })
    }

    fn job(&self, peer: usize) -> Option<(usize, Part)> {
        let open = (self.first_open..self.goals.len()).filter(|goal| self.goals[*goal].left > 0);
        let mut had = open.filter(|goal| !self.peers[peer].lacks.contains(goal));
        had.find_map(|goal| {
            let share = self.goals[goal].left / LANES_MAX as u32;
            Some((goal, self.goals[goal].missing(share.clamp(1, RUN_GROUPS_MAX))?))
        })
    }

    /// From when on what was asked for does not come.
    fn stalled_from_ms(&self, ticket: &Ticket) -> u64 {
        let is_proven = self.peers[ticket.peer].is_proven;
        ticket.moved_ms + if is_proven { DOUBLE_AFTER_MS } else { DOUBLE_UNPROVEN_AFTER_MS }
    }

    /// Whether a peer does not bring what it was asked for.
    fn stalls(&self, peer: usize, now_ms: u64) -> bool {
        let mut asked = self.tickets.values().filter(|ticket| ticket.peer == peer);
        asked.any(|ticket| self.stalled_from_ms(ticket) <= now_ms)
    }

    /// Something that another peer has been asked for and does not bring.
    fn double(&self, peer: usize, now_ms: u64) -> Option<(usize, Part)> {
        let stalled = self.tickets.values().filter(|ticket| {
            ticket.peer != peer
                && self.stalled_from_ms(ticket) <= now_ms
                && !self.peers[peer].lacks.contains(&ticket.goal)
        });
        stalled.flat_map(|ticket| ticket.left.iter().map(|unit| (ticket.goal, *unit))).find_map(
            |(goal, unit)| {
                let (state, part) = match unit {
                    Unitary::Outline => (self.goals[goal].outline, Part::Outline),
                    Unitary::Group(first) => {
                        (*self.goals[goal].groups.get(first as usize)?, Part::Groups { first, count: 1 })
                    }
                };
                (state == Unit::Asked(1)).then_some((goal, part))
            },
        )
    }

    fn ask(&mut self, peer: usize, goal: usize, part: Part, now_ms: u64) -> Order {
        let left = units(part);
        for unit in &left {
            if let Some(state) = self.goals[goal].unit(*unit) {
                *state = match *state {
                    Unit::Missing => Unit::Asked(1),
                    Unit::Asked(askers) => Unit::Asked(askers.saturating_add(1)),
                    Unit::Here => Unit::Here,
                };
            }
        }
        self.tickets_given += 1;
        self.peers[peer].lanes += 1;
        self.tickets.insert(self.tickets_given, Ticket { peer, goal, left, moved_ms: now_ms });
        Order { ticket: self.tickets_given, peer: self.peers[peer].node, goal, part }
    }

    /// When something changes by itself.
    fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        let pauses = self.peers.iter().filter(|peer| peer.out.is_none()).map(|peer| peer.free_at_ms);
        let doubles = self.tickets.values().map(|ticket| self.stalled_from_ms(ticket));
        pauses.chain(doubles).filter(|at_ms| *at_ms > now_ms).min()
    }

    /// An outline came and is the object's.
    pub(super) fn outlined(&mut self, ticket: u64, now_ms: u64) {
        self.arrived(ticket, Unitary::Outline, now_ms);
    }

    /// A group came, was verified and stored.
    pub(super) fn got(&mut self, ticket: u64, group: u32, now_ms: u64) -> Noted {
        let Some((goal, fresh)) = self.arrived(ticket, Unitary::Group(group), now_ms) else {
            return Noted { fresh: false, complete: false };
        };
        let goal = &mut self.goals[goal];
        goal.left -= u32::from(fresh);
        Noted { fresh, complete: fresh && goal.left == 0 }
    }

    fn arrived(&mut self, ticket: u64, unit: Unitary, now_ms: u64) -> Option<(usize, bool)> {
        let ticket = self.tickets.get_mut(&ticket)?;
        if !ticket.left.remove(&unit) {
            return None;
        }
        ticket.moved_ms = now_ms;
        self.peers[ticket.peer].is_proven = true;
        let state = self.goals[ticket.goal].unit(unit)?;
        let fresh = *state != Unit::Here;
        *state = Unit::Here;
        if fresh {
            // Only what is new counts for a peer, so that the questions of a pull are bounded.
            let peer = &mut self.peers[ticket.peer];
            (peer.breaks, peer.busy) = (0, 0);
        }
        Some((ticket.goal, fresh))
    }

    /// A question ended; what did not come is missing again.
    pub(super) fn ended(&mut self, ticket: u64, end: End, now_ms: u64) {
        let Some(ticket) = self.tickets.remove(&ticket) else { return };
        for unit in &ticket.left {
            if let Some(state) = self.goals[ticket.goal].unit(*unit) {
                *state = match *state {
                    Unit::Asked(askers) if askers > 1 => Unit::Asked(askers - 1),
                    Unit::Asked(_) => Unit::Missing,
                    other => other,
                };
            }
        }
        let peer = &mut self.peers[ticket.peer];
        peer.lanes -= 1;
        match end {
            End::NotAsked => {}
            End::Finished if ticket.left.is_empty() => {}
            End::NotThere => {
                peer.lacks.insert(ticket.goal);
            }
            End::Wrong => peer.out = Some(Fate::Lied),
            // Lanes that break together, with their connection, are one break.
            End::Broken | End::Finished if peer.free_at_ms <= now_ms => {
                peer.breaks += 1;
                peer.free_at_ms = now_ms + (BREAK_PAUSE_MS << peer.breaks.min(BREAKS_MAX));
                if peer.breaks >= BREAKS_MAX {
                    peer.out.get_or_insert(Fate::Broke);
                }
            }
            End::Busy if peer.free_at_ms <= now_ms => {
                peer.busy += 1;
                peer.free_at_ms = now_ms + BUSY_PAUSE_MS;
                if peer.busy >= BUSY_MAX {
                    peer.out.get_or_insert(Fate::Busy);
                }
            }
            End::Broken | End::Finished | End::Busy => {}
        }
    }

    /// What became of each peer, as far as this object goes.
    pub(super) fn fates(&self, goal: usize) -> Vec<(NodeId, Fate)> {
        let fate = |peer: &Peer| match peer.out {
            Some(out) => out,
            None if peer.lacks.contains(&goal) => Fate::Lacks,
            None => Fate::Fine,
        };
        self.peers.iter().map(|peer| (peer.node, fate(peer))).collect()
    }
}

#[cfg(test)]
mod tests;
