//! Questions and answers between nodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stormo_protocol::control::{Request, Response};
use stormo_protocol::frame::{Edge, ORIGIN};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::from_bytes(bytes) {
        if let Request::Prepare(prepare) = &request {
            let stages = prepare.plan.stages.len() as u16;
            assert!(prepare.plan.check().is_err() || stages > 0);
            let _ = (prepare.plan.id(), prepare.plan.codec_of(Edge { from: stages, to: ORIGIN }));
        }
        assert_eq!(Request::from_bytes(&request.to_bytes()), Ok(request));
    }
    if let Ok(response) = Response::from_bytes(bytes) {
        assert_eq!(Response::from_bytes(&response.to_bytes()), Ok(response));
    }
});
