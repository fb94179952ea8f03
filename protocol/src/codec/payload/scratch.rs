//! The buffers that coding works in, and the steps of each codec between them.

use lz4_flex::block::CompressTable;

use super::{Codec, Coded, f16, int8, packed, shuffle};

/// Room that is kept from one tensor to the next, bytes: activations of images fit.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Memory for coding, kept from one tensor to the next; one per thread that codes. It grows to at most
/// 2.1 times the largest tensor seen, and some 2 MB of tables. Nothing in it outlives a call but room.
pub struct Scratch {
    /// What is made from the numbers before it is compressed, and what was decompressed.
    plain: Vec<u8>,
    /// Compressed.
    packed: Vec<u8>,
    lz4: CompressTable,
    zstd: packed::Zstd,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            plain: Vec::new(),
            packed: Vec::new(),
            lz4: CompressTable::large(),
            zstd: packed::Zstd::default(),
        }
    }
}

impl Scratch {
    /// Whether it is small enough to be kept for the next tensor: what the largest took is not held for ever.
    pub fn is_worth_keeping(&self) -> bool {
        self.plain.capacity().max(self.packed.capacity()) <= KEPT_BYTES_MAX
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scratch({} + {} bytes)", self.plain.len(), self.packed.len())
    }
}

/// The first bytes of a buffer that never shrinks, so that nothing is zeroed twice.
fn room(buffer: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    &mut buffer[..bytes]
}

/// The encoding side; `None` where the codec cannot say it.
impl Scratch {
    pub(super) fn shuffle_lz4(&mut self, raw: &[u8], element_bytes: u64) -> Option<Coded<'_>> {
        let plain = room(&mut self.plain, raw.len());
        shuffle::shuffle(raw, element_bytes, plain);
        let to = room(&mut self.packed, packed::lz4_room(raw.len()));
        let bytes = packed::lz4(plain, to, &mut self.lz4)?;
        Some(Coded { codec: Codec::ShuffleLz4, bytes: &to[..bytes] })
    }

    pub(super) fn f16(&mut self, codec: Codec, numbers: &[f32]) -> Option<Coded<'_>> {
        let plain = room(&mut self.plain, 2 * numbers.len());
        if !f16::round(numbers, plain) {
            return None;
        }
        if codec == Codec::F16Lz4 {
            let to = room(&mut self.packed, packed::lz4_room(plain.len()));
            if let Some(bytes) = packed::lz4(plain, to, &mut self.lz4).filter(|bytes| *bytes < plain.len()) {
                return Some(Coded { codec, bytes: &to[..bytes] });
            }
        }
        Some(Coded { codec: Codec::F16, bytes: plain })
    }

    pub(super) fn int8(&mut self, codec: Codec, numbers: &[f32], channel: usize) -> Option<Coded<'_>> {
        let head_bytes = int8::head_bytes(numbers.len() as u64, channel) as usize;
        let plain = room(&mut self.plain, head_bytes + numbers.len());
        if !int8::quantise(numbers, channel, plain.split_at_mut(head_bytes)) {
            return None;
        }
        if codec != Codec::Int8
            && let Some(bytes) = self.pack_int8(codec, head_bytes, numbers.len())
        {
            return Some(Coded { codec, bytes: &self.packed[..head_bytes + bytes] });
        }
        Some(Coded { codec: Codec::Int8, bytes: &self.plain[..head_bytes + numbers.len()] })
    }

    /// Bytes of the elements when packed behind the head, if that is shorter.
    fn pack_int8(&mut self, codec: Codec, head_bytes: usize, elements: usize) -> Option<usize> {
        let (head, levels) = self.plain[..head_bytes + elements].split_at(head_bytes);
        let is_zstd = codec == Codec::Int8Zstd;
        // Differences need room of their own, since the levels are what is sent if this does not pay.
        let differences_bytes = if is_zstd { elements } else { 0 };
        let packed_bytes = if is_zstd { packed::zstd_room(elements) } else { packed::lz4_room(elements) };
        let to = room(&mut self.packed, head_bytes + packed_bytes + differences_bytes);
        let (to_head, to) = to.split_at_mut(head_bytes);
        let (to, differences) = to.split_at_mut(packed_bytes);
        let bytes = if is_zstd {
            int8::difference(levels, differences);
            self.zstd.pack(differences, to)?
        } else {
            packed::lz4(levels, to, &mut self.lz4)?
        };
        to_head.copy_from_slice(head);
        (bytes < elements).then_some(bytes)
    }
}

/// The decoding side; `None` where the bytes are not the codec's. Lengths were checked.
impl Scratch {
    pub(super) fn unshuffle_lz4(&mut self, coded: &[u8], element_bytes: u64, to: &mut [u8]) -> Option<()> {
        let plain = room(&mut self.plain, to.len());
        packed::unlz4(coded, plain)?;
        shuffle::unshuffle(plain, element_bytes, to);
        Some(())
    }

    pub(super) fn restore_f16(&mut self, codec: Codec, coded: &[u8], to: &mut [f32]) -> Option<()> {
        let plain = if codec == Codec::F16Lz4 {
            let plain = room(&mut self.plain, 2 * to.len());
            packed::unlz4(coded, plain)?;
            plain
        } else {
            coded
        };
        f16::widen(plain, to);
        Some(())
    }

    pub(super) fn restore_int8(
        &mut self,
        codec: Codec,
        coded: &[u8],
        channel: usize,
        to: &mut [f32],
    ) -> Option<()> {
        let head_bytes = int8::head_bytes(to.len() as u64, channel) as usize;
        let (head, coded) = coded.split_at_checked(head_bytes)?;
        let levels = match codec {
            Codec::Int8Lz4 => {
                let levels = room(&mut self.plain, to.len());
                packed::unlz4(coded, levels)?;
                levels
            }
            Codec::Int8Zstd => {
                let levels = room(&mut self.plain, to.len());
                self.zstd.unpack(coded, levels)?;
                int8::undo_difference(levels);
                levels
            }
            _ => coded,
        };
        int8::restore(head, levels, channel, to)
    }
}
