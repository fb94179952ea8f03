//! Plans with a fork, run by real processes: the branches of a network on several nodes at once, joined again. Their
//! answers are those of the network in one piece, whoever is lost.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use stormo::serve::json::{PlansView, SplitView};
use stormo_protocol::ids::NodeId;
use stormo_protocol::model::OrtLevel;
use stormo_testnet::binary::workspace_root;
use stormo_testnet::client::Client;
use stormo_testnet::load::{Load, Outcome};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::{Difference, FloatTensor, InferAnswer, InferRequest};
use stormo_testnet::reference::Reference;
use stormo_testnet::topology::NodeSpec;
use stormo_testnet::trial::{self, SOON, asker, edge};
use stormo_testnet::wait;

/// Far longer than a loss takes to be noticed.
const DEADLINE_MS: u64 = 25_000;
/// Requests of a load that show it is under way, or goes on.
const MANY: usize = 20;
/// One: while others wait, plans are chosen by their waits, too, and where two cores carry four nodes rightly without a fork.
const CALLERS: usize = 1;
/// Different inputs.
const INPUTS: usize = 3;
const CHANNELS: usize = 16;
const SIDE: usize = 24;

#[test]
fn branches_beside_each_other_give_the_whole_networks_bits() -> Result<()> {
    trial::run(&nodes(), |mesh| {
        let network = Network::deployed(mesh)?;
        let Some(plan) = network.forked()? else { return Ok(()) };
        ensure!(plan.branches().len() == 2, "both branches are on one node: {plan:?}");
        for index in 0..INPUTS {
            let answer = network.by_plan(index, &plan)?;
            network.check(index, &answer)?;
            let view = network.client.request(&answer.parameters.request_id)?;
            ensure!(view.plan_id == plan.0.id, "it went by another plan: {view:?}");
            // Traces come from all stages, those of the branches by way of the join.
            let ran: BTreeSet<([u16; 2], NodeId)> =
                view.stages.iter().map(|stage| (stage.blocks, stage.node)).collect();
            ensure!(ran == plan.stages(), "not the stages of {plan:?}: {view:?}");
        }
        Ok(())
    })
}

#[test]
fn a_free_request_goes_through_a_fork_where_that_is_quicker_and_survives_a_killed_branch() -> Result<()> {
    trial::run(&nodes(), |mesh| survives(mesh, |mesh, host| Ok(mesh.node_mut(host).kill()?)))
}

#[test]
fn requests_through_a_fork_survive_a_frozen_branch() -> Result<()> {
    trial::run(&nodes(), |mesh| survives(mesh, |mesh, host| Ok(mesh.node_mut(host).freeze()?)))
}

fn nodes() -> Vec<NodeSpec> {
    let mut nodes = vec![asker("origin")];
    nodes.extend(["a", "b", "c"].map(edge));
    nodes
}

/// A branchy network, deployed; requests of it, and what it answers in one piece.
struct Network {
    client: Client,
    requests: Vec<InferRequest>,
    answers: Vec<Vec<FloatTensor>>,
}

/// What the planner says of a plan with a fork.
#[derive(Debug)]
struct Forked(SplitView);

impl Forked {
    fn branches(&self) -> BTreeSet<NodeId> {
        self.0.stages.iter().filter(|stage| stage.branch.is_some()).map(|stage| stage.node).collect()
    }

    fn stages(&self) -> BTreeSet<([u16; 2], NodeId)> {
        self.0.stages.iter().map(|stage| (stage.blocks, stage.node)).collect()
    }
}

fn model() -> PathBuf {
    workspace_root().join("testnet/models/forked.onnx")
}

/// Some numbers from 0 to 1, the same in every run.
fn input(number: usize) -> InferRequest {
    let count = CHANNELS * SIDE * SIDE;
    let pixel = |index: usize| ((index * (2 * number + 1)) % 251) as f32 / 251.0;
    let mut request = InferRequest::new(
        "x",
        &[1, CHANNELS as u64, SIDE as u64, SIDE as u64],
        (0..count).map(pixel).collect(),
    );
    request.parameters.timeout_ms = Some(DEADLINE_MS);
    request
}

