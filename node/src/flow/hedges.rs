//! When a delivery takes long, and what that says of who was sent it. *Hedging* (Dean and Barroso, "The Tail at Scale", 2013):
//! what a host has not passed on after the time within which nearly all of its deliveries are is sent to another one, too,
//! and the first to pass it on wins. What that may cost is bounded: one in twenty deliveries.
//!
//! A delivery's time is from its opening to `Passed`, so it includes that the stage behind has taken the output. A host is
//! *late* by the least that its last deliveries took beyond the usual, ended or not, three at least over a tenth of a second: one
//! slow run says nothing, and one quick answer ends it. Nobody asks who is late; with time that counts for less, and somebody tries again.

use std::collections::{BTreeMap, VecDeque};

use stormo_protocol::frame::DeliveryKey;
use stormo_protocol::ids::{NodeId, RequestId, VariantId};

/// Deliveries to a part that count; the 95th of a hundred is the third slowest of these.
const TIMES_MAX: usize = 64;
/// With fewer nobody knows what is usual.
const TIMES_MIN: usize = 8;
/// Parts and hosts that are remembered; of one mesh those that one node sends to are fewer.
const PARTS_MAX: usize = 512;
const HOSTS_MAX: usize = 512;
/// A hedge begins not before half as much again as the median, which chance alone does not reach often; and at four times
/// the median at the latest, so that a slow host does not become the rule by which it is judged.
const AFTER_MEDIANS: [f64; 2] = [1.5, 4.0];
/// Nor before this, beside the round trip: timers and threads alone take some of it.
const AFTER_US_MIN: u64 = 5_000;
/// Of a stage with another one behind it not before this: by then it has said whether it only waits for that one.
const AFTER_US_MIN_CHAINED: u64 = 25_000;
/// Hedges per thousand deliveries, and how many of them may be saved up.
const BUDGET_PERMILLE: u32 = 50;
const SAVED_MAX: u32 = 32;
/// Deliveries by which a host is judged: so many at least, over so long at least, and so many at most. All that are under way meet one
/// short stall together.
const JUDGED: (usize, usize) = (3, 64);
const JUDGED_MS: u64 = 100;
/// A host that is late and not sent to counts for half as late after this.
const HALF_LIFE_MS: u64 = 2_000;

/// Some blocks on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The host.
    pub node: NodeId,
    /// What the blocks belong to.
    pub variant: VariantId,
    /// The first.
    pub first: u16,
    /// One past the last.
    pub end: u16,
}

/// What deliveries to a part took.
#[derive(Debug, Default)]
struct Times {
    last_us: VecDeque<u64>,
    median_us: u64,
    p95_us: u64,
    /// When it was sent to, counted in deliveries.
    used: u64,
}

impl Times {
    fn note(&mut self, time_us: u64) {
        if self.last_us.len() == TIMES_MAX {
            self.last_us.pop_front();
        }
        self.last_us.push_back(time_us);
        let mut sorted: Vec<u64> = self.last_us.iter().copied().collect();
        sorted.sort_unstable();
        let quantile = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
        (self.median_us, self.p95_us) = (quantile(50), quantile(95));
    }

    /// After how long a delivery is late; none, if nobody knows.
    fn after_us(&self) -> Option<u64> {
        let [least, most] = AFTER_MEDIANS.map(|times| (self.median_us as f64 * times) as u64);
        (self.last_us.len() >= TIMES_MIN).then(|| self.p95_us.clamp(least, most).max(AFTER_US_MIN))
    }
}

/// What a delivery took beyond the usual, as far as is known, and when it was first known.
#[derive(Debug)]
struct Judged {
    key: DeliveryKey,
    late_us: u64,
    noted_ms: u64,
}

/// A host's last deliveries, the latest last.
#[derive(Debug, Default)]
struct Lateness {
    judged: VecDeque<Judged>,
    changed_ms: u64,
}

