//! What became of each request.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::{Counts, LoadCounts, Told, Truth, compare};
use crate::history::{History, Outcome, Request};

/// HTTP's word for "too much at once".
pub(super) const TOO_MANY: u16 = 429;

/// So long after its deadline an answer may still come: the way back, and what a busy machine adds to a timer.
const OVERDUE_US_MAX: u64 = 1_000_000;

/// An end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Answered with what the undivided model answers.
    Right,
    /// Answered otherwise.
    Wrong,
    /// Told an error, answered well after its deadline, or never sent for a reason that is not its entry's death.
    Failed,
    /// Refused for overload.
    Rejected,
    /// Sent whole, and neither answered nor told, though its entry lived.
    Lost,
    /// Its entry died, was dead or stood still: the caller cannot know, and may ask another node.
    Unknown,
}

impl Class {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

/// A request's class, with the reason unless it is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// The class.
    pub class: Class,
    /// Why.
    pub why: String,
}

pub(super) fn classify(history: &History, truth: &Truth) -> Vec<Classified> {
    history.requests.iter().map(|request| one(history, truth, request)).collect()
}

fn one(history: &History, truth: &Truth, request: &Request) -> Classified {
    let text = |name| history.names.text(name).to_owned();
    let is_entry_gone = entry_is_gone(history, request);
    let gone_or = |class, why: String| {
        let class = if is_entry_gone { Class::Unknown } else { class };
        Classified { class, why }
    };
    match &request.outcome {
        Outcome::Answered(answer) => match compare::wrong(history, truth, request, answer) {
            None if is_overdue(history, request) => {
                gone_or(Class::Failed, "answered later than its deadline and a second".to_owned())
            }
            None => Classified { class: Class::Right, why: String::new() },
            Some(why) => Classified { class: Class::Wrong, why },
        },
        Outcome::Refused { status: TOO_MANY, error } => {
            Classified { class: Class::Rejected, why: text(*error) }
        }
        Outcome::Refused { status, error } => {
            Classified { class: Class::Failed, why: format!("{status}: {}", text(*error)) }
        }
        Outcome::Malformed { error } => Classified { class: Class::Wrong, why: text(*error) },
        Outcome::NotConnected { error } => gone_or(Class::Failed, format!("not sent: {}", text(*error))),
        Outcome::Shed => gone_or(Class::Failed, "not sent: too many were under way at its entry".to_owned()),
        Outcome::Broken { error } if request.sent_us.is_some() => {
            gone_or(Class::Lost, format!("its connection died: {}", text(*error)))
        }
        Outcome::Broken { error } => gone_or(Class::Failed, format!("not sent whole: {}", text(*error))),
        Outcome::Silent if request.sent_us.is_some() => {
            gone_or(Class::Lost, "nothing came until its deadline and a grace".to_owned())
        }
        Outcome::Silent => gone_or(Class::Failed, "not sent whole before its deadline".to_owned()),
    }
}

/// Whether it was answered when its caller no longer waits for it.
fn is_overdue(history: &History, request: &Request) -> bool {
    let deadline_us = history.timeouts_us.get(usize::from(request.load));
    let waited_us = request.ended_us.saturating_sub(request.sent_us.unwrap_or(request.intended_us));
    deadline_us.is_some_and(|deadline_us| waited_us > deadline_us.saturating_add(OVERDUE_US_MAX))
}

/// Whether the node where it entered was dead or stood still at some time while it was under way.
fn entry_is_gone(history: &History, request: &Request) -> bool {
    history.faults.iter().any(|fault| {
        fault.is_loss
            && fault.nodes.contains(&request.entry)
            && fault.begun_us <= request.ended_us
            && fault.healed_us.is_none_or(|healed_us| request.intended_us <= healed_us)
    })
}

