//! How an image is laid into a model's input, and the way back from there to the image.

use serde::{Deserialize, Serialize};

use super::prepare::PrepareError;

/// Most pixels of an image, and of what lies between the two passes of a resize: 50 megapixels,
/// 150 MB as RGB. Phones reach this; a decoder's bomb goes far beyond.
pub(super) const PIXELS_MAX: u64 = 50_000_000;
/// Longest side of an image or of a model's input, pixels.
pub(super) const SIDE_MAX_PX: u32 = 16_384;

/// How an image is made to fit the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// Each side by its own factor.
    Stretch,
    /// Whole, in proportion, the rest filled with one grey level.
    Letterbox { fill: u8, centred: bool },
    /// In proportion until the shorter side has this many pixels, then the middle.
    ShorterSideCrop { shorter_side: u32 },
}

/// From an image to a model's input: `input = image * scale + offset`, for x and y each. Needed to
/// say in pixels of the image where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Width and height of the upright image, pixels.
    pub image_px: [u32; 2],
    /// Width and height of the model's input, pixels.
    pub input_px: [u32; 2],
    /// Input pixels for one pixel of the image, along x and y.
    pub scale: [f32; 2],
    /// Where the image's left top corner lies in the input, pixels; negative when cropped.
    pub offset_px: [f32; 2],
}

impl Frame {
    /// Numbers in [`Frame::to_numbers`].
    pub const NUMBERS: usize = 8;

    /// The frame as a row of numbers, so that it can travel as a tensor.
    pub fn to_numbers(&self) -> [f32; Self::NUMBERS] {
        let [width, height] = self.image_px.map(|px| px as f32);
        let [input_width, input_height] = self.input_px.map(|px| px as f32);
        let ([sx, sy], [ox, oy]) = (self.scale, self.offset_px);
        [width, height, input_width, input_height, sx, sy, ox, oy]
    }

    /// From such a row; `None` when it describes no frame (it may come from a peer).
    pub fn from_numbers(numbers: &[f32]) -> Option<Self> {
        let &[width, height, input_width, input_height, sx, sy, ox, oy] = numbers else { return None };
        let is_side = |px: f32| px.fract() == 0.0 && (1.0..=SIDE_MAX_PX as f32).contains(&px);
        let sides = [width, height, input_width, input_height];
        let scales = [sx, sy].iter().all(|scale| scale.is_finite() && *scale > 0.0);
        if !sides.into_iter().all(is_side) || !scales || !ox.is_finite() || !oy.is_finite() {
            return None;
        }
        Some(Self {
            image_px: [width as u32, height as u32],
            input_px: [input_width as u32, input_height as u32],
            scale: [sx, sy],
            offset_px: [ox, oy],
        })
    }

    /// A box (left, top, right, bottom) of the model's input, in pixels of the image.
    pub(super) fn to_image(self, input_box: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|side| (input_box[side] - self.offset_px[side % 2]) / self.scale[side % 2])
    }

    /// The part of a box that lies in the image; `None` when nothing does.
    pub(super) fn clamp(&self, image_box: [f32; 4]) -> Option<[f32; 4]> {
        let inside: [f32; 4] =
            std::array::from_fn(|side| image_box[side].clamp(0.0, self.image_px[side % 2] as f32));
        (inside[2] > inside[0] && inside[3] > inside[1]).then_some(inside)
    }
}

/// What to do to an image: resize it to `resized_px`, take `size_px` pixels of that from `from_px`
/// on, and put them at `to_px` of the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Placement {
    pub resized_px: [u32; 2],
    pub from_px: [u32; 2],
    pub size_px: [u32; 2],
    pub to_px: [u32; 2],
    pub frame: Frame,
}

