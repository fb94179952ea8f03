//! What is deployed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use toml::Spanned;

use super::super::Deploy;
use super::super::entries::{DeployEntry, PlaceEntry, VariantEntry};
use super::{Around, Wrong, within_if};
use crate::binary::workspace_root;
use crate::{rules, surroundings};

/// As the command line bounds them.
const PARTS_MAX: u16 = 64;
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
        parts: count("parts", entry.parts.as_ref())?,
        replicas: count("replicas", entry.replicas.as_ref())?,
        placement: entry.placement.iter().map(|place| placed(around, place)).collect::<Result<_, _>>()?,
        ort_level: ort_level.to_owned(),
        accuracy: within_if("accuracy", entry.accuracy.as_ref(), 0.0, 1.0)?,
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
    around.node("placement.node", &entry.node)?;
    let blocks = entry.blocks.get_ref();
    let [first, end] = blocks[..] else {
        let message =
            format!("`placement.blocks`: {} numbers; a first block and one past the last", blocks.len());
        return Err(Wrong::at(&entry.blocks.span(), message));
    };
    if first >= end {
        let message =
            format!("`placement.blocks`: [{first}, {end}] is empty; the second is one past the last");
        return Err(Wrong::at(&entry.blocks.span(), message));
    }
    Ok((entry.node.get_ref().clone(), [first, end]))
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
        let message = format!(
            "`{field}`: there is no model `{given}` in testnet/models, nor in `models` of the folder that {} \
             names",
            surroundings::SHARED
        );
        Wrong::at(&name.span(), message)
    })
}
