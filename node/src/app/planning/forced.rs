//! What it takes that a model begins or ends where a request entered: at least one block of its graph runs there. What
//! decodes an image or reads an answer is none.

use std::ops::Range;

use stormo_protocol::ids::NodeId;
use stormo_protocol::model::Manifest;
use stormo_protocol::plan::Plan;

/// The cuts that plans over these blocks may have, first and last included. Where an end is forced, there is none between
/// what decodes or reads and the graph: who runs that runs the block beside it too.
pub(super) fn cuts(manifest: &Manifest, blocks: &Range<u16>, [first, last]: [bool; 2]) -> Vec<u16> {
    let graph = manifest.graph_blocks();
    let is_before = |cut: u16| blocks.start < cut && cut <= graph.start;
    let is_behind = |cut: u16| graph.end <= cut && cut < blocks.end;
    let may_be = |cut: &u16| !(first && is_before(*cut) || last && is_behind(*cut));
    (blocks.start..=blocks.end).filter(may_be).collect()
}

/// Who else than a plan's origin runs what a forced first (or, if not `is_first`, last) end wants there.
pub(in crate::app) fn end_elsewhere(plan: &Plan, graph: &Range<u16>, is_first: bool) -> Option<NodeId> {
    let holds = |block: u16| move |blocks: Range<u16>| blocks.contains(&block);
    let stage_of = |block: u16| plan.stages.iter().position(|stage| holds(block)(stage.blocks()));
    let covered = plan.stages.first()?.first..plan.stages.last()?.end;
    // Branches beside that block see what it sees.
    let stages = if is_first {
        let place = stage_of(graph.start.max(covered.start))?;
        0..usize::from(plan.beside(place as u16).end)
    } else {
        let place = stage_of(graph.end.min(covered.end).saturating_sub(1))?;
        usize::from(plan.beside(place as u16).start)..plan.stages.len()
    };
    plan.stages.get(stages)?.iter().map(|stage| stage.node).find(|node| *node != plan.origin)
}

#[cfg(test)]
mod tests {
    use stormo_protocol::codec::payload::Codec;
    use stormo_protocol::ids::ObjectId;
    use stormo_protocol::model::ObjectRef;
    use stormo_protocol::plan::Stage;

    use super::super::foremost::tests::mesh;
    use super::super::tests::{manifest, variant};
    use super::super::{Candidate, Posed, Question};
    use super::*;
    use crate::app::calls::{PlanLimits, PlannerName};
    use crate::app::choosing::{Chosen, NotChosen, choose};
    use crate::ends::{EndTimes, add_ends};
    use crate::plan::instance::Instance;
    use crate::plan::{EXPANSIONS_DEFAULT, Method, PlanShape, Search, alternatives};

    const BOTH: [bool; 2] = [true, true];

    /// Decodes, runs two blocks, and reads.
    fn with_ends() -> Manifest {
        let mut manifest = manifest();
        let times = EndTimes { encoded_bytes: 1000, decode_us: 500, read_us: 200 };
        add_ends(&mut manifest, ObjectRef { id: ObjectId([2; 32]), bytes: 1 }, true, times).unwrap();
        manifest.check().unwrap();
        manifest
    }

    fn pose(manifest: &Manifest, blocks: Range<u16>, [force_first, force_last]: [bool; 2]) -> Posed {
        // The second is four times as quick, and near.
        let records = mesh(2);
        let question = Question {
            manifest,
            variant: variant(),
            blocks,
            candidates: records
                .iter()
                .map(|record| Candidate { record, takes_work: true, late_ms: 0.0 })
                .collect(),
            force_first,
            force_last,
            accuracy: 1.0,
            min_accuracy: None,
            power: None,
        };
        question.pose()
    }

    /// The graph's blocks at the requester, by a plan over decoding, two of them, and reading.
    fn here(posed: &Posed, shape: &PlanShape) -> Vec<u16> {
        let plan = posed.plan(shape);
        let own = plan.stages.iter().filter(|stage| stage.node == plan.origin);
        own.flat_map(Stage::blocks).filter(|block| (1..3).contains(block)).collect()
    }

