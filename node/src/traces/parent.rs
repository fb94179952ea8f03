//! The header by which a caller says of which trace its request is a part. Source: W3C Trace Context,
//! www.w3.org/TR/trace-context, section 3.2.

use hyper::header::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Characters of version 00; later ones may add to them.
const LENGTH: usize = 55;

/// The span of a caller that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: [u8; 16],
    /// The span in it.
    pub span: [u8; 8],
    /// Whether the caller records it; what it does not record is not exported either.
    pub sampled: bool,
}

impl TraceParent {
    /// What a request's headers say. What is malformed, or there twice, says nothing, as the standard wants it.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let only = given.next().filter(|_| given.next().is_none())?;
        Self::read(only.to_str().ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        let (known, more) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split('-');
        let [version] = digits(parts.next()?)?;
        let (trace, span) = (digits(parts.next()?)?, digits(parts.next()?)?);
        let [flags] = digits(parts.next()?)?;
        let is_whole = more.is_empty() || (version > 0 && more.starts_with('-'));
        let is_named = trace != [0; 16] && span != [0; 8];
        (version != 0xff && is_whole && is_named && parts.next().is_none()).then_some(Self {
            trace,
            span,
            sampled: flags & 1 == 1,
        })
    }
}

/// Lower case hexadecimal digits, two for each byte.
fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; N];
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_the_standard_shows_is_read() {
        let read = TraceParent::read(GIVEN).unwrap();
        assert_eq!(read.trace[..2], [0x4b, 0xf9]);
        assert_eq!((read.span[7], read.sampled), (0xb7, true));
        assert!(!TraceParent::read(&GIVEN.replace("-01", "-00")).unwrap().sampled);
        let later = format!("{}-more", GIVEN.replacen("00", "cc", 1));
        assert_eq!(TraceParent::read(&later), Some(read), "a later version may say more");
    }

    #[test]
    fn what_is_malformed_says_nothing() {
        let zeros = |count| "0".repeat(count);
        for wrong in [
            String::new(),
            GIVEN[..54].to_owned(),
            format!("{GIVEN}-more"),
            GIVEN.to_uppercase(),
            GIVEN.replacen("00", "ff", 1),
            GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros(32)),
            GIVEN.replace("00f067aa0ba902b7", &zeros(16)),
            GIVEN.replace('-', "_"),
            GIVEN.replace("-01", "-é"),
        ] {
            assert_eq!(TraceParent::read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_header_that_is_there_twice_says_nothing() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceParent::of(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(GIVEN));
        assert!(TraceParent::of(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GIVEN));
        assert_eq!(TraceParent::of(&headers), None);
    }
}
