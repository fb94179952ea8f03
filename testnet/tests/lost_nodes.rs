//! Nodes that die or stand still while requests are under way: every request ends with a right answer
//! or an error that names the stage, never by its deadline or by silence.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use stormo::serve::json::{PlanView, TensorView};
use stormo_protocol::ids::NodeId;
use stormo_protocol::model::OrtLevel;
use stormo_testnet::client::{ApiError, Client};
use stormo_testnet::digits::{self, Image};
use stormo_testnet::load::{Load, Outcome};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::{Difference, FloatTensor, InferAnswer, InferRequest};
use stormo_testnet::reference::Reference;
use stormo_testnet::topology::NodeSpec;
use stormo_testnet::trial::{self, SOON, asker, edge};
use stormo_testnet::wait;

/// Far longer than a loss takes to be noticed: a request that ends by it was not failed over.
const DEADLINE_MS: u64 = 25_000;
/// Requests of a load that show it is under way, or goes on.
const MANY: usize = 20;
/// Callers of a load, well below a partition's queue.
const CALLERS: usize = 3;

/// Between answers of a divided network and the whole one, relative to the largest value.
const DIFFERENCE_MAX: f64 = 1e-4;

/// How a node is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Killed,
    Frozen,
}

/// A divided network: three parts on two nodes each, entered at a node that has no part.
struct Divided {
    client: Client,
    images: Vec<Image>,
    /// Of the network in one piece, in this process.
    answers: Vec<Vec<FloatTensor>>,
    input: TensorView,
    plan: PlanView,
}

#[test]
fn free_requests_are_answered_rightly_when_a_host_is_killed() -> Result<()> {
    trial::run(&nodes(), |mesh| free_requests(mesh, Loss::Killed))
}

#[test]
fn free_requests_are_answered_rightly_when_a_host_freezes() -> Result<()> {
    trial::run(&nodes(), |mesh| free_requests(mesh, Loss::Frozen))
}

#[test]
fn requests_by_a_plan_name_the_stage_whose_host_is_killed() -> Result<()> {
    trial::run(&nodes(), |mesh| requests_by_plan(mesh, Loss::Killed))
}

#[test]
fn requests_by_a_plan_name_the_stage_whose_host_freezes() -> Result<()> {
    trial::run(&nodes(), |mesh| requests_by_plan(mesh, Loss::Frozen))
}

#[test]
fn a_frozen_hosts_stage_is_taken_over_within_the_attempt() -> Result<()> {
    trial::run(&nodes(), |mesh| taken_over(mesh, Loss::Frozen))
}

#[test]
fn a_killed_hosts_stage_is_taken_over_within_the_attempt() -> Result<()> {
    trial::run(&nodes(), |mesh| taken_over(mesh, Loss::Killed))
}

#[test]
fn callers_of_a_killed_origin_hear_of_it() -> Result<()> {
    trial::run(&nodes(), |mesh| {
        let divided = divided(mesh)?;
        let load = Load::begin(&divided.client, "digits", &divided.requests(None), CALLERS);
        load.wait_for_more(MANY, SOON)?;
        mesh.node_mut("origin").kill()?;
        // Each caller goes on calling; what counts is that none waits for an answer for ever.
        load.wait_for_more(MANY, SOON)?;
        let outcomes = load.end();
        let last = outcomes.last().context("there are outcomes")?;
        ensure!(matches!(last.result, Err(ApiError::Unreachable { .. })), "the last one: {last:?}");
        for outcome in &outcomes {
            match &outcome.result {
                Ok(answer) => divided.check(outcome.index, answer)?,
                Err(ApiError::Unreachable { cause, .. }) => {
                    ensure!(!matches!(**cause, ureq::Error::Timeout(_)), "a caller waited in vain: {cause}");
                }
                Err(error) => bail!("{error}"),
            }
        }
        // The others are a mesh without it.
        let client = &mesh.node("a-1").client;
        trial::wait_until_left_out(client, "origin")?;
        trial::check_reads(client)
    })
}

