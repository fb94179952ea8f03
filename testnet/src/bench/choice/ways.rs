//! The ways to run a network that are set beside each other: plans of the mesh's own planner, for all of the mesh or a
//! part of it, as if all were loaded; the first requests by each then load what it needs.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use stormo::serve::json::{PlanView, PlansView};
use stormo_protocol::ids::PlanId;
use stormo_protocol::state::Class;
use stormo_testnet::arrays;
use stormo_testnet::battery::Watts;
use stormo_testnet::client::Client;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::{AnswerParameters, FloatTensor};
use stormo_testnet::topology::Topology;
use stormo_testnet::trial;

use super::cases::{Case, Input};

/// Share of the model's answers that have to stay as they are where rounding is allowed.
const ACCURACY_ENOUGH: f64 = 0.9;
/// Candidates that are measured: the soonest, and the soonest of each kind.
const CANDIDATES_MAX: usize = 8;
/// A slow board loads a large part for long.
const TIMEOUT_MS: u32 = 120_000;

/// Where requests enter, and what stands behind that.
pub(super) struct Deployed {
    /// The device.
    pub(super) origin: String,
    /// Labels of all clouds: what is left out of "device and edge".
    clouds: Vec<String>,
    edges: Vec<String>,
    /// What the device takes, if the topology says so.
    pub(super) watts: Option<Watts>,
}

/// A way to run it.
pub(super) struct Way {
    pub(super) name: String,
    /// `None`: the planner decides for each request.
    pub(super) plan: Option<PlanView>,
}

/// A network asked in one form at one node.
pub(super) struct Asked<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) deployed: &'a Deployed,
    pub(super) client: Client,
    model: &'a str,
    input: Input,
    inputs: Vec<Value>,
    bytes: Vec<u8>,
}

/// Whole on every node that has memory for it, so that no way has to load the whole first.
pub(super) fn deploy(mesh: &Mesh, topology: &Topology, case: &Case) -> Result<Deployed> {
    let of = |class: Class| {
        let nodes = topology.nodes.iter().filter(|node| node.class == class);
        nodes.map(|node| node.label.clone()).collect::<Vec<_>>()
    };
    let origin = of(Class::Device).into_iter().next().unwrap_or_else(|| topology.nodes[0].label.clone());
    let (edges, clouds) = (of(Class::Edge), of(Class::Cloud));
    let at = clouds.first().unwrap_or(&topology.nodes[0].label);
    let replicas = topology.nodes.len().to_string();
    let mut options = vec!["--replicas", &replicas];
    let [card, samples] = match &case.photos {
        Some(photos) => [&photos.card, &photos.samples].map(|path| path.display().to_string()),
        None => [String::new(), String::new()],
    };
    if case.photos.is_some() {
        options.extend(["--card", &card, "--samples", &samples, "--quantize", "int8"]);
    }
    trial::deploy(mesh, at, &case.name, &case.model, &options)?;
    let watts = topology.node(&origin).and_then(|node| node.battery).map(|battery| battery.watts);
    Ok(Deployed { origin, clouds, edges, watts })
}

impl<'a> Asked<'a> {
    pub(super) fn new(mesh: &'a Mesh, deployed: &'a Deployed, case: &'a Case, input: Input) -> Result<Self> {
        let client = mesh.node(&deployed.origin).client.clone();
        let (inputs, bytes) = match (input, &case.photos) {
            (Input::Photo, Some(photos)) => {
                let photo =
                    std::fs::read(&photos.photo).with_context(|| photos.photo.display().to_string())?;
                let length = u32::try_from(photo.len()).context("a photo of 4 GiB")?;
                let parameters = json!({ "binary_data_size": photo.len() + 4 });
                let head =
                    json!({ "name": "image", "shape": [1], "datatype": "BYTES", "parameters": parameters });
                (vec![head], [&length.to_le_bytes()[..], &photo].concat())
            }
            _ => floats(&tensors(case, &client)?),
        };
        Ok(Self { mesh, deployed, client, model: &case.name, input, inputs, bytes })
    }

