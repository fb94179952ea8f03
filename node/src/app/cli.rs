//! The command line: what can be said, and what it means. What is done is in `commands`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stormo_protocol::model::OrtLevel;
use stormo_protocol::state::Class;

use super::config;

/// Runs one neural network across the machines that are there.
#[derive(Debug, Parser)]
#[command(name = "stormo", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Begin a mesh: make its key.
    Init(InitArgs),
    /// Print a ticket with which others join this node's mesh.
    Invite(InviteArgs),
    /// Run a node.
    Node(NodeArgs),
    /// Divide a model and bring it into the mesh.
    Deploy(DeployArgs),
    /// Take a deployed model back, everywhere.
    Undeploy(UndeployArgs),
    /// Ask a model.
    Infer(InferArgs),
    /// Show how a request would be run.
    Plan(PlanArgs),
    /// Show what is deployed, or how one model is divided.
    Models(ModelsArgs),
    /// Show who is there and what they host.
    Status(StatusArgs),
    /// Make a smaller and faster int8 model of an FP32 one, on this machine.
    Quantize(QuantiseArgs),
}

/// Where a node keeps everything.
#[derive(Debug, Args)]
pub struct DataArg {
    /// Folder for keys and objects [default: ~/.local/share/stormo]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl DataArg {
    /// The folder.
    pub fn path(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(config::data_folder_default)
    }
}

/// Which node to ask, and how to answer.
#[derive(Debug, Args)]
pub struct ApiArgs {
    /// The API of the node to ask.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub api: String,
    /// File with the API's token, if it wants one.
    #[arg(long, value_name = "FILE")]
    pub api_token: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// `stormo init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data: DataArg,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `stormo invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data: DataArg,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: ApiArgs,
}

/// A class on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ClassArg {
    /// A board, a camera, a phone.
    Device,
    /// A machine nearby.
    Edge,
    /// A server far away.
    Cloud,
}

impl From<ClassArg> for Class {
    fn from(class: ClassArg) -> Self {
        match class {
            ClassArg::Device => Self::Device,
            ClassArg::Edge => Self::Edge,
            ClassArg::Cloud => Self::Cloud,
        }
    }
}

/// `stormo node`. An option given twice counts as last given, so that the configuration file's come
/// first and those of the command line win.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct NodeArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data: DataArg,
    /// Configuration file (TOML) with these options by their long names, such as `class = "device"` or
    /// `join = ["TICKET"]`; what is given here wins, lists add up.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where other nodes may reach this one.
    #[arg(long, value_name = "MULTIADDR", default_values_t = ["/ip4/0.0.0.0/tcp/4001".to_owned()])]
    pub listen: Vec<String>,
    /// A ticket, or the address of a node whose mesh key this node has.
    #[arg(long, value_name = "TICKET|MULTIADDR")]
    pub join: Vec<String>,
    /// File with the mesh key [default: mesh.key in the data folder]
    #[arg(long, value_name = "FILE")]
    pub mesh_key: Option<PathBuf>,
    /// Where the HTTP API listens.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8000")]
    pub api: SocketAddr,
    /// File with a token that callers of the API must send; needed when --api is not on loopback.
    #[arg(long, value_name = "FILE")]
    pub api_token: Option<PathBuf>,
    /// Kind of machine.
    #[arg(long, value_enum, default_value = "edge")]
    pub class: ClassArg,
    /// A name for it in tables [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Memory that partitions may take [default: half of what is available]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub memory_budget: Option<u64>,
    /// Disk that objects may take; what nothing needs goes when room is wanted [default: four fifths of
    /// what is free]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub disk_budget: Option<u64>,
    /// Print one line of JSON when ready.
    #[arg(long)]
    pub json: bool,
    /// End when the program that started this one ends.
    #[arg(long)]
    pub die_with_parent: bool,
}

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
    /// Nodes that host each part [default: 2, or 1 with --parts]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub replicas: Option<u16>,
    /// Shape of an input whose axes the model leaves open.
    #[arg(long, value_name = "INPUT=1x3x224x224", value_parser = parse_shape)]
    pub sample_shape: Vec<(String, Vec<u64>)>,
    /// Divide into this many parts of about equal time, each on a node of its own.
    #[arg(long, conflicts_with = "placement", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parts: Option<u16>,
    /// Or place as a TOML file says: `[[place]]`, `node = "LABEL"`, `blocks = [0, 5]` (5 not included).
    #[arg(long, value_name = "FILE")]
    pub placement: Option<PathBuf>,
    /// How much ONNX Runtime may rewrite the graph.
    #[arg(long, value_enum, default_value = "all")]
    pub ort_level: LevelArg,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: ApiArgs,
}

