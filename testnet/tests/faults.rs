//! What is done to nodes of a mesh on loopback, and what needs more than that.

use anyhow::{Context, Result, ensure};
use stormo_testnet::clock;
use stormo_testnet::link::LinkSpec;
use stormo_testnet::mesh::FaultError;
use stormo_testnet::topology::NodeSpec;
use stormo_testnet::trial::{self, SOON, edge};
use stormo_testnet::wait;

#[test]
fn nodes_on_loopback_are_killed_frozen_and_started_again() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        let id = mesh.node("two").id();
        mesh.freeze("two")?;
        trial::wait_until_left_out(&mesh.node("one").client, "two")?;
        mesh.thaw("two")?;
        mesh.wait_for_nodes(2, SOON)?;
        mesh.kill("two")?;
        trial::wait_until_left_out(&mesh.node("one").client, "two")?;
        mesh.restart("two")?;
        mesh.wait_for_nodes(2, SOON)?;
        ensure!(mesh.node("two").id() == id, "it is another node now");
        ensure!(mesh.nodes()[1].label() == "two", "it lost its place");
        let errors = [
            mesh.cut("one", "two").unwrap_err(),
            mesh.set_link("one", "two", &LinkSpec::default()).unwrap_err(),
            mesh.partition(&[&["one"], &["two"]]).unwrap_err(),
            mesh.set_cpu("one", Some(0.5)).unwrap_err(),
            mesh.power_loss("one").unwrap_err(),
        ];
        for error in errors {
            ensure!(matches!(error, FaultError::NeedsEmulation { .. }), "{error}");
        }
        let said = mesh.kill("three").unwrap_err().to_string();
        ensure!(said == "no node is called `three`", "{said}");
        let said = mesh.partition(&[&["one", "two"], &["two"]]).unwrap_err().to_string();
        ensure!(said == "node `two` is in two groups of a partition", "{said}");
        Ok(())
    })
}

/// The hour that a node's front says it is, on the day's clock of 24.
fn hour(base: &str) -> Result<u64> {
    let answer = ureq::get(format!("{base}/v2/health/live")).call()?;
    let date = answer.headers().get("date").context("no date")?.to_str()?;
    // As in `Sun, 06 Nov 1994 08:49:37 GMT`.
    let time = date.split(' ').nth(4).context("no time")?;
    Ok(time.split(':').next().context("no time")?.parse()?)
}

#[test]
fn a_wall_clock_is_put_wrong() -> Result<()> {
    if let Err(why) = clock::is_possible() {
        trial::skipped(&format!("clocks that can be put wrong: {why}"));
        return Ok(());
    }
    let moved = NodeSpec { has_own_clock: true, ..edge("two") };
    trial::run(&[edge("one"), moved], |mesh| {
        let apart = |mesh: &stormo_testnet::mesh::Mesh| -> Result<u64> {
            let (one, two) = (hour(mesh.node("one").client.base())?, hour(mesh.node("two").client.base())?);
            Ok((two + 24 - one) % 24)
        };
        // Asked at the turn of an hour, the two may differ by one.
        ensure!(matches!(apart(mesh)?, 0 | 1), "its clock is right at first");
        // The front keeps a date for a second, and so for hours when the clock goes back: only ahead, then.
        for hours in [3, 6, 9] {
            mesh.set_clock("two", hours as f64 * 3600.0)?;
            wait::until("another hour", SOON, || match apart(mesh) {
                Ok(found) if found == hours || found == hours + 1 => Ok(()),
                found => Err(format!("{found:?}, not {hours} hours apart")),
            })?;
            mesh.wait_for_nodes(2, SOON)?;
        }
        mesh.set_clock("two", -3600.0)?;
        mesh.wait_for_nodes(2, SOON)?;
        let said = mesh.set_clock("one", 1.0).unwrap_err().to_string();
        ensure!(said.contains("a clock of its own"), "{said}");
        Ok(())
    })
}
