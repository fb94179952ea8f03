//! `cargo mesh demo`: real images through a real network, divided over five processes, and every
//! claim about it checked.

mod deploying;
mod detecting;
mod divided;
mod elsewhere;
mod free;
mod measured;
mod meeting;
mod reading;
mod report;
mod traffic;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow};
use stormo_protocol::ids::NodeId;
use stormo_testnet::binary::workspace_root;
use stormo_testnet::digits::{self, Image};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::topology::Topology;
use stormo_testnet::{binary, interrupt};

use crate::narrator::Narrator;
use report::Report;

/// Name that the network gets in the mesh.
const MODEL: &str = "digits";
/// The node with the images.
const ORIGIN: &str = "camera";
/// Another node, for entering the same request there.
const ELSEWHERE: &str = "server-2";
/// Answers of a divided network may differ by this, relative to their largest value: at its default
/// level ONNX Runtime fuses across what a cut separates, which moves results by up to 2e-5.
const DIFFERENCE_MAX: f64 = 1e-4;

/// What every chapter works with.
struct Demo<'a> {
    narrator: &'a mut Narrator,
    mesh: &'a mut Mesh,
    images: Vec<Image>,
}

impl Demo<'_> {
    fn label(&self, id: NodeId) -> String {
        let node = self.mesh.nodes().iter().find(|node| node.id() == id);
        node.map_or_else(|| id.short(), |node| node.label().to_owned())
    }
}

/// A file of the workspace, as someone in it names it.
fn shown(path: &Path) -> String {
    path.strip_prefix(workspace_root()).unwrap_or(path).display().to_string()
}

/// Runs it all.
pub(crate) fn run(is_json: bool) -> Result<()> {
    let mut narrator = Narrator::new(is_json);
    narrator.say(
        "Five stormo processes on this machine form a mesh. A network that reads handwritten digits is\n\
         divided over them; images go in at one peer, and every answer is checked. Nothing is slowed\n\
         down or staged. First the node is built, if it is not yet.",
    );
    let images = digits::load()?;
    let topology = Topology::load(Path::new("demo"))?;
    let binary = binary::build()?;
    let since = Instant::now();
    let mut mesh = Mesh::start(&binary, &topology, &mut |log| note_part!("{log}"))?;
    let told = tell(&mut narrator, &mut mesh, images);
    finish(narrator, mesh, told, since)
}

fn tell(narrator: &mut Narrator, mesh: &mut Mesh, images: Vec<Image>) -> Result<Report> {
    let mut demo = Demo { narrator, mesh, images };
    let (nodes, memory) = meeting::tell(&mut demo)?;
    let (deployment, input) = deploying::tell(&mut demo)?;
    let free = free::tell(&mut demo, &input)?;
    let reference = reading::undivided(&demo, &input)?;
    let divided = divided::tell(&mut demo, &input, &reference)?;
    let elsewhere = elsewhere::tell(&mut demo, &input, &reference)?;
    let traffic = traffic::tell(&mut demo, &input, &divided.plan)?;
    let detected = detecting::tell(&mut demo)?;
    Ok(Report { nodes, memory, deployment, free, divided, elsewhere, traffic, detected })
}

/// Ends the mesh and says what held; keeps the logs when something did not.
fn finish(mut narrator: Narrator, mut mesh: Mesh, told: Result<Report>, since: Instant) -> Result<()> {
    if interrupt::is_noted() {
        return told.map(drop);
    }
    narrator.title("the end");
    let bad = mesh.end();
    let how = bad.iter().map(|end| {
        let status = end.status.map_or_else(|| "had to be killed".to_owned(), |status| status.to_string());
        format!("; {}: {status}", end.label)
    });
    let how: String = how.collect();
    narrator
        .check(bad.is_empty(), &format!("asked to leave, every node ended by itself with exit code 0{how}"));
    let seconds = since.elapsed().as_secs_f64();
    narrator.say(&format!("It took {seconds:.1} s, and nothing is left running. What was checked:"));
    narrator.summary();
    let report = match told {
        Ok(report) => report,
        Err(cause) => return Err(cause.context(failure(mesh))),
    };
    narrator.print_json(&report, seconds)?;
    match narrator.checks().iter().filter(|check| !check.holds).count() {
        0 => Ok(()),
        failed => Err(anyhow!("{failed} of the checks failed (✗ above)").context(failure(mesh))),
    }
}

fn failure(mesh: Mesh) -> String {
    format!("the demo failed; logs are kept in {}", mesh.end_and_keep_folder().display())
}
