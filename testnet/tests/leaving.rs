//! A node that is told to leave in the middle of its work ends by itself, with exit code 0.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::trial::{self, SOON, asker, edge};
use stormo_testnet::{digits, wait};

/// Copies of the network under names of their own: parts are loaded one after the other, so with several
/// to load a node is still at it when it ends.
const NAMES: [&str; 6] = ["digits", "two", "three", "four", "five", "six"];
/// Each round, the node leaves at another moment of loading or running a part.
const ROUNDS: usize = 5;

#[test]
fn a_node_that_loads_and_runs_parts_leaves_when_it_is_told_to() -> Result<()> {
    trial::run(&[asker("origin"), edge("holder"), edge("host")], |mesh| {
        for name in NAMES {
            trial::deploy(mesh, "origin", name, &digits::model(), &["--replicas", "1"])?;
        }
        for round in 0..ROUNDS {
            leave_at_work(mesh).with_context(|| format!("in round {round}"))?;
            mesh.add(&edge("host"))?;
            mesh.wait_for_nodes(3, SOON)?;
        }
        Ok(())
    })
}

/// Asks the host for each network at once, and tells it to leave as soon as it has one of them in work.
fn leave_at_work(mesh: &mut Mesh) -> Result<()> {
    let client = mesh.node("origin").client.clone();
    let image = digits::load()?.swap_remove(0);
    let request = image.request(&trial::digits_input(&client)?);
    let plans = NAMES.map(|name| {
        wait::until("a plan with all on the host", SOON, || {
            let plans = client.plans(name).map_err(|error| error.to_string())?.plans;
            let whole = plans.into_iter().find(|plan| plan.stages.iter().all(|stage| stage.label == "host"));
            whole.map(|plan| plan.id).ok_or_else(|| "it is not listed".to_owned())
        })
    });
    let plans = plans.into_iter().collect::<Result<Vec<_>, _>>()?;
    let host = mesh.node_mut("host");
    let at_host = host.client.clone();
    let is_at_work = AtomicBool::new(false);
    thread::scope(|scope| {
        for (name, plan) in NAMES.into_iter().zip(plans) {
            let request = request.clone().by_plan(plan);
            let client = &client;
            let is_at_work = &is_at_work;
            // Answered or not: what counts is the host's end. While the origin still thinks of the host's earlier life, it
            // may refuse at once, and is asked again.
            scope.spawn(move || {
                while client.infer(name, &request).is_err() && !is_at_work.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
        let work = wait::until("the host to have work", SOON, || {
            let node = at_host.node().map_err(|error| error.to_string())?;
            let has_work = !node.loading.is_empty() || !node.hosted.is_empty();
            if has_work { Ok(()) } else { Err("it has nothing loaded and loads nothing".to_owned()) }
        });
        is_at_work.store(true, Ordering::Relaxed);
        work?;
        host.ask_to_end();
        let status =
            wait::until("the host to end", SOON, || host.ended().ok_or_else(|| "it runs".to_owned()))?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    })
}
