//! Tensors on their way from one stage to the next, and the receiver's signs of life.
//!
//! A frame is a header of 68 bytes, then the plan, then `traces` of 24 bytes each, then descriptors, then the
//! coded payloads in the order of the descriptors. The plan is there so that whoever receives a frame for a
//! stage needs nothing else to know what to do; the origin knows its own plan, and gets none. All numbers are little-endian; nothing is padded.
//!
//! | bytes | header field |
//! |---|---|
//! | 0..4 | magic `STRM` |
//! | 4 | version, 2 |
//! | 5 | zero |
//! | 6..8 | attempt |
//! | 8..24 | request id |
//! | 24..40 | plan id |
//! | 40..42, 42..44 | edge: from stage, to stage (65535: the origin) |
//! | 44..48 | remaining time, ms |
//! | 48..50 | tensors |
//! | 50..52 | traces |
//! | 52..56 | bytes of descriptors |
//! | 56..64 | bytes of payload, as coded |
//! | 64..68 | bytes of the plan |
//!
//! A descriptor: name length (u16), element type (u8), rank (u8), codec (u8), bytes of its payload as coded
//! (u64), dimensions (u64 each), name. The plan is encoded like a control message.

mod sign;

use std::sync::Arc;

use crate::codec::payload::{Codec, CodedTensor, check_length};
use crate::ids::{PlanId, RequestId};
use crate::limits::{
    BACKUPS_MAX, DEADLINE_MS_MAX, FRAME_DESCRIPTORS_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, FRAME_TENSORS_MAX,
    PLAN_BYTES_MAX, RANK_MAX, STAGES_MAX, TENSOR_NAME_BYTES_MAX,
};
use crate::plan::EncodedPlan;
use crate::tensor::{DType, Tensor, TensorSpec};

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 68;
/// Bytes of one stage's trace.
pub const TRACE_BYTES: usize = 24;

/// Traces of a frame: of each stage, and of the origin.
const TRACES_MAX: usize = STAGES_MAX + 1;
/// Bytes of a descriptor without dimensions and name.
const DESCRIPTOR_BYTES: usize = 13;
const MAGIC: [u8; 4] = *b"STRM";
const VERSION: u8 = 2;

pub use sign::{SIGN_BYTES, Sign};

/// The end of an edge that is no stage: the node where the request entered.
pub const ORIGIN: u16 = u16::MAX;

/// Between which stages tensors travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Stage that sends, or [`ORIGIN`].
    pub from: u16,
    /// Stage that receives, or [`ORIGIN`].
    pub to: u16,
}

/// Which delivery this is: inference is idempotent, so a second one of the same key is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryKey {
    /// The request.
    pub request: RequestId,
    /// Which try at it.
    pub attempt: u16,
    /// The edge.
    pub edge: Edge,
}

/// How long one stage took, measured by its host; the origin collects them with the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTrace {
    /// The stage; [`ORIGIN`] for what encoding the input took.
    pub stage: u16,
    /// Which of its hosts ran it: 0 the primary, from 1 on its backups. Of [`ORIGIN`] the request's [`Redundancy`].
    pub host: u16,
    /// From the first byte of the frame to its last, microseconds.
    pub receive_us: u32,
    /// Decoding the payload, microseconds.
    pub decode_us: u32,
    /// From then to the start of the run (loading included), microseconds.
    pub wait_us: u32,
    /// The run itself, microseconds.
    pub run_us: u32,
    /// Encoding the output, microseconds.
    pub encode_us: u32,
}

/// When a host that has a stage loaded as well, a backup, is sent the same. It travels with a request's traces, and builds that know
/// nothing of it do and say as with [`Redundancy::Warm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Redundancy {
    /// When the one before is lost, or refuses.
    #[default]
    Warm = 0,
    /// Also when it takes longer than nearly always, within a budget.
    Hedge = 1,
    /// From the start.
    Duplicate = 2,
}

