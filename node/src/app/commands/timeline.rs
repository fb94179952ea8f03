//! A plan as a timeline: one line for each thing that happens, on one scale from the request to its answer.

use stormo_protocol::ids::{NodeId, PlanId};

use super::table::{Screen, bytes, ms};
use crate::app::calls::PLAN_DIGITS_MIN;
use crate::serve::json::{EdgeView, PlanView, RequestView, SplitStageView, SplitView, StageView};

/// Characters of the scale where the screen is as wide as it likes, and at least.
const SCALE: usize = 60;
const SCALE_MIN: usize = 10;

/// What a stretch of time is spent on, and how it is drawn.
const WAITING: char = '·';
const LOADING: char = '░';
const RUNNING: char = '█';
const CODING: char = '▒';
const MOVING: char = '─';

/// One line of it: who does what from when on, for how long each.
struct Line {
    who: String,
    what: String,
    start_ms: f64,
    spent: Vec<(char, f64)>,
}

/// The beginning of a plan's id, which is enough to ask for it.
pub(super) fn short(id: PlanId) -> String {
    id.to_string().chars().take(PLAN_DIGITS_MIN).collect()
}

/// Lines to print.
pub(super) fn timeline(plan: &PlanView, screen: &Screen) -> Vec<String> {
    let energy = plan.energy_j.map_or(String::new(), |energy_j| format!(", {energy_j:.4} J"));
    let title = format!("{} ({}): {} ms{energy}", short(plan.id), plan.kind, ms(plan.latency_ms));
    drawn(title, &lines(plan), plan.latency_ms, screen)
}

/// How a request went, as far as it was measured. Ways between nodes and hand-overs are not, so the stages stand one behind
/// the other, and what is missing to the latency stands last.
pub(super) fn waterfall(
    request: &RequestView,
    label_of: impl Fn(NodeId) -> String,
    screen: &Screen,
) -> Vec<String> {
    let mut lines = vec![];
    let spent = vec![(WAITING, request.planning_ms), (CODING, request.input_encode_ms)];
    follow(&mut lines, String::new(), "planned, encoded", spent);
    for stage in &request.stages {
        let [first, end] = stage.blocks;
        let spent = vec![
            (MOVING, stage.receive_ms),
            (CODING, stage.decode_ms),
            (WAITING, stage.wait_ms),
            (RUNNING, stage.run_ms),
            (CODING, stage.encode_ms),
        ];
        follow(&mut lines, label_of(stage.node), &format!("{first}-{}", end - 1), spent);
    }
    let spent = vec![(MOVING, request.result_receive_ms), (CODING, request.result_decode_ms)];
    follow(&mut lines, String::new(), "received", spent);
    let measured_ms = end_ms(&lines);
    let rest_ms = (request.latency_ms - measured_ms).max(0.0);
    follow(&mut lines, String::new(), "ways, hand-overs", vec![(' ', rest_ms)]);
    let attempts = match request.attempts {
        1 => String::new(),
        attempts => format!(", the last of {attempts} attempts"),
    };
    let title = format!("request {}: {} ms{attempts}", request.id, ms(request.latency_ms));
    drawn(title, &lines, request.latency_ms.max(measured_ms), screen)
}

/// Adds what begins where the line before ends.
fn follow(lines: &mut Vec<Line>, who: String, what: &str, spent: Vec<(char, f64)>) {
    let took_ms: f64 = spent.iter().map(|(_, time_ms)| time_ms).sum();
    lines.push(Line { who, what: format!("{what}  {} ms", ms(took_ms)), start_ms: end_ms(lines), spent });
}

fn end_ms(lines: &[Line]) -> f64 {
    lines
        .last()
        .map_or(0.0, |line| line.start_ms + line.spent.iter().map(|(_, time_ms)| time_ms).sum::<f64>())
}

