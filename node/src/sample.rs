//! Inputs for running a model and for measuring it: real ones, and where there are none, made-up ones
//! (noise for numbers, zeros for indices and as texts; the same bytes each time, so that two measurements do
//! the same work).

use crate::card::{Frame, PrepareError};
use stormo_protocol::tensor::{BadTensor, DType, Tensor, TensorBuffer, TensorData, TensorSpec};

/// Largest sample, bytes; above this a shape is a mistake.
const SAMPLE_BYTES_MAX: u64 = 1 << 30;

/// A text that is also a number, for models that read one from it.
const TEXT: &str = "0";

/// One set of real inputs.
#[derive(Debug, Clone)]
pub struct Sample {
    /// In the model's order.
    pub inputs: Vec<Tensor>,
    /// The image's, when it came through a card.
    pub frame: Option<Frame>,
}

/// A tensor of this description.
///
/// # Errors
/// When the description is out of bounds.
pub fn tensor(spec: TensorSpec) -> Result<Tensor, BadTensor> {
    let bytes = spec.byte_length()?;
    if bytes > SAMPLE_BYTES_MAX {
        return Err(BadTensor::Overflow(spec.shape));
    }
    if spec.dtype == DType::Text {
        let texts = std::iter::repeat_n(TEXT, spec.elements()? as usize);
        return Tensor::new(spec, TensorData::of_texts(texts)?);
    }
    let mut buffer = TensorBuffer::zeroed(bytes as usize);
    fill(spec.dtype, buffer.as_mut_bytes());
    Tensor::new(spec, buffer.freeze())
}

/// Numbers between 0 and 1 for floating-point types (zeros cost less to multiply on some machines),
/// zeros for all others: an index of 0 is valid wherever one is.
fn fill(dtype: DType, bytes: &mut [u8]) {
    let mut state = 0x9e37_79b9_u32;
    let mut next = move || {
        // A linear congruential generator (Numerical Recipes); quality does not matter here.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    match dtype {
        DType::F32 => bytes.chunks_exact_mut(4).for_each(|to| to.copy_from_slice(&next().to_le_bytes())),
        DType::F64 => {
            bytes.chunks_exact_mut(8).for_each(|to| to.copy_from_slice(&f64::from(next()).to_le_bytes()));
        }
        DType::F16 => bytes
            .chunks_exact_mut(2)
            .for_each(|to| to.copy_from_slice(&half::f16::from_f32(next()).to_le_bytes())),
        DType::BF16 => bytes
            .chunks_exact_mut(2)
            .for_each(|to| to.copy_from_slice(&half::bf16::from_f32(next()).to_le_bytes())),
        _ => {}
    }
}

/// Sides of the made-up photo, pixels: what a small camera gives.
const PHOTO_PX: (u32, u32) = (640, 480);

/// A JPEG of gradients and some noise, which codes to about as many bytes as a photo of its size.
///
/// # Errors
/// When the encoder refuses, which it has no reason to.
pub fn photo() -> Result<Vec<u8>, PrepareError> {
    let mut state = 0x9e37_79b9_u32;
    let picture = image::RgbImage::from_fn(PHOTO_PX.0, PHOTO_PX.1, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 28) as u8;
        image::Rgb([(x * 200 / PHOTO_PX.0) as u8 + noise, (y * 200 / PHOTO_PX.1) as u8 + noise, 90 + noise])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Jpeg)?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_numbers_between_0_and_1_and_the_same_each_time() {
        let spec = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![2, 50] };
        let sample = tensor(spec.clone()).unwrap();
        let values = sample.data().as_slice_of::<f32>().unwrap();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        assert!(values.iter().any(|value| *value != values[0]));
        assert_eq!(tensor(spec).unwrap(), sample);
        let indices = TensorSpec { name: "i".into(), dtype: DType::I64, shape: vec![3] };
        assert_eq!(tensor(indices).unwrap().data().as_bytes(), [0; 24]);
        let words = TensorSpec { name: "w".into(), dtype: DType::Text, shape: vec![2] };
        assert_eq!(tensor(words).unwrap().texts().unwrap().collect::<Vec<_>>(), ["0", "0"]);
    }
}
