//! Tensors coded between real nodes: lossless codecs give the same bits in fewer bytes, rounding costs no
//! more than was measured, and what a plan does not name is refused.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use stormo::net::{Net, NetEvent, OutgoingFrame, Patience, Progress};
use stormo::serve::json::{DeploymentView, ModelView, PlanView, PlansView};
use stormo_protocol::codec::payload::Codec;

use stormo_protocol::frame::{DeliveryKey, Edge, Header, ORIGIN};
use stormo_protocol::ids::{RequestId, VariantId};
use stormo_protocol::model::BlockKind;
use stormo_protocol::plan::{EncodedPlan, Plan, Stage};
use stormo_protocol::refusal::Refusal;
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};
use stormo_testnet::binary::workspace_root;
use stormo_testnet::digits::{self, Image};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::{Difference, InferAnswer};
use stormo_testnet::raw_peer;
use stormo_testnet::traffic::{Moved, moved, settled, since};
use stormo_testnet::trial::{self, SOON, asker, edge};
use stormo_testnet::wait;
use tokio::sync::mpsc;
use tokio::time::timeout;

const LABELS: [&str; 3] = ["origin", "first", "second"];
/// As many as losses are measured on, so that they are measured on all of these.
const SAMPLES: usize = 16;

#[test]
fn coded_tensors_are_fewer_bytes_and_lose_what_was_measured_or_nothing() -> Result<()> {
    trial::run(&[asker("origin"), edge("first"), edge("second")], |mesh| {
        let images = samples(&mesh.folder().join("samples"))?;
        let view = deploy_in_two(mesh)?;
        let raw = answers_by(mesh, Codec::Raw, &images)?;
        let lossless = answers_by(mesh, Codec::ShuffleLz4, &images)?;
        ensure!(lossless.plan.loss == 0.0);
        for (image, (raw, coded)) in images.iter().zip(raw.answers.iter().zip(&lossless.answers)) {
            let difference = Difference::between(&raw.outputs, &coded.outputs);
            ensure!(difference == Some(Difference::NONE), "{}: {difference:?}", image.name);
        }
        ensure!(lossless.bytes < raw.bytes, "{} bytes, {} uncoded", lossless.bytes, raw.bytes);
        let free: PlansView =
            mesh.node("origin").client.get("/v1/plans?model=digits&all=true&image=false")?;
        let round = |plan: &PlanView| plan.edges.iter().any(|edge| !edge.codec.is_lossless());
        ensure!(
            !free.plans.iter().any(round),
            "a plan rounds, though no accuracy below the best was allowed"
        );
        let rounded = answers_by(mesh, Codec::Int8Lz4, &images)?;
        ensure!(2 * rounded.bytes < raw.bytes, "{} bytes, {} uncoded", rounded.bytes, raw.bytes);
        let differ = raw
            .answers
            .iter()
            .zip(&rounded.answers)
            .filter(|(raw, rounded)| digits::read(&raw.outputs) != digits::read(&rounded.outputs));
        let lost = differ.count() as f64 / images.len() as f64;
        ensure!(
            lost <= rounded.plan.loss,
            "{lost} of the answers changed, {} was measured",
            rounded.plan.loss
        );
        let moves =
            raw.answers.iter().zip(&rounded.answers).any(|(raw, rounded)| raw.outputs != rounded.outputs);
        ensure!(moves, "rounding moved no answer by a bit: was anything rounded?");
        a_codec_that_the_plan_does_not_name_is_refused(mesh, &view)
    })
}

/// Images for measuring and asking, in a folder of their own.
fn samples(folder: &Path) -> Result<Vec<Image>> {
    fs::create_dir_all(folder)?;
    let images: Vec<Image> = digits::load()?.into_iter().take(SAMPLES).collect();
    ensure!(images.len() == SAMPLES, "there are {} images", images.len());
    for image in &images {
        fs::copy(digits::folder().join(&image.name), folder.join(&image.name))?;
    }
    Ok(images)
}

