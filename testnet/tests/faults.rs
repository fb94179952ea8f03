//! What is done to nodes of a mesh on loopback, and what needs more than that.

use anyhow::{Result, ensure};
use stormo_testnet::link::LinkSpec;
use stormo_testnet::mesh::FaultError;
use stormo_testnet::trial::{self, SOON, edge};

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