    /// Asks once.
    pub(super) fn ask(&self, plan: Option<PlanId>) -> Result<AnswerParameters> {
        let mut parameters = json!({ "binary_data_output": true, "timeout_ms": TIMEOUT_MS });
        match (plan, self.input) {
            (Some(id), _) => parameters["plan_id"] = json!(id.to_string()),
            (None, Input::Floats) => parameters["variant"] = json!("base"),
            (None, Input::Photo) => parameters["min_accuracy"] = json!(ACCURACY_ENOUGH),
        }
        let head = json!({ "inputs": self.inputs, "parameters": parameters });
        self.client.infer_binary(self.model, &head, &self.bytes).with_context(|| format!("by plan {plan:?}"))
    }

    /// All plans that it may choose from without these nodes, as if all were loaded or as it is.
    pub(super) fn plans(&self, warm: bool, without: &[String]) -> Result<PlansView> {
        let of_input = match self.input {
            Input::Floats => "image=false&variant=base".to_owned(),
            Input::Photo => format!("min_accuracy={ACCURACY_ENOUGH}"),
        };
        let without = without.join(",");
        let path =
            format!("/v1/plans?model={}&all=true&warm={warm}&without={without}&{of_input}", self.model);
        Ok(self.client.get(&path)?)
    }
}

fn tensors(case: &Case, client: &Client) -> Result<Vec<FloatTensor>> {
    if let Some(golden) = &case.golden {
        return Ok(arrays::read_golden(golden).with_context(|| golden.display().to_string())?.inputs);
    }
    let model = client.models()?.models.into_iter().find(|model| model.name == case.name);
    let pattern = model.context("the device does not list the network")?.inputs.into_iter().map(|input| {
        let length = input.shape.iter().product::<u64>();
        // Of no meaning, but neither constant nor regular.
        let data = (0..length).map(|index| (index * 2_654_435_761 % 1_000) as f32 / 1_000.0).collect();
        FloatTensor { name: input.name, shape: input.shape, datatype: input.datatype, data }
    });
    Ok(pattern.collect())
}

fn floats(tensors: &[FloatTensor]) -> (Vec<Value>, Vec<u8>) {
    let head = |tensor: &FloatTensor| {
        json!({
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
            "parameters": { "binary_data_size": 4 * tensor.data.len() },
        })
    };
    let bytes = tensors.iter().flat_map(|tensor| &tensor.data).flat_map(|value| value.to_le_bytes());
    (tensors.iter().map(head).collect(), bytes.collect())
}

/// The ways, the free one last.
pub(super) fn find(asked: &Asked<'_>, candidates: bool) -> Result<Vec<Way>> {
    let mut ways = if candidates { all(asked)? } else { by_tiers(asked)? };
    ways.push(Way { name: "free choice".to_owned(), plan: None });
    Ok(ways)
}

fn all(asked: &Asked<'_>) -> Result<Vec<Way>> {
    let plans = asked.plans(true, &[])?.plans;
    let mut kinds = BTreeSet::new();
    let chosen = plans.into_iter().enumerate().filter(|(rank, plan)| {
        let is_first = kinds.insert(plan.kind.clone());
        is_first || *rank < CANDIDATES_MAX
    });
    Ok(chosen.map(|(_, plan)| Way { name: plan.kind.clone(), plan: Some(plan) }).collect())
}

/// All on the device; the best that runs something on an edge and nothing beyond; the best that also uses a cloud.
fn by_tiers(asked: &Asked<'_>) -> Result<Vec<Way>> {
    let Deployed { clouds, edges, .. } = asked.deployed;
    let on =
        |plan: &PlanView, labels: &[String]| plan.stages.iter().any(|stage| labels.contains(&stage.label));
    if edges.is_empty() || clouds.is_empty() {
        bail!("the topology has no edge or no cloud; --candidates takes any");
    }
    let everywhere = asked.plans(true, &[])?.plans;
    let near = asked.plans(true, clouds)?.plans;
    let local = everywhere.iter().find(|plan| plan.kind == "local").context("it does not fit the device")?;
    let edge = near.iter().find(|plan| on(plan, edges)).context("no plan runs anything on an edge")?;
    let cloud =
        everywhere.iter().find(|plan| on(plan, clouds)).context("no plan runs anything on a cloud")?;
    let way = |name: &str, plan: &PlanView| Way { name: name.to_owned(), plan: Some(plan.clone()) };
    Ok(vec![way("device", local), way("device + edge", edge), way("device + edge + cloud", cloud)])
}
