//! The command line: what can be said, and what it means. What is done is in `commands`.

mod deploying;
mod streaming;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stormo_protocol::codec::payload::Codec;
use stormo_protocol::state::{Class, Domain};

use values::{
    parse_accuracy, parse_batch_within, parse_bytes, parse_codec, parse_energy_j, parse_share_below_1,
    parse_time_ms,
};

pub use deploying::{
    DeployArgs, LevelArg, ModelFileArgs, QUANTISE_SEARCH_S, QuantiseArgs, QuantiseTo, UndeployArgs,
    VariantArg,
};
pub use streaming::StreamArgs;
pub use values::GrpcArg;

use super::calls::PlannerName;
use super::config;
use super::owner::{Hours, Roles};
use super::power::Power;
use crate::traces::Endpoint;

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
    /// Ask a model about one frame after the other: images of a folder, or of a camera.
    Stream(StreamArgs),
    /// Show how a request would be run.
    Plan(PlanArgs),
    /// Show what is deployed, or how one model is divided.
    Models(ModelsArgs),
    /// Show who is there and what they host.
    Status(StatusArgs),
    /// Watch the mesh live in this terminal.
    Top(TopArgs),
    /// Let a node take work of other nodes, or none for now.
    Work(WorkArgs),
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

/// Which node to ask.
#[derive(Debug, Args)]
pub struct NodeApiArgs {
    /// The API of the node to ask.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub api: String,
    /// File with the API's token, if it wants one.
    #[arg(long, value_name = "FILE")]
    pub api_token: Option<PathBuf>,
}

/// Which node to ask, and how to answer.
#[derive(Debug, Args)]
pub struct ApiArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub node: NodeApiArgs,
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
    /// Where the Open Inference Protocol over gRPC listens, or `off`.
    #[arg(long, value_name = "ADDR:PORT|off", default_value = "127.0.0.1:8001")]
    pub grpc: GrpcArg,
    /// File with a token that callers of both APIs must send; needed when one is not on loopback.
    #[arg(long, value_name = "FILE")]
    pub api_token: Option<PathBuf>,
    /// Kind of machine.
    #[arg(long, value_enum, default_value = "edge")]
    pub class: ClassArg,
    /// A name for it in tables [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// What may take this machine away together with others: `owner:NAME`, `site:NAME`, `uplink:NAME` or
    /// `power:NAME`; several times for several. Replicas are kept apart by it where they can be.
    #[arg(long, value_name = "KIND:NAME")]
    pub domain: Vec<Domain>,
    /// Memory that partitions may take [default: half of what is available]. Never more than what the limit of its
    /// control group leaves beside the node itself (64 MiB)
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub memory_budget: Option<u64>,
    /// What this machine draws, in watts, when it idles, computes on one core, sends and receives, and what its radio
    /// takes for each request, in joules: `idle=0.4,compute=3.0,send=1.6,receive=0.9,tail=0.02` (the last three if
    /// wanted). Plans then tell energy, and requests may limit it.
    #[arg(long, value_name = "KEY=NUMBER,...")]
    pub power: Option<Power>,
    /// Disk that objects may take; what nothing needs goes when room is wanted [default: four fifths of
    /// what is free]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub disk_budget: Option<u64>,
    /// What it does for other nodes: `compute` runs parts of models, `store` gives them objects; `none` is
    /// neither. Its own requests run in any case.
    #[arg(long, value_name = "ROLES", default_value = "compute,store")]
    pub roles: Roles,
    /// Times of day, where this machine is, at which it takes work of other nodes, such as `22:00-07:00`;
    /// several with commas [default: always]
    #[arg(long, value_name = "HOURS")]
    pub hours: Option<Hours>,
    /// Memory of this machine that stays available to other programs: parts are refused that would take it,
    /// and dropped when others need it [default: none]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub keep_free_memory: Option<u64>,
    /// Share of this machine's cores that parts of models leave to other programs, from 0 to below 1; whole
    /// cores count [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = parse_share_below_1)]
    pub keep_free_cpu: Option<f64>,
    /// Requests that wait for the same part run together where its model leaves the batch axis open, the first of them
    /// waiting so many milliseconds for others; 0 joins only what waits anyway. What is joined may differ in its last
    /// digits [default: each runs alone]
    #[arg(long, value_name = "MS", value_parser = parse_batch_within)]
    pub batch_within: Option<Duration>,
    /// Tell a collector of OpenTelemetry traces how requests went that entered here: OTLP over HTTP with JSON, to
    /// /v1/traces there [default: nobody is told]
    #[arg(long, value_name = "http://HOST:4318")]
    pub otlp: Option<Endpoint>,
    /// Print one line of JSON when ready.
    #[arg(long)]
    pub json: bool,
    /// End when the program that started this one ends, or has ended: it is the process of this id
    #[arg(long, value_name = "PID", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub die_with_parent: Option<i32>,
}