/// `stormo undeploy`.
#[derive(Debug, Args)]
pub struct UndeployArgs {
    /// The model.
    pub name: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: ApiArgs,
}

/// Limits of a request or plan.
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// The first blocks must run at the node that is asked.
    #[arg(long)]
    pub force_first: bool,
    /// Likewise the last.
    #[arg(long)]
    pub force_last: bool,
}

/// `stormo infer`.
#[derive(Debug, Args)]
pub struct InferArgs {
    /// The model.
    pub name: String,
    /// An image, NAME=FILE.npy, or FILE.npz.
    #[arg(required = true)]
    pub inputs: Vec<String>,
    /// Latency wished for; a later answer is marked late.
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms)]
    pub max_latency: Option<f64>,
    /// The request ends after this in any case.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time_ms)]
    pub timeout: f64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: LimitArgs,
    /// Run exactly this plan, from `stormo plan NAME --all`.
    #[arg(long, value_name = "ID")]
    pub plan_id: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: ApiArgs,
}

/// `stormo plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The model.
    pub name: String,
    /// All kinds of plans, not only the best.
    #[arg(long)]
    pub all: bool,
    /// Plans for tensors, of a model whose card takes images.
    #[arg(long)]
    pub tensors: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: LimitArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: ApiArgs,
}

/// `stormo models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// One model, block by block; all models if absent.
    pub name: Option<String>,
    /// Print its block graph for Graphviz.
    #[arg(long, requires = "name", conflicts_with = "svg")]
    pub dot: bool,
    /// Print a picture of its blocks and cuts.
    #[arg(long, requires = "name")]
    pub svg: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: ApiArgs,
}

/// `stormo status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
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
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub search_s: u64,
    /// How much ONNX Runtime may rewrite the graphs whose times are compared.
    #[arg(long, value_enum, default_value = "all")]
    pub ort_level: LevelArg,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Bytes: a number, with KiB, MiB, GiB, kB, MB or GB if wanted.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("use a number of bytes, or one with KiB, MiB, GiB, kB, MB or GB".into()),
    };
    let number: u64 = number.parse().map_err(|_| "use a number of bytes, such as 512MiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is more than any machine has".to_owned())
}

/// A time with its unit, in milliseconds.
fn parse_time_ms(text: &str) -> Result<f64, String> {
    let wrong = || "use a time above 0 with its unit, such as 200ms or 30s".to_owned();
    let (number, factor) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1000.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    if number.is_finite() && number > 0.0 { Ok(number * factor) } else { Err(wrong()) }
}

fn parse_shape(text: &str) -> Result<(String, Vec<u64>), String> {
    let wrong = || format!("`{text}` is no shape; an example: image=1x3x224x224");
    // Names of inputs may hold an equals sign; shapes do not.
    let (name, dims) = text.rsplit_once('=').ok_or_else(wrong)?;
    let dims: Result<Vec<u64>, _> = dims.split('x').map(str::parse).collect();
    let dims = dims.map_err(|_| wrong())?;
    if name.is_empty() { Err(wrong()) } else { Ok((name.to_owned(), dims)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn values_with_units() {
        assert_eq!(parse_bytes("512MiB"), Ok(512 << 20));
        assert_eq!(parse_bytes("64 MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("1000"), Ok(1000));
        assert!(parse_bytes("12 parsec").is_err());
        assert!(parse_bytes("99999999999GiB").is_err());
        assert_eq!(parse_time_ms("200ms"), Ok(200.0));
        assert_eq!(parse_time_ms("1.5s"), Ok(1500.0));
        assert!(parse_time_ms("10").is_err());
        assert!(parse_time_ms("-1s").is_err());
        assert_eq!(parse_shape("a=b=1x3"), Ok(("a=b".into(), vec![1, 3])));
        assert!(parse_shape("image").is_err());
    }
}
