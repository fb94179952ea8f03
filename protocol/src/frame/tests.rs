//! Frames and signs: round trips, golden bytes, and whatever else may come.

use super::*;
use crate::codec::payload::Scratch;
use crate::ids::{DeploymentId, NodeId, VariantId};
use crate::plan::{Plan, Stage};
use crate::refusal::Refusal;
use crate::tensor::TensorData;
use proptest::prelude::*;

fn tensors() -> Vec<Tensor> {
    [("image", vec![1, 3, 2, 2]), ("", vec![])]
        .map(|(name, shape): (&str, Vec<u64>)| {
            let spec = TensorSpec { name: name.into(), dtype: DType::F32, shape };
            let data = TensorData::copied_from(&vec![7; spec.byte_length().unwrap() as usize]);
            Tensor::new(spec, data).unwrap()
        })
        .to_vec()
}

fn raw() -> Vec<CodedTensor> {
    tensors().into_iter().map(CodedTensor::from).collect()
}

fn header(traces: &[StageTrace]) -> Header {
    let edge = Edge { from: ORIGIN, to: 0 };
    let key = DeliveryKey { request: RequestId([1; 16]), attempt: 1, edge };
    Header::of(key, PlanId([2; 16]), 30_000, traces, &tensors())
}

#[test]
fn frames_round_trip() {
    let traces =
        [StageTrace { stage: 3, host: 1, receive_us: 1, decode_us: 2, wait_us: 3, run_us: 4, encode_us: 5 }];
    for plan in [None, Some(Arc::new(encoded_plan()))] {
        let encoded = plan.as_ref().map(|plan| plan.bytes().clone()).unwrap_or_default();
        let id = plan.as_ref().map_or(PlanId([2; 16]), |plan| plan.id());
        let header = Header { plan: id, ..header(&traces) }.with_plan(encoded.len());
        assert_eq!(Header::from_bytes(&header.to_bytes()), Ok(header));
        let bytes = preamble(&encoded, &traces, &raw());
        assert_eq!(bytes.len(), preamble_bytes(&header));
        let other = Arc::new(EncodedPlan::of(Arc::new(plan_of(VariantId { index: 1, ..variant() }))));
        for known in [None, plan.as_ref(), Some(&other)] {
            let read = read_preamble(&header, &bytes, known).unwrap();
            let described = raw().iter().map(described_as).collect();
            assert_eq!(read, Preamble { plan: plan.clone(), traces: traces.to_vec(), described });
        }
    }
}

#[test]
fn redundancy_travels_with_the_origins_trace() {
    for redundancy in [Redundancy::Hedge, Redundancy::Warm, Redundancy::Duplicate] {
        let traces = [StageTrace { host: 2, ..StageTrace::default() }, redundancy.trace()];
        let header = header(&traces);
        let read = read_preamble(&header, &preamble(&[], &traces, &raw()), None).unwrap();
        assert_eq!(Redundancy::of(&read.traces), redundancy);
    }
    assert_eq!(Redundancy::of(&[]), Redundancy::Warm);
    assert_eq!(Redundancy::from_number(3), Redundancy::Warm, "of a later version");
}

fn variant() -> VariantId {
    VariantId { deployment: DeploymentId([5; 16]), index: 0 }
}

fn encoded_plan() -> EncodedPlan {
    EncodedPlan::of(Arc::new(plan_of(variant())))
}

fn plan_of(variant: VariantId) -> Plan {
    let node = NodeId([3; 32]);
    let backups = vec![NodeId([4; 32])];
    let stages = vec![Stage { node, first: 0, end: 2, codec: Codec::Raw, backups, branch: None }];
    Plan { variant, origin: NodeId([6; 32]), stages, result_codec: Codec::Raw }
}

#[test]
fn a_plan_that_is_not_the_named_one_is_refused() {
    let plan = Arc::new(encoded_plan());
    let encoded = plan.bytes();
    let named = Header { plan: plan.id(), ..header(&[]) }.with_plan(encoded.len());
    for known in [None, Some(&plan)] {
        let read =
            |header: &Header, encoded: &[u8]| read_preamble(header, &preamble(encoded, &[], &raw()), known);
        assert!(read(&named, encoded).is_ok());
        let other = Header { plan: PlanId([9; 16]), ..named };
        assert_eq!(read(&other, encoded), Err(BadFrame::Plan));
        assert_eq!(read(&named, &vec![0xff; encoded.len()]), Err(BadFrame::Plan));
    }
    let long = header(&[]).with_plan(PLAN_BYTES_MAX + 1);
    assert_eq!(Header::from_bytes(&long.to_bytes()), Err(BadFrame::AboveLimit));
}

