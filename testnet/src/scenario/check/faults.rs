//! What goes wrong, and when.

mod links;
mod machines;

use std::ops::Range;

use toml::Spanned;

use super::super::LoadSpec;
use super::super::clash::{self, Clash, Clashing};
use super::super::entries::FaultEntry;
use super::super::faults::{BUSIEST, FaultKind, HOST, KINDS, Scheduled, Target};
use super::super::idle::Idle;
use super::{Around, Wrong, micros, within, within_if};

/// Faults of a scenario, repetitions counted.
const FAULTS_MAX: usize = 1000;
/// A fault acts for a millisecond at least.
const ACTS_S_MIN: f64 = 0.001;

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
    let (spans, faults): (Vec<Range<usize>>, Vec<Scheduled>) = faults.into_iter().unzip();
    if let Some(clashing) = clash::first(&faults) {
        return Err(Wrong::at(&spans[clashing.after], told(&faults, &clashing)));
    }
    let entries: Vec<usize> = loads.iter().flat_map(|load| load.at.iter().copied()).collect();
    for (place, fault) in faults.iter().enumerate() {
        let Some(target @ (Target::Busiest | Target::Host)) = fault.kind.target() else { continue };
        let named = clash::named_meanwhile(&faults, place);
        let mut nodes = around.topology.nodes.iter().enumerate();
        if nodes.all(|(place, node)| entries.contains(&place) || named.contains(node.label.as_str())) {
            let message = format!(
                "`node`: {target} is no node where requests enter or that another fault names meanwhile, and here \
                 all are: name one, or leave one out of the loads' `at`"
            );
            return Err(Wrong::at(&spans[place], message));
        }
    }
    Ok(faults)
}

/// Why a fault cannot be done, given one before it.
fn told(faults: &[Scheduled], clashing: &Clashing) -> String {
    let (before, fault) = (&faults[clashing.before], &faults[clashing.after]);
    let (at_s, line) = (fault.at_us as f64 / 1e6, before.line);
    let whom = fault.kind.target().map_or("an end of the link".to_owned(), |target| format!("`{target}`"));
    match clashing.clash {
        Clash::SameThing if line == fault.line => {
            format!(
                "`every_s`: at {at_s} s it still acts on the same node or link; a longer `every_s`, or a shorter `for_s`"
            )
        }
        Clash::SameThing => {
            format!("`at_s`: at {at_s} s the fault of line {line} still acts on the same node or link")
        }
        Clash::Down => format!(
            "`at_s`: at {at_s} s this would meet nothing: the fault of line {line} has {whom} down or standing still for \
             as long as this one acts"
        ),
        Clash::NoPower => format!(
            "`at_s`: at {at_s} s {whom} has no power since its battery was emptied (line {line}): give it a \
             `battery` with a `level` above 0 before, then a `restart`"
        ),
        Clash::Off => format!(
            "`at_s`: at {at_s} s {whom} is charged, but off since its battery was emptied (line {line}): give it a \
             `restart` before"
        ),
    }
}

fn one(around: &Around, span: &Range<usize>, entry: &FaultEntry) -> Result<Vec<Scheduled>, Wrong> {
    let kind = kind(around, span, entry)?;
    if let Some(Idle { field, why }) = kind.idle(around.topology) {
        let place = given(entry).into_iter().find(|(given, _)| *given == field);
        let at = place.map_or(span.clone(), |(_, at)| at);
        return Err(Wrong::at(&at, format!("`{field}`: this fault changes nothing: {why}")));
    }
    let total_s = around.duration_us as f64 / 1e6;
    let at = entry.at_s.as_ref().ok_or_else(|| Wrong::at(span, "`at_s` is missing"))?;
    let at_us = micros(within("at_s", at, 0.0, total_s)?);
    let for_us = within_if("for_s", entry.for_s.as_ref(), ACTS_S_MIN, total_s)?.map(micros);
    let end_us = at_us + for_us.unwrap_or(0);
    if let Some(for_s) = entry.for_s.as_ref().filter(|_| end_us > around.duration_us) {
        let message =
            format!("`for_s` is {}; it would be undone behind the scenario's {total_s} s", for_s.get_ref());
        return Err(Wrong::at(&for_s.span(), message));
    }
    let (times, every_us) = repeated(entry, total_s)?;
    let last_us = end_us.saturating_add(every_us.saturating_mul(u64::from(times - 1)));
    if let Some(times) = entry.times.as_ref().filter(|_| last_us > around.duration_us) {
        let message = format!(
            "`times` is {}; the last one would end at {} s, behind the scenario's {total_s} s",
            times.get_ref(),
            last_us as f64 / 1e6
        );
        return Err(Wrong::at(&times.span(), message));
    }
    let line = around.line(span);
    let fault = |index: u32| Scheduled {
        line,
        kind: kind.clone(),
        at_us: at_us + u64::from(index) * every_us,
        for_us,
    };
    Ok((0..times).map(fault).collect())
}

/// How often, and so long from one to the next, microseconds.
fn repeated(entry: &FaultEntry, total_s: f64) -> Result<(u32, u64), Wrong> {
    let every_s = within_if("every_s", entry.every_s.as_ref(), ACTS_S_MIN, total_s)?;
    let times = entry.times.as_ref().map_or(1, |times| *times.get_ref());
    match (&entry.times, &entry.every_s) {
        (Some(given), _) if times == 0 || times as usize > FAULTS_MAX => {
            Err(Wrong::at(&given.span(), format!("`times` is {times}; it must be from 1 to {FAULTS_MAX}")))
        }
        (None | Some(_), Some(every)) if times == 1 => Err(Wrong::at(
            &every.span(),
            "`every_s` is from one time to the next; give `times`, 2 or more, or leave it out",
        )),
        (Some(given), None) if times > 1 => {
            Err(Wrong::at(&given.span(), "`times` wants `every_s`, from one time to the next"))
        }
        _ => Ok((times, every_s.map_or(0, micros))),
    }
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
    match name {
        "kill" => Ok(FaultKind::Kill(target()?)),
        "restart" => Ok(FaultKind::Restart(target()?)),
        "power_loss" => Ok(FaultKind::PowerLoss(target()?)),
        "freeze" => Ok(FaultKind::Freeze(target()?)),
        "cut" | "link" => links::read(around, span, name, entry),
        "partition" => {
            let groups = entry.groups.as_ref().ok_or_else(|| missing("groups"))?;
            Ok(FaultKind::Partition(links::partition(around, groups)?))
        }
        _ => machines::read(around, span, name, target()?, entry),
    }
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
        "link" => [&links::ENDS[..], &links::FIELDS[..]].concat(),
        _ => return None,
    })
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
