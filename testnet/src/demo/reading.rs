//! Sending all images, reading digits from the answers, and comparing answers.

use anyhow::{Context, Result, bail};
use stormo::serve::json::TensorView;
use stormo_protocol::ids::{NodeId, PlanId};
use stormo_testnet::client::Client;
use stormo_testnet::digits::Image;
use stormo_testnet::interrupt;
use stormo_testnet::oip::{Difference, InferAnswer};

use super::report::Reading;
use super::{DIFFERENCE_MAX, Demo, MODEL, ORIGIN};

/// Sends all images, one after the other, by a plan or by the node's choice.
pub(super) fn send_all(
    demo: &Demo,
    client: &Client,
    input: &TensorView,
    plan: Option<PlanId>,
) -> Result<Vec<InferAnswer>> {
    let mut answers = Vec::new();
    for image in &demo.images {
        if interrupt::is_noted() {
            bail!("interrupted");
        }
        let request = image.request(input);
        let request = plan.map_or_else(|| request.clone(), |plan| request.clone().by_plan(plan));
        answers.push(client.infer(MODEL, &request).with_context(|| image.name.clone())?);
    }
    Ok(answers)
}

/// The answers of the network in one piece: on the origin itself where it can.
pub(super) fn undivided(demo: &Demo, input: &TensorView) -> Result<Vec<InferAnswer>> {
    let client = &demo.mesh.node(ORIGIN).client;
    let plans = client.plans(MODEL)?.plans;
    let mut whole: Vec<_> = plans.iter().filter(|plan| plan.stages.len() == 1).collect();
    whole.sort_by_key(|plan| plan.kind != "local");
    let plan = whole.first().context("no plan runs the network in one piece")?;
    send_all(demo, client, input, Some(plan.id))
}

/// The largest difference between answers to the same images.
pub(super) fn largest_difference(reference: &[InferAnswer], other: &[InferAnswer]) -> Result<Difference> {
    reference.iter().zip(other).try_fold(Difference::NONE, |largest, (a, b)| {
        let next =
            Difference::between(&a.outputs, &b.outputs).context("answers have other names or shapes")?;
        Ok(largest.larger(next))
    })
}

/// Checks that answers are the undivided network's, and says how close they are.
pub(super) fn check_difference(demo: &mut Demo, difference: Difference, whose: &str) {
    let how = if difference.is_identical {
        "bit by bit".to_owned()
    } else {
        format!("within {:.1e} of the largest value (allowed: {DIFFERENCE_MAX:e})", difference.relative)
    };
    let count = demo.images.len();
    let what = format!("{whose} equal the undivided network's for all {count} images, {how}");
    demo.narrator.check(difference.relative <= DIFFERENCE_MAX, &what);
}

/// The digit of an answer: the likeliest class.
pub(super) fn read(image: &Image, answer: &InferAnswer) -> Result<Reading> {
    let probabilities = &answer.outputs.first().context("the answer has no output")?.data;
    let likeliest = probabilities.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    let (digit, probability) = likeliest.context("the output is empty")?;
    let digit = u8::try_from(digit).context("the output has more than 256 classes")?;
    Ok(Reading { image: image.name.clone(), truth: image.truth, digit, probability: *probability })
}

/// Labels of those who ran a request, in order.
pub(super) fn who_ran(demo: &Demo, answer: &InferAnswer) -> Result<Vec<String>> {
    let ids = answer.parameters.nodes.split(',').filter(|id| !id.is_empty());
    ids.map(|id| Ok(demo.label(id.trim().parse::<NodeId>()?))).collect()
}
