//! `stormo infer`: asks a model and shows what it answers.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use stormo_protocol::ids::NodeId;
use stormo_protocol::model::MEANING;
use stormo_protocol::tensor::DType;

use super::annotate::Drawing;
use super::asking::{answer_error, meaning_of, model_of, read_answer, request};
use super::inputs::{encoded_image, read_inputs};
use super::table::{Screen, ms};
use super::timeline::waterfall;
use super::{here, say, say_json};
use crate::app::cli::InferArgs;
use crate::app::client::{Client, CommandError, encoded};
use crate::card::Meaning;
use crate::serve::json::{ModelView, NodesView, RequestView};

/// Values of an output that are shown to people.
const SHOWN_MAX: usize = 5;

pub(super) fn run(args: &InferArgs) -> Result<(), CommandError> {
    let drawing = args.draw.as_deref().map(Drawing::begin).transpose()?;
    let client = Client::for_requests(&args.api, args.ask.timeout)?;
    let model = model_of(&client, &args.name, args.ask.variant.as_deref())?;
    let inputs = read_inputs(&args.inputs, &model)?;
    let drawn_on = drawing.map(|drawing| Ok((drawing, shows(args, &model)?))).transpose()?;
    let (header_length, body) = request(&args.ask, &inputs)?;
    let mut answer = read_answer(&client.infer(&args.name, header_length, &body)?)?;
    if let Some((drawing, image)) = drawn_on {
        let Some(Meaning::Detections(found)) = meaning_of(&answer) else {
            return Err(answer_error(&"it has no detections to draw"));
        };
        drawing.finish(image, &found)?;
    }
    let trace = args.trace.then(|| traced(&client, &answer)).transpose()?;
    if args.api.json {
        if let Some((request, _)) = trace {
            answer["trace"] = serde_json::to_value(request).map_err(here)?;
        }
        return say_json(&answer);
    }
    show(&answer);
    if let Some((request, labels)) = trace {
        let label_of = |node: NodeId| labels.get(&node).cloned().unwrap_or_else(|| node.short());
        waterfall(&request, label_of, &Screen::of_stdout()).into_iter().for_each(say);
    }
    if let Some(path) = &args.draw {
        say(format!("the picture with the boxes: {}", path.display()));
    }
    Ok(())
}

/// How the answered request went, and what nodes are called.
fn traced(client: &Client, answer: &Value) -> Result<(RequestView, HashMap<NodeId, String>), CommandError> {
    let id = answer["parameters"]["request_id"].as_str();
    let id = id.ok_or_else(|| answer_error(&"it does not tell the request's id"))?;
    let NodesView { nodes } = client.get("/v1/nodes")?;
    let labels = nodes.into_iter().map(|node| (node.id, node.label)).collect();
    Ok((client.get(&format!("/v1/requests/{}", encoded(id)))?, labels))
}

/// The image in which a detector finds what is to be drawn.
fn shows<'a>(args: &'a InferArgs, model: &ModelView) -> Result<&'a Path, CommandError> {
    let name = &args.name;
    match model.card.as_deref() {
        Some("detections") => {}
        Some(other) => {
            return Err(here(format!(
                "--draw is for what a detector finds; the card of `{name}` reads `{other}`"
            )));
        }
        None => {
            return Err(here(format!(
                "--draw is for what a detector finds; `{name}` has no card that says where its output has it"
            )));
        }
    }
    encoded_image(&args.inputs, model)
        .ok_or_else(|| here("--draw needs an image among the inputs, as .jpg or .png, to draw on"))
}

fn show(answer: &Value) {
    for output in answer["outputs"].as_array().into_iter().flatten() {
        if output["name"] == MEANING {
            show_meaning(meaning_of(answer));
            continue;
        }
        let shape: Vec<String> =
            output["shape"].as_array().into_iter().flatten().map(ToString::to_string).collect();
        say(format!(
            "{} {} [{}]",
            output["name"].as_str().unwrap_or("?"),
            output["datatype"].as_str().unwrap_or("?"),
            shape.join(", ")
        ));
        show_values(output);
    }
    let parameters = &answer["parameters"];
    let nodes = parameters["nodes"].as_str().unwrap_or_default().split(',').count();
    let energy = parameters["energy_j"].as_f64().map_or(String::new(), |energy_j| {
        let foretold = parameters["predicted_energy_j"].as_f64();
        let foretold = foretold.map_or(String::new(), |energy_j| format!(" (foretold {energy_j:.4})"));
        format!(", {energy_j:.4} J{foretold}")
    });
    say(format!(
        "{} ms{}{energy}, variant `{}`, {nodes} stage{}, plan {}",
        ms(parameters["latency_ms"].as_f64().unwrap_or(0.0)),
        if parameters["late"].as_bool().unwrap_or(false) { " (late)" } else { "" },
        parameters["variant"].as_str().unwrap_or("?"),
        if nodes == 1 { "" } else { "s" },
        parameters["plan_id"].as_str().unwrap_or("?"),
    ));
}

fn show_meaning(meaning: Option<Meaning>) {
    match meaning {
        Some(Meaning::Classes(classes)) => {
            for class in classes {
                say(format!("{:>6.1} %  {}", 100.0 * class.score, class.label));
            }
        }
        Some(Meaning::Detections(found)) => {
            say(format!("{} found", found.len()));
            for detection in found {
                let [left, top, right, bottom] = detection.box_px.map(|edge| edge.round());
                say(format!(
                    "{:>6.1} %  {}  from ({left}, {top}) to ({right}, {bottom})",
                    100.0 * detection.score,
                    detection.label
                ));
            }
        }
        Some(Meaning::Raw) => say("the card gives the outputs no meaning"),
        None => say("the answer's meaning is not understood by this version"),
    }
}

/// The first texts, or the largest numbers with their places: for a classifier, the answer.
fn show_values(output: &Value) {
    let texts: Vec<String> = output["data"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|value| value.is_string())
        .take(SHOWN_MAX)
        .map(ToString::to_string)
        .collect();
    if !texts.is_empty() {
        say(format!("  first: {}", texts.join("   ")));
        return;
    }
    let values: Vec<f64> = output["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|value| value.as_f64().unwrap_or(f64::NAN))
        .collect();
    let is_number = output["datatype"].as_str().and_then(DType::from_oip_name) != Some(DType::Bool);
    if !is_number || values.is_empty() {
        return;
    }
    let mut order: Vec<usize> = (0..values.len()).filter(|index| values[*index].is_finite()).collect();
    order.sort_by(|one, other| values[*other].total_cmp(&values[*one]));
    let largest: Vec<String> =
        order.iter().take(SHOWN_MAX).map(|index| format!("[{index}] {:.4}", values[*index])).collect();
    say(format!("  largest: {}", largest.join("   ")));
}
