//! `stormo models`: what is deployed, and how one model is divided.

use super::drawing::{dot, svg};
use super::table::{bytes, ms, table};
use super::{say, say_json};
use crate::app::cli::ModelsArgs;
use crate::app::client::{Client, CommandError, encoded};
use crate::serve::json::{BranchView, CutView, ModelView, ModelsView, VariantView};
use stormo_protocol::model::BlockKind;

pub(super) fn run(args: &ModelsArgs) -> Result<(), CommandError> {
    let client = Client::new(&args.api)?;
    let Some(name) = &args.name else {
        let view: ModelsView = client.get("/v1/models")?;
        if args.api.json {
            return say_json(&view);
        }
        let rows: Vec<Vec<String>> = view.models.iter().map(row).collect();
        say(table(&["MODEL", "VERSION", "VARIANTS", "BLOCKS", "TIME ms", "WEIGHTS", "INPUTS"], &rows));
        return Ok(());
    };
    let variant = args.variant.as_deref().map(|label| format!("?variant={}", encoded(label)));
    let path = format!("/v1/models/{}{}", encoded(name), variant.unwrap_or_default());
    let model: ModelView = client.get(&path)?;
    match (args.dot, args.svg, args.api.json) {
        (true, ..) => say(dot(&model)),
        (_, true, _) => say(svg(&model)),
        (.., true) => return say_json(&model),
        _ => show(&model),
    }
    Ok(())
}

fn row(model: &ModelView) -> Vec<String> {
    let inputs: Vec<String> = model
        .inputs
        .iter()
        .map(|input| format!("{} {} {:?}", input.name, input.datatype, input.shape))
        .collect();
    vec![
        model.name.clone(),
        model.version.to_string(),
        model.variants.iter().map(told).collect::<Vec<_>>().join(", "),
        model.blocks.len().to_string(),
        ms(model.time_ms),
        bytes(model.weights_bytes),
        inputs.join(", "),
    ]
}

/// Which branch of its region a block belongs to, if any, and its name: `2b` is the second branch of the
/// second region.
pub(super) fn branch_of(model: &ModelView, block: usize) -> Option<(usize, String)> {
    let lies_in = |branch: &BranchView| (branch.blocks[0]..branch.blocks[1]).contains(&(block as u16));
    model.regions.iter().enumerate().find_map(|(region, view)| {
        let branch = view.branches.iter().position(lies_in)?;
        Some((branch, name(region, branch)))
    })
}

fn name(region: usize, branch: usize) -> String {
    let letter = ('a'..='z').nth(branch).map_or_else(|| format!(".{branch}"), String::from);
    format!("{}{letter}", region + 1)
}

/// What each branch takes and gives.
fn show_regions(model: &ModelView) {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (region, view) in model.regions.iter().enumerate() {
        for (index, branch) in view.branches.iter().enumerate() {
            let [first, end] = branch.blocks;
            let blocks = &model.blocks[usize::from(first)..usize::from(end)];
            rows.push(vec![
                name(region, index),
                if end == first + 1 { first.to_string() } else { format!("{first}-{}", end - 1) },
                ms(blocks.iter().map(|block| block.time_ms).sum()),
                bytes(branch.reads.bytes),
                bytes(branch.makes.bytes),
                branch.makes.tensors.join(" "),
            ]);
        }
    }
    if !rows.is_empty() {
        say("\nbranches that depend on nothing in each other:");
        say(table(&["BRANCH", "BLOCKS", "ms", "READS", "MAKES", "TENSORS"], &rows));
    }
}

/// `int8 (0.973)`.
fn told(variant: &VariantView) -> String {
    let accuracy = variant.accuracy.map(|share| format!(" ({share:.3})"));
    format!("{}{}", variant.label, accuracy.unwrap_or_default())
}

