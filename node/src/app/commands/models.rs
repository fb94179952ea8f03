//! `stormo models`: what is deployed, and how one model is divided.

use super::drawing::{dot, svg};
use super::table::{bytes, ms, table};
use super::{say, say_json};
use crate::app::cli::ModelsArgs;
use crate::app::client::{Client, CommandError};
use crate::serve::json::{ModelView, ModelsView};
use stormo_protocol::model::BlockKind;

pub(super) fn run(args: &ModelsArgs) -> Result<(), CommandError> {
    let client = Client::new(&args.api)?;
    let Some(name) = &args.name else {
        let view: ModelsView = client.get("/v1/models")?;
        if args.api.json {
            return say_json(&view);
        }
        let rows: Vec<Vec<String>> = view.models.iter().map(row).collect();
        say(table(&["MODEL", "VERSION", "BLOCKS", "TIME ms", "WEIGHTS", "INPUTS"], &rows));
        return Ok(());
    };
    let model: ModelView = client.get(&format!("/v1/models/{name}"))?;
    match (args.dot, args.svg, args.api.json) {
        (true, ..) => say(dot(&model)),
        (_, true, _) => say(svg(&model)),
        (.., true) => return say_json(&model),
        _ => show(&model),
    }
    Ok(())
}

fn time_ms(model: &ModelView) -> f64 {
    model.blocks.iter().map(|block| block.time_ms).sum()
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
        model.blocks.len().to_string(),
        ms(time_ms(model)),
        bytes(model.weights_bytes),
        inputs.join(", "),
    ]
}

/// Block by block, with the cut behind each; `thin` marks cuts of fewer bytes than the input.
fn show(model: &ModelView) {
    say(format!(
        "`{}` version {}: {} ms, {} of weights, optimisation level {}",
        model.name,
        model.version,
        ms(time_ms(model)),
        bytes(model.weights_bytes),
        model.ort_level
    ));
    let input_bytes = model.cuts.first().map_or(0, |cut| cut.bytes);
    say(format!("in: {}", bytes(input_bytes)));
    let total = time_ms(model).max(f64::MIN_POSITIVE);
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
                ms(block.time_ms),
                format!("{:.0} %", 100.0 * done / total),
                format!("{:.1}", block.mflop),
                bytes(block.weights_bytes),
                bytes(block.peak_activation_bytes),
                format!("{}{}", bytes(crossing), if crossing < input_bytes { " thin" } else { "" }),
                cut.map(|cut| cut.tensors.join(" ")).unwrap_or_default(),
            ]
        })
        .collect();
    say(table(&["BLOCK", "ms", "SO FAR", "MFLOP", "WEIGHTS", "PEAK", "CUT BEHIND", "TENSORS"], &rows));
}