pub(super) fn place(fit: Fit, image_px: [u32; 2], input_px: [u32; 2]) -> Result<Placement, PrepareError> {
    let [ratio_x, ratio_y] = [0, 1].map(|axis| f64::from(input_px[axis]) / f64::from(image_px[axis]));
    let scaled = |side: usize, ratio: f64| f64::from(image_px[side]) * ratio;
    let (resized_px, from_px, to_px) = match fit {
        Fit::Stretch => (input_px, [0, 0], [0, 0]),
        Fit::Letterbox { centred, .. } => {
            let ratio = ratio_x.min(ratio_y);
            // A billionth more, so that a product just below a whole number is that number.
            let resized = [0, 1].map(|side| ((scaled(side, ratio) + 1e-9) as u32).clamp(1, input_px[side]));
            let bars = [0, 1].map(|side| if centred { (input_px[side] - resized[side]) / 2 } else { 0 });
            (resized, [0, 0], bars)
        }
        Fit::ShorterSideCrop { shorter_side } => {
            if shorter_side < input_px[0].max(input_px[1]) {
                return Err(PrepareError::Crop { shorter_side, width: input_px[0], height: input_px[1] });
            }
            let ratio = f64::from(shorter_side) / f64::from(image_px[0].min(image_px[1]));
            let resized = [0, 1].map(|side| scaled(side, ratio).round_ties_even() as u32);
            let middle = [0, 1].map(|side| (resized[side] - input_px[side]) / 2);
            (resized, middle, [0, 0])
        }
    };
    let size_px = [0, 1].map(|side| resized_px[side].min(input_px[side]));
    let between = u64::from(size_px[0]) * u64::from(image_px[1]);
    if between > PIXELS_MAX {
        return Err(PrepareError::Pixels { width: image_px[0], height: image_px[1] });
    }
    let frame = Frame {
        image_px,
        input_px,
        scale: [0, 1].map(|side| resized_px[side] as f32 / image_px[side] as f32),
        offset_px: [0, 1].map(|side| to_px[side] as f32 - from_px[side] as f32),
    };
    Ok(Placement { resized_px, from_px, size_px, to_px, frame })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CENTRED: Fit = Fit::Letterbox { fill: 0, centred: true };

    #[test]
    fn a_letterbox_keeps_the_proportion_and_halves_the_bars() {
        let placed = place(CENTRED, [640, 480], [320, 320]).unwrap();
        assert_eq!((placed.resized_px, placed.to_px), ([320, 240], [0, 40]));
        assert_eq!(placed.frame.to_image([0.0, 40.0, 320.0, 280.0]), [0.0, 0.0, 640.0, 480.0]);
        let tall = place(CENTRED, [100, 300], [64, 64]).unwrap();
        assert_eq!((tall.resized_px, tall.to_px), ([21, 64], [21, 0]));
        let corner = Fit::Letterbox { fill: 0, centred: false };
        assert_eq!(place(corner, [100, 300], [64, 64]).unwrap().to_px, [0, 0]);
    }

    /// 660 * (416 / 660) is 415.99999999999994 in double precision.
    #[test]
    fn a_letterbox_fills_the_longer_side() {
        for width in 1..2000 {
            assert_eq!(place(CENTRED, [width, 1], [416, 416]).unwrap().resized_px[0], 416);
        }
    }

    #[test]
    fn a_crop_takes_the_middle() {
        let placed = place(Fit::ShorterSideCrop { shorter_side: 256 }, [640, 480], [224, 224]).unwrap();
        assert_eq!((placed.resized_px, placed.from_px), ([341, 256], [58, 16]));
        let [left, top, ..] = placed.frame.to_image([0.0; 4]);
        assert!((left - 58.0 * 640.0 / 341.0).abs() < 1e-3 && (top - 30.0).abs() < 1e-3);
        let small = place(Fit::ShorterSideCrop { shorter_side: 200 }, [640, 480], [224, 224]);
        assert!(matches!(small, Err(PrepareError::Crop { shorter_side: 200, .. })));
    }

    #[test]
    fn a_stretch_has_a_factor_for_each_side() {
        let frame = place(Fit::Stretch, [640, 480], [352, 352]).unwrap().frame;
        assert_eq!(frame.to_image([176.0, 176.0, 352.0, 352.0]), [320.0, 240.0, 640.0, 480.0]);
    }

    #[test]
    fn what_lies_outside_the_image_is_cut_off() {
        let frame = place(Fit::Stretch, [10, 20], [10, 20]).unwrap().frame;
        assert_eq!(frame.clamp([-5.0, 2.0, 30.0, 30.0]), Some([0.0, 2.0, 10.0, 20.0]));
        assert_eq!(frame.clamp([-5.0, 2.0, -1.0, 30.0]), None);
    }

    #[test]
    fn a_frame_travels_as_numbers_and_odd_ones_are_refused() {
        let frame = place(CENTRED, [741, 500], [320, 320]).unwrap().frame;
        assert_eq!(Frame::from_numbers(&frame.to_numbers()), Some(frame));
        assert_eq!(Frame::from_numbers(&[1.0; 7]), None);
        for (place, odd) in
            [(0, 0.0), (1, 1.5), (2, 1e9), (3, f32::NAN), (4, 0.0), (5, -1.0), (7, f32::INFINITY)]
        {
            let mut numbers = frame.to_numbers();
            numbers[place] = odd;
            assert_eq!(Frame::from_numbers(&numbers), None, "{odd} at {place}");
        }
    }
}