impl Redundancy {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Warm, Self::Hedge, Self::Duplicate];

    /// From the number on the wire; one of a later version is as none.
    pub fn from_number(number: u16) -> Self {
        Self::ALL.into_iter().find(|known| *known as u16 == number).unwrap_or_default()
    }

    /// As requests call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Hedge => "hedge",
            Self::Duplicate => "duplicate",
        }
    }

    /// Of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// As the origin's trace tells it.
    pub fn of(traces: &[StageTrace]) -> Self {
        let origin = traces.iter().find(|trace| trace.stage == ORIGIN);
        origin.map_or(Self::default(), |trace| Self::from_number(trace.host))
    }

    /// The origin's trace, which tells it to all stages.
    pub fn trace(self) -> StageTrace {
        StageTrace { stage: ORIGIN, host: self as u16, ..StageTrace::default() }
    }
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What is delivered.
    pub key: DeliveryKey,
    /// The plan it belongs to.
    pub plan: PlanId,
    /// Time left for the whole request, milliseconds.
    pub remaining_ms: u32,
    /// Tensors that follow.
    pub tensors: u16,
    /// Stage traces that follow.
    pub traces: u16,
    /// Bytes of descriptors.
    pub descriptors_bytes: u32,
    /// Bytes of payload, as coded.
    pub payload_bytes: u64,
    /// Bytes of the encoded plan; none in what goes to the origin.
    pub plan_bytes: u32,
}

/// What a frame says of one of its tensors before the payload comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is once decoded.
    pub spec: TensorSpec,
    /// How its payload is coded.
    pub codec: Codec,
    /// Bytes of its payload, as coded: at most the raw ones, and possible for this codec.
    pub coded_bytes: u64,
}

impl Descriptor {
    /// Of a tensor that is sent as it is.
    pub fn raw(tensor: &Tensor) -> Self {
        let coded_bytes = tensor.data().as_bytes().len() as u64;
        Self { spec: tensor.spec().clone(), codec: Codec::Raw, coded_bytes }
    }
}

/// Why a frame is not read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Does not begin like a frame of this version.
    #[error("this is no frame of version {VERSION}")]
    NotAFrame,
    /// Announces more than [`limits`](crate::limits) allow.
    #[error("the frame announces more than is allowed")]
    AboveLimit,
    /// The descriptors do not follow the format or disagree with the header.
    #[error("the frame's descriptors are malformed")]
    Descriptors,
    /// The plan is malformed, or not the one that the header names.
    #[error("the frame's plan is malformed, or another one than its header names")]
    Plan,
    /// A sign of life of an unknown kind.
    #[error("a sign of life of an unknown kind")]
    Sign,
}

/// Takes fixed-size numbers off the front of bytes.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }
}

impl Header {
    /// The header of these tensors, sent as they are.
    pub fn of(
        key: DeliveryKey,
        plan: PlanId,
        remaining_ms: u32,
        traces: &[StageTrace],
        tensors: &[Tensor],
    ) -> Self {
        Self {
            key,
            plan,
            remaining_ms,
            tensors: tensors.len() as u16,
            traces: traces.len() as u16,
            descriptors_bytes: tensors.iter().map(|tensor| descriptor_bytes(tensor.spec()) as u32).sum(),
            payload_bytes: crate::tensor::total_bytes(tensors),
            plan_bytes: 0,
        }
    }

    /// The same header for the same tensors, sent like this.
    #[must_use]
    pub fn coded(self, tensors: &[CodedTensor]) -> Self {
        Self { payload_bytes: tensors.iter().map(|tensor| tensor.bytes().len() as u64).sum(), ..self }
    }

    /// The same header of a frame with an encoded plan of so many bytes.
    #[must_use]
    pub fn with_plan(self, bytes: usize) -> Self {
        Self { plan_bytes: bytes as u32, ..self }
    }

