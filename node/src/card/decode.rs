//! From the bytes of a JPEG or PNG to 8-bit pixels, upright, within limits.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::geometry::{PIXELS_MAX, SIDE_MAX_PX};
use super::prepare::PrepareError;

/// Longest encoded image, bytes.
pub(super) const ENCODED_BYTES_MAX: usize = 32 << 20;
/// Memory that a decoder may take for the pixels, bytes: the most pixels as 16-bit RGB.
const DECODED_BYTES_MAX: u64 = PIXELS_MAX * 6;

/// Pixels, row by row, channels interleaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pixels {
    pub width: u32,
    pub height: u32,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    pub data: Vec<u8>,
}

/// Decodes to this many channels. Alpha is left out, as in Pillow's `convert("RGB")`.
pub(super) fn decode(encoded: &[u8], channels: usize) -> Result<Pixels, PrepareError> {
    if encoded.len() > ENCODED_BYTES_MAX {
        return Err(PrepareError::EncodedBytes(encoded.len()));
    }
    let format = image::guess_format(encoded).ok();
    let Some(format @ (ImageFormat::Jpeg | ImageFormat::Png)) = format else {
        return Err(PrepareError::Format);
    };
    if format == ImageFormat::Jpeg && !jpeg_has_end(encoded) {
        return Err(PrepareError::CutShort);
    }
    let mut reader = ImageReader::with_format(Cursor::new(encoded), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    let too_long = width.max(height) > SIDE_MAX_PX;
    if pixels == 0 || too_long || pixels > PIXELS_MAX || decoder.total_bytes() > DECODED_BYTES_MAX {
        return Err(PrepareError::Pixels { width, height });
    }
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    let data = match (channels, image.color().has_color()) {
        (1, false) => image.into_luma8().into_raw(),
        (1, true) => luma(image.into_rgb8().as_raw()),
        _ => image.into_rgb8().into_raw(),
    };
    Ok(Pixels { width, height, channels, data })
}

/// ITU-R 601-2 luma with Pillow's rounding; the `image` crate's own grey weighs as in BT.709.
fn luma(rgb: &[u8]) -> Vec<u8> {
    let weigh = |pixel: &[u8]| {
        let [red, green, blue] = [0, 1, 2].map(|channel| u32::from(pixel[channel]));
        ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
    };
    rgb.chunks_exact(3).map(weigh).collect()
}

/// Whether a JPEG has its end marker behind its first scan. The decoder makes up the rest of a
/// picture that was cut short, and a detector would then miss what was there. The segments before
/// the scan are stepped over, since a thumbnail in them has an end marker of its own.
fn jpeg_has_end(encoded: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let mut rest = encoded.get(2..).unwrap_or_default();
    loop {
        match rest {
            [0xff, START_OF_SCAN, scan @ ..] => return scan.windows(2).rev().any(|two| two == END_OF_IMAGE),
            // Restart markers and the like have no length; a marker may be padded with 0xff.
            [0xff, 0x01 | 0xd0..=0xd8, after @ ..] => rest = after,
            [0xff, 0xff, ..] => rest = &rest[1..],
            [0xff, _, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                let Some(after) = rest.get(2 + length.max(2)..) else { return false };
                rest = after;
            }
            // Garbage between segments: decoders look for the next marker.
            [_, after @ ..] => rest = after,
            [] => return false,
        }
    }
}
