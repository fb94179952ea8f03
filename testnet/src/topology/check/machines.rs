//! Nodes, and the machines that they stand for.

use std::ops::Bound;

use toml::Spanned;

use super::super::file::{BatteryEntry, NodeEntry};
use super::super::quantity::{BUDGET, DISK, ENERGY, MEMORY, RATE, number};
use super::super::{CPU_SHARE_MIN, CPU_SHARES_MAX, NodeSpec, Wrong};
use super::{Names, known};
use crate::battery::{BatterySpec, Watts};

/// More than a large server takes, watts.
const WATTS_MAX: f64 = 10_000.0;

/// A node with its machine.
pub(super) fn node(entry: NodeEntry, names: &Names) -> Result<NodeSpec, Wrong> {
    let cpu = |share: &Spanned<f64>| {
        let what = format!("a share of one core, from {CPU_SHARE_MIN} to {CPU_SHARES_MAX}, like 0.25");
        number("cpu", &what, (Bound::Included(CPU_SHARE_MIN), Bound::Included(CPU_SHARES_MAX)), share)
    };
    let again = |place: &usize| {
        entry.domains[..*place].iter().any(|name| name.get_ref() == entry.domains[*place].get_ref())
    };
    if let Some(place) = (0..entry.domains.len()).find(again) {
        let name = &entry.domains[place];
        return Err(Wrong::at(&name.span(), &format!("domains `{}`: it stands there twice", name.get_ref())));
    }
    let domains = entry.domains.iter().map(|name| known(names, "domains", "domain", name));
    Ok(NodeSpec {
        memory_budget_bytes: BUDGET.read("memory_budget", &entry.memory_budget)?,
        cpu_share: entry.cpu.as_ref().map(cpu).transpose()?,
        memory_bytes: MEMORY.read_if_any("memory", entry.memory.as_ref())?,
        disk_bytes: DISK.read_if_any("disk", entry.disk.as_ref())?,
        battery: entry.battery.as_ref().map(|battery| battery_spec(battery, &entry)).transpose()?,
        uplink_bits_per_s: RATE.read_if_any("uplink", entry.uplink.as_ref())?,
        downlink_bits_per_s: RATE.read_if_any("downlink", entry.downlink.as_ref())?,
        domains: domains.collect::<Result<_, _>>()?,
        behind: entry.behind.map(|name| known(names, "behind", "nat", &name)).transpose()?,
        has_own_clock: false,
        log_filter: None,
        class: entry.class,
        label: entry.label.into_inner(),
    })
}

fn battery_spec(battery: &Spanned<BatteryEntry>, node: &NodeEntry) -> Result<BatterySpec, Wrong> {
    let BatteryEntry { capacity, level, idle, compute, send, receive } = battery.get_ref();
    let power = |key: &str, watts: &Spanned<f64>| {
        let what = format!("watts, from 0 to {WATTS_MAX}, like 3.5");
        let bounds = (Bound::Included(0.0), Bound::Included(WATTS_MAX));
        number(&format!("battery.{key}"), &what, bounds, watts)
    };
    let idle_watts = power("idle", idle)?;
    let busy = |key: &str, watts: &Spanned<f64>| match power(key, watts)? {
        least if least < idle_watts => {
            let message =
                format!("battery.{key} {least}: of the whole machine, so not less than idle, {idle_watts}");
            Err(Wrong::at(&watts.span(), &message))
        }
        watts => Ok(watts),
    };
    // Time is known of a link with a rate only.
    let radio = |key: &str, watts: &Option<Spanned<f64>>, link: &str, rate: bool| match watts {
        None => Ok(idle_watts),
        Some(watts) if rate => busy(key, watts),
        Some(watts) => {
            let message = format!(
                "battery.{key}: it counts the time that the {link} is busy, so give the node `{link}`"
            );
            Err(Wrong::at(&watts.span(), &message))
        }
    };
    let level = level.as_ref().map_or(Ok(1.0), |level| {
        let what = "a share of the capacity, above 0 (without power no node starts) and at most 1, like 0.8";
        number("battery.level", what, (Bound::Excluded(0.0), Bound::Included(1.0)), level)
    })?;
    Ok(BatterySpec {
        capacity_j: ENERGY.read("battery.capacity", capacity)? as f64,
        level,
        watts: Watts {
            idle: idle_watts,
            compute: busy("compute", compute)?,
            send: radio("send", send, "uplink", node.uplink.is_some())?,
            receive: radio("receive", receive, "downlink", node.downlink.is_some())?,
        },
    })
}
