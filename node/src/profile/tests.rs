//! Tests of times against made-up truth: graphs whose costs are known, machines whose speeds are known.

use proptest::prelude::*;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::{Block, BlockKind, Cut, Manifest, ObjectRef, OrtLevel};
use stormo_protocol::profile::{Reference, Speeds, Work, WorkClass, range_count, range_index};
use stormo_protocol::tensor::{DType, TensorSpec};

use super::*;

/// A chain of blocks with costs at each border, as ONNX Runtime has them.
#[derive(Debug, Clone)]
struct Truth {
    block_us: Vec<f64>,
    tensor_bytes: Vec<u64>,
    enter_us: Vec<f64>,
    leave_us: Vec<f64>,
    constant_us: f64,
}

impl Truth {
    fn range_us(&self, range: BlockRange) -> f64 {
        let own: f64 = self.block_us[range.first..range.end].iter().sum();
        self.constant_us + own + self.enter_us[range.first] + self.leave_us[range.end]
    }
}

impl Truth {
    /// Blocks of the same time, and nothing at their borders.
    fn of_blocks(blocks: usize) -> Self {
        let nothing = vec![0.0; blocks + 1];
        Self {
            block_us: vec![100.0; blocks],
            tensor_bytes: vec![1; blocks + 1],
            enter_us: nothing.clone(),
            leave_us: nothing,
            constant_us: 0.0,
        }
    }
}

fn truth() -> impl Strategy<Value = Truth> {
    (8usize..40).prop_flat_map(|blocks| {
        let border = || proptest::collection::vec((1_000u64..400_000, 0.5f64..1.5, 0.5f64..1.5), blocks + 1);
        (proptest::collection::vec(20.0f64..300.0, blocks), border(), 5.0f64..30.0).prop_map(
            |(block_us, borders, constant_us)| Truth {
                block_us,
                tensor_bytes: borders.iter().map(|border| border.0).collect(),
                enter_us: borders.iter().map(|(bytes, unlike, _)| *bytes as f64 * 6e-5 * unlike).collect(),
                leave_us: borders.iter().map(|(bytes, _, unlike)| *bytes as f64 * 1e-4 * unlike).collect(),
                constant_us,
            },
        )
    })
}

fn every_range(blocks: usize) -> impl Iterator<Item = BlockRange> {
    (0..blocks).flat_map(move |first| (first + 1..=blocks).map(move |end| BlockRange { first, end }))
}