#[test]
fn a_placement_names_the_node_that_took_a_dead_ones_label() -> Result<()> {
    trial::run(&[asker("origin"), edge("host")], |mesh| {
        let whole = trial::deploy(mesh, "origin", "digits", &digits::model(), &["--replicas", "1"])?;
        let dead = mesh.node("host").id();
        let blocks = whole.hosts.first().context("it has a host")?.blocks;
        mesh.node_mut("host").kill()?;
        let client = mesh.node("origin").client.clone();
        trial::wait_until_left_out(&client, "host")?;
        // Without its data directory it is another node.
        fs::remove_dir_all(mesh.node("host").data())?;
        mesh.add(&edge("host"))?;
        wait::until("both to be known", SOON, || {
            let nodes = client.nodes().map_err(|error| error.to_string())?;
            let named: Vec<bool> =
                nodes.iter().filter(|node| node.label == "host").map(|node| node.usable).collect();
            if named.len() == 2 && named.contains(&true) { Ok(()) } else { Err(format!("{named:?}")) }
        })?;
        let placement = mesh.folder().join("placement.toml");
        fs::write(&placement, format!("[[place]]\nnode = \"host\"\nblocks = {blocks:?}\n"))?;
        let placement = placement.to_string_lossy().into_owned();
        let again = trial::deploy(mesh, "origin", "digits", &digits::model(), &["--placement", &placement])?;
        ensure!(again.hosts.iter().all(|host| host.node != dead), "placed on the dead one: {again:?}");
        trial::check_reads(&client)
    })
}

fn nodes() -> Vec<NodeSpec> {
    let mut nodes = vec![asker("origin")];
    nodes.extend(["a-1", "b-1", "c-1", "a-2", "b-2", "c-2"].map(edge));
    nodes
}

fn divided(mesh: &mut Mesh) -> Result<Divided> {
    trial::deploy(mesh, "origin", "digits", &digits::model(), &["--parts", "3", "--replicas", "2"])?;
    let client = mesh.node("origin").client.clone();
    let plan = trial::loaded_plan(&client, "digits", "chain-3")?;
    let input = trial::digits_input(&client)?;
    let images = digits::load()?;
    let reference = Reference::of("digits", &digits::model(), OrtLevel::All)?;
    let answers = images.iter().map(|image| reference.whole(&image.request(&input).inputs));
    let answers = answers.collect::<Result<_>>()?;
    Ok(Divided { input, images, answers, client, plan })
}

impl Divided {
    fn requests(&self, plan: Option<&PlanView>) -> Vec<InferRequest> {
        let request = |image: &Image| {
            let mut request = image.request(&self.input);
            request.parameters.timeout_ms = Some(DEADLINE_MS);
            plan.map_or(request.clone(), |plan| request.by_plan(plan.id))
        };
        self.images.iter().map(request).collect()
    }

    fn check(&self, index: usize, answer: &InferAnswer) -> Result<()> {
        let apart = Difference::between(&self.answers[index], &answer.outputs);
        let apart = apart.context("the answer has other names or shapes")?;
        let name = &self.images[index].name;
        ensure!(apart.relative <= DIFFERENCE_MAX, "the answer to {name} is wrong: {apart:?}");
        Ok(())
    }

    fn middle(&self) -> (String, NodeId) {
        (self.plan.stages[1].label.clone(), self.plan.stages[1].node)
    }
}

fn lose(mesh: &mut Mesh, label: &str, loss: Loss) -> Result<()> {
    let node = mesh.node_mut(label);
    match loss {
        Loss::Killed => node.kill()?,
        Loss::Frozen => node.freeze()?,
    }
    Ok(())
}

fn free_requests(mesh: &mut Mesh, loss: Loss) -> Result<()> {
    let divided = divided(mesh)?;
    let load = Load::begin(&divided.client, "digits", &divided.requests(None), CALLERS);
    load.wait_for_more(MANY, SOON)?;
    let host = busiest_host(mesh)?;
    lose(mesh, &host, loss)?;
    load.wait_for_more(MANY, SOON)?;
    trial::wait_until_left_out(&divided.client, &host)?;
    load.wait_for_more(MANY, SOON)?;
    let mut ran_divided = 0;
    for Outcome { index, result } in load.end() {
        let answer = result.with_context(|| format!("{loss:?} {host}"))?;
        divided.check(index, &answer)?;
        ran_divided += usize::from(answer.parameters.nodes.contains(','));
    }
    ensure!(ran_divided > 0, "no request ran on more than one node");
    trial::check_reads(&divided.client)
}

