//! Requests over gRPC mean what the same requests over HTTP mean.

use axum::http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::json;
use stormo_protocol::codec::payload::Codec;
use stormo_protocol::ids::{PlanId, RequestId};
use stormo_protocol::model::MEANING;
use stormo_protocol::tensor::TensorSpec;

use super::*;
use crate::serve::oip::http::parse;

fn tensor() -> impl Strategy<Value = Tensor> {
    let dtypes = prop::sample::select(DType::ALL.to_vec());
    (dtypes, prop::collection::vec(0..4_u64, 0..4), "[a-z]{1,8}").prop_flat_map(|(dtype, shape, name)| {
        let spec = TensorSpec { name, dtype, shape };
        let elements = spec.elements().unwrap() as usize;
        let data = match dtype.bytes() {
            None => prop::collection::vec("[ -é]{0,9}", elements)
                .prop_map(|texts| TensorData::of_texts(texts.iter().map(String::as_str)).unwrap())
                .boxed(),
            Some(bytes) => {
                let most = if dtype == DType::Bool { 1 } else { u8::MAX };
                prop::collection::vec(0..=most, elements * bytes as usize)
                    .prop_map(|bytes| TensorData::copied_from(&bytes))
                    .boxed()
            }
        };
        data.prop_map(move |data| Tensor::new(spec.clone(), data).unwrap())
    })
}

