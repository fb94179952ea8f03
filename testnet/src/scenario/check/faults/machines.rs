//! Faults of machines: their processors, memory, disks, batteries, clocks and uplinks.

use std::ops::Range;

use toml::Spanned;

use super::super::super::entries::FaultEntry;
use super::super::super::faults::{FaultKind, Target};
use super::super::{Around, Wrong, within};
use crate::link::RATE_BITS_PER_S_MAX;
use crate::topology::{CPU_SHARE_MIN, CPU_SHARES_MAX, MEMORY_BYTES_MIN, NodeSpec};

/// A clock further off than a day tells no more than one that is off by a day.
const OFFSET_S_MAX: f64 = 86_400.0;
/// No machine that this runs on has more: it would be no limit.
const MEMORY_BYTES_MAX: u64 = 1 << 40;

/// `cpu`, `memory`, `disk`, `battery`, `clock` or `uplink`.
pub(super) fn read(
    around: &Around,
    span: &Range<usize>,
    name: &str,
    target: Target,
    entry: &FaultEntry,
) -> Result<FaultKind, Wrong> {
    let missing = |field: &str| Wrong::at(span, format!("the fault `{name}` wants `{field}`"));
    Ok(match name {
        "cpu" => {
            let share = entry.cpu_share.as_ref().ok_or_else(|| missing("cpu_share"))?;
            FaultKind::Cpu(target.clone(), cpu_share(around, &target, share)?)
        }
        "memory" => {
            let bytes = entry.memory_bytes.as_ref().ok_or_else(|| missing("memory_bytes"))?;
            FaultKind::Memory(target, memory_bytes(bytes)?)
        }
        "disk" => {
            let has_disk = |node: &NodeSpec| node.disk_bytes.is_some();
            FaultKind::Disk(with(around, target, entry, "disk", has_disk)?)
        }
        "battery" => {
            let target = with(around, target, entry, "battery", |node| node.battery.is_some())?;
            let level = entry.level.as_ref().ok_or_else(|| missing("level"))?;
            FaultKind::Battery(target, within("level", level, 0.0, 1.0)?)
        }
        "clock" => {
            let offset_s = entry.offset_s.as_ref().ok_or_else(|| missing("offset_s"))?;
            // Nodes get clocks of their own when they start.
            let Target::Node(label) = target else {
                let span = entry.node.as_ref().map(Spanned::span).unwrap_or_default();
                return Err(Wrong::at(&span, "`node`: the fault `clock` wants a node by its label"));
            };
            FaultKind::Clock(Target::Node(label), within("offset_s", offset_s, -OFFSET_S_MAX, OFFSET_S_MAX)?)
        }
        _ => uplink(span, target, entry)?,
    })
}

/// A share that leaves something to the others, as a topology's shares do.
fn cpu_share(around: &Around, target: &Target, share: &Spanned<f64>) -> Result<f64, Wrong> {
    let given = within("cpu_share", share, CPU_SHARE_MIN, CPU_SHARES_MAX)?;
    let is_other = |node: &&NodeSpec| !matches!(target, Target::Node(label) if *label == node.label);
    let others = around.topology.nodes.iter().filter(is_other).filter_map(|node| node.cpu_share);
    let sum = given + others.sum::<f64>();
    // Whom a target stands for that is not named, nobody knows: one of the shares is then another one.
    if matches!(target, Target::Node(_)) && sum > CPU_SHARES_MAX + 1e-9 {
        let message = format!(
            "`cpu_share` is {given}, {sum:.3} with what the topology gives the others; at most {CPU_SHARES_MAX}"
        );
        return Err(Wrong::at(&share.span(), message));
    }
    Ok(given)
}

fn memory_bytes(bytes: &Spanned<u64>) -> Result<u64, Wrong> {
    let given = *bytes.get_ref();
    if (MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&given) {
        return Ok(given);
    }
    let message = format!(
        "`memory_bytes` is {given}; it must be from {MEMORY_BYTES_MIN} ({} MiB: with less the kernel ends a node) to \
         {MEMORY_BYTES_MAX}",
        MEMORY_BYTES_MIN >> 20
    );
    Err(Wrong::at(&bytes.span(), message))
}

fn uplink(span: &Range<usize>, node: Target, entry: &FaultEntry) -> Result<FaultKind, Wrong> {
    let rate = |field: &str, value: &Option<Spanned<u64>>| match value {
        Some(rate) if *rate.get_ref() == 0 => {
            Err(Wrong::at(&rate.span(), format!("`{field}`: 0 is no rate; cut the links instead")))
        }
        Some(rate) if *rate.get_ref() > RATE_BITS_PER_S_MAX => {
            let message = format!("`{field}` is {}; leave it out for no limit", rate.get_ref());
            Err(Wrong::at(&rate.span(), message))
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
