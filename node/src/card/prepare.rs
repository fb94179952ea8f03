//! From an encoded image to the tensors that a model takes.

#[cfg(test)]
mod tests;

use half::f16;
use stormo_protocol::limits::FRAME_PAYLOAD_BYTES_MAX;
use stormo_protocol::tensor::{BadTensor, DType, Tensor, TensorBuffer, TensorSpec};

use super::decode::{ENCODED_BYTES_MAX, Pixels, decode};
use super::geometry::{Fit, Frame, PIXELS_MAX, Placement, SIDE_MAX_PX, place};
use super::resample::resample;
use super::written::{Colour, Layout};
use super::{Card, ConstantInput, ImageInput};

/// Why an image did not become tensors.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Longer than any photo.
    #[error("an image of {0} bytes is above the limit of {ENCODED_BYTES_MAX}")]
    EncodedBytes(usize),
    /// Another format, or none.
    #[error("the bytes are neither a JPEG nor a PNG")]
    Format,
    /// The end is missing.
    #[error("the JPEG ends before its picture does")]
    CutShort,
    /// More pixels than are decoded or resized.
    #[error(
        "an image of {width}x{height} pixels is above the limit of {PIXELS_MAX} or {SIDE_MAX_PX} to a side"
    )]
    Pixels {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The decoder found it wrong.
    #[error("the image is damaged: {0}")]
    Damaged(#[from] image::ImageError),
    /// The card crops less than the model takes.
    #[error("the card's shorter_side of {shorter_side} is less than the model's input of {width}x{height}")]
    Crop {
        /// As the card says, pixels.
        shorter_side: u32,
        /// The model's, pixels.
        width: u32,
        /// The model's, pixels.
        height: u32,
    },
    /// The card speaks of an input that the model does not have.
    #[error("the model has no input `{0}`, of which its card speaks")]
    NoSuchInput(String),
    /// The model has an input that the card leaves out.
    #[error("the card does not say what the model's input `{0}` takes")]
    NotOnCard(String),
    /// The image does not fit the model's input.
    #[error("the model's input `{name}` of shape {shape:?} is no image as on its card: {expected}")]
    Shape {
        /// The input.
        name: String,
        /// The model's.
        shape: Vec<u64>,
        /// What the card says.
        expected: &'static str,
    },
    /// An element type that no image or constant is written in.
    #[error("the model's input `{name}` is {}, which a card cannot fill", dtype.oip_name())]
    ElementType {
        /// The input.
        name: String,
        /// The model's.
        dtype: DType,
    },
    /// A tensor beyond all bounds.
    #[error(transparent)]
    Tensor(#[from] BadTensor),
}

impl Card {
    /// Turns a JPEG or PNG into the tensors that the model takes, in the order of `specs`.
    ///
    /// # Errors
    /// When the image is no image or too large, or model and card do not fit together.
    pub fn prepare(
        &self,
        encoded: &[u8],
        specs: &[TensorSpec],
    ) -> Result<(Vec<Tensor>, Frame), PrepareError> {
        let named = |name: &str| specs.iter().find(|spec| spec.name == name);
        let missing = |name: &String| PrepareError::NoSuchInput(name.clone());
        let spec = named(&self.image.name).ok_or_else(|| missing(&self.image.name))?;
        if let Some(constant) = self.constants.iter().find(|constant| named(&constant.name).is_none()) {
            return Err(missing(&constant.name));
        }
        let input_px = self.image.size_px(spec)?;
        let pixels = decode(encoded, self.image.colour.channels())?;
        let placement = place(self.image.fit, [pixels.width, pixels.height], input_px)?;
        let pixels = resample(pixels, placement.resized_px, placement.from_px, placement.size_px);
        let mut image = Some(self.image.tensor(spec, &pixels, &placement)?);
        let mut tensors = Vec::with_capacity(specs.len());
        for spec in specs {
            let constant = self.constants.iter().find(|constant| constant.name == spec.name);
            tensors.push(match constant {
                Some(constant) => constant.tensor(spec)?,
                None if spec.name == self.image.name => {
                    image.take().ok_or_else(|| PrepareError::NotOnCard(spec.name.clone()))?
                }
                None => return Err(PrepareError::NotOnCard(spec.name.clone())),
            });
        }
        Ok((tensors, placement.frame))
    }
}

fn checked_bytes(spec: &TensorSpec) -> Result<usize, PrepareError> {
    let bytes = spec.byte_length()?;
    if bytes > FRAME_PAYLOAD_BYTES_MAX {
        return Err(BadTensor::Overflow(spec.shape.clone()).into());
    }
    Ok(bytes as usize)
}

impl ConstantInput {
    fn tensor(&self, spec: &TensorSpec) -> Result<Tensor, PrepareError> {
        let fill = self.fill;
        let element: Vec<u8> = match spec.dtype {
            DType::F32 => (fill as f32).to_le_bytes().into(),
            DType::F64 => fill.to_le_bytes().into(),
            DType::F16 => f16::from_f64(fill).to_le_bytes().into(),
            DType::U8 => vec![fill as u8],
            DType::I8 => (fill as i8).to_le_bytes().into(),
            DType::I32 => (fill as i32).to_le_bytes().into(),
            DType::I64 => (fill as i64).to_le_bytes().into(),
            DType::Bool => vec![u8::from(fill != 0.0)],
            dtype => return Err(PrepareError::ElementType { name: spec.name.clone(), dtype }),
        };
        let mut buffer = TensorBuffer::zeroed(checked_bytes(spec)?);
        if fill != 0.0 {
            let elements = buffer.as_mut_bytes().chunks_exact_mut(element.len());
            elements.for_each(|to| to.copy_from_slice(&element));
        }
        Ok(Tensor::new(spec.clone(), buffer.freeze())?)
    }
}

impl ImageInput {
    /// Width and height of the model's input, which is small enough to be made.
    fn size_px(&self, spec: &TensorSpec) -> Result<[u32; 2], PrepareError> {
        let expected = match (self.layout, self.colour) {
            (Layout::ChannelsFirst, Colour::Grey) => "[1, 1, height, width]",
            (Layout::ChannelsFirst, _) => "[1, 3, height, width]",
            (Layout::ChannelsLast, Colour::Grey) => "[1, height, width, 1]",
            (Layout::ChannelsLast, _) => "[1, height, width, 3]",
        };
        let wrong = || PrepareError::Shape { name: spec.name.clone(), shape: spec.shape.clone(), expected };
        let (channels, height, width) = match (self.layout, spec.shape.as_slice()) {
            (Layout::ChannelsFirst, &[1, channels, height, width]) => (channels, height, width),
            (Layout::ChannelsLast, &[1, height, width, channels]) => (channels, height, width),
            _ => return Err(wrong()),
        };
        let is_side = |side: u64| (1..=u64::from(SIDE_MAX_PX)).contains(&side);
        if channels != self.colour.channels() as u64 || !is_side(height) || !is_side(width) {
            return Err(wrong());
        }
        checked_bytes(spec)?;
        Ok([width as u32, height as u32])
    }

    fn tensor(&self, spec: &TensorSpec, pixels: &Pixels, at: &Placement) -> Result<Tensor, PrepareError> {
        let mut buffer = TensorBuffer::zeroed(checked_bytes(spec)?);
        let bytes = buffer.as_mut_bytes();
        match spec.dtype {
            DType::F32 => {
                self.write::<f32>(bytemuck::cast_slice_mut(bytes), pixels, at, |value| value as f32);
            }
            DType::F16 => self.write::<f16>(bytemuck::cast_slice_mut(bytes), pixels, at, f16::from_f64),
            DType::U8 => self.write::<u8>(bytes, pixels, at, |value| value.round() as u8),
            dtype => return Err(PrepareError::ElementType { name: spec.name.clone(), dtype }),
        }
        Ok(Tensor::new(spec.clone(), buffer.freeze())?)
    }

    /// What each of the 256 levels becomes, for one channel of the tensor.
    fn levels<T>(&self, channel: usize, from: impl Fn(f64) -> T) -> [T; 256] {
        std::array::from_fn(|level| {
            from((level as f64 * self.scale - self.mean[channel]) / self.std[channel])
        })
    }

    fn write<T: Copy>(&self, to: &mut [T], pixels: &Pixels, at: &Placement, from: impl Fn(f64) -> T) {
        let channels = pixels.channels;
        let [input_width, input_height] = at.frame.input_px.map(|px| px as usize);
        let [left, top] = at.to_px.map(|px| px as usize);
        let row_bytes = pixels.width as usize * channels;
        for channel in 0..channels {
            let levels = self.levels(channel, &from);
            let source_channel = if self.colour == Colour::Bgr { channels - 1 - channel } else { channel };
            // Elements from one pixel to the next, and to this channel of the first.
            let (step, first) = match self.layout {
                Layout::ChannelsFirst => (1, channel * input_width * input_height),
                Layout::ChannelsLast => (channels, channel),
            };
            let plane = &mut to[first..];
            if let Fit::Letterbox { fill, .. } = self.fit {
                let bars = plane.iter_mut().step_by(step).take(input_width * input_height);
                bars.for_each(|value| *value = levels[usize::from(fill)]);
            }
            for (row, source) in pixels.data.chunks_exact(row_bytes).enumerate() {
                let start = ((top + row) * input_width + left) * step;
                let values = plane[start..].iter_mut().step_by(step);
                for (value, pixel) in values.zip(source.chunks_exact(channels)) {
                    *value = levels[usize::from(pixel[source_channel])];
                }
            }
        }
    }
}