    /// As sent.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[6..8].copy_from_slice(&self.key.attempt.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.key.request.0);
        bytes[24..40].copy_from_slice(&self.plan.0);
        bytes[40..42].copy_from_slice(&self.key.edge.from.to_le_bytes());
        bytes[42..44].copy_from_slice(&self.key.edge.to.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.remaining_ms.to_le_bytes());
        bytes[48..50].copy_from_slice(&self.tensors.to_le_bytes());
        bytes[50..52].copy_from_slice(&self.traces.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.descriptors_bytes.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[64..68].copy_from_slice(&self.plan_bytes.to_le_bytes());
        bytes
    }

    /// Reads a header and checks it against the limits, before anything is allocated for it.
    ///
    /// # Errors
    /// When it is no frame of this version or announces too much.
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Self, BadFrame> {
        let mut cursor = Cursor(bytes);
        if cursor.take() != Some(MAGIC) || cursor.take() != Some([VERSION, 0]) {
            return Err(BadFrame::NotAFrame);
        }
        let header = Self::fields(&mut cursor).ok_or(BadFrame::NotAFrame)?;
        let within = (1..=FRAME_TENSORS_MAX).contains(&usize::from(header.tensors))
            && usize::from(header.traces) <= TRACES_MAX
            && header.plan_bytes as usize <= PLAN_BYTES_MAX
            && header.descriptors_bytes as usize <= FRAME_DESCRIPTORS_BYTES_MAX
            && header.payload_bytes <= FRAME_PAYLOAD_BYTES_MAX
            && header.remaining_ms <= DEADLINE_MS_MAX;
        if within { Ok(header) } else { Err(BadFrame::AboveLimit) }
    }

    fn fields(cursor: &mut Cursor<'_>) -> Option<Self> {
        let attempt = cursor.u16()?;
        let request = RequestId(cursor.take()?);
        let plan = PlanId(cursor.take()?);
        let edge = Edge { from: cursor.u16()?, to: cursor.u16()? };
        Some(Self {
            key: DeliveryKey { request, attempt, edge },
            plan,
            remaining_ms: cursor.u32()?,
            tensors: cursor.u16()?,
            traces: cursor.u16()?,
            descriptors_bytes: cursor.u32()?,
            payload_bytes: cursor.u64()?,
            plan_bytes: cursor.u32()?,
        })
    }
}

fn descriptor_bytes(spec: &TensorSpec) -> usize {
    DESCRIPTOR_BYTES + 8 * spec.shape.len() + spec.name.len()
}

/// Writes plan, traces and descriptors: all between header and payload.
pub fn preamble(plan: &[u8], traces: &[StageTrace], tensors: &[CodedTensor]) -> Vec<u8> {
    let descriptors: usize = tensors.iter().map(|tensor| descriptor_bytes(tensor.spec())).sum();
    let mut bytes = Vec::with_capacity(plan.len() + traces.len() * TRACE_BYTES + descriptors);
    bytes.extend_from_slice(plan);
    for trace in traces {
        bytes.extend_from_slice(&trace.stage.to_le_bytes());
        bytes.extend_from_slice(&trace.host.to_le_bytes());
        for time_us in [trace.receive_us, trace.decode_us, trace.wait_us, trace.run_us, trace.encode_us] {
            bytes.extend_from_slice(&time_us.to_le_bytes());
        }
    }
    for tensor in tensors {
        let spec = tensor.spec();
        bytes.extend_from_slice(&(spec.name.len() as u16).to_le_bytes());
        bytes.push(spec.dtype as u8);
        bytes.push(spec.shape.len() as u8);
        bytes.push(tensor.codec() as u8);
        bytes.extend_from_slice(&(tensor.bytes().len() as u64).to_le_bytes());
        for dim in &spec.shape {
            bytes.extend_from_slice(&dim.to_le_bytes());
        }
        bytes.extend_from_slice(spec.name.as_bytes());
    }
    bytes
}

/// Bytes that [`preamble`] wrote for this header.
pub fn preamble_bytes(header: &Header) -> usize {
    header.plan_bytes as usize + usize::from(header.traces) * TRACE_BYTES + header.descriptors_bytes as usize
}

