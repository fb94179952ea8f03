//! Faults of links: cut, changed, and groups of nodes that cannot hear each other.

use std::ops::Range;

use toml::Spanned;

use super::super::super::entries::FaultEntry;
use super::super::super::faults::{FaultKind, LinkChange};
use super::super::{Around, Wrong, within_if};
use crate::link::LinkSpecError;

/// A link slower or longer than this is none.
const LATENCY_MS_MAX: f64 = 10_000.0;

/// What a link that is cut has.
pub(super) const ENDS: [&str; 4] = ["for_s", "from", "to", "both_ways"];
/// What can be changed on one.
pub(super) const FIELDS: [&str; 8] =
    ["rate_bits_per_s", "queue_bytes", "latency_ms", "jitter_ms", "loss", "reorder", "duplicate", "corrupt"];

/// `cut` or `link`.
pub(super) fn read(
    around: &Around,
    span: &Range<usize>,
    name: &str,
    entry: &FaultEntry,
) -> Result<FaultKind, Wrong> {
    let missing = |field: &str| Wrong::at(span, format!("the fault `{name}` wants `{field}`"));
    let from = entry.from.as_ref().ok_or_else(|| missing("from"))?;
    let to = entry.to.as_ref().ok_or_else(|| missing("to"))?;
    let places = (around.node("from", from)?, around.node("to", to)?);
    if places.0 == places.1 {
        return Err(Wrong::at(&to.span(), "`to` is `from`: a node has no link to itself"));
    }
    let both_ways = entry.both_ways.as_ref().is_some_and(|both| *both.get_ref());
    let (from, to) = (from.get_ref().clone(), to.get_ref().clone());
    if name == "cut" {
        return Ok(FaultKind::Cut { from, to, both_ways });
    }
    let change = change(span, entry)?;
    possible(around, span, entry, places, &change)?;
    if both_ways {
        possible(around, span, entry, (places.1, places.0), &change)?;
    }
    Ok(FaultKind::Link { from, to, both_ways, change })
}

fn change(span: &Range<usize>, entry: &FaultEntry) -> Result<LinkChange, Wrong> {
    let time = |field: &str, value: &Option<Spanned<f64>>| {
        Ok::<_, Wrong>(within_if(field, value.as_ref(), 0.0, LATENCY_MS_MAX)?.map(|ms| (ms * 1000.0) as u64))
    };
    let share = |field: &str, value: &Option<Spanned<f64>>| within_if(field, value.as_ref(), 0.0, 1.0);
    let change = LinkChange {
        rate_bits_per_s: entry.rate_bits_per_s.as_ref().map(|value| *value.get_ref()),
        queue_bytes: entry.queue_bytes.as_ref().map(|value| *value.get_ref()),
        latency_us: time("latency_ms", &entry.latency_ms)?,
        jitter_us: time("jitter_ms", &entry.jitter_ms)?,
        loss: share("loss", &entry.loss)?,
        reorder: share("reorder", &entry.reorder)?,
        duplicate: share("duplicate", &entry.duplicate)?,
        corrupt: share("corrupt", &entry.corrupt)?,
    };
    if change.fields().is_empty() {
        let message = format!("the fault `link` changes nothing; it has {}", FIELDS.join(", "));
        return Err(Wrong::at(span, message));
    }
    Ok(change)
}

/// That there can be such a link, with what the topology says of it.
fn possible(
    around: &Around,
    span: &Range<usize>,
    entry: &FaultEntry,
    (from, to): (usize, usize),
    change: &LinkChange,
) -> Result<(), Wrong> {
    let nodes = &around.topology.nodes;
    let before = around.topology.link(&nodes[from], &nodes[to]);
    let Err(error) = change.of(&before).check() else { return Ok(()) };
    let (jitter, latency) = (entry.jitter_ms.as_ref(), entry.latency_ms.as_ref());
    let at = |value: Option<&Spanned<u64>>| value.map_or(span.clone(), Spanned::span);
    let (field, at, inherited) = match error {
        LinkSpecError::NoRate | LinkSpecError::RateTooHigh(_) => {
            ("rate_bits_per_s", at(entry.rate_bits_per_s.as_ref()), "")
        }
        LinkSpecError::NoQueue | LinkSpecError::QueueTooLong(_) => {
            ("queue_bytes", at(entry.queue_bytes.as_ref()), "")
        }
        _ => match (jitter, latency) {
            (Some(jitter), Some(_)) => ("jitter_ms", jitter.span(), ""),
            (Some(jitter), None) => {
                ("jitter_ms", jitter.span(), "; the latency is the topology's: give `latency_ms`, too")
            }
            (None, latency) => (
                "latency_ms",
                latency.map_or(span.clone(), Spanned::span),
                "; the jitter is the topology's: give `jitter_ms`, too",
            ),
        },
    };
    let link = format!("link from `{}` to `{}`", nodes[from].label, nodes[to].label);
    Err(Wrong::at(&at, format!("`{field}`: {link}: {error}{inherited}")))
}

/// `groups` of a partition.
pub(super) fn partition(
    around: &Around,
    groups: &Spanned<Vec<Vec<Spanned<String>>>>,
) -> Result<Vec<Vec<String>>, Wrong> {
    let mut seen = Vec::new();
    for label in groups.get_ref().iter().flatten() {
        let place = around.node("groups", label)?;
        if seen.contains(&place) {
            let message = format!("`groups`: `{}` is in two", label.get_ref());
            return Err(Wrong::at(&label.span(), message));
        }
        seen.push(place);
    }
    if groups.get_ref().len() < 2 || groups.get_ref().iter().any(Vec::is_empty) {
        return Err(Wrong::at(&groups.span(), "`groups`: at least two, none empty"));
    }
    let labels = |group: &Vec<Spanned<String>>| group.iter().map(|label| label.get_ref().clone()).collect();
    Ok(groups.get_ref().iter().map(labels).collect())
}
