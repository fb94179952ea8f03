//! What loads send, and what the undivided models answer to it, each variant at the level of optimisation
//! that it is deployed with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use stormo::serve::json::{ModelView, TensorView};
use stormo_protocol::model::OrtLevel;
use stormo_protocol::tensor::DType;

use crate::client::Client;
use crate::generator::{Body, Course, CoursePace};
use crate::judge::Expected;
use crate::mesh::Mesh;
use crate::oip::FloatTensor;
use crate::random::Random;
use crate::scenario::{Deploy, LoadSpec, Scenario};
use crate::whole::Whole;
use crate::{arrays, digits, surroundings, wait};

/// Until a deployment has reached the node where requests enter.
const KNOWN_MAX: Duration = Duration::from_secs(60);

/// What is asked, and what should be answered.
#[derive(Debug)]
pub(super) struct Asked {
    /// One for each load; its pace is still open.
    pub(super) courses: Vec<Course>,
    pub(super) variants: HashMap<(u16, String), Expected>,
}

pub(super) fn prepare(scenario: &Scenario, mesh: &Mesh, seed: u64) -> Result<Asked> {
    let mut asked = Asked { courses: Vec::new(), variants: HashMap::new() };
    for (place, load) in scenario.loads.iter().enumerate() {
        let deploy = scenario.deploys.iter().find(|deploy| deploy.name == load.deploy);
        let deploy = deploy.context("a load's deployment was checked")?;
        // Every node where requests enter must know the model, or the first ones would be refused.
        let mut views = load.at.iter().map(|entry| {
            let label = &scenario.topology.nodes[*entry].label;
            known(&mesh.node(label).client, &deploy.name, None).with_context(|| format!("at {label}"))
        });
        let first = views.next().context("a load enters somewhere")??;
        views.try_for_each(|view| view.map(drop))?;
        let entry = &mesh.node(&scenario.topology.nodes[load.at[0]].label).client;
        let inputs = inputs(deploy, load, &first, seed)?;
        let mut files: Vec<(String, &Path)> = vec![(first.variant.clone(), &deploy.model)];
        files.extend(deploy.variants.iter().map(|(label, file, _)| (label.clone(), file.as_path())));
        for (label, file) in files {
            let view = known(entry, &deploy.name, Some(&label))?;
            let mut expected = expected(file, &view, &inputs).with_context(|| file.display().to_string())?;
            expected.accuracy = view.accuracy.unwrap_or(if label == first.variant { 1.0 } else { 0.0 });
            asked.variants.insert((place as u16, label), expected);
        }
        asked.courses.push(Course {
            path: format!("/v2/models/{}/infer", deploy.name),
            bodies: inputs.iter().map(|input| body(load, input)).collect(),
            at: load.at.iter().map(|place| *place as u16).collect(),
            pace: CoursePace::Open([].into()),
            timeout: Duration::from_millis(u64::from(load.timeout_ms)),
        });
    }
    Ok(asked)
}

fn known(client: &Client, name: &str, variant: Option<&str>) -> Result<ModelView> {
    let query = variant.map_or(String::new(), |label| format!("?variant={label}"));
    let path = format!("/v1/models/{name}{query}");
    let view = wait::until(&format!("`{name}` to be known"), KNOWN_MAX, || {
        client.get(&path).map_err(|error| error.to_string())
    })?;
    Ok(view)
}

