//! First chapter: the five processes know each other.

use std::time::Duration;

use anyhow::{Context, Result};
use stormo::serve::json::NodeView;
use stormo_testnet::process::class_name;

use super::report::NodeMemory;
use super::{Demo, ORIGIN};
use crate::table::{Align, Table};

/// Until all know each other: some exchanges of a second each.
const KNOWN_MAX: Duration = Duration::from_secs(30);
/// What an idle node without models aims to take at most, ONNX Runtime's library apart.
const IDLE_AIM_MB: f64 = 40.0;

pub(super) fn tell(demo: &mut Demo) -> Result<(Vec<NodeView>, Vec<NodeMemory>)> {
    let count = demo.mesh.nodes().len();
    demo.narrator.title("the mesh");
    demo.mesh.wait_for_nodes(count, KNOWN_MAX)?;
    let memory = memory(demo)?;
    let seen = demo.mesh.node(ORIGIN).client.nodes()?;
    show(demo, &seen, &memory);
    demo.narrator
        .check(true, &format!("each of the {count} nodes knows all others and the links between them"));
    let most = memory.iter().map(|node| megabytes(node.memory.own_pss_bytes)).fold(0.0, f64::max);
    demo.narrator.say(&format!(
        "Memory of idle nodes without ONNX Runtime's library: at most {most:.1} MB (aim: {IDLE_AIM_MB} MB).\n\
         Pages shared by the five count in equal parts (proportional set size); in brackets what a\n\
         node would take at most if it ran alone."
    ));
    Ok((seen, memory))
}

fn memory(demo: &Demo) -> Result<Vec<NodeMemory>> {
    let of_node = |node: &stormo_testnet::process::Node| {
        let memory = node.memory().with_context(|| format!("memory of {}", node.label()))?;
        Ok(NodeMemory { node: node.label().to_owned(), memory })
    };
    demo.mesh.nodes().iter().map(of_node).collect()
}

fn show(demo: &Demo, seen: &[NodeView], memory: &[NodeMemory]) {
    let mut table = Table::new(&[
        ("node", Align::Left),
        ("class", Align::Left),
        ("peer id", Align::Left),
        ("budget", Align::Right),
        ("MFLOP/s", Align::Right),
        ("round trip", Align::Right),
        ("memory in use", Align::Right),
        ("ONNX Runtime's library", Align::Right),
    ]);
    let origin = demo.mesh.node(ORIGIN).id();
    for (node, NodeMemory { memory, .. }) in demo.mesh.nodes().iter().zip(memory) {
        let Some(view) = seen.iter().find(|view| view.id == node.id()) else { continue };
        let link = seen.iter().find(|view| view.id == origin);
        let link = link.and_then(|view| view.links.iter().find(|link| link.peer == node.id()));
        table.row([
            view.label.clone(),
            class_name(view.class).to_owned(),
            format!("…{}", view.id.short()),
            format!("{} MiB", view.memory_budget_bytes >> 20),
            format!("{:.0}", view.mflops),
            link.map_or_else(|| "-".to_owned(), |link| format!("{:.2} ms", link.round_trip_ms)),
            both(memory.own_pss_bytes, memory.own_rss_bytes),
            both(memory.library_pss_bytes, memory.library_rss_bytes),
        ]);
    }
    demo.narrator.table(&table);
}

fn both(pss_bytes: u64, rss_bytes: u64) -> String {
    format!("{:.1} MB ({:.1})", megabytes(pss_bytes), megabytes(rss_bytes))
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
