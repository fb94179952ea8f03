//! What links are like, and between whom.

use std::collections::BTreeSet;
use std::ops::Bound;

use toml::Spanned;

use super::super::file::{LinkEntry, Written};
use super::super::quantity::{QUEUE, RATE, TIME, number};
use super::super::{LinkRule, Wrong};
use super::{Names, known};
use crate::link::LinkSpec;

/// `[links]`; what it says of a queue is for those with a rate.
pub(super) fn default(entry: &Spanned<LinkEntry>, others: &[Spanned<LinkEntry>]) -> Result<LinkSpec, Wrong> {
    let LinkEntry { between, from, to, .. } = entry.get_ref();
    let ends = [
        between.as_ref().map(Spanned::span),
        from.as_ref().map(Spanned::span),
        to.as_ref().map(Spanned::span),
    ];
    if let Some(span) = ends.into_iter().flatten().next() {
        return Err(Wrong::at(&span, "`[links]` is about all links; for two ends write a `[[link]]`"));
    }
    let spec = link(entry, &LinkSpec::default())?;
    if others.iter().all(|other| other.get_ref().rate.is_none()) {
        queue_has_rate(entry, &spec)?;
    }
    Ok(spec)
}

/// That what waits in a queue waits for something.
fn queue_has_rate(entry: &Spanned<LinkEntry>, spec: &LinkSpec) -> Result<(), Wrong> {
    match entry.get_ref().queue.as_ref().filter(|_| spec.rate_bits_per_s.is_none()) {
        Some(queue) => {
            let message = "queue: packets wait in it for the link's rate, and there is none; give `rate` as well, or \
                           leave `queue` out";
            Err(Wrong::at(&queue.span(), message))
        }
        None => Ok(()),
    }
}

/// Every `[[link]]`.
pub(super) fn rules(
    entries: &[Spanned<LinkEntry>],
    default: &LinkSpec,
    names: &Names,
) -> Result<Vec<LinkRule>, Wrong> {
    let mut directions = BTreeSet::new();
    let mut rules = Vec::new();
    for entry in entries {
        let (from, to, both_ways) = ends(entry, names)?;
        let mut added = directions.insert((from.clone(), to.clone()));
        if both_ways && from != to {
            added &= directions.insert((to.clone(), from.clone()));
        }
        if !added {
            let message =
                format!("a link between `{from}` and `{to}` stands above already; keep one of them");
            return Err(Wrong::at(&entry.span(), &message));
        }
        let spec = link(entry, default)?;
        queue_has_rate(entry, &spec)?;
        rules.push(LinkRule { from, to, both_ways, spec });
    }
    Ok(rules)
}

/// The two ends of a link, and whether it is about both directions.
fn ends(entry: &Spanned<LinkEntry>, names: &Names) -> Result<(String, String, bool), Wrong> {
    let LinkEntry { between, from, to, .. } = entry.get_ref();
    let (one, other, both_ways) = match (between, from, to) {
        (Some(pair), None, None) => {
            let [one, other] = &pair.get_ref()[..] else {
                let message = format!("between: two names of nodes or domains, not {}", pair.get_ref().len());
                return Err(Wrong::at(&pair.span(), &message));
            };
            (
                known(names, "between", "node or domain", one)?,
                known(names, "between", "node or domain", other)?,
                true,
            )
        }
        (None, Some(from), Some(to)) => {
            (known(names, "from", "node or domain", from)?, known(names, "to", "node or domain", to)?, false)
        }
        _ => {
            let message =
                "a link needs `between = [\"a\", \"b\"]` for both directions, or `from` and `to` for one";
            return Err(Wrong::at(&entry.span(), message));
        }
    };
    if one == other && names.get(&one) == Some(&"node") {
        let (field, at) = match (between, to) {
            (Some(pair), _) => ("between", pair.span()),
            (None, Some(to)) => ("to", to.span()),
            (None, None) => ("between", entry.span()),
        };
        return Err(Wrong::at(&at, &format!("{field}: a link from node `{one}` to itself")));
    }
    Ok((one, other, both_ways))
}

fn link(entry: &Spanned<LinkEntry>, default: &LinkSpec) -> Result<LinkSpec, Wrong> {
    let LinkEntry { rate, queue, latency, jitter, loss, reorder, duplicate, corrupt, .. } = entry.get_ref();
    let share = |key: &str, what: &str, most: Bound<f64>, given: &Option<Spanned<f64>>, default: f64| {
        given.as_ref().map_or(Ok(default), |given| number(key, what, (Bound::Included(0.0), most), given))
    };
    // Whatever is damaged is dropped by who receives it.
    let some = |key: &str, given: &Option<Spanned<f64>>, default: f64| {
        let what = "a share of packets, from 0 to less than 1 (nothing would arrive), like 0.01";
        share(key, what, Bound::Excluded(1.0), given, default)
    };
    let any = |key: &str, given: &Option<Spanned<f64>>, default: f64| {
        share(key, "a share of packets, from 0 to 1, like 0.01", Bound::Included(1.0), given, default)
    };
    let time = |key: &str, text: &Option<Spanned<Written>>, default: u64| {
        Ok(TIME.read_if_any(key, text.as_ref())?.unwrap_or(default))
    };
    let spec = LinkSpec {
        rate_bits_per_s: RATE.read_if_any("rate", rate.as_ref())?.or(default.rate_bits_per_s),
        queue_bytes: QUEUE.read_if_any("queue", queue.as_ref())?.unwrap_or(default.queue_bytes),
        latency_us: time("latency", latency, default.latency_us)?,
        jitter_us: time("jitter", jitter, default.jitter_us)?,
        loss: some("loss", loss, default.loss)?,
        reorder: any("reorder", reorder, default.reorder)?,
        duplicate: any("duplicate", duplicate, default.duplicate)?,
        corrupt: some("corrupt", corrupt, default.corrupt)?,
        cut: false,
    };
    // Each is within its bounds by now; only two together may not be.
    let span = || jitter.as_ref().or(latency.as_ref()).map_or_else(|| entry.span(), Spanned::span);
    spec.check().map_err(|error| Wrong::at(&span(), &format!("jitter: {error}")))?;
    Ok(spec)
}
