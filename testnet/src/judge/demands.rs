//! What is demanded, one by one, beside what was got.

mod reactions;

use std::collections::BTreeMap;

use super::{Check, Class, Classified, Latency, Truth, Verdict, compare, faults, growth};
use crate::counted::counted;
use crate::history::{FaultEvent, History, Request, Usage};
use crate::scenario::Expectations;

/// Bytes of a mebibyte.
const MIB: f64 = 1_048_576.0;
/// By how much a sum of some thousand losses may be off.
const SUM_ERROR_MAX: f64 = 1e-9;
/// So much later than written may a fault be done, or undone.
const LATE_US_MAX: u64 = 500_000;

pub(super) fn all(
    expect: &Expectations,
    history: &History,
    truth: &Truth,
    classified: &[Classified],
    verdict: &Verdict,
) -> Vec<Check> {
    let mut checks = ends(expect, verdict);
    checks.extend(rounded(history, truth));
    checks.extend(latencies(expect, verdict));
    checks.extend(progress(expect, history, classified));
    checks.extend(reactions::all(expect, history, verdict, truth));
    checks.extend(restored(expect, history));
    checks.extend(the_mesh(expect, history));
    checks.extend(goodput(expect, history, classified));
    checks.extend(growths(expect, history));
    checks.extend(the_run_itself(expect, history));
    checks
}

fn ends(expect: &Expectations, verdict: &Verdict) -> Vec<Check> {
    let counts = &verdict.counts;
    let at_most = |what: &str, most: u64, got: u64| {
        Check::new(what, format!("at most {most}"), got.to_string(), got <= most)
    };
    let share = |what: &str, most: f64, got: u64| {
        let share = if counts.begun > 0 { got as f64 / counts.begun as f64 } else { 0.0 };
        let got = format!("{got} of {} ({:.2} %)", counts.begun, share * 100.0);
        Check::new(what, format!("at most {:.2} %", most * 100.0), got, share <= most)
    };
    let answers = Check::new(
        "right answers",
        format!("at least {}", expect.answers_min),
        counts.right.to_string(),
        counts.right >= expect.answers_min,
    );
    let mut checks = vec![
        answers,
        at_most("accepted requests lost", expect.lost_max, counts.lost),
        at_most("wrong answers", expect.wrong_max, counts.wrong),
        at_most("answered twice", expect.answered_twice_max, counts.answered_twice),
        share("requests told an error", expect.failed_share_max, counts.failed),
        share("requests refused for overload", expect.rejected_share_max, counts.rejected),
        share("requests whose entry was gone", expect.unknown_share_max, counts.unknown),
    ];
    if let Some(least) = expect.divided_share_min {
        let (wanted, got) = (format!("at least {:.0} %", least * 100.0), verdict.divided_share);
        checks.push(Check::new(
            "answers that ran on several nodes",
            wanted,
            format!("{:.1} %", got * 100.0),
            got >= least,
        ));
    }
    checks
}

fn rounded(history: &History, truth: &Truth) -> Option<Check> {
    let misread = compare::misread(history, truth);
    (misread.rounded > 0).then(|| {
        let wanted = format!("at most {:.2}, by the manifest's losses", misread.allowed);
        let got = format!("{} of {} pairs of input and plan", misread.otherwise, misread.rounded);
        // Sums of losses such as a tenth come out a little below what they are.
        let holds = misread.otherwise as f64 <= misread.allowed + SUM_ERROR_MAX;
        Check::new("rounded answers read otherwise", wanted, got, holds)
    })
}

fn latencies(expect: &Expectations, verdict: &Verdict) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut within = |what: &str, most: Option<f64>, got: Option<f64>| {
        let Some(most) = most else { return };
        let told = got.map_or("no answer".to_owned(), ms);
        checks.push(Check::new(
            what,
            format!("at most {}", ms(most)),
            told,
            got.is_some_and(|got| got <= most),
        ));
    };
    within("latency, median", expect.p50_ms_max, verdict.latency.map(|latency| latency.p50_ms));
    within("latency, 99th percentile", expect.p99_ms_max, verdict.latency.map(|latency| latency.p99_ms));
    if let Some(most) = expect.added_p99_ms_max {
        let got = match verdict.added {
            Some(added) if faults::is_never(added.p99_ms) => {
                format!(
                    "more than one in a hundred had no right answer ({} met a fault)",
                    counted(verdict.affected, "request")
                )
            }
            Some(added) => {
                format!("{} ({} met a fault)", ms(added.p99_ms), counted(verdict.affected, "request"))
            }
            None => "no request that met a fault was answered".to_owned(),
        };
        let least = expect.affected_min.unwrap_or(1);
        let is_enough = verdict.affected >= least;
        let holds = is_enough && verdict.added.is_some_and(|added| added.p99_ms <= most);
        let wanted = format!("at most {}, of at least {}", ms(most), counted(least, "request"));
        checks.push(Check::new("latency that a fault adds, 99th percentile", wanted, got, holds));
    }
    if let Some(least) = expect.affected_min {
        let (wanted, got) = (format!("at least {least}"), verdict.affected.to_string());
        checks.push(Check::new("requests that a fault met", wanted, got, verdict.affected >= least));
    }
    checks
}