    #[test]
    fn a_forced_end_has_a_block_that_computes_whatever_plans() {
        let manifest = with_ends();
        let free = pose(&manifest, 0..4, [false; 2]);
        let best = |posed: &Posed, planner| {
            let posed = [posed.clone()];
            choose(&posed, &PlanLimits::default(), planner).map(|Chosen { found, .. }| found.priced.shape)
        };
        assert!(here(&free, &best(&free, PlannerName::Greedy).unwrap()).is_empty());
        for (forced, wanted) in [([true, false], &[1][..]), ([false, true], &[2][..]), (BOTH, &[1, 2][..])] {
            let posed = pose(&manifest, 0..4, forced);
            for planner in [PlannerName::Greedy, PlannerName::Exact, PlannerName::Ilp] {
                let shape = best(&posed, planner).unwrap();
                assert_eq!(here(&posed, &shape), wanted, "{forced:?} by {planner:?}");
            }
            let all = alternatives(&posed.problem, EXPANSIONS_DEFAULT).unwrap();
            for listed in all {
                let here = here(&posed, &listed.priced.shape);
                assert!(wanted.iter().all(|block| here.contains(block)), "{forced:?}: {listed:?}");
            }
            let limits = PlanLimits { max_latency_ms: Some(1e-6), ..PlanLimits::default() };
            let closest = match choose(std::slice::from_ref(&posed), &limits, PlannerName::Greedy) {
                Err(NotChosen::Limits { closest, .. }) => closest,
                other => panic!("{other:?}"),
            };
            assert_eq!(here(&posed, &closest.shape), wanted, "the closest, {forced:?}");
            let [force_first, force_last] = forced;
            let limits = PlanLimits { force_first, force_last, ..PlanLimits::default() };
            let names = ["here".to_owned(), "there".to_owned()];
            let told =
                crate::app::exporting::instance(std::slice::from_ref(&posed), &names, &limits).to_string();
            let search = Search { method: Method::Greedy, expansions_max: EXPANSIONS_DEFAULT };
            let on_paper = Instance::parse(&told).unwrap().question.answer(&search).unwrap();
            assert_eq!(here(&posed, &on_paper.found.priced.shape), wanted, "as an instance, {forced:?}");
        }
    }

    #[test]
    fn what_an_end_is_forced_with_costs_what_it_costs_unforced() {
        let manifest = with_ends();
        let (free, forced) = (pose(&manifest, 0..4, [false; 2]), pose(&manifest, 0..4, BOTH));
        assert_eq!((&free.cuts[..], &forced.cuts[..]), (&[0, 1, 2, 3, 4][..], &[0, 2, 4][..]));
        let shape = |cuts: &[u16]| PlanShape {
            stages: cuts
                .windows(2)
                .map(|ends| crate::plan::StageShape { node: 0, first: ends[0], end: ends[1] })
                .collect(),
            codecs: vec![Codec::Raw; cuts.len()],
        };
        let price = |posed: &Posed, cuts: &[u16]| posed.problem.price(&shape(cuts)).unwrap();
        for (wide, narrow) in [(&[0, 2, 4][..], &[0, 1, 2][..]), (&[0, 4], &[0, 2])] {
            let (one, other) = (price(&free, wide), price(&forced, narrow));
            assert!((one.latency_ms - other.latency_ms).abs() < 1e-9, "{one:?} {other:?}");
            assert_eq!(free.plan(&one.shape).id(), forced.plan(&other.shape).id());
        }
        // Tensors need no decoding: nothing to keep together.
        assert_eq!(pose(&manifest, 1..3, BOTH).cuts, [1, 2, 3]);
    }

    #[test]
    fn of_a_plan_that_is_asked_for_the_ends_are_looked_at_likewise() {
        let (own, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let plan = |stages: &[(NodeId, u16, u16, Option<u16>)]| {
            let stage = |(node, first, end, branch): &(NodeId, u16, u16, Option<u16>)| Stage {
                node: *node,
                first: *first,
                end: *end,
                codec: Codec::Raw,
                backups: vec![],
                branch: *branch,
            };
            let stages = stages.iter().map(stage).collect();
            Plan { variant: variant(), origin: own, stages, result_codec: Codec::Raw }
        };
        let elsewhere = |plan: &Plan| [true, false].map(|is_first| end_elsewhere(plan, &(1..5), is_first));
        let alone = |node: NodeId, first: u16, end: u16| (node, first, end, None);
        let only_ends = plan(&[alone(own, 0, 1), alone(other, 1, 5), alone(own, 5, 6)]);
        assert_eq!(elsewhere(&only_ends), [Some(other); 2]);
        let both = plan(&[alone(own, 0, 2), alone(other, 2, 4), alone(own, 4, 6)]);
        assert_eq!(elsewhere(&both), [None; 2]);
        let of_tensors = plan(&[alone(own, 1, 2), alone(other, 2, 5)]);
        assert_eq!(elsewhere(&of_tensors), [None, Some(other)]);
        let decoded_elsewhere = plan(&[alone(other, 0, 1), alone(own, 1, 6)]);
        assert_eq!(elsewhere(&decoded_elsewhere), [Some(other), None]);
        // A branch elsewhere sees what the first block sees.
        let forked =
            plan(&[alone(own, 0, 1), (own, 1, 2, Some(0)), (other, 2, 3, Some(1)), alone(own, 3, 6)]);
        assert_eq!(elsewhere(&forked), [Some(other), None]);
    }
}