pub(super) fn counts(history: &History, classified: &[Classified]) -> Counts {
    let mut counts = Counts { begun: u64::from(history.begun), ..Counts::default() };
    for of in classified {
        *match of.class {
            Class::Right => &mut counts.right,
            Class::Wrong => &mut counts.wrong,
            Class::Failed => &mut counts.failed,
            Class::Rejected => &mut counts.rejected,
            Class::Lost => &mut counts.lost,
            Class::Unknown => &mut counts.unknown,
        } += 1;
    }
    counts.sent = history.requests.iter().filter(|request| request.sent_us.is_some()).count() as u64;
    // Whatever was begun must have ended; and ended once.
    let distinct: HashSet<u32> = history.requests.iter().map(|request| request.serial).collect();
    counts.lost += counts.begun.saturating_sub(distinct.len() as u64);
    let doubles = history.requests.len() - distinct.len();
    let answers = history.requests.iter().filter_map(Request::answer);
    let of_others = answers.filter(|answer| !answer.has_own_id).count();
    counts.answered_twice = (doubles + of_others) as u64 + u64::from(history.unasked);
    counts
}

pub(super) fn by_load(history: &History, classified: &[Classified], loads: usize) -> Vec<LoadCounts> {
    let mut counts = vec![LoadCounts::default(); loads];
    for (request, of) in history.requests.iter().zip(classified) {
        if let Some(load) = counts.get_mut(usize::from(request.load)) {
            load.ended += 1;
            load.right += u64::from(of.class == Class::Right);
        }
    }
    counts
}

/// Answers that ran on more than one node, and all.
pub(super) fn divided(history: &History) -> (u64, u64) {
    let hosts = history.requests.iter().filter_map(Request::answer).map(|answer| {
        let hosts: HashSet<&str> = history.names.text(answer.nodes).split(',').collect();
        hosts.len()
    });
    hosts.fold((0, 0), |(divided, all), hosts| (divided + u64::from(hosts > 1), all + 1))
}

pub(super) fn errors(history: &History, classified: &[Classified]) -> Vec<(String, u64)> {
    let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
    let bad = classified.iter().filter(|of| of.class != Class::Right);
    bad.for_each(|of| *counted.entry(&of.why).or_default() += 1);
    let mut errors: Vec<(String, u64)> =
        counted.into_iter().map(|(why, count)| (why.to_owned(), count)).collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    errors.truncate(super::TOLD_MAX);
    debug_assert!(history.requests.len() == classified.len());
    errors
}

pub(super) fn bad(history: &History, classified: &[Classified], most: usize) -> Vec<Told> {
    let all = history.requests.iter().zip(classified);
    let mut bad: Vec<_> = all.filter(|(_, of)| of.class != Class::Right).collect();
    // The gravest first, so that a few errors do not hide behind many refusals.
    bad.sort_by_key(|(request, of)| (gravity(of.class), request.intended_us));
    bad.into_iter().take(most).map(|(request, of)| told(history, request, of)).collect()
}

pub(super) fn slow(history: &History, classified: &[Classified], most: usize) -> Vec<Told> {
    let all = history.requests.iter().zip(classified);
    let mut right: Vec<_> = all.filter(|(_, of)| of.class == Class::Right).collect();
    right.sort_by_key(|(request, _)| std::cmp::Reverse(request.latency_us()));
    right.into_iter().take(most).map(|(request, of)| told(history, request, of)).collect()
}

fn gravity(class: Class) -> u8 {
    match class {
        Class::Wrong => 0,
        Class::Lost => 1,
        Class::Failed => 2,
        Class::Unknown => 3,
        Class::Rejected => 4,
        Class::Right => 5,
    }
}

fn told(history: &History, request: &Request, of: &Classified) -> Told {
    let ran = request.answer().map(|answer| {
        let hosts = history.hosts(answer);
        let labels: Vec<&str> = hosts.iter().map(|host| history.label(*host)).collect();
        let tries =
            if answer.attempts > 1 { format!(", attempt {}", answer.attempts) } else { String::new() };
        format!("ran on {}{tries}", labels.join(" → "))
    });
    let why = if of.why.is_empty() { ran.unwrap_or_default() } else { of.why.clone() };
    Told {
        serial: request.serial,
        entry: history.label(request.entry).to_owned(),
        at_s: request.intended_us as f64 / 1e6,
        latency_ms: request.latency_us() as f64 / 1000.0,
        class: of.class,
        why,
    }
}
