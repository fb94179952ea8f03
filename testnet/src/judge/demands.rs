//! What is demanded, one by one, beside what was got.

mod goodput;
mod reactions;
mod recovery;

use super::{Check, Classified, Truth, Verdict, compare, faults, growth};
use crate::counted::counted;
use crate::history::{FaultEvent, History, Usage};
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
    checks.extend(recovery::progress(expect, history, classified));
    checks.extend(reactions::all(expect, history, verdict, truth));
    checks.extend(recovery::restored(expect, history));
    checks.extend(the_mesh(expect, history));
    checks.extend(goodput::all(expect, history, classified));
    checks.extend(growths(expect, history));
    checks.extend(the_run_itself(expect, history, verdict));
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
fn the_run_itself(expect: &Expectations, history: &History, verdict: &Verdict) -> Vec<Check> {
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
    let mut faults = history.generator_faults.clone();
    let idle = verdict.loads.iter().enumerate().filter(|(_, counts)| counts.ended == 0);
    faults.extend(idle.map(|(load, _)| format!("load {} of the file sent nothing", load + 1)));
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
