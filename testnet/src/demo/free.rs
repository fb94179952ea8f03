//! Third chapter: the origin chooses how to run each request.

use std::collections::BTreeMap;

use anyhow::Result;
use stormo::serve::json::{PlanView, TensorView};
use stormo_testnet::digits::{self, Image};
use stormo_testnet::oip::InferAnswer;

use super::report::{Free, PlanUse, Reading};
use super::{Demo, MODEL, ORIGIN, measured, reading};
use crate::median::median;
use crate::table::{Align, Table};

/// Below this share of right readings something is wrong: the network reads 99 % of unseen images.
const ACCURACY_MIN: f64 = 0.9;
/// Readings in a line.
const COLUMNS: usize = 10;

pub(super) fn tell(demo: &mut Demo, input: &TensorView) -> Result<Free> {
    demo.narrator.title("a plan chosen freely");
    let client = demo.mesh.node(ORIGIN).client.clone();
    let plans = client.plans(MODEL)?.plans;
    show_plans(demo, &plans);
    let answers = reading::send_all(demo, &client, input, None)?;
    let plans_used = uses(demo, &plans, &answers)?;
    for plan in &plans_used {
        demo.narrator.say(&explain(plan, &plans));
    }
    let read = demo.images.iter().zip(&answers).map(|(image, answer)| reading::read(image, answer));
    let readings = read.collect::<Result<Vec<_>>>()?;
    show_drawings(demo, &readings);
    show_grid(demo, &readings);
    let right = readings.iter().filter(|reading| reading.digit == reading.truth).count();
    let accuracy = right as f64 / readings.len() as f64;
    let what = format!("{right} of {} images are read as what they are (at least 90 %)", readings.len());
    demo.narrator.check(accuracy >= ACCURACY_MIN, &what);
    Ok(Free { plans: plans_used, readings, accuracy })
}

/// The best plan of each kind.
fn show_plans(demo: &Demo, plans: &[PlanView]) {
    let mut table = Table::new(&[
        ("plan", Align::Left),
        ("kind", Align::Left),
        ("on", Align::Left),
        ("predicted", Align::Right),
        ("of it loading", Align::Right),
        ("bytes", Align::Right),
    ]);
    let mut kinds = Vec::new();
    for plan in plans {
        if kinds.contains(&&plan.kind) {
            continue;
        }
        kinds.push(&plan.kind);
        let hosts: Vec<&str> = plan.stages.iter().map(|stage| stage.label.as_str()).collect();
        table.row([
            measured::short(&plan.id.to_string()),
            plan.kind.clone(),
            hosts.join(" → "),
            format!("{:.2} ms", plan.latency_ms),
            format!("{:.2} ms", plan.cold_ms),
            plan.bytes.to_string(),
        ]);
    }
    let others = plans.len() - kinds.len();
    demo.narrator.say(&format!("The best plan of each kind, as {ORIGIN} predicts them (and {others} more):"));
    demo.narrator.table(&table);
}

fn uses(demo: &Demo, plans: &[PlanView], answers: &[InferAnswer]) -> Result<Vec<PlanUse>> {
    let mut by_plan: BTreeMap<_, Vec<&InferAnswer>> = BTreeMap::new();
    for answer in answers {
        by_plan.entry(answer.parameters.plan_id).or_default().push(answer);
    }
    let of_plan = |(id, answers): (_, Vec<&InferAnswer>)| {
        let nodes = answers.first().map_or(Ok(Vec::new()), |answer| reading::who_ran(demo, answer))?;
        let kind = plans.iter().find(|plan| plan.id == id).map(|plan| plan.kind.clone());
        let latency_ms = median(answers.iter().map(|answer| answer.parameters.latency_ms));
        Ok(PlanUse { plan_id: id.to_string(), kind, nodes, images: answers.len(), latency_ms })
    };
    let mut uses: Vec<PlanUse> = by_plan.into_iter().map(of_plan).collect::<Result<_>>()?;
    uses.sort_by_key(|plan| std::cmp::Reverse(plan.images));
    Ok(uses)
}

/// Says what was chosen, and why that is no surprise.
fn explain(used: &PlanUse, plans: &[PlanView]) -> String {
    let kind = used.kind.as_deref().unwrap_or("other");
    let chosen = format!(
        "{} images by plan {} ({kind}), on {}: {:.2} ms each (median).",
        used.images,
        measured::short(&used.plan_id),
        used.nodes.join(" → "),
        used.latency_ms
    );
    let local_cold_ms = plans.iter().find(|plan| plan.kind == "local").map(|plan| plan.cold_ms);
    let why = match (kind, local_cold_ms) {
        ("local", _) => format!(
            "All at {ORIGIN}, and rightly so: five processes of one machine are equally fast, so a way to\n\
             another one costs time and wins none. On unequal machines the choice is another one."
        ),
        ("remote", Some(cold_ms)) if cold_ms > 0.0 => format!(
            "Not at {ORIGIN}, which would first have to load the network ({cold_ms:.1} ms); all nodes being\n\
             equally fast and near, the whole goes where it is loaded."
        ),
        _ => "The quickest by prediction.".to_owned(),
    };
    format!("{chosen}\n{why}")
}

/// Some images as they are, with what they were read as: a misread one among them if there is one.
fn show_drawings(demo: &Demo, readings: &[Reading]) {
    let misread = readings.iter().position(|reading| reading.digit != reading.truth);
    let shown: Vec<usize> = [Some(3), misread, Some(5), Some(9)].into_iter().flatten().take(4).collect();
    let shown: Vec<_> =
        shown.iter().filter_map(|index| demo.images.get(*index).zip(readings.get(*index))).collect();
    let drawn: Vec<&Image> = shown.iter().map(|(image, _)| *image).collect();
    let captions = shown.iter().map(|(image, reading)| {
        let caption = format!("{} is read as {}", reading.truth, reading.digit);
        format!("{caption:<width$}", width = 2 * image.width)
    });
    let captions: Vec<String> = captions.collect();
    demo.narrator.gap();
    demo.narrator.say(&digits::draw(&drawn).join("\n"));
    demo.narrator.say(&captions.join("    "));
    demo.narrator.gap();
}

fn show_grid(demo: &Demo, readings: &[Reading]) {
    let mut truth_above = Vec::new();
    for line in readings.chunks(COLUMNS) {
        let truth: Vec<u8> = line.iter().map(|reading| reading.truth).collect();
        if truth != truth_above {
            let cells: String = truth.iter().map(|digit| format!("{digit:<8}")).collect();
            demo.narrator.say(&format!("truth  {cells}"));
            truth_above = truth;
        }
        let cells = line.iter().map(|reading| {
            let mark = if reading.digit == reading.truth { ' ' } else { '!' };
            format!("{}{mark}{:>3.0}%  ", reading.digit, 100.0 * reading.probability)
        });
        demo.narrator.say(&format!("read   {}", cells.collect::<String>()));
    }
}