/// The same of a plan with a fork.
pub(super) fn split_timeline(plan: &SplitView, screen: &Screen) -> Vec<String> {
    let title = format!("{} ({}): {} ms", short(plan.id), plan.kind, ms(plan.latency_ms));
    let line = |stage: &SplitStageView| {
        let [first, end] = stage.blocks;
        Line {
            who: stage.label.clone(),
            what: format!("{first}-{}  {} ms", end - 1, ms(stage.takes_ms)),
            start_ms: stage.start_ms,
            spent: vec![(RUNNING, stage.takes_ms)],
        }
    };
    let lines: Vec<Line> = plan.stages.iter().map(line).collect();
    drawn(title, &lines, plan.latency_ms, screen)
}

fn drawn(title: String, lines: &[Line], latency_ms: f64, screen: &Screen) -> Vec<String> {
    let width_of = |of: &dyn Fn(&Line) -> usize| lines.iter().map(of).max().unwrap_or(0);
    let who = width_of(&|line| line.who.chars().count());
    let what = width_of(&|line| line.what.chars().count());
    let room = screen.width().map_or(SCALE, |width| width.saturating_sub(who + what + 6));
    let scale = room.clamp(SCALE_MIN, SCALE);
    let whole_ms = latency_ms.max(f64::MIN_POSITIVE);
    let place = |time_ms: f64| ((time_ms / whole_ms * scale as f64).round() as usize).min(scale);
    let mut shown = vec![title];
    for line in lines {
        let mut drawn = " ".repeat(place(line.start_ms));
        let (mut now_ms, mut used) = (line.start_ms, place(line.start_ms));
        for (sign, time_ms) in &line.spent {
            now_ms += time_ms;
            let until = place(now_ms).max(used);
            drawn.extend(std::iter::repeat_n(*sign, until - used));
            used = until;
        }
        // What is too short to be seen on this scale is there all the same.
        if used == place(line.start_ms) {
            drawn.truncate(scale - 1);
            drawn.push('│');
        }
        shown.push(format!("  {:who$}  {:what$}  {drawn}", line.who, line.what).trim_end().to_owned());
    }
    shown.push(format!(
        "  {:who$}  {:what$}  {RUNNING} runs  {LOADING} loads  {WAITING} waits  {CODING} codes  {MOVING} moves",
        "", ""
    ));
    shown
}

fn lines(plan: &PlanView) -> Vec<Line> {
    let mut lines = Vec::new();
    for (index, edge) in plan.edges.iter().enumerate() {
        if edge.transfer_ms > 0.0 {
            lines.push(moved(plan, edge));
        }
        if let Some(stage) = plan.stages.get(index) {
            let [first, end] = stage.blocks;
            lines.push(Line {
                who: stage.label.clone(),
                what: format!("{first}-{}  {} ms{}", end - 1, ms(stage.compute_ms), taken_over(stage)),
                start_ms: stage.start_ms,
                spent: vec![(WAITING, stage.wait_ms), (LOADING, stage.cold_ms), (RUNNING, stage.compute_ms)],
            });
        }
    }
    lines
}

/// Who else can run a stage at once.
fn taken_over(stage: &StageView) -> String {
    match stage.backups.len() {
        0 => String::new(),
        1 => " (1 backup)".to_owned(),
        count => format!(" ({count} backups)"),
    }
}

