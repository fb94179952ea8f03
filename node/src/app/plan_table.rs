//! Plans that are ready: for each way in which requests ask, the plan that was made of the mesh as it still is. A plan is
//! looked up only while nothing has changed that plans are made of, so a request never gets one that leads to a node
//! that has gone. No clock is read and nothing is planned here.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use stormo_protocol::ids::{NodeId, VariantId};
use stormo_protocol::plan::Plan;
use stormo_protocol::state::{Hosted, LinkEstimate, Stamp};

use crate::app::calls::PlanLimits;

/// Plans kept. Requests of one node ask in fewer ways; the one that was not asked for longest goes first.
const PLANS_MAX: usize = 256;
/// What was asked for so lately is planned again as soon as the mesh changes, milliseconds.
const ASKED_LATELY_MS: u64 = 10_000;
/// Waits and ways of this node that differ by less than a factor of two are the same to plans until it says so.
const WAIT_NOISE_US: u64 = 1_000;

/// This node, as plans depend on it: the record that it last said, and what has changed since beyond what strays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    pub said: Stamp,
    /// What it has loaded now.
    pub hosted: &'a [Hosted],
    /// Ways to others by now.
    pub links: &'a [LinkEstimate],
    pub takes_work: bool,
    /// Who takes longer than usual, by how many microseconds.
    pub late: &'a [(NodeId, u64)],
}

/// All that plans are made of, as a fingerprint: plans of two equal ones are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Basis(u64);

impl Basis {
    /// Of the nodes that may be used and the newest record of each, those that are suspected all the same, and this
    /// node as it is.
    pub(super) fn of(
        usable: impl Iterator<Item = (NodeId, Stamp)>,
        suspects: &[NodeId],
        own: &Own<'_>,
    ) -> Self {
        let Own { said, hosted, links, takes_work, late } = *own;
        let mut hasher = DefaultHasher::new();
        let mut count = 0_usize;
        for (node, stamp) in usable {
            (node, stamp).hash(&mut hasher);
            count += 1;
        }
        (count, suspects, said, takes_work, hosted.len()).hash(&mut hasher);
        for Hosted { variant, first, end, queue_wait_us, .. } in hosted {
            let wait = (queue_wait_us / WAIT_NOISE_US).checked_ilog2();
            (variant, first, end, wait).hash(&mut hasher);
        }
        for (node, late_us) in late {
            (node, (late_us / WAIT_NOISE_US).checked_ilog2()).hash(&mut hasher);
        }
        for LinkEstimate { peer, round_trip_us, bytes_per_second } in links {
            let far = (u64::from(*round_trip_us) / WAIT_NOISE_US).checked_ilog2();
            (peer, far, bytes_per_second.checked_ilog2()).hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

/// What is asked, as far as plans depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The variants that may run, and the blocks of each.
    variants: Vec<(VariantId, Range<u16>)>,
    limits: [Option<u64>; 3],
    forced: [bool; 2],
    objective: u8,
}

impl Key {
    pub(super) fn new(variants: impl Iterator<Item = (VariantId, Range<u16>)>, limits: &PlanLimits) -> Self {
        let PlanLimits { force_first, force_last, min_accuracy, max_latency_ms, max_energy_j, objective } =
            *limits;
        Self {
            variants: variants.collect(),
            limits: [min_accuracy, max_latency_ms, max_energy_j].map(|limit| limit.map(f64::to_bits)),
            forced: [force_first, force_last],
            objective: objective as u8,
        }
    }
}

/// A plan, and of what it was made.
#[derive(Debug)]
struct Ready<T> {
    plan: Plan,
    basis: Basis,
    /// What it takes to plan it again.
    asked: T,
    asked_ms: u64,
    /// It is being planned again.
    is_refreshing: bool,
}

/// The plans by what is asked. `T` is what planning again takes.
#[derive(Debug)]
pub(super) struct PlanTable<T> {
    by_key: HashMap<Key, Ready<T>>,
    figures: Figures,
}

/// How often it helped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Requests that found their plan.
    pub looked_up: u64,
    /// Requests that had to be planned for.
    pub missed: u64,
}

impl<T> Default for PlanTable<T> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), figures: Figures::default() }
    }
}

