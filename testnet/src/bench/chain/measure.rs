//! One network: deployed in parts, then asked whole and in parts, in turns with one session in this
//! process and with bare streams.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use stormo::serve::json::{ModelView, PlanView, RequestView};
use stormo_testnet::client::Client;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::{FloatTensor, InferRequest, RequestParameters};
use stormo_testnet::topology::{NodeSpec, Topology};
use stormo_testnet::trial::{self, SOON, edge};
use stormo_testnet::whole::Whole;
use stormo_testnet::{arrays, interrupt};

use super::super::ring::Ring;
use super::Case;
use crate::median::median;

/// Parts of each network, on as many nodes.
pub(super) const PARTS: usize = 5;
/// Rounds that only warm up.
const ROUNDS_BEFORE: usize = 3;
/// Rounds are measured for this long, but at least and at most so many.
const MEASURED_FOR: Duration = Duration::from_secs(30);
const ROUNDS_MIN: usize = 15;
const ROUNDS_MAX: usize = 200;
/// For the largest of these networks, whole and in parts.
const BUDGET_BYTES: u64 = 4 << 30;

/// Medians over the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) rounds: usize,
    /// Bytes of each hop from process to process, the last one being the result's.
    pub(super) hops_bytes: Vec<u64>,
    /// The file in one session in this process: the run alone.
    pub(super) session_ms: f64,
    /// The whole at one node, from the request's arrival there to the result.
    pub(super) whole_ms: f64,
    /// Of that, the run.
    pub(super) whole_run_ms: f64,
    pub(super) whole_predicted_ms: f64,
    /// The chain, from the request's arrival at the first node to the result there.
    pub(super) chain_ms: f64,
    pub(super) chain_predicted_ms: f64,
    /// Of the chain, the sum of its stages' runs.
    pub(super) runs_ms: f64,
    /// Of the chain, from the first byte to the last of each transfer.
    pub(super) transfers_ms: f64,
    /// Of the chain, all else.
    pub(super) rest_ms: f64,
    /// The bytes of the hops from process to process over bare streams.
    pub(super) bare_streams_ms: f64,
}

/// Times of one round.
struct Round {
    session_ms: f64,
    whole: RequestView,
    chain: RequestView,
    bare_streams_ms: f64,
}

/// A network in the mesh, and the plan to ask it by.
struct Deployed {
    name: String,
    client: Client,
    plan: PlanView,
}

/// What is measured in turns.
struct Subjects<'a> {
    session: Whole,
    whole: &'a Deployed,
    chain: &'a Deployed,
    ring: Ring,
    inputs: Vec<FloatTensor>,
}

pub(super) fn measure(binary: &Path, case: &Case) -> Result<Measured> {
    let nodes: Vec<NodeSpec> = (1..=PARTS)
        .map(|number| NodeSpec { memory_budget_bytes: BUDGET_BYTES, ..edge(&format!("node-{number}")) })
        .collect();
    let topology = Topology::plain("a chain", nodes);
    let mut mesh = Mesh::start(binary, &topology, &mut |log| note_part!("{log}"))?;
    mesh.wait_for_nodes(PARTS, SOON)?;
    let chain = deploy(&mesh, case, case.name, PARTS)?;
    let whole = deploy(&mesh, case, &format!("{}-whole", case.name), 1)?;
    let model = chain.client.models()?.models.into_iter().find(|model| model.name == chain.name);
    let model = model.context("the node does not list the network")?;
    let inputs = inputs(case, &model)?;
    let hops_bytes: Vec<u64> =
        chain.plan.edges.iter().map(|edge| edge.bytes).filter(|bytes| *bytes > 0).collect();
    let ring = Ring::start(&hops_bytes)?;
    let session = Whole::load(&case.model, &model.inputs, &model.outputs)?;
    let rounds = rounds(&mut Subjects { session, whole: &whole, chain: &chain, ring, inputs })?;
    Ok(medians(&rounds, [whole.predicted_ms()?, chain.predicted_ms()?], hops_bytes))
}

