//! `stormo status`: who is there and how fresh that is, what they host, how far they are, how deployments do.

use std::collections::BTreeMap;

use serde_json::json;
use stormo_protocol::ids::NodeId;

use super::table::{Cell, Column, Screen, Tone, bytes, fitted, ms, plain, toned};
use super::{say, say_json};
use crate::app::cli::StatusArgs;
use crate::app::client::{Client, CommandError};
use crate::serve::json::{
    DeploymentView, DeploymentsView, Health, HostedView, NodeState, NodeView, NodesView, RequestsView,
    TrafficView,
};

/// Nodes up to which each part that they host has a line of its own.
const NODES_IN_DETAIL_MAX: usize = 12;

pub(super) fn run(args: &StatusArgs) -> Result<(), CommandError> {
    let client = Client::new(&args.api)?;
    let mut nodes: NodesView = client.get(if args.fresh { "/v1/nodes?fresh=true" } else { "/v1/nodes" })?;
    let deployments: DeploymentsView = client.get("/v1/deployments")?;
    let requests: RequestsView = client.get("/v1/requests")?;
    let own: NodeView = client.get("/v1/node")?;
    nodes.nodes.sort_by(|one, other| {
        (!one.is_self, &one.label, one.id).cmp(&(!other.is_self, &other.label, other.id))
    });
    if args.api.json {
        return say_json(&json!({
            "nodes": nodes.nodes,
            "deployments": deployments.deployments,
            "requests": requests,
            "traffic": own.traffic,
        }));
    }
    let all = Status { nodes: &nodes.nodes, deployments: &deployments.deployments, requests, own: &own };
    say(all.show(&Screen::of_stdout()));
    Ok(())
}

/// All that is shown.
struct Status<'a> {
    nodes: &'a [NodeView],
    deployments: &'a [DeploymentView],
    requests: RequestsView,
    own: &'a NodeView,
}