/// The network on two nodes, parted where a lossless codec saves most, and what rounding loses is known.
fn deploy_in_two(mesh: &Mesh) -> Result<DeploymentView> {
    let card = workspace_root().join("testnet/models/digits.toml").to_string_lossy().into_owned();
    let samples = mesh.folder().join("samples").to_string_lossy().into_owned();
    let options = ["--card", &card, "--samples", &samples];
    trial::deploy(mesh, "origin", "digits", &digits::model(), &options)?;
    let model = described(mesh)?;
    ensure!(usize::from(model.loss_samples) == SAMPLES, "losses are of {} images", model.loss_samples);
    let (first, end) = graph(&model);
    let saved = |cut: u16| {
        let cut = &model.cuts[usize::from(cut)];
        let bytes = |codec| {
            let figures = cut.codecs.iter().find(|coded| coded.codec == codec);
            figures.filter(|coded| coded.loss.is_some()).map(|coded| coded.bytes)
        };
        bytes(Codec::Int8Lz4).and(bytes(Codec::ShuffleLz4)).map_or(0, |coded| cut.bytes - coded)
    };
    let between = (first + 1..end).max_by_key(|cut| saved(*cut)).context("it has cuts")?;
    ensure!(saved(between) > 0, "no cut has both a lossless codec that saves a byte and a known loss");
    let placement = mesh.folder().join("placement.toml");
    let place = |node: &str, first, end| format!("[[place]]\nnode = \"{node}\"\nblocks = [{first}, {end}]\n");
    fs::write(&placement, place("first", first, between) + &place("second", between, end))?;
    let placement = placement.to_string_lossy().into_owned();
    let options = ["--card", &card, "--samples", &samples, "--placement", &placement];
    trial::deploy(mesh, "origin", "digits", &digits::model(), &options)
}

fn described(mesh: &Mesh) -> Result<ModelView> {
    mesh.node("origin").client.models()?.models.into_iter().next().context("it is listed")
}

/// The blocks of the graph, without the ends.
fn graph(model: &ModelView) -> (u16, u16) {
    let is_graph = |block: &stormo::serve::json::BlockView| block.kind == BlockKind::Graph;
    let first = model.blocks.iter().position(is_graph).unwrap_or(0);
    let end = model.blocks.iter().rposition(is_graph).map_or(0, |last| last + 1);
    (first as u16, end as u16)
}

/// Answers by a plan, and what it took.
struct Answered {
    plan: PlanView,
    answers: Vec<InferAnswer>,
    /// Sent by all nodes.
    bytes: u64,
}

/// Asks for all images by the plan through both nodes with this codec on every edge.
fn answers_by(mesh: &Mesh, codec: Codec, images: &[Image]) -> Result<Answered> {
    let client = &mesh.node("origin").client;
    let path =
        format!("/v1/plans?model=digits&all=true&image=false&codec={}", codec.name().replace('+', "%2B"));
    let plan = wait::until("a plan through both nodes", SOON, || {
        let plans: PlansView = client.get(&path).map_err(|error| error.to_string())?;
        let through_both = |plan: &PlanView| {
            let hosts: Vec<&str> = plan.stages.iter().map(|stage| stage.label.as_str()).collect();
            hosts == ["first", "second"] && plan.cold_ms == 0.0
        };
        plans.plans.into_iter().find(through_both).ok_or_else(|| "it is not listed".to_owned())
    })?;
    let codecs = plan.stages.iter().map(|stage| stage.inputs[0].codec).chain([plan.result_codec]);
    let codecs: Vec<Codec> = codecs.collect();
    ensure!(codecs[1] == codec, "{codecs:?} where {} was asked for", codec.name());
    let named: Vec<&str> = codecs.iter().map(|codec| codec.name()).collect();
    let input = trial::digits_input(client)?;
    let before = settled(mesh, &LABELS)?;
    let mut answers = Vec::new();
    for image in images {
        let answer = client.infer("digits", &image.request(&input).by_plan(plan.id))?;
        ensure!(answer.parameters.codecs == named.join(","), "{}", answer.parameters.codecs);
        answers.push(answer);
    }
    settled(mesh, &LABELS)?;
    let after = moved(mesh, &LABELS)?;
    let sent = |grown: &Moved| grown.values().map(|(sent, _)| *sent).sum::<u64>();
    let bytes = before.iter().zip(&after).map(|(before, after)| sent(&since(before, after))).sum();
    let raw_bytes: u64 = plan.edges.iter().map(|edge| edge.bytes).sum();
    let is_as_predicted = codec != Codec::Raw || bytes == raw_bytes * images.len() as u64;
    ensure!(is_as_predicted, "{bytes} bytes were sent where the plan's edges carry {raw_bytes} each time");
    Ok(Answered { plan, answers, bytes })
}

