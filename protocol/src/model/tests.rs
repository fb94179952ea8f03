//! Manifests: what is sound, what is refused, and bytes that stay readable.

use super::*;
use crate::tensor::DType;

pub(super) fn manifest() -> Manifest {
    let object = |seed: u8, bytes| ObjectRef { id: ObjectId([seed; 32]), bytes };
    let block = |first_node, weights: &[u32]| Block {
        kind: BlockKind::Graph,
        first_node,
        end_node: first_node + 2,
        weights: weights.to_vec(),
        inline_bytes: 1,
        flops: 10,
        peak_activation_bytes: 8,
        work: Work::default(),
        time_ns: 5,
    };
    Manifest {
        model: "digits".into(),
        variant: "base".into(),
        ort_level: OrtLevel::All,
        skeleton: object(1, 100),
        weights: vec![object(2, 1000), object(3, 2000)],
        card: None,
        variable: vec![],
        batch: None,
        tensors: ["x", "a", "y"]
            .map(|name| TensorSpec { name: name.into(), dtype: DType::F32, shape: vec![1, 2] })
            .to_vec(),
        inputs: vec![0],
        outputs: vec![2],
        blocks: vec![block(0, &[0, 1]), block(2, &[1])],
        cuts: [0, 1, 2].map(|index| Cut::crossed_by(vec![index])).to_vec(),
        regions: Vec::new(),
        loss_samples: 0,
        reference: Reference { range_ns: vec![5, 12, 8], ..Reference::unmeasured(2) },
    }
}

#[test]
fn a_sound_manifest_passes_and_shared_weights_count_once() {
    let manifest = manifest();
    assert_eq!(manifest.check(), Ok(()));
    assert_eq!(manifest.range_weights(0..2), vec![0, 1]);
    assert_eq!(manifest.range_memory_bytes(0..2), 3000 + 2 + 8);
    assert_eq!(manifest.cut_bytes(1), 8);
}

fn with_ends() -> Manifest {
    let mut manifest = manifest();
    let end = |kind, node| Block {
        kind,
        first_node: node,
        end_node: node,
        weights: vec![],
        inline_bytes: 0,
        flops: 0,
        peak_activation_bytes: 0,
        work: Work::default(),
        time_ns: 1,
    };
    manifest.card = Some(manifest.skeleton);
    manifest.blocks.insert(0, end(BlockKind::Decode, 0));
    manifest.blocks.push(end(BlockKind::Read, 4));
    for name in [ENCODED_IMAGE, MEANING] {
        manifest.variable.push(VariableTensor { tensor: manifest.tensors.len() as u32, bytes_max: 50 });
        manifest.tensors.push(TensorSpec { name: name.into(), dtype: DType::U8, shape: vec![10] });
    }
    manifest.cuts.insert(0, Cut::crossed_by(vec![3]));
    manifest.cuts.push(Cut::crossed_by(vec![4]));
    manifest
}

#[test]
fn ends_are_blocks_that_are_no_part_of_the_graph() {
    let manifest = with_ends();
    assert_eq!(manifest.check(), Ok(()));
    assert_eq!(manifest.graph_blocks(), 1..3);
    assert_eq!(manifest.graph_part(0..1), 1..1);
    assert_eq!(manifest.graph_part(0..2), 1..2);
    assert_eq!(manifest.graph_part(3..4), 3..3);
    assert!(manifest.is_whole(&(0..4)) && manifest.is_whole(&(1..3)) && !manifest.is_whole(&(2..3)));
    let mut no_card = manifest;
    no_card.card = None;
    assert!(no_card.check().is_err());
}

#[test]
fn an_ends_tensor_may_have_any_length_up_to_its_limit() {
    let manifest = with_ends();
    let encoded = |length| TensorSpec { name: ENCODED_IMAGE.into(), dtype: DType::U8, shape: vec![length] };
    assert!(manifest.are_the_cut(0, [encoded(50)].iter()));
    assert!(!manifest.are_the_cut(0, [encoded(51)].iter()));
    assert!(!manifest.are_the_cut(1, [encoded(50)].iter()));
    assert!(!manifest.are_the_cut(0, [].iter()));
}