impl Status<'_> {
    fn show(&self, screen: &Screen) -> String {
        let mut parts = vec![self.summary(), self.nodes_table(screen)];
        if self.nodes.len() <= NODES_IN_DETAIL_MAX && self.nodes.iter().any(|node| !node.hosted.is_empty()) {
            parts.push(self.hosted_table(screen));
        }
        parts.push(match self.deployments {
            [] => "No model is deployed. `stormo deploy NAME MODEL.onnx` brings one in.".to_owned(),
            some => deployments_table(some, screen),
        });
        parts.join("\n\n")
    }

    fn summary(&self) -> String {
        let count = |state| self.nodes.iter().filter(|node| node.state == state).count();
        let mut said = format!("{} node{}", self.nodes.len(), if self.nodes.len() == 1 { "" } else { "s" });
        for (state, word) in [
            (NodeState::Usable, "usable"),
            (NodeState::Suspected, "suspected"),
            (NodeState::Leaving, "leaving"),
            (NodeState::Lost, "lost"),
        ] {
            let nodes = count(state);
            if nodes > 0 {
                said.push_str(&format!(", {nodes} {word}"));
            }
        }
        let RequestsView { under_way, answered, failed, answered_per_s, p50_ms, p99_ms, .. } = self.requests;
        said.push_str(&format!("; requests at `{}`: {under_way} under way", self.own.label));
        if answered + failed > 0 {
            said.push_str(&format!(", {answered} answered, {failed} failed"));
        }
        if let (Some(p50), Some(p99)) = (p50_ms, p99_ms) {
            said.push_str(&format!("; {answered_per_s:.1} a second, {} ms (99 %: {})", ms(p50), ms(p99)));
        }
        said
    }

    fn nodes_table(&self, screen: &Screen) -> String {
        const COLUMNS: [Column<'_>; 14] = [
            Column::always("NODE"),
            Column::with_room("PEER", 9),
            Column::with_room("CLASS", 8),
            Column::always("STATE"),
            Column::with_room("HEARD", 1),
            Column::with_room("MEMORY", 2),
            Column::with_room("FREE", 7),
            Column::with_room("GFLOP/s", 10),
            Column::with_room("LOAD", 3),
            Column::with_room("ROUND TRIP", 4),
            Column::with_room("RATE", 5),
            Column::with_room("SENT, RECEIVED", 6),
            Column::with_room("DOMAINS", 11),
            Column::always("HOSTS"),
        ];
        let traffic: BTreeMap<NodeId, &TrafficView> =
            self.own.traffic.iter().map(|with| (with.peer, with)).collect();
        let row = |node: &NodeView| {
            let link = self.own.links.iter().find(|link| link.peer == node.id);
            let moved = traffic.get(&node.id);
            vec![
                plain(node.label.clone()),
                plain(node.id.short()),
                plain(format!("{:?}", node.class).to_lowercase()),
                state(node),
                plain(if node.is_self { "itself".to_owned() } else { ago(node.age_ms) }),
                plain(bytes(node.memory_used_bytes)),
                plain(bytes(node.memory_budget_bytes.saturating_sub(node.memory_used_bytes))),
                plain(format!("{:.0}", node.mflops / 1000.0)),
                plain(format!("{:.0} %", node.utilisation * 100.0)),
                plain(match (link, node.round_trip_ms) {
                    (Some(link), _) => format!("{} ms", ms(link.round_trip_ms)),
                    // By coordinates: nobody measured it.
                    (None, Some(foretold_ms)) => format!("~{} ms", ms(foretold_ms)),
                    (None, None) => String::new(),
                }),
                plain(
                    link.and_then(|link| link.bytes_per_second)
                        .map(|rate| format!("{}/s", bytes(rate)))
                        .unwrap_or_default(),
                ),
                plain(
                    moved
                        .map(|moved| format!("{}, {}", bytes(moved.sent_bytes), bytes(moved.received_bytes)))
                        .unwrap_or_default(),
                ),
                plain(node.domains.join(" ")),
                plain(hosts_in_short(&node.hosted)),
            ]
        };
        fitted(&COLUMNS, &self.nodes.iter().map(row).collect::<Vec<_>>(), screen)
    }

    fn hosted_table(&self, screen: &Screen) -> String {
        const COLUMNS: [Column<'_>; 8] = [
            Column::always("HOSTED BY"),
            Column::always("MODEL"),
            Column::with_room("VERSION", 4),
            Column::with_room("VARIANT", 1),
            Column::always("BLOCKS"),
            Column::always("RUN"),
            Column::with_room("95 %", 2),
            Column::with_room("WAIT", 3),
        ];
        let rows = self.nodes.iter().flat_map(|node| {
            let gone = node.state != NodeState::Usable;
            // What was taken back while a node was away is nothing to look for there.
            let shown = node.hosted.iter().filter(move |hosted| !gone || hosted.version > 0);
            shown.map(move |hosted| {
                vec![
                    if gone {
                        toned(format!("{} (gone)", node.label), Tone::Bad)
                    } else {
                        plain(node.label.clone())
                    },
                    plain(hosted.model.clone()),
                    plain(hosted.version.to_string()),
                    plain(hosted.variant.clone()),
                    plain(blocks(hosted.blocks)),
                    plain(format!("{} ms", ms(hosted.time_ms))),
                    plain(format!("{} ms", ms(hosted.p95_ms))),
                    plain(format!("{} ms", ms(hosted.queue_wait_ms))),
                ]
            })
        });
        fitted(&COLUMNS, &rows.collect::<Vec<_>>(), screen)
    }
}

