//! The messages of `inference.GRPCInferenceService`, and how many parts one may have. A subset of
//! github.com/triton-inference-server/common, `protobuf/grpc_service.proto`, which extends
//! github.com/kserve/open-inference-protocol, `specification/protocol/open_inference_grpc.proto`: names and numbers of
//! fields are theirs. What is not listed here is skipped when it is read.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use prost::{DecodeError, Message, Oneof, decode_length_delimiter};
use stormo_protocol::limits::FRAME_TENSORS_MAX;

/// Fields of a request, of one input or of one output that it asks for: each tensor as input, as raw bytes and as output, and as many
/// parameters. Two bytes are enough for a field that takes some hundred in memory.
const FIELDS_MAX: usize = 4 * FRAME_TENSORS_MAX + 16;
/// Bytes of a request apart from raw tensors. Read, they take up to 16 times as much.
const PARSED_BYTES_MAX: usize = 16 << 20;
/// Number of the field `raw_input_contents` of a request.
const RAW_INPUT: u32 = 7;
/// Number of the field `inputs` of a request.
const INPUTS: u32 = 5;
/// Number of the field `outputs` of a request.
const OUTPUTS: u32 = 6;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerLiveResponse {
    #[prost(bool, tag = "1")]
    pub(super) live: bool,
}

/// Of a server or of a model.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadyResponse {
    #[prost(bool, tag = "1")]
    pub(super) ready: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerMetadataResponse {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) extensions: Vec<String>,
}

/// Of `ModelReady` and `ModelMetadata`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    /// Any if it is empty.
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelMetadataResponse {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) versions: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) platform: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) inputs: Vec<TensorMetadata>,
    #[prost(message, repeated, tag = "5")]
    pub(super) outputs: Vec<TensorMetadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RepositoryIndexResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) models: Vec<ModelIndex>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelIndex {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
    #[prost(string, tag = "3")]
    pub(super) state: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InferParameter {
    #[prost(oneof = "Choice", tags = "1, 2, 3, 4, 5")]
    pub(super) choice: Option<Choice>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Choice {
    #[prost(bool, tag = "1")]
    Bool(bool),
    #[prost(int64, tag = "2")]
    Int64(i64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(uint64, tag = "5")]
    Uint64(u64),
}

/// Values of a tensor one by one. FP16 and BF16 have no place here: they come as raw bytes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct InferTensorContents {
    #[prost(bool, repeated, tag = "1")]
    pub(super) bool_contents: Vec<bool>,
    #[prost(int32, repeated, tag = "2")]
    pub(super) int_contents: Vec<i32>,
    #[prost(int64, repeated, tag = "3")]
    pub(super) int64_contents: Vec<i64>,
    #[prost(uint32, repeated, tag = "4")]
    pub(super) uint_contents: Vec<u32>,
    #[prost(uint64, repeated, tag = "5")]
    pub(super) uint64_contents: Vec<u64>,
    #[prost(float, repeated, tag = "6")]
    pub(super) fp32_contents: Vec<f32>,
    #[prost(double, repeated, tag = "7")]
    pub(super) fp64_contents: Vec<f64>,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub(super) bytes_contents: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelInferRequest {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    /// Any if it is empty.
    #[prost(string, tag = "2")]
    pub(super) model_version: String,
    #[prost(string, tag = "3")]
    pub(super) id: String,
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) parameters: BTreeMap<String, InferParameter>,
    #[prost(message, repeated, tag = "5")]
    pub(super) inputs: Vec<InferInputTensor>,
    #[prost(message, repeated, tag = "6")]
    pub(super) outputs: Vec<InferRequestedOutputTensor>,
    /// One for each input, or none.
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub(super) raw_input_contents: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InferInputTensor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) parameters: BTreeMap<String, InferParameter>,
    #[prost(message, optional, tag = "5")]
    pub(super) contents: Option<InferTensorContents>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InferRequestedOutputTensor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(btree_map = "string, message", tag = "2")]
    pub(super) parameters: BTreeMap<String, InferParameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelInferResponse {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    #[prost(string, tag = "2")]
    pub(super) model_version: String,
    #[prost(string, tag = "3")]
    pub(super) id: String,
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) parameters: BTreeMap<String, InferParameter>,
    #[prost(message, repeated, tag = "5")]
    pub(super) outputs: Vec<InferOutputTensor>,
    /// One for each output.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub(super) raw_output_contents: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InferOutputTensor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
}

/// An answer of a stream: an error if its message is not empty.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelStreamInferResponse {
    #[prost(string, tag = "1")]
    pub(super) error_message: String,
    #[prost(message, optional, tag = "2")]
    pub(super) infer_response: Option<ModelInferResponse>,
}

