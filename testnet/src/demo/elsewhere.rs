//! Fifth chapter: the same requests, entered at another peer.

use std::time::Duration;

use anyhow::{Context, Result};
use stormo::serve::json::TensorView;
use stormo_testnet::oip::InferAnswer;
use stormo_testnet::wait;

use super::report::Elsewhere;
use super::{Demo, ELSEWHERE, MODEL, reading};

/// Deployments are gossiped at once, and repaired within some seconds.
const HEARD_MAX: Duration = Duration::from_secs(15);

pub(super) fn tell(demo: &mut Demo, input: &TensorView, reference: &[InferAnswer]) -> Result<Elsewhere> {
    demo.narrator.title("the same requests, entered at another peer");
    let client = demo.mesh.node(ELSEWHERE).client.clone();
    wait::until(&format!("{ELSEWHERE} to have plans for the network"), HEARD_MAX, || {
        let plans = client.plans(MODEL).map_err(|error| error.to_string())?.plans;
        if plans.is_empty() { Err("it has none".to_owned()) } else { Ok(()) }
    })?;
    let answers = reading::send_all(demo, &client, input, None)?;
    let nodes = reading::who_ran(demo, answers.first().context("no images")?)?;
    demo.narrator.say(&format!("Entered at {ELSEWHERE}, which chose to run them on {}.", nodes.join(" → ")));
    let difference = reading::largest_difference(reference, &answers)?;
    reading::check_difference(demo, difference, &format!("answers at {ELSEWHERE}"));
    Ok(Elsewhere { origin: ELSEWHERE.to_owned(), nodes, difference })
}