fn deployments_table(deployments: &[DeploymentView], screen: &Screen) -> String {
    const COLUMNS: [Column<'_>; 6] = [
        Column::always("MODEL"),
        Column::with_room("VERSION", 2),
        Column::always("STATE"),
        Column::with_room("WISHED", 1),
        Column::always("BLOCKS ON NODES"),
        Column::with_room("STEWARD", 3),
    ];
    let rows = deployments.iter().map(|deployment| {
        let health = deployment.health.as_ref();
        let cover = health.map(cover_in_short).unwrap_or_default();
        vec![
            plain(deployment.name.clone()),
            plain(deployment.version.to_string()),
            match health.and_then(|health| health.state) {
                Some(Health::Ready) => toned("ready", Tone::Good),
                Some(Health::Degraded) => toned("degraded", Tone::Doubtful),
                Some(Health::Down) => toned("down", Tone::Bad),
                None => toned("description missing", Tone::Doubtful),
            },
            plain(health.map(|health| health.replicas.to_string()).unwrap_or_default()),
            plain(cover),
            plain(deployment.steward.as_ref().map(|steward| steward.label.clone()).unwrap_or_default()),
        ]
    });
    let mut lines = vec![fitted(&COLUMNS, &rows.collect::<Vec<_>>(), screen)];
    for DeploymentView { name, message, steward, .. } in deployments {
        lines
            .extend(message.iter().flat_map(|message| message.lines()).map(|line| format!("{name}: {line}")));
        lines.extend(
            steward.iter().map(|steward| format!("{name}: steward is {}: {}", steward.label, steward.why)),
        );
    }
    lines.join("\n")
}

fn state(node: &NodeView) -> Cell {
    let (word, tone) = state_in_short(node);
    let usable = if node.state == NodeState::Usable && tone != Tone::Good { "usable, " } else { "" };
    toned(format!("{usable}{word}"), tone)
}

/// A node's state in a word or two, and how good that is.
pub(super) fn state_in_short(node: &NodeView) -> (&'static str, Tone) {
    match node.state {
        NodeState::Usable if !node.offer.open => ("closed", Tone::Doubtful),
        NodeState::Usable if !node.offer.computes => ("asks only", Tone::Doubtful),
        NodeState::Usable => ("usable", Tone::Good),
        NodeState::Suspected => ("suspected", Tone::Doubtful),
        NodeState::Leaving => ("leaving", Tone::Doubtful),
        NodeState::Lost => ("lost", Tone::Bad),
    }
}

/// How long ago it was heard of.
pub(super) fn ago(age_ms: u64) -> String {
    match age_ms {
        0..10_000 => format!("{:.1} s ago", age_ms as f64 / 1000.0),
        10_000..120_000 => format!("{} s ago", age_ms / 1000),
        _ => format!("{} min ago", age_ms / 60_000),
    }
}

/// Blocks as tables have them: the last one included.
pub(super) fn blocks([first, end]: [u16; 2]) -> String {
    match end.saturating_sub(1) {
        last if last <= first => first.to_string(),
        last => format!("{first}-{last}"),
    }
}

/// What a node hosts, in one cell; ranges of a model together.
pub(super) fn hosts_in_short(hosted: &[HostedView]) -> String {
    let mut models: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for part in hosted {
        models.entry((&part.model, &part.variant)).or_default().push(blocks(part.blocks));
    }
    let models = models.iter().map(|((model, variant), parts)| match *variant {
        "" | "base" => format!("{model} {}", parts.join("+")),
        variant => format!("{model}/{variant} {}", parts.join("+")),
    });
    models.collect::<Vec<_>>().join(", ")
}

/// On how many nodes which blocks are; the variants' labels only where there are several.
pub(super) fn cover_in_short(health: &crate::serve::json::HealthView) -> String {
    let first = health.cover.first().map(|cover| cover.variant.as_str());
    let several = health.cover.iter().any(|cover| Some(cover.variant.as_str()) != first);
    let parts = health.cover.iter().map(|cover| {
        let variant = if several { format!("{} ", cover.variant) } else { String::new() };
        format!("{variant}{}: {}", blocks(cover.blocks), cover.nodes)
    });
    parts.collect::<Vec<_>>().join(", ")
}
