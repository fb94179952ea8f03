//! Sixth chapter: tensors go from peer to peer, not through the origin.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use stormo::serve::json::{PlanView, TensorView};
use stormo_protocol::ids::NodeId;
use stormo_testnet::client::ApiError;

use super::report::Hop;
use super::{Demo, MODEL, ORIGIN};
use crate::table::{Align, Table};

/// What frames may add to the tensors of an edge: header, times of the stages, descriptors.
const FRAME_BYTES_MAX: u64 = 1024;

/// Sender and receiver.
type Pair = (NodeId, NodeId);
/// Bytes from node to node.
type Bytes = BTreeMap<Pair, u64>;

pub(super) fn tell(demo: &mut Demo, input: &TensorView, plan: &PlanView) -> Result<Vec<Hop>> {
    demo.narrator.title("who sent what to whom in one request of that plan");
    let client = demo.mesh.node(ORIGIN).client.clone();
    let image = demo.images.first().context("no images")?;
    let planned = planned(demo, plan);
    let before = moved(demo)?;
    client.infer(MODEL, &image.request(input).by_plan(plan.id))?;
    let hops = hops(demo, &planned, &since(&before, &moved(demo)?));
    show(demo, &hops);
    let is_as_planned =
        hops.iter().all(|hop| hop.planned_bytes > 0 && hop.sent_bytes <= hop.planned_bytes + FRAME_BYTES_MAX);
    demo.narrator.check(
        is_as_planned,
        &format!("tensors went straight from stage to stage; {ORIGIN} moved only what its own edges carry"),
    );
    Ok(hops)
}

/// What the plan's edges carry, from node to node, along the plan.
fn planned(demo: &Demo, plan: &PlanView) -> Vec<(Pair, u64)> {
    let origin = demo.mesh.node(ORIGIN).id();
    let host = |id: Option<u16>| {
        let stage = plan.stages.iter().find(|stage| Some(stage.id) == id);
        stage.map_or(origin, |stage| stage.node)
    };
    let mut planned: Vec<(Pair, u64)> = Vec::new();
    for edge in &plan.edges {
        let pair = (host(edge.from), host(edge.to));
        match planned.iter_mut().find(|(known, _)| *known == pair) {
            _ if pair.0 == pair.1 => {}
            Some((_, bytes)) => *bytes += edge.bytes,
            None => planned.push((pair, edge.bytes)),
        }
    }
    planned
}

/// What went from node to node since they started, as the receivers count it: they do so before any
/// answer is given, a sender perhaps a moment after, and then in the middle of the next request.
fn moved(demo: &Demo) -> Result<Bytes, ApiError> {
    let mut bytes = Bytes::new();
    for node in demo.mesh.nodes() {
        let traffic = node.client.node()?.traffic;
        bytes.extend(traffic.iter().map(|with| ((with.peer, node.id()), with.received_bytes)));
    }
    Ok(bytes)
}

fn since(before: &Bytes, now: &Bytes) -> Bytes {
    let grown = now.iter().map(|(hop, bytes)| (*hop, bytes - before.get(hop).unwrap_or(&0)));
    grown.filter(|(_, bytes)| *bytes > 0).collect()
}

/// The plan's hops, then those that should not be.
fn hops(demo: &Demo, planned: &[(Pair, u64)], sent: &Bytes) -> Vec<Hop> {
    let is_planned = |pair: &Pair| planned.iter().any(|(known, _)| known == pair);
    let others = sent.keys().filter(|pair| !is_planned(pair)).map(|pair| (*pair, 0));
    let hop = |(pair, planned_bytes): (Pair, u64)| Hop {
        from: demo.label(pair.0),
        to: demo.label(pair.1),
        planned_bytes,
        sent_bytes: sent.get(&pair).copied().unwrap_or(0),
    };
    planned.iter().copied().chain(others).map(hop).collect()
}

fn show(demo: &Demo, hops: &[Hop]) {
    let mut table = Table::new(&[
        ("from", Align::Left),
        ("to", Align::Left),
        ("tensors, by plan", Align::Right),
        ("tensors, as counted", Align::Right),
    ]);
    for hop in hops {
        table.row([
            hop.from.clone(),
            hop.to.clone(),
            format!("{} bytes", hop.planned_bytes),
            format!("{} bytes", hop.sent_bytes),
        ]);
    }
    demo.narrator.table(&table);
}
