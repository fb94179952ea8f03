//! Partitions, probes and measures on small models written by hand.

use std::sync::Arc;
use std::time::Duration;

use stormo_protocol::limits::VARIABLE_OUTPUTS_BYTES_MAX;
use stormo_protocol::model::OrtLevel;
use stormo_protocol::profile::WorkClass;
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};

mod together;

use super::for_tests::engine;
use super::tiny_onnx::{self, ExternalWeight, Node, spec};
use super::*;

fn tensor(spec: &TensorSpec, bytes: &[u8]) -> Tensor {
    Tensor::new(spec.clone(), TensorData::copied_from(bytes)).unwrap()
}

fn floats(name: &str, values: &[f32]) -> Tensor {
    tensor(&spec(name, DType::F32, &[values.len() as u64]), bytemuck::cast_slice(values))
}

fn source(nodes: &[Node<'_>], inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> PartitionSource {
    let model = tiny_onnx::model(nodes, &[], &inputs, &outputs);
    PartitionSource {
        model,
        weights: Vec::new(),
        inputs,
        outputs,
        level: OrtLevel::All,
        batch: None,
        variable: Vec::new(),
    }
}

fn node<'a>(op: &'a str, inputs: &'a [&'a str], outputs: &'a [&'a str]) -> Node<'a> {
    Node { op, inputs, outputs, ints: &[], int: None }
}

/// y = a + b, three numbers each.
fn addition() -> PartitionSource {
    let [a, b, y] = ["a", "b", "y"].map(|name| spec(name, DType::F32, &[3]));
    source(&[node("Add", &["a", "b"], &["y"])], vec![a, b], vec![y])
}

fn summands() -> Vec<Tensor> {
    vec![floats("b", &[10.0, 20.0, 30.0]), floats("a", &[1.0, 2.0, 3.0])]
}

/// y = x W with W outside the model, under `location`.
fn product(location: &str) -> PartitionSource {
    let [x, y] = ["x", "y"].map(|name| spec(name, DType::F32, &[1, 2]));
    let matrix = spec("W", DType::F32, &[2, 2]);
    let weight = ExternalWeight { spec: &matrix, location };
    let nodes = [node("MatMul", &["x", "W"], &["y"])];
    let model = tiny_onnx::model(&nodes, &[weight], std::slice::from_ref(&x), std::slice::from_ref(&y));
    PartitionSource {
        model,
        weights: Vec::new(),
        inputs: vec![x],
        outputs: vec![y],
        level: OrtLevel::All,
        batch: None,
        variable: Vec::new(),
    }
}

const MATRIX: [f32; 4] = [1.0, 2.0, 3.0, 4.0];

async fn refusal(source: PartitionSource) -> LoadError {
    engine(1).load("refused".into(), source).await.unwrap_err()
}

#[tokio::test]
async fn inputs_are_taken_by_name_and_outputs_given() {
    let partition = engine(1).load("add".into(), addition()).await.unwrap();
    assert_eq!(partition.run_time(), None);
    let ran = partition.run(summands()).await.unwrap();
    assert!(Duration::ZERO < ran.computed && ran.computed <= ran.ran, "{ran:?}");
    assert_eq!(ran.outputs, vec![floats("y", &[11.0, 22.0, 33.0])]);
    assert_eq!(partition.queue_len(), 0);
    assert!(partition.run_time().is_some());
}

#[tokio::test]
async fn every_level_gives_the_same_sum() {
    for level in [OrtLevel::Off, OrtLevel::Basic, OrtLevel::Extended, OrtLevel::All] {
        let partition = engine(1).load("add".into(), PartitionSource { level, ..addition() }).await.unwrap();
        let ran = partition.run(summands()).await.unwrap();
        assert_eq!(ran.outputs, vec![floats("y", &[11.0, 22.0, 33.0])]);
    }
}

