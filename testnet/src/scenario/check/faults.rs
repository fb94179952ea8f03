//! What goes wrong, and when.

use std::ops::Range;

use toml::Spanned;

use super::super::LoadSpec;
use super::super::entries::FaultEntry;
use super::super::faults::{BUSIEST, FaultKind, HOST, KINDS, LinkChange, Scheduled, Target};
use super::{Around, Wrong, micros, within, within_if};
use crate::topology::NodeSpec;

/// Faults of a scenario, repetitions counted.
const FAULTS_MAX: usize = 1000;
/// A clock further off than a day tells no more than one that is off by a day.
const OFFSET_S_MAX: f64 = 86_400.0;
/// A link slower or longer than this is none.
const LATENCY_MS_MAX: f64 = 10_000.0;

pub(super) fn read(
    around: &Around,
    loads: &[LoadSpec],
    entries: Vec<Spanned<FaultEntry>>,
) -> Result<Vec<Scheduled>, Wrong> {
    let mut faults: Vec<(Range<usize>, Scheduled)> = Vec::new();
    for entry in &entries {
        let span = entry.span();
        let repeated = one(around, &span, entry.get_ref())?;
        if faults.len() + repeated.len() > FAULTS_MAX {
            return Err(Wrong::at(&span, format!("more than {FAULTS_MAX} faults, repetitions counted")));
        }
        faults.extend(repeated.into_iter().map(|fault| (span.clone(), fault)));
    }
    faults.sort_by_key(|(_, fault)| fault.at_us);
    for (index, (span, fault)) in faults.iter().enumerate() {
        if let Some((_, before)) = faults[..index].iter().find(|(_, before)| collide(before, fault)) {
            let at_s = fault.at_us as f64 / 1e6;
            let message = format!(
                "`at_s`: at {at_s} s the fault of line {} still acts on the same node or link",
                before.line
            );
            return Err(Wrong::at(span, message));
        }
    }
    let is_chosen = |fault: &Scheduled| matches!(fault.kind.target(), Some(Target::Busiest | Target::Host));
    if let Some((span, fault)) = faults.iter().find(|(_, fault)| is_chosen(fault)) {
        let is_entry = |place: usize| loads.iter().any(|load| load.at.contains(&place));
        if (0..around.topology.nodes.len()).all(is_entry) {
            let named = fault.kind.target().map(Target::to_string).unwrap_or_default();
            let message = format!("`node`: {named} is never a node where requests enter, and here all are");
            return Err(Wrong::at(span, message));
        }
    }
    Ok(faults.into_iter().map(|(_, fault)| fault).collect())
}

fn one(around: &Around, span: &Range<usize>, entry: &FaultEntry) -> Result<Vec<Scheduled>, Wrong> {
    let kind = kind(around, span, entry)?;
    let total_s = around.duration_us as f64 / 1e6;
    let at = entry.at_s.as_ref().ok_or_else(|| Wrong::at(span, "`at_s` is missing"))?;
    let at_s = within("at_s", at, 0.0, total_s)?;
    let for_s = within_if("for_s", entry.for_s.as_ref(), 0.001, total_s - at_s)?;
    let times = entry.times.as_ref().map_or(1, |times| *times.get_ref());
    let every_s = within_if("every_s", entry.every_s.as_ref(), 0.001, total_s)?;
    let every_s = match (times, every_s) {
        (0, _) => return Err(Wrong::at(span, "`times` is 0")),
        (1, _) => 0.0,
        (_, Some(every_s)) => every_s,
        (_, None) => return Err(Wrong::at(span, "`times` wants `every_s`")),
    };
    if times as usize > FAULTS_MAX || at_s + f64::from(times - 1) * every_s + for_s.unwrap_or(0.0) > total_s {
        return Err(Wrong::at(span, "`times`: the last one ends after the scenario"));
    }
    let line = around.line(span);
    let fault = |index: u32| Scheduled {
        line,
        kind: kind.clone(),
        at_us: micros(at_s + f64::from(index) * every_s),
        for_us: for_s.map(micros),
    };
    Ok((0..times).map(fault).collect())
}

