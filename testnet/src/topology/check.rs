//! From what a topology file says to what can be started, or what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;

use super::file::{BatteryEntry, DomainEntry, File, LinkEntry, NatEntry, NodeEntry};
use super::quantity::Quantity;
use super::{
    CPU_SHARE_MIN, CPU_SHARES_MAX, DomainSpec, LinkRule, MEMORY_BYTES_MIN, NODES_MAX, NatSpec, NodeSpec,
    Topology, Wrong,
};
use crate::battery::{BatterySpec, Watts};
use crate::link::{LinkSpec, LinkSpecError};
use crate::rules;

/// A node with less of a disk cannot keep its key and its list of objects, bytes.
const DISK_BYTES_MIN: u64 = 1 << 20;
/// More than a large server takes, watts.
const WATTS_MAX: f64 = 10_000.0;

/// Domains of a mesh: more than it can have nodes.
const DOMAINS_MAX: usize = 256;

/// Names taken so far, and what they are of.
type Names = BTreeMap<String, &'static str>;

pub(super) fn topology(file: File) -> Result<Topology, Wrong> {
    if file.about.get_ref().trim().is_empty() {
        return Err(Wrong::at(&file.about.span(), "`about` says nothing; write what this mesh is for"));
    }
    let nodes_span = file.node.span();
    let entries = file.node.into_inner();
    if entries.is_empty() || entries.len() > NODES_MAX {
        let message = format!("{} nodes; a mesh has 1 to {NODES_MAX}", entries.len());
        return Err(Wrong::at(&nodes_span, &message));
    }
    if let Some(entry) = file.domain.get(DOMAINS_MAX) {
        let message = format!("more than {DOMAINS_MAX} domains");
        return Err(Wrong::at(&entry.name.span(), &message));
    }
    let mut names = Names::new();
    for entry in &entries {
        take_name(&mut names, "label", "node", &entry.label)?;
    }
    file.domain.iter().try_for_each(|entry| take_name(&mut names, "name", "domain", &entry.name))?;
    file.nat.iter().try_for_each(|entry| take_name(&mut names, "name", "nat", &entry.name))?;
    within_no_circle(&file.domain, &names)?;
    let default_link = match file.links {
        Some(entry) => default_link(&entry)?,
        None => LinkSpec::default(),
    };
    let checked = Topology {
        about: file.about.into_inner(),
        nodes: entries.into_iter().map(|entry| node(entry, &names)).collect::<Result<_, _>>()?,
        domains: file.domain.into_iter().map(domain).collect::<Result<_, _>>()?,
        nats: file.nat.into_iter().map(nat).collect(),
        default_link,
        link_rules: link_rules(&file.link, &default_link, &names)?,
    };
    shares_fit(&checked, &nodes_span)?;
    Ok(checked)
}

fn take_name(names: &mut Names, key: &str, kind: &'static str, name: &Spanned<String>) -> Result<(), Wrong> {
    let text = name.get_ref();
    rules::check_name(text).map_err(|why| Wrong::at(&name.span(), &format!("{key} {why}")))?;
    match names.insert(text.clone(), kind) {
        Some(other) => Err(Wrong::at(&name.span(), &format!("{key} `{text}` is taken by another {other}"))),
        None => Ok(()),
    }
}

/// That a name is of something of this kind.
fn known(names: &Names, key: &str, kind: &str, name: &Spanned<String>) -> Result<String, Wrong> {
    let text = name.get_ref();
    let is_kind = |found: &&str| kind.split(" or ").any(|kind| kind == *found);
    if names.get(text).is_some_and(is_kind) {
        return Ok(text.clone());
    }
    let of_kind: Vec<&str> =
        names.iter().filter(|(_, found)| is_kind(found)).map(|(name, _)| name.as_str()).collect();
    let there_are = if of_kind.is_empty() { "none".to_owned() } else { of_kind.join(", ") };
    let message = format!("{key} `{text}`: no {kind} is called so; there are: {there_are}");
    Err(Wrong::at(&name.span(), &message))
}