impl<T: Clone> PlanTable<T> {
    /// The plan that is asked for, if the mesh is still as it was made of.
    pub(super) fn look_up(&mut self, now_ms: u64, key: &Key, basis: Basis) -> Option<&Plan> {
        let found = self.by_key.get_mut(key);
        let is_found = found.map(|ready| {
            ready.asked_ms = now_ms;
            ready.basis == basis
        });
        match is_found {
            Some(true) => self.figures.looked_up += 1,
            _ => self.figures.missed += 1,
        }
        self.by_key.get(key).filter(|ready| ready.basis == basis).map(|ready| &ready.plan)
    }

    /// A plan was made; it takes the place of an older one.
    pub(super) fn keep(&mut self, now_ms: u64, key: Key, basis: Basis, plan: Plan, asked: T) {
        if self.by_key.len() >= PLANS_MAX && !self.by_key.contains_key(&key) {
            let oldest = self.by_key.iter().min_by_key(|(_, ready)| ready.asked_ms);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.by_key.remove(&oldest);
            }
        }
        self.by_key.insert(key, Ready { plan, basis, asked, asked_ms: now_ms, is_refreshing: false });
    }

    /// A plan was made again, or there is none any more. When it was asked for stays as it was.
    pub(super) fn refreshed(&mut self, key: &Key, basis: Basis, plan: Option<Plan>) {
        let Some(ready) = self.by_key.get_mut(key) else { return };
        ready.is_refreshing = false;
        match plan {
            Some(plan) => (ready.plan, ready.basis) = (plan, basis),
            None => {
                self.by_key.remove(key);
            }
        }
    }

    /// What is to be planned again now, the latest asked first, so many at most: each is given out once until it is
    /// [`PlanTable::refreshed`].
    pub(super) fn stale(&mut self, now_ms: u64, basis: Basis, most: usize) -> Vec<(Key, T)> {
        self.by_key.retain(|_, ready| {
            ready.is_refreshing
                || ready.basis == basis
                || now_ms.saturating_sub(ready.asked_ms) <= ASKED_LATELY_MS
        });
        let due = self.by_key.iter_mut().filter(|(_, ready)| ready.basis != basis && !ready.is_refreshing);
        let mut by_age: BTreeMap<(u64, usize), (&Key, &mut Ready<T>)> = BTreeMap::new();
        for (place, (key, ready)) in due.enumerate() {
            by_age.insert((u64::MAX - ready.asked_ms, place), (key, ready));
        }
        let first = by_age.into_values().take(most).map(|(key, ready)| {
            ready.is_refreshing = true;
            (key.clone(), ready.asked.clone())
        });
        first.collect()
    }

    pub(super) fn figures(&self) -> Figures {
        self.figures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stormo_protocol::codec::payload::Codec;
    use stormo_protocol::ids::DeploymentId;
    use stormo_protocol::plan::Stage;

    use super::*;

    const VARIANT: VariantId = VariantId { deployment: DeploymentId([1; 16]), index: 0 };

    fn node(index: u8) -> NodeId {
        NodeId([index; 32])
    }

    fn stamp(sequence: u64) -> Stamp {
        Stamp { generation: 1, sequence }
    }

    fn key(max_latency_ms: f64) -> Key {
        let limits = PlanLimits { max_latency_ms: Some(max_latency_ms), ..PlanLimits::default() };
        Key::new([(VARIANT, 0..4)].into_iter(), &limits)
    }

    fn plan(host: u8) -> Plan {
        let stage =
            Stage { node: node(host), first: 0, end: 4, codec: Codec::Raw, backups: vec![], branch: None };
        Plan { variant: VARIANT, origin: node(0), stages: vec![stage], result_codec: Codec::Raw }
    }

    fn own<'a>(hosted: &'a [Hosted], links: &'a [LinkEstimate]) -> Own<'a> {
        Own { said: stamp(7), hosted, links, takes_work: true, late: &[] }
    }

    fn basis(usable: &[(u8, u64)], suspects: &[u8]) -> Basis {
        let usable = usable.iter().map(|(index, sequence)| (node(*index), stamp(*sequence)));
        let suspects: Vec<NodeId> = suspects.iter().map(|index| node(*index)).collect();
        Basis::of(usable, &suspects, &own(&[], &[]))
    }

    #[test]
    fn this_node_counts_by_orders_of_magnitude_until_it_says_more() {
        let hosted = |queue_wait_us| Hosted {
            variant: VARIANT,
            first: 0,
            end: 4,
            time_us: 1,
            p95_us: 1,
            queue_wait_us,
        };
        let of = |own: &Own<'_>| Basis::of(std::iter::empty(), &[], own);
        let waiting = |wait_us| of(&own(&[hosted(wait_us)], &[]));
        assert_eq!(waiting(0), waiting(999));
        assert_eq!(waiting(2_000), waiting(3_999));
        assert_ne!(waiting(0), waiting(1_000));
        assert_ne!(waiting(3_999), waiting(4_000));
        assert_ne!(waiting(0), of(&Own { takes_work: false, ..own(&[hosted(0)], &[]) }));
        assert_ne!(waiting(0), of(&Own { said: stamp(8), ..own(&[hosted(0)], &[]) }));
        assert_ne!(waiting(0), of(&own(&[], &[])));
        let by_way = |round_trip_us, bytes_per_second| {
            of(&own(&[], &[LinkEstimate { peer: node(1), round_trip_us, bytes_per_second }]))
        };
        assert_eq!(by_way(200, 5_000_000), by_way(900, 6_000_000));
        assert_ne!(by_way(200, 5_000_000), by_way(200, 1_000_000));
        assert_ne!(by_way(200, 5_000_000), by_way(20_000, 5_000_000));
        assert_ne!(by_way(200, 5_000_000), of(&own(&[], &[])));
    }

    #[test]
    fn no_more_plans_are_kept_than_there_is_room_for_and_the_oldest_goes() {
        let mut table = PlanTable::default();
        let now = basis(&[(1, 1)], &[]);
        for index in 0..PLANS_MAX as u64 + 10 {
            table.keep(index, key(index as f64 + 1.0), now, plan(1), ());
        }
        assert_eq!(table.by_key.len(), PLANS_MAX);
        assert!(table.look_up(1_000, &key(1.0), now).is_none());
        assert!(table.look_up(1_000, &key(PLANS_MAX as f64), now).is_some());
        assert_eq!(table.figures(), Figures { looked_up: 1, missed: 1 });
    }

    #[test]
    fn what_was_asked_lately_is_planned_again_once() {
        let mut table = PlanTable::default();
        let (before, now) = (basis(&[(1, 1), (2, 1)], &[]), basis(&[(1, 1)], &[]));
        table.keep(0, key(1.0), before, plan(2), "first");
        table.keep(5_000, key(2.0), before, plan(2), "second");
        table.keep(5_001, key(3.0), before, plan(2), "third");
        assert!(table.stale(6_000, before, 8).is_empty());
        let due = |table: &mut PlanTable<&'static str>, most| -> Vec<&str> {
            table.stale(11_000, now, most).into_iter().map(|(_, asked)| asked).collect()
        };
        assert_eq!(due(&mut table, 1), ["third"]);
        assert_eq!(due(&mut table, 8), ["second"], "the first was not asked for in ten seconds");
        assert!(due(&mut table, 8).is_empty());
        table.refreshed(&key(3.0), now, Some(plan(1)));
        table.refreshed(&key(2.0), now, None);
        assert_eq!(table.look_up(11_000, &key(3.0), now), Some(&plan(1)));
        assert_eq!(table.look_up(11_000, &key(2.0), now), None);
    }

    proptest! {
        /// Nodes go, come back, say something new, are suspected; a plan that is looked up is always one that was made of
        /// exactly the nodes that may be used at that moment.
        #[test]
        fn no_plan_leads_to_who_has_gone(events in proptest::collection::vec((0..5_u8, 1..6_u8), 0..200)) {
            let mut table: PlanTable<()> = PlanTable::default();
            let mut nodes: BTreeMap<u8, u64> = (1..6).map(|index| (index, 1)).collect();
            let mut suspects: Vec<u8> = Vec::new();
            for (now_ms, (event, index)) in events.into_iter().enumerate() {
                match event {
                    0 => { nodes.remove(&index); }
                    1 => { *nodes.entry(index).or_insert(1) += 1; }
                    2 => suspects = vec![index],
                    3 => suspects.clear(),
                    _ => {}
                }
                let usable: Vec<(u8, u64)> = nodes.iter().map(|(index, sequence)| (*index, *sequence)).collect();
                let now = basis(&usable, &suspects);
                let may_run = |host: &NodeId| usable.iter().any(|(index, _)| {
                    node(*index) == *host && !suspects.contains(index)
                });
                match table.look_up(now_ms as u64, &key(1.0), now) {
                    Some(plan) => prop_assert!(may_run(&plan.stages[0].node)),
                    None => {
                        let host = usable.iter().map(|(index, _)| *index).find(|index| !suspects.contains(index));
                        if let Some(host) = host {
                            table.keep(now_ms as u64, key(1.0), now, plan(host), ());
                        }
                    }
                }
            }
        }
    }
}
