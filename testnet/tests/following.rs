//! Two sites with a camera and a box each, far from each other: the demand moves from one camera to the other, and the
//! network's parts follow it, since that saves more than a tenth. As root; otherwise said to be left out.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stormo_testnet::client::Client;
use stormo_testnet::digits;
use stormo_testnet::ground::{GroundKind, network};
use stormo_testnet::judge::percentile;
use stormo_testnet::link::LinkSpec;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::topology::{LinkRule, Topology};
use stormo_testnet::trial::{self, SOON, asker, edge};
use stormo_testnet::wait;

/// Of the links' chances; there are none.
const SEED: u64 = 1;
/// Two minutes of calm after the first order, two looks that are 20 s apart, and the loading.
const MOVED_MAX: Duration = Duration::from_secs(360);
/// What a move has to save, and what it then has to have saved.
const GAIN_MIN: f64 = 0.10;

fn two_sites() -> Topology {
    let nodes = vec![asker("camera-a"), edge("box-a"), asker("camera-b"), edge("box-b")];
    let mut topology = Topology::plain("two sites, 20 ms from each other", nodes);
    topology.default_link = LinkSpec { latency_us: 20_000, ..LinkSpec::default() };
    let near = |from: &str, to: &str| LinkRule {
        from: from.to_owned(),
        to: to.to_owned(),
        both_ways: true,
        spec: LinkSpec { latency_us: 500, ..LinkSpec::default() },
    };
    topology.link_rules = vec![near("camera-a", "box-a"), near("camera-b", "box-b")];
    topology
}

fn hosts(client: &Client) -> Result<Vec<String>, String> {
    let all = client.deployments().map_err(|error| error.to_string())?.deployments;
    let digits = all.into_iter().find(|known| known.name == "digits").ok_or("it is not known")?;
    Ok(digits.hosts.into_iter().map(|host| host.label).collect())
}

/// Three minutes on any machine: what moves is to be worth it for a while.
#[test]
#[ignore = "three minutes; run it with `cargo test -p stormo-testnet --test following -- --ignored --nocapture`"]
fn parts_follow_the_demand_when_that_saves_a_tenth() -> Result<()> {
    if let Err(why) = network::is_possible() {
        trial::skipped(&format!("parts that follow a demand: sites far from each other are emulated: {why}"));
        return Ok(());
    }
    trial::run_on(GroundKind::Emulated { seed: SEED }, &two_sites(), |mesh: &mut Mesh| {
        mesh.wait_for_nodes(4, SOON)?;
        let first = trial::deploy(mesh, "camera-a", "digits", &digits::model(), &["--replicas", "1"])?;
        let first: Vec<&str> = first.hosts.iter().map(|host| host.label.as_str()).collect();
        ensure!(first == ["box-a"], "first placed on {first:?}, not near who deployed");
        let client = mesh.node("camera-b").client.clone();
        let input = trial::digits_input(&client)?;
        let image = digits::load()?.swap_remove(3);
        // Camera a has stopped asking; camera b asks all the time, and is answered rightly all the time.
        let mut asked: Vec<(f64, bool)> = vec![];
        let mut ask = |is_moved: bool| -> Result<()> {
            let answer = client.infer("digits", &image.request(&input))?;
            ensure!(digits::read(&answer.outputs) == Some(image.truth), "a wrong answer");
            asked.push((answer.parameters.latency_ms, is_moved));
            Ok(())
        };
        let mut failed = None;
        wait::until("the parts to be at the site that asks", MOVED_MAX, || {
            if let Err(error) = ask(false) {
                failed.get_or_insert(format!("{error:#}"));
            }
            let seen = hosts(&client)?;
            if seen == ["box-b"] || failed.is_some() { Ok(()) } else { Err(format!("on {seen:?}")) }
        })?;
        ensure!(failed.is_none(), "camera-b was told {failed:?}");
        // Until all plans lead there.
        wait::until("requests to stay at the site", SOON, || {
            ask(true).map_err(|error| format!("{error:#}"))?;
            let answer = client.infer("digits", &image.request(&input)).map_err(|error| error.to_string())?;
            let near = mesh.node("box-b").id().to_string();
            if answer.parameters.nodes == near { Ok(()) } else { Err(answer.parameters.nodes) }
        })?;
        (0..50).try_for_each(|_| ask(true))?;
        let of = |moved: bool| -> Result<f64> {
            let mut times: Vec<f64> =
                asked.iter().filter(|(_, is)| *is == moved).map(|(ms, _)| *ms).collect();
            times.sort_by(f64::total_cmp);
            percentile(&times, 0.5).context("there were requests")
        };
        let (before_ms, after_ms) = (of(false)?, of(true)?);
        trial::told(&format!(
            "{} requests at camera-b, all answered rightly; {before_ms:.1} ms before the move, {after_ms:.1} ms after it",
            asked.len()
        ));
        ensure!(after_ms <= before_ms * (1.0 - GAIN_MIN), "{before_ms} ms before, {after_ms} ms after");
        Ok(())
    })
}
