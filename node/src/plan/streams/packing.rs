//! A plan of a given period, if a hasty look finds one: a sweep over cuts that keeps few partial plans at each node,
//! those that took least of everybody's time, as long as the relaxation still sees a way home. Links that one plan
//! uses twice, and losses, are not counted: whoever prices the plan sees them.

use stormo_protocol::codec::payload::Codec;

use super::reach::Rest;
use super::{ROUNDING, Streams};
use crate::plan::coding::Coding;
use crate::plan::price::{PlanShape, StageShape};

/// Partial plans kept at each cut and node.
const LABELS: usize = 3;
/// Members that a partial plan can remember to have used.
pub(super) const MEMBERS_MAX: usize = u128::BITS as usize;

const NO_PARENT: usize = usize::MAX;

/// A partial plan: its last stage, how that one's input came, and by its parent what was before.
#[derive(Clone, Copy)]
struct Label {
    parent: usize,
    member: usize,
    first: usize,
    end: usize,
    codec: Codec,
}

/// A label at a state.
#[derive(Clone, Copy)]
struct Entry {
    label: usize,
    /// How busy the member is in all.
    busy_ms: f64,
    /// How long anybody was busy.
    taken_ms: f64,
    /// One bit for each member that ran something.
    used: u128,
}

/// About to run.
#[derive(Clone, Copy)]
struct Start {
    entry: Entry,
    codec: Codec,
}

/// A partial plan that may send a cut by a coding.
struct Sender {
    member: usize,
    entry: Entry,
    encode_ms: f64,
    /// How long anybody was busy, encoding included.
    taken_ms: f64,
}

/// What a member did in a partial plan.
#[derive(Default)]
struct Work {
    busy_ms: f64,
    weights_bytes: u64,
    peak_bytes: u64,
}

struct Packing<'a> {
    streams: &'a Streams<'a>,
    rest: Rest,
    most_ms: f64,
    labels: Vec<Label>,
    /// `[member][cut]`
    at: Vec<Vec<Entry>>,
}

/// A plan that keeps nobody busy for longer, if one is found.
pub(super) fn pack(streams: &Streams, period_ms: f64) -> Option<PlanShape> {
    let rest = streams.rest(period_ms);
    if rest.at_ms[0] < 0.0 {
        return None;
    }
    let root = Label { parent: NO_PARENT, member: 0, first: 0, end: 0, codec: Codec::Raw };
    let mut packing = Packing {
        streams,
        rest,
        most_ms: period_ms * (1.0 + ROUNDING),
        labels: vec![root],
        at: vec![vec![]; (streams.blocks + 1) * streams.count()],
    };
    packing.at[0].push(Entry { label: 0, busy_ms: 0.0, taken_ms: 0.0, used: 0 });
    for cut in 0..streams.blocks {
        packing.pass(cut);
    }
    packing.whole()
}