/// Why a request is not even read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum BadMessage {
    #[error("the request is no ModelInferRequest: {0}")]
    Malformed(#[from] DecodeError),
    #[error(
        "the request is no ModelInferRequest: a field is not as long as it says, or of no kind that there is"
    )]
    Field,
    #[error("the request has more than {FIELDS_MAX} fields")]
    Fields,
    #[error(
        "the request has more than {PARSED_BYTES_MAX} bytes besides raw_input_contents; send tensors there"
    )]
    Parsed,
}

/// Looks at the fields of an encoded request without keeping any; how many bytes have to be parsed one by one.
pub(super) fn parsed_bytes(request: &Bytes) -> Result<usize, BadMessage> {
    let mut raw_bytes = 0;
    fields(request.clone(), |number, value| {
        match number {
            RAW_INPUT => raw_bytes += value.len(),
            INPUTS | OUTPUTS => fields(value, |_, _| Ok(()))?,
            _ => {}
        }
        Ok(())
    })?;
    match request.len().saturating_sub(raw_bytes) {
        parsed if parsed > PARSED_BYTES_MAX => Err(BadMessage::Parsed),
        parsed => Ok(parsed),
    }
}

/// Gives each field that has a length of its own.
fn fields(
    mut message: Bytes,
    mut each: impl FnMut(u32, Bytes) -> Result<(), BadMessage>,
) -> Result<(), BadMessage> {
    for _ in 0..FIELDS_MAX {
        if !message.has_remaining() {
            return Ok(());
        }
        // Keys, lengths and numbers are all written in this way.
        let key = decode_length_delimiter(&mut message)?;
        let bytes = match key & 7 {
            0 => decode_length_delimiter(&mut message).map(|_| 0)?,
            1 => 8,
            2 => decode_length_delimiter(&mut message)?,
            5 => 4,
            _ => return Err(BadMessage::Field),
        };
        if bytes > message.len() {
            return Err(BadMessage::Field);
        }
        let value = message.split_to(bytes);
        if key & 7 == 2 {
            each(u32::try_from(key >> 3).map_err(|_| BadMessage::Field)?, value)?;
        }
    }
    if message.has_remaining() { Err(BadMessage::Fields) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(message: &impl Message) -> Bytes {
        message.encode_to_vec().into()
    }

    #[test]
    fn raw_tensors_are_not_parsed() {
        let request = ModelInferRequest {
            model_name: "digits".into(),
            inputs: vec![InferInputTensor { name: "x".into(), ..Default::default() }],
            raw_input_contents: vec![vec![0; PARSED_BYTES_MAX].into(), Bytes::new()],
            ..Default::default()
        };
        let parsed = parsed_bytes(&encoded(&request)).unwrap();
        assert!((1..100).contains(&parsed), "{parsed}");
        let contents =
            InferTensorContents { bytes_contents: request.raw_input_contents, ..Default::default() };
        let inputs = vec![InferInputTensor { contents: Some(contents), ..Default::default() }];
        let request = ModelInferRequest { inputs, ..Default::default() };
        assert_eq!(parsed_bytes(&encoded(&request)), Err(BadMessage::Parsed));
    }

    #[test]
    fn few_bytes_cannot_become_many_things() {
        let inputs = vec![InferInputTensor::default(); FIELDS_MAX + 1];
        let outputs = vec![InferRequestedOutputTensor::default(); FIELDS_MAX + 1];
        let limits = (0..=FIELDS_MAX).map(|name| (name.to_string(), InferParameter::default()));
        let parameters: BTreeMap<_, _> = limits.collect();
        let many = [
            ModelInferRequest { inputs, ..Default::default() },
            ModelInferRequest { outputs, ..Default::default() },
            ModelInferRequest { parameters: parameters.clone(), ..Default::default() },
            ModelInferRequest {
                inputs: vec![InferInputTensor { parameters: parameters.clone(), ..Default::default() }],
                ..Default::default()
            },
            ModelInferRequest {
                outputs: vec![InferRequestedOutputTensor { parameters, ..Default::default() }],
                ..Default::default()
            },
            ModelInferRequest {
                raw_input_contents: vec![Bytes::new(); FIELDS_MAX + 1],
                ..Default::default()
            },
        ];
        for request in many {
            assert_eq!(parsed_bytes(&encoded(&request)), Err(BadMessage::Fields));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            // What is read as a request was found good before.
            if ModelInferRequest::decode(bytes.clone()).is_ok() {
                let looked = parsed_bytes(&bytes);
                let has_groups = bytes.iter().any(|byte| matches!(byte & 7, 3 | 4));
                prop_assert!(looked.is_ok() || has_groups, "{looked:?}");
            } else {
                let _ = parsed_bytes(&bytes);
            }
        }
    }
}
