//! How a call ended, in gRPC's words. Source: github.com/grpc/grpc, `doc/statuscodes.md` and
//! `doc/PROTOCOL-HTTP2.md`.

use std::fmt::Write;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::app::calls::CallError;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Longest message as it is written, bytes: clients take 8 KiB of headers at least.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Kinds of ends, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Why a call ended without its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: Code,
    pub(super) text: String,
}

impl Status {
    pub(super) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// As headers.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(STATUS, HeaderValue::from(self.code as u16));
        if let Ok(text) = HeaderValue::from_str(&percent_encoded(&self.text)) {
            headers.insert(MESSAGE, text);
        }
        headers
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::NotFound(_) => Code::NotFound,
            CallError::BadRequest(_) => Code::InvalidArgument,
            CallError::Conflict(_) => Code::FailedPrecondition,
            CallError::Unavailable(_) => Code::Unavailable,
            CallError::Overloaded(_) => Code::ResourceExhausted,
            CallError::Deadline(_) => Code::DeadlineExceeded,
            CallError::Failed(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// That all went well, as headers.
pub(super) fn good() -> HeaderMap {
    HeaderMap::from_iter([(STATUS, HeaderValue::from(0))])
}

/// As headers carry any text; what is too long is cut.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for sign in text.chars() {
        let before = encoded.len();
        let mut bytes = [0; 4];
        for byte in sign.encode_utf8(&mut bytes).bytes() {
            match byte {
                b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
                // Writing into memory does not fail.
                _ => drop(write!(encoded, "%{byte:02X}")),
            }
        }
        if encoded.len() > MESSAGE_BYTES_MAX {
            encoded.truncate(before);
            break;
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_fits_into_a_header() {
        assert_eq!(percent_encoded("50 % of `é`\n"), "50 %25 of `%C3%A9`%0A");
        let long = percent_encoded(&"é".repeat(MESSAGE_BYTES_MAX));
        assert!(long.len() <= MESSAGE_BYTES_MAX && long.ends_with("%C3%A9"));
        let headers = Status::from(CallError::Conflict("stage 1\u{0}".into())).headers();
        assert_eq!(headers["grpc-status"], "9");
        assert_eq!(headers["grpc-message"], "stage 1%00");
        assert_eq!(good()["grpc-status"], "0");
    }
}
