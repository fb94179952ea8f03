//! Fourth chapter: a plan of three stages or more on as many processes, asked for by its id.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use stormo::serve::json::{PlanView, RequestView, TensorView};
use stormo_protocol::ids::NodeId;
use stormo_testnet::client::Client;
use stormo_testnet::oip::InferAnswer;
use stormo_testnet::wait;

use super::report::Divided;
use super::{Demo, MODEL, ORIGIN, measured, reading};

/// Stages, and nodes, that make the division worth showing.
const STAGES_MIN: usize = 3;
/// What a node has loaded is gossiped at once, and repaired within some seconds.
const HEARD_MAX: Duration = Duration::from_secs(15);

pub(super) fn tell(demo: &mut Demo, input: &TensorView, reference: &[InferAnswer]) -> Result<Divided> {
    demo.narrator.title("a plan of several stages, asked for by its id");
    let origin = demo.mesh.node(ORIGIN).id();
    let client = demo.mesh.node(ORIGIN).client.clone();
    let plan = loaded_plan(demo, &client, origin, input)?;
    let hosts: Vec<&str> = plan.stages.iter().map(|stage| stage.label.as_str()).collect();
    demo.narrator.say(&format!(
        "Plan {} ({}): from {ORIGIN} through {} and back.",
        measured::short(&plan.id.to_string()),
        plan.kind,
        hosts.join(" → "),
    ));
    demo.narrator
        .say("Asked for to see the network divided, whether or not another plan is quicker. The times:");
    let answers = reading::send_all(demo, &client, input, Some(plan.id))?;
    let requests = answers.iter().map(|answer| client.request(&answer.parameters.request_id));
    let requests = requests.collect::<Result<Vec<RequestView>, _>>()?;
    let medians = measured::medians(&plan, &requests);
    measured::show(demo, &plan, &medians);
    check_who_ran(demo, &plan, &answers)?;
    let difference = reading::largest_difference(reference, &answers)?;
    reading::check_difference(demo, difference, "answers through the stages");
    Ok(Divided { plan, measured: medians, difference })
}

/// A divided plan whose parts are all loaded; loads them by a first request where they are not.
fn loaded_plan(demo: &Demo, client: &Client, origin: NodeId, input: &TensorView) -> Result<PlanView> {
    let plans = client.uncoded_plans(MODEL)?.plans;
    let plan = plans.into_iter().find(|plan| is_divided(plan, origin));
    let plan = plan.context("no plan of 3 stages on 3 nodes is on offer")?;
    if plan.cold_ms == 0.0 {
        return Ok(plan);
    }
    demo.narrator.say(&format!(
        "Parts of its stages are not loaded yet: a first request, not counted below, loads them\n\
         (predicted: {:.1} ms).",
        plan.cold_ms
    ));
    let image = demo.images.first().context("no images")?;
    let first = client.infer(MODEL, &image.request(input).by_plan(plan.id))?;
    demo.narrator.say(&format!("It took {:.1} ms.", first.parameters.latency_ms));
    let heard = wait::until("the origin to hear that the parts are loaded", HEARD_MAX, || {
        let plans = client.uncoded_plans(MODEL).map_err(|error| error.to_string())?.plans;
        let mut divided = plans.into_iter().filter(|plan| is_divided(plan, origin));
        divided.find(|plan| plan.cold_ms == 0.0).ok_or_else(|| "no loaded plan of 3 stages".to_owned())
    })?;
    Ok(heard)
}

/// Whether it has stages enough on nodes enough, and an edge between two that are not the origin.
fn is_divided(plan: &PlanView, origin: NodeId) -> bool {
    let nodes: BTreeSet<NodeId> = plan.stages.iter().map(|stage| stage.node).collect();
    let is_foreign =
        |id: Option<u16>| plan.stages.iter().any(|stage| Some(stage.id) == id && stage.node != origin);
    plan.stages.len() >= STAGES_MIN
        && nodes.len() >= STAGES_MIN
        && plan.edges.iter().any(|edge| edge.bytes > 0 && is_foreign(edge.from) && is_foreign(edge.to))
}

fn check_who_ran(demo: &mut Demo, plan: &PlanView, answers: &[InferAnswer]) -> Result<()> {
    let planned: Vec<String> = plan.stages.iter().map(|stage| demo.label(stage.node)).collect();
    let mut as_planned = 0;
    for answer in answers {
        let ran = reading::who_ran(demo, answer)?;
        as_planned += usize::from(answer.parameters.plan_id == plan.id && ran == planned);
    }
    let nodes: BTreeSet<&String> = planned.iter().collect();
    let what =
        format!("{} stages on {} processes ran all {} requests", planned.len(), nodes.len(), answers.len());
    demo.narrator.check(as_planned == answers.len(), &what);
    Ok(())
}
