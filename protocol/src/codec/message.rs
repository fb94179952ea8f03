//! Encoding of control messages and records: bincode 2 with a size limit, and tagged sections.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes from elsewhere could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than this kind of message may be.
    #[error("{got} bytes are above the limit of {limit}")]
    TooLong {
        /// Bytes that came or were announced.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Ends before it is whole, or does not follow the format.
    #[error("the bytes do not follow the format")]
    Malformed,
    /// A section that every version carries is missing.
    #[error("section {0} is missing")]
    MissingSection(u16),
}

/// Encodes a value. Only for our own types, whose encoding cannot fail for want of a limit.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .expect("our own types have no encoding that fails")
}

/// Decodes a value of at most `LIMIT` bytes, and nothing after it.
///
/// # Errors
/// When too long or malformed. Nothing is allocated beyond the limit, whatever lengths the bytes claim.
pub fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > LIMIT {
        return Err(DecodeError::TooLong { got: bytes.len(), limit: LIMIT });
    }
    let config = bincode::config::standard().with_limit::<LIMIT>();
    match bincode::serde::decode_from_slice(bytes, config) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        _ => Err(DecodeError::Malformed),
    }
}

/// Writes a message as sections, so that later versions can add some and earlier ones skip them.
///
/// Each section: tag (u16), length in bytes (u32), both little-endian, then its bincode.
#[derive(Debug, Default)]
pub struct SectionWriter {
    bytes: Vec<u8>,
}

impl SectionWriter {
    /// Adds a section.
    #[must_use]
    pub fn with<T: Serialize>(mut self, tag: u16, value: &T) -> Self {
        let body = encode(value);
        self.bytes.extend_from_slice(&tag.to_le_bytes());
        self.bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&body);
        self
    }

    /// The message.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a message written as sections; sections of unknown tags are skipped.
#[derive(Debug)]
pub struct SectionReader<'a> {
    sections: Vec<(u16, &'a [u8])>,
}

impl<'a> SectionReader<'a> {
    /// Splits the message.
    ///
    /// # Errors
    /// When a section runs past the end or there are more than 64.
    pub fn new(mut bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut sections = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_first_chunk::<6>().ok_or(DecodeError::Malformed)?;
            let tag = u16::from_le_bytes([head[0], head[1]]);
            let length = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
            if rest.len() < length || sections.len() == 64 {
                return Err(DecodeError::Malformed);
            }
            let (body, after) = rest.split_at(length);
            sections.push((tag, body));
            bytes = after;
        }
        Ok(Self { sections })
    }

    /// A section that must be there.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn required<T: DeserializeOwned, const LIMIT: usize>(&self, tag: u16) -> Result<T, DecodeError> {
        let (_, body) =
            self.sections.iter().find(|(found, _)| *found == tag).ok_or(DecodeError::MissingSection(tag))?;
        decode::<T, LIMIT>(body)
    }

    /// A section that earlier versions do not write; `None` where it is missing.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn optional<T: DeserializeOwned, const LIMIT: usize>(
        &self,
        tag: u16,
    ) -> Result<Option<T>, DecodeError> {
        match self.required::<T, LIMIT>(tag) {
            Ok(found) => Ok(Some(found)),
            Err(DecodeError::MissingSection(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_of_terabytes_is_refused_without_allocating() {
        // bincode's variable-length integer 0xfd announces a u64 length.
        let mut bytes = vec![0xfd];
        bytes.extend_from_slice(&(1u64 << 40).to_le_bytes());
        assert_eq!(decode::<Vec<u8>, 1024>(&bytes), Err(DecodeError::Malformed));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u32);
        bytes.push(0);
        assert_eq!(decode::<u32, 64>(&bytes), Err(DecodeError::Malformed));
    }

    #[test]
    fn unknown_sections_are_skipped() {
        let bytes = SectionWriter::default().with(9, &"later").with(1, &5u64).into_bytes();
        let reader = SectionReader::new(&bytes).unwrap();
        assert_eq!(reader.required::<u64, 64>(1), Ok(5));
        assert_eq!(reader.required::<u64, 64>(2), Err(DecodeError::MissingSection(2)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(reader) = SectionReader::new(&bytes) {
                let _ = reader.required::<Vec<String>, 1024>(1);
            }
        }
    }
}