/// What there is to choose from.
fn show_variants(model: &ModelView) {
    let row = |variant: &VariantView| {
        vec![
            if variant.label == model.variant {
                format!("{} *", variant.label)
            } else {
                variant.label.clone()
            },
            variant.accuracy.map_or_else(|| "?".to_owned(), |share| format!("{share:.3}")),
            variant.blocks.to_string(),
            ms(variant.time_ms),
            bytes(variant.bytes),
            bytes(variant.own_bytes),
        ]
    };
    let rows: Vec<Vec<String>> = model.variants.iter().map(row).collect();
    say(table(&["VARIANT", "ACCURACY", "BLOCKS", "ms", "SIZE", "OF ITS OWN"], &rows));
}

/// Block by block, with the cut behind each; `thin` marks cuts of fewer bytes than the input.
fn show(model: &ModelView) {
    if model.variants.len() > 1 {
        show_variants(model);
    }
    say(format!(
        "`{}` version {}, variant `{}`: {} ms, {} of weights, optimisation level {}",
        model.name,
        model.version,
        model.variant,
        ms(model.time_ms),
        bytes(model.weights_bytes),
        model.ort_level
    ));
    if let Some(items_max) = model.batch_items_max {
        say(format!("up to {items_max} items in one request, along the first axis; all below is for one"));
    }
    let input_bytes = model.cuts.first().map_or(0, |cut| cut.bytes);
    say(format!("in: {}", bytes(input_bytes)));
    let blocks_ms = model.blocks.iter().map(|block| block.time_ms).sum::<f64>();
    let total = blocks_ms.max(f64::MIN_POSITIVE);
    let mut done = 0.0;
    let rows: Vec<Vec<String>> = model
        .blocks
        .iter()
        .enumerate()
        .map(|(index, block)| {
            done += block.time_ms;
            let cut = model.cuts.get(index + 1);
            let crossing = cut.map_or(0, |cut| cut.bytes);
            vec![
                match block.kind {
                    BlockKind::Graph => index.to_string(),
                    BlockKind::Decode => format!("{index} decode"),
                    BlockKind::Read => format!("{index} read"),
                },
                branch_of(model, index).map(|(_, name)| name).unwrap_or_default(),
                ms(block.time_ms),
                format!("{:.0} %", 100.0 * done / total),
                format!("{:.1}", block.mflop),
                bytes(block.weights_bytes),
                bytes(block.peak_activation_bytes),
                format!("{}{}", bytes(crossing), if crossing < input_bytes { " thin" } else { "" }),
                cut.map(|cut| coded(cut, true)).unwrap_or_default(),
                cut.map(|cut| coded(cut, false)).unwrap_or_default(),
                cut.map(|cut| cut.tensors.join(" ")).unwrap_or_default(),
            ]
        })
        .collect();
    let columns = [
        "BLOCK",
        "BRANCH",
        "ms",
        "SO FAR",
        "MFLOP",
        "WEIGHTS",
        "PEAK",
        "CUT BEHIND",
        "LOSSLESS",
        "ROUNDED",
        "TENSORS",
    ];
    say(table(&columns, &rows));
    show_regions(model);
    match model.loss_samples {
        0 => say("What rounding costs was not measured (--card FILE --samples DIR), so plans do not round."),
        count => say(format!("ROUNDED: and the share of answers that change, measured on {count} images.")),
    }
}

/// The fewest bytes of a cut by codecs that lose nothing, or by those that round.
pub(super) fn coded(cut: &CutView, lossless: bool) -> String {
    let fewest = cut.codecs.iter().filter(|coded| coded.codec.is_lossless() == lossless);
    let Some(fewest) = fewest.min_by_key(|coded| coded.bytes) else { return String::new() };
    let text = format!("{} {}", bytes(fewest.bytes), fewest.codec.name());
    match fewest.loss {
        _ if lossless => text,
        Some(loss) => format!("{text} ({:.1} %)", 100.0 * loss),
        None => format!("{text} (?)"),
    }
}