/// Deploys a network in so many parts; its inputs will enter where the first of them is.
fn deploy(mesh: &Mesh, case: &Case, name: &str, parts: usize) -> Result<Deployed> {
    let count = parts.to_string();
    let options = ["--parts", &count, "--replicas", "1"];
    let deployed = trial::deploy(mesh, "node-1", name, &case.model, &options)?;
    let first =
        deployed.hosts.iter().find(|host| host.blocks[0] == 0).context("nobody has the first part")?;
    let client = mesh.node(&first.label).client.clone();
    let kind = if parts == 1 { "local".to_owned() } else { format!("chain-{parts}") };
    let plan = trial::loaded_plan(&client, name, &kind)?;
    ensure!(plan.stages.len() == parts, "{name}: {} stages in a plan of kind {kind}", plan.stages.len());
    Ok(Deployed { name: name.to_owned(), client, plan })
}

fn inputs(case: &Case, model: &ModelView) -> Result<Vec<FloatTensor>> {
    if let Some(golden) = &case.golden {
        let golden = arrays::read_golden(golden).with_context(|| golden.display().to_string())?;
        return Ok(golden.inputs);
    }
    let pattern = model.inputs.iter().map(|input| {
        let length = input.shape.iter().product::<u64>();
        // Of no meaning, but neither constant nor regular.
        let data = (0..length).map(|index| (index * 2_654_435_761 % 1_000) as f32 / 1_000.0).collect();
        let (name, shape, datatype) = (input.name.clone(), input.shape.clone(), input.datatype.clone());
        FloatTensor { name, shape, datatype, data }
    });
    Ok(pattern.collect())
}

impl Deployed {
    fn request(&self, inputs: &[FloatTensor]) -> InferRequest {
        let parameters = RequestParameters::default();
        InferRequest { id: None, inputs: inputs.to_vec(), parameters }.by_plan(self.plan.id)
    }

    fn ask(&self, request: &InferRequest) -> Result<RequestView> {
        let answer = self.client.infer(&self.name, request)?;
        Ok(self.client.request(&answer.parameters.request_id)?)
    }

    /// What the node predicts by now, after the transfers of all rounds told it of its links.
    fn predicted_ms(&self) -> Result<f64> {
        let plans = self.client.uncoded_plans(&self.name)?.plans;
        let plan = plans.iter().find(|plan| plan.id == self.plan.id).context("the plan is listed no more")?;
        Ok(plan.latency_ms)
    }
}

fn rounds(subjects: &mut Subjects) -> Result<Vec<Round>> {
    let requests = [subjects.whole, subjects.chain].map(|deployed| deployed.request(&subjects.inputs));
    for _ in 0..ROUNDS_BEFORE {
        round(subjects, &requests)?;
    }
    let started = Instant::now();
    let mut rounds = Vec::new();
    while rounds.len() < ROUNDS_MIN || (rounds.len() < ROUNDS_MAX && started.elapsed() < MEASURED_FOR) {
        if interrupt::is_noted() {
            bail!("interrupted");
        }
        rounds.push(round(subjects, &requests)?);
    }
    Ok(rounds)
}

fn round(subjects: &mut Subjects, [whole, chain]: &[InferRequest; 2]) -> Result<Round> {
    Ok(Round {
        session_ms: subjects.session.run(&subjects.inputs)?.as_secs_f64() * 1000.0,
        whole: subjects.whole.ask(whole)?,
        chain: subjects.chain.ask(chain)?,
        bare_streams_ms: subjects.ring.round()?.as_secs_f64() * 1000.0,
    })
}

fn medians(rounds: &[Round], predicted_ms: [f64; 2], hops_bytes: Vec<u64>) -> Measured {
    let [whole_predicted_ms, chain_predicted_ms] = predicted_ms;
    let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure));
    let runs = |request: &RequestView| request.stages.iter().map(|stage| stage.run_ms).sum::<f64>();
    let transfers = |request: &RequestView| {
        let stages = request.stages.iter().map(|stage| stage.receive_ms).sum::<f64>();
        stages + request.result_receive_ms
    };
    Measured {
        rounds: rounds.len(),
        hops_bytes,
        session_ms: of(&|round| round.session_ms),
        whole_ms: of(&|round| round.whole.latency_ms),
        whole_run_ms: of(&|round| runs(&round.whole)),
        whole_predicted_ms,
        chain_ms: of(&|round| round.chain.latency_ms),
        chain_predicted_ms,
        runs_ms: of(&|round| runs(&round.chain)),
        transfers_ms: of(&|round| transfers(&round.chain)),
        rest_ms: of(&|round| round.chain.latency_ms - runs(&round.chain) - transfers(&round.chain)),
        bare_streams_ms: of(&|round| round.bare_streams_ms),
    }
}
