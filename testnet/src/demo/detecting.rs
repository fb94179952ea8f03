//! Last chapter: another network finds digits in a picture. The picture goes in as the JPEG that it is; whichever
//! node the plan says decodes it and reads what the network found.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use stormo::card::{Detection, Meaning};
use stormo::serve::json::{DeploymentView, PlanView};
use stormo_testnet::binary::workspace_root;
use stormo_testnet::commands::{ImageAnswer, Progress};
use stormo_testnet::detector::{self, Marked, Picture};
use stormo_testnet::trial::arguments;
use stormo_testnet::wait;

use super::report::{Detected, DetectedBy};
use super::{DIFFERENCE_MAX, Demo, ORIGIN, shown};
use crate::table::{Align, Table};

/// Name that the network gets in the mesh.
const NAME: &str = "detector";
const SIZE: &str = "n";
/// Which of the committed pictures: a large one with many digits.
const PICTURE: usize = 1;
const STAGES: usize = 3;
/// The longer side of that picture: the largest value that a box can have.
const SIDE_PX: f64 = 320.0;
/// A found digit is right if its box overlaps the true one by this share of both.
const IOU_MIN: f64 = 0.5;
/// Deploying it takes seconds, asking it milliseconds.
const COMMAND_MAX: Duration = Duration::from_secs(120);
/// What is loaded is gossiped at once, and repaired within some seconds.
const HEARD_MAX: Duration = Duration::from_secs(15);

pub(super) fn tell(demo: &mut Demo) -> Result<Detected> {
    demo.narrator.title("digits found in a picture");
    let picture = detector::load()?.into_iter().nth(PICTURE).context("no such picture")?;
    let drawn = drawing()?;
    deploy(demo)?;
    demo.narrator.say(&format!(
        "At {ORIGIN}: stormo infer {NAME} {} --draw {}",
        shown(&image(&picture)),
        shown(&drawn)
    ));
    let plans = [plan(demo, 1)?, plan(demo, STAGES)?].map(|plan| plan.id.to_string());
    let found = detections(ask(demo, &picture, &["--plan-id", &plans[0]])?)?;
    let free = ask(demo, &picture, &["--draw", &drawn.to_string_lossy()])?;
    let divided = ask(demo, &picture, &["--plan-id", &plans[1]])?;
    let right = show(demo, &picture, &found);
    let digits = picture.truth.len();
    demo.narrator.say(&format!(
        "{right} of {digits} digits, in hands that nothing was learnt from, are found as what they are.\n\
         The picture with the boxes: {}",
        shown(&drawn)
    ));
    let by = [("chosen freely", free), ("of three stages", divided)];
    let by = by.map(|(how, answer)| compare(demo, how, answer, &found)).into_iter().collect::<Result<_>>()?;
    let drawn = drawn.display().to_string();
    Ok(Detected { picture: picture.name, digits, right, found, by, drawn })
}

fn deploy(demo: &Demo) -> Result<()> {
    let (model, card) = (detector::model(SIZE), detector::card());
    demo.narrator.say(&format!(
        "At {ORIGIN}: stormo deploy {NAME} {} --card {}",
        shown(&model),
        shown(&card)
    ));
    let [model, card] = [model, card].map(|path| path.to_string_lossy().into_owned());
    let api = demo.mesh.node(ORIGIN).client.base();
    let words = arguments(&["deploy", NAME, &model, "--card", &card, "--api", api]);
    demo.mesh.stormo().json::<DeploymentView>(&words, Progress::Kept, COMMAND_MAX)?;
    Ok(())
}

fn image(picture: &Picture) -> PathBuf {
    detector::folder().join(&picture.name)
}

/// The best listed plan with so many stages on as many nodes.
fn plan(demo: &Demo, stages: usize) -> Result<PlanView> {
    let client = &demo.mesh.node(ORIGIN).client;
    let nodes = |plan: &PlanView| plan.stages.iter().map(|stage| stage.node).collect::<BTreeSet<_>>().len();
    let found = wait::until(&format!("a plan of {stages} stages"), HEARD_MAX, || {
        let plans = client.plans(NAME).map_err(|error| error.to_string())?.plans;
        let fit = plans.into_iter().find(|plan| plan.stages.len() == stages && nodes(plan) == stages);
        fit.ok_or_else(|| "none is listed".to_owned())
    })?;
    Ok(found)
}