/// Limits of a request or plan.
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// The first block of the network must run at the node that is asked; decoding an image is none
    #[arg(long)]
    pub force_first: bool,
    /// Likewise the last; reading the answer is none
    #[arg(long)]
    pub force_last: bool,
    /// Accuracy that is enough, 0 to 1: tensors may then be rounded on their way where that was measured
    /// to keep it [default: nothing is lost on the way]
    #[arg(long, value_name = "ACCURACY", value_parser = parse_accuracy)]
    pub min_accuracy: Option<f64>,
    /// Latency wished for; a later answer is marked late.
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms)]
    pub max_latency: Option<f64>,
    /// Most energy that the machine of the node that is asked may draw for it, such as 0.5J; needs
    /// `stormo node --power` there.
    #[arg(long, value_name = "ENERGY", value_parser = parse_energy_j)]
    pub max_energy: Option<f64>,
    /// What is to be least within the limits: the time to the answer, the time between answers of a stream, or
    /// the energy of the node that is asked.
    #[arg(long, value_enum, default_value = "latency")]
    pub objective: ObjectiveArg,
}

/// An objective on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ObjectiveArg {
    /// Time from request to answer.
    Latency,
    /// Time from one answer to the next.
    Throughput,
    /// What the node that is asked draws.
    Energy,
}

impl ObjectiveArg {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Energy => "energy",
        }
    }
}

/// When backups are sent the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RedundancyArg {
    /// Only when the one before is lost, or refuses.
    Warm,
    /// Also when it takes longer than nearly always; at most one in twenty.
    Hedge,
    /// From the start: all runs twice.
    Duplicate,
}

impl RedundancyArg {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Hedge => "hedge",
            Self::Duplicate => "duplicate",
        }
    }
}

/// How to ask a model.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// The request ends after this in any case.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time_ms)]
    pub timeout: f64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: LimitArgs,
    /// The variant to run [default: the most accurate one that can run, or by the limits]
    #[arg(long, value_name = "LABEL")]
    pub variant: Option<String>,
    /// When others that have a stage loaded are sent the same [default: hedge; warm with `--objective energy`]
    #[arg(long, value_enum)]
    pub redundancy: Option<RedundancyArg>,
    /// Run exactly this plan, from `stormo plan NAME --all`.
    #[arg(long, value_name = "ID")]
    pub plan_id: Option<String>,
}

/// `stormo infer`.
#[derive(Debug, Args)]
pub struct InferArgs {
    /// The model.
    pub name: String,
    /// An image, NAME=FILE.npy, FILE.npz, or NAME=FILE.txt with one text on each line.
    #[arg(required = true)]
    pub inputs: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub ask: AskArgs,
    /// Show what the request's time went into: waiting, moving, coding and running, stage by stage.
    #[arg(long)]
    pub trace: bool,
    /// Write the image with the boxes of what was found in it, as .png or .jpg.
    #[arg(long, value_name = "FILE")]
    pub draw: Option<PathBuf>,
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
    /// How to look for the best plan.
    #[arg(long, value_enum, default_value = "greedy")]
    pub planner: PlannerName,
    /// As if all parts were loaded wherever they fit: what plans would take once they run for a while.
    #[arg(long)]
    pub warm: bool,
    /// Plans that leave this node out, by its label or peer id; may be repeated.
    #[arg(long, value_name = "NODE")]
    pub without: Vec<String>,
    /// With --all: the timeline of each plan, not only of the best of each kind.
    #[arg(long, requires = "all")]
    pub timelines: bool,
    /// Write what plans are made of here and now to this file (`-`: standard output) as a planning instance,
    /// for `cargo mesh plan FILE`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "codec"])]
    pub export: Option<PathBuf>,
    /// Plans of this variant only.
    #[arg(long, value_name = "LABEL")]
    pub variant: Option<String>,
    /// Plans for tensors, of a model whose card takes images.
    #[arg(long)]
    pub tensors: bool,
    /// The same plans with this codec wherever it is possible, instead of the best ones: raw, shuffle+lz4,
    /// f16, f16+lz4, int8, int8+lz4 or int8+zstd.
    #[arg(long, value_name = "CODEC", value_parser = parse_codec)]
    pub codec: Option<Codec>,
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
    /// The variant to show block by block [default: the most accurate one]
    #[arg(long, value_name = "LABEL", requires = "name")]
    pub variant: Option<String>,
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
    /// Ask each node now, within 2 s, instead of telling what is known of it.
    #[arg(long)]
    pub fresh: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: ApiArgs,
}

/// `stormo top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: NodeApiArgs,
}

/// Whether work of others is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WorkArg {
    /// Take work of others again, within the hours and roles that the node was started with.
    On,
    /// Take none until told otherwise or started again: what runs ends first.
    Off,
}

/// `stormo work`.
#[derive(Debug, Args)]
pub struct WorkArgs {
    /// Whether the node takes work of others from now on.
    #[arg(value_enum)]
    pub work: WorkArg,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: ApiArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