impl Lateness {
    /// Whether those behind so many are enough.
    fn are_enough(&self, skipped: usize) -> bool {
        let (first, last) = (self.judged.get(skipped), self.judged.back());
        let spans = |(first, last): (&Judged, &Judged)| last.noted_ms.saturating_sub(first.noted_ms);
        self.judged.len() >= JUDGED.0 + skipped
            && first.zip(last).map(spans).is_some_and(|ms| ms >= JUDGED_MS)
    }
}

/// All that a node knows of the deliveries that it sent.
#[derive(Debug, Default)]
pub struct Hedges {
    times: BTreeMap<Part, Times>,
    late: BTreeMap<NodeId, Lateness>,
    sent: u64,
    /// Hedges that may be begun, in thousandths.
    saved_permille: u32,
}

impl Hedges {
    /// A delivery to a part begins. After how many microseconds another host should be sent the same, if none is told of that
    /// this one passed it on; never, where too little is known. `is_chained` says whether another stage is behind it.
    pub fn begun(&mut self, part: Part, round_trip_us: u64, is_chained: bool) -> Option<u64> {
        self.sent += 1;
        self.saved_permille = (self.saved_permille + BUDGET_PERMILLE).min(SAVED_MAX * 1_000);
        let times = self.times.get_mut(&part)?;
        times.used = self.sent;
        let least_us = if is_chained { AFTER_US_MIN_CHAINED } else { AFTER_US_MIN };
        Some(times.after_us()?.max(least_us.saturating_add(round_trip_us)))
    }

    /// A delivery is late, and not over after this time.
    pub fn waits(&mut self, now_ms: u64, key: DeliveryKey, part: Part, so_far_us: u64) {
        let median_us = self.times.get(&part).map_or(so_far_us, |times| times.median_us);
        self.judge(now_ms, key, part.node, so_far_us.saturating_sub(median_us));
    }

    /// A part passed on what it was sent, after this time; it was to be late after that one.
    pub fn passed(
        &mut self,
        now_ms: u64,
        key: DeliveryKey,
        (part, after_us): (Part, Option<u64>),
        time_us: u64,
    ) {
        if !self.times.contains_key(&part) {
            self.make_room();
        }
        let used = self.sent;
        let times = self.times.entry(part).or_insert_with(|| Times { used, ..Times::default() });
        let is_late = after_us.is_some_and(|after_us| time_us > after_us);
        let late_us = if is_late { time_us.saturating_sub(times.median_us) } else { 0 };
        times.note(time_us);
        self.judge(now_ms, key, part.node, late_us);
    }

    fn make_room(&mut self) {
        if self.times.len() >= PARTS_MAX {
            let oldest = self.times.iter().min_by_key(|(_, times)| times.used).map(|(part, _)| *part);
            oldest.and_then(|part| self.times.remove(&part));
        }
    }

    /// What a delivery took is known, or that it took so long at least.
    fn judge(&mut self, now_ms: u64, key: DeliveryKey, node: NodeId, late_us: u64) {
        if late_us == 0 && !self.late.contains_key(&node) {
            return;
        }
        if self.late.len() >= HOSTS_MAX && !self.late.contains_key(&node) {
            let oldest = self.late.iter().min_by_key(|(_, late)| late.changed_ms).map(|(node, _)| *node);
            oldest.and_then(|node| self.late.remove(&node));
        }
        let late = self.late.entry(node).or_default();
        late.changed_ms = now_ms;
        match late.judged.iter_mut().find(|judged| judged.key == key) {
            Some(judged) => judged.late_us = late_us,
            None => late.judged.push_back(Judged { key, late_us, noted_ms: now_ms }),
        }
        while late.judged.len() > JUDGED.1 || late.are_enough(1) {
            late.judged.pop_front();
        }
        // Who was quick so often is nobody to remember.
        if late.judged.iter().all(|judged| judged.late_us == 0) {
            self.late.remove(&node);
        }
    }

    /// An answer tells of a host that another node sent to: that it ran its stage, or that another one had to; what that took.
    pub fn heard(&mut self, now_ms: u64, key: DeliveryKey, node: NodeId, instead_us: Option<u64>) {
        // It was waited for as long at least before.
        self.judge(now_ms, key, node, instead_us.map_or(0, |run_us| run_us.max(AFTER_US_MIN)));
    }

