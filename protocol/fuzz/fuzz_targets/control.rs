//! Questions and answers between nodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stormo_protocol::control::{Request, Response};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::from_bytes(bytes) {
        assert_eq!(Request::from_bytes(&request.to_bytes()), Ok(request));
    }
    if let Ok(response) = Response::from_bytes(bytes) {
        assert_eq!(Response::from_bytes(&response.to_bytes()), Ok(response));
    }
});
