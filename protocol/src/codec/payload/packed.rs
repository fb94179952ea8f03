//! LZ4 and Zstandard over bytes, bounded by the room they are given.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use zstd::bulk::{Compressor, Decompressor};

/// The fastest level with entropy coding. Level 3 gave 0.5 % less on activations, at half the speed.
const ZSTD_LEVEL: i32 = 1;

/// Room that LZ4 wants for its output, bytes.
pub(super) fn lz4_room(bytes: usize) -> usize {
    get_maximum_output_size(bytes)
}

/// One LZ4 block; how long it is.
pub(super) fn lz4(from: &[u8], to: &mut [u8], table: &mut CompressTable) -> Option<usize> {
    compress_into_with_table(from, to, table).ok()
}

/// Reads an LZ4 block that fills its room.
pub(super) fn unlz4(from: &[u8], to: &mut [u8]) -> Option<()> {
    let bytes = decompress_into(from, to).ok()?;
    (bytes == to.len()).then_some(())
}

/// Room that Zstandard wants for its output, bytes.
pub(super) fn zstd_room(bytes: usize) -> usize {
    zstd::zstd_safe::compress_bound(bytes)
}

/// Zstandard's tables, made when first needed.
#[derive(Default)]
pub(super) struct Zstd {
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
}

impl Zstd {
    /// One Zstandard frame; how long it is. `None` also when there is no memory for its tables.
    pub(super) fn pack(&mut self, from: &[u8], to: &mut [u8]) -> Option<usize> {
        if self.compressor.is_none() {
            self.compressor = Some(Compressor::new(ZSTD_LEVEL).ok()?);
        }
        self.compressor.as_mut()?.compress_to_buffer(from, to).ok()
    }

    /// Reads a frame that fills its room. From bytes to bytes at once, so that the window a frame asks
    /// for is never allocated.
    pub(super) fn unpack(&mut self, from: &[u8], to: &mut [u8]) -> Option<()> {
        if self.decompressor.is_none() {
            self.decompressor = Some(Decompressor::new().ok()?);
        }
        let bytes = self.decompressor.as_mut()?.decompress_to_buffer(from, to).ok()?;
        (bytes == to.len()).then_some(())
    }
}
