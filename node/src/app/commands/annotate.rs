//! The boxes of an answer, drawn onto the image that they were found in. Where they are is the model's word;
//! a box that lies outside the image is cut off.

mod font;

use std::fs::Permissions;
use std::io::{BufWriter, Cursor};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage, imageops};

use tempfile::NamedTempFile;

use super::here;
use super::inputs::IMAGE_BYTES_MAX;
use super::local::read_file;
use crate::app::client::CommandError;
use crate::card::Detection;
use crate::ends::ENCODED_BYTES_MAX;

/// A smaller image is enlarged by a whole factor until its longer side has so many pixels: its labels could
/// not be read otherwise.
const LONGER_SIDE_MIN_PX: u32 = 640;
/// Pixels of the longer side for one pixel of a line's width and of a glyph.
const PX_PER_LINE: u32 = 256;
/// One for each class, in turns; far from each other in hue.
const COLOURS: [[u8; 3]; 8] = [
    [230, 60, 60],
    [40, 130, 230],
    [40, 170, 80],
    [240, 160, 30],
    [160, 80, 210],
    [20, 180, 190],
    [230, 80, 160],
    [250, 220, 60],
];

/// A picture to be written, under its name only once it is whole.
#[derive(Debug)]
pub(super) struct Drawing<'a> {
    path: &'a Path,
    format: ImageFormat,
    beside: NamedTempFile,
}

impl<'a> Drawing<'a> {
    /// Whether a file of this name can be written, and as what, is known before anything is asked.
    pub(super) fn begin(path: &'a Path) -> Result<Self, CommandError> {
        let told = |what: &dyn std::fmt::Display| here(format!("`{}`: {what}", path.display()));
        let (Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)), false) =
            (ImageFormat::from_path(path), path.is_dir())
        else {
            return Err(told(&"a picture is a file of type .png or .jpg"));
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut beside = tempfile::Builder::new();
        let beside = beside.permissions(Permissions::from_mode(0o666)).prefix(".drawing");
        let beside = beside.tempfile_in(folder.unwrap_or(Path::new("."))).map_err(|error| told(&error))?;
        Ok(Self { path, format, beside })
    }

    /// Draws what was found in an image, and writes the picture.
    pub(super) fn finish(self, image: &Path, found: &[Detection]) -> Result<(), CommandError> {
        let told = |error: &dyn std::fmt::Display| here(format!("`{}`: {error}", self.path.display()));
        let drawn = drawn(read(image)?, found);
        let mut file = BufWriter::new(&self.beside);
        drawn.write_to(&mut file, self.format).map_err(|error| told(&error))?;
        file.into_inner().map_err(|error| told(error.error()))?;
        self.beside.persist(self.path).map_err(|error| told(&error.error))?;
        Ok(())
    }
}

/// The image, upright as the boxes are.
fn read(path: &Path) -> Result<RgbImage, CommandError> {
    let told = |error: &dyn std::fmt::Display| here(format!("`{}`: {error}", path.display()));
    let bytes = read_file(path, ENCODED_BYTES_MAX)?;
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| told(&error))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(IMAGE_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| told(&error))?;
    let orientation = decoder.orientation().map_err(|error| told(&error))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| told(&error))?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// The image, enlarged if it is small, with a box for each detection, the surest on top, and the labels above
/// all boxes.
fn drawn(image: RgbImage, found: &[Detection]) -> RgbImage {
    let longer_px = image.width().max(image.height()).max(1);
    let factor = LONGER_SIDE_MIN_PX.div_ceil(longer_px);
    let mut picture = match factor {
        1 => image,
        _ => {
            let (width, height) = (image.width() * factor, image.height() * factor);
            imageops::resize(&image, width, height, imageops::FilterType::Triangle)
        }
    };
    let line_px = (longer_px * factor / PX_PER_LINE).max(1);
    // Casts from float saturate at 32 bits, far outside of any image; what is no number becomes 0.
    let edge = |edge_px: f32| i64::from((edge_px * factor as f32).round() as i32);
    for detection in found.iter().rev() {
        frame(&mut picture, detection.box_px.map(edge), line_px, colour_of(detection));
    }
    for detection in found.iter().rev() {
        let [left, top, ..] = detection.box_px.map(edge);
        let text = format!("{} {:.0}%", detection.label, 100.0 * detection.score);
        label(&mut picture, [left, top], line_px, &text, colour_of(detection));
    }
    picture
}

