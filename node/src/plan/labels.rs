//! Label setting: a forward sweep over cuts that remembers, for every partial plan worth keeping,
//! what it has used up. For questions where stages are coupled and the plain dynamic programme
//! only bounds: memory that a node's runs share, and chains whose nodes must be distinct.
//!
//! A label is dropped if another at the same state is no later and has used no more of anything.
//! With a limit of labels per state the sweep is quick and finds good plans; without one, it is
//! exact unless its work runs out.

use super::bounds::{Bounds, Last, Way};
use super::claims::Claims;
use super::costs::Costs;
use super::price::StageShape;

/// Plans kept for each number of stages.
const COMPLETIONS_PER_COUNT: usize = 4;

const NO_PARENT: usize = usize::MAX;

/// What couples the stages of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The runs that one node would load must fit its memory together; any number of stages.
    SharedMemory,
    /// Every stage on a node of its own, up to this many stages; at most 64 members.
    DistinctNodes { stages_max: usize },
}

/// One sweep.
pub(super) struct Search<'a> {
    pub(super) costs: &'a Costs<'a>,
    pub(super) bounds: &'a Bounds,
    pub(super) rule: Rule,
    /// How many stages the bounds count, if they do; else zero.
    pub(super) stages_counted: usize,
    /// Only plans below this latency matter.
    pub(super) below_ms: f64,
    pub(super) labels_per_state: usize,
    /// Labels looked at, at most.
    pub(super) work_max: usize,
}

/// What a sweep found.
pub(super) struct Outcome {
    /// The best few for each number of stages, in order of latency for each.
    pub(super) completions: Vec<Completion>,
    /// Whether no label was dropped for want of room or work: then the first completion of each
    /// number of stages is the best of all below the given latency.
    pub(super) is_exact: bool,
    pub(super) work: usize,
}

/// A whole plan.
pub(super) struct Completion {
    /// With losses at their price.
    pub(super) latency_ms: f64,
    pub(super) stages: Vec<StageShape>,
}

/// What a partial plan has used up.
#[derive(Clone, Default)]
struct Ledger {
    /// One bit for each member, under [`Rule::DistinctNodes`].
    visited: u64,
    /// Under [`Rule::SharedMemory`], and only where the rest of the model might not fit as well.
    claims: Claims,
}

/// A partial plan: its last stage and, by its parent, those before.
struct Label {
    ledger: Ledger,
    parent: usize,
    stage: StageShape,
    last: Last,
}

/// A label at a state, with the time to get there.
#[derive(Clone, Copy)]
struct Entry {
    latency_ms: f64,
    label: usize,
}

struct Sweep<'a> {
    search: &'a Search<'a>,
    labels: Vec<Label>,
    /// `[stages used][cut][member]`, in order of latency; stages are not counted under
    /// [`Rule::SharedMemory`].
    at: Vec<Vec<Entry>>,
    tally: Tally,
}

struct Tally {
    work: usize,
    is_exact: bool,
}

impl Ledger {
    fn uses_no_more_than(&self, other: &Ledger) -> bool {
        self.visited & !other.visited == 0 && self.claims.uses_no_more_than(&other.claims)
    }
}

impl Search<'_> {
    pub(super) fn run(&self) -> Outcome {
        let states = (self.layers() + 1) * (self.costs.block_count() + 1) * self.costs.member_count();
        let root = Label {
            ledger: Ledger::default(),
            parent: NO_PARENT,
            stage: StageShape { node: 0, first: 0, end: 0 },
            last: Last::Other,
        };
        let tally = Tally { work: 0, is_exact: true };
        let mut sweep = Sweep { search: self, labels: vec![root], at: vec![vec![]; states], tally };
        sweep.at[0].push(Entry { latency_ms: 0.0, label: 0 });
        for cut in 0..self.costs.block_count() {
            for used in 0..self.layers().max(1) {
                sweep.pass(used, cut);
            }
            if sweep.is_spent() {
                return Outcome { completions: vec![], is_exact: false, work: sweep.tally.work };
            }
        }
        sweep.outcome()
    }

    /// Numbers of stages that are told apart, beyond none.
    fn layers(&self) -> usize {
        match self.rule {
            Rule::SharedMemory => 0,
            Rule::DistinctNodes { stages_max } => stages_max,
        }
    }

    fn used_after(&self, used: usize) -> usize {
        (used + 1).min(self.layers())
    }

    fn index(&self, used: usize, cut: usize, member: usize) -> usize {
        (used * (self.costs.block_count() + 1) + cut) * self.costs.member_count() + member
    }

    /// What the ledger becomes when a member runs a range; none if that may not be.
    fn extend(&self, ledger: &Ledger, member: usize, first: usize, end: usize) -> Option<Ledger> {
        if let Rule::DistinctNodes { .. } = self.rule {
            return Some(Ledger { visited: ledger.visited | 1 << member, claims: Claims::default() });
        }
        let claims = ledger.claims.after_run(self.costs, member, first, end)?;
        Some(Ledger { visited: 0, claims })
    }

    /// Whether a plan that is there by now can still end below the latency that matters.
    fn is_hopeless(&self, latency_ms: f64, rest_ms: f64) -> bool {
        let total_ms = latency_ms + rest_ms;
        total_ms >= self.below_ms || total_ms.is_infinite()
    }

    /// Whether a state has no room for a label that comes this late. Known before the label's
    /// ledger is made, which costs more.
    fn is_full(&self, list: &[Entry], latency_ms: f64) -> bool {
        let last_kept = self.labels_per_state.checked_sub(1).and_then(|index| list.get(index));
        last_kept.is_some_and(|entry| entry.latency_ms <= latency_ms)
    }

    fn has_visited(&self, ledger: &Ledger, member: usize) -> bool {
        self.rule != Rule::SharedMemory && ledger.visited >> member & 1 == 1
    }

    fn stages_left(&self, used: usize) -> usize {
        self.stages_counted.saturating_sub(used)
    }
}

