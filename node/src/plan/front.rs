//! Label setting over several criteria: a forward sweep over cuts that keeps, at every (cut, member), the
//! partial plans none of which is beaten by another in all that counts. For questions that one sum cannot
//! answer: limits of energy and loss beside latency, and the period of a stream.
//!
//! The method is that of resource-constrained shortest paths (Desrochers and Soumis, "A generalized permanent
//! labelling algorithm for the shortest path problem with time windows", INFOR 26, 1988), with lower bounds of
//! what is still to come from backward tables for each criterion alone.

use stormo_protocol::codec::payload::Codec;

use super::bounds::{Bounds, Last};
use super::claims::Claims;
use super::costs::{Costs, Member, Stock};
use super::effort::{Resource, Weighed};
use super::periods::{Busy, Periods};
use super::price::{PlanShape, StageShape};
use super::problem::Problem;

const NO_PARENT: usize = usize::MAX;

/// What plans are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Criterion {
    /// ms.
    Latency,
    /// Of the origin, without its radio's tail, mJ.
    Energy,
    /// Of accuracy.
    Loss,
    /// ms.
    Period,
}

/// A figure for each [`Criterion`].
pub(super) type Amounts = [f64; 4];

/// A problem over some members, with bounds for each criterion that is asked for.
pub(super) struct Ground<'a> {
    problem: &'a Problem,
    time: Side<'a>,
    energy: Option<Side<'a>>,
    periods: Option<Periods<'a>>,
}

/// Costs that add up, and the least of them to the result.
struct Side<'a> {
    costs: Costs<'a>,
    bounds: Bounds,
}

/// One sweep.
pub(super) struct Sweep<'a> {
    pub(super) ground: &'a Ground<'a>,
    /// What is to be least, and labels are ordered by.
    pub(super) key: Criterion,
    /// What else counts when partial plans are compared.
    pub(super) counts: [bool; 4],
    /// No plan may have more of anything; infinite: as much as it likes.
    pub(super) limits: Amounts,
    /// Only plans with less of the key matter.
    pub(super) below: f64,
    pub(super) labels_per_state: usize,
    /// Labels looked at, at most.
    pub(super) work_max: usize,
}

/// What a sweep found.
pub(super) struct Outcome {
    /// None beats another; in order of the key.
    pub(super) plans: Vec<PlanShape>,
    /// Whether no label was dropped for want of room or work.
    pub(super) is_exact: bool,
    pub(super) work: usize,
}

/// What a partial plan has used up.
#[derive(Clone)]
struct Spent {
    amounts: Amounts,
    claims: Claims,
    busy: Busy,
}

/// A partial plan: its last stage, how that one's input came, and by its parent what was before.
struct Label {
    parent: usize,
    member: usize,
    stage: StageShape,
    coding: usize,
    last: Last,
}

/// A partial plan at a state, with all that it has used up.
struct Entry {
    spent: Spent,
    label: usize,
    /// How tensors came from its last stage to the next, or home.
    coding: usize,
}

struct State<'a> {
    sweep: &'a Sweep<'a>,
    labels: Vec<Label>,
    /// `[cut][member]`, in order of the key.
    at: Vec<Vec<Entry>>,
    tally: Tally,
}

struct Tally {
    work: usize,
    is_exact: bool,
}

