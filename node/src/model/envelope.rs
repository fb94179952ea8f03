//! The outermost layer of a file: does it look like an ONNX model, and does it end where it should?
//! Decides between "no ONNX", "cut off" and "worth parsing", which protobuf's own errors do not tell.

use super::error::ModelError;

/// Field numbers of `ModelProto`.
const IR_VERSION: u64 = 1;
const GRAPH: u64 = 7;
/// Highest field number of `ModelProto` that is believed before the graph was seen; ONNX uses 26.
const FIELD_MAX: u64 = 100;
/// Highest IR version that is believed: far above any that exists.
const IR_VERSION_MAX: u64 = 1000;

/// Walks the top-level fields without decoding what they hold.
pub(super) fn check(bytes: &[u8]) -> Result<(), ModelError> {
    let mut rest = bytes;
    let (mut looks_right, mut has_graph) = (false, false);
    while !rest.is_empty() {
        let cut_off =
            if looks_right { ModelError::Truncated { bytes: bytes.len() } } else { ModelError::NotOnnx };
        let Some(key) = varint(&mut rest) else { return Err(cut_off) };
        let (field, wire_type) = (key >> 3, key & 7);
        if field == 0 || (field > FIELD_MAX && !has_graph) {
            return Err(ModelError::NotOnnx);
        }
        let length = match wire_type {
            0 => {
                let Some(value) = varint(&mut rest) else { return Err(cut_off) };
                looks_right |= field == IR_VERSION && (1..=IR_VERSION_MAX).contains(&value);
                0
            }
            1 => 8,
            2 => {
                let Some(length) = varint(&mut rest) else { return Err(cut_off) };
                // A graph is itself a message: its first field is one of `GraphProto`'s.
                has_graph |= field == GRAPH && (length == 0 || rest.first().is_none_or(|key| key >> 3 <= 16));
                looks_right |= has_graph && field == GRAPH && length > 16;
                length
            }
            5 => 4,
            _ => return Err(ModelError::NotOnnx),
        };
        if field == IR_VERSION && wire_type != 0 {
            return Err(ModelError::NotOnnx);
        }
        let cut_off =
            if looks_right { ModelError::Truncated { bytes: bytes.len() } } else { ModelError::NotOnnx };
        rest = usize::try_from(length).ok().and_then(|length| rest.get(length..)).ok_or(cut_off)?;
    }
    match (has_graph, looks_right) {
        (true, _) => Ok(()),
        (false, true) => Err(ModelError::Truncated { bytes: bytes.len() }),
        (false, false) => Err(ModelError::NotOnnx),
    }
}

/// One base-128 number, taken off the front.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (index, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_no_models() {
        let jpeg = [0xff, 0xd8, 0xff, 0xe0, 0x00, 0x10, b'J', b'F', b'I', b'F', 0, 1, 1, 0, 0, 1];
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0";
        let texts: [&[u8]; 6] =
            [b"", b"hello world", b"{\"a\": 1}", b"PK\x03\x04\x14\0", b"\n\n\n", b"#!/bin/sh\n"];
        for bytes in texts.into_iter().chain([&jpeg[..], &png[..]]) {
            assert_eq!(check(bytes), Err(ModelError::NotOnnx), "{bytes:?}");
        }
    }

    #[test]
    fn every_cut_off_model_is_told_from_a_whole_one() {
        let model = crate::model::testing::chain(3).bytes();
        assert_eq!(check(&model), Ok(()));
        for length in 0..model.len() {
            let error = check(&model[..length]).err();
            let expected =
                if length < 2 { ModelError::NotOnnx } else { ModelError::Truncated { bytes: length } };
            // A file that ends exactly between two fields after the graph is a whole model to protobuf.
            assert!(error == Some(expected) || (error.is_none() && length > model.len() / 2), "{length}");
        }
    }
}
