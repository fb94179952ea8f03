//! `stormo status`: who is there, what they host, how far they are.

use serde_json::json;

use super::table::{bytes, ms, table};
use super::{say, say_json};
use crate::app::cli::StatusArgs;
use crate::app::client::{Client, CommandError};
use crate::serve::json::{DeploymentState, DeploymentsView, NodeView, NodesView};

pub(super) fn run(args: &StatusArgs) -> Result<(), CommandError> {
    let client = Client::new(&args.api)?;
    let nodes: NodesView = client.get("/v1/nodes")?;
    let deployments: DeploymentsView = client.get("/v1/deployments")?;
    if args.api.json {
        return say_json(&json!({ "nodes": nodes.nodes, "deployments": deployments.deployments }));
    }
    let own = nodes.nodes.iter().find(|node| node.is_self);
    let rows: Vec<Vec<String>> = nodes.nodes.iter().map(|node| node_row(node, own)).collect();
    say(table(
        &["NODE", "PEER", "CLASS", "HEARD", "ROUND TRIP", "RATE", "MEMORY", "GFLOP/s", "BUSY", "HOSTS"],
        &rows,
    ));
    if deployments.deployments.is_empty() {
        say("\nNo model is deployed. `stormo deploy NAME MODEL.onnx` brings one in.");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = deployments
        .deployments
        .iter()
        .map(|deployment| {
            let state = match deployment.state {
                DeploymentState::Ready => "ready",
                DeploymentState::Loading => "loading",
                DeploymentState::Failed => "failed",
            };
            let mut hosts: Vec<&str> = deployment.hosts.iter().map(|host| host.label.as_str()).collect();
            hosts.dedup();
            vec![deployment.name.clone(), deployment.version.to_string(), state.to_owned(), hosts.join(", ")]
        })
        .collect();
    say(format!("\n{}", table(&["MODEL", "VERSION", "STATE", "HOSTS"], &rows)));
    Ok(())
}

fn node_row(node: &NodeView, own: Option<&NodeView>) -> Vec<String> {
    let link = own.and_then(|own| own.links.iter().find(|link| link.peer == node.id));
    let heard = match (node.is_self, node.usable) {
        (true, _) => "itself".to_owned(),
        (false, true) => format!("{:.1} s ago", node.age_ms as f64 / 1000.0),
        (false, false) if node.leaving => "left".to_owned(),
        (false, false) => format!("{:.0} s ago, left out", node.age_ms as f64 / 1000.0),
    };
    let hosted: Vec<String> = node
        .hosted
        .iter()
        .map(|hosted| {
            let [first, end] = hosted.blocks;
            let (time, p95) = (ms(hosted.time_ms), ms(hosted.p95_ms));
            format!("{} {} {first}-{} ({time} ms, p95 {p95})", hosted.model, hosted.variant, end - 1)
        })
        .collect();
    let rate = link.and_then(|link| link.bytes_per_second);
    vec![
        node.label.clone(),
        node.id.short(),
        format!("{:?}", node.class).to_lowercase(),
        heard,
        link.map(|link| format!("{} ms", ms(link.round_trip_ms))).unwrap_or_default(),
        rate.map(|rate| format!("{}/s", bytes(rate))).unwrap_or_default(),
        format!("{} of {}", bytes(node.memory_used_bytes), bytes(node.memory_budget_bytes)),
        format!("{:.0}", node.mflops / 1000.0),
        format!("{:.0} %", node.utilisation * 100.0),
        hosted.join(", "),
    ]
}
