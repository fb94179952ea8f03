//! The committed detector over a mesh: encoded pictures in, the detections out that the script that trained
//! it found, whichever plan they took; and its mean average precision, counted once more.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use image::Rgb;
use serde_json::Value;
use stormo::card::Meaning;
use stormo::serve::json::PlansView;
use stormo_testnet::binary::workspace_root;
use stormo_testnet::commands::Progress;
use stormo_testnet::detector::{self, Marked, Picture, SIZES};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::trial::{self, COMMAND_MAX, arguments, edge};

/// The script decodes pictures with Pillow. Another decoder of JPEG differs by a level of 256 here and there,
/// which moves what is found by so much.
const BOX_DIFFERENCE_MAX_PX: f64 = 1.0;
const SCORE_DIFFERENCE_MAX: f64 = 0.03;
const MAP_DIFFERENCE_MAX: f64 = 0.005;

#[test]
fn both_sizes_find_over_a_mesh_what_they_were_measured_to_find() -> Result<()> {
    trial::run(&[edge("one"), edge("two"), edge("three")], |mesh| {
        let pictures = detector::load()?;
        let figures = fs::read_to_string(workspace_root().join("testnet/models/detector.json"))?;
        let figures: Value = serde_json::from_str(&figures)?;
        for size in SIZES {
            check(mesh, size, &pictures, &figures["samples"][size])
                .with_context(|| format!("detector_{size}"))?;
        }
        draw(mesh, &pictures)
    })
}

fn check(mesh: &Mesh, size: &str, pictures: &[Picture], figures: &Value) -> Result<()> {
    let name = format!("detector-{size}");
    let card = detector::card().to_string_lossy().into_owned();
    trial::deploy(mesh, "one", &name, &detector::model(size), &["--card", &card, "--parts", "3"])?;
    let client = &mesh.node("one").client;
    trial::loaded_plan(client, &name, "chain-3")?;
    let plans: PlansView = client.get(&format!("/v1/plans?model={name}&all=true"))?;
    let mut found = Vec::new();
    for (index, picture) in pictures.iter().enumerate() {
        let plan = &plans.plans[index % plans.plans.len()];
        let marked = find(mesh, &name, picture, &plan.id.to_string())?;
        let told = || format!("{} by {}: {marked:?}", picture.name, plan.kind);
        same(&marked, &picture.found[size]).with_context(told)?;
        found.push(marked);
    }
    let kinds: Vec<&str> = plans.plans.iter().map(|plan| plan.kind.as_str()).collect();
    ensure!(kinds.contains(&"local") && kinds.contains(&"chain-3"), "{kinds:?}");
    let ious: Vec<f64> = (0..10).map(|step| 0.5 + 0.05 * f64::from(step)).collect();
    for (figure, ious) in [("map_50", &ious[..1]), ("map_50_95", &ious[..])] {
        let counted = mean_average_precision(&found, pictures, ious);
        let stated = figures[figure].as_f64().context("the figure is stated")?;
        ensure!((counted - stated).abs() <= MAP_DIFFERENCE_MAX, "{figure}: {counted}, not {stated}");
    }
    Ok(())
}

/// The picture with the boxes is larger and differs, or the command says what is wrong and leaves no file.
fn draw(mesh: &Mesh, pictures: &[Picture]) -> Result<()> {
    let picture = detector::folder().join(&pictures[0].name).to_string_lossy().into_owned();
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let infer = |input: &str, drawn: &str| {
        let api = mesh.node("one").client.base();
        let words = arguments(&["infer", "detector-n", input, "--draw", drawn, "--api", api]);
        mesh.stormo().run(&words, Progress::Kept, COMMAND_MAX)
    };
    for (input, drawn, says) in [
        (&picture, file("found.gif"), "of type .png or .jpg"),
        (&picture, file("nowhere/found.png"), "No such file"),
        (&file("input.npy"), file("found.png"), "No such file"),
        (&file("missing.jpg"), file("found.png"), "No such file"),
    ] {
        let ran = infer(input, &drawn)?;
        ensure!(ran.status.code() == Some(1) && ran.stderr.contains(says), "{drawn}: {}", ran.stderr);
    }
    ensure!(fs::read_dir(folder.path())?.next().is_none(), "a file is left of what failed");
    for name in ["found.png", "found.JPG"] {
        let ran = infer(&picture, &file(name))?;
        ensure!(ran.status.success() && ran.stdout.contains(name), "{} {}", ran.stdout, ran.stderr);
        let (plain, drawn) = (image::open(&picture)?.into_rgb8(), image::open(file(name))?.into_rgb8());
        let factor = drawn.width() / plain.width();
        ensure!(factor > 1 && drawn.dimensions() == (factor * plain.width(), factor * plain.height()));
        let scaled = |x, y| plain.get_pixel(x / factor, y / factor);
        let differs =
            |one: &Rgb<u8>, other: &Rgb<u8>| one.0.iter().zip(other.0).any(|(a, b)| a.abs_diff(b) > 100);
        let marked = drawn.enumerate_pixels().filter(|(x, y, pixel)| differs(pixel, scaled(*x, *y))).count();
        ensure!(marked > 100, "{name}: nothing is drawn");
    }
    ensure!(fs::read_dir(folder.path())?.count() == 2, "more than the pictures is left");
    Ok(())
}