impl Network {
    fn deployed(mesh: &Mesh) -> Result<Self> {
        trial::deploy(mesh, "origin", "forked", &model(), &["--ort-level", "off", "--replicas", "1"])?;
        let requests: Vec<InferRequest> = (0..INPUTS).map(input).collect();
        let reference = Reference::of("forked", &model(), OrtLevel::Off)?;
        let answers = requests.iter().map(|request| reference.whole(&request.inputs));
        let answers = answers.collect::<Result<_>>()?;
        Ok(Self { client: mesh.node("origin").client.clone(), requests, answers })
    }

    fn plans(&self) -> Result<PlansView, String> {
        let asked = self.client.get("/v1/plans?model=forked&all=true&warm=true");
        asked.map_err(|error| error.to_string())
    }

    /// The best plan with a fork, as if all were loaded.
    /// `None`, and that is told, where nodes that start on a busy machine measured themselves so unequal that all is
    /// best on one of them.
    fn forked(&self) -> Result<Option<Forked>> {
        let found = wait::until("a plan with a fork", SOON, || or_none(self.plans()?.forked.pop()));
        if let Err(error) = &found {
            trial::told(&format!(
                "{error}: the nodes found themselves too unequal, nothing was run by a fork"
            ));
        }
        Ok(found.ok().map(Forked))
    }

    /// By exactly this plan. Nobody takes a stage over then, so that a node that this machine gives no time for a moment
    /// is asked again.
    fn by_plan(&self, index: usize, plan: &Forked) -> Result<InferAnswer> {
        let request = self.requests[index].clone().by_plan(plan.0.id);
        let ask = || self.client.infer("forked", &request).map_err(|error| error.to_string());
        Ok(wait::until("an answer by a plan with a fork", SOON, ask)?)
    }

    /// Without optimisations, bit for bit.
    fn check(&self, index: usize, answer: &InferAnswer) -> Result<()> {
        let apart = Difference::between(&self.answers[index], &answer.outputs);
        let apart = apart.context("the answer has other names or shapes")?;
        ensure!(apart.is_identical, "the answer to input {index} is wrong: {apart:?}");
        Ok(())
    }
}

/// Requests whose plan is free go through a fork once its parts are loaded; then a branch's host is lost under load.
fn survives(mesh: &mut Mesh, lose: impl FnOnce(&mut Mesh, &str) -> Result<()>) -> Result<()> {
    let network = Network::deployed(mesh)?;
    let client = network.client.clone();
    if network.forked()?.is_none() {
        return Ok(());
    }
    let forked = wait::until("free requests to go through a fork", SOON, || {
        // By its id it is loaded where it is to run.
        let forked = Forked(or_none(network.plans()?.forked.pop())?);
        let infer =
            |request: &InferRequest| client.infer("forked", request).map_err(|error| error.to_string());
        infer(&network.requests[0].clone().by_plan(forked.0.id))?;
        let chosen = infer(&network.requests[0])?.parameters.plan_id;
        if chosen == forked.0.id { Ok(forked) } else { Err(format!("plan {chosen}, not {forked:?}")) }
    })?;
    let load = Load::begin(&client, "forked", &network.requests, CALLERS);
    load.wait_for_more(MANY, SOON)?;
    let branch = forked.0.stages.iter().rev().find(|stage| stage.branch.is_some());
    let host = branch.context("it has branches")?.label.clone();
    lose(mesh, &host)?;
    load.wait_for_more(MANY, SOON)?;
    trial::wait_until_left_out(&client, &host)?;
    load.wait_for_more(MANY, SOON)?;
    let mut through_fork = 0;
    for Outcome { index, result } in load.end() {
        let answer = result.with_context(|| format!("`{host}` was lost"))?;
        network.check(index, &answer)?;
        through_fork += usize::from(answer.parameters.plan_id == forked.0.id);
    }
    ensure!(through_fork > 0, "no request went through the fork");
    Ok(())
}

fn or_none(found: Option<SplitView>) -> Result<SplitView, String> {
    found.ok_or_else(|| "no plan with a fork is listed".to_owned())
}