/// Every request that is sent some time after the last change (or, where there was none, the beginning) ends rightly
/// and in time.
fn progress(expect: &Expectations, history: &History, classified: &[Classified]) -> Vec<Check> {
    let (Some(within_ms), Some(most_ms)) = (expect.progress_within_ms, expect.progress_latency_ms_max) else {
        return Vec::new();
    };
    let change_us = faults::last_change_us(history);
    let what = match change_us {
        Some(_) => "progress after the last fault or healing",
        None => "progress from the beginning, without a fault",
    };
    let wanted = format!("from {} on, every request within {}", ms(within_ms), ms(most_ms));
    let changed_us = change_us.unwrap_or(0);
    let is_well = |request: &crate::history::Request, class: Class| {
        let is_fine = class == Class::Right || (class == Class::Rejected && expect.rejected_share_max > 0.0);
        is_fine && request.latency_us() as f64 / 1000.0 <= most_ms
    };
    let later =
        history.requests.iter().zip(classified).filter(|(request, _)| request.intended_us >= changed_us);
    let ill = later.clone().filter(|(request, of)| !is_well(request, of.class));
    let last_ill_ms = ill
        .map(|(request, _)| (request.intended_us - changed_us) as f64 / 1000.0)
        .fold(None, |last: Option<f64>, at| Some(last.map_or(at, |last| last.max(at))));
    let shown =
        later.filter(|(request, _)| (request.intended_us - changed_us) as f64 / 1000.0 >= within_ms).count();
    if shown == 0 {
        let got = format!("no request was sent later than {} after it", ms(within_ms));
        return vec![Check::new(what, wanted, got, false)];
    }
    let got = match last_ill_ms {
        None => format!("at once ({} later)", counted(shown, "request")),
        Some(last) => {
            format!("the last that did not was sent {} after ({} later)", ms(last), counted(shown, "request"))
        }
    };
    vec![Check::new(what, wanted, got, last_ill_ms.is_none_or(|last| last < within_ms))]
}

/// All replicas are there again, and stay.
fn restored(expect: &Expectations, history: &History) -> Option<Check> {
    let within_ms = expect.restored_within_ms?;
    let what = "all replicas are there again after the last fault or healing";
    let wanted = format!("within {}", ms(within_ms));
    let Some(changed_us) = faults::last_change_us(history) else {
        return Some(Check::new(what, wanted, "no fault was done", false));
    };
    let was_lost = history.hosting.iter().any(|change| !change.is_whole);
    let Some(last) = history.hosting.last().filter(|last| last.is_whole && was_lost) else {
        let got = if was_lost { "never" } else { "none was ever missing" };
        return Some(Check::new(what, wanted, got, false));
    };
    let blind_max_us = faults::blind_max_us(history);
    let is_seen =
        history.hosting_looks.last().is_some_and(|look| *look + blind_max_us >= history.load_ended_us);
    if !is_seen {
        return Some(Check::new(
            what,
            wanted,
            "not observed to the end: the entry did not say who hosts",
            false,
        ));
    }
    let after_ms = last.at_us.saturating_sub(changed_us) as f64 / 1000.0;
    Some(Check::new(what, wanted, format!("{} after", ms(after_ms)), after_ms <= within_ms))
}

/// The mesh as it comes up, and what its processes hold.
fn the_mesh(expect: &Expectations, history: &History) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(within_ms) = expect.formed_within_ms {
        let got = history.formed_ms;
        let wanted = format!("within {}", ms(within_ms));
        checks.push(Check::new("every node knows all others", wanted, ms(got), got <= within_ms));
    }
    if let Some(most) = expect.own_memory_mib_max {
        let largest = history.own_memory.iter().max_by_key(|(_, bytes)| *bytes);
        let got = largest.map(|(node, bytes)| (*bytes as f64 / MIB, *node));
        let told = got.map_or("no node was looked at".to_owned(), |(mib, node)| {
            format!("{mib:.1} MiB, {}", history.label(node))
        });
        let holds = got.is_some_and(|(mib, _)| mib <= most);
        let wanted = format!("at most {most} MiB");
        checks.push(Check::new("memory beyond models and library, the most", wanted, told, holds));
    }
    checks
}

