//! How what two nodes say becomes bytes: control messages and records, and the payloads of tensors.

mod message;
pub mod payload;
mod variant_index;

pub use message::{DecodeError, SectionReader, SectionWriter, decode, encode};
pub(crate) use variant_index::VariantIndex;