fn ask(demo: &Demo, picture: &Picture, options: &[&str]) -> Result<ImageAnswer> {
    let api = demo.mesh.node(ORIGIN).client.base();
    Ok(demo.mesh.stormo().infer_image(api, NAME, &image(picture), &arguments(options), COMMAND_MAX)?)
}

fn detections(answer: ImageAnswer) -> Result<Vec<Detection>> {
    match answer.meaning {
        Meaning::Detections(found) => Ok(found),
        other => bail!("the detector answers {other:?}"),
    }
}

/// Whether another plan's answer is the undivided network's; says who ran it.
fn compare(
    demo: &mut Demo,
    how: &'static str,
    answer: ImageAnswer,
    undivided: &[Detection],
) -> Result<DetectedBy> {
    let ids = answer.parameters.nodes.split(',').filter(|id| !id.is_empty());
    let nodes = ids.map(|id| Ok(demo.label(id.trim().parse()?))).collect::<Result<Vec<_>>>()?;
    let plan_id = answer.parameters.plan_id.to_string();
    let latency_ms = answer.parameters.latency_ms;
    let found = detections(answer)?;
    let what = format!("the plan {how} ({}) finds the same as the undivided network", nodes.join(" → "));
    demo.narrator.check(is_same(&found, undivided), &what);
    Ok(DetectedBy { how, plan_id, nodes, latency_ms })
}

/// The same digits, surest first, in the same places but for what a division may change.
fn is_same(one: &[Detection], other: &[Detection]) -> bool {
    let is_close = |(one, other): (&Detection, &Detection)| {
        let edges = one.box_px.iter().zip(other.box_px);
        let apart_px = edges.map(|(one, other)| f64::from((one - other).abs())).fold(0.0, f64::max);
        let apart = f64::from((one.score - other.score).abs());
        one.index == other.index && apart_px <= DIFFERENCE_MAX * SIDE_PX && apart <= DIFFERENCE_MAX
    };
    one.len() == other.len() && one.iter().zip(other).all(is_close)
}

/// Where the picture with the boxes goes: it stays there when the mesh has ended.
fn drawing() -> Result<PathBuf> {
    let folder = workspace_root().join("target");
    fs::create_dir_all(&folder)?;
    Ok(folder.join("demo-digits-found.png"))
}

/// A line for each thing found and for each digit missed; how many are right.
fn show(demo: &Demo, picture: &Picture, found: &[Detection]) -> usize {
    let found: Vec<Marked> = found.iter().map(Marked::from).collect();
    let pairs = detector::matches(&found, &picture.truth, IOU_MIN);
    let mut table = Table::new(&[
        ("found", Align::Left),
        ("sure", Align::Right),
        ("left", Align::Right),
        ("top", Align::Right),
        ("right", Align::Right),
        ("bottom", Align::Right),
        ("truth", Align::Left),
    ]);
    for (marked, pair) in found.iter().zip(&pairs) {
        let there = |truth: &&Marked| detector::iou(&marked.box_px, &truth.box_px) >= IOU_MIN;
        let truth = match (pair, picture.truth.iter().find(there)) {
            (Some(_), _) => "✓".to_owned(),
            (None, Some(other)) => format!("no, {}", other.digit),
            (None, None) => "no, nothing".to_owned(),
        };
        let [left, top, right, bottom] = marked.box_px.map(|edge_px| format!("{edge_px:.0}"));
        let sure = format!("{:.0}%", 100.0 * marked.score);
        table.row([marked.digit.to_string(), sure, left, top, right, bottom, truth]);
    }
    let is_there =
        |truth: &&Marked| found.iter().all(|marked| detector::iou(&marked.box_px, &truth.box_px) < IOU_MIN);
    for missed in picture.truth.iter().filter(is_there) {
        let [left, top, right, bottom] = missed.box_px.map(|edge_px| format!("{edge_px:.0}"));
        table.row([
            "-".to_owned(),
            String::new(),
            left,
            top,
            right,
            bottom,
            format!("{}, missed", missed.digit),
        ]);
    }
    demo.narrator.table(&table);
    pairs.iter().flatten().count()
}