impl<'a> Ground<'a> {
    /// `members[0]` must be the origin; a weighed problem is over the same ones, or over more that come behind them.
    pub(super) fn new(
        stock: &Stock<'a>,
        energy: Option<&'a Weighed>,
        members: &[Member],
        with_period: bool,
    ) -> Self {
        let side = |stock: &Stock<'a>, members: &[Member]| {
            let costs = Costs::by_coding(stock, members.to_vec());
            let bounds = Bounds::over_all(&costs);
            Side { costs, bounds }
        };
        let time = side(stock, members);
        let periods = with_period.then(|| Periods::new(stock.problem, &time.costs));
        let of_energy = |weighed: &'a Weighed| {
            side(&Stock::new(&weighed.problem, stock.ranges), &weighed.members[..members.len()])
        };
        Self { problem: stock.problem, energy: energy.map(of_energy), periods, time }
    }

    /// The least of a criterion that any plan has; infinite if there is none.
    pub(super) fn least(&self, criterion: Criterion) -> f64 {
        self.rest(0, 0, Last::Other)[criterion as usize]
    }

    /// The least that is to come once a cut's tensors are at a member.
    fn rest(&self, cut: usize, member: usize, last: Last) -> Amounts {
        let of = |side: &Side| side.bounds.at_ms(0, cut, member, last);
        let energy = self.energy.as_ref().map_or(0.0, of);
        let period = self.periods.as_ref().map_or(0.0, |periods| periods.at_ms(cut, member));
        [of(&self.time), energy, 0.0, period]
    }

    /// The least that is to come once a member is about to run.
    fn rest_at_start(&self, cut: usize, member: usize) -> Amounts {
        let of = |side: &Side| side.bounds.start_ms(0, cut, member);
        let energy = self.energy.as_ref().map_or(0.0, of);
        let period = self.periods.as_ref().map_or(0.0, |periods| periods.start_ms(cut, member));
        [of(&self.time), energy, 0.0, period]
    }
}

impl Spent {
    fn uses_no_more_than(&self, other: &Self, counts: [bool; 4]) -> bool {
        let is_no_more = |index: usize| !counts[index] || self.amounts[index] <= other.amounts[index];
        (0..4).all(is_no_more)
            && self.claims.uses_no_more_than(&other.claims)
            && self.busy.uses_no_more_than(&other.busy)
    }
}

impl Sweep<'_> {
    pub(super) fn run(&self) -> Outcome {
        let costs = &self.ground.time.costs;
        let (blocks, members) = (costs.block_count(), costs.member_count());
        let spent = Spent { amounts: [0.0; 4], claims: Claims::default(), busy: Busy::default() };
        let stage = StageShape { node: 0, first: 0, end: 0 };
        let root = Label { parent: NO_PARENT, member: 0, stage, coding: 0, last: Last::Other };
        let tally = Tally { work: 0, is_exact: true };
        let at = (0..(blocks + 1) * members).map(|_| vec![]).collect();
        let mut state = State { sweep: self, labels: vec![root], at, tally };
        state.at[0].push(Entry { spent, label: 0, coding: 0 });
        for cut in 0..blocks {
            state.pass(cut);
        }
        state.outcome()
    }

    fn key(&self, spent: &Spent) -> f64 {
        spent.amounts[self.key as usize]
    }

    /// Whether a partial plan cannot end within the limits, or below what is known.
    fn is_hopeless(&self, amounts: &Amounts, rest: &Amounts) -> bool {
        let least = |index: usize| match index == Criterion::Period as usize {
            true => amounts[index].max(rest[index]),
            false => amounts[index] + rest[index],
        };
        let key = self.key as usize;
        // Sums that were made in another order differ by rounding.
        let is_beyond = |index: usize| least(index) > self.limits[index] * (1.0 + 1e-12);
        least(key) >= self.below
            || amounts[0].is_infinite()
            || least(key).is_infinite()
            || (0..4).any(is_beyond)
    }

    /// What a partial plan has used up after a hop.
    fn after_hop(&self, spent: &Spent, (from, to): (usize, usize), cut: usize, coding: usize) -> Amounts {
        let ground = self.ground;
        let mut amounts = spent.amounts;
        let [latency, energy, loss, period] = &mut amounts;
        *latency += ground.time.costs.hop_by_ms(from, to, cut, coding);
        *energy += ground.energy.as_ref().map_or(0.0, |side| side.costs.hop_by_ms(from, to, cut, coding));
        *loss += ground.problem.codings(cut as u16).nth(coding).map_or(0.0, |coding| coding.loss);
        if let Some(periods) = &ground.periods {
            let work = periods.hop(from, to, cut, coding);
            *period = work.into_iter().fold(*period, |period, work| period.max(spent.busy.with(work)));
        }
        amounts
    }

    /// What a partial plan has used up after a run.
    fn after_run(&self, spent: &Spent, member: usize, first: usize, end: usize) -> Amounts {
        let ground = self.ground;
        let mut amounts = spent.amounts;
        let [latency, energy, _, period] = &mut amounts;
        *latency += ground.time.costs.run_ms(member, first, end);
        *energy += ground.energy.as_ref().map_or(0.0, |side| side.costs.run_ms(member, first, end));
        if let Some(periods) = &ground.periods {
            let work = (Resource::Node(member), periods.run_ms(member, first, end));
            *period = period.max(spent.busy.with(work));
        }
        amounts
    }

    /// Whether a list has no room for what comes with this key. Known before all that is used up is put
    /// together, which costs more.
    fn is_full(&self, list: &[Entry], amounts: &Amounts) -> bool {
        let last = self.labels_per_state.checked_sub(1).and_then(|index| list.get(index));
        last.is_some_and(|last| self.key(&last.spent) <= amounts[self.key as usize])
    }
}

