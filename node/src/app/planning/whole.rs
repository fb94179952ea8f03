//! Who could host all of a model, found in time that grows with the number of nodes: of each only its links to and from the
//! origin matter.

use stormo_protocol::ids::NodeId;

use super::Question;
use crate::plan::StageShape;

/// Nodes that are looked at together: links are posed between each two of them.
const TOGETHER_MAX: usize = 64;

impl Question<'_> {
    /// The candidates that could host all blocks in the memory that is left of what they have free, those first that answer
    /// soonest once they have loaded them.
    pub(in crate::app) fn whole_hosts(&self, left_bytes: impl Fn(NodeId, u64) -> u64) -> Vec<NodeId> {
        let Some((own, others)) = self.candidates.split_first() else { return vec![] };
        let mut found: Vec<(f64, NodeId)> = vec![];
        let turns = others.chunks(TOGETHER_MAX).chain(others.is_empty().then_some(others));
        for (turn, others) in turns.enumerate() {
            let candidates = [&[*own], others].concat();
            let mut posed = Self { candidates, blocks: self.blocks.clone(), ..*self }.pose();
            posed.leave(&left_bytes);
            let end = posed.problem.block_count() as u16;
            for node in usize::from(turn > 0)..posed.nodes.len() {
                let stages = vec![StageShape { node, first: 0, end }];
                if let Ok(priced) = posed.problem.price(&posed.problem.lossless(stages)) {
                    found.push((priced.latency_ms - priced.cold_ms, posed.nodes[node]));
                }
            }
        }
        found.sort_by(|one, other| one.0.total_cmp(&other.0));
        found.into_iter().map(|(_, node)| node).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use stormo_protocol::profile::Speeds;

    use super::super::Candidate;
    use super::super::foremost::tests::{MEMORY_BYTES, mesh};
    use super::super::tests::{manifest, variant};
    use super::*;

    #[test]
    fn hosts_of_all_are_those_of_a_problem_over_everybody() {
        let manifest = manifest();
        for nodes in [1, 2, TOGETHER_MAX + 1, 1000] {
            let mut records = mesh(nodes);
            for (index, record) in records.iter_mut().enumerate() {
                record.machine.speeds = Speeds::new([1.0 + (index * 37 % 101) as f64; 5]);
                record.machine.memory_budget_bytes = if index % 7 == 3 { 1 } else { MEMORY_BYTES };
            }
            let question = Question {
                manifest: &manifest,
                variant: variant(),
                blocks: 0..2,
                candidates: records
                    .iter()
                    .enumerate()
                    .map(|(index, record)| Candidate { record, takes_work: index % 5 != 1, late_ms: 0.0 })
                    .collect(),
                force_first: false,
                force_last: false,
                accuracy: 1.0,
                min_accuracy: None,
                power: None,
            };
            let is_promised = |node: NodeId| node.0[7] % 11 == 5;
            let left = |node: NodeId, free: u64| if is_promised(node) { 0 } else { free };
            let began = Instant::now();
            let found = question.whole_hosts(left);
            let found_ms = began.elapsed().as_secs_f64() * 1000.0;
            let began = Instant::now();
            let mut posed = question.pose();
            posed.leave(left);
            let mut expected: Vec<(f64, NodeId)> = (0..nodes)
                .filter_map(|node| {
                    let stages = vec![StageShape { node, first: 0, end: 2 }];
                    let priced = posed.problem.price(&posed.problem.lossless(stages)).ok()?;
                    Some((priced.latency_ms - priced.cold_ms, posed.nodes[node]))
                })
                .collect();
            expected.sort_by(|one, other| one.0.total_cmp(&other.0));
            let all_ms = began.elapsed().as_secs_f64() * 1000.0;
            println!("{nodes} nodes: in turn {found_ms:.2} ms, over all {all_ms:.2} ms");
            assert_eq!(found, expected.into_iter().map(|(_, node)| node).collect::<Vec<_>>());
        }
    }
}
