//! The screen on a terminal of memory: what is seen at which size.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};
use stormo_protocol::ids::NodeId;

use super::*;
use crate::app::commands::top::state::{Key, News, Snapshot};
use crate::serve::json::{EventView, NodeNamed, What};

fn node(number: u8, label: &str, load: f64, state: &str) -> Value {
    json!({
        "id": NodeId([number; 32]).to_string(), "label": label, "class": "edge", "is_self": number == 1,
        "state": state, "usable": state == "usable", "age_ms": 300 * u64::from(number), "addresses": [],
        "cores": 2, "mflops": 9000.0, "memory_budget_bytes": 1_000_000, "memory_used_bytes": 250_000,
        "utilisation": load,
        "hosted": [{"model": "digits", "version": 1, "variant": "base", "blocks": [0, 5], "time_ms": 1.5, "queue_wait_ms": 0.0}],
        "links": [{"peer": NodeId([2; 32]).to_string(), "round_trip_ms": 0.5, "bytes_per_second": 12_000_000}],
    })
}

fn snapshot(nodes: Vec<Value>) -> Snapshot {
    let own = nodes[0].clone();
    let deployment = json!({
        "name": "digits", "version": 1, "id": "00000000000000000000000000000000",
        "publisher": NodeId([1; 32]).to_string(), "state": "ready", "message": null, "hosts": [],
        "health": {"state": "degraded", "replicas": 2, "cover": [{"variant": "base", "blocks": [0, 5], "nodes": 1}]},
    });
    let requests = json!({
        "under_way": 1, "answered": 10, "failed": 2, "window_ms": 10_000, "answered_per_s": 1.0,
        "failed_per_s": 0.2, "p50_ms": 3.25, "p99_ms": 41.0,
    });
    Snapshot {
        nodes: nodes.into_iter().map(|node| serde_json::from_value(node).unwrap()).collect(),
        deployments: vec![serde_json::from_value(deployment).unwrap()],
        requests: serde_json::from_value(requests).unwrap(),
        own: serde_json::from_value(own).unwrap(),
    }
}

fn top() -> Top {
    let mut top = Top::new("http://127.0.0.1:8000");
    let nodes =
        vec![node(1, "camera", 0.25, "usable"), node(2, "nas", 1.0, "usable"), node(3, "attic", 0.0, "lost")];
    top.hear(News::Snapshot(Box::new(snapshot(nodes))));
    top
}

/// The lines that a terminal of this size shows.
fn shown(top: &Top, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| frame.render_widget(top, frame.area())).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn line_with<'a>(lines: &'a [String], start: &str) -> &'a str {
    let found = lines.iter().find(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("no line begins with `{start}`:\n{}", lines.join("\n")))
}

#[test]
fn nodes_deployments_requests_and_events_are_seen() {
    let mut top = top();
    let what = What::NodeLost(NodeNamed { node: NodeId([3; 32]), label: "attic".into() });
    top.hear(News::Event(EventView { sequence: 1, unix_ms: 3_661_000, what }));
    top.hear(News::Missed(7));
    let lines = shown(&top, 120, 30);
    assert!(
        lines[0].starts_with("stormo top, http://127.0.0.1:8000: 3 nodes, 2 usable, by name"),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains("p50 3.25 ms, p99 41 ms, 1 under way, 10 answered, 2 failed"), "{}", lines[1]);
    let nas = line_with(&lines, "nas ");
    assert!(
        nas.contains("usable") && nas.contains("████████ 100 %") && nas.contains("██░░░░░░  25 %"),
        "{nas}"
    );
    assert!(nas.contains("0.50 ms") && nas.contains("12.0 MB/s") && nas.contains("digits 0-4"), "{nas}");
    assert!(line_with(&lines, "attic ").contains("lost"));
    assert!(
        line_with(&lines, "digits ").contains("degraded") && line_with(&lines, "digits ").contains("0-4: 1")
    );
    assert_eq!(line_with(&lines, "01:01:01Z"), "01:01:01Z attic is lost");
    assert_eq!(line_with(&lines, "7 events"), "7 events were not read in time");
}

