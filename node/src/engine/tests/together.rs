//! Jobs of several callers in one run.

use super::*;
use crate::engine::for_tests::joining_engine;

/// y = x taken at `at`, for any number of items of three numbers each: `at` is the same for all.
fn picked() -> PartitionSource {
    let [x, at, y] =
        [spec("x", DType::F32, &[0, 3]), spec("at", DType::I64, &[2]), spec("y", DType::F32, &[0, 2])];
    let pick = Node { int: Some(("axis", 1)), ..node("Gather", &["x", "at"], &["y"]) };
    let model = tiny_onnx::model(&[pick], &[], &[x, at], &[y]);
    PartitionSource {
        model,
        weights: Vec::new(),
        inputs: vec![spec("x", DType::F32, &[1, 3]), spec("at", DType::I64, &[2])],
        outputs: vec![spec("y", DType::F32, &[1, 2])],
        level: OrtLevel::All,
        batch: Some(OpenBatch { tensors: vec!["x".into(), "y".into()], items_max: 4 }),
        variable: Vec::new(),
    }
}

/// Items that begin with this number, and what to take of each.
fn inputs(first: f32, items: u64, at: [i64; 2]) -> Vec<Tensor> {
    let values: Vec<f32> = (0..items * 3).map(|index| first + index as f32).collect();
    vec![
        tensor(&spec("x", DType::F32, &[items, 3]), bytemuck::cast_slice(&values)),
        tensor(&spec("at", DType::I64, &[2]), bytemuck::cast_slice(&at)),
    ]
}

fn taken(first: f32, items: u64, at: [i64; 2]) -> Vec<f32> {
    (0..items).flat_map(|item| at.map(|place| first + (item * 3) as f32 + place as f32)).collect()
}

/// Jobs that are all there before the first of them may run; what each is answered.
async fn run_at_once(jobs: &[(f32, u64, [i64; 2])]) -> Vec<Result<Ran, RunError>> {
    let engine = joining_engine(1, Duration::ZERO);
    let partition = engine.load("pick".into(), picked()).await.unwrap();
    let only_permit = engine.shared.permits.acquire();
    let begin = |(first, items, at): &(f32, u64, [i64; 2])| {
        partition.begin(inputs(*first, *items, *at), None).map(|running| tokio::spawn(running.ran()))
    };
    let begun: Vec<_> = jobs.iter().map(begin).collect::<Result<_, _>>().unwrap();
    // The first of them waits for the permit.
    while engine.shared.permits.waiting() != 1 {
        tokio::task::yield_now().await;
    }
    drop(only_permit);
    let mut ran = Vec::new();
    for one in begun {
        ran.push(one.await.unwrap());
    }
    ran
}

#[tokio::test]
async fn jobs_that_wait_run_together_as_far_as_they_fit() {
    // Four items are the most; who picks otherwise is no company.
    let jobs =
        [(10.0, 1, [0, 2]), (20.0, 2, [0, 2]), (30.0, 1, [0, 2]), (40.0, 3, [0, 2]), (50.0, 1, [1, 1])];
    let ran = run_at_once(&jobs).await;
    let items: Vec<u64> = ran.iter().map(|ran| ran.as_ref().unwrap().items).collect();
    assert_eq!(items, [4, 4, 4, 3, 1]);
    for (ran, (first, items, at)) in ran.into_iter().zip(jobs) {
        let outputs = ran.unwrap().outputs;
        assert_eq!(outputs[0].spec().shape, [items, 2]);
        assert_eq!(outputs[0].data().as_slice_of::<f32>().unwrap(), taken(first, items, at));
    }
}

#[tokio::test]
async fn a_run_that_fails_over_what_all_gave_is_tried_alone() {
    // There is no place 7: both fail by themselves, and the next one does not.
    let ran = run_at_once(&[(10.0, 1, [0, 7]), (20.0, 1, [0, 7]), (30.0, 1, [0, 1])]).await;
    assert!(matches!(ran[..], [Err(RunError::Failed(_)), Err(RunError::Failed(_)), Ok(_)]), "{ran:?}");
}

#[tokio::test]
async fn whoever_gives_up_leaves_the_others_their_run() {
    let engine = joining_engine(1, Duration::ZERO);
    let partition = engine.load("pick".into(), picked()).await.unwrap();
    let only_permit = engine.shared.permits.acquire();
    let [one, two, three] =
        [1.0, 2.0, 3.0].map(|first| partition.begin(inputs(first, 1, [0, 1]), None).unwrap());
    while engine.shared.permits.waiting() != 1 {
        tokio::task::yield_now().await;
    }
    drop(one);
    drop(only_permit);
    for (running, first) in [(two, 2.0), (three, 3.0)] {
        let ran = running.ran().await.unwrap();
        assert_eq!(ran.items, 2);
        assert_eq!(ran.outputs[0].data().as_slice_of::<f32>().unwrap(), [first, first + 1.0]);
    }
}

/// y = x less the mean of all items: an open axis that is no batch.
fn centred() -> PartitionSource {
    let [x, y] = ["x", "y"].map(|name| spec(name, DType::F32, &[0, 3]));
    let mean = Node { ints: &[("axes", &[0])], ..node("ReduceMean", &["x"], &["m"]) };
    let model = tiny_onnx::model(&[mean, node("Sub", &["x", "m"], &["y"])], &[], &[x], &[y]);
    let [x, y] = ["x", "y"].map(|name| spec(name, DType::F32, &[1, 3]));
    let batch = Some(OpenBatch { tensors: vec!["x".into(), "y".into()], items_max: 4 });
    PartitionSource { model, inputs: vec![x], outputs: vec![y], batch, ..addition() }
}

#[tokio::test]
async fn items_that_change_each_other_run_alone() {
    let engine = joining_engine(1, Duration::ZERO);
    let partition = engine.load("centre".into(), centred()).await.unwrap();
    let only_permit = engine.shared.permits.acquire();
    let begun = [1.0, 5.0].map(|first| {
        let x = floats("x", &[first, first + 1.0, first + 2.0]);
        let (_, data) = x.into_parts();
        partition.begin(vec![Tensor::new(spec("x", DType::F32, &[1, 3]), data).unwrap()], None).unwrap()
    });
    drop(only_permit);
    for running in begun {
        let ran = running.ran().await.unwrap();
        assert_eq!((ran.items, ran.outputs[0].data().as_slice_of::<f32>().unwrap()), (1, &[0.0; 3][..]));
    }
}

#[tokio::test]
async fn the_first_waits_for_others() {
    // Longer than any test: only a full batch can end it.
    let engine = joining_engine(1, Duration::from_secs(3600));
    let partition = engine.load("pick".into(), picked()).await.unwrap();
    let begun: Vec<_> = (0..4).map(|_| partition.begin(inputs(1.0, 1, [0, 1]), None).unwrap()).collect();
    for running in begun {
        assert_eq!(running.ran().await.unwrap().items, 4);
    }
    // What is measured waits for nobody.
    assert_eq!(partition.run(inputs(1.0, 1, [0, 1])).await.unwrap().items, 1);
}
