//! How much is answered, and how fast the rest is refused, under more load than a mesh can take.

use std::collections::BTreeMap;

use super::super::{Check, Class, Classified, Latency};
use super::ms;
use crate::history::{History, Request};
use crate::scenario::Expectations;

/// Right answers in time while faults act, or throughout.
pub(super) fn all(expect: &Expectations, history: &History, classified: &[Classified]) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(least) = expect.goodput_share_min {
        let from_us = history.faults.iter().map(|fault| fault.begun_us).min().unwrap_or(0);
        let healed = history.faults.iter().map(|fault| fault.healed_us.unwrap_or(history.load_ended_us));
        let until_us = healed.max().unwrap_or(history.load_ended_us);
        let span_us = from_us..until_us.max(from_us + 1);
        let mut loads: BTreeMap<u16, Goodput> = BTreeMap::new();
        let meant = history.requests.iter().filter(|request| span_us.contains(&request.intended_us));
        meant.for_each(|request| loads.entry(request.load).or_default().note_meant(request));
        for (request, of) in history.requests.iter().zip(classified) {
            let allowed_us = history.latencies_us_max.get(usize::from(request.load)).copied().flatten();
            let is_late = request.answer().is_none_or(|answer| answer.is_late)
                || allowed_us.is_some_and(|us| request.latency_us() > us);
            let is_meant = span_us.contains(&request.intended_us);
            if let Some(load) =
                loads.get_mut(&request.load).filter(|load| is_meant && load.lasts_at(request.ended_us))
            {
                load.right += u64::from(of.class == Class::Right && !is_late);
            }
        }
        let capacity = |load: u16| history.capacities_per_s.get(usize::from(load)).copied().flatten();
        // More of one load than is possible makes no good for another.
        let (right, possible) = loads.iter().fold((0.0, 0.0), |(right, all), (load, goodput)| {
            let possible = goodput.possible(capacity(*load));
            (right + possible.min(goodput.right as f64), all + possible)
        });
        let share = if possible > 0.0 { right / possible } else { 0.0 };
        let got = format!("{:.0} % ({right:.0} of {possible:.0})", share * 100.0);
        let wanted = format!("at least {:.0} %", least * 100.0);
        checks.push(Check::new("right answers in time, of what is possible", wanted, got, share >= least));
    }
    if let Some(most) = expect.reject_within_ms_max {
        let rejected = history.requests.iter().zip(classified).filter(|(_, of)| of.class == Class::Rejected);
        let times = Latency::of(rejected.map(|(request, _)| request.latency_us()));
        let got = times.map_or("none was refused".to_owned(), |times| ms(times.p99_ms));
        let holds = times.is_some_and(|times| times.p99_ms <= most);
        checks.push(Check::new(
            "refusals for overload, 99th percentile",
            format!("within {}", ms(most)),
            got,
            holds,
        ));
    }
    checks
}

/// What one load was answered in time while it sent, of what it could be.
#[derive(Default)]
struct Goodput {
    meant: u64,
    /// When the first was meant to be sent, and the last.
    meant_us: Option<(u64, u64)>,
    right: u64,
}

impl Goodput {
    fn note_meant(&mut self, request: &Request) {
        let at_us = request.intended_us;
        let (from_us, until_us) = self.meant_us.unwrap_or((at_us, at_us));
        self.meant_us = Some((from_us.min(at_us), until_us.max(at_us)));
        self.meant += 1;
    }

    /// While answers count: what comes later was computed when nothing else was asked for. What is sent last
    /// has the time between two requests.
    fn lasts_at(&self, at_us: u64) -> bool {
        self.meant_us.is_some_and(|(from_us, until_us)| {
            // One alone has no time between.
            let between_us = (until_us - from_us).checked_div(self.meant - 1).unwrap_or(u64::MAX);
            (from_us..=until_us.saturating_add(between_us)).contains(&at_us)
        })
    }

    /// Answers that can be given: to all that is sent, or as many as its capacity, where that was measured.
    fn possible(&self, capacity_per_s: Option<f64>) -> f64 {
        let seconds = self.meant_us.map_or(0.0, |(from_us, until_us)| (until_us - from_us) as f64 / 1e6);
        let capacity = capacity_per_s.filter(|_| self.meant > 1).map(|capacity| capacity * seconds);
        (self.meant as f64).min(capacity.unwrap_or(f64::INFINITY))
    }
}