#[test]
fn branches_follow_each_other_within_the_graph_and_read_what_is_there() {
    let branch = |first, end, reads: &[u32]| Branch { first, end, reads: reads.to_vec() };
    let with = |branches: &[Branch]| {
        let mut manifest = manifest();
        manifest.regions = vec![Region { branches: branches.to_vec() }];
        manifest.check()
    };
    assert_eq!(with(&[branch(0, 1, &[0]), branch(1, 2, &[])]), Ok(()));
    assert!(matches!(with(&[branch(0, 2, &[0])]), Err(BadManifest::Count(_))));
    for wrong in [
        [branch(0, 1, &[1]), branch(1, 2, &[0])],
        [branch(0, 1, &[9]), branch(1, 2, &[0])],
        [branch(0, 1, &[0]), branch(1, 3, &[0])],
        [branch(0, 1, &[0]), branch(1, 1, &[0])],
        [branch(1, 2, &[]), branch(0, 1, &[])],
        [branch(0, 9, &[]), branch(9, 1, &[])],
    ] {
        assert!(matches!(with(&wrong), Err(BadManifest::Index(_))), "{wrong:?}");
    }
    let mut twice = manifest();
    let region = Region { branches: vec![branch(0, 1, &[0]), branch(1, 2, &[])] };
    twice.regions = vec![region.clone(), region];
    assert_eq!(twice.check(), Err(BadManifest::Index("parallel regions")));
}

/// Three blocks; the output `a` is ready behind the first and read by none of the others.
fn with_an_early_output() -> Manifest {
    let mut manifest = manifest();
    let mut third = manifest.blocks[1].clone();
    (third.first_node, third.end_node) = (4, 6);
    manifest.blocks.push(third);
    manifest.reference.range_ns = vec![5, 12, 18, 8, 12, 6];
    manifest.tensors.push(TensorSpec { name: "b".into(), dtype: DType::F32, shape: vec![1] });
    manifest.outputs = vec![1, 2];
    let inner = Cut { settled: vec![1], ..Cut::crossed_by(vec![3]) };
    manifest.cuts = vec![Cut::crossed_by(vec![0]), inner.clone(), inner, Cut::crossed_by(vec![1, 2])];
    manifest
}

#[test]
fn each_output_leaves_once_from_the_stage_that_settles_it() {
    let manifest = with_an_early_output();
    assert_eq!(manifest.check(), Ok(()));
    let results = |stages: &[Range<u16>]| -> Vec<Vec<u32>> {
        stages.iter().map(|stage| manifest.results_of(stage, &(0..3))).collect()
    };
    assert_eq!(manifest.results_of(&(0..3), &(0..3)), [1, 2]);
    assert_eq!(results(&[0..1, 1..2, 2..3]), [vec![1], vec![], vec![2]]);
    assert_eq!(results(&[0..2, 2..3]), [vec![1], vec![2]]);
    assert_eq!(manifest.made_by(0..1), [1, 3]);
    assert_eq!(manifest.made_by(1..3), [2]);
}

#[test]
fn what_is_settled_is_an_output_and_stays_so() {
    let with = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = with_an_early_output();
        change(&mut manifest);
        manifest.check()
    };
    let wrong = Err(BadManifest::Index("settled outputs"));
    assert_eq!(with(&|manifest| manifest.cuts[2].settled.clear()), wrong, "settled no more");
    assert_eq!(with(&|manifest| manifest.cuts[1].settled = vec![0]), wrong, "no output");
    assert_eq!(with(&|manifest| manifest.cuts[1].tensors = vec![1, 3]), wrong, "it crosses too");
    assert_eq!(with(&|manifest| manifest.cuts[0].settled = vec![1]), wrong, "before anything ran");
    assert_eq!(with(&|manifest| manifest.cuts[3].settled = vec![1]), wrong, "behind the end");
    assert_eq!(with(&|manifest| manifest.cuts[3].tensors = vec![2]), wrong, "gone at the end");
}

#[test]
fn reference_times_must_fit_the_blocks() {
    let mut bad = manifest();
    bad.reference.range_ns.pop();
    assert_eq!(bad.check(), Err(BadManifest::Reference));
}

#[test]
fn what_points_nowhere_is_refused() {
    let mut bad = manifest();
    bad.cuts[1].tensors = vec![9];
    assert_eq!(bad.check(), Err(BadManifest::Index("tensors")));
    let mut bad = manifest();
    bad.blocks[1].first_node = 3;
    assert_eq!(bad.check(), Err(BadManifest::Index("nodes")));
    let mut bad = manifest();
    bad.model = "../etc".into();
    assert!(matches!(bad.check(), Err(BadManifest::Name(_))));
}