#[test]
fn requests_that_went_well_are_no_events() {
    let mut top = top();
    let (model, id) = ("digits".to_owned(), "0123456789".to_owned());
    let ended = |attempts| {
        let (model, id) = (model.clone(), id.clone());
        What::RequestEnded { model, id, latency_ms: 2.0, attempts }
    };
    let begun = What::RequestBegun { model: model.clone(), id: id.clone() };
    for what in [begun, ended(1), ended(2)] {
        top.hear(News::Event(EventView { sequence: 1, unix_ms: 0, what }));
    }
    assert_eq!(top.events, ["00:00:00Z request 012345 to digits: 2.0 ms, 2 attempts"]);
}

#[test]
fn what_is_not_as_wished_is_seen() {
    let mut closed = node(2, "nas", 0.0, "usable");
    closed["offer"] = json!({"computes": true, "stores": true, "open": false});
    let mut all = snapshot(vec![node(1, "camera", 0.0, "usable"), closed]);
    all.deployments[0].message = Some("block 0 was placed on `nas`\nmore".to_owned());
    let mut top = top();
    top.hear(News::Snapshot(Box::new(all)));
    let lines = shown(&top, 100, 24);
    let nas = line_with(&lines, "nas ");
    assert!(nas.contains("closed") && !nas.contains("usable"), "{nas}");
    let digits = line_with(&lines, "digits ");
    assert!(digits.ends_with("0-4: 1; block 0 was placed on `nas`"), "{digits}");
}

#[test]
fn keys_order_select_and_help() {
    let mut top = top();
    let order = |top: &Top| top.nodes().iter().map(|node| node.label.clone()).collect::<Vec<_>>();
    assert_eq!(order(&top), ["attic", "camera", "nas"]);
    top.press(Key::Sort);
    assert_eq!(order(&top), ["nas", "camera", "attic"]);
    // The node that the user is at is told of; the ends hold.
    (0..5).for_each(|_| top.press(Key::Down));
    assert!(line_with(&shown(&top, 100, 30), "attic 12D3").contains("2 cores"));
    (0..5).for_each(|_| top.press(Key::Up));
    assert!(line_with(&shown(&top, 100, 30), "links").contains("nas 0.50 ms, 12.0 MB/s"));
    top.press(Key::Help);
    assert!(top.shows_help() && shown(&top, 100, 30).iter().any(|line| line.contains("q, Esc")));
}

#[test]
fn a_silent_node_is_told_and_the_last_picture_stays() {
    let mut top = top();
    top.hear(News::Silent("no node answers at http://127.0.0.1:8000: refused\nmore".into()));
    let lines = shown(&top, 100, 24);
    assert!(lines[1].starts_with("trying on: no node answers") && !lines[1].contains("more"), "{}", lines[1]);
    assert!(line_with(&lines, "nas ").contains("usable"));
    let next = snapshot(vec![node(1, "camera", 0.5, "usable")]);
    top.hear(News::Snapshot(Box::new(next)));
    assert!(top.silent.is_none() && top.events[0].contains("answers again"));
}

#[test]
fn every_size_is_drawn_and_fifty_nodes_too() {
    let mut top = top();
    let many = (1..=50).map(|number| node(number, &format!("n{number:02}"), 0.5, "usable")).collect();
    top.hear(News::Snapshot(Box::new(snapshot(many))));
    top.press(Key::Help);
    for width in (1..=140).step_by(7) {
        for height in 1..=60 {
            shown(&top, width, height);
        }
    }
    top.press(Key::Help);
    // The node that the user is at is in sight.
    (0..49).for_each(|_| top.press(Key::Down));
    line_with(&shown(&top, 80, 24), "n50 ");
    assert!(line_with(&shown(&top, 40, 6), "n50 ").contains("usable"));
}
