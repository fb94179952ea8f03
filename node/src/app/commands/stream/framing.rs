//! Where one image ends and the next begins in a stream of JPEG and PNG images, as `ffmpeg -f image2pipe` writes them.
//! JPEG by its markers (ITU-T T.81, annex B), PNG by its chunks (ISO/IEC 15948, clause 5).

use std::io::{self, BufRead, Read};

const PNG_BEGIN: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
const MARKER: u8 = 0xff;
const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
/// Within a scan, a marker byte that is data, or restarts the decoder.
const STUFFED: u8 = 0x00;
const RESTARTS: std::ops::RangeInclusive<u8> = 0xd0..=0xd7;
const TEMPORARY: u8 = 0x01;

/// Why a stream gives no further image. What follows cannot be told apart.
#[derive(Debug, thiserror::Error)]
pub(super) enum FramingError {
    #[error(
        "neither a JPEG nor a PNG begins there; give a stream of images, such as `ffmpeg -i ... -f image2pipe -c:v mjpeg -`, \
         or say with --raw what size raw frames have"
    )]
    NoImage,
    #[error("the stream ends inside an image")]
    EndsInside,
    #[error("an image is longer than {0} bytes")]
    TooLong(u64),
    #[error("{0}")]
    Read(#[from] io::Error),
}

/// The next image of a stream, as it is; none at its end.
///
/// # Errors
/// When no image begins there, it is longer than `bytes_max`, or the stream ends inside it.
pub(super) fn next_image(stream: &mut impl BufRead, bytes_max: u64) -> Result<Option<Vec<u8>>, FramingError> {
    let mut image = Image { stream, bytes: Vec::new(), bytes_max };
    match image.byte_or_end()? {
        None => return Ok(None),
        Some(MARKER) => image.jpeg()?,
        Some(first) if first == PNG_BEGIN[0] => image.png()?,
        Some(_) => return Err(FramingError::NoImage),
    }
    Ok(Some(image.bytes))
}

struct Image<'a, R> {
    stream: &'a mut R,
    /// What was read of it so far.
    bytes: Vec<u8>,
    bytes_max: u64,
}