impl Packing<'_> {
    fn index(&self, member: usize, cut: usize) -> usize {
        member * (self.streams.blocks + 1) + cut
    }

    /// Carries all partial plans at a cut on: to who runs next, then to where its run ends.
    fn pass(&mut self, cut: usize) {
        let (streams, count) = (self.streams, self.streams.count());
        let at = |member: usize| self.at[self.index(member, cut)].iter().map(move |entry| (member, *entry));
        let holders: Vec<(usize, Entry)> = (0..count).flat_map(at).collect();
        if holders.is_empty() {
            return;
        }
        let mut starts: Vec<Vec<Start>> = vec![vec![]; count];
        for (member, entry) in &holders {
            // Two runs beside each other are one, unless one of them is known.
            if entry.label == 0 || streams.workers[*member].runs.has_known() {
                keep(&mut starts[*member], Start { entry: *entry, codec: Codec::Raw }, |start| start.entry);
            }
        }
        for coding in &streams.codings[cut] {
            let mut senders: Vec<Sender> =
                holders.iter().filter_map(|(member, entry)| self.sender(*member, *entry, coding)).collect();
            senders.sort_by(|one, other| one.taken_ms.total_cmp(&other.taken_ms));
            for (member, starts) in starts.iter_mut().enumerate() {
                self.enter(cut, &senders, member, coding, starts);
            }
        }
        for (member, starts) in starts.into_iter().enumerate() {
            starts.into_iter().for_each(|start| self.run(cut, member, start));
        }
    }

    fn sender(&self, member: usize, entry: Entry, coding: &Coding) -> Option<Sender> {
        let encode_ms = self.streams.encode_ms(member, coding);
        let uplink_ms = self.streams.workers[member].uplink_ms_per_byte * coding.bytes as f64;
        let may_send = entry.busy_ms + encode_ms <= self.most_ms && uplink_ms <= self.most_ms;
        may_send.then_some(Sender { member, entry, encode_ms, taken_ms: entry.taken_ms + encode_ms })
    }

    fn enter(&self, cut: usize, senders: &[Sender], member: usize, coding: &Coding, starts: &mut Vec<Start>) {
        let (streams, count) = (self.streams, self.streams.count());
        let room_ms = self.rest.start_ms[self.index(member, cut)];
        let (decode_ms, bytes) = (streams.decode_ms(member, coding), coding.bytes as f64);
        if decode_ms > room_ms {
            return;
        }
        let links = &streams.ms_per_byte_into[member * count..][..count];
        let arriving_ms = streams.workers[member].way_in * bytes;
        for sender in senders {
            let is_late = |taken_ms: f64, starts: &[Start]| {
                starts.len() >= LABELS && starts[LABELS - 1].entry.taken_ms <= taken_ms
            };
            // Those behind it took as long.
            if is_late(sender.taken_ms + arriving_ms + decode_ms, starts) {
                break;
            }
            let wire_ms = links[sender.member] * bytes;
            let taken_ms = sender.taken_ms + wire_ms + decode_ms;
            if is_late(taken_ms, starts) || wire_ms > self.most_ms || sender.member == member {
                continue;
            }
            let busy_ms = self.work(&sender.entry, member).busy_ms + decode_ms;
            if busy_ms <= room_ms {
                let entry = Entry { busy_ms, taken_ms, ..sender.entry };
                keep(starts, Start { entry, codec: coding.codec }, |start| start.entry);
            }
        }
    }

    fn run(&mut self, cut: usize, member: usize, start: Start) {
        let (streams, index) = (self.streams, self.index(member, 0));
        let Start { entry, codec } = start;
        let (parent, ranges) = (entry.label, streams.ranges);
        let worker = &streams.workers[member];
        let before = self.work(&entry, member);
        let free_bytes = streams.problem.nodes[worker.member.node].memory_free_bytes;
        let (labels, at, rest) = (&mut self.labels, &mut self.at, &self.rest);
        worker.runs.each(ranges, cut, self.most_ms - entry.busy_ms, |end, run_ms| {
            let busy_ms = entry.busy_ms + run_ms;
            if busy_ms > rest.at_ms[index + end] {
                return;
            }
            // One run fits; together with others it may not.
            let weights_bytes = before.weights_bytes + ranges.weights_bytes(cut, end);
            let is_again = before.weights_bytes + before.peak_bytes > 0;
            if is_again
                && !worker.runs.has_memory(cut, end)
                && weights_bytes + before.peak_bytes.max(ranges.peak_bytes(cut, end)) > free_bytes
            {
                return;
            }
            let (label, used) = (labels.len(), entry.used | 1 << member);
            let next = Entry { label, busy_ms, taken_ms: entry.taken_ms + run_ms, used };
            if keep(&mut at[index + end], next, |entry| *entry) {
                labels.push(Label { parent, member, first: cut, end, codec });
            }
        });
    }

    /// What a member did by then.
    fn work(&self, entry: &Entry, member: usize) -> Work {
        let mut work = Work::default();
        if entry.used >> member & 1 == 0 {
            return work;
        }
        let (streams, ranges) = (self.streams, self.streams.ranges);
        let runs = &streams.workers[member].runs;
        let mut after: Option<Label> = None;
        let mut label = self.labels[entry.label];
        loop {
            let coding = |label: &Label| {
                streams.codings[label.first].iter().find(|coding| coding.codec == label.codec)
            };
            let Label { parent, member: at, first, end, .. } = label;
            if let Some(next) = after.filter(|next| at == member && next.member != member) {
                work.busy_ms += coding(&next).map_or(0.0, |coding| streams.encode_ms(member, coding));
            }
            if parent == NO_PARENT {
                return work;
            }
            let before = self.labels[parent];
            if at == member {
                work.busy_ms += runs.ms(ranges, first, end);
                let is_brought = before.member != member;
                let coding = coding(&label).filter(|_| is_brought);
                work.busy_ms += coding.map_or(0.0, |coding| streams.decode_ms(member, coding));
                if !runs.has_memory(first, end) {
                    work.weights_bytes += ranges.weights_bytes(first, end);
                    work.peak_bytes = work.peak_bytes.max(ranges.peak_bytes(first, end));
                }
            }
            (after, label) = (Some(label), before);
        }
    }

    /// The plan that takes least of everybody's time, of those that came to the end.
    fn whole(&self) -> Option<PlanShape> {
        let (streams, blocks) = (self.streams, self.streams.blocks);
        let mut best: Option<(f64, usize, Codec)> = None;
        for member in (0..streams.count()).filter(|member| streams.may_end(*member)) {
            for entry in &self.at[self.index(member, blocks)] {
                // Raw comes first: nothing is coded where nothing moves.
                let ways = if member == 0 { 1 } else { streams.codings[blocks].len() };
                for coding in &streams.codings[blocks][..ways] {
                    let Some(taken_ms) = self.home_ms(member, entry, coding) else { continue };
                    if best.is_none_or(|(known_ms, ..)| taken_ms < known_ms) {
                        best = Some((taken_ms, entry.label, coding.codec));
                    }
                }
            }
        }
        best.map(|(_, label, codec)| self.shape(label, codec))
    }

    /// What all take with the result's way home, if nobody takes too long.
    fn home_ms(&self, member: usize, entry: &Entry, coding: &Coding) -> Option<f64> {
        if member == 0 {
            return Some(entry.taken_ms);
        }
        let streams = self.streams;
        let sender = self.sender(member, *entry, coding)?;
        let wire_ms = streams.ms_per_byte[member * streams.count()] * coding.bytes as f64;
        let decode_ms = streams.decode_ms(0, coding);
        let fits = wire_ms <= self.most_ms && self.work(entry, 0).busy_ms + decode_ms <= self.most_ms;
        fits.then_some(entry.taken_ms + sender.encode_ms + wire_ms + decode_ms)
    }

    fn shape(&self, label: usize, home: Codec) -> PlanShape {
        let (mut codecs, mut stages) = (vec![home], vec![]);
        let mut label = self.labels[label];
        while label.parent != NO_PARENT {
            let Label { parent, member, first, end, codec } = label;
            let node = self.streams.workers[member].member.node;
            stages.push(StageShape { node, first: first as u16, end: end as u16 });
            codecs.push(codec);
            label = self.labels[parent];
        }
        stages.reverse();
        codecs.reverse();
        PlanShape { stages, codecs }
    }
}

/// Puts one into a list, in order of what was taken, unless there is no room or one there beats it; those that it
/// beats leave.
fn keep<T: Copy>(list: &mut Vec<T>, new: T, entry: impl Fn(&T) -> Entry) -> bool {
    let key = |item: &T| {
        let Entry { taken_ms, busy_ms, .. } = entry(item);
        (taken_ms, busy_ms)
    };
    if list.get(LABELS - 1).is_some_and(|last| key(last) <= key(&new)) {
        return false;
    }
    let place = list.partition_point(|known| key(known) <= key(&new));
    let beats = |one: &Entry, other: &Entry| one.busy_ms <= other.busy_ms && one.used & !other.used == 0;
    if list[..place].iter().any(|known| beats(&entry(known), &entry(&new))) {
        return false;
    }
    let mut index = 0;
    list.retain(|known| {
        index += 1;
        index <= place || !beats(&entry(&new), &entry(known))
    });
    list.insert(place, new);
    list.truncate(LABELS);
    true
}