fn colour_of(detection: &Detection) -> Rgb<u8> {
    Rgb(COLOURS[detection.index % COLOURS.len()])
}

/// Four lines inside of a box.
fn frame(picture: &mut RgbImage, [left, top, right, bottom]: [i64; 4], line_px: u32, colour: Rgb<u8>) {
    let line = i64::from(line_px);
    fill(picture, [left, top, right, top + line], colour);
    fill(picture, [left, bottom - line, right, bottom], colour);
    fill(picture, [left, top, left + line, bottom], colour);
    fill(picture, [right - line, top, right, bottom], colour);
}

/// A line of text on a ground of its own: above the corner given, or below where there is no room.
fn label(picture: &mut RgbImage, [left, top]: [i64; 2], dot_px: u32, text: &str, colour: Rgb<u8>) {
    let dot = i64::from(dot_px);
    let step = i64::from(font::WIDTH + 1) * dot;
    let (width, height) = (text.chars().count() as i64 * step + dot, i64::from(font::HEIGHT + 2) * dot);
    let top = if top < height { top } else { top - height };
    let left = left.min(i64::from(picture.width()) - width).max(0);
    fill(picture, [left, top, left + width, top + height], colour);
    let [red, green, blue] = colour.0.map(u32::from);
    let is_light = 299 * red + 587 * green + 114 * blue > 150_000;
    let ink = if is_light { Rgb([0; 3]) } else { Rgb([255; 3]) };
    for (index, character) in text.chars().enumerate() {
        let x = left + dot + index as i64 * step;
        for (column, row) in
            (0..font::WIDTH).flat_map(|column| (0..font::HEIGHT).map(move |row| (column, row)))
        {
            if font::has_ink(character, column, row) {
                let (x, y) = (x + i64::from(column) * dot, top + dot + i64::from(row) * dot);
                fill(picture, [x, y, x + dot, y + dot], ink);
            }
        }
    }
}

/// Fills what of a rectangle lies inside the picture.
fn fill(picture: &mut RgbImage, [left, top, right, bottom]: [i64; 4], colour: Rgb<u8>) {
    let inside = |edge: i64, side: u32| edge.clamp(0, i64::from(side)) as u32;
    let (width, height) = picture.dimensions();
    for y in inside(top, height)..inside(bottom, height) {
        for x in inside(left, width)..inside(right, width) {
            picture.put_pixel(x, y, colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GREY: Rgb<u8> = Rgb([90; 3]);

    fn found(box_px: [f32; 4]) -> Detection {
        Detection { label: "7".into(), index: 1, score: 0.98, box_px }
    }

    #[test]
    fn a_box_is_framed_and_its_inside_left_as_it_was() {
        let picture = drawn(RgbImage::from_pixel(640, 640, GREY), &[found([100.0, 100.0, 200.0, 180.0])]);
        let colour = Rgb(COLOURS[1]);
        for (x, y) in [(100, 100), (150, 101), (199, 140), (198, 179), (100, 179)] {
            assert_eq!(*picture.get_pixel(x, y), colour, "({x}, {y})");
        }
        for (x, y) in [(150, 140), (102, 177), (200, 140), (150, 180), (99, 140)] {
            assert_eq!(*picture.get_pixel(x, y), GREY, "({x}, {y})");
        }
        let ink = Rgb([255; 3]);
        let above = (82..100).flat_map(|y| (100..170).map(move |x| (x, y)));
        // The dots of `7`, `9`, `8` and `%` in the font, four pixels each.
        let dots = above.filter(|(x, y)| *picture.get_pixel(*x, *y) == ink).count();
        assert_eq!(dots, 4 * (11 + 16 + 17 + 15));
    }

    #[test]
    fn a_small_image_is_enlarged() {
        assert_eq!(drawn(RgbImage::new(256, 192), &[]).dimensions(), (768, 576));
        assert_eq!(drawn(RgbImage::new(1000, 9), &[]).dimensions(), (1000, 9));
    }

    proptest! {
        #[test]
        fn any_box_can_be_drawn(edges in [any::<f32>(); 4], score in any::<f32>(), label in ".{0,40}") {
            let one = Detection { label, index: usize::MAX, score, box_px: edges };
            prop_assert_eq!(drawn(RgbImage::new(640, 3), &[one]).dimensions(), (640, 3));
        }
    }
}
