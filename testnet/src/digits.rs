//! The committed network that reads handwritten digits, images of them with their truth, and how
//! they look as text.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use stormo::serve::json::TensorView;

use crate::binary::workspace_root;
use crate::oip::{FloatTensor, InferRequest};

/// From paper to ink; each pixel is drawn twice, since characters are about twice as high as wide.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];

/// A committed file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct BadFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// An image of one digit.
#[derive(Debug, Clone)]
pub struct Image {
    /// File name.
    pub name: String,
    /// The digit that it is.
    pub truth: u8,
    /// Pixels of a row.
    pub width: usize,
    /// Row by row, 0 (paper) to 1 (ink).
    pub pixels: Vec<f32>,
}

/// The trained network.
pub fn model() -> PathBuf {
    workspace_root().join("testnet/models/digits.onnx")
}

/// The folder of the images.
pub fn folder() -> PathBuf {
    workspace_root().join("testnet/models/digits")
}

/// All images, by name.
///
/// # Errors
/// When one is missing or damaged.
pub fn load() -> Result<Vec<Image>, BadFile> {
    fn bad(path: PathBuf, what: impl ToString) -> BadFile {
        BadFile { path, what: what.to_string() }
    }
    let folder = folder();
    let truth = folder.join("truth.json");
    let text = fs::read_to_string(&truth).map_err(|error| bad(truth.clone(), error))?;
    let known: BTreeMap<String, u8> =
        serde_json::from_str(&text).map_err(|error| bad(truth.clone(), error))?;
    if known.is_empty() {
        return Err(bad(truth, "names no images"));
    }
    let images = known.into_iter().map(|(name, truth)| {
        let path = folder.join(&name);
        let image = image::open(&path).map_err(|error| bad(path, error))?.into_luma8();
        let pixels = image.pixels().map(|pixel| f32::from(pixel.0[0]) / 255.0).collect();
        Ok(Image { name, truth, width: image.width() as usize, pixels })
    });
    images.collect()
}

impl Image {
    /// The request that asks for its digit.
    pub fn request(&self, input: &TensorView) -> InferRequest {
        InferRequest::new(&input.name, &input.shape, self.pixels.clone())
    }
}

/// The digit of an answer: the likeliest class.
pub fn read(outputs: &[FloatTensor]) -> Option<u8> {
    let probabilities = &outputs.first()?.data;
    let likeliest = probabilities.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    likeliest.and_then(|(digit, _)| u8::try_from(digit).ok())
}

/// Images beside each other, as lines of text.
pub fn draw(images: &[&Image]) -> Vec<String> {
    let rows = images.iter().map(|image| image.pixels.len() / image.width).max().unwrap_or(0);
    let line = |row: usize| images.iter().map(|image| draw_row(image, row)).collect::<Vec<_>>().join("    ");
    (0..rows).map(line).collect()
}

fn draw_row(image: &Image, row: usize) -> String {
    let pixels = image.pixels.iter().skip(row * image.width).take(image.width);
    pixels.flat_map(|pixel| [shade(*pixel); 2]).collect()
}

fn shade(pixel: f32) -> char {
    let last = SHADES.len() - 1;
    // Between 0 and 1 by construction, and a cast from float saturates.
    SHADES[((pixel * last as f32).round() as usize).min(last)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_images_are_digits() {
        let images = load().unwrap();
        assert!(images.len() >= 10);
        for image in &images {
            assert!(image.truth <= 9);
            assert_eq!((image.width, image.pixels.len()), (8, 64), "{}", image.name);
            assert!(image.pixels.iter().any(|pixel| *pixel > 0.5), "{} is blank", image.name);
        }
    }

    #[test]
    fn draws_ink_dark() {
        let image = Image { name: String::new(), truth: 1, width: 2, pixels: vec![0.0, 1.0, 0.5, 0.0] };
        assert_eq!(draw(&[&image, &image]), ["  ██      ██", "▒▒      ▒▒  "]);
    }
}