impl Sweep<'_> {
    fn is_spent(&self) -> bool {
        self.tally.work > self.search.work_max || !self.search.costs.is_wanted()
    }

    /// Carries all labels at a cut on: to the member that runs next, then to where its run ends.
    fn pass(&mut self, used: usize, cut: usize) {
        let search = self.search;
        let members = search.costs.member_count();
        let mut starts: Vec<Vec<Entry>> = vec![vec![]; members];
        for holder in 0..members {
            for entry in std::mem::take(&mut self.at[search.index(used, cut, holder)]) {
                self.enter_all(used, cut, holder, entry, &mut starts);
            }
        }
        for (member, entries) in starts.into_iter().enumerate() {
            self.run_member(used, cut, member, &entries);
        }
    }

    fn enter_all(&mut self, used: usize, cut: usize, holder: usize, entry: Entry, starts: &mut [Vec<Entry>]) {
        let search = self.search;
        if self.is_spent() {
            return;
        }
        let Label { ledger, last, .. } = &self.labels[entry.label];
        for (member, start) in starts.iter_mut().enumerate() {
            self.tally.work += 1;
            let way = Way { holder, last: *last, member };
            let rest_ms = search.bounds.enter_ms(search.costs, search.stages_left(used), cut, way);
            if search.has_visited(ledger, member) || search.is_hopeless(entry.latency_ms, rest_ms) {
                continue;
            }
            let latency_ms = entry.latency_ms + search.costs.enter_ms(holder, member, cut);
            if let Some(place) = place(search, &self.labels, &mut self.tally, start, latency_ms, ledger) {
                keep(search, &mut self.tally, start, place, Entry { latency_ms, label: entry.label });
            }
        }
    }

    fn run_member(&mut self, used: usize, cut: usize, member: usize, entries: &[Entry]) {
        let search = self.search;
        if entries.is_empty() {
            return;
        }
        let next = search.used_after(used);
        for end in cut + 1..=search.costs.block_count() {
            let run_ms = search.costs.run_ms(member, cut, end);
            let last = search.costs.last_after(member, cut, end);
            let rest_ms = search.bounds.at_ms(search.stages_left(next), end, member, last);
            let state = search.index(next, end, member);
            for entry in entries {
                self.tally.work += 1;
                let latency_ms = entry.latency_ms + run_ms;
                if self.is_spent() || search.is_hopeless(latency_ms, rest_ms) {
                    break;
                }
                if search.is_full(&self.at[state], latency_ms) {
                    self.tally.is_exact = false;
                    break;
                }
                let Some(ledger) = search.extend(&self.labels[entry.label].ledger, member, cut, end) else {
                    continue;
                };
                let list = &mut self.at[state];
                if let Some(place) = place(search, &self.labels, &mut self.tally, list, latency_ms, &ledger) {
                    let label = self.labels.len();
                    keep(search, &mut self.tally, list, place, Entry { latency_ms, label });
                    let stage =
                        StageShape { node: search.costs.node(member), first: cut as u16, end: end as u16 };
                    self.labels.push(Label { ledger, parent: entry.label, stage, last });
                }
            }
        }
    }

    fn outcome(self) -> Outcome {
        let search = self.search;
        let mut completions = vec![];
        for used in 0..=search.layers() {
            let mut ends: Vec<Entry> = vec![];
            for member in 0..search.costs.member_count() {
                let result_ms = search.costs.result_ms(member);
                let entries = &self.at[search.index(used, search.costs.block_count(), member)];
                ends.extend(
                    entries.iter().map(|entry| Entry { latency_ms: entry.latency_ms + result_ms, ..*entry }),
                );
            }
            ends.sort_by(|a, b| a.latency_ms.total_cmp(&b.latency_ms));
            ends.truncate(COMPLETIONS_PER_COUNT);
            let whole =
                |end: &Entry| Completion { latency_ms: end.latency_ms, stages: self.stages(end.label) };
            completions.extend(ends.iter().map(whole));
        }
        Outcome { completions, is_exact: self.tally.is_exact, work: self.tally.work }
    }

    fn stages(&self, label: usize) -> Vec<StageShape> {
        let mut stages = vec![];
        let mut label = &self.labels[label];
        while label.parent != NO_PARENT {
            stages.push(label.stage);
            label = &self.labels[label.parent];
        }
        stages.reverse();
        stages
    }
}

/// Where a new label belongs in a state's list, after what it makes pointless has left; none if it
/// is pointless itself, or there is no room.
fn place(
    search: &Search,
    labels: &[Label],
    tally: &mut Tally,
    list: &mut Vec<Entry>,
    latency_ms: f64,
    ledger: &Ledger,
) -> Option<usize> {
    let place = list.partition_point(|entry| entry.latency_ms <= latency_ms);
    tally.work += list.len();
    if list[..place].iter().any(|entry| labels[entry.label].ledger.uses_no_more_than(ledger)) {
        return None;
    }
    if place >= search.labels_per_state {
        tally.is_exact = false;
        return None;
    }
    let mut index = 0;
    list.retain(|entry| {
        index += 1;
        index <= place || !ledger.uses_no_more_than(&labels[entry.label].ledger)
    });
    Some(place)
}

fn keep(search: &Search, tally: &mut Tally, list: &mut Vec<Entry>, place: usize, entry: Entry) {
    list.insert(place, entry);
    if list.len() > search.labels_per_state {
        list.pop();
        tally.is_exact = false;
    }
}
