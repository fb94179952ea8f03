//! A mesh for one test: the binary built once, few meshes at a time on this machine, the logs told
//! when it fails. Errors are `anyhow`'s: whoever calls is a test, which can only report them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use stormo::serve::json::{DeploymentState, DeploymentView, NodeView, PlanView, TensorView};
use stormo_protocol::state::Class;

use crate::client::Client;
use crate::commands::{Progress, Stormo};
use crate::ground::GroundKind;
use crate::mesh::Mesh;
use crate::process::Admission;
use crate::topology::{NodeSpec, Topology};
use crate::wait;
use crate::{binary, digits};

/// Meshes at once on this machine, whichever process runs them: two cores carry no more without
/// nodes taking each other for dead.
const MESHES_MAX: usize = 2;
/// Until one of them ends: tests of several runs may queue up.
const TURN_MAX: Duration = Duration::from_secs(30 * 60);
/// For what takes some exchanges of a second each; much more than that on a quiet machine.
pub const SOON: Duration = Duration::from_secs(60);
/// For a command: dividing and measuring a network on a busy machine.
pub const COMMAND_MAX: Duration = Duration::from_secs(300);

/// A node of an ordinary kind.
pub fn edge(label: &str) -> NodeSpec {
    NodeSpec::new(label, Class::Edge, 1 << 30)
}

/// A node that has no memory for any part of a model: it only asks.
pub fn asker(label: &str) -> NodeSpec {
    NodeSpec::new(label, Class::Device, 1000)
}

/// The commands of the node that this workspace builds.
///
/// # Errors
/// When it cannot be built.
pub fn stormo() -> Result<Stormo> {
    let binary = binary::build_once().map_err(|error| anyhow!("{error}"))?;
    Ok(Stormo { binary: binary.to_owned() })
}

/// Starts a mesh, waits until its nodes know each other, runs the test, and ends the mesh: every
/// node that still runs then has to leave by itself.
///
/// # Errors
/// What the test says, with the end of every node's log.
pub fn run(nodes: &[NodeSpec], test: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
    let _turn = turn()?;
    run_beside(nodes, test)
}

/// The same within a test that runs a mesh already and so has a place among the meshes.
///
/// # Errors
/// As [`run`].
pub fn run_beside(nodes: &[NodeSpec], test: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
    started(GroundKind::Loopback, &Topology::plain("a test", nodes.to_vec()), |mesh| {
        mesh.wait_for_nodes(nodes.len(), SOON)?;
        test(mesh)
    })
}

/// Starts a mesh on some ground, runs the test without waiting before, and ends the mesh as [`run`].
///
/// # Errors
/// As [`run`].
pub fn run_on(
    ground: GroundKind,
    topology: &Topology,
    test: impl FnOnce(&mut Mesh) -> Result<()>,
) -> Result<()> {
    let _turn = turn()?;
    started(ground, topology, test)
}

fn started(
    ground: GroundKind,
    topology: &Topology,
    test: impl FnOnce(&mut Mesh) -> Result<()>,
) -> Result<()> {
    let binary = stormo()?.binary;
    let mut mesh = Mesh::start_on(ground, &binary, topology, &mut |_| {})?;
    let ran = catch_unwind(AssertUnwindSafe(|| test(&mut mesh)));
    let ran = ran.unwrap_or_else(|_| Err(anyhow!("the test panicked, as told above")));
    let bad = mesh.end();
    let ended = if bad.is_empty() { Ok(()) } else { Err(anyhow!("did not leave by themselves: {bad:?}")) };
    ran.and(ended).with_context(|| logs(&mesh))
}

/// Says that a test is left out, and how to enable it; the test runner would keep a `print` to itself.
pub fn skipped(why: &str) {
    told(&format!("SKIPPED: {why}"));
}

