//! What is deployed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use stormo_protocol::limits::BLOCKS_MAX;
use toml::Spanned;

use super::super::Deploy;
use super::super::entries::{DeployEntry, PlaceEntry, VariantEntry};
use super::{Around, Wrong, within_if};
use crate::binary::workspace_root;
use crate::{rules, surroundings};

/// As the command line bounds them.
const PARTS_MAX: u16 = 64;
/// A node with less hosts no block of any model.
const HOSTING_BYTES_MIN: u64 = 4096;
/// The command line's words.
const LEVELS: [&str; 4] = ["off", "basic", "extended", "all"];
/// The label of the first variant.
const BASE: &str = "base";

pub(super) fn read(around: &Around, entries: Vec<Spanned<DeployEntry>>) -> Result<Vec<Deploy>, Wrong> {
    let mut names = BTreeSet::new();
    let mut deploys = Vec::new();
    for entry in entries {
        let deploy = one(around, entry.get_ref())?;
        if !names.insert(deploy.name.clone()) {
            let message = format!("`name`: `{}` is deployed above", deploy.name);
            return Err(Wrong::at(&entry.get_ref().name.span(), message));
        }
        deploys.push(deploy);
    }
    Ok(deploys)
}

fn one(around: &Around, entry: &DeployEntry) -> Result<Deploy, Wrong> {
    let name = named("name", &entry.name)?;
    if let (Some(parts), false) = (&entry.parts, entry.placement.is_empty()) {
        return Err(Wrong::at(&parts.span(), "`parts` and `placement` exclude each other"));
    }
    let placement: Vec<_> =
        entry.placement.iter().map(|place| placed(around, place)).collect::<Result<_, _>>()?;
    placed_well(entry, &placement)?;
    let (parts, replicas) =
        (count("parts", entry.parts.as_ref())?, count("replicas", entry.replicas.as_ref())?);
    hosted(around, entry, parts, replicas)?;
    let ort_level = entry.ort_level.as_ref().map_or("all", |level| level.get_ref().as_str());
    if let Some(level) = entry.ort_level.as_ref().filter(|level| !LEVELS.contains(&level.get_ref().as_str()))
    {
        let message = format!("`ort_level`: `{}` is none of {}", level.get_ref(), LEVELS.join(", "));
        return Err(Wrong::at(&level.span(), message));
    }
    Ok(Deploy {
        name,
        model: model("model", &entry.model)?,
        at: around.node("at", &entry.at)?,
        parts,
        replicas,
        placement,
        ort_level: ort_level.to_owned(),
        accuracy: within_if("accuracy", entry.accuracy.as_ref(), 0.0, 1.0)?,
        card: entry.card.as_ref().map(card).transpose()?,
        samples: samples(entry)?,
        variants: variants(&entry.variant)?,
    })
}

/// A name as deployments and variants have.
fn named(field: &str, name: &Spanned<String>) -> Result<String, Wrong> {
    let text = name.get_ref();
    rules::check_name(text).map_err(|why| Wrong::at(&name.span(), format!("`{field}`: {why}")))?;
    Ok(text.clone())
}

fn count(field: &str, value: Option<&Spanned<u16>>) -> Result<Option<u16>, Wrong> {
    match value {
        Some(value) if !(1..=PARTS_MAX).contains(value.get_ref()) => {
            let message = format!("`{field}` is {}; it must be from 1 to {PARTS_MAX}", value.get_ref());
            Err(Wrong::at(&value.span(), message))
        }
        value => Ok(value.map(|value| *value.get_ref())),
    }
}

fn placed(around: &Around, entry: &PlaceEntry) -> Result<(String, [u16; 2]), Wrong> {
    let node = &around.topology.nodes[around.node("placement.node", &entry.node)?];
    if node.memory_budget_bytes < HOSTING_BYTES_MIN {
        let message = format!(
            "`placement.node`: `{}` has a `memory_budget` of {} bytes in the topology, too little for any block",
            node.label, node.memory_budget_bytes
        );
        return Err(Wrong::at(&entry.node.span(), message));
    }
    let blocks = entry.blocks.get_ref();
    let [first, end] = blocks[..] else {
        let message =
            format!("`placement.blocks`: {} numbers; a first block and one past the last", blocks.len());
        return Err(Wrong::at(&entry.blocks.span(), message));
    };
    if usize::from(end) > BLOCKS_MAX {
        let message =
            format!("`placement.blocks`: [{first}, {end}]: a model has {BLOCKS_MAX} blocks at most");
        return Err(Wrong::at(&entry.blocks.span(), message));
    }
    if first >= end {
        let message =
            format!("`placement.blocks`: [{first}, {end}] is empty; the second is one past the last");
        return Err(Wrong::at(&entry.blocks.span(), message));
    }
    Ok((entry.node.get_ref().clone(), [first, end]))
}

/// That every block is somewhere, and on no node twice.
fn placed_well(entry: &DeployEntry, placement: &[(String, [u16; 2])]) -> Result<(), Wrong> {
    if let (Some(replicas), false) = (&entry.replicas, placement.is_empty()) {
        let message = "`replicas` and `placement` exclude each other: a block has as many as places name it";
        return Err(Wrong::at(&replicas.span(), message));
    }
    for (index, (node, [first, end])) in placement.iter().enumerate() {
        let overlaps = |(other, [from, to]): &&(String, [u16; 2])| other == node && first < to && from < end;
        if let Some((_, [from, to])) = placement[..index].iter().find(overlaps) {
            let message = format!(
                "`placement.blocks`: [{first}, {end}] and [{from}, {to}] are both on `{node}`; a block is on a node once"
            );
            return Err(Wrong::at(&entry.placement[index].blocks.span(), message));
        }
    }
    let last = placement.iter().map(|(_, [_, end])| *end).max().unwrap_or(0);
    let is_hosted = |block: &u16| placement.iter().any(|(_, [first, end])| (*first..*end).contains(block));
    // With a card, the first block is the image's way to the input, which nobody hosts who gets tensors.
    let first = u16::from(entry.card.is_some());
    if let Some(gap) = (first..last).find(|block| !is_hosted(block)) {
        let behind = placement.iter().position(|(_, [first, _])| *first > gap).unwrap_or(0);
        let message = format!(
            "`placement.blocks`: block {gap} is nowhere; a place of `blocks = [{gap}, ...]` is missing (the second is \
             one past the last)"
        );
        return Err(Wrong::at(&entry.placement[behind].blocks.span(), message));
    }
    Ok(())
}

