//! `stormo infer`: asks a model and shows what it answers.

use std::path::Path;

use serde_json::{Value, json};
use stormo_protocol::model::{ENCODED_IMAGE, MEANING};
use stormo_protocol::tensor::{DType, Tensor};

use super::annotate::Drawing;
use super::inputs::{encoded_image, read_inputs};
use super::table::ms;
use super::{here, say, say_json};
use crate::app::cli::{InferArgs, ObjectiveArg};
use crate::app::client::{Answered, Client, CommandError, encoded};
use crate::card::Meaning;
use crate::serve::json::ModelView;

/// Values of an output that are shown to people.
const SHOWN_MAX: usize = 5;

pub(super) fn run(args: &InferArgs) -> Result<(), CommandError> {
    let drawing = args.draw.as_deref().map(Drawing::begin).transpose()?;
    let client = Client::new(&args.api)?;
    let variant = args.variant.as_deref().map(|label| format!("?variant={}", encoded(label)));
    let path = format!("/v1/models/{}{}", encoded(&args.name), variant.unwrap_or_default());
    let model: ModelView = client.get(&path)?;
    let inputs = read_inputs(&args.inputs, &model)?;
    let drawn_on = drawing.map(|drawing| Ok((drawing, shows(args, &model)?))).transpose()?;
    let (header_length, body) = request(args, &inputs)?;
    let answered = client.infer(&args.name, header_length, &body)?;
    let answer: Value = serde_json::from_slice(head(&answered)?).map_err(|error| answer_error(&error))?;
    if let Some((drawing, image)) = drawn_on {
        let Some(Meaning::Detections(found)) = meaning_of(&answer) else {
            return Err(answer_error(&"it has no detections to draw"));
        };
        drawing.finish(image, &found)?;
    }
    if args.api.json {
        return say_json(&answer);
    }
    show(&answer);
    if let Some(path) = &args.draw {
        say(format!("the picture with the boxes: {}", path.display()));
    }
    Ok(())
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

/// What the answer says the model saw, where it does and this version understands it.
fn meaning_of(answer: &Value) -> Option<Meaning> {
    let output = answer["outputs"].as_array()?.iter().find(|output| output["name"] == MEANING)?;
    serde_json::from_str(output["data"][0].as_str()?).ok()
}

fn answer_error(error: &dyn std::fmt::Display) -> CommandError {
    CommandError::Answer(error.to_string())
}

fn head(answered: &Answered) -> Result<&[u8], CommandError> {
    let length = answered.header_length.unwrap_or(answered.body.len());
    answered.body.get(..length).ok_or_else(|| answer_error(&"the body is shorter than announced"))
}

/// JSON, then the inputs' bytes; the answer is asked for as JSON.
fn request(args: &InferArgs, inputs: &[Tensor]) -> Result<(usize, Vec<u8>), CommandError> {
    let described: Vec<Value> = inputs
        .iter()
        .map(|tensor| {
            if tensor.spec().name == ENCODED_IMAGE {
                let size = 4 + tensor.data().as_bytes().len();
                return json!({
                    "name": "image",
                    "shape": [1],
                    "datatype": "BYTES",
                    "parameters": { "binary_data_size": size },
                });
            }
            json!({
                "name": tensor.spec().name,
                "shape": tensor.spec().shape,
                "datatype": tensor.spec().dtype.oip_name(),
                "parameters": { "binary_data_size": tensor.data().as_bytes().len() },
            })
        })
        .collect();
    let mut parameters = json!({
        "timeout_ms": args.timeout,
        "force_first": args.limits.force_first,
        "force_last": args.limits.force_last,
    });
    if let Some(limit) = args.limits.max_latency {
        parameters["max_latency_ms"] = json!(limit);
    }
    if let Some(limit) = args.limits.max_energy {
        parameters["max_energy_j"] = json!(limit);
    }
    if args.limits.objective != ObjectiveArg::Latency {
        parameters["objective"] = json!(args.limits.objective.name());
    }
    if let Some(enough) = args.limits.min_accuracy {
        parameters["min_accuracy"] = json!(enough);
    }
    if let Some(label) = &args.variant {
        parameters["variant"] = json!(label);
    }
    if let Some(plan) = &args.plan_id {
        parameters["plan_id"] = json!(plan);
    }
    let mut body =
        serde_json::to_vec(&json!({ "inputs": described, "parameters": parameters })).map_err(here)?;
    let header_length = body.len();
    for tensor in inputs {
        if tensor.spec().name == ENCODED_IMAGE {
            body.extend_from_slice(&(tensor.data().as_bytes().len() as u32).to_le_bytes());
        }
        body.extend_from_slice(tensor.data().as_bytes());
    }
    Ok((header_length, body))
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
