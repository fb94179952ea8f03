//! The command line of what begins with a model file: `stormo deploy` and `undeploy`, `stormo quantize`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stormo_protocol::model::OrtLevel;

use super::ApiArgs;
use super::values::{parse_accuracy, parse_shape, parse_variant};

/// Longest search for parts that are faster in floats, unless told otherwise: the models tried needed 5 to
/// 25 s.
pub const QUANTISE_SEARCH_S: u64 = 30;

/// An optimisation level on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LevelArg {
    /// None: divided and undivided answers are equal bit by bit.
    Off,
    /// Redundant nodes removed.
    Basic,
    /// Fusions too.
    Extended,
    /// Everything.
    All,
}

impl From<LevelArg> for OrtLevel {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Off => Self::Off,
            LevelArg::Basic => Self::Basic,
            LevelArg::Extended => Self::Extended,
            LevelArg::All => Self::All,
        }
    }
}

/// A model on this machine.
#[derive(Debug, Args)]
pub struct ModelFileArgs {
    /// The ONNX file.
    #[arg(value_name = "MODEL")]
    pub path: PathBuf,
    /// Read weights that the model keeps in files beside it (2 GiB with the model at most); nothing outside
    /// its folder is read.
    #[arg(long)]
    pub external_data: bool,
}

/// `stormo deploy`.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// Name to ask for it by.
    pub name: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFileArgs,
    /// The model's card (TOML): how an image becomes its input, and what its output means.
    #[arg(long, value_name = "FILE")]
    pub card: Option<PathBuf>,
    /// An image to measure the card's work on [default: a made-up one of 640x480]
    #[arg(long, value_name = "FILE", requires = "card")]
    pub sample_image: Option<PathBuf>,
    /// How often the model's answers are right, 0 to 1 [default: it is what others are measured against]
    #[arg(long, value_name = "ACCURACY", value_parser = parse_accuracy)]
    pub accuracy: Option<f64>,
    /// Another model that answers the same question, smaller, larger or quantised, and how often it is
    /// right; requests get the most accurate one that can run, or the one they name.
    #[arg(long, value_name = "LABEL=FILE[:ACCURACY]", value_parser = parse_variant)]
    pub variant: Vec<VariantArg>,
    /// Make one more variant, `int8`, of the model, calibrated on --samples; kept if it is faster here.
    #[arg(long, value_enum, requires = "samples")]
    pub quantize: Option<QuantiseTo>,
    /// Leave nodes of it in floats whose name, or that of what they make, begins so.
    #[arg(long, value_name = "PREFIX", requires = "quantize")]
    pub keep_float: Vec<String>,
    /// A folder of what the model is for (images with --card, .npy or .npz): on some of them is measured what
    /// codecs make of its tensors and, with a card, what it costs to round these; without, they are never
    /// rounded. --quantize calibrates on them.
    #[arg(long, value_name = "DIR")]
    pub samples: Option<PathBuf>,
    /// Nodes that host each part [default: 2, or 1 with --parts, or as many as --placement names]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub replicas: Option<u16>,
    /// Shape of an input whose axes the model leaves open.
    #[arg(long, value_name = "INPUT=1x3x224x224", value_parser = parse_shape)]
    pub sample_shape: Vec<(String, Vec<u64>)>,
    /// Divide into this many parts of about equal time, each on a node of its own.
    #[arg(long, conflicts_with = "placement", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parts: Option<u16>,
    /// Or place as a TOML file says: `[[place]]`, `node = "LABEL"`, `blocks = [0, 5]` (5 not included), and
    /// `variant = "LABEL"` where not every variant is meant.
    #[arg(long, value_name = "FILE")]
    pub placement: Option<PathBuf>,
    /// Take the name over from the node that published it, if that is gone.
    #[arg(long)]
    pub take_over: bool,
    /// How much ONNX Runtime may rewrite the graph.
    #[arg(long, value_enum, default_value = "all")]
    pub ort_level: LevelArg,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: ApiArgs,
}

/// What a variant can be made of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuantiseTo {
    /// 8-bit integers.
    Int8,
}

/// A variant that the user has.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantArg {
    /// Its label.
    pub label: String,
    /// The ONNX file.
    pub file: PathBuf,
    /// How often it is right.
    pub accuracy: Option<f64>,
}

/// `stormo undeploy`.
#[derive(Debug, Args)]
pub struct UndeployArgs {
    /// The model.
    pub name: String,
    /// Also if another node published it, once that is gone.
    #[arg(long)]
    pub take_over: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: ApiArgs,
}

/// `stormo quantize`.
#[derive(Debug, Args)]
pub struct QuantiseArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFileArgs,
    /// Folder of inputs like those it will get: images (with --card), .npy or .npz files. Some 20 to 100
    /// are enough; from 8 on, a quarter is kept from calibration and only judged by.
    #[arg(long, value_name = "DIR")]
    pub samples: PathBuf,
    /// The model's card (TOML): how an image becomes its input, and what its output means.
    #[arg(long, value_name = "FILE")]
    pub card: Option<PathBuf>,
    /// The file to write [default: MODEL.int8.onnx beside the model]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Leave nodes in floats whose name, or that of what they make, begins so.
    #[arg(long, value_name = "PREFIX")]
    pub keep_float: Vec<String>,
    /// Shape of an input whose axes the model leaves open.
    #[arg(long, value_name = "INPUT=1x3x224x224", value_parser = parse_shape)]
    pub sample_shape: Vec<(String, Vec<u64>)>,
    /// Seconds to search, by measuring on this machine, for parts that are faster in floats.
    #[arg(long, value_name = "SECONDS", default_value_t = QUANTISE_SEARCH_S)]
    pub search_s: u64,
    /// How much ONNX Runtime may rewrite the graphs whose times are compared.
    #[arg(long, value_enum, default_value = "all")]
    pub ort_level: LevelArg,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