/// That the topology has the nodes that all parts and replicas take.
fn hosted(
    around: &Around,
    entry: &DeployEntry,
    parts: Option<u16>,
    replicas: Option<u16>,
) -> Result<(), Wrong> {
    let hosts =
        around.topology.nodes.iter().filter(|node| node.memory_budget_bytes >= HOSTING_BYTES_MIN).count();
    let (of_parts, of_replicas) = (usize::from(parts.unwrap_or(1)), usize::from(replicas.unwrap_or(1)));
    let (field, span) = match (&entry.replicas, &entry.parts) {
        (Some(replicas), _) => ("replicas", replicas.span()),
        (None, Some(parts)) => ("parts", parts.span()),
        (None, None) => return Ok(()),
    };
    if of_parts * of_replicas <= hosts {
        return Ok(());
    }
    let message = format!(
        "`{field}`: {of_parts} part{} on {of_replicas} node{} each take {} different nodes; the topology has {hosts} with \
         memory for anything",
        if of_parts == 1 { "" } else { "s" },
        if of_replicas == 1 { "" } else { "s" },
        of_parts * of_replicas
    );
    Err(Wrong::at(&span, message))
}

fn variants(entries: &[VariantEntry]) -> Result<Vec<(String, PathBuf, Option<f64>)>, Wrong> {
    let mut labels = BTreeSet::from([BASE.to_owned()]);
    let variant = |entry: &VariantEntry| {
        let label = named("variant.label", &entry.label)?;
        if !labels.insert(label.clone()) {
            let message = format!("`variant.label`: `{label}` is taken; `{BASE}` is the model's own");
            return Err(Wrong::at(&entry.label.span(), message));
        }
        let accuracy = within_if("variant.accuracy", entry.accuracy.as_ref(), 0.0, 1.0)?;
        Ok((label, model("variant.model", &entry.model)?, accuracy))
    };
    entries.iter().map(variant).collect()
}

/// A card of the tree by its name.
fn card(name: &Spanned<String>) -> Result<PathBuf, Wrong> {
    let models = workspace_root().join("testnet/models");
    let file = format!("{}.toml", plain("card", name)?);
    let found =
        [models.join(&file), models.join("cards").join(&file)].into_iter().find(|path| path.is_file());
    found.ok_or_else(|| {
        let message = format!("`card`: there is no `{file}` in testnet/models, nor in testnet/models/cards");
        Wrong::at(&name.span(), message)
    })
}

/// A folder of samples beside the models of the tree, else beside the shared ones; only with a card, since without
/// one losses are not measured.
fn samples(entry: &DeployEntry) -> Result<Option<PathBuf>, Wrong> {
    let Some(name) = &entry.samples else { return Ok(None) };
    if entry.card.is_none() {
        let message =
            "`samples` without `card`: what rounding costs is not measured then; give both, or neither";
        return Err(Wrong::at(&name.span(), message));
    }
    let given = plain("samples", name)?;
    let own = workspace_root().join("testnet/models").join(given);
    let shared = surroundings::shared_models().map(|folder| folder.join(given));
    let found = [Some(own), shared].into_iter().flatten().find(|path| path.is_dir());
    found.map(Some).ok_or_else(|| {
        let message = format!(
            "`samples`: there is no folder `{given}` in testnet/models, nor in `models` of the folder that {} names",
            surroundings::SHARED
        );
        Wrong::at(&name.span(), message)
    })
}

fn plain<'a>(field: &str, name: &'a Spanned<String>) -> Result<&'a str, Wrong> {
    let given = name.get_ref().as_str();
    match rules::check_name(given) {
        Ok(()) => Ok(given),
        Err(why) => Err(Wrong::at(&name.span(), format!("`{field}`: {why}"))),
    }
}

/// Names of the tree's models.
fn own_models() -> Vec<String> {
    let files = std::fs::read_dir(workspace_root().join("testnet/models")).into_iter().flatten().flatten();
    let names = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".onnx")?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// A model of the tree by its name, else one of the shared models.
fn model(field: &str, name: &Spanned<String>) -> Result<PathBuf, Wrong> {
    let given = name.get_ref();
    if rules::check_name(given).is_err() {
        let message = format!("`{field}`: `{given}` is no name; a model is named without folder and ending");
        return Err(Wrong::at(&name.span(), message));
    }
    let file = format!("{given}.onnx");
    let own = workspace_root().join("testnet/models").join(&file);
    let shared = surroundings::shared_models().map(|folder| folder.join(&file));
    [Some(own), shared].into_iter().flatten().find(|path| path.is_file()).ok_or_else(|| {
        let hint = match given.strip_suffix(".onnx") {
            Some(_) => "; a model is named without its ending".to_owned(),
            None => format!(" (there are: {})", own_models().join(", ")),
        };
        let message = format!(
            "`{field}`: there is no model `{given}` in testnet/models{hint}; others are looked for in `models` of the \
             folder that {} names",
            surroundings::SHARED
        );
        Wrong::at(&name.span(), message)
    })
}