#[tokio::test]
async fn weights_come_from_memory() {
    let mut source = product("some key");
    let bytes = bytemuck::cast_slice(&MATRIX).into();
    source.weights.push(Weight { location: "some key".into(), bytes });
    let partition = engine(1).load("product".into(), source).await.unwrap();
    let x = tensor(&spec("x", DType::F32, &[1, 2]), bytemuck::cast_slice(&[1.0f32, 10.0]));
    let ran = partition.run(vec![x]).await.unwrap();
    assert_eq!(ran.outputs[0].data().as_slice_of::<f32>().unwrap(), [31.0, 42.0]);
}

#[tokio::test]
async fn weights_of_the_wrong_length_are_refused() {
    let mut source = product("short");
    source.weights.push(Weight { location: "short".into(), bytes: Arc::from([0u8; 15]) });
    assert!(matches!(refusal(source).await, LoadError::Refused(_)));
}

#[tokio::test]
async fn weights_come_from_a_folder_that_may_go() {
    let engine = engine(1);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("some key"), bytemuck::cast_slice(&MATRIX)).unwrap();
    let partition = engine.load_beside("product".into(), product("some key"), folder.path()).await.unwrap();
    drop(folder);
    let x = tensor(&spec("x", DType::F32, &[1, 2]), bytemuck::cast_slice(&[1.0f32, 10.0]));
    let ran = partition.run(vec![x]).await.unwrap();
    assert_eq!(ran.outputs[0].data().as_slice_of::<f32>().unwrap(), [31.0, 42.0]);
}

#[tokio::test]
async fn a_model_reads_nothing_but_what_is_in_its_folder() {
    let engine = engine(1);
    let around = tempfile::tempdir().unwrap();
    let [folder, secret] = ["folder", "secret"].map(|name| around.path().join(name));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&secret, bytemuck::cast_slice(&MATRIX)).unwrap();
    std::os::unix::fs::symlink(&secret, folder.join("link")).unwrap();
    std::fs::write(folder.join("short"), [0; 15]).unwrap();
    for location in ["../secret", "folder/../../secret", &secret.to_string_lossy(), "link", "short", "absent"]
    {
        let loaded = engine.load_beside("product".into(), product(location), &folder).await;
        assert!(matches!(loaded.unwrap_err(), LoadError::Refused(_)), "{location}");
    }
}

#[tokio::test]
async fn a_model_cannot_read_files_of_this_machine() {
    // Tests run in their crate's folder, and so would a relative name be looked up there.
    let file = tempfile::NamedTempFile::new_in(".").unwrap();
    std::fs::write(file.path(), bytemuck::cast_slice(&MATRIX)).unwrap();
    for location in [file.path().file_name().unwrap(), file.path().as_os_str()] {
        let error = refusal(product(&location.to_string_lossy())).await;
        assert!(matches!(&error, LoadError::Refused(text) if text.contains("not found")), "{error}");
    }
}

#[tokio::test]
async fn every_element_type_passes_unchanged() {
    let engine = engine(1);
    for dtype in DType::ALL {
        for shape in [&[2u64, 3][..], &[], &[0, 4]] {
            let [x, y] = ["x", "y"].map(|name| spec(name, dtype, shape));
            let source = source(&[node("Identity", &["x"], &["y"])], vec![x.clone()], vec![y.clone()]);
            let partition = engine.load(dtype.oip_name().into(), source).await.unwrap();
            let length = x.byte_length().unwrap() as usize;
            let bytes: Vec<u8> = match dtype {
                DType::Bool => (0..length).map(|index| index as u8 % 2).collect(),
                DType::Text => {
                    let texts = ["", "some words", "日本語", "\n", "é", "1"];
                    let texts = texts.into_iter().take(x.elements().unwrap() as usize);
                    TensorData::of_texts(texts).unwrap().as_bytes().to_vec()
                }
                _ => (0..length).map(|index| (index as u8).wrapping_mul(37)).collect(),
            };
            let ran = partition.run(vec![tensor(&x, &bytes)]).await.unwrap();
            assert_eq!(ran.outputs, vec![tensor(&y, &bytes)], "{dtype:?} {shape:?}");
        }
    }
}

