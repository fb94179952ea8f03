//! That all is well again once faults are over.

use std::collections::BTreeMap;

use super::super::{Check, Class, Classified, faults};
use super::ms;
use crate::counted::counted;
use crate::history::{History, Request};
use crate::scenario::Expectations;

/// Every request that is sent some time after the last change (or, where there was none, the beginning) ends rightly
/// and in time, and of each load that sends then some are answered.
pub(super) fn progress(expect: &Expectations, history: &History, classified: &[Classified]) -> Vec<Check> {
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
    let is_well = |request: &Request, class: Class| {
        let is_fine = class == Class::Right || (class == Class::Rejected && expect.rejected_share_max > 0.0);
        is_fine && request.latency_us() as f64 / 1000.0 <= most_ms
    };
    let later =
        history.requests.iter().zip(classified).filter(|(request, _)| request.intended_us >= changed_us);
    let ill = later.clone().filter(|(request, of)| !is_well(request, of.class));
    let last_ill_ms = ill
        .map(|(request, _)| (request.intended_us - changed_us) as f64 / 1000.0)
        .fold(None, |last: Option<f64>, at| Some(last.map_or(at, |last| last.max(at))));
    let is_shown = |request: &Request| (request.intended_us - changed_us) as f64 / 1000.0 >= within_ms;
    // By load: requests that show it, and those of them that were answered.
    let mut loads: BTreeMap<u16, (usize, usize)> = BTreeMap::new();
    for (request, of) in later.filter(|(request, _)| is_shown(request)) {
        let (sent, answered) = loads.entry(request.load).or_default();
        *sent += 1;
        *answered += usize::from(of.class == Class::Right);
    }
    let shown: usize = loads.values().map(|(sent, _)| sent).sum();
    let unanswered = loads.iter().find(|(_, (_, answered))| *answered == 0);
    if let Some((load, (sent, _))) = unanswered {
        let got = format!(
            "load {} of the file: of {} later none was answered rightly",
            load + 1,
            counted(*sent, "request")
        );
        return vec![Check::new(what, wanted, got, false)];
    }
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
pub(super) fn restored(expect: &Expectations, history: &History) -> Option<Check> {
    let within_ms = expect.restored_within_ms?;
    let what = "all replicas are there again after the last fault or healing";
    let wanted = format!("within {}", ms(within_ms));
    let Some(changed_us) = faults::last_change_us(history) else {
        return Some(Check::new(what, wanted, "no fault was done", false));
    };
    let first_us = history.faults.iter().map(|fault| fault.begun_us).min().unwrap_or(changed_us);
    let was_lost = history.hosting.iter().any(|change| !change.is_whole && change.at_us >= first_us);
    let Some(last) = history.hosting.last().filter(|last| last.is_whole && was_lost) else {
        let got = if was_lost { "never" } else { "none went missing after the first fault" };
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
