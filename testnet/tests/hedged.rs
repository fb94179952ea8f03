//! A host that takes long: its work is sent to another one as well, if the request allows it, and the first answer counts.

use anyhow::{Context, Result, ensure};
use stormo::serve::json::{RequestView, RequestsView};
use stormo_testnet::client::Client;
use stormo_testnet::digits::{self, Image};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::InferRequest;
use stormo_testnet::trial::{self, SOON, asker, edge};

/// Requests by which the origin knows what is usual, and may hedge once.
const USUAL: usize = 40;
/// A machine may be so busy that everything is slow: a hedge is to be seen in one of so many rounds.
const ROUNDS: usize = 5;

struct Asking {
    client: Client,
    image: Image,
    request: InferRequest,
}

impl Asking {
    fn of(mesh: &Mesh) -> Result<Self> {
        let client = mesh.node("origin").client.clone();
        let image = digits::load()?.swap_remove(3);
        let request = image.request(&trial::digits_input(&client)?);
        Ok(Self { client, image, request })
    }

    /// A right answer, and how it came about.
    fn ask(&self, redundancy: &'static str) -> Result<RequestView> {
        let mut request = self.request.clone();
        request.parameters.redundancy = Some(redundancy);
        let answer = self.client.infer("digits", &request)?;
        let read = digits::read(&answer.outputs);
        ensure!(read == Some(self.image.truth), "{redundancy}: a {} was read as {read:?}", self.image.truth);
        Ok(self.client.request(&answer.parameters.request_id)?)
    }

    fn hedged(&self) -> Result<u64> {
        Ok(self.client.get::<RequestsView>("/v1/requests")?.hedged)
    }

    /// Freezes the host of such a request, asks once more, and thaws it: who answered, and in which attempt.
    fn ask_while_frozen(&self, mesh: &mut Mesh, redundancy: &'static str) -> Result<()> {
        let before = self.ask(redundancy)?;
        let host = before.stages.first().context("it ran")?.node;
        let label = mesh.nodes().iter().find(|node| node.id() == host).context("it is of this mesh")?;
        let label = label.label().to_owned();
        mesh.freeze(&label)?;
        let after = self.ask(redundancy);
        mesh.thaw(&label)?;
        let after = after?;
        ensure!(after.attempts == 1, "{redundancy}: {} attempts", after.attempts);
        ensure!(after.stages.iter().all(|stage| stage.node != host), "{redundancy}: {label} was frozen");
        mesh.wait_for_nodes(3, SOON)?;
        Ok(())
    }
}

#[test]
fn a_request_says_whether_a_second_host_is_sent_the_same() -> Result<()> {
    trial::run(&[asker("origin"), edge("one"), edge("two")], |mesh| {
        trial::deploy(mesh, "origin", "digits", &digits::model(), &["--replicas", "2"])?;
        let asking = Asking::of(mesh)?;
        for redundancy in ["warm", "duplicate"] {
            (0..USUAL).try_for_each(|_| asking.ask(redundancy).map(drop))?;
            asking.ask_while_frozen(mesh, redundancy)?;
            ensure!(asking.hedged()? == 0, "{redundancy} hedges");
        }
        for _ in 0..ROUNDS {
            (0..USUAL).try_for_each(|_| asking.ask("hedge").map(drop))?;
            asking.ask_while_frozen(mesh, "hedge")?;
            if asking.hedged()? > 0 {
                return Ok(());
            }
        }
        anyhow::bail!("nothing was hedged in {ROUNDS} rounds")
    })
}
