//! What faults did to requests, and how nodes saw each other meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;

use super::classes::TOO_MANY;
use super::{Class, Classified, Latency};
use crate::history::{Answer, FaultEvent, History, Outcome, Request, StateChange};

/// A node that was lost may be taken for lost for so long after its return, or after a split is mended.
pub(crate) const AFTERMATH_US: u64 = 5_000_000;
/// Beside the time between looks: an entry that answers slowly is asked again after a second.
const BLIND_US_MAX: u64 = 3_000_000;

/// Until then nodes may not know what a fault changed. Later a backup runs what nobody waited for: to count that would
/// hide the few that waited.
const MET_WITHIN_US: u64 = 1_000_000;

/// A host is in use if it ran something that was sent in so long before.
const USED_US: u64 = 1_000_000;

/// Stands for the latency of what was never answered rightly, microseconds: longer than any run.
const NEVER_US: u64 = u64::MAX / 2;

/// Requests that a fault met.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Affected {
    pub(super) count: u64,
    /// Their latency less the median of right answers before the first fault; [`is_never`] for those that had none.
    pub(super) added: Option<Latency>,
}

/// Whether a latency of [`Affected`] says that there was no answer.
pub(super) fn is_never(latency_ms: f64) -> bool {
    latency_ms * 1000.0 >= NEVER_US as f64 / 2.0
}

/// Those that were planned anew, or that a backup ran a stage of, and were under way when a fault began or was undone or
/// were sent in just after; those that were under way at a fault's node when it began and ran there all the same; and those under
/// way then that were not answered. What was refused for overload never was on its way there.
pub(super) fn affected(history: &History, classified: &[Classified]) -> Affected {
    let Some(first_us) = history.faults.iter().map(|fault| fault.begun_us).min() else {
        return Affected { count: 0, added: None };
    };
    let right = || history.requests.iter().zip(classified).filter(|(_, of)| of.class == Class::Right);
    let before = right().filter(|(request, _)| request.ended_us < first_us);
    let before = Latency::of(before.map(|(request, _)| request.latency_us()));
    let is_met = |request: &Request, class: Class| {
        let met = |fault: &FaultEvent| {
            let ran_there = request
                .answer()
                .is_none_or(|answer| history.hosts(answer).iter().any(|host| fault.nodes.contains(host)));
            request.is_under_way(fault.begun_us) && ran_there
        };
        let meanwhile = |fault: &FaultEvent| {
            let mut changes = [Some(fault.begun_us), fault.healed_us].into_iter().flatten();
            changes.any(|at_us| {
                at_us <= request.ended_us && request.intended_us <= at_us.saturating_add(MET_WITHIN_US)
            })
        };
        if matches!(class, Class::Unknown | Class::Rejected) {
            return false;
        }
        let answer = request.answer();
        (answer.is_some_and(was_retried) && history.faults.iter().any(meanwhile))
            || history.faults.iter().any(met)
    };
    let median_us = before.map_or(0, |before| (before.p50_ms * 1000.0) as u64);
    let met = history.requests.iter().zip(classified).filter(|(request, of)| is_met(request, of.class));
    let added_us: Vec<u64> = met
        .map(|(request, of)| match of.class {
            Class::Right => request.latency_us().saturating_sub(median_us),
            _ => NEVER_US,
        })
        .collect();
    let count = added_us.len();
    let added = Latency::of(added_us.into_iter());
    Affected { count: count as u64, added: added.filter(|_| before.is_some()) }
}

/// Whether it was planned anew, or a backup ran a stage of it.
fn was_retried(answer: &Answer) -> bool {
    answer.attempts > 1 || answer.failovers > 0
}

/// When the last fault began or was undone.
pub(super) fn last_change_us(history: &History) -> Option<u64> {
    history.faults.iter().map(|fault| fault.healed_us.unwrap_or(fault.begun_us)).max()
}