#[tokio::test]
async fn what_is_no_boolean_is_refused() {
    let [x, y] = ["x", "y"].map(|name| spec(name, DType::Bool, &[2]));
    let source = source(&[node("Not", &["x"], &["y"])], vec![x.clone()], vec![y.clone()]);
    let partition = engine(1).load("not".into(), source).await.unwrap();
    assert!(matches!(partition.run(vec![tensor(&x, &[1, 2])]).await, Err(RunError::WrongInputs(_))));
    assert_eq!(partition.run(vec![tensor(&x, &[1, 0])]).await.unwrap().outputs, vec![tensor(&y, &[0, 1])]);
}

#[tokio::test]
async fn wrong_inputs_are_refused_with_the_reason() {
    let partition = engine(1).load("add".into(), addition()).await.unwrap();
    let [b, a] = summands().try_into().unwrap();
    let long = floats("a", &[0.0; 4]);
    let integers = tensor(&spec("a", DType::I32, &[3]), &[0; 12]);
    let wrong = [
        (vec![a.clone()], "`b` is missing"),
        (vec![long, b.clone()], "`a` must be FP32 [3], not FP32 [4]"),
        (vec![integers, b.clone()], "`a` must be FP32 [3], not INT32 [3]"),
        (vec![a.clone(), b.clone(), b.clone()], "`b` is given twice"),
        (vec![a.clone(), b.clone(), floats("c", &[0.0])], "there is no input `c`"),
    ];
    for (inputs, reason) in wrong {
        assert_eq!(partition.run(inputs).await.unwrap_err(), RunError::WrongInputs(reason.into()));
    }
    assert!(partition.run(vec![a, b]).await.is_ok());
}

#[tokio::test]
async fn what_is_not_as_declared_is_refused() {
    let [mut input, mut output, mut more] = [addition(), addition(), addition()];
    input.inputs[0].shape = vec![4];
    output.outputs[0].dtype = DType::F64;
    more.outputs.push(spec("z", DType::F32, &[3]));
    let mut fewer = addition();
    fewer.inputs.pop();
    for source in [input, output, more, fewer] {
        assert!(matches!(refusal(source).await, LoadError::Declaration(_)));
    }
}

#[tokio::test]
async fn what_is_no_model_is_refused() {
    let mut unknown = addition();
    let nodes = [node("Frobnicate", &["a", "b"], &["y"])];
    unknown.model = tiny_onnx::model(&nodes, &[], &unknown.inputs, &unknown.outputs);
    let error = refusal(unknown).await;
    assert!(matches!(&error, LoadError::Refused(text) if text.contains("Frobnicate")), "{error}");
    let whole = addition().model;
    for model in [Vec::new(), b"this is no model".to_vec(), vec![0xff; 1000], whole[..40].to_vec()] {
        let error = refusal(PartitionSource { model, ..addition() }).await;
        assert!(matches!(error, LoadError::Refused(_)), "{error}");
    }
}

#[tokio::test]
async fn outputs_whose_shape_depends_on_data_are_compared() {
    let (x, y) = (spec("x", DType::F32, &[3]), spec("y", DType::I64, &[1, 2]));
    let source = source(&[node("NonZero", &["x"], &["y"])], vec![x], vec![y]);
    let partition = engine(1).load("nonzero".into(), source).await.unwrap();
    assert!(partition.run(vec![floats("x", &[0.0, 5.0, 7.0])]).await.is_ok());
    let error = partition.run(vec![floats("x", &[3.0, 5.0, 7.0])]).await.unwrap_err();
    assert_eq!(error, RunError::UnexpectedOutputs("`y` is INT64 [1, 3], not INT64 [1, 2]".into()));
}