/// What a plan finds in a picture.
fn find(mesh: &Mesh, name: &str, picture: &Picture, plan: &str) -> Result<Vec<Marked>> {
    let api = mesh.node("one").client.base();
    let image = detector::folder().join(&picture.name);
    let options = arguments(&["--plan-id", plan]);
    let answer = mesh.stormo().infer_image(api, name, &image, &options, COMMAND_MAX)?;
    ensure!(answer.parameters.plan_id.to_string() == plan, "it ran by {}", answer.parameters.plan_id);
    match answer.meaning {
        Meaning::Detections(found) => Ok(found.iter().map(Marked::from).collect()),
        other => bail!("no detections but {other:?}"),
    }
}

/// Whether the same was found in both, in whatever order where scores are close.
fn same(one: &[Marked], other: &[Marked]) -> Result<()> {
    ensure!(one.len() == other.len(), "{} found, not {}", one.len(), other.len());
    for (marked, pair) in one.iter().zip(detector::matches(one, other, 0.5)) {
        let expected = pair.map(|index| other[index]).with_context(|| format!("{marked:?} is new"))?;
        let edges = marked.box_px.iter().zip(expected.box_px);
        let apart_px = edges.map(|(one, other)| (one - other).abs()).fold(0.0, f64::max);
        ensure!(apart_px <= BOX_DIFFERENCE_MAX_PX, "{marked:?} is {apart_px} px from {expected:?}");
        let apart = (marked.score - expected.score).abs();
        ensure!(apart <= SCORE_DIFFERENCE_MAX, "{marked:?} is not as sure as {expected:?}");
    }
    Ok(())
}

/// The mean over digits and overlaps of the average precision as COCO takes it.
fn mean_average_precision(found: &[Vec<Marked>], pictures: &[Picture], ious: &[f64]) -> f64 {
    let of_digits = (0..10).flat_map(|digit| ious.iter().map(move |iou_min| (digit, *iou_min)));
    let precisions = of_digits.map(|(digit, iou_min)| average_precision(digit, iou_min, found, pictures));
    let precisions: Vec<f64> = precisions.collect();
    precisions.iter().sum::<f64>() / precisions.len() as f64
}

/// The mean, at 101 recalls, of the best precision at that recall or a higher one.
fn average_precision(digit: u8, iou_min: f64, found: &[Vec<Marked>], pictures: &[Picture]) -> f64 {
    let mut claims: Vec<(f64, bool)> = Vec::new();
    for (found, picture) in found.iter().zip(pictures) {
        let right = detector::matches(found, &picture.truth, iou_min);
        let of_digit = found.iter().zip(right).filter(|(marked, _)| marked.digit == digit);
        claims.extend(of_digit.map(|(marked, right)| (marked.score, right.is_some())));
    }
    claims.sort_by(|one, other| other.0.total_cmp(&one.0));
    let truths = pictures.iter().flat_map(|picture| &picture.truth);
    let total = truths.filter(|marked| marked.digit == digit).count();
    let (mut right, mut curve) = (0usize, Vec::new());
    for (index, (_, is_right)) in claims.iter().enumerate() {
        right += usize::from(*is_right);
        curve.push((right, right as f64 / (index + 1) as f64));
    }
    let at = |percent: usize| {
        let reached = curve.iter().filter(|(right, _)| right * 100 >= percent * total);
        reached.map(|(_, precision)| *precision).fold(0.0, f64::max)
    };
    (0..=100).map(at).sum::<f64>() / 101.0
}