/// Half and all but a twentieth of these are smaller.
fn median_and_p95(mut errors: Vec<f64>) -> (f64, f64) {
    errors.sort_by(f64::total_cmp);
    let at = |percent: usize| errors[errors.len() * percent / 100];
    (at(50), at(95))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn unmeasured_ranges_are_foretold_from_measured_ones(
        truth in truth(),
        noise in proptest::collection::vec(-0.02f64..0.02, 400),
    ) {
        let blocks = truth.block_us.len();
        let structure = Structure::chain(&truth.tensor_bytes);
        let measured: Vec<(BlockRange, f64)> = families(blocks, &[]).concat().into_iter().zip(&noise)
            .map(|(range, noise)| (range, truth.range_us(range) * (1.0 + noise))).collect();
        let fitted = fit(&structure, &measured);
        let unmeasured = every_range(blocks).filter(|range| measured.iter().all(|one| one.0 != *range));
        let errors: Vec<f64> = unmeasured.map(|range| {
            let told_us = fitted.range_ns[range_index(blocks, range.first, range.end)] as f64 / 1000.0;
            (told_us / truth.range_us(range) - 1.0).abs()
        }).collect();
        if !errors.is_empty() {
            let (median, p95) = median_and_p95(errors);
            prop_assert!(median <= 0.03 && p95 <= 0.08, "median {median:.3}, p95 {p95:.3}");
        }
    }

    /// A block that is slow without its neighbours, as a pooling of 8-bit integers is without its convolution.
    #[test]
    fn what_neighbours_save_is_found_and_foretold(
        truth in truth(), place in any::<proptest::sample::Index>(), before in 1usize..=3, behind in 0usize..=3,
    ) {
        let blocks = truth.block_us.len();
        let block = before + place.index(blocks - before - behind);
        let mut truth = truth;
        let fast_us = truth.block_us[block];
        let whole_us = truth.range_us(BlockRange { first: 0, end: blocks });
        truth.block_us[block] = fast_us + whole_us;
        let range_us = |range: BlockRange| {
            let is_whole = range.first + before <= block && block + behind < range.end;
            truth.range_us(range) - if is_whole { whole_us } else { 0.0 }
        };
        let alone_us: Vec<f64> = (0..blocks).map(|first| range_us(BlockRange { first, end: first + 1 })).collect();
        let dependent = dependent(&alone_us, range_us(BlockRange { first: 0, end: blocks }));
        prop_assert!(dependent.first() == Some(&block), "{dependent:?} instead of {block}");
        let measured: Vec<(BlockRange, f64)> =
            families(blocks, &dependent).concat().into_iter().map(|range| (range, range_us(range))).collect();
        let fitted = fit(&Structure::chain(&truth.tensor_bytes), &measured);
        let errors = every_range(blocks).map(|range| {
            let told_us = fitted.range_ns[range_index(blocks, range.first, range.end)] as f64 / 1000.0;
            (told_us / range_us(range) - 1.0).abs()
        });
        let (median, p95) = median_and_p95(errors.collect());
        prop_assert!(median <= 0.05 && p95 <= 0.15, "median {median:.3}, p95 {p95:.3}");
    }

    /// Whatever was measured, a manifest may carry what comes out.
    #[test]
    fn what_is_fitted_is_consistent(
        bytes in proptest::collection::vec(0u64..10_000_000, 2..20),
        times in proptest::collection::vec(prop_oneof![Just(0.0), 0.0f64..1e9, Just(f64::MIN_POSITIVE)], 200),
        measured in proptest::collection::vec(any::<bool>(), 200),
    ) {
        let blocks = bytes.len() - 1;
        let some = every_range(blocks).zip(times).zip(measured);
        let measured: Vec<_> = some.filter(|(_, is_measured)| *is_measured).map(|(one, _)| one).collect();
        let fitted = fit(&Structure::chain(&bytes), &measured);
        prop_assert_eq!(fitted.range_ns.len(), range_count(blocks));
        let reference = Reference { range_ns: fitted.range_ns, ..Reference::unmeasured(blocks) };
        prop_assert!(reference.is_sound(&fitted.block_ns));
    }

    #[test]
    fn a_slower_machine_is_learnt_from_the_ranges_it_measured(
        truth in truth(), slower in 0.3f64..4.0, first in 0usize..40, len in 1usize..20,
    ) {
        let manifest = manifest(&truth);
        let predictor = Predictor::new(&manifest);
        let blocks = truth.block_us.len();
        let first = first % blocks;
        let measured = BlockRange { first, end: (first + len).min(blocks) };
        let whole = BlockRange { first: 0, end: blocks };
        let share = truth.range_us(measured) / truth.range_us(whole);
        prop_assume!(share > 0.2);
        let told = |measured: &[Measured]| {
            let estimate = predictor.on_node(&manifest.reference.speeds, measured);
            every_range(blocks)
                .map(|range| predictor.range_us(&estimate, range.first..range.end) / (truth.range_us(range) * slower))
                .map(|ratio| ratio.ln().abs()).fold(0.0, f64::max)
        };
        let hosted = Measured {
            blocks: measured.first as u16..measured.end as u16,
            time_us: truth.range_us(measured) * slower,
        };
        // By then at most a fifth of the (logarithmic) difference is left, anywhere.
        prop_assert!(told(&[hosted]) <= 0.21 * slower.ln().abs() + 0.01);
        prop_assert!((told(&[]) - slower.ln().abs()).abs() < 0.01);
    }

    #[test]
    fn calibration_noise_changes_nothing(truth in truth(), noise in proptest::array::uniform5(0.95f64..1.05)) {
        let manifest = manifest(&truth);
        let predictor = Predictor::new(&manifest);
        let same = predictor.on_node(&manifest.reference.speeds, &[]);
        let mut classes = WorkClass::ALL.into_iter().zip(noise);
        let noisy = Speeds::new(std::array::from_fn(|_| {
            let (class, noise) = classes.next().unwrap();
            manifest.reference.speeds.of(class) * noise
        }));
        prop_assert_eq!(predictor.on_node(&noisy, &[]), same);
    }

    /// Whatever a peer says of itself, and whatever the manifest says as long as it passes its check.
    #[test]
    fn no_claim_of_a_peer_breaks_arithmetic(
        block_ns in proptest::collection::vec(prop_oneof![0u64..1000, Just(1_000_000_000_000)], 1..8),
        claims in proptest::collection::vec((any::<u16>(), 0u16..12, any::<f64>()), 0..8),
        reference in proptest::array::uniform5(any::<f64>()),
        own in proptest::array::uniform5(any::<f64>()),
    ) {
        let blocks = block_ns.len();
        let sum = |range: BlockRange| block_ns[range.first..range.end].iter().sum::<u64>() * 2;
        let mut manifest = manifest(&Truth::of_blocks(blocks));
        manifest.blocks.iter_mut().zip(&block_ns).for_each(|(block, time_ns)| block.time_ns = *time_ns);
        manifest.reference =
            Reference { speeds: Speeds::new(reference), range_ns: every_range(blocks).map(sum).collect() };
        prop_assert!(manifest.reference.is_sound(&block_ns));
        let measured: Vec<Measured> = claims
            .iter()
            .map(|(first, len, time_us)| {
                let first = first % 10;
                Measured { blocks: first..first + len, time_us: *time_us }
            })
            .collect();
        let predictor = Predictor::new(&manifest);
        let estimate = predictor.on_node(&Speeds::new(own), &measured);
        for range in every_range(blocks) {
            let time_us = predictor.range_us(&estimate, range.first..range.end);
            let of_blocks_us: f64 = estimate.block_us[range.first..range.end].iter().sum();
            prop_assert!(time_us.is_finite() && of_blocks_us >= 0.0 && time_us >= of_blocks_us, "{time_us}");
        }
    }

    #[test]
    fn a_new_pace_is_known_after_forty_runs(
        before in proptest::collection::vec(0u64..1_000_000, 0..100), pace in 1u64..1_000_000,
        noise in proptest::collection::vec(0u64..5, 40),
    ) {
        let mut recent: Recent = before.into_iter().collect();
        noise.iter().for_each(|late_us| recent.note(pace + late_us));
        prop_assert!((pace..pace + 5).contains(&recent.median_us()));
        prop_assert!((pace..pace + 5).contains(&recent.p95_us()));
    }

    #[test]
    fn recent_runs_are_ranked_as_sorting_ranks_them(times in proptest::collection::vec(0u64..1_000_000, 1..200)) {
        let recent: Recent = times.iter().copied().collect();
        let mut last: Vec<u64> = times[times.len().saturating_sub(40)..].to_vec();
        last.sort_unstable();
        let faster = |time_us| last.iter().filter(|other| **other < time_us).count() * 100 / last.len();
        prop_assert!(last.contains(&recent.median_us()) && faster(recent.median_us()) <= 50);
        prop_assert!(recent.p95_us() >= recent.median_us() && faster(recent.p95_us()) <= 95);
    }

    #[test]
    fn loads_are_learnt_as_fixed_and_per_byte(
        fixed_ms in 1.0f64..100.0, ms_per_mb in 0.1f64..20.0,
        sizes in proptest::collection::vec(0u64..50_000_000, 20..30),
    ) {
        let mut loads = Loads::guessed(5.0, 2.0);
        for bytes in sizes {
            loads.note(bytes, fixed_ms + ms_per_mb * bytes as f64 / 1e6);
        }
        let (fixed, per_mb) = loads.line();
        for mb in [0.0, 10.0, 50.0] {
            let (told, truth) = (fixed + per_mb * mb, fixed_ms + ms_per_mb * mb);
            prop_assert!((told - truth).abs() < 0.05 * truth + 1.0, "{mb} MB: {told} instead of {truth} ms");
        }
    }

    #[test]
    fn no_load_takes_less_than_nothing(
        loads in proptest::collection::vec((0u64..1_000_000_000, 0.0f64..1e6), 0..20),
    ) {
        let mut known = Loads::guessed(5.0, 2.0);
        loads.into_iter().for_each(|(bytes, ms)| known.note(bytes, ms));
        let (fixed, per_mb) = known.line();
        prop_assert!(fixed >= 0.0 && per_mb >= 0.0 && fixed.is_finite() && per_mb.is_finite());
    }
}