#[tokio::test]
async fn a_variable_output_has_any_size_within_the_limit_but_no_other_rank() {
    let most = VARIABLE_OUTPUTS_BYTES_MAX / 8;
    let (x, y) = (spec("x", DType::F32, &[most + 1]), spec("y", DType::I64, &[1, 2]));
    let nodes = [node("NonZero", &["x"], &["y"])];
    let model = tiny_onnx::model_of_bare_outputs(&nodes, std::slice::from_ref(&x), &["y"]);
    let variable = vec!["y".to_owned()];
    let source = PartitionSource { model, variable, ..source(&nodes, vec![x], vec![y.clone()]) };
    let partition = engine(1).load("nonzero".into(), source.clone()).await.unwrap();
    for found in [0, 3, most] {
        let mut numbers = vec![0.0; most as usize + 1];
        numbers[..found as usize].fill(1.0);
        let outputs = partition.run(vec![floats("x", &numbers)]).await.unwrap().outputs;
        assert_eq!(outputs[0].spec().shape, [1, found]);
    }
    let too_many = partition.run(vec![floats("x", &vec![1.0; most as usize + 1])]).await.unwrap_err();
    assert!(matches!(&too_many, RunError::UnexpectedOutputs(text) if text.contains("`y`")), "{too_many}");
    let y = TensorSpec { shape: vec![1], ..y };
    let partition = engine(1).load("nonzero".into(), PartitionSource { outputs: vec![y], ..source }).await;
    let error = partition.unwrap_err();
    assert!(matches!(&error, LoadError::Declaration(_)), "{error}");
}

