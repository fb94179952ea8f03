//! A second machine joins by one command: when it stands on the first one's status, and when with its parts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stormo::serve::json::NodeView;
use stormo_testnet::trial::{self, SOON, edge};
use stormo_testnet::{digits, wait};

fn seen(mesh: &stormo_testnet::mesh::Mesh, label: &str) -> Result<NodeView, String> {
    let nodes = mesh.node("one").client.nodes().map_err(|error| error.to_string())?;
    let found = nodes.into_iter().find(|node| node.label == label && node.usable);
    found.ok_or_else(|| "it is not on the status".to_owned())
}

/// The first one has just begun, too: nobody has run for long enough to be a settled steward.
#[test]
fn a_machine_that_joins_is_shown_and_hosts_what_is_wished_on_more_nodes() -> Result<()> {
    trial::run(&[edge("one")], |mesh| {
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--replicas", "2"])?;
        let begun = Instant::now();
        mesh.add(&edge("two"))?;
        let ready = begun.elapsed();
        wait::until("the second on the first one's status", SOON, || seen(mesh, "two").map(drop))?;
        let shown = begun.elapsed();
        let view = wait::until("the second with its parts", SOON, || {
            let view = seen(mesh, "two")?;
            if view.hosted.is_empty() { Err("it hosts nothing".to_owned()) } else { Ok(view) }
        })?;
        let hosting = begun.elapsed();
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        trial::told(&format!(
            "after its command began, the second machine was ready after {}, shown after {}, with its parts after {}",
            seconds(ready),
            seconds(shown),
            seconds(hosting)
        ));
        let part = view.hosted.first().context("it hosts something")?;
        ensure!(part.model == "digits", "{part:?}");
        Ok(())
    })
}