/// What stands between the header of a frame and its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preamble {
    /// Who does what; none in what goes to the origin.
    pub plan: Option<Arc<EncodedPlan>>,
    /// What the stages before took.
    pub traces: Vec<StageTrace>,
    /// The tensors.
    pub described: Vec<Descriptor>,
}

/// Reads what [`preamble`] wrote; a plan that is known already by its bytes is not decoded again.
///
/// # Errors
/// When malformed, when the plan is not the one that the header names, when a payload's length is impossible for its tensor and codec, when the payloads do not
/// add up to the header's, or when the tensors, decoded, are more than a frame may carry.
pub fn read_preamble(
    header: &Header,
    bytes: &[u8],
    known: Option<&Arc<EncodedPlan>>,
) -> Result<Preamble, BadFrame> {
    let mut cursor = Cursor(bytes);
    let plan = cursor.bytes(header.plan_bytes as usize).ok_or(BadFrame::Plan)?;
    let plan = read_plan(header, plan, known)?;
    let traces = (0..header.traces).map(|_| read_trace(&mut cursor)).collect::<Option<Vec<_>>>();
    let described = (0..header.tensors).map(|_| read_descriptor(&mut cursor)).collect::<Option<Vec<_>>>();
    let (Some(traces), Some(described), true) = (traces, described, cursor.0.is_empty()) else {
        return Err(BadFrame::Descriptors);
    };
    let (mut coded, mut raw) = (0u64, 0u64);
    for Descriptor { spec, codec, coded_bytes } in &described {
        // Each at most the payload of a frame, and there are few: no overflow.
        raw += check_length(*codec, spec, *coded_bytes).map_err(|_| BadFrame::Descriptors)?;
        coded += coded_bytes;
    }
    if raw > FRAME_PAYLOAD_BYTES_MAX {
        return Err(BadFrame::AboveLimit);
    }
    if coded == header.payload_bytes {
        Ok(Preamble { plan, traces, described })
    } else {
        Err(BadFrame::Descriptors)
    }
}

fn read_plan(
    header: &Header,
    bytes: &[u8],
    known: Option<&Arc<EncodedPlan>>,
) -> Result<Option<Arc<EncodedPlan>>, BadFrame> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let plan = match known.filter(|known| **known.bytes() == *bytes) {
        Some(known) => known.clone(),
        None => Arc::new(EncodedPlan::read(bytes).ok_or(BadFrame::Plan)?),
    };
    if plan.id() == header.plan { Ok(Some(plan)) } else { Err(BadFrame::Plan) }
}

fn read_trace(cursor: &mut Cursor<'_>) -> Option<StageTrace> {
    Some(StageTrace {
        stage: cursor.u16()?,
        host: cursor.u16().filter(|host| usize::from(*host) <= BACKUPS_MAX)?,
        receive_us: cursor.u32()?,
        decode_us: cursor.u32()?,
        wait_us: cursor.u32()?,
        run_us: cursor.u32()?,
        encode_us: cursor.u32()?,
    })
}

fn read_descriptor(cursor: &mut Cursor<'_>) -> Option<Descriptor> {
    let name_bytes = usize::from(cursor.u16()?);
    let [dtype, rank, codec] = cursor.take()?;
    let coded_bytes = cursor.u64()?;
    if name_bytes > TENSOR_NAME_BYTES_MAX || usize::from(rank) > RANK_MAX {
        return None;
    }
    let shape = (0..rank).map(|_| cursor.u64()).collect::<Option<Vec<_>>>()?;
    let name = std::str::from_utf8(cursor.bytes(name_bytes)?).ok()?.to_owned();
    let spec = TensorSpec { name, dtype: DType::from_number(dtype)?, shape };
    Some(Descriptor { spec, codec: Codec::from_number(codec)?, coded_bytes })
}

#[cfg(test)]
mod tests;