/// A stranger with the mesh's key sends the input of a plan where it is raw rounded; then as the plan says.
fn a_codec_that_the_plan_does_not_name_is_refused(mesh: &mut Mesh, view: &DeploymentView) -> Result<()> {
    let model = described(mesh)?;
    let spec = TensorSpec { name: model.inputs[0].name.clone(), dtype: DType::F32, shape: vec![1, 1, 8, 8] };
    let tensor = Tensor::new(spec, TensorData::copied_from(&[0x3e; 256]))?;
    let frame = TensorSpec { name: "image_frame".into(), dtype: DType::F32, shape: vec![8] };
    let frame = Tensor::new(frame, TensorData::copied_from(&[0; 32]))?;
    let config = raw_peer::config(mesh, 9)?;
    let identity = config.identity.clone();
    let host = mesh.node("first");
    let stage =
        |node, (first, end)| Stage { node, first, end, codec: Codec::Raw, backups: vec![], branch: None };
    let plan = Plan {
        variant: VariantId { deployment: view.id, index: 0 },
        origin: identity.node(),
        stages: vec![stage(host.id(), graph(&model))],
        result_codec: Codec::Raw,
    };
    let plan = EncodedPlan::of(Arc::new(plan));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (net, mut events) = Net::start(config).await?;
        net.dial(host.ready.addresses.first().context("it listens")?).await?;
        next(&mut events, |event| matches!(event, NetEvent::Connected(_)).then_some(())).await?;
        for (codec, number) in [(Codec::Int8, 1), (Codec::Raw, 2)] {
            let request = RequestId([number; 16]);
            let key = DeliveryKey { request, attempt: 1, edge: Edge { from: ORIGIN, to: 0 } };
            let tensors = vec![tensor.clone(), frame.clone()];
            let header = Header::of(key, plan.id(), 60_000, &[], &tensors);
            let patience = Patience { silence: SOON, is_connected: false, late_after: None, quiet: None };
            let frame = OutgoingFrame { header, plan: plan.bytes().clone(), traces: vec![], tensors, codec };
            net.deliver(host.id(), frame, patience);
            // On a slow machine its host first says that it has the tensors.
            let progress = next(&mut events, |event| match event {
                NetEvent::Delivery { progress, .. } if progress != Progress::Taken => Some(progress),
                _ => None,
            });
            let progress = progress.await?;
            match codec {
                // It ran: its result found nobody here who waits for it.
                Codec::Raw => ensure!(matches!(progress, Progress::Refused(ORIGIN, _)), "{progress:?}"),
                _ => ensure!(progress == Progress::Refused(0, Refusal::WrongCodec), "{progress:?}"),
            }
        }
        Ok(())
    })
}

/// Waits for something among a network's events.
async fn next<T>(events: &mut mpsc::Receiver<NetEvent>, wanted: impl Fn(NetEvent) -> Option<T>) -> Result<T> {
    let found = async {
        loop {
            let event = events.recv().await.context("the network ended")?;
            if let Some(found) = wanted(event) {
                return Ok(found);
            }
        }
    };
    timeout(SOON, found).await.context("nothing came in time")?
}
