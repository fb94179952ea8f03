//! A card as it is written in TOML. Field names and values are checked here by their types; what
//! types cannot say is checked in `check`.

use serde::Deserialize;

use super::classes::TOP_DEFAULT;
use super::detect::DETECTIONS_DEFAULT;

/// A whole card, with the output of one kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written<O> {
    pub input: Input,
    #[serde(default)]
    pub extra_input: Vec<ExtraInput>,
    pub output: O,
}

/// What decides which [`Written`] to read.
#[derive(Debug, Deserialize)]
pub(super) struct Probe {
    pub output: ProbeOutput,
}

#[derive(Debug, Deserialize)]
pub(super) struct ProbeOutput {
    pub kind: OutputKind,
    pub family: Option<Family>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OutputKind {
    Classes,
    Detections,
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Family {
    Yolo,
    Nanodet,
    Yunet,
    Fastestdet,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    pub name: String,
    #[serde(rename = "kind")]
    _kind: InputKind,
    pub fit: FitName,
    pub fill: Option<u8>,
    pub anchor: Option<Anchor>,
    pub shorter_side: Option<u32>,
    #[serde(default, rename = "filter")]
    _filter: Filter,
    pub colour: Colour,
    #[serde(default)]
    pub layout: Layout,
    pub scale: Option<f64>,
    pub mean: Option<Vec<f64>>,
    pub std: Option<Vec<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum InputKind {
    Image,
}

/// Bilinear means a triangle as wide as the reduction, as in Pillow and torchvision (antialiased).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Filter {
    #[default]
    Bilinear,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FitName {
    Stretch,
    Letterbox,
    ShorterSideCrop,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Anchor {
    Center,
    TopLeft,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Colour {
    Rgb,
    Bgr,
    Grey,
}

impl Colour {
    pub(super) fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Grey => 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
pub(super) enum Layout {
    #[default]
    #[serde(rename = "NCHW")]
    ChannelsFirst,
    #[serde(rename = "NHWC")]
    ChannelsLast,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExtraInput {
    pub name: String,
    pub fill: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassesOutput {
    #[serde(rename = "kind")]
    _kind: OutputKind,
    pub tensor: String,
    pub softmax: bool,
    #[serde(default = "top_default")]
    pub top: usize,
    pub labels: Option<Vec<String>>,
    pub labels_file: Option<String>,
}

fn top_default() -> usize {
    TOP_DEFAULT
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutput {
    #[serde(rename = "kind")]
    _kind: OutputKind,
    /// Why the outputs stay as they are; for whoever reads the card.
    #[serde(rename = "reason")]
    _reason: Option<String>,
}

/// Detections, with the tensors that a family reads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DetectionsOutput<T> {
    #[serde(rename = "kind")]
    _kind: OutputKind,
    #[serde(rename = "family")]
    _family: Family,
    pub threshold: f32,
    pub nms_iou: f32,
    #[serde(default = "yes")]
    pub class_aware: bool,
    #[serde(default = "detections_default")]
    pub detections_max: usize,
    pub labels: Option<Vec<String>>,
    pub labels_file: Option<String>,
    pub tensors: T,
}

fn yes() -> bool {
    true
}

fn detections_default() -> usize {
    DETECTIONS_DEFAULT
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct YoloTensors {
    pub all: String,
    /// A fifth attribute before the classes that multiplies them (YOLOv5, v7).
    #[serde(default)]
    pub objectness: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FastestDetTensors {
    pub all: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NanodetTensors {
    pub strides: Vec<u32>,
    pub scores: Vec<String>,
    pub boxes: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct YunetTensors {
    pub strides: Vec<u32>,
    pub scores: Vec<String>,
    pub objectness: Vec<String>,
    pub boxes: Vec<String>,
}