fn moved(plan: &PlanView, edge: &EdgeView) -> Line {
    let label = |stage: Option<u16>| {
        let stage = stage.and_then(|stage| plan.stages.get(usize::from(stage)));
        stage.map_or("", |stage| stage.label.as_str())
    };
    let way_ms = (edge.transfer_ms - edge.encode_ms - edge.decode_ms).max(0.0);
    Line {
        who: format!("{} > {}", label(edge.from), label(edge.to)).trim().to_owned(),
        what: format!("{}  {} ms", bytes(edge.bytes), ms(edge.transfer_ms)),
        start_ms: edge.start_ms,
        spent: vec![(CODING, edge.encode_ms), (MOVING, way_ms), (CODING, edge.decode_ms)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::commands::table::Screen;
    use serde_json::json;

    fn plan() -> PlanView {
        let stage = |id: u16, label: &str, blocks: [u16; 2], start_ms: f64, compute_ms: f64| {
            json!({
                "id": id, "node": stormo_protocol::ids::NodeId([1; 32]).to_string(), "label": label, "blocks": blocks, "branch": null,
                "inputs": [], "backups": [], "start_ms": start_ms, "wait_ms": 0.0, "cold_ms": 0.0,
                "compute_ms": compute_ms,
            })
        };
        let edge = |from: Option<u16>, to: Option<u16>, start_ms: f64, transfer_ms: f64| {
            json!({
                "from": from, "to": to, "bytes": 100, "codec": "raw", "loss": 0.0, "start_ms": start_ms,
                "encode_ms": 0.0, "wire_ms": transfer_ms, "decode_ms": 0.0, "transfer_ms": transfer_ms,
            })
        };
        let view = json!({
            "id": "00000000000000000000000000000000", "kind": "chain-2", "variant": "base",
            "stages": [stage(0, "board", [0, 2], 0.0, 30.0), stage(1, "server", [2, 3], 50.0, 10.0)],
            "edges": [
                edge(None, Some(0), 0.0, 0.0), edge(Some(0), Some(1), 30.0, 20.0), edge(Some(1), None, 60.0, 0.001),
            ],
            "result_codec": "raw", "latency_ms": 60.001, "period_ms": 30.0, "energy_j": null, "accuracy": null,
            "loss": 0.0, "bytes": 200, "cold_ms": 0.0,
        });
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn each_line_begins_where_the_one_before_ends() {
        let lines = timeline(&plan(), &Screen::fixed(60));
        let drawn = |line: usize| lines[line].chars().skip(34).collect::<String>();
        assert_eq!(lines.len(), 6);
        assert!(drawn(1).trim_end().chars().all(|sign| sign == RUNNING), "{lines:#?}");
        let begins = |line: usize| drawn(line).chars().position(|sign| sign != ' ').unwrap();
        let ends = |line: usize| drawn(line).trim_end().chars().count();
        assert_eq!(begins(2), ends(1));
        assert_eq!(begins(3), ends(2));
        assert!(lines[4].ends_with('│'), "{lines:#?}");
        assert!(lines[..5].iter().all(|line| line.chars().count() <= 60), "{lines:#?}");
    }

    #[test]
    fn a_request_is_shown_stage_behind_stage_and_what_is_missing_last() {
        let node = NodeId([1; 32]);
        let stage = |id: u16, run_ms: f64| {
            json!({
                "id": id, "node": node.to_string(), "blocks": [id, id + 2], "receive_ms": 1.0, "decode_ms": 0.0,
                "wait_ms": 1.0, "run_ms": run_ms, "encode_ms": 0.0,
            })
        };
        let view = json!({
            "id": "r", "model": "m", "plan_id": "00000000000000000000000000000000", "attempts": 2,
            "latency_ms": 20.0, "planning_ms": 1.0, "input_encode_ms": 0.0, "result_receive_ms": 1.0,
            "result_decode_ms": 0.0, "stages": [stage(0, 6.0), stage(1, 2.0)],
        });
        let request: RequestView = serde_json::from_value(view).unwrap();
        let shown = waterfall(&request, |_| "board".to_owned(), &Screen::fixed(120));
        assert_eq!(shown[0], "request r: 20 ms, the last of 2 attempts");
        assert!(
            shown[2].contains("board  0-1  8.00 ms") && shown[2].matches(RUNNING).count() == 18,
            "{shown:#?}"
        );
        let begins = |line: &str, sign: char| line.chars().position(|letter| letter == sign);
        assert!(begins(&shown[2], RUNNING) < begins(&shown[3], RUNNING), "{shown:#?}");
        assert!(shown[5].contains("ways, hand-overs  6.00 ms"), "{shown:#?}");
    }
}