fn limits() -> impl Strategy<Value = Map<String, Value>> {
    let some = [
        ("max_latency_ms", json!(12.5)),
        ("min_accuracy", json!(0.5)),
        ("timeout_ms", json!(2000)),
        ("force_first", json!(true)),
        ("redundancy", json!("duplicate")),
        ("objective", json!("energy")),
        ("variant", json!("n")),
        ("plan_id", json!("0123456789abcdef0123456789abcdef")),
    ];
    prop::sample::subsequence(some.to_vec(), 0..=some.len())
        .prop_map(|some| some.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn over_http(asked: &Fields) -> Result<Asked, CallError> {
    let Fields { id, inputs, limits, outputs } = asked;
    let mut binary = Vec::new();
    let inputs = inputs.iter().map(|tensor| {
        let bytes = tensor.data().as_bytes();
        binary.extend_from_slice(bytes);
        let spec = tensor.spec();
        json!({
            "name": spec.name, "shape": spec.shape, "datatype": spec.dtype.oip_name(),
            "parameters": { "binary_data_size": bytes.len() },
        })
    });
    let inputs: Vec<Value> = inputs.collect();
    let mut limits = limits.clone();
    limits.insert("binary_data_output".into(), json!(true));
    let outputs: Vec<Value> = outputs.iter().map(|name| json!({ "name": name })).collect();
    let head = json!({ "id": id, "parameters": limits, "inputs": inputs, "outputs": outputs });
    let mut body = serde_json::to_vec(&head).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("inference-header-content-length", HeaderValue::from(body.len()));
    body.append(&mut binary);
    parse("m".into(), Some(7), &headers, &body)
}

/// `typed`: with its values one by one, where the protocol has a place for them.
fn over_grpc(asked: &Fields, typed: bool) -> Result<Asked, CallError> {
    let Fields { id, inputs, limits, outputs } = asked;
    let typed = typed && inputs.iter().all(|tensor| !matches!(tensor.spec().dtype, DType::F16 | DType::BF16));
    let described = inputs.iter().map(|tensor| InferInputTensor {
        name: tensor.spec().name.clone(),
        datatype: tensor.spec().dtype.oip_name().into(),
        shape: tensor.spec().shape.iter().map(|dim| *dim as i64).collect(),
        parameters: BTreeMap::new(),
        contents: typed.then(|| contents(tensor)),
    });
    let raw = inputs.iter().filter(|_| !typed);
    let request = ModelInferRequest {
        model_name: "m".into(),
        model_version: "7".into(),
        id: id.clone(),
        parameters: limits.iter().map(|(name, value)| (name.clone(), parameter(value.clone()))).collect(),
        inputs: described.collect(),
        outputs: outputs
            .iter()
            .map(|name| InferRequestedOutputTensor { name: name.clone(), ..Default::default() })
            .collect(),
        raw_input_contents: raw.map(|tensor| tensor.data().as_bytes().to_vec().into()).collect(),
    };
    let bytes = Bytes::from(request.encode_to_vec());
    parsed_bytes(&bytes).unwrap();
    super::asked(ModelInferRequest::decode(bytes).unwrap(), false)
}

fn contents(tensor: &Tensor) -> InferTensorContents {
    let bytes = tensor.data().as_bytes();
    let mut all = InferTensorContents::default();
    macro_rules! numbers {
        ($type:ty) => {
            bytes.as_chunks().0.iter().map(|chunk| <$type>::from_le_bytes(*chunk))
        };
    }
    match tensor.spec().dtype {
        DType::Bool => all.bool_contents = bytes.iter().map(|byte| *byte != 0).collect(),
        DType::I8 => all.int_contents = numbers!(i8).map(i32::from).collect(),
        DType::I16 => all.int_contents = numbers!(i16).map(i32::from).collect(),
        DType::I32 => all.int_contents = numbers!(i32).collect(),
        DType::I64 => all.int64_contents = numbers!(i64).collect(),
        DType::U8 => all.uint_contents = numbers!(u8).map(u32::from).collect(),
        DType::U16 => all.uint_contents = numbers!(u16).map(u32::from).collect(),
        DType::U32 => all.uint_contents = numbers!(u32).collect(),
        DType::U64 => all.uint64_contents = numbers!(u64).collect(),
        DType::F32 => all.fp32_contents = numbers!(f32).collect(),
        DType::F64 => all.fp64_contents = numbers!(f64).collect(),
        DType::Text => {
            let texts = tensor.texts().into_iter().flatten();
            all.bytes_contents = texts.map(|text| text.as_bytes().to_vec().into()).collect();
        }
        DType::F16 | DType::BF16 => {}
    }
    all
}

/// What both say.
#[derive(Debug)]
struct Fields {
    id: String,
    inputs: Vec<Tensor>,
    limits: Map<String, Value>,
    outputs: Vec<String>,
}

proptest! {
    #[test]
    fn a_request_means_the_same_over_grpc_and_over_http(
        id in "[a-z]{1,8}",
        inputs in prop::collection::vec(tensor(), 1..4),
        limits in limits(),
        outputs in prop::collection::vec("[a-z]{1,8}", 0..3),
    ) {
        let fields = Fields { id, inputs, limits, outputs };
        let expected = over_http(&fields).unwrap();
        prop_assert_eq!(&expected.inputs, &fields.inputs);
        prop_assert_eq!(&over_grpc(&fields, false).unwrap(), &expected);
        prop_assert_eq!(&over_grpc(&fields, true).unwrap(), &expected);
    }
}

#[test]
fn an_encoded_image_is_one_text_that_is_none() {
    let image = [0xff, 0xd8, 0xff, 0xe0];
    let input = |contents| InferInputTensor {
        name: "image".into(),
        datatype: "BYTES".into(),
        shape: vec![1],
        parameters: BTreeMap::new(),
        contents,
    };
    let raw: Bytes = [&[4, 0, 0, 0], &image[..]].concat().into();
    let contents = InferTensorContents { bytes_contents: vec![image.to_vec().into()], ..Default::default() };
    let over_raw = tensors(vec![input(None)], &[raw]).unwrap();
    let over_contents = tensors(vec![input(Some(contents))], &[]).unwrap();
    assert_eq!(over_raw, over_contents);
    assert_eq!(over_raw[0].data().as_bytes(), image);
}

#[test]
fn what_does_not_fit_is_told() {
    let input = |datatype: &str, shape: &[i64], contents: Option<InferTensorContents>| InferInputTensor {
        name: "x".into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        parameters: BTreeMap::new(),
        contents,
    };
    let ints =
        |numbers: &[i32]| Some(InferTensorContents { int_contents: numbers.to_vec(), ..Default::default() });
    let raw = || vec![Bytes::from_static(&[0; 4])];
    let wrong = [
        (vec![input("INT8", &[1], ints(&[300]))], vec![], "a value is no INT8"),
        (vec![input("INT32", &[2], ints(&[1]))], vec![], "4 bytes of data"),
        (vec![input("INT64", &[1], ints(&[1]))], vec![], "0 bytes of data"),
        (vec![input("FP16", &[1], ints(&[1]))], vec![], "send raw_input_contents"),
        (vec![input("TEXT", &[1], ints(&[1]))], vec![], "`TEXT` is not supported"),
        (vec![input("INT32", &[-1], ints(&[1]))], vec![], "a dimension is below 0"),
        (vec![input("INT32", &[1], None)], vec![], "neither contents nor"),
        (vec![input("INT32", &[1], ints(&[1]))], raw(), "both contents and"),
        (vec![], raw(), "0 inputs and 1 raw_input_contents"),
    ];
    for (inputs, raw, expected) in wrong {
        let error = tensors(inputs, &raw).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let request = |name: &str, choice| ModelInferRequest {
        parameters: [(name.to_owned(), InferParameter { choice: Some(choice) })].into(),
        ..Default::default()
    };
    let wrong = [
        (request("timeout_ms", Choice::Double(f64::NAN)), "not \"NaN\""),
        (request("sequence_id", Choice::Int64(1)), "no parameter `sequence_id`"),
        (request("binary_data_output", Choice::Bool(false)), "outputs are always bytes"),
        (request(WANTS_FINAL, Choice::Bool(true)), "no parameter `triton_"),
        (ModelInferRequest { model_version: "one".into(), ..Default::default() }, "`one` is no version"),
        (ModelInferRequest { model_name: "m".repeat(1025), ..Default::default() }, "model has 1025 bytes"),
        (ModelInferRequest { id: "i".repeat(1025), ..Default::default() }, "the id has 1025 bytes"),
    ];
    for (request, expected) in wrong {
        let error = asked(request, false).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(asked(request(WANTS_FINAL, Choice::Bool(true)), true).is_ok());
    let parameters = [("shared_memory_region".to_owned(), InferParameter::default())].into();
    let error =
        tensors(vec![InferInputTensor { parameters, ..input("INT32", &[1], None) }], &raw()).unwrap_err();
    assert!(error.to_string().contains("no parameter `shared_memory_region`"), "{error}");
    let parameters = [("classification".to_owned(), InferParameter::default())].into();
    let error = wanted(vec![InferRequestedOutputTensor { name: "y".into(), parameters }]).unwrap_err();
    assert!(error.to_string().contains("no parameter `classification`"), "{error}");
}

#[test]
fn a_request_is_tried_within_its_call_and_not_as_long_as_its_stream() {
    let hour_ms = 3_600_000;
    assert_eq!(timeout_ms(None, hour_ms, false), hour_ms);
    assert_eq!(timeout_ms(None, hour_ms, true), TIMEOUT_MS_DEFAULT);
    for is_stream in [false, true] {
        assert_eq!(timeout_ms(Some(hour_ms), hour_ms - 1, is_stream), hour_ms - 1);
        assert_eq!(timeout_ms(Some(50), hour_ms, is_stream), 50);
        assert_eq!(timeout_ms(None, 10, is_stream), 10);
    }
}

#[test]
fn an_answer_tells_how_it_came_about() {
    let output = |name: &str, dtype, shape, bytes: &[u8]| {
        Tensor::new(TensorSpec { name: name.into(), dtype, shape }, TensorData::copied_from(bytes)).unwrap()
    };
    let answer = Answer {
        request: RequestId([1; 16]),
        attempts: 2,
        failovers: 1,
        version: 7,
        variant: "n".into(),
        plan: PlanId([2; 16]),
        nodes: vec!["a".into(), "b".into()],
        codecs: vec![Codec::Raw],
        outputs: vec![
            output("y", DType::F16, vec![2], &[1, 2, 3, 4]),
            output(MEANING, DType::U8, vec![2], b"{}"),
        ],
        latency_ms: 1.5,
        energy_j: None,
        predicted_energy_j: None,
        late: false,
    };
    let asked = Asked {
        model: "m".into(),
        version: None,
        id: Some("mine".into()),
        inputs: vec![],
        options: Default::default(),
        outputs: Wanted { named: vec![], as_bytes: true },
    };
    let response = response(asked, &answer, true).unwrap();
    assert_eq!((response.model_name.as_str(), response.model_version.as_str()), ("m", "7"));
    assert_eq!(response.id, "mine");
    assert_eq!(response.raw_output_contents, [&[1, 2, 3, 4][..], b"\x02\0\0\0{}"]);
    let described: Vec<_> = response.outputs.iter().map(|output| output.datatype.as_str()).collect();
    assert_eq!(described, ["FP16", "BYTES"]);
    let told = |name: &str| response.parameters[name].choice.clone().unwrap();
    assert_eq!(told("nodes"), Choice::Text("a,b".into()));
    assert_eq!(told("attempts"), Choice::Int64(2));
    assert_eq!(told("latency_ms"), Choice::Double(1.5));
    assert_eq!(told("late"), Choice::Bool(false));
    assert_eq!(told(IS_FINAL), Choice::Bool(true));
}