impl<R: BufRead> Image<'_, R> {
    fn byte_or_end(&mut self) -> Result<Option<u8>, FramingError> {
        let mut byte = [0];
        loop {
            match self.stream.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.bytes.push(byte[0]);
        Ok(Some(byte[0]))
    }

    fn byte(&mut self) -> Result<u8, FramingError> {
        self.fits(1)?;
        self.byte_or_end()?.ok_or(FramingError::EndsInside)
    }

    fn fits(&self, more: u64) -> Result<(), FramingError> {
        let fits = self.bytes.len() as u64 + more <= self.bytes_max;
        fits.then_some(()).ok_or(FramingError::TooLong(self.bytes_max))
    }

    /// Memory grows with what comes, not with what a length claims.
    fn copy(&mut self, count: u64) -> Result<(), FramingError> {
        self.fits(count)?;
        let copied = self.stream.by_ref().take(count).read_to_end(&mut self.bytes)?;
        (copied as u64 == count).then_some(()).ok_or(FramingError::EndsInside)
    }

    fn png(&mut self) -> Result<(), FramingError> {
        self.copy(PNG_BEGIN.len() as u64 - 1)?;
        if self.bytes != PNG_BEGIN {
            return Err(FramingError::NoImage);
        }
        loop {
            let at = self.bytes.len();
            self.copy(8)?;
            let mut length = [0; 4];
            length.copy_from_slice(&self.bytes[at..at + 4]);
            let is_last = &self.bytes[at + 4..] == b"IEND";
            // The data, then a checksum, which is for the decoder.
            self.copy(u64::from(u32::from_be_bytes(length)) + 4)?;
            if is_last {
                return Ok(());
            }
        }
    }

    fn jpeg(&mut self) -> Result<(), FramingError> {
        if self.byte()? != START_OF_IMAGE {
            return Err(FramingError::NoImage);
        }
        let mut marker = self.marker()?;
        loop {
            marker = match marker {
                END_OF_IMAGE => return Ok(()),
                TEMPORARY => self.marker()?,
                other => {
                    self.segment()?;
                    if other == START_OF_SCAN { self.scan()? } else { self.marker()? }
                }
            };
        }
    }

    /// A marker, after fill bytes if there are any.
    fn marker(&mut self) -> Result<u8, FramingError> {
        if self.byte()? != MARKER {
            return Err(FramingError::NoImage);
        }
        loop {
            match self.byte()? {
                MARKER => {}
                marker => return Ok(marker),
            }
        }
    }

    /// Its length counts itself.
    fn segment(&mut self) -> Result<(), FramingError> {
        let length = u16::from_be_bytes([self.byte()?, self.byte()?]);
        self.copy(u64::from(length.checked_sub(2).ok_or(FramingError::NoImage)?))
    }

    /// Coded data, up to the next marker that is none of its own.
    fn scan(&mut self) -> Result<u8, FramingError> {
        loop {
            let before = self.bytes.len();
            self.fits(1)?;
            let room = self.bytes_max - before as u64;
            self.stream.by_ref().take(room).read_until(MARKER, &mut self.bytes)?;
            if self.bytes.len() == before || self.bytes.last() != Some(&MARKER) {
                self.fits(1)?;
                return Err(FramingError::EndsInside);
            }
            let mut next = self.byte()?;
            while next == MARKER {
                next = self.byte()?;
            }
            if next != STUFFED && !RESTARTS.contains(&next) {
                return Ok(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use image::codecs::jpeg::JpegEncoder;
    use image::codecs::png::PngEncoder;
    use image::{ExtendedColorType, ImageEncoder};
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: u64 = 1 << 20;

    fn encoded(as_png: bool, [width, height]: [u32; 2], seed: u32) -> Vec<u8> {
        let noise = |index: u32| (index.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8;
        let pixels: Vec<u8> = (0..3 * width * height).map(noise).collect();
        let mut bytes = Vec::new();
        let written = match as_png {
            true => PngEncoder::new(&mut bytes).write_image(&pixels, width, height, ExtendedColorType::Rgb8),
            false => JpegEncoder::new_with_quality(&mut bytes, 100).write_image(
                &pixels,
                width,
                height,
                ExtendedColorType::Rgb8,
            ),
        };
        written.unwrap();
        bytes
    }

    fn all(stream: &mut impl BufRead, bytes_max: u64) -> Result<Vec<Vec<u8>>, FramingError> {
        std::iter::from_fn(|| next_image(stream, bytes_max).transpose()).collect()
    }

    #[test]
    fn what_is_no_image_is_told() {
        for bytes in
            [&b"RIFF"[..], b"\xff\xd9", b"\x89PNX\r\n\x1a\nIHDR", b"\xff\xd8\xff\xe0\0\0", b"\xff\xd8X"]
        {
            let read = all(&mut Cursor::new(bytes), BYTES_MAX);
            assert!(matches!(read, Err(FramingError::NoImage)), "{bytes:?}: {read:?}");
        }
        assert!(all(&mut Cursor::new(b""), BYTES_MAX).unwrap().is_empty());
    }

    #[test]
    fn restarts_stuffing_and_fill_bytes_are_part_of_an_image() {
        let scans = b"\xff\xd8\xff\xff\xda\0\x02\x01\xff\0\x02\xff\xd3\x03\xff\xff\xc4\0\x03Q\xff\xda\0\x02\x04\xff\xd9";
        let two = [&scans[..], scans].concat();
        assert_eq!(all(&mut Cursor::new(&two), BYTES_MAX).unwrap(), [scans.to_vec(), scans.to_vec()]);
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        let png = [&PNG_BEGIN[..], &[0xff; 4], b"IDAT"].concat();
        assert!(matches!(all(&mut Cursor::new(&png), BYTES_MAX), Err(FramingError::TooLong(BYTES_MAX))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn images_come_out_as_they_went_in(
            sizes in proptest::collection::vec((any::<bool>(), [1..40_u32, 1..40_u32], any::<u32>()), 0..6),
            buffer_bytes in 1..4_096_usize,
        ) {
            let images: Vec<Vec<u8>> = sizes.into_iter().map(|(png, size, seed)| encoded(png, size, seed)).collect();
            let stream = images.concat();
            let mut reader = BufReader::with_capacity(buffer_bytes, Cursor::new(&stream));
            prop_assert_eq!(all(&mut reader, BYTES_MAX).unwrap(), images);
        }

        #[test]
        fn a_stream_that_is_cut_ends_inside_an_image(png in any::<bool>(), cut in 1..10_000_usize) {
            let image = encoded(png, [20, 20], 7);
            let stream = [&image[..], &image[..1 + cut % (image.len() - 1)]].concat();
            let mut reader = Cursor::new(&stream);
            prop_assert_eq!(next_image(&mut reader, BYTES_MAX).unwrap(), Some(image));
            let last = next_image(&mut reader, BYTES_MAX);
            prop_assert!(matches!(last, Err(FramingError::EndsInside)), "{:?}", last);
        }

        #[test]
        fn any_bytes_give_images_within_the_bound_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            for begin in [&[][..], &[0xff, 0xd8, 0xff], &PNG_BEGIN] {
                let stream = [begin, &bytes].concat();
                for image in all(&mut Cursor::new(&stream), 300).unwrap_or_default() {
                    prop_assert!(image.len() <= 300);
                }
            }
        }
    }
}
