//! Nodes asked directly how they are.

use anyhow::{Context, Result, ensure};
use stormo::serve::json::{NodeState, NodeView, NodesView};
use stormo_testnet::client::{ApiError, Client};
use stormo_testnet::trial::{self, SOON, edge};
use stormo_testnet::wait;

/// Questions in a row: all of them within one period of gossip on a quiet machine.
const ASKED: usize = 20;

fn refused<T>(answer: Result<T, ApiError>) -> Result<(u16, String)> {
    match answer {
        Err(ApiError::Refused { status, error, .. }) => Ok((status, error)),
        Err(other) => Err(other.into()),
        Ok(_) => anyhow::bail!("it was answered"),
    }
}

fn asked(client: &Client, name: &str) -> Result<NodeView, ApiError> {
    client.get(&format!("/v1/nodes/{name}?fresh=true"))
}

#[test]
fn a_node_that_is_asked_makes_its_record_for_the_answer() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        let client = &mesh.node("one").client;
        let two = mesh.node("two").id().to_string();
        let mut last = 0;
        // What gossip brings would be the same record several times.
        for name in [two.as_str(), "two", &two[two.len() - 6..]].into_iter().cycle().take(ASKED) {
            let view = asked(client, name)?;
            ensure!(view.label == "two" && view.state == NodeState::Usable, "{view:?}");
            ensure!(view.sequence > last, "record {} came after {last}", view.sequence);
            last = view.sequence;
        }
        let all: NodesView = client.get("/v1/nodes?fresh=true")?;
        let view = all.nodes.iter().find(|node| node.label == "two").context("it is listed")?;
        ensure!(view.sequence > last && all.nodes.len() == 2, "{all:?}");
        ensure!(client.get::<NodeView>("/v1/node?fresh=true")?.is_self, "it asks another one");
        ensure!(asked(client, "one")?.is_self, "it asks another one");
        Ok(())
    })
}

#[test]
fn who_cannot_be_asked_is_told_apart() -> Result<()> {
    trial::run(&[edge("one"), edge("two"), edge("twin")], |mesh| {
        trial::add_with(mesh, &edge("its-twin"), &["--label", "twin"])?;
        mesh.wait_for_nodes(4, SOON)?;
        let client = mesh.node("one").client.clone();
        let (status, error) = refused(asked(&client, "nobody"))?;
        ensure!(status == 404 && error.contains("stormo status"), "{status}: {error}");
        let (status, error) = refused(asked(&client, "twin"))?;
        ensure!(status == 409 && error.contains("peer id"), "{status}: {error}");
        let (status, error) = refused(client.get::<NodeView>("/v1/nodes/two?frech=true"))?;
        ensure!(status == 400 && error.contains("fresh=true"), "{status}: {error}");
        mesh.node_mut("two").freeze()?;
        // The signal takes hold a moment after it was sent.
        let (status, error) = wait::until("a refusal", SOON, || {
            refused(asked(&client, "two")).map_err(|error| error.to_string())
        })?;
        ensure!(status == 504 && error.contains("no answer within 2 s"), "{status}: {error}");
        // The others' answers are not lost for one that is silent.
        let all: NodesView = client.get("/v1/nodes?fresh=true")?;
        ensure!(all.nodes.len() == 4, "{all:?}");
        mesh.node_mut("two").thaw()?;
        let again = || asked(&client, "two").map_err(|error| error.to_string());
        wait::until("its answer after the thaw", SOON, again)?;
        mesh.node_mut("two").kill()?;
        trial::wait_until_left_out(&client, "two")?;
        let (status, error) = refused(asked(&client, "two"))?;
        ensure!(status == 503 && error.contains("cannot be reached"), "{status}: {error}");
        let dead: NodeView = client.get("/v1/nodes/two")?;
        ensure!(dead.state == NodeState::Lost, "{dead:?}");
        Ok(())
    })
}
