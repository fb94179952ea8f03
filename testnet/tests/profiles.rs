//! What nodes announce of their speed and of their partitions' times, and how real runs move it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use stormo::serve::json::HostedView;
use stormo_protocol::profile::WorkClass;
use stormo_testnet::client::Client;
use stormo_testnet::digits;
use stormo_testnet::trial::{self, SOON, edge};
use stormo_testnet::wait;

/// As many as count into an announced time.
const RUNS: usize = 40;

/// Announced partitions by their blocks, as one node knows them of all.
fn hosted(client: &Client) -> Result<BTreeMap<[u16; 2], HostedView>, String> {
    let nodes = client.nodes().map_err(|error| error.to_string())?;
    Ok(nodes.into_iter().flat_map(|node| node.hosted).map(|hosted| (hosted.blocks, hosted)).collect())
}

#[test]
fn announced_times_are_those_of_the_last_real_runs() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        let client = &mesh.node("one").client;
        for node in client.nodes()? {
            for class in WorkClass::ALL {
                let speed = node.speeds.get(class.name()).copied();
                ensure!(speed.is_some_and(|millions| millions > 1.0), "{}: {speed:?}", class.name());
            }
        }
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--parts", "2", "--replicas", "1"])?;
        let plan = trial::loaded_plan(client, "digits", "chain-2")?;
        for (blocks, hosted) in hosted(client).map_err(anyhow::Error::msg)? {
            let (half, nearly_all) = (hosted.time_ms, hosted.p95_ms);
            ensure!(
                0.0 < half && half <= nearly_all,
                "{blocks:?} before any run: {half} and {nearly_all} ms"
            );
        }

        let input = trial::digits_input(client)?;
        let images = digits::load()?;
        let mut runs_ms: BTreeMap<[u16; 2], Vec<f64>> = BTreeMap::new();
        for image in images.iter().cycle().take(RUNS) {
            let answer = client.infer("digits", &image.request(&input).by_plan(plan.id))?;
            for stage in client.request(&answer.parameters.request_id)?.stages {
                runs_ms.entry(stage.blocks).or_default().push(stage.run_ms);
            }
        }
        ensure!(runs_ms.len() == 2, "two partitions ran: {runs_ms:?}");
        for runs_ms in runs_ms.values_mut() {
            ensure!(runs_ms.len() == RUNS, "{} runs", runs_ms.len());
            runs_ms.sort_by(f64::total_cmp);
        }
        let is_close = |one: f64, other: f64| (one - other).abs() < 1e-6;
        wait::until("all runs to be announced", SOON, || {
            let hosted = hosted(client)?;
            let is_told = |(blocks, runs_ms): (&[u16; 2], &Vec<f64>)| {
                let told = hosted.get(blocks);
                told.is_some_and(|told| {
                    is_close(told.time_ms, runs_ms[RUNS / 2])
                        && is_close(told.p95_ms, runs_ms[RUNS * 95 / 100])
                })
            };
            if runs_ms.iter().all(is_told) { Ok(()) } else { Err(format!("{hosted:?} after {runs_ms:?}")) }
        })?;

        let models = client.models()?.models;
        let model = models.into_iter().find(|model| model.name == "digits").context("it is known")?;
        let blocks_ms: f64 = model.blocks.iter().map(|block| block.time_ms).sum();
        ensure!(0.0 < blocks_ms && blocks_ms <= model.time_ms + 1e-3, "{blocks_ms} of {} ms", model.time_ms);
        Ok(())
    })
}