/// Right answers in time while faults act, or throughout.
fn goodput(expect: &Expectations, history: &History, classified: &[Classified]) -> Vec<Check> {
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
        let possible = loads.iter().map(|(load, goodput)| goodput.possible(capacity(*load))).sum::<f64>();
        let right = loads.values().map(|goodput| goodput.right).sum::<u64>();
        let share = if possible > 0.0 { right as f64 / possible } else { 0.0 };
        let got = format!("{:.0} % ({right} of {possible:.0})", share * 100.0);
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

fn growths(expect: &Expectations, history: &History) -> Vec<Check> {
    let mut checks = Vec::new();
    let unseen = || "too few looks after warming up".to_owned();
    if let Some(most) = expect.memory_growth_mib_per_h_max {
        let seen = growth::memory_per_hour(history, expect.warm_up_us);
        let got = seen.map(|(bytes, node)| (bytes / MIB, node));
        let told = got.map_or_else(unseen, |(mib, node)| format!("{mib:.1} MiB/h, {}", history.label(node)));
        let holds = got.is_some_and(|(mib, _)| mib <= most);
        checks.push(Check::new(
            "growth of memory, the steepest",
            format!("at most {most} MiB/h"),
            told,
            holds,
        ));
    }
    let mut count = |what: &str, most: Option<u64>, of: fn(&Usage) -> u32| {
        let Some(most) = most else { return };
        let seen = growth::count(history, expect.warm_up_us, of);
        let told = seen.map_or_else(unseen, |(count, node)| format!("{count}, {}", history.label(node)));
        let holds = seen.is_some_and(|(count, _)| count <= i64::try_from(most).unwrap_or(i64::MAX));
        checks.push(Check::new(what, format!("at most {most}"), told, holds));
    };
    count("growth of open descriptors, the largest", expect.descriptors_growth_max, |usage| {
        usage.descriptors
    });
    count("growth of threads, the largest", expect.threads_growth_max, |usage| usage.threads);
    checks
}

/// That the run was what it was meant to be.
fn the_run_itself(expect: &Expectations, history: &History) -> Vec<Check> {
    let mut checks = Vec::new();
    let undone: Vec<String> = history.faults.iter().filter_map(untold).collect();
    if !history.faults.is_empty() {
        let got = if undone.is_empty() { counted(history.faults.len(), "fault") } else { undone.join("; ") };
        let wanted = format!("all, {} late at most", ms(LATE_US_MAX as f64 / 1000.0));
        checks.push(Check::new("faults done and undone as written", wanted, got, undone.is_empty()));
    }
    let left = &history.leftovers;
    let got = if left.is_empty() { "nothing".to_owned() } else { left.join("; ") };
    checks.push(Check::new("left behind: processes, files, groups", "nothing", got, left.is_empty()));
    let faults = &history.generator_faults;
    let got = if faults.is_empty() { "all sent".to_owned() } else { faults.join("; ") };
    checks.push(Check::new("the load itself", "all sent", got, faults.is_empty()));
    if let Some(most) = expect.generator_share_max {
        let got = history.generator_share;
        let wanted = format!("at most {:.0} % of a core", most * 100.0);
        checks.push(Check::new(
            "processor time of the load",
            wanted,
            format!("{:.1} %", got * 100.0),
            got <= most,
        ));
    }
    checks
}

/// How a fault is not what was written.
fn untold(fault: &FaultEvent) -> Option<String> {
    let told = |why: &str| Some(format!("{}: {why}", fault.what));
    if let Some(why) = &fault.failed {
        return told(why);
    }
    let times = fault.times?;
    let late = |what: &str, us: u64| told(&format!("{what} {} late", ms(us as f64 / 1000.0)));
    let done_late_us = times.done_us.saturating_sub(times.due_us);
    if done_late_us > LATE_US_MAX {
        return late("done", done_late_us);
    }
    let undo_due_us = times.undo_due_us?;
    let Some(undone_us) = times.undone_us else { return told("never undone") };
    let undone_late_us = undone_us.saturating_sub(undo_due_us);
    if undone_late_us > LATE_US_MAX {
        return late("undone", undone_late_us);
    }
    // One that is late may be over at once.
    let (lasted_us, written_us) = (undone_us.saturating_sub(times.done_us), undo_due_us - times.due_us);
    let is_long_enough = lasted_us * 2 >= written_us;
    let [lasted, written] = [lasted_us, written_us].map(|us| ms(us as f64 / 1000.0));
    if is_long_enough { None } else { told(&format!("lasted {lasted} instead of {written}")) }
}

/// Milliseconds as people read them.
fn ms(ms: f64) -> String {
    match ms {
        ms if ms >= 1000.0 => format!("{:.2} s", ms / 1000.0),
        ms if ms >= 10.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.2} ms"),
    }
}
