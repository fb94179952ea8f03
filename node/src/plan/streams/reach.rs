//! What can be reached in a given period, if nobody remembers what a node did before its last visit: from the input
//! on, and back from the result. Whatever a plan can do, this can.

use super::{ROUNDING, Streams};

/// How busy members have to be, at least, to get somewhere. `[member][cut]`, infinite where nothing leads.
pub(super) struct Reached {
    /// About to run.
    pub(super) start_ms: Vec<f64>,
}

/// How busy members may be, at most, for the rest to be possible. `[member][cut]`, below zero where nothing is.
pub(super) struct Rest {
    /// The cut's tensors are there.
    pub(super) at_ms: Vec<f64>,
    /// About to run.
    pub(super) start_ms: Vec<f64>,
}

impl Streams<'_> {
    pub(super) fn is_possible(&self, period_ms: f64) -> bool {
        self.rest(period_ms).at_ms[0] >= 0.0
    }

    /// Back from the result.
    pub(super) fn rest(&self, period_ms: f64) -> Rest {
        let (count, cuts, most_ms) = (self.count(), self.blocks + 1, period_ms * (1.0 + ROUNDING));
        let none = || vec![f64::NEG_INFINITY; cuts * count];
        let mut rest = Rest { at_ms: none(), start_ms: none() };
        let mut ends_max = vec![self.blocks; count];
        for cut in (0..cuts).rev() {
            for member in (0..count).filter(|member| self.may_start(*member, cut)) {
                let row = member * cuts;
                rest.start_ms[row + cut] = match cut == self.blocks {
                    true if member == 0 => most_ms,
                    true => f64::NEG_INFINITY,
                    false => {
                        let at_ms = &rest.at_ms[row..row + cuts];
                        let (runs, end_max) = (&self.workers[member].runs, &mut ends_max[member]);
                        runs.most_left_ms(self.ranges, cut, most_ms, at_ms, end_max)
                    }
                };
            }
            self.pass_back(cut, most_ms, &mut rest);
        }
        rest
    }

    fn pass_back(&self, cut: usize, most_ms: f64, rest: &mut Rest) {
        let (count, cuts) = (self.count(), self.blocks + 1);
        let is_result = cut == self.blocks;
        // The input is nowhere but at the origin.
        let senders = if cut == 0 { 1 } else { count };
        let may_hold = |member: usize| !is_result || self.may_end(member);
        for member in (0..senders).filter(|member| may_hold(*member)) {
            rest.at_ms[member * cuts + cut] = rest.start_ms[member * cuts + cut];
        }
        let mut receivers = Vec::with_capacity(count);
        for coding in &self.codings[cut] {
            let takes = |to: &usize| self.decode_ms(*to, coding) <= rest.start_ms[*to * cuts + cut];
            receivers.clear();
            receivers.extend((0..count).filter(takes));
            let bytes = coding.bytes as f64;
            for from in (0..senders).filter(|from| may_hold(*from)) {
                let worker = &self.workers[from];
                let at_ms = &mut rest.at_ms[from * cuts + cut];
                let left_ms = most_ms - self.encode_ms(from, coding);
                let wire_ms = worker.uplink_ms_per_byte.max(worker.way_out) * bytes;
                if left_ms <= *at_ms || wire_ms > most_ms {
                    continue;
                }
                let links = &self.ms_per_byte[from * count..][..count];
                if receivers.iter().any(|to| links[*to] * bytes <= most_ms && *to != from) {
                    *at_ms = left_ms;
                }
            }
        }
    }

    /// From the input on, where the rest is possible too.
    pub(super) fn reached(&self, period_ms: f64, rest: &Rest) -> Reached {
        let (count, cuts, most_ms) = (self.count(), self.blocks + 1, period_ms * (1.0 + ROUNDING));
        let none = || vec![f64::INFINITY; cuts * count];
        let (mut at_ms, mut start_ms) = (none(), none());
        at_ms[0] = 0.0;
        for cut in 0..self.blocks {
            self.pass_on(cut, most_ms, &at_ms, &mut start_ms);
            for member in 0..count {
                let row = member * cuts;
                let begun_ms = start_ms[row + cut];
                if begun_ms > rest.start_ms[row + cut] {
                    start_ms[row + cut] = f64::INFINITY;
                    continue;
                }
                self.workers[member].runs.each(self.ranges, cut, most_ms - begun_ms, |end, run_ms| {
                    let busy_ms = begun_ms + run_ms;
                    if busy_ms <= rest.at_ms[row + end] {
                        at_ms[row + end] = at_ms[row + end].min(busy_ms);
                    }
                });
            }
        }
        Reached { start_ms }
    }

    fn pass_on(&self, cut: usize, most_ms: f64, at_ms: &[f64], start_ms: &mut [f64]) {
        let (count, cuts) = (self.count(), self.blocks + 1);
        for member in (0..count).filter(|member| self.may_start(*member, cut)) {
            start_ms[member * cuts + cut] = at_ms[member * cuts + cut];
        }
        let mut senders = Vec::with_capacity(count);
        for coding in &self.codings[cut] {
            let bytes = coding.bytes as f64;
            let sends = |from: &usize| {
                at_ms[*from * cuts + cut] + self.encode_ms(*from, coding) <= most_ms
                    && self.workers[*from].uplink_ms_per_byte * bytes <= most_ms
            };
            senders.clear();
            senders.extend((0..count).filter(sends));
            for to in (0..count).filter(|to| self.may_start(*to, cut)) {
                let start_ms = &mut start_ms[to * cuts + cut];
                let decode_ms = self.decode_ms(to, coding);
                if decode_ms >= *start_ms || self.workers[to].way_in * bytes > most_ms {
                    continue;
                }
                let links = &self.ms_per_byte_into[to * count..][..count];
                if senders.iter().any(|from| links[*from] * bytes <= most_ms && *from != to) {
                    *start_ms = decode_ms;
                }
            }
        }
    }
}
