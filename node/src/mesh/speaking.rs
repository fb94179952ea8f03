//! What this node says of itself, and when: a record is made when there is something to say, and gossiped at once
//! when others plan by it.

use stormo_protocol::coordinate::Coordinate;
use stormo_protocol::state::{Hosted, LinkEstimate, Load};

use super::member::About;

/// Urgent records of a node in quick succession, at most.
const BURST: u64 = 8;
/// Of these, what a changed load leaves for changes that matter more.
const RESERVED: u64 = 4;
/// Between urgent records in the long run: at least, and for each node of the mesh, milliseconds.
const URGENT_EACH_MS: (u64, u64) = (2_000, 50);
/// Between records that say nothing urgent: at least, and for each node of the mesh, milliseconds. Each reaches every
/// node once, so this is what bounds a node's bytes: 12 records a second.
const SLOW_EACH_MS: (u64, u64) = (2_000, 80);
/// A share of the cores that is worth telling at once, and some time, thousandths.
const UTILISATION_PERMILLE: (u16, u16) = (300, 50);
/// A wait that is worth telling at once if it doubled, or halved, microseconds.
const WAIT_US: u64 = 20_000;
/// Estimates below this differ by chance, microseconds.
const NOISE_US: u64 = 300;

/// A place that moved by more than this is worth telling, microseconds: measures that stray move it all the time.
const MOVED_US: f64 = 2_000.0;

/// How much others miss if they do not hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Nothing,
    /// It can wait.
    Drift,
    /// Plans get worse without it.
    Jump,
    /// Plans fail without it.
    Urgent,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speak {
    Nothing,
    /// A new record, which exchanges spread.
    Note,
    /// A new record, gossiped.
    Call,
}

#[derive(Debug, Default)]
pub(super) struct Speaking {
    now: Option<About>,
    said: Option<(About, Vec<LinkEstimate>, Option<Coordinate>)>,
    said_ms: u64,
    /// When the urgent records so far are paid for, milliseconds (GCRA, as ATM's traffic management has it).
    paid_ms: u64,
}

impl Speaking {
    /// This is how the node is.
    pub(super) fn is(&mut self, about: About) {
        self.now = Some(about);
    }

    /// How the node is.
    pub(super) fn about(&self) -> Option<&About> {
        self.now.as_ref()
    }

    /// A record said so.
    pub(super) fn said(&mut self, now_ms: u64, links: Vec<LinkEstimate>, place: Option<Coordinate>) {
        self.said = self.now.clone().map(|about| (about, links, place));
        self.said_ms = now_ms;
    }

    /// Whether there is something to say in a mesh of so many nodes.
    pub(super) fn next(
        &mut self,
        now_ms: u64,
        nodes: u64,
        links: &[LinkEstimate],
        place: Option<Coordinate>,
    ) -> Speak {
        let Some(now) = &self.now else { return Speak::Nothing };
        let Some((said, said_links, said_place)) = &self.said else { return Speak::Note };
        let weight = weight(said, now);
        let due_ms = self.said_ms + SLOW_EACH_MS.0.max(SLOW_EACH_MS.1 * nodes);
        let drifts = || links_differ(said_links, links) || has_moved(*said_place, place);
        let is_due = now_ms >= due_ms && (weight > Weight::Nothing || drifts());
        let left = if weight == Weight::Urgent { 0 } else { RESERVED };
        if weight >= Weight::Jump && self.may_call(now_ms, nodes, left) {
            return Speak::Call;
        }
        if is_due { Speak::Note } else { Speak::Nothing }
    }

    /// Takes one of the urgent records that are left, if there are more than so many.
    fn may_call(&mut self, now_ms: u64, nodes: u64, left: u64) -> bool {
        let each_ms = URGENT_EACH_MS.0.max(URGENT_EACH_MS.1 * nodes);
        let paid_ms = self.paid_ms.max(now_ms) + each_ms;
        let may = paid_ms <= now_ms + (BURST - left) * each_ms;
        if may {
            self.paid_ms = paid_ms;
        }
        may
    }
}

fn weight(said: &About, now: &About) -> Weight {
    let ranges = |hosted: &[Hosted]| -> Vec<_> {
        hosted.iter().map(|hosted| (hosted.variant, hosted.first, hosted.end)).collect()
    };
    if said.machine != now.machine
        || said.offer != now.offer
        || said.domains != now.domains
        || said.load.leaving != now.load.leaving
        || ranges(&said.hosted) != ranges(&now.hosted)
    {
        return Weight::Urgent;
    }
    let wait_us =
        |about: &About| about.hosted.iter().map(|hosted| hosted.queue_wait_us).max().unwrap_or_default();
    let [was_us, is_us] = [said, now].map(wait_us);
    let utilised = said.load.utilisation_permille.abs_diff(now.load.utilisation_permille);
    let waits_change = was_us.abs_diff(is_us) >= WAIT_US && was_us.max(is_us) >= 2 * was_us.min(is_us);
    if utilised >= UTILISATION_PERMILLE.0 || waits_change || said.goals != now.goals {
        return Weight::Jump;
    }
    let drifts = utilised >= UTILISATION_PERMILLE.1
        || loads_differ(&said.load, &now.load)
        || said.demands != now.demands
        || said.hosted.iter().zip(&now.hosted).any(|(said, now)| {
            differ(said.time_us, now.time_us)
                || differ(said.p95_us, now.p95_us)
                || differ(said.queue_wait_us, now.queue_wait_us)
        });
    if drifts { Weight::Drift } else { Weight::Nothing }
}