/// The inputs of a load: images for the digits, the golden ones of a shared model, else numbers from 0 to 1.
fn inputs(deploy: &Deploy, load: &LoadSpec, view: &ModelView, seed: u64) -> Result<Vec<Vec<FloatTensor>>> {
    for tensor in &view.inputs {
        let is_plain = tensor.datatype == "FP32" && !tensor.is_variable;
        let (name, of) = (&tensor.name, &deploy.name);
        ensure!(is_plain, "input `{name}` of `{of}`: loads make inputs of type FP32 and fixed shape only");
    }
    for tensor in &view.outputs {
        let is_judged = tensor.datatype != DType::Text.oip_name() && !tensor.is_variable;
        let (name, of) = (&tensor.name, &deploy.name);
        ensure!(is_judged, "output `{name}` of `{of}`: texts, and outputs of no fixed shape, are not judged");
    }
    let mut found: Vec<Vec<FloatTensor>> = Vec::new();
    let stem = deploy.model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if stem == "digits" {
        let input = view.inputs.first().context("it has an input")?;
        found.extend(digits::load()?.iter().map(|image| image.request(input).inputs));
    } else if let Some(golden) = golden(&stem) {
        found.push(arrays::read_golden(&golden).with_context(|| golden.display().to_string())?.inputs);
    }
    let mut random = Random::of(seed, &format!("inputs of {}", deploy.name));
    found.truncate(usize::from(load.inputs));
    while found.len() < usize::from(load.inputs) {
        found.push(view.inputs.iter().map(|view| drawn(view, &mut random)).collect());
    }
    Ok(found)
}

fn golden(stem: &str) -> Option<PathBuf> {
    let path = surroundings::shared_models()?.join("golden").join(format!("{stem}.npz"));
    Some(path).filter(|path| path.is_file())
}

fn drawn(view: &TensorView, random: &mut Random) -> FloatTensor {
    let elements: u64 = view.shape.iter().product();
    FloatTensor {
        name: view.name.clone(),
        shape: view.shape.clone(),
        datatype: view.datatype.clone(),
        data: (0..elements).map(|_| random.unit() as f32).collect(),
    }
}

fn expected(file: &Path, view: &ModelView, inputs: &[Vec<FloatTensor>]) -> Result<Expected> {
    let level = match view.ort_level.as_str() {
        "off" => OrtLevel::Off,
        "basic" => OrtLevel::Basic,
        "extended" => OrtLevel::Extended,
        _ => OrtLevel::All,
    };
    let whole = Whole::load_at(level, file, &view.inputs, &view.outputs)?;
    let mut losses: HashMap<String, f64> = HashMap::new();
    for codec in view.cuts.iter().flat_map(|cut| &cut.codecs) {
        if let Some(loss) = codec.loss {
            let known = losses.entry(codec.codec.name().to_owned()).or_default();
            *known = known.max(loss);
        }
    }
    let outputs = inputs.iter().map(|input| whole.outputs(input)).collect::<Result<_>>()?;
    Ok(Expected { outputs, accuracy: 0.0, losses })
}

/// The bytes of a request behind its id.
fn body(load: &LoadSpec, inputs: &[FloatTensor]) -> Body {
    let mut parameters = Map::new();
    parameters.insert("binary_data_output".to_owned(), true.into());
    parameters.insert("timeout_ms".to_owned(), load.timeout_ms.into());
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            parameters.insert(name.to_owned(), value);
        }
    };
    set("max_latency_ms", load.max_latency_ms.map(Value::from));
    set("min_accuracy", load.min_accuracy.map(Value::from));
    set("variant", load.variant.clone().map(Value::from));
    set("redundancy", load.redundancy.map(|redundancy| redundancy.name().into()));
    let tensors: Vec<u8> =
        inputs.iter().flat_map(|input| &input.data).flat_map(|value| value.to_le_bytes()).collect();
    let heads: Vec<Value> = inputs
        .iter()
        .map(|input| {
            json!({
                "name": input.name,
                "shape": input.shape,
                "datatype": input.datatype,
                "parameters": { "binary_data_size": input.data.len() * 4 },
            })
        })
        .collect();
    let text = json!({ "inputs": heads, "parameters": parameters }).to_string();
    // Behind `{"id":"...`: the quote that closes it, and the rest of the object.
    Body { head: format!("\",{}", &text[1..]).into(), tensors: tensors.into() }
}