#[test]
fn before_the_first_load_the_guess_stands() {
    let (fixed, per_mb) = Loads::guessed(5.0, 2.0).line();
    assert!((fixed - 5.0).abs() < 1e-9 && (per_mb - 2.0).abs() < 1e-9);
}

#[test]
fn one_load_outweighs_the_guess() {
    let mut loads = Loads::guessed(30.0, 10.0);
    loads.note(5_000_000, 8.0);
    let (fixed, per_mb) = loads.line();
    assert!((fixed + 5.0 * per_mb) < 12.0, "{fixed} + {per_mb} per MB");
}

#[test]
fn only_the_class_that_differs_counts() {
    let mut manifest = manifest(&Truth::of_blocks(2));
    manifest.blocks[1].work = Work::default().with((WorkClass::Depthwise, 1_000_000));
    // Half as fast at convolutions of single channels.
    let mut speeds = [1000.0; 5];
    speeds[WorkClass::Depthwise as usize] = 500.0;
    let estimate = Predictor::new(&manifest).on_node(&Speeds::new(speeds), &[]);
    assert_eq!(estimate.block_us[0], 100.0);
    assert!((180.0..=200.0).contains(&estimate.block_us[1]), "{estimate:?}");
}

/// A manifest whose reference times are the truth.
fn manifest(truth: &Truth) -> Manifest {
    let object = ObjectRef { id: ObjectId([0; 32]), bytes: 1 };
    let blocks = truth.block_us.len();
    let work = Work::default().with((WorkClass::Convolution, 1_000_000));
    let block = |time_us: &f64| Block {
        kind: BlockKind::Graph,
        first_node: 0,
        end_node: 0,
        weights: vec![],
        inline_bytes: 0,
        flops: 0,
        work,
        peak_activation_bytes: 0,
        time_ns: (time_us * 1000.0) as u64,
    };
    let tensor = |index: usize| TensorSpec { name: index.to_string(), dtype: DType::U8, shape: vec![1] };
    Manifest {
        model: "truth".into(),
        variant: "base".into(),
        ort_level: OrtLevel::All,
        skeleton: object,
        weights: vec![],
        card: None,
        variable: vec![],
        regions: vec![],
        batch: None,
        loss_samples: 0,
        tensors: (0..=blocks).map(tensor).collect(),
        inputs: vec![0],
        outputs: vec![blocks as u32],
        blocks: truth.block_us.iter().map(block).collect(),
        cuts: (0..=blocks as u32).map(|tensor| Cut::crossed_by(vec![tensor])).collect(),
        reference: Reference {
            speeds: Speeds::new([1000.0; 5]),
            range_ns: every_range(blocks).map(|range| (truth.range_us(range) * 1000.0) as u64).collect(),
        },
    }
}