fn described_as(tensor: &CodedTensor) -> Descriptor {
    let coded_bytes = tensor.bytes().len() as u64;
    Descriptor { spec: tensor.spec().clone(), codec: tensor.codec(), coded_bytes }
}

fn f32_tensor(elements: u64) -> Tensor {
    let spec = TensorSpec { name: "big".into(), dtype: DType::F32, shape: vec![elements] };
    let data = TensorData::copied_from(&vec![0; 4 * elements as usize]);
    Tensor::new(spec, data).unwrap()
}

#[test]
fn a_header_counts_coded_bytes() {
    let mut scratch = Scratch::default();
    for codec in Codec::ALL {
        let raw = [f32_tensor(1000)];
        let tensors = [CodedTensor::encode(codec, &raw[0], &mut scratch)];
        assert_eq!(tensors[0].codec(), codec);
        let header = Header::of(header(&[]).key, PlanId([2; 16]), 1, &[], &raw).coded(&tensors);
        assert_eq!(header.payload_bytes, tensors[0].bytes().len() as u64);
        let described = read_preamble(&header, &preamble(&[], &[], &tensors), None).unwrap().described;
        assert_eq!(described, [described_as(&tensors[0])]);
    }
}

#[test]
fn tensors_that_decode_to_more_than_a_frame_may_carry_are_refused() {
    let elements = FRAME_PAYLOAD_BYTES_MAX / 4;
    let mut scratch = Scratch::default();
    let raw = vec![f32_tensor(elements / 64 + 1); 64];
    let tensors = vec![CodedTensor::encode(Codec::ShuffleLz4, &raw[0], &mut scratch); 64];
    let header = Header::of(header(&[]).key, PlanId([2; 16]), 1, &[], &raw).coded(&tensors);
    assert!(header.payload_bytes < FRAME_PAYLOAD_BYTES_MAX);
    assert_eq!(read_preamble(&header, &preamble(&[], &[], &tensors), None), Err(BadFrame::AboveLimit));
}

/// The bytes as version 2 defines them: a change here is a change of the protocol.
#[test]
fn golden_bytes_of_version_2() {
    let mut expected = b"STRM\x02\x00\x01\x00".to_vec();
    expected.extend([1; 16]);
    expected.extend([2; 16]);
    expected.extend([0xff, 0xff, 0, 0, 0x30, 0x75, 0, 0, 2, 0, 0, 0, 63, 0, 0, 0, 52, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0; 4]);
    assert_eq!(header(&[]).to_bytes().to_vec(), expected);
    let mut expected = vec![5, 0, 1, 4, 0, 48, 0, 0, 0, 0, 0, 0, 0];
    expected.extend([1u64, 3, 2, 2].map(u64::to_le_bytes).concat());
    expected.extend(b"image");
    expected.extend([0, 0, 1, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(preamble(&[], &[], &raw()), expected);
    let refused = Sign::Refused { stage: 2, reason: Refusal::NoMemory };
    assert_eq!(refused.to_bytes(), [7, 0, 2, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_payload_that_does_not_match_the_shapes_is_refused() {
    let mut wrong = header(&[]);
    wrong.payload_bytes += 4;
    assert_eq!(read_preamble(&wrong, &preamble(&[], &[], &raw()), None), Err(BadFrame::Descriptors));
}

#[test]
fn what_is_announced_too_large_is_refused_on_the_header() {
    let mut huge = header(&[]);
    huge.payload_bytes = 1 << 40;
    assert_eq!(Header::from_bytes(&huge.to_bytes()), Err(BadFrame::AboveLimit));
}

#[test]
fn signs_round_trip() {
    let signs = [
        Sign::Receiving(1 << 33),
        Sign::Taken(345),
        Sign::Queued(12),
        Sign::Working,
        Sign::Sending,
        Sign::Passed,
        Sign::Refused { stage: 4, reason: Refusal::Overloaded },
        Sign::Waiting(2),
    ];
    for sign in signs {
        assert_eq!(Sign::from_bytes(&sign.to_bytes()), Ok(sign));
    }
    assert_eq!(Sign::from_bytes(&[9; SIGN_BYTES]), Err(BadFrame::Sign));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(
        header_bytes in any::<[u8; 32]>(),
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..6].copy_from_slice(b"STRM\x02\x00");
        bytes[6..38].copy_from_slice(&header_bytes);
        bytes[48] = header_bytes[0] % 4;
        bytes[50] = header_bytes[1] % 4;
        bytes[52..56].copy_from_slice(&(rest.len() as u32).to_le_bytes());
        bytes[64] = header_bytes[2] % 3;
        if let Ok(header) = Header::from_bytes(&bytes) {
            let _ = read_preamble(&header, &rest, None);
        }
    }
}
