//! Model cards: how an encoded image becomes a model's input, and what the model's output means.
//! Bytes in, values out; no file is read here, so a card that names a labels file gets its text from
//! the caller ([`embed_labels`]). Running the model is not said here.

mod agreement;
mod boxes;
mod check;
mod classes;
mod decode;
mod detect;
mod geometry;
mod outputs;
mod places;
mod prepare;
mod resample;
#[cfg(test)]
mod tests;
mod written;

use serde::{Deserialize, Serialize};
use stormo_protocol::tensor::Tensor;

pub use agreement::Agreement;
pub use check::embed_labels;
pub use geometry::Frame;
pub use outputs::ReadError;
pub use places::CardError;
pub use prepare::PrepareError;

/// Longest card, bytes. A thousand labels take 22 kB; this holds some twenty thousand.
pub const CARD_BYTES_MAX: usize = 512 << 10;

/// A checked card.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    image: ImageInput,
    constants: Vec<ConstantInput>,
    output: Output,
}

/// The input that takes the image: `value = (pixel * scale - mean) / std` for pixels from 0 to 255.
#[derive(Debug, Clone, PartialEq)]
struct ImageInput {
    name: String,
    fit: geometry::Fit,
    colour: written::Colour,
    layout: written::Layout,
    scale: f64,
    /// One number per channel, in the order of `colour`.
    mean: Vec<f64>,
    std: Vec<f64>,
}

/// An input that holds one value everywhere.
#[derive(Debug, Clone, PartialEq)]
struct ConstantInput {
    name: String,
    fill: f64,
}

#[derive(Debug, Clone, PartialEq)]
enum Output {
    Classes(classes::Classes),
    Detections(detect::Detector),
    Raw,
}

#[derive(Debug, Clone, PartialEq)]
enum Labels {
    List(Vec<String>),
    /// A file beside the model, which whoever reads files puts into the card.
    File(String),
}

impl Labels {
    fn list(&self) -> Result<&[String], ReadError> {
        match self {
            Self::List(labels) => Ok(labels),
            Self::File(file) => Err(ReadError::LabelsNotEmbedded(file.clone())),
        }
    }
}

/// What a model saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "found", rename_all = "lowercase")]
pub enum Meaning {
    /// The likeliest classes, likeliest first.
    Classes(Vec<Class>),
    /// Objects, surest first.
    Detections(Vec<Detection>),
    /// The card gives the outputs no meaning; read the tensors.
    Raw,
}

/// One class of a classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// The class's name.
    pub label: String,
    /// Its place in the model's output.
    pub index: usize,
    /// What the model gave it, from 0 to 1 if it (or the card) applies a softmax.
    pub score: f32,
}

/// One object found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The class's name.
    pub label: String,
    /// Its place in the model's output.
    pub index: usize,
    /// How sure the model is, from 0 to 1.
    pub score: f32,
    /// Left, top, right, bottom in pixels of the original upright image, inside it.
    pub box_px: [f32; 4],
}

impl Card {
    /// Reads a card.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and field.
    pub fn parse(toml: &str) -> Result<Self, CardError> {
        check::card(toml)
    }

    /// The labels file that the card names, relative to the model's folder; `None` when the card
    /// holds its labels or needs none. [`embed_labels`] makes a card that holds them.
    pub fn labels_file(&self) -> Option<&str> {
        let labels = match &self.output {
            Output::Classes(classes) => &classes.labels,
            Output::Detections(detector) => &detector.labels,
            Output::Raw => return None,
        };
        match labels {
            Labels::File(file) => Some(file),
            Labels::List(_) => None,
        }
    }

    /// Whether the card gives the outputs a meaning; otherwise they are read as tensors.
    pub fn gives_meaning(&self) -> bool {
        !matches!(self.output, Output::Raw)
    }

    /// The kind of meaning that it reads in the outputs, as in a written [`Meaning`].
    pub fn reads(&self) -> &'static str {
        match &self.output {
            Output::Classes(_) => "classes",
            Output::Detections(_) => "detections",
            Output::Raw => "raw",
        }
    }

    /// What the outputs mean. They may come in any order, others may be among them.
    ///
    /// # Errors
    /// When an output that the card reads is missing or is not what the card says.
    pub fn read(&self, outputs: &[Tensor], frame: &Frame) -> Result<Meaning, ReadError> {
        match &self.output {
            Output::Classes(classes) => Ok(Meaning::Classes(classes.read(outputs)?)),
            Output::Detections(detector) => Ok(Meaning::Detections(detector.read(outputs, frame)?)),
            Output::Raw => Ok(Meaning::Raw),
        }
    }
}