impl State<'_> {
    fn is_spent(&mut self) -> bool {
        let is_wanted = self.sweep.ground.time.costs.is_wanted();
        let is_spent = self.tally.work > self.sweep.work_max || !is_wanted;
        self.tally.is_exact &= !is_spent;
        is_spent
    }

    fn index(&self, cut: usize, member: usize) -> usize {
        cut * self.sweep.ground.time.costs.member_count() + member
    }

    /// Carries all labels at a cut on: to the member that runs next, then to where its run ends.
    fn pass(&mut self, cut: usize) {
        let members = self.sweep.ground.time.costs.member_count();
        let rests: Vec<Amounts> =
            (0..members).map(|member| self.sweep.ground.rest_at_start(cut, member)).collect();
        let mut starts: Vec<Vec<Entry>> = (0..members).map(|_| vec![]).collect();
        for holder in 0..members {
            let index = self.index(cut, holder);
            for entry in std::mem::take(&mut self.at[index]) {
                for (member, starts) in starts.iter_mut().enumerate() {
                    self.enter(cut, &entry, member, &rests[member], starts);
                }
            }
        }
        for (member, starts) in starts.into_iter().enumerate() {
            self.run_member(cut, member, &starts);
        }
    }

    fn enter(&mut self, cut: usize, entry: &Entry, member: usize, rest: &Amounts, starts: &mut Vec<Entry>) {
        let sweep = self.sweep;
        let ground = sweep.ground;
        let Entry { label, spent: ref before, .. } = *entry;
        let holder = self.labels[label].member;
        if self.is_spent() || !ground.time.costs.may_start(member, cut) {
            return;
        }
        let codings = if member == holder { 1 } else { 1 + ground.problem.codings[cut].len() };
        for coding in 0..codings {
            self.tally.work += 1;
            if sweep.is_hopeless(&before.amounts, rest) {
                return;
            }
            let amounts = match member == holder {
                true => before.amounts,
                false => sweep.after_hop(before, (holder, member), cut, coding),
            };
            if sweep.is_hopeless(&amounts, rest) {
                continue;
            }
            if sweep.is_full(starts, &amounts) {
                self.tally.is_exact = false;
                continue;
            }
            let mut spent = Spent { amounts, ..before.clone() };
            if let Some(periods) = ground.periods.as_ref().filter(|_| member != holder) {
                periods.hop(holder, member, cut, coding).into_iter().for_each(|work| spent.busy.add(work));
            }
            keep(sweep, &mut self.tally, starts, spent, || (label, coding));
        }
    }

    fn run_member(&mut self, cut: usize, member: usize, starts: &[Entry]) {
        let sweep = self.sweep;
        let costs = &sweep.ground.time.costs;
        if starts.is_empty() {
            return;
        }
        for end in cut + 1..=costs.block_count() {
            let busy_ms =
                sweep.ground.periods.as_ref().map_or(0.0, |periods| periods.run_ms(member, cut, end));
            let is_too_long = busy_ms > sweep.limits[Criterion::Period as usize];
            if is_too_long || costs.run_ms(member, cut, end).is_infinite() {
                continue;
            }
            let last = costs.last_after(member, cut, end);
            let rest = sweep.ground.rest(end, member, last);
            let index = self.index(end, member);
            for start in starts {
                self.tally.work += 1;
                if self.is_spent() {
                    return;
                }
                let before = &self.labels[start.label];
                let may_be_one =
                    before.member == member && before.last == Last::Cold && costs.may_merge(member, cut);
                if may_be_one && last == Last::Cold {
                    continue;
                }
                let amounts = sweep.after_run(&start.spent, member, cut, end);
                if sweep.is_hopeless(&amounts, &rest) {
                    continue;
                }
                if sweep.is_full(&self.at[index], &amounts) {
                    self.tally.is_exact = false;
                    continue;
                }
                let Some(claims) = start.spent.claims.after_run(costs, member, cut, end) else { continue };
                let mut spent = Spent { amounts, claims, busy: start.spent.busy.clone() };
                if let Some(periods) = &sweep.ground.periods {
                    spent.busy.add((Resource::Node(member), periods.run_ms(member, cut, end)));
                }
                let labels = &mut self.labels;
                keep(sweep, &mut self.tally, &mut self.at[index], spent, || {
                    let stage = StageShape { node: costs.node(member), first: cut as u16, end: end as u16 };
                    let (parent, coding) = (start.label, start.coding);
                    labels.push(Label { parent, member, stage, coding, last });
                    (labels.len() - 1, 0)
                });
            }
        }
    }

    fn outcome(mut self) -> Outcome {
        let sweep = self.sweep;
        let costs = &sweep.ground.time.costs;
        let blocks = costs.block_count();
        let mut ends: Vec<Entry> = vec![];
        for member in (0..costs.member_count()).filter(|member| costs.may_end(*member)) {
            for Entry { spent: before, label, .. } in &self.at[self.index(blocks, member)] {
                let codings = if member == 0 { 1 } else { 1 + sweep.ground.problem.codings[blocks].len() };
                for coding in 0..codings {
                    let amounts = match member {
                        0 => before.amounts,
                        _ => sweep.after_hop(before, (member, 0), blocks, coding),
                    };
                    if sweep.is_hopeless(&amounts, &[0.0; 4]) {
                        continue;
                    }
                    let spent = Spent { amounts, claims: Claims::default(), busy: Busy::default() };
                    keep(sweep, &mut self.tally, &mut ends, spent, || (*label, coding));
                }
            }
        }
        let plans = ends.iter().map(|end| self.shape(end)).collect();
        Outcome { plans, is_exact: self.tally.is_exact, work: self.tally.work }
    }

    fn shape(&self, end: &Entry) -> PlanShape {
        let codec = |cut: u16, coding: usize| {
            let coding = self.sweep.ground.problem.codings(cut).nth(coding);
            coding.map_or(Codec::Raw, |coding| coding.codec)
        };
        let mut codecs = vec![codec(self.sweep.ground.time.costs.block_count() as u16, end.coding)];
        let mut stages = vec![];
        let mut label = &self.labels[end.label];
        while label.parent != NO_PARENT {
            stages.push(label.stage);
            codecs.push(codec(label.stage.first, label.coding));
            label = &self.labels[label.parent];
        }
        stages.reverse();
        codecs.reverse();
        PlanShape { stages, codecs }
    }
}

/// Puts a partial plan into a state's list, in order of the key, unless one there beats it or there is no room;
/// those that it beats leave. `label` is only made for one that is kept.
fn keep(
    sweep: &Sweep,
    tally: &mut Tally,
    list: &mut Vec<Entry>,
    spent: Spent,
    label: impl FnOnce() -> (usize, usize),
) {
    let key = sweep.key(&spent);
    let place = list.partition_point(|entry| sweep.key(&entry.spent) <= key);
    tally.work += list.len();
    if list[..place].iter().any(|entry| entry.spent.uses_no_more_than(&spent, sweep.counts)) {
        return;
    }
    if place >= sweep.labels_per_state {
        tally.is_exact = false;
        return;
    }
    let mut index = 0;
    list.retain(|entry| {
        index += 1;
        index <= place || !spent.uses_no_more_than(&entry.spent, sweep.counts)
    });
    let (label, coding) = label();
    list.insert(place, Entry { spent, label, coding });
    if list.len() > sweep.labels_per_state {
        list.pop();
        tally.is_exact = false;
    }
}
