//! Ways of a small model with two branches.

use super::super::tests::manifest;
use super::super::{Branch, Cut};
use super::*;
use crate::codec::payload::Codec;
use crate::ids::{DeploymentId, NodeId, VariantId};
use crate::tensor::{DType, TensorSpec};

/// Block 0 makes `a` (1) and `c` (2) of `x` (0). Beside each other, block 1 makes `p` (3) and the output `e` (6) of `a`,
/// and block 2 makes `q` (4) of `c`. Block 3 makes the output `y` (5) of `c`, `p` and `q`.
fn branchy() -> Manifest {
    let mut manifest = manifest();
    let spec = |name: &&str| TensorSpec { name: (*name).into(), dtype: DType::F32, shape: vec![1, 2] };
    manifest.tensors = ["x", "a", "c", "p", "q", "y", "e"].iter().map(spec).collect();
    manifest.outputs = vec![5, 6];
    let block = manifest.blocks[0].clone();
    let blocks =
        (0..4).map(|index| super::super::Block { first_node: index, end_node: index + 1, ..block.clone() });
    manifest.blocks = blocks.collect();
    manifest.reference.range_ns = vec![5, 10, 15, 20, 5, 10, 15, 5, 10, 5];
    let settled = |tensors: &[u32]| Cut { settled: vec![6], ..Cut::crossed_by(tensors.to_vec()) };
    let (all, first) = (Cut::crossed_by(vec![0]), Cut::crossed_by(vec![1, 2]));
    manifest.cuts = vec![all, first, settled(&[2, 3]), settled(&[2, 3, 4]), Cut::crossed_by(vec![5, 6])];
    let branch = |first: u16, reads: &[u32]| Branch { first, end: first + 1, reads: reads.to_vec() };
    manifest.regions = vec![Region { branches: vec![branch(1, &[1]), branch(2, &[2])] }];
    assert_eq!(manifest.check(), Ok(()));
    manifest
}

/// Stages of these blocks; those with a turn are branches.
fn plan(stages: &[(u16, u16, Option<u16>)]) -> Plan {
    let stage = |(first, end, branch): &(u16, u16, Option<u16>)| Stage {
        node: NodeId([*end as u8; 32]),
        first: *first,
        end: *end,
        codec: Codec::Raw,
        backups: vec![],
        branch: *branch,
    };
    let variant = VariantId { deployment: DeploymentId([1; 16]), index: 0 };
    let origin = NodeId([9; 32]);
    Plan { variant, origin, stages: stages.iter().map(stage).collect(), result_codec: Codec::Raw }
}

fn forked() -> Plan {
    plan(&[(0, 1, None), (1, 2, Some(1)), (2, 3, Some(0)), (3, 4, None)])
}

fn way(other: u16, tensors: &[u32]) -> Way {
    Way { other, tensors: tensors.to_vec() }
}

#[test]
fn a_fork_sends_what_each_reads_in_turn_and_what_passes_them_by() {
    let (manifest, plan) = (branchy(), forked());
    assert!(manifest.has_ways(&plan));
    let ways = |stage| manifest.ways(&plan, stage).unwrap();
    assert_eq!(manifest.ways_from_origin(&plan), Some(vec![way(0, &[0])]));
    assert_eq!(ways(0).inputs, [way(ORIGIN, &[0])]);
    assert_eq!(ways(0).outputs, [way(2, &[2]), way(1, &[1]), way(3, &[2])]);
    assert_eq!(
        (ways(1).from(0), ways(1).to(3), ways(1).to(ORIGIN)),
        (Some(&[1][..]), Some(&[3][..]), Some(&[6][..]))
    );
    assert_eq!(ways(2), Ways { inputs: vec![way(0, &[2])], outputs: vec![way(3, &[4])] });
    assert_eq!(ways(3).inputs, [way(1, &[3]), way(2, &[4]), way(0, &[2])]);
    assert_eq!(ways(3).outputs, [way(ORIGIN, &[5])]);
    assert_eq!(manifest.ways(&plan, 4), None);
}

#[test]
fn a_chain_sends_what_crosses_each_cut() {
    let (manifest, plan) = (branchy(), plan(&[(0, 2, None), (2, 4, None)]));
    assert!(manifest.has_ways(&plan));
    let first = Ways { inputs: vec![way(ORIGIN, &[0])], outputs: vec![way(1, &[2, 3]), way(ORIGIN, &[6])] };
    assert_eq!(manifest.ways(&plan, 0), Some(first));
    let last = Ways { inputs: vec![way(0, &[2, 3])], outputs: vec![way(ORIGIN, &[5])] };
    assert_eq!(manifest.ways(&plan, 1), Some(last));
}

#[test]
fn the_origin_joins_what_ends_a_plan_and_forks_what_begins_it() {
    let (mut manifest, plan) = (branchy(), plan(&[(1, 2, Some(0)), (2, 3, Some(1))]));
    assert!(manifest.has_ways(&plan));
    assert_eq!(manifest.ways_from_origin(&plan), Some(vec![way(0, &[1]), way(1, &[2])]));
    // `c` is wanted at the end, and block 2 has it; `e` was settled by block 1.
    assert_eq!(manifest.results(&plan, 0), Some(vec![3, 6]));
    assert_eq!(manifest.results(&plan, 1), Some(vec![2, 4]));
    // Nobody would send what no branch reads.
    manifest.cuts[1..4].iter_mut().for_each(|cut| cut.tensors.insert(0, 0));
    assert!(!manifest.has_ways(&plan));
}

#[test]
fn branches_are_those_of_a_region_and_read_something() {
    let manifest = branchy();
    let other = plan(&[(0, 1, Some(0)), (1, 2, Some(1)), (2, 4, None)]);
    assert!(!manifest.has_ways(&other) && manifest.ways(&other, 2).is_none());
    assert!(manifest.can_fork(&manifest.regions[0], &(0..4)));
    let mut constant = branchy();
    constant.regions[0].branches[0].reads.clear();
    assert!(!constant.has_ways(&forked()) && !constant.can_fork(&constant.regions[0], &(0..4)));
}