fn node(entry: NodeEntry, names: &Names) -> Result<NodeSpec, Wrong> {
    if let Some(share) = &entry.cpu
        && !(CPU_SHARE_MIN..=CPU_SHARES_MAX).contains(share.get_ref())
    {
        let message =
            format!("cpu {}: a share of one core, from {CPU_SHARE_MIN} to {CPU_SHARES_MAX}", share.get_ref());
        return Err(Wrong::at(&share.span(), &message));
    }
    let domains = entry.domains.iter().map(|name| known(names, "domains", "domain", name));
    Ok(NodeSpec {
        memory_budget_bytes: Quantity::Size.read("memory_budget", &entry.memory_budget)?,
        cpu_share: entry.cpu.as_ref().map(|share| *share.get_ref()),
        memory_bytes: at_least("memory", entry.memory.as_ref(), MEMORY_BYTES_MIN)?,
        disk_bytes: at_least("disk", entry.disk.as_ref(), DISK_BYTES_MIN)?,
        battery: entry.battery.as_ref().map(|battery| battery_spec(battery, &entry)).transpose()?,
        uplink_bits_per_s: Quantity::Rate.read_if_any("uplink", entry.uplink.as_ref())?,
        downlink_bits_per_s: Quantity::Rate.read_if_any("downlink", entry.downlink.as_ref())?,
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
    let power = |key: &str, watts: &Spanned<f64>| match *watts.get_ref() {
        watts if (0.0..=WATTS_MAX).contains(&watts) => Ok(watts),
        other => {
            let message = format!("battery.{key} {other}: watts, from 0 to {WATTS_MAX}");
            Err(Wrong::at(&watts.span(), &message))
        }
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
    let level = match level {
        None => 1.0,
        Some(level) if *level.get_ref() > 0.0 && *level.get_ref() <= 1.0 => *level.get_ref(),
        Some(level) => {
            let message = format!(
                "battery.level {}: a share of the capacity, above 0 (without power no node starts) and at most 1",
                level.get_ref()
            );
            return Err(Wrong::at(&level.span(), &message));
        }
    };
    Ok(BatterySpec {
        capacity_j: Quantity::Energy.read("battery.capacity", capacity)? as f64,
        level,
        watts: Watts {
            idle: idle_watts,
            compute: busy("compute", compute)?,
            send: radio("send", send, "uplink", node.uplink.is_some())?,
            receive: radio("receive", receive, "downlink", node.downlink.is_some())?,
        },
    })
}

/// A size with which a process can start, if one is given.
fn at_least(key: &str, text: Option<&Spanned<String>>, least_bytes: u64) -> Result<Option<u64>, Wrong> {
    let bytes = Quantity::Size.read_if_any(key, text)?;
    match text.filter(|_| bytes.is_some_and(|bytes| bytes < least_bytes)) {
        Some(text) => {
            let least = least_bytes >> 20;
            let message =
                format!("{key} `{}`: a node does not start with less than {least} MiB", text.get_ref());
            Err(Wrong::at(&text.span(), &message))
        }
        None => Ok(bytes),
    }
}

fn domain(entry: DomainEntry) -> Result<DomainSpec, Wrong> {
    Ok(DomainSpec {
        kind: entry.kind,
        within: entry.within.map(Spanned::into_inner),
        uplink_bits_per_s: Quantity::Rate.read_if_any("uplink", entry.uplink.as_ref())?,
        downlink_bits_per_s: Quantity::Rate.read_if_any("downlink", entry.downlink.as_ref())?,
        name: entry.name.into_inner(),
    })
}

fn nat(entry: NatEntry) -> NatSpec {
    NatSpec { name: entry.name.into_inner(), mapping: entry.mapping, filtering: entry.filtering }
}

/// That every domain is within known ones, and none within itself.
fn within_no_circle(domains: &[DomainEntry], names: &Names) -> Result<(), Wrong> {
    let mut outer = BTreeMap::new();
    for domain in domains {
        if let Some(within) = &domain.within {
            known(names, "within", "domain", within)?;
            outer.insert(domain.name.get_ref().as_str(), within);
        }
    }
    for domain in domains {
        let mut way = vec![domain.name.get_ref().as_str()];
        while let Some(next) = way.last().and_then(|last| outer.get(last)) {
            let name = next.get_ref().as_str();
            if way.contains(&name) {
                way.push(name);
                let message = format!("within `{name}`: a domain is within itself: {}", way.join(" -> "));
                return Err(Wrong::at(&next.span(), &message));
            }
            way.push(name);
        }
    }
    Ok(())
}

fn default_link(entry: &Spanned<LinkEntry>) -> Result<LinkSpec, Wrong> {
    let LinkEntry { between, from, to, .. } = entry.get_ref();
    let ends = [
        between.as_ref().map(Spanned::span),
        from.as_ref().map(Spanned::span),
        to.as_ref().map(Spanned::span),
    ];
    if let Some(span) = ends.into_iter().flatten().next() {
        return Err(Wrong::at(&span, "`[links]` is about all links; for two ends write a `[[link]]`"));
    }
    link(entry, &LinkSpec::default())
}

fn link_rules(
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
        rules.push(LinkRule { from, to, both_ways, spec: link(entry, default)? });
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
        return Err(Wrong::at(&entry.span(), &format!("a link from node `{one}` to itself")));
    }
    Ok((one, other, both_ways))
}

fn link(entry: &Spanned<LinkEntry>, default: &LinkSpec) -> Result<LinkSpec, Wrong> {
    let LinkEntry { rate, queue, latency, jitter, loss, reorder, duplicate, corrupt, .. } = entry.get_ref();
    let share = |key: &str, share: &Option<Spanned<f64>>, default: f64| match share {
        None => Ok(default),
        Some(share) if (0.0..=1.0).contains(share.get_ref()) => Ok(*share.get_ref()),
        Some(share) => {
            let message = format!("{key} {}: a share of packets, from 0 to 1", share.get_ref());
            Err(Wrong::at(&share.span(), &message))
        }
    };
    let time = |key: &str, text: &Option<Spanned<String>>, default: u64| {
        Ok(Quantity::Time.read_if_any(key, text.as_ref())?.unwrap_or(default))
    };
    let spec = LinkSpec {
        rate_bits_per_s: Quantity::Rate.read_if_any("rate", rate.as_ref())?.or(default.rate_bits_per_s),
        queue_bytes: Quantity::Size.read_if_any("queue", queue.as_ref())?.unwrap_or(default.queue_bytes),
        latency_us: time("latency", latency, default.latency_us)?,
        jitter_us: time("jitter", jitter, default.jitter_us)?,
        loss: share("loss", loss, default.loss)?,
        reorder: share("reorder", reorder, default.reorder)?,
        duplicate: share("duplicate", duplicate, default.duplicate)?,
        corrupt: share("corrupt", corrupt, default.corrupt)?,
        cut: false,
    };
    let span = |error| {
        let field = match error {
            LinkSpecError::NoRate | LinkSpecError::RateTooHigh(_) => rate.as_ref(),
            LinkSpecError::NoQueue | LinkSpecError::QueueTooLong(_) => queue.as_ref(),
            _ => jitter.as_ref().or(latency.as_ref()),
        };
        field.map_or_else(|| entry.span(), Spanned::span)
    };
    spec.check().map_err(|error| Wrong::at(&span(error), &error.to_string()))?;
    Ok(spec)
}

fn shares_fit(topology: &Topology, nodes_span: &Range<usize>) -> Result<(), Wrong> {
    let sum: f64 = topology.nodes.iter().filter_map(|node| node.cpu_share).sum();
    // Sums of decimal shares are off by some units in the last place.
    if sum <= CPU_SHARES_MAX + 1e-9 {
        return Ok(());
    }
    let message = format!(
        "the nodes' cpu shares add up to {sum:.3}; at most {CPU_SHARES_MAX}, so that switch and load have the rest"
    );
    Err(Wrong::at(nodes_span, &message))
}
