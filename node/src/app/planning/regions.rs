//! A model's parallel regions, as planners know them.

use stormo_protocol::model::Manifest;

use super::place;
use crate::plan::{Branch, Region};

/// Those that lie between these cuts, each branch between two of them, and whose branches can be run beside each other.
pub(super) fn regions(manifest: &Manifest, cuts: &[u16]) -> Vec<Region> {
    let (Some(start), Some(end)) = (cuts.first(), cuts.last()) else { return vec![] };
    let bytes_of = |tensors: &[u32]| {
        let bytes = tensors.iter().map(|index| manifest.tensors[*index as usize].byte_length());
        bytes.fold(0_u64, |sum, bytes| sum.saturating_add(bytes.unwrap_or(u64::MAX)))
    };
    let region = |region: &stormo_protocol::model::Region| {
        let (first, behind) = (region.branches.first()?.first, region.branches.last()?.end);
        let crosses = &manifest.cuts[usize::from(behind)].tensors;
        let gone = &manifest.cuts[usize::from(first)].settled;
        let mut past: Vec<u32> = crosses.iter().copied().filter(|tensor| !gone.contains(tensor)).collect();
        let made_by = |branch: &stormo_protocol::model::Branch| manifest.made_by(branch.first..branch.end);
        past.retain(|tensor| !region.branches.iter().any(|branch| made_by(branch).contains(tensor)));
        // Where the origin forks and joins, whoever reads a result that nobody makes sends it back.
        let is_all = first == *start && behind == *end;
        let branch = |branch: &stormo_protocol::model::Branch| {
            // What a branch settles for good goes to the origin, with the other results at the end.
            let mut leaves = made_by(branch);
            leaves.retain(|tensor| crosses.contains(tensor));
            past.retain(|tensor| {
                let is_sent_back = is_all && branch.reads.contains(tensor);
                leaves.extend(is_sent_back.then_some(*tensor));
                !is_sent_back
            });
            Some(Branch {
                first: place(cuts, branch.first)?,
                end: place(cuts, branch.end)?,
                in_bytes: bytes_of(&branch.reads),
                out_bytes: bytes_of(&leaves),
            })
        };
        let branches = region.branches.iter().map(branch).collect::<Option<_>>()?;
        let past_bytes = bytes_of(&past);
        manifest.can_fork(region, &(*start..*end)).then_some(Region { branches, past_bytes })
    };
    manifest.regions.iter().filter_map(region).collect()
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;
    use stormo_protocol::codec::payload::Codec;
    use stormo_protocol::frame::ORIGIN;
    use stormo_protocol::ids::{NodeId, ObjectId};
    use stormo_protocol::model::{self, Cut, ObjectRef};
    use stormo_protocol::plan::Plan;
    use stormo_protocol::profile::Reference;
    use stormo_protocol::tensor::{DType, TensorSpec};

    use super::super::foremost::tests::mesh;
    use super::super::tests::{manifest, variant};
    use super::super::{Candidate, Posed, Question};
    use super::*;
    use crate::ends::{EndTimes, add_ends};
    use crate::plan::{SplitShape, StageShape};

    const NODES: usize = 4;

    /// The first block makes some tensors of the input, 0; each of the branches reads some of them and makes one more; the
    /// last block reads those and some of the former, and makes the output, 1.
    fn branchy(lengths: &[u64], reads: &[Vec<bool>], past: &[bool]) -> Manifest {
        let mut manifest = manifest();
        let spec = |(index, length): (usize, &u64)| TensorSpec {
            name: format!("t{index}"),
            dtype: DType::U8,
            shape: vec![*length],
        };
        manifest.tensors = lengths.iter().enumerate().map(spec).collect();
        (manifest.inputs, manifest.outputs) = (vec![0], vec![1]);
        let blocks = reads.len() as u16 + 2;
        let block = |node: u16| model::Block {
            first_node: u32::from(node),
            end_node: u32::from(node) + 1,
            ..manifest.blocks[0].clone()
        };
        manifest.blocks = (0..blocks).map(block).collect();
        let made = |branch: usize| (2 + past.len() + branch) as u32;
        let first = |is_it: &dyn Fn(usize) -> bool| -> Vec<u32> {
            (0..past.len()).filter(|tensor| is_it(*tensor)).map(|tensor| 2 + tensor as u32).collect()
        };
        let mut cuts = vec![Cut::crossed_by(vec![0])];
        for done in 0..=reads.len() {
            let is_left = |tensor: usize| past[tensor] || reads[done..].iter().any(|reads| reads[tensor]);
            let there = first(&is_left).into_iter().chain((0..done).map(made)).collect();
            cuts.push(Cut::crossed_by(there));
        }
        cuts.push(Cut::crossed_by(vec![1]));
        manifest.cuts = cuts;
        let branch = |(index, reads): (u16, &Vec<bool>)| model::Branch {
            first: index + 1,
            end: index + 2,
            reads: first(&|tensor| reads[tensor]),
        };
        manifest.regions = vec![model::Region { branches: (0u16..).zip(reads).map(branch).collect() }];
        let of_first = |first: u16| (first + 1..=blocks).map(move |end| u64::from(end - first) * 1_000_000);
        let range_ns = (0..blocks).flat_map(of_first).collect();
        manifest.reference = Reference { range_ns, ..Reference::unmeasured(usize::from(blocks)) };
        manifest
    }

    /// What each reads of the first tensors, and the last block too: everybody something, and everything somebody.
    fn any_branchy() -> impl Strategy<Value = Manifest> {
        (2_usize..5, 1_usize..4).prop_flat_map(|(branches, first)| {
            let some = || proptest::collection::vec(any::<bool>(), first);
            let lengths = proptest::collection::vec(1_u64..2000, 2 + first + branches);
            let any = (lengths, proptest::collection::vec(some(), branches), some());
            any.prop_map(move |(lengths, mut reads, past)| {
                reads.iter_mut().filter(|reads| !reads.contains(&true)).for_each(|reads| reads[0] = true);
                for tensor in 0..first {
                    if !past[tensor] && !reads.iter().any(|reads| reads[tensor]) {
                        reads[0][tensor] = true;
                    }
                }
                branchy(&lengths, &reads, &past)
            })
        })
    }

    fn pose(manifest: &Manifest, blocks: Range<u16>) -> Posed {
        let records = mesh(NODES);
        let candidates = records.iter().map(|record| Candidate { record, takes_work: true, late_ms: 0.0 });
        let question = Question {
            manifest,
            variant: variant(),
            blocks,
            candidates: candidates.collect(),
            force_first: false,
            force_last: false,
            accuracy: 1.0,
            min_accuracy: None,
            power: None,
        };
        question.pose()
    }

    /// Bytes of all that stages and the origin send to other nodes.
    fn sent_bytes(manifest: &Manifest, plan: &Plan) -> u64 {
        let host = |stage: u16| -> NodeId {
            plan.stages.get(usize::from(stage)).map_or(plan.origin, |stage| stage.node)
        };
        let stages =
            (0..plan.stages.len() as u16).map(|stage| (stage, manifest.ways(plan, stage).unwrap().outputs));
        let all = stages.chain([(ORIGIN, manifest.ways_from_origin(plan).unwrap())]);
        let moved = all.flat_map(|(from, ways)| ways.into_iter().map(move |way| (from, way)));
        let moved = moved.filter(|(from, way)| host(*from) != host(way.other));
        let tensors = moved.flat_map(|(_, way)| way.tensors);
        tensors.map(|tensor| manifest.tensors[tensor as usize].byte_length().unwrap()).sum()
    }

    proptest! {
        #[test]
        fn a_fork_is_priced_with_all_that_is_sent(
            manifest in any_branchy(),
            hosts in proptest::collection::vec(0..NODES, 8),
            (has_ends, with_ends) in any::<(bool, bool)>(),
            is_alone in any::<(bool, bool)>(),
        ) {
            let mut manifest = manifest;
            if has_ends {
                let times = EndTimes { encoded_bytes: 1000, decode_us: 500, read_us: 200 };
                let card = ObjectRef { id: ObjectId([2; 32]), bytes: 1 };
                add_ends(&mut manifest, card, true, times).unwrap();
            }
            prop_assert_eq!(manifest.check(), Ok(()));
            let region = &manifest.regions[0];
            let (first, end) = (region.branches[0].first, region.branches[region.branches.len() - 1].end);
            let graph = manifest.graph_blocks();
            let mut blocks = if with_ends { 0..manifest.block_count() } else { graph };
            // The origin forks or joins where there is no stage before or behind.
            (blocks.start, blocks.end) = (
                if is_alone.0 { first } else { blocks.start },
                if is_alone.1 { end } else { blocks.end },
            );
            let posed = pose(&manifest, blocks);
            let Some(region) = posed.regions.first() else {
                prop_assume!(false);
                unreachable!()
            };
            let (before, behind) = region.blocks();
            let count = posed.problem.block_count() as u16;
            let mut hosts = hosts.into_iter();
            let mut stage = |first: u16, end: u16| StageShape { node: hosts.next().unwrap_or(0), first, end };
            let shape = SplitShape {
                before: if before > 0 { vec![stage(0, before)] } else { vec![] },
                branches: region.branches.iter().map(|branch| stage(branch.first, branch.end)).collect(),
                after: if behind < count { vec![stage(behind, count)] } else { vec![] },
            };
            prop_assert!(posed.problem.codings.iter().all(Vec::is_empty), "as they are");
            let priced = posed.problem.price_split(region, &shape).unwrap();
            let plan = posed.forked_plan(&priced).unwrap();
            prop_assert!(plan.codecs().all(|codec| codec == Codec::Raw));
            prop_assert_eq!(priced.bytes, sent_bytes(&manifest, &plan), "{:?}", plan);
        }
    }
}