async fn until_queued(partition: &Partition, jobs: usize) {
    while partition.queue_len() != jobs {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_recovers() {
    let engine = engine(1);
    let partition = engine.load("add".into(), addition()).await.unwrap();
    let only_permit = engine.shared.permits.acquire();
    let runs: Vec<_> = (0..QUEUE_JOBS_MIN)
        .map(|_| {
            let partition = partition.clone();
            tokio::spawn(async move { partition.run(summands()).await })
        })
        .collect();
    until_queued(&partition, QUEUE_JOBS_MIN).await;
    assert_eq!(partition.run(summands()).await.unwrap_err(), RunError::QueueFull);
    drop(only_permit);
    for run in runs {
        assert!(run.await.unwrap().is_ok());
    }
    assert!(partition.run(summands()).await.is_ok());
}

#[tokio::test]
async fn a_queue_of_short_runs_is_longer() {
    let engine = engine(1);
    let partition = engine.load("add".into(), addition()).await.unwrap();
    partition.run(summands()).await.unwrap();
    let only_permit = engine.shared.permits.acquire();
    let run = || {
        let partition = partition.clone();
        tokio::spawn(async move { partition.run(summands()).await })
    };
    // An addition takes microseconds.
    let runs: Vec<_> = (0..QUEUE_JOBS_MIN + 1).map(|_| run()).collect();
    until_queued(&partition, QUEUE_JOBS_MIN + 1).await;
    drop(only_permit);
    for run in runs {
        assert!(run.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_partition_without_a_permit_waits() {
    let engine = engine(1);
    let partition = engine.load("add".into(), addition()).await.unwrap();
    let only_permit = engine.shared.permits.acquire();
    let run = tokio::spawn({
        let partition = partition.clone();
        async move { partition.run(summands()).await }
    });
    // Its thread asks for a permit, and stays there.
    while engine.shared.permits.waiting() != 1 {
        tokio::task::yield_now().await;
    }
    assert!(!run.is_finished());
    drop(only_permit);
    assert!(run.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_is_left_out() {
    let engine = engine(1);
    let partition = engine.load("add".into(), addition()).await.unwrap();
    let only_permit = engine.shared.permits.acquire();
    let run = tokio::spawn({
        let partition = partition.clone();
        async move { partition.run(summands()).await }
    });
    until_queued(&partition, 1).await;
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    drop(only_permit);
    until_queued(&partition, 0).await;
    assert_eq!(partition.run_time(), None);
    assert!(partition.run(summands()).await.is_ok());
}

#[tokio::test]
async fn dropping_the_last_handle_frees_thread_and_session() {
    let engine = engine(1);
    let mut sessions = engine.sessions();
    let partition = engine.load("add".into(), addition()).await.unwrap();
    let second = partition.clone();
    drop(partition);
    assert_eq!(*sessions.borrow_and_update(), 1);
    assert!(second.run(summands()).await.is_ok());
    drop(second);
    sessions.wait_for(|count| *count == 0).await.unwrap();
}

/// y = x W once more, which also gives x and W themselves.
fn product_with_what_it_is_given(location: &str) -> PartitionSource {
    let [x, y] = ["x", "y"].map(|name| spec(name, DType::F32, &[1, 2]));
    let matrix = spec("W", DType::F32, &[2, 2]);
    let weights = [ExternalWeight { spec: &matrix, location }];
    let outputs = vec![y, x.clone(), matrix.clone()];
    let nodes = [node("MatMul", &["x", "W"], &["y"])];
    let model = tiny_onnx::model(&nodes, &weights, std::slice::from_ref(&x), &outputs);
    PartitionSource { outputs, model, ..product(location) }
}

#[tokio::test]
async fn outputs_outlive_later_runs_inputs_and_the_session() {
    let engine = engine(1);
    let mut source = product_with_what_it_is_given("weights");
    let bytes = bytemuck::cast_slice(&MATRIX).into();
    source.weights.push(Weight { location: "weights".into(), bytes });
    let partition = engine.load("product".into(), source).await.unwrap();
    let x = spec("x", DType::F32, &[1, 2]);
    let mut kept = Vec::new();
    for factor in 1..=20u8 {
        let input = tensor(&x, bytemuck::cast_slice(&[f32::from(factor), 0.0]));
        kept.push(partition.run(vec![input]).await.unwrap().outputs);
    }
    drop(partition);
    engine.sessions().wait_for(|count| *count == 0).await.unwrap();
    for (factor, outputs) in (1..=20u8).map(f32::from).zip(&kept) {
        let read = |index: usize| outputs[index].data().as_slice_of::<f32>().unwrap();
        assert_eq!(read(0), [factor, 2.0 * factor]);
        assert_eq!(read(1), [factor, 0.0]);
        assert_eq!(read(2), MATRIX);
    }
}

#[tokio::test]
async fn probing_tells_every_output() {
    let x = spec("x", DType::F32, &[3]);
    let nodes = [
        node("NonZero", &["x"], &["places"]),
        node("Neg", &["x"], &["negative"]),
        node("SequenceConstruct", &["x", "negative"], &["list"]),
    ];
    let model = tiny_onnx::model_of_bare_outputs(&nodes, &[x], &["places", "list", "negative"]);
    let input = floats("x", &[0.0, 5.0, 7.0]);
    let engine = engine(1);
    let probed = engine.probe(model.clone(), Vec::new(), vec![input], OrtLevel::Off).await.unwrap();
    assert_eq!(probed[0], ("places".into(), Probed::Tensor(spec("places", DType::I64, &[1, 2]))));
    assert!(matches!(&probed[1], (name, Probed::Unsupported(_)) if name == "list"));
    assert_eq!(probed[2], ("negative".into(), Probed::Tensor(spec("negative", DType::F32, &[3]))));
    let wrong = engine.probe(model, Vec::new(), vec![floats("x", &[0.0])], OrtLevel::Off).await;
    assert!(matches!(wrong, Err(ProbeError::Run(_))));
}

#[tokio::test]
async fn profiles_and_calibration_are_plausible() {
    let engine = engine(1);
    let partition = engine.load("add".into(), addition()).await.unwrap();
    let budget = ProfileBudget { warm_up_runs: 1, runs_max: 5, time_max: Duration::from_secs(60) };
    let times_us = profile(&partition, &summands(), budget).await.unwrap();
    assert!(times_us.len() == 5 && times_us.is_sorted());
    let once = ProfileBudget { time_max: Duration::ZERO, ..budget };
    assert_eq!(profile(&partition, &summands(), once).await.unwrap().len(), 1);
    let speeds = calibrate(&engine).await.unwrap();
    for class in WorkClass::ALL {
        assert!((1.0..1e8).contains(&speeds.of(class)), "{}: {}", class.name(), speeds.of(class));
    }
}

#[test]
fn an_old_library_is_refused_unopened() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libonnxruntime.so.1.28.0");
    std::fs::write(&library, b"").unwrap();
    let error =
        Engine::open(&EngineConfig { library, permits: NonZeroUsize::MIN, batch_within: None }).unwrap_err();
    assert!(matches!(error, EngineError::TooOld { .. }), "{error}");
}
