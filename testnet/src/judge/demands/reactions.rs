//! How nodes saw each other, and what that did to plans.

use super::super::{Check, Truth, Verdict, faults};
use super::ms;
use crate::history::History;
use crate::scenario::Expectations;

pub(super) fn all(expect: &Expectations, history: &History, verdict: &Verdict, truth: &Truth) -> Vec<Check> {
    let entries = truth.all_entries();
    let mut checks = Vec::new();
    let mut react = |what: &str, is_usable: bool, within_ms: Option<f64>| {
        let Some(within_ms) = within_ms else { return };
        let all = faults::reactions_ms(history, &entries, is_usable, within_ms);
        let seen: Vec<f64> = all.iter().flatten().copied().collect();
        let (count, unseen) = (all.len(), all.len() - seen.len());
        let slowest = seen.iter().copied().fold(0.0, f64::max);
        let got = if count == 0 {
            "no fault lasted long enough to tell".to_owned()
        } else if unseen > 0 {
            format!("not observed in {unseen} of {count}: the entry did not say how it sees others in time")
        } else if slowest.is_finite() {
            format!("{} at the slowest, of {count}", ms(slowest))
        } else {
            let never = seen.iter().filter(|reaction| reaction.is_infinite()).count();
            format!("never in {never} of {count}")
        };
        let holds = count > 0 && unseen == 0 && slowest <= within_ms;
        checks.push(Check::new(what, format!("within {}", ms(within_ms)), got, holds));
    };
    react("a lost node is left out of plans", false, expect.left_out_within_ms);
    react("a node that is back is used again", true, expect.back_within_ms);
    if let Some(within_ms) = expect.avoided_within_ms {
        let seen = faults::avoidances_ms(history, &entries, within_ms);
        let slowest = seen.iter().flatten().copied().fold(0.0, f64::max);
        let unseen = seen.iter().filter(|after_ms| after_ms.is_none()).count();
        let got = match seen.len() {
            0 => "no fault slowed down a host in use for long enough to tell".to_owned(),
            count if unseen > 0 => {
                format!("in {unseen} of {count} no request was answered that was sent while the fault acted")
            }
            count => format!("the last request there was sent {} after, of {count}", ms(slowest)),
        };
        let holds = !seen.is_empty() && unseen == 0 && slowest <= within_ms;
        let wanted = format!("within {}", ms(within_ms));
        checks.push(Check::new("a slow host or link is avoided", wanted, got, holds));
    }
    checks.extend(false_losses(expect, history, &entries));
    checks.extend(left_out(expect, history, verdict, &entries));
    checks
}

fn false_losses(expect: &Expectations, history: &History, entries: &[u16]) -> Option<Check> {
    let most = expect.false_losses_max?;
    let got = faults::false_losses(history) as u64;
    let blind = blind(history, entries);
    let told = match &blind {
        None => got.to_string(),
        Some(blind) => format!("{got} seen, but {blind}"),
    };
    let holds = got <= most && blind.is_none();
    Some(Check::new("nodes taken for lost that were not", format!("at most {most}"), told, holds))
}

/// The one that an entry left out of its plans for longest, without a reason.
fn left_out(expect: &Expectations, history: &History, verdict: &Verdict, entries: &[u16]) -> Option<Check> {
    let most_ms = expect.healthy_left_out_ms_max?;
    let longest = verdict.left_out.first();
    let got_ms = longest.map_or(0.0, |left_out| left_out.total_s * 1000.0);
    let told = longest.map_or("none".to_owned(), |of| {
        let times = if of.times == 1 { String::new() } else { format!(", {} times", of.times) };
        format!("{} in all{times}: {} by {}", ms(of.total_s * 1000.0), of.node, of.by)
    });
    let blind = blind(history, entries);
    let holds = got_ms <= most_ms && blind.is_none();
    let told = match blind {
        None => told,
        Some(blind) => format!("{told}; but {blind}"),
    };
    let wanted = format!("at most {}, each by each entry", ms(most_ms));
    Some(Check::new("healthy nodes left out of plans", wanted, told, holds))
}

/// Who did not say how it sees the others, in words.
fn blind(history: &History, entries: &[u16]) -> Option<String> {
    let (entry, blind_us) = faults::blind(history, entries)?;
    let label = history.label(entry);
    Some(format!("{label} did not say how it sees others for {}", ms(blind_us as f64 / 1000.0)))
}