/// How long after each loss each entry left the node out (`is_usable` false), or after each return used it
/// again (true), milliseconds; infinite where it did not before the next change, `None` where it did not say
/// anything for `within_ms`. What ended sooner than that shows nothing and is left out. For an entry whose link with
/// a node is cut, in either direction, that node is lost likewise.
pub(super) fn reactions_ms(
    history: &History,
    entries: &[u16],
    is_usable: bool,
    within_ms: f64,
) -> Vec<Option<f64>> {
    let within_us = (within_ms * 1000.0) as u64;
    let mut reactions = Vec::new();
    for fault in &history.faults {
        let Some(begun_us) = (if is_usable { fault.healed_us } else { Some(fault.begun_us) }) else {
            continue;
        };
        for (by, node) in separated(fault, entries) {
            let takes = |other: &&FaultEvent| is_lost_to(other, node, by) && other.begun_us > begun_us;
            let next_us = history.faults.iter().filter(takes).map(|other| other.begun_us).min();
            let let_go_us = fault.let_go_us().filter(|_| !is_usable);
            let end_us = let_go_us.or(next_us).unwrap_or(history.load_ended_us).min(history.load_ended_us);
            let is_down = |loss: &FaultEvent| loss.is_loss && loss.acts_on(by, begun_us);
            if end_us.saturating_sub(begun_us) < within_us || history.faults.iter().any(is_down) {
                continue;
            }
            let until_us = begun_us + within_us;
            let is_observed = looks(history, by).iter().any(|look| (begun_us..=until_us).contains(look));
            let reaction = || reaction_ms(history, [by, node], is_usable, [begun_us, end_us], until_us);
            reactions.push(is_observed.then(reaction));
        }
    }
    reactions
}

/// Entries, each with a node that a fault takes from it.
fn separated(fault: &FaultEvent, entries: &[u16]) -> Vec<(u16, u16)> {
    let of_nodes = fault.nodes.iter().filter(|_| fault.is_loss).flat_map(|node| {
        let observers = entries.iter().filter(|by| !fault.nodes.contains(by));
        observers.map(|by| (*by, *node))
    });
    let of_link = entries.iter().filter_map(|by| Some((*by, fault.cut_off(*by)?)));
    of_nodes.chain(of_link).collect()
}

/// Whether a fault takes a node from an entry.
fn is_lost_to(fault: &FaultEvent, node: u16, by: u16) -> bool {
    (fault.is_loss && fault.nodes.contains(&node)) || fault.cut_off(by) == Some(node)
}

fn looks(history: &History, by: u16) -> &[u64] {
    history.looks.get(&by).map_or(&[], Vec::as_slice)
}

/// So long may an entry say nothing before what it thinks counts as not observed.
pub(super) fn blind_max_us(history: &History) -> u64 {
    BLIND_US_MAX + 3 * history.look_every_us
}

/// The first entry that did not say how it sees the others for longer than may be, though it was not lost, and how
/// long.
pub(super) fn blind(history: &History, entries: &[u16]) -> Option<(u16, u64)> {
    let most_us = blind_max_us(history);
    entries.iter().find_map(|entry| {
        let lost = history.faults.iter().filter(|fault| fault.is_loss && fault.nodes.contains(entry));
        let spans = lost.map(|fault| {
            let end_us = fault.healed_us.map_or(history.load_ended_us, |us| us.saturating_add(AFTERMATH_US));
            [fault.begun_us, end_us]
        });
        let mut seen_us = 0;
        for look_us in looks(history, *entry).iter().copied().chain([history.load_ended_us]) {
            let gap_us =
                look_us.saturating_sub(seen_us).saturating_sub(covered_us(spans.clone(), [seen_us, look_us]));
            if gap_us > most_us {
                return Some((*entry, gap_us));
            }
            seen_us = look_us;
        }
        None
    })
}

/// How much of a stretch of time these spans cover, which may overlap.
pub(crate) fn covered_us(spans: impl Iterator<Item = [u64; 2]>, [from_us, until_us]: [u64; 2]) -> u64 {
    let mut spans: Vec<[u64; 2]> =
        spans.map(|[begun_us, end_us]| [begun_us.max(from_us), end_us.min(until_us)]).collect();
    spans.sort_unstable();
    let (mut covered, mut at_us) = (0, from_us);
    for [begun_us, end_us] in spans {
        covered += end_us.saturating_sub(begun_us.max(at_us));
        at_us = at_us.max(end_us);
    }
    covered
}

/// When an entry began to see a node so, for good: who uses a dead node again a moment later has not left it out, and
/// who leaves one out that has just come back, not used it again. What is left out later than `settled_us` after its
/// return is another matter.
fn reaction_ms(
    history: &History,
    [by, of]: [u16; 2],
    is_usable: bool,
    [begun_us, end_us]: [u64; 2],
    settled_us: u64,
) -> f64 {
    let seen = history.states.iter().filter(|state| state.by == by && state.of == of);
    // All are usable to each other when a load begins.
    let before = seen.clone().take_while(|state| state.at_us < begun_us).last();
    let was_usable = before.is_none_or(|state| state.is_usable);
    let mut since = (was_usable == is_usable).then_some(begun_us);
    for state in seen.skip_while(|state| state.at_us < begun_us).take_while(|state| state.at_us <= end_us) {
        match state.is_usable == is_usable {
            true => since = since.or(Some(state.at_us)),
            false if !is_usable || state.at_us <= settled_us => since = None,
            false => {}
        }
    }
    since.map_or(f64::INFINITY, |at_us| (at_us - begun_us) as f64 / 1000.0)
}