fn kind(around: &Around, span: &Range<usize>, entry: &FaultEntry) -> Result<FaultKind, Wrong> {
    let kind = entry.kind.as_ref().ok_or_else(|| Wrong::at(span, "`kind` is missing"))?;
    let name = kind.get_ref().as_str();
    let takes = fields_of(name).ok_or_else(|| {
        let message = format!("`kind`: there is no fault `{name}`; there are {}", KINDS.join(", "));
        Wrong::at(&kind.span(), message)
    })?;
    if let Some((field, at)) = given(entry).into_iter().find(|(field, _)| !takes.contains(field)) {
        return Err(Wrong::at(&at, format!("`{field}` is nothing that the fault `{name}` has")));
    }
    let missing = |field: &str| Wrong::at(span, format!("the fault `{name}` wants `{field}`"));
    let target = || {
        let label = entry.node.as_ref().ok_or_else(|| missing("node"))?;
        Ok(match label.get_ref().as_str() {
            BUSIEST => Target::Busiest,
            HOST => Target::Host,
            _ => {
                around.node("node", label)?;
                Target::Node(label.get_ref().clone())
            }
        })
    };
    Ok(match name {
        "kill" => FaultKind::Kill(target()?),
        "restart" => FaultKind::Restart(target()?),
        "power_loss" => FaultKind::PowerLoss(target()?),
        "freeze" => FaultKind::Freeze(target()?),
        "cpu" => {
            let share = entry.cpu_share.as_ref().ok_or_else(|| missing("cpu_share"))?;
            FaultKind::Cpu(target()?, within("cpu_share", share, 0.01, 64.0)?)
        }
        "memory" => {
            let bytes = entry.memory_bytes.as_ref().ok_or_else(|| missing("memory_bytes"))?;
            FaultKind::Memory(target()?, *bytes.get_ref())
        }
        "disk" => {
            let has_disk = |node: &NodeSpec| node.disk_bytes.is_some();
            FaultKind::Disk(with(around, target()?, entry, "disk", has_disk)?)
        }
        "battery" => {
            let target = with(around, target()?, entry, "battery", |node| node.battery.is_some())?;
            let level = entry.level.as_ref().ok_or_else(|| missing("level"))?;
            FaultKind::Battery(target, within("level", level, 0.0, 1.0)?)
        }
        "clock" => {
            let offset_s = entry.offset_s.as_ref().ok_or_else(|| missing("offset_s"))?;
            // Nodes get clocks of their own when they start.
            let Target::Node(label) = target()? else {
                let span = entry.node.as_ref().map(Spanned::span).unwrap_or_default();
                return Err(Wrong::at(&span, "`node`: the fault `clock` wants a node by its label"));
            };
            FaultKind::Clock(Target::Node(label), within("offset_s", offset_s, -OFFSET_S_MAX, OFFSET_S_MAX)?)
        }
        "uplink" => uplink(span, target()?, entry)?,
        "partition" => {
            let groups = entry.groups.as_ref().ok_or_else(|| missing("groups"))?;
            FaultKind::Partition(partition(around, groups)?)
        }
        _ => {
            let from = entry.from.as_ref().ok_or_else(|| missing("from"))?;
            let to = entry.to.as_ref().ok_or_else(|| missing("to"))?;
            if around.node("from", from)? == around.node("to", to)? {
                return Err(Wrong::at(&to.span(), "`to` is `from`: a node has no link to itself"));
            }
            let (from, to) = (from.get_ref().clone(), to.get_ref().clone());
            let both_ways = entry.both_ways.as_ref().is_some_and(|both| *both.get_ref());
            match name {
                "cut" => FaultKind::Cut { from, to, both_ways },
                _ => FaultKind::Link { from, to, both_ways, change: change(span, entry)? },
            }
        }
    })
}

/// What a fault of this name has, beside what each has.
fn fields_of(name: &str) -> Option<Vec<&'static str>> {
    Some(match name {
        "kill" | "power_loss" | "freeze" | "disk" => vec!["node", "for_s"],
        "restart" => vec!["node"],
        "cpu" => vec!["node", "for_s", "cpu_share"],
        "memory" => vec!["node", "for_s", "memory_bytes"],
        "battery" => vec!["node", "level"],
        "clock" => vec!["node", "for_s", "offset_s"],
        "uplink" => vec!["node", "for_s", "up_bits_per_s", "down_bits_per_s"],
        "cut" => vec!["for_s", "from", "to", "both_ways"],
        "partition" => vec!["for_s", "groups"],
        "link" => [&LINK_ENDS[..], &LINK_FIELDS[..]].concat(),
        _ => return None,
    })
}