    /// A stage behind this one was in somebody else's way: what a request took says nothing of those before.
    pub fn excuse(&mut self, request: RequestId) {
        let others = |judged: &Judged| judged.key.request != request;
        self.late.values_mut().for_each(|late| late.judged.retain(others));
    }

    /// How late a host is, microseconds; 0 for all who are as usual.
    pub fn late_us(&self, now_ms: u64, node: NodeId) -> u64 {
        let Some(late) = self.late.get(&node).filter(|late| late.are_enough(0)) else { return 0 };
        let least_us = late.judged.iter().map(|judged| judged.late_us).min().unwrap_or(0);
        let halved = now_ms.saturating_sub(late.changed_ms) as f64 / HALF_LIFE_MS as f64;
        (least_us as f64 * (-halved).exp2()) as u64
    }

    /// All hosts that are late, and by how many microseconds.
    pub fn late(&self, now_ms: u64) -> impl Iterator<Item = (NodeId, u64)> {
        let late_us = move |node: &NodeId| (*node, self.late_us(now_ms, *node));
        self.late.keys().map(late_us).filter(|(_, late_us)| *late_us > 0)
    }

    /// Whether one more hedge may begin; if so, it counts.
    pub fn may_begin(&mut self) -> bool {
        let left = self.saved_permille.checked_sub(1_000);
        self.saved_permille = left.unwrap_or(self.saved_permille);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stormo_protocol::frame::{Edge, ORIGIN};
    use stormo_protocol::ids::DeploymentId;

    use super::*;

    fn part(node: u8) -> Part {
        let variant = VariantId { deployment: DeploymentId([1; 16]), index: 0 };
        Part { node: NodeId([node; 32]), variant, first: 0, end: 4 }
    }

    fn key(number: u64) -> DeliveryKey {
        let mut request = [0; 16];
        request[..8].copy_from_slice(&number.to_le_bytes());
        DeliveryKey { request: RequestId(request), attempt: 1, edge: Edge { from: ORIGIN, to: 0 } }
    }

    /// Deliveries to a host that took this long each.
    fn usual(hedges: &mut Hedges, node: u8, times_us: impl IntoIterator<Item = u64>) {
        for (number, time_us) in times_us.into_iter().enumerate() {
            let after_us = hedges.begun(part(node), 0, false);
            hedges.passed(0, key(1_000 + number as u64), (part(node), after_us), time_us);
        }
    }

    #[test]
    fn a_hedge_begins_when_nearly_all_others_have_passed() {
        let mut hedges = Hedges::default();
        usual(&mut hedges, 1, (0..TIMES_MIN as u64 - 1).map(|_| 20_000));
        assert_eq!(hedges.begun(part(1), 0, false), None, "too little is known");
        usual(&mut hedges, 1, [20_000]);
        assert_eq!(hedges.begun(part(1), 0, false), Some(30_000), "half as much again");
        usual(&mut hedges, 1, (0..64).map(|number| 20_000 + 500 * number));
        assert_eq!(hedges.begun(part(1), 0, false), Some(54_000), "1.5 medians");
        usual(&mut hedges, 1, (0..60).map(|_| 20_000).chain([70_000, 71_000, 72_000, 900_000]));
        assert_eq!(hedges.begun(part(1), 0, false), Some(70_000), "the 95th of a hundred");
        usual(&mut hedges, 1, (0..10).map(|_| 900_000));
        assert_eq!(hedges.begun(part(1), 0, false), Some(80_000), "no rule for itself");
        usual(&mut hedges, 2, (0..9).map(|_| 100));
        assert_eq!(hedges.begun(part(2), 200, false), Some(AFTER_US_MIN + 200));
        assert_eq!(hedges.begun(part(2), 200, true), Some(AFTER_US_MIN_CHAINED + 200));
        assert_eq!(hedges.begun(Part { first: 1, ..part(2) }, 0, false), None, "another part");
    }

    #[test]
    fn who_is_late_three_times_in_a_row_is_late_until_it_is_quick() {
        let mut hedges = Hedges::default();
        usual(&mut hedges, 1, (0..20).map(|_| 10_000));
        let late = |hedges: &Hedges| hedges.late_us(200, NodeId([1; 32]));
        hedges.waits(0, key(1), part(1), 15_000);
        hedges.waits(110, key(2), part(1), 20_000);
        hedges.waits(110, key(1), part(1), 30_000);
        assert_eq!(late(&hedges), 0, "two");
        hedges.waits(200, key(3), part(1), 15_000);
        assert_eq!(late(&hedges), 5_000, "the least of the three, and at least that");
        hedges.passed(200, key(3), (part(1), Some(15_000)), 500_000);
        assert_eq!(late(&hedges), 10_000);
        hedges.waits(200, key(4), part(1), 60_000);
        assert_eq!(late(&hedges), 10_000);
        hedges.waits(210, key(5), part(1), 80_000);
        hedges.waits(220, key(6), part(1), 80_000);
        assert_eq!(late(&hedges), 10_000, "the others are of one moment");
        hedges.waits(300, key(7), part(1), 90_000);
        assert_eq!(hedges.late_us(300, NodeId([1; 32])), 50_000);
        hedges.passed(300, key(8), (part(1), Some(15_000)), 11_000);
        assert_eq!((hedges.late_us(300, NodeId([1; 32])), hedges.late(300).count()), (0, 0));
    }

    #[test]
    fn who_is_not_asked_is_less_and_less_late() {
        let mut hedges = Hedges::default();
        usual(&mut hedges, 1, (0..20).map(|_| 10_000));
        (1..=3).for_each(|number| hedges.waits(100 * number + 200, key(number), part(1), 810_000));
        let node = NodeId([1; 32]);
        let late = [0, 1, 2, 8].map(|times| hedges.late_us(500 + times * HALF_LIFE_MS, node));
        assert_eq!(late, [800_000, 400_000, 200_000, 3_125]);
    }

    #[test]
    fn who_waited_for_others_is_excused() {
        let mut hedges = Hedges::default();
        usual(&mut hedges, 1, (0..20).map(|_| 10_000));
        (1..=3).for_each(|number| hedges.waits(100 * number, key(number), part(1), 90_000));
        assert_eq!(hedges.late_us(300, NodeId([1; 32])), 80_000);
        hedges.excuse(key(2).request);
        assert_eq!(hedges.late_us(300, NodeId([1; 32])), 0);
    }

    #[test]
    fn a_single_slow_run_changes_nothing() {
        let mut hedges = Hedges::default();
        usual(&mut hedges, 1, (0..200).map(|number| if number % 20 == 19 { 90_000 } else { 10_000 }));
        assert_eq!((hedges.late_us(0, NodeId([1; 32])), hedges.late(0).count()), (0, 0));
    }

    proptest! {
        #[test]
        fn never_more_than_one_in_twenty(wanted in proptest::collection::vec(any::<bool>(), 0..2_000)) {
            let mut hedges = Hedges::default();
            let mut begun = 0;
            for (sent, wants) in wanted.into_iter().enumerate() {
                hedges.begun(part(1), 0, false);
                begun += usize::from(wants && hedges.may_begin());
                prop_assert!(begun * 1_000 <= (sent + 1) * BUDGET_PERMILLE as usize);
            }
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut hedges = Hedges::default();
        for number in 0..2_000_u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_le_bytes());
            let part = Part { node: NodeId(id), ..part(0) };
            hedges.begun(part, 0, false);
            hedges.passed(number, key(number), (part, None), 9_000);
            hedges.waits(number, key(number + 1_000_000), part, 90_000);
            let one = Part { node: NodeId([9; 32]), ..part };
            hedges.waits(number, key(number + 2_000_000), one, 90_000);
        }
        assert_eq!((hedges.times.len(), hedges.late.len()), (PARTS_MAX, HOSTS_MAX));
        assert!(hedges.late.values().all(|late| late.judged.len() <= JUDGED.1));
    }
}
