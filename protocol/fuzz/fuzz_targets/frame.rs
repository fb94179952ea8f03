//! A frame up to its payload, and the signs that answer it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stormo_protocol::frame::{Descriptor, HEADER_BYTES, Header, Preamble, SIGN_BYTES, Sign, read_preamble};
use stormo_protocol::limits::FRAME_PAYLOAD_BYTES_MAX;
use stormo_protocol::tensor::DType;

fuzz_target!(|bytes: &[u8]| {
    if let Some(sign) = bytes.first_chunk::<SIGN_BYTES>()
        && let Ok(sign) = Sign::from_bytes(sign)
    {
        assert_eq!(Sign::from_bytes(&sign.to_bytes()), Ok(sign));
    }
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return };
    let mut head = *head;
    head[..6].copy_from_slice(b"STRM\x02\x00");
    let Ok(header) = Header::from_bytes(&head) else { return };
    assert_eq!(header.to_bytes(), head);
    if let Ok(Preamble { plan, traces, described }) = read_preamble(&header, rest, None) {
        assert_eq!(plan.map(|plan| plan.id()).unwrap_or(header.plan), header.plan);
        assert_eq!(traces.len(), usize::from(header.traces));
        assert_eq!(described.iter().map(|each| each.coded_bytes).sum::<u64>(), header.payload_bytes);
        // Of texts, what is announced is what they take.
        let raw_bytes = |each: &Descriptor| match each.spec.dtype {
            DType::Text => each.coded_bytes,
            _ => each.spec.byte_length().unwrap(),
        };
        let raw_bytes: u64 = described.iter().map(raw_bytes).sum();
        assert!(header.payload_bytes <= raw_bytes && raw_bytes <= FRAME_PAYLOAD_BYTES_MAX);
    }
});
