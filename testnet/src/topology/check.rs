//! From what a topology file says to what can be started, or what is wrong with it.

mod links;
mod machines;
mod members;

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;

use super::file::{DomainEntry, File, NatEntry};
use super::quantity::RATE;
use super::{CPU_SHARES_MAX, DomainSpec, NODES_MAX, NatSpec, Topology, Wrong};
use crate::counted::counted;
use crate::link::LinkSpec;
use crate::rules;

/// Domains of a mesh: more than it can have nodes.
const DOMAINS_MAX: usize = 256;

/// Names taken so far, and what they are of.
type Names = BTreeMap<String, &'static str>;

pub(super) fn topology(file: File) -> Result<Topology, Wrong> {
    if file.about.get_ref().trim().is_empty() {
        return Err(Wrong::at(&file.about.span(), "`about` says nothing; write what this mesh is for"));
    }
    let nodes_span = file.node.span();
    let places = members::Places::of(&file);
    let entries = file.node.into_inner();
    if entries.is_empty() || entries.len() > NODES_MAX {
        let message = format!("{}; a mesh has 1 to {NODES_MAX}", counted(entries.len(), "node"));
        return Err(Wrong::at(&nodes_span, &message));
    }
    if let Some(entry) = file.domain.get(DOMAINS_MAX) {
        let message = format!("more than {DOMAINS_MAX} domains");
        return Err(Wrong::at(&entry.name.span(), &message));
    }
    let mut names = Names::new();
    for entry in &entries {
        take_name(&mut names, "label", "node", &entry.label)?;
        let label = entry.label.get_ref();
        if label == "lock" || label.ends_with(".toml") {
            let message = format!(
                "label `{label}`: `lock` and names with `.toml` are files of the testnet's own there"
            );
            return Err(Wrong::at(&entry.label.span(), &message));
        }
    }
    file.domain.iter().try_for_each(|entry| take_name(&mut names, "name", "domain", &entry.name))?;
    file.nat.iter().try_for_each(|entry| take_name(&mut names, "name", "nat", &entry.name))?;
    within_no_circle(&file.domain, &names)?;
    let default_link = match &file.links {
        Some(entry) => links::default(entry, &file.link)?,
        None => LinkSpec::default(),
    };
    let checked = Topology {
        about: file.about.into_inner(),
        nodes: entries.into_iter().map(|entry| machines::node(entry, &names)).collect::<Result<_, _>>()?,
        domains: file.domain.into_iter().map(domain).collect::<Result<_, _>>()?,
        nats: file.nat.into_iter().map(nat).collect(),
        default_link,
        link_rules: links::rules(&file.link, &default_link, &names)?,
    };
    places.check(&checked)?;
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

fn domain(entry: DomainEntry) -> Result<DomainSpec, Wrong> {
    Ok(DomainSpec {
        kind: entry.kind,
        within: entry.within.map(Spanned::into_inner),
        uplink_bits_per_s: RATE.read_if_any("uplink", entry.uplink.as_ref())?,
        downlink_bits_per_s: RATE.read_if_any("downlink", entry.downlink.as_ref())?,
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