/// Says what was found, past the test runner.
pub fn told(what: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Waits for a place among the meshes of this machine; it is free again when the file is closed.
///
/// # Errors
/// When none becomes free in time. [`run`]
/// does so by itself.
///
/// # Errors
/// When there is none in time.
pub fn turn() -> Result<File> {
    let folder = std::env::temp_dir().join("stormo-testnet-turns");
    fs::create_dir_all(&folder)?;
    let open = |place: usize| File::create(folder.join(place.to_string()));
    let places = (0..MESHES_MAX).map(open).collect::<Result<Vec<File>, _>>()?;
    let free = wait::until("a place for a mesh", TURN_MAX, || {
        let free = places.iter().position(|place| place.try_lock().is_ok());
        free.ok_or_else(|| format!("{MESHES_MAX} meshes run on this machine"))
    })?;
    places.into_iter().nth(free).context("the place is there")
}

fn logs(mesh: &Mesh) -> String {
    let told = mesh.nodes().iter().map(|node| format!("log of {}:\n{}\n", node.label(), node.log_end()));
    told.collect()
}

/// Arguments as a command line has them.
pub fn arguments(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Starts one more node on loopback, with options that no [`NodeSpec`] has; of an option given twice the
/// last counts.
///
/// # Errors
/// When it does not start.
pub fn add_with(mesh: &mut Mesh, spec: &NodeSpec, options: &[&str]) -> Result<()> {
    let Admission::Key { file, join } = mesh.admission() else { return Err(anyhow!("a mesh adds by key")) };
    let budget = spec.memory_budget_bytes.to_string();
    let own = ["--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--grpc", "off"];
    let own = [&own[..], &["--label", &spec.label]].concat();
    let mut all = [arguments(&own), arguments(&["--memory-budget", &budget, "--mesh-key"])].concat();
    all.push(file.into());
    join.iter().for_each(|address| all.extend(arguments(&["--join", address])));
    all.extend(arguments(options));
    mesh.add_with(spec, &all)?;
    Ok(())
}

/// Deploys a model at a node by the command; it is then warm.
///
/// # Errors
/// When the command fails, or says that not all is warm.
pub fn deploy(mesh: &Mesh, at: &str, name: &str, model: &Path, options: &[&str]) -> Result<DeploymentView> {
    let mut command: Vec<OsString> = vec!["deploy".into(), name.into(), model.into()];
    command.extend(arguments(&["--api", mesh.node(at).client.base()]));
    command.extend(arguments(options));
    let view: DeploymentView = mesh.stormo().json(&command, Progress::Kept, COMMAND_MAX)?;
    ensure!(view.state == DeploymentState::Ready, "`{name}` is not warm: {view:?}");
    Ok(view)
}

/// The network `digits` as it is known at a node; waits until it is.
///
/// # Errors
/// When it is not in time.
pub fn digits_input(client: &Client) -> Result<TensorView> {
    let model = wait::until("the network to be known", SOON, || {
        let models = client.models().map_err(|error| error.to_string())?.models;
        models.into_iter().find(|model| model.name == "digits").ok_or_else(|| "it is not".to_owned())
    })?;
    model.inputs.into_iter().next().context("it has an input")
}

/// Lets a node read an image by the network `digits`, however it likes.
///
/// # Errors
/// When the answer is missing or wrong.
pub fn check_reads(client: &Client) -> Result<()> {
    let input = digits_input(client)?;
    let image = digits::load()?.swap_remove(3);
    let answer = client.infer("digits", &image.request(&input))?;
    let read = digits::read(&answer.outputs).context("no digit in the answer")?;
    ensure!(read == image.truth, "a {} was read as {read} at {}", image.truth, client.base());
    Ok(())
}

/// Waits until a node lists a plan of this kind (`chain-3`) on loaded parts only, nothing coded.
///
/// # Errors
/// When it does not in time.
pub fn loaded_plan(client: &Client, model: &str, kind: &str) -> Result<PlanView> {
    let what = format!("a {kind} plan for `{model}` on loaded parts");
    let found = wait::until(&what, SOON, || {
        let plans = client.uncoded_plans(model).map_err(|error| error.to_string())?.plans;
        let seen: Vec<String> =
            plans.iter().map(|plan| format!("{} ({} ms cold)", plan.kind, plan.cold_ms)).collect();
        let fit = plans.into_iter().find(|plan| plan.kind == kind && plan.cold_ms == 0.0);
        fit.ok_or_else(|| seen.join(", "))
    })?;
    Ok(found)
}

/// Waits until a node's plans leave another one out.
///
/// # Errors
/// When they do not in time.
pub fn wait_until_left_out(client: &Client, label: &str) -> Result<()> {
    let is_out = |node: &NodeView| node.label == label && !node.usable;
    wait::until(&format!("`{label}` to be left out"), SOON, || {
        let nodes = client.nodes().map_err(|error| error.to_string())?;
        let seen: Vec<(&str, bool)> = nodes.iter().map(|node| (node.label.as_str(), node.usable)).collect();
        if nodes.iter().any(is_out) { Ok(()) } else { Err(format!("{seen:?}")) }
    })?;
    Ok(())
}