/// A request whose plan names a host that is gone, where nobody has noticed yet: the host of the stage before sends
/// its output to another one that has the part loaded.
fn taken_over(mesh: &mut Mesh, loss: Loss) -> Result<()> {
    let divided = divided(mesh)?;
    let request = &divided.requests(None)[0];
    let ask = || -> Result<_> {
        let answer = divided.client.infer("digits", request)?;
        divided.check(0, &answer)?;
        Ok(divided.client.request(&answer.parameters.request_id)?)
    };
    let before = ask()?;
    // A planner that finds the hosts slow may load parts where requests enter.
    let origin = mesh.node("origin").id();
    let Some(stage) = before.stages.iter().rfind(|stage| stage.node != origin) else {
        trial::told(&format!("{loss:?}: the origin ran the request alone; nothing to take over"));
        return Ok(());
    };
    let host = mesh.nodes().iter().find(|node| node.id() == stage.node).context("it is of this mesh")?;
    let host = host.label().to_owned();
    lose(mesh, &host, loss)?;
    let after = ask()?;
    if after.plan_id != before.plan_id {
        // The planner left the host for another one on its own, or heard of the loss sooner than we could ask.
        trial::told(&format!("{loss:?} {host}: the next request had another plan; nothing to take over"));
        return Ok(());
    }
    ensure!(after.attempts == 1, "{} attempts", after.attempts);
    let taken = after.stages.iter().find(|taken| taken.id == stage.id).context("the stage ran")?;
    ensure!(taken.node != stage.node, "{loss:?} {host} ran the stage");
    Ok(())
}

fn requests_by_plan(mesh: &mut Mesh, loss: Loss) -> Result<()> {
    let divided = divided(mesh)?;
    let (label, host) = divided.middle();
    let load = Load::begin(&divided.client, "digits", &divided.requests(Some(&divided.plan)), CALLERS);
    load.wait_for_more(MANY, SOON)?;
    lose(mesh, &label, loss)?;
    trial::wait_until_left_out(&divided.client, &label)?;
    load.wait_for_more(MANY, SOON)?;
    let outcomes = load.end();
    let mut conflicts = 0;
    for Outcome { index, result } in &outcomes {
        match result {
            Ok(answer) => divided.check(*index, answer)?,
            Err(ApiError::Refused { status, error, .. }) => {
                let names = error.contains("stage 1 of") && error.contains(&host.to_string());
                ensure!(names, "the error does not name stage and host: {error}");
                ensure!([503, 409].contains(status), "answered {status}: {error}");
                conflicts += usize::from(*status == 409);
            }
            Err(error) => bail!("{error}"),
        }
    }
    ensure!(outcomes.first().is_some_and(|outcome| outcome.result.is_ok()), "none went well before");
    ensure!(conflicts > 0, "no request was told that the plan's host is gone");
    // Free ones find another way at once.
    trial::check_reads(&divided.client)?;
    if matches!(loss, Loss::Frozen) {
        mesh.node_mut(&label).thaw()?;
        let again = &divided.requests(Some(&divided.plan))[0];
        wait::until("the plan to run again", SOON, || {
            divided.client.infer("digits", again).map(drop).map_err(|error| error.to_string())
        })?;
    }
    Ok(())
}

/// The host that requests of the origin went to most: free choice decides which.
fn busiest_host(mesh: &Mesh) -> Result<String> {
    let traffic = mesh.node("origin").client.node()?.traffic;
    let busiest = traffic.iter().max_by_key(|with| with.sent_bytes).context("nothing was sent")?.peer;
    let node = mesh.nodes().iter().find(|node| node.id() == busiest).context("it is of this mesh")?;
    Ok(node.label().to_owned())
}