/// How long after each fault that slows a host down, or its link, requests were still sent that ran there, or may have
/// been there first, as far as they were sent before its healing, milliseconds; `None` where none was answered
/// meanwhile. What ended sooner than `within_ms` shows nothing and is left out; so does a host that ran nothing in the
/// second before.
pub(super) fn avoidances_ms(history: &History, entries: &[u16], within_ms: f64) -> Vec<Option<f64>> {
    let mut avoidances = Vec::new();
    for fault in history.faults.iter().filter(|fault| !fault.is_loss && !fault.is_split) {
        let end_us = fault.healed_us.unwrap_or(history.load_ended_us);
        if (end_us.saturating_sub(fault.begun_us) as f64) < within_ms * 1000.0 {
            continue;
        }
        for node in fault.nodes.iter().filter(|node| !entries.contains(node)) {
            let ran_there = |answer: &Answer| history.hosts(answer).contains(node);
            let before = fault.begun_us.saturating_sub(USED_US)..fault.begun_us;
            let sent_in = |times: Range<u64>| {
                history.requests.iter().filter(move |request| times.contains(&request.intended_us))
            };
            if !sent_in(before).filter_map(Request::answer).any(ran_there) {
                continue;
            }
            // An answer tells who ran it at last, not who was asked in vain; and no answer tells nothing.
            let may_have_been_there = |request: &&Request| match &request.outcome {
                Outcome::Answered(answer) => was_retried(answer) || ran_there(answer),
                Outcome::Refused { status, .. } => *status != TOO_MANY,
                _ => request.sent_us.is_some(),
            };
            let meanwhile = || sent_in(fault.begun_us..end_us);
            let last_us = meanwhile().filter(may_have_been_there).map(|request| request.intended_us).max();
            let after_ms = last_us.map_or(0.0, |last| (last - fault.begun_us) as f64 / 1000.0);
            let is_shown = meanwhile().any(|request| request.answer().is_some());
            avoidances.push(is_shown.then_some(after_ms));
        }
    }
    avoidances
}

/// By fault: requests that used its node in the second before it began or while it acted; of a link, those that passed
/// over it in either direction; of a partition, those that ran on any of its nodes.
pub(super) fn in_use(history: &History) -> Vec<u64> {
    let used = |fault: &FaultEvent| {
        let until_us = fault.healed_us.unwrap_or(history.load_ended_us);
        let times = fault.begun_us.saturating_sub(USED_US)..=until_us;
        let meanwhile = history.requests.iter().filter(|request| times.contains(&request.intended_us));
        let answered = meanwhile.filter_map(|request| Some((request.entry, request.answer()?)));
        let uses = |(entry, answer): &(u16, &Answer)| {
            let hosts = history.hosts(answer);
            if !fault.is_link {
                return fault.nodes.contains(entry) || hosts.iter().any(|host| fault.nodes.contains(host));
            }
            let hops = std::iter::once(entry).chain(&hosts).zip(hosts.iter().chain([entry]));
            hops.into_iter()
                .any(|(from, to)| from != to && [from, to].iter().all(|end| fault.nodes.contains(end)))
        };
        answered.filter(uses).count() as u64
    };
    history.faults.iter().map(used).collect()
}

/// Times that a node was taken for lost without a reason on either side, or between them.
pub(super) fn false_losses(history: &History) -> usize {
    let mut taken: BTreeMap<(u16, u16), bool> = BTreeMap::new();
    let begins = |state: &&StateChange| {
        let before = taken.insert((state.by, state.of), state.is_lost);
        state.is_lost && before != Some(true)
    };
    let lost = history.states.iter().filter(begins);
    let has_reason = |by: u16, of: u16, at_us: u64| {
        history.faults.iter().any(|fault| {
            let is_about =
                fault.is_split || (fault.is_loss && (fault.nodes.contains(&of) || fault.nodes.contains(&by)));
            let until_us =
                fault.healed_us.map_or(u64::MAX, |healed_us| healed_us.saturating_add(AFTERMATH_US));
            is_about && fault.begun_us <= at_us && at_us < until_us
        })
    };
    lost.filter(|state| !has_reason(state.by, state.of, state.at_us)).count()
}