fn uplink(span: &Range<usize>, node: Target, entry: &FaultEntry) -> Result<FaultKind, Wrong> {
    let rate = |field: &str, value: &Option<Spanned<u64>>| match value {
        Some(rate) if *rate.get_ref() == 0 => {
            Err(Wrong::at(&rate.span(), format!("`{field}`: 0 is no rate; cut the links instead")))
        }
        value => Ok(value.as_ref().map(|rate| *rate.get_ref())),
    };
    let up_bits_per_s = rate("up_bits_per_s", &entry.up_bits_per_s)?;
    let down_bits_per_s = rate("down_bits_per_s", &entry.down_bits_per_s)?;
    if up_bits_per_s.or(down_bits_per_s).is_none() {
        return Err(Wrong::at(span, "the fault `uplink` wants `up_bits_per_s` or `down_bits_per_s`"));
    }
    Ok(FaultKind::Uplink { node, up_bits_per_s, down_bits_per_s })
}

/// A node that has something of its own in the topology, so that no other is touched.
fn with(
    around: &Around,
    target: Target,
    entry: &FaultEntry,
    what: &str,
    has: impl Fn(&NodeSpec) -> bool,
) -> Result<Target, Wrong> {
    match &target {
        Target::Node(label) if around.topology.node(label).is_some_and(has) => Ok(target),
        other => {
            let span = entry.node.as_ref().map(Spanned::span).unwrap_or_default();
            Err(Wrong::at(&span, format!("`node`: `{other}` has no `{what}` of its own in the topology")))
        }
    }
}

fn partition(
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

const LINK_ENDS: [&str; 4] = ["for_s", "from", "to", "both_ways"];
const LINK_FIELDS: [&str; 8] =
    ["rate_bits_per_s", "queue_bytes", "latency_ms", "jitter_ms", "loss", "reorder", "duplicate", "corrupt"];

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
        let message = format!("the fault `link` changes nothing; it has {}", LINK_FIELDS.join(", "));
        return Err(Wrong::at(span, message));
    }
    Ok(change)
}

/// The fields that an entry gives, but those that each fault has.
fn given(entry: &FaultEntry) -> Vec<(&'static str, Range<usize>)> {
    fn at<T>(field: &'static str, value: &Option<Spanned<T>>) -> Option<(&'static str, Range<usize>)> {
        value.as_ref().map(|value| (field, value.span()))
    }
    let fields = [
        at("for_s", &entry.for_s),
        at("node", &entry.node),
        at("from", &entry.from),
        at("to", &entry.to),
        at("both_ways", &entry.both_ways),
        at("groups", &entry.groups),
        at("cpu_share", &entry.cpu_share),
        at("memory_bytes", &entry.memory_bytes),
        at("level", &entry.level),
        at("offset_s", &entry.offset_s),
        at("up_bits_per_s", &entry.up_bits_per_s),
        at("down_bits_per_s", &entry.down_bits_per_s),
        at("rate_bits_per_s", &entry.rate_bits_per_s),
        at("queue_bytes", &entry.queue_bytes),
        at("latency_ms", &entry.latency_ms),
        at("jitter_ms", &entry.jitter_ms),
        at("loss", &entry.loss),
        at("reorder", &entry.reorder),
        at("duplicate", &entry.duplicate),
        at("corrupt", &entry.corrupt),
    ];
    fields.into_iter().flatten().collect()
}

/// Whether a fault begins while an earlier one acts on the same thing.
fn collide(before: &Scheduled, fault: &Scheduled) -> bool {
    let is_over = before.for_us.is_some_and(|for_us| before.at_us + for_us <= fault.at_us)
        || (matches!(before.kind, FaultKind::Restart(_)) && before.at_us < fault.at_us);
    !is_over && before.kind.shares_with(&fault.kind)
}