fn loads_differ(said: &Load, now: &Load) -> bool {
    said.memory_used_bytes != now.memory_used_bytes
        || differ(said.cold_us, now.cold_us)
        || differ(said.cold_us_per_mb, now.cold_us_per_mb)
}

/// By more than a fifth, and more than what measures differ by anyway.
fn differ(said_us: u64, now_us: u64) -> bool {
    let apart = said_us.abs_diff(now_us);
    apart > NOISE_US && apart > said_us.max(now_us) / 5
}

/// Alone it is never urgent: it waits until something else could be said.
fn has_moved(said: Option<Coordinate>, now: Option<Coordinate>) -> bool {
    match (said, now) {
        (Some(said), Some(now)) => said.moved_us(now) > MOVED_US,
        (said, now) => said.is_some() != now.is_some(),
    }
}

fn links_differ(said: &[LinkEstimate], now: &[LinkEstimate]) -> bool {
    // The nearest of many neighbours come and go with each measurement: what counts is whether one is new.
    now.iter().any(|now| {
        said.iter().find(|said| said.peer == now.peer).is_none_or(|said| {
            differ(u64::from(said.round_trip_us), u64::from(now.round_trip_us))
                || said.bytes_per_second.abs_diff(now.bytes_per_second) > said.bytes_per_second / 3
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::member::testing::about;
    use stormo_protocol::ids::{DeploymentId, NodeId, VariantId};

    fn speaking() -> Speaking {
        let mut speaking = Speaking::default();
        speaking.is(about(1));
        speaking.said(0, vec![], None);
        speaking
    }

    fn hosting(first: u16, queue_wait_us: u64) -> About {
        let variant = VariantId { deployment: DeploymentId([1; 16]), index: 0 };
        let hosted = Hosted { variant, first, end: 9, time_us: 1_000, p95_us: 1_200, queue_wait_us };
        About { hosted: vec![hosted], ..about(1) }
    }

    #[test]
    fn who_has_nothing_to_say_says_nothing() {
        let mut speaking = speaking();
        assert!((0..600).all(|second| speaking.next(second * 1_000, 3, &[], None) == Speak::Nothing));
    }

    #[test]
    fn a_first_record_is_made_and_what_plans_need_is_called_out() {
        let mut speaking = Speaking::default();
        assert_eq!(speaking.next(0, 1, &[], None), Speak::Nothing, "it does not know itself yet");
        speaking.is(about(1));
        assert_eq!(speaking.next(0, 1, &[], None), Speak::Note);
        speaking.said(0, vec![], None);
        speaking.is(hosting(0, 0));
        assert_eq!(speaking.next(1, 1_000, &[], None), Speak::Call);
    }

    #[test]
    fn urgent_records_come_in_a_burst_and_then_slowly_and_load_leaves_some() {
        let mut speaking = speaking();
        let mut called = 0;
        for tick in 0..1_000 {
            speaking.is(hosting(0, if tick % 2 == 0 { 0 } else { 200_000 }));
            if speaking.next(0, 10, &[], None) == Speak::Call {
                called += 1;
                speaking.said(0, vec![], None);
            }
        }
        // The first of these is a new range.
        assert_eq!(called, BURST - RESERVED);
        for first in 0..20 {
            speaking.is(hosting(first, 0));
            if speaking.next(0, 10, &[], None) == Speak::Call {
                called += 1;
                speaking.said(0, vec![], None);
            }
        }
        assert_eq!(called, BURST);
        assert_eq!(speaking.next(URGENT_EACH_MS.0, 10, &[], None), Speak::Call, "later");
    }

    #[test]
    fn drift_waits_longer_in_larger_meshes() {
        for (nodes, due_ms) in [(2, 2_000), (100, 8_000), (1_000, 80_000)] {
            let mut speaking = speaking();
            let link = LinkEstimate { peer: NodeId([2; 32]), round_trip_us: 900, bytes_per_second: 0 };
            assert_eq!(speaking.next(due_ms - 1, nodes, &[link], None), Speak::Nothing);
            assert_eq!(speaking.next(due_ms, nodes, &[link], None), Speak::Note);
            speaking.said(due_ms, vec![link], None);
            let near = LinkEstimate { round_trip_us: 1_000, ..link };
            assert_eq!(speaking.next(3 * due_ms, nodes, &[near], None), Speak::Nothing, "noise");
        }
    }

    #[test]
    fn a_place_alone_is_never_urgent_and_told_once_it_moved_far() {
        let place = |us| Coordinate::of([us, 0.0], 100.0, 0.2);
        let mut speaking = speaking();
        assert_eq!(speaking.next(SLOW_EACH_MS.0 - 1, 3, &[], place(0.0)), Speak::Nothing);
        assert_eq!(speaking.next(SLOW_EACH_MS.0, 3, &[], place(0.0)), Speak::Note, "the first");
        speaking.said(0, vec![], place(0.0));
        assert_eq!(speaking.next(60_000, 3, &[], place(MOVED_US)), Speak::Nothing);
        assert_eq!(speaking.next(60_000, 3, &[], place(MOVED_US + 100.0)), Speak::Note);
    }
}
