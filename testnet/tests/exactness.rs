//! What a network divided over processes answers, against the same parts in one process, the network
//! in one piece, and the answers kept with the shared models.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use stormo::serve::json::PlanView;
use stormo_protocol::model::OrtLevel;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::{Difference, FloatTensor, InferRequest, RequestParameters};
use stormo_testnet::reference::Reference;
use stormo_testnet::topology::NodeSpec;
use stormo_testnet::trial::{self, edge};
use stormo_testnet::{arrays, digits, surroundings};

/// At its default level ONNX Runtime fuses across what a cut separates, which moves results by up to
/// 2e-5 of their largest value.
const DIFFERENCE_MAX: f64 = 1e-4;

/// A network with inputs, and what is known of its outputs.
struct Case {
    name: &'static str,
    model: PathBuf,
    inputs: Vec<Vec<FloatTensor>>,
    /// Answers made elsewhere with all optimisations off, one for each input; or none.
    golden: Vec<Vec<FloatTensor>>,
}

#[test]
fn digits_through_three_processes_without_optimisations() -> Result<()> {
    trial::run(&nodes(3), |mesh| check(mesh, &digits_case()?, OrtLevel::Off, 3))
}

#[test]
fn digits_through_three_processes_with_all_optimisations() -> Result<()> {
    trial::run(&nodes(3), |mesh| check(mesh, &digits_case()?, OrtLevel::All, 3))
}

#[test]
fn squeezenet_through_two_three_and_five_processes() -> Result<()> {
    through_two_three_and_five("squeezenet_fp32")
}

#[test]
fn fastestdet_through_two_three_and_five_processes() -> Result<()> {
    through_two_three_and_five("fastestdet_352")
}

/// It has twelve outputs, most of which are ready before its last part.
#[test]
fn yunet_through_two_three_and_five_processes() -> Result<()> {
    through_two_three_and_five("yunet_n_320")
}

fn through_two_three_and_five(name: &'static str) -> Result<()> {
    let Some(folder) = surroundings::shared_models() else {
        trial::skipped(&format!(
            "no shared models. Set {} to the folder that holds `models/{name}.onnx`.",
            surroundings::SHARED
        ));
        return Ok(());
    };
    let golden = arrays::read_golden(&folder.join("golden").join(format!("{name}.npz")))?;
    let case = Case {
        name,
        model: folder.join(format!("{name}.onnx")),
        inputs: vec![golden.inputs],
        golden: vec![golden.outputs],
    };
    for count in [2, 3, 5] {
        trial::run(&nodes(count), |mesh| {
            check(mesh, &case, OrtLevel::Off, count)?;
            check(mesh, &case, OrtLevel::All, count)
        })?;
    }
    Ok(())
}

fn nodes(count: usize) -> Vec<NodeSpec> {
    (1..=count).map(|number| edge(&format!("node-{number}"))).collect()
}

fn digits_case() -> Result<Case> {
    let input =
        |image: &digits::Image| InferRequest::new("image", &[1, 1, 8, 8], image.pixels.clone()).inputs;
    let inputs = digits::load()?.iter().map(input).collect();
    Ok(Case { name: "digits", model: digits::model(), inputs, golden: Vec::new() })
}

/// Deploys in as many parts as there are nodes, runs all inputs through all of them, and compares.
fn check(mesh: &mut Mesh, case: &Case, level: OrtLevel, parts: usize) -> Result<()> {
    let level_name = if level == OrtLevel::Off { "off" } else { "all" };
    let name = format!("{}-{level_name}", case.name);
    let count = parts.to_string();
    let options = ["--ort-level", level_name, "--parts", &count, "--replicas", "1"];
    trial::deploy(mesh, "node-1", &name, &case.model, &options)?;
    let client = &mesh.node("node-1").client;
    let plan = trial::loaded_plan(client, &name, &format!("chain-{parts}"))?;
    check_hosts(&plan, parts)?;
    let reference = Reference::of(&name, &case.model, level)?;
    check_same_division(mesh, &name, &reference)?;
    let blocks: Vec<[u16; 2]> = plan.stages.iter().map(|stage| stage.blocks).collect();
    for (index, inputs) in case.inputs.iter().enumerate() {
        let request =
            InferRequest { id: None, inputs: inputs.clone(), parameters: RequestParameters::default() };
        let answer = client.infer(&name, &request.by_plan(plan.id))?;
        let hosts: Vec<String> = plan.stages.iter().map(|stage| stage.node.to_string()).collect();
        ensure!(answer.parameters.nodes == hosts.join(","), "it ran on {}", answer.parameters.nodes);
        let told = |what: &str| format!("input {index} of {name} in {parts} parts: {what}");
        let in_one_process = reference.parts(&blocks, inputs)?;
        let apart = between(&in_one_process, &answer.outputs)?;
        ensure!(apart.is_identical, told(&format!("the same parts in one process differ by {apart:?}")));
        let apart = between(&reference.whole(inputs)?, &answer.outputs)?;
        ensure!(apart.relative <= DIFFERENCE_MAX, told(&format!("the whole differs by {apart:?}")));
        ensure!(
            level != OrtLevel::Off || apart.is_identical,
            told(&format!("the whole differs by {apart:?}"))
        );
        if let Some(golden) = case.golden.get(index) {
            let apart = between(golden, &answer.outputs)?;
            ensure!(
                apart.relative <= DIFFERENCE_MAX,
                told(&format!("the golden answer differs by {apart:?}"))
            );
        }
    }
    Ok(())
}

fn between(reference: &[FloatTensor], other: &[FloatTensor]) -> Result<Difference> {
    Difference::between(reference, other).context("the answers have other names or shapes")
}

/// As many stages as parts, each on a process of its own.
fn check_hosts(plan: &PlanView, parts: usize) -> Result<()> {
    let mut hosts: Vec<String> = plan.stages.iter().map(|stage| stage.node.to_string()).collect();
    hosts.sort();
    hosts.dedup();
    ensure!((plan.stages.len(), hosts.len()) == (parts, parts), "not {parts} stages and hosts: {plan:?}");
    Ok(())
}

/// The command's process and this one divide alike, so that equal ranges are equal parts.
fn check_same_division(mesh: &Mesh, name: &str, reference: &Reference) -> Result<()> {
    let models = mesh.node("node-1").client.models()?.models;
    let model = models.into_iter().find(|model| model.name == name).context("it is listed")?;
    let manifest = reference.manifest();
    let here: Vec<Vec<String>> = (0..=manifest.block_count())
        .map(|cut| manifest.cut_specs(cut).map(|spec| spec.name.clone()).collect())
        .collect();
    let there: Vec<Vec<String>> = model.cuts.into_iter().map(|cut| cut.tensors).collect();
    ensure!(here == there, "the division differs: {here:?}, {there:?}");
    Ok(())
}
