//! The one reader of the environment: what a node and the commands run with, checked once at start.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stormo_protocol::ids::MeshKey;
use stormo_protocol::limits::{DOMAINS_MAX, NAME_BYTES_MAX};
use stormo_protocol::state::{Class, Domain};

use super::cli::NodeArgs;
use super::owner::OwnerLimits;
use super::power::Power;
use crate::engine::runtime_library::{self, LibrarySearch};
use crate::files;
use crate::monitor;
use crate::net::Ticket;
use crate::pool::DiskBudget;
use crate::traces::Endpoint;

/// Name of the file that holds the mesh key, in a data directory.
pub const MESH_KEY_FILE: &str = "mesh.key";
/// Longest file of an API token that is read, bytes: what a header may have.
pub const TOKEN_BYTES_MAX: u64 = 16 << 10;
/// Longest configuration file that is read, bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Its starts, in the data folder.
const GENERATION_FILE: &str = "generation";
/// Longest of the files that hold a key or a number, bytes.
const SMALL_BYTES_MAX: u64 = 4 << 10;
/// Environment variable that filters the log, in the syntax of `RUST_LOG`.
pub const LOG_VARIABLE: &str = "STORMO_LOG";

/// Why a node cannot start as told.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no mesh to belong to.
    #[error(
        "no mesh key in `{0}`: run `stormo init --data {data}` to begin a mesh, or join one with \
         --join TICKET (from `stormo invite` on a node that is in it)", data = .0.parent().unwrap_or(.0).display()
    )]
    NoMeshKey(PathBuf),
    /// Another node runs with it.
    #[error("`{0}` is in use by another node; end that one, or give this one a --data of its own")]
    InUse(PathBuf),
    /// A mesh key file holds something else.
    #[error("`{0}` does not hold a mesh key")]
    BadMeshKey(PathBuf),
    /// The data directory belongs to another mesh than the ticket.
    #[error(
        "`{0}` belongs to another mesh than the ticket; use another --data, or remove the file to change the mesh"
    )]
    OtherMesh(PathBuf),
    /// Neither a ticket nor an address.
    #[error(
        "--join `{0}` is neither a whole ticket (copy all that `stormo invite` printed) nor a multiaddress such as \
         /ip4/192.0.2.7/tcp/4001"
    )]
    BadJoin(String),
    /// An API that others could reach, without a token.
    #[error(
        "{option} {address} can be reached from other machines: give --api-token FILE with a secret that callers must \
         send"
    )]
    OpenApi {
        /// Which.
        option: &'static str,
        /// Where it would listen.
        address: SocketAddr,
    },
    /// The label is not usable.
    #[error("--label must have 1 to {NAME_BYTES_MAX} characters, none of them a control character")]
    BadLabel,
    /// The owner keeps all cores.
    #[error(
        "--keep-free-cpu {share} leaves less than one of this machine's {cores} core{s}: give less, or let it run \
         nothing for others with --roles store", s = if *.cores == 1 { "" } else { "s" }
    )]
    NoCoreLeft {
        /// What stays free.
        share: f64,
        /// Cores that there are.
        cores: usize,
    },
    /// More than a record holds.
    #[error("--domain was given {0} times; a node is in at most {DOMAINS_MAX} failure domains")]
    TooManyDomains(usize),
    /// A configuration file that is none.
    #[error("`{path}`: {what}")]
    BadFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file could not be read or written.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A key of a configuration file, and the arguments that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyArgs {
    /// As it is written in the file.
    pub key: String,
    /// As if they had been given before those of the command line.
    pub args: Vec<String>,
}

/// The arguments that a configuration file stands for.
///
/// # Errors
/// When the file is no TOML, or holds something else than options.
pub fn args_of_file(path: &Path) -> Result<Vec<KeyArgs>, ConfigError> {
    let wrong = |what: String| ConfigError::BadFile { path: path.to_owned(), what };
    let table: toml::Table =
        toml::from_str(&read_text(path, CONFIG_BYTES_MAX)?).map_err(|error| wrong(error.to_string()))?;
    let mut keys = Vec::new();
    for (name, value) in table {
        let mut args = Vec::new();
        let option = format!("--{}", name.replace('_', "-"));
        let values = match value {
            toml::Value::Array(values) => values,
            single => vec![single],
        };
        for value in values {
            match value {
                toml::Value::String(text) => args.extend([option.clone(), text]),
                toml::Value::Integer(number) => args.extend([option.clone(), number.to_string()]),
                toml::Value::Float(number) => args.extend([option.clone(), number.to_string()]),
                toml::Value::Boolean(true) => args.push(option.clone()),
                toml::Value::Boolean(false) => {}
                _ => return Err(wrong(format!("`{name}` must be a text, a number, or true or false"))),
            }
        }
        keys.push(KeyArgs { key: name, args });
    }
    Ok(keys)
}

/// A node's configuration, complete.
#[derive(Debug)]
pub struct NodeConfig {
    /// Everything the node keeps.
    pub data: PathBuf,
    /// The mesh it belongs to.
    pub mesh: MeshKey,
    /// Multiaddresses to listen on.
    pub listen: Vec<String>,
    /// Multiaddresses to join at.
    pub join: Vec<String>,
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where the one over gRPC listens, if it does.
    pub grpc: Option<SocketAddr>,
    /// What callers of the APIs must send, if anything.
    pub api_token: Option<String>,
    /// The owner's name for it.
    pub label: String,
    /// Kind of machine.
    pub class: Class,
    /// Memory that partitions may take as far as the kernel allows it, bytes.
    pub memory_wished_bytes: u64,
    /// What the owner lets others have.
    pub owner: OwnerLimits,
    /// What may take it away together with others.
    pub domains: Vec<Domain>,
    /// What it draws, if its owner said so.
    pub power: Option<Power>,
    /// Disk for objects.
    pub disk_budget: DiskBudget,
    /// How long requests wait for others to run with; `None` where each runs alone.
    pub batch_within: Option<Duration>,
    /// Who is told how requests went, if anybody.
    pub otlp: Option<Endpoint>,
    /// Where ONNX Runtime may be.
    pub library: LibrarySearch,
}

impl NodeConfig {
    /// Checks arguments and reads what they refer to.
    ///
    /// # Errors
    /// What to change.
    pub fn from_args(args: NodeArgs) -> Result<Self, ConfigError> {
        let data = args.data.path();
        let (mut join, mut ticket_key) = (Vec::new(), None);
        for text in args.join {
            match text.parse::<Ticket>() {
                Ok(ticket) => {
                    join.extend(ticket.addresses);
                    ticket_key = Some(ticket.mesh);
                }
                Err(_) if text.starts_with('/') => join.push(text),
                Err(_) => return Err(ConfigError::BadJoin(text.chars().take(40).collect())),
            }
        }
        let mesh = mesh_key(&data, args.mesh_key.as_deref(), ticket_key)?;
        let api_token = args.api_token.map(|path| read_text(&path, TOKEN_BYTES_MAX)).transpose()?;
        let grpc = args.grpc.address();
        let listening = [("--api", Some(args.api)), ("--grpc", grpc)];
        let open = listening.into_iter().find_map(|(option, address)| {
            address.filter(|address| !address.ip().is_loopback()).map(|address| (option, address))
        });
        if let Some((option, address)) = open.filter(|_| api_token.as_deref().is_none_or(str::is_empty)) {
            return Err(ConfigError::OpenApi { option, address });
        }
        let label = args.label.unwrap_or_else(host_name);
        if label.trim().is_empty() || label.len() > NAME_BYTES_MAX || label.chars().any(char::is_control) {
            return Err(ConfigError::BadLabel);
        }
        let owner = OwnerLimits {
            roles: args.roles,
            hours: args.hours,
            keep_free_memory_bytes: args.keep_free_memory.unwrap_or(0),
            keep_free_cpu: args.keep_free_cpu.unwrap_or(0.0),
        };
        if owner.cores_of(monitor::cores()) == 0 {
            return Err(ConfigError::NoCoreLeft { share: owner.keep_free_cpu, cores: monitor::cores() });
        }
        let mut domains = args.domain;
        domains.sort_unstable();
        domains.dedup();
        if domains.len() > DOMAINS_MAX {
            return Err(ConfigError::TooManyDomains(domains.len()));
        }
        Ok(Self {
            owner,
            domains,
            power: args.power,
            batch_within: args.batch_within,
            otlp: args.otlp,
            library: library_search(Some(&data)),
            data,
            mesh,
            listen: args.listen,
            join,
            api: args.api,
            grpc,
            api_token,
            label,
            class: args.class.into(),
            memory_wished_bytes: args.memory_budget.unwrap_or_else(monitor::memory_default_bytes),
            disk_budget: args.disk_budget.map_or(DiskBudget::MostOfFree, DiskBudget::Bytes),
        })
    }

    /// Takes the data directory for this process: two nodes of one identity would silence each other.
    ///
    /// # Errors
    /// When another process has it, or it cannot be used.
    pub fn lock(&self) -> Result<fs::File, ConfigError> {
        let path = self.data.join("lock");
        let failed = |source| ConfigError::File { path: path.clone(), source };
        fs::create_dir_all(&self.data).map_err(failed)?;
        let file = fs::File::create(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(ConfigError::InUse(self.data.clone())),
            Err(fs::TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Counts the starts of this data directory.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn next_generation(&self) -> Result<u64, ConfigError> {
        let path = self.generation_file();
        let last = match files::read_text(&path, SMALL_BYTES_MAX) {
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(source) => return Err(ConfigError::File { path, source }),
        };
        let next: u64 = last + 1;
        match files::write_whole(&path, next.to_string().as_bytes()) {
            // It speaks louder where others know as late a start; a node that cannot start frees nothing.
            Err(error) if is_full(&error) => tracing::warn!(
                path = %path.display(), "the disk is full, so this start is not counted: make room in the data folder's disk"
            ),
            Err(source) => return Err(ConfigError::File { path, source }),
            Ok(()) => {}
        }
        Ok(next)
    }

    /// Where the starts are counted.
    pub fn generation_file(&self) -> PathBuf {
        self.data.join(GENERATION_FILE)
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// The key of the mesh: from the file, or from the ticket, which is then kept.
fn mesh_key(data: &Path, file: Option<&Path>, ticket: Option<MeshKey>) -> Result<MeshKey, ConfigError> {
    let path = file.map_or_else(|| data.join(MESH_KEY_FILE), Path::to_owned);
    match (read_mesh_key(&path), ticket) {
        (Ok(kept), Some(ticket)) if kept != ticket => Err(ConfigError::OtherMesh(path)),
        (Ok(kept), _) => Ok(kept),
        (Err(ConfigError::NoMeshKey(_)), Some(ticket)) => {
            write_mesh_key(&path, &ticket)?;
            Ok(ticket)
        }
        (Err(error), _) => Err(error),
    }
}

/// Reads a mesh key.
///
/// # Errors
/// When there is none.
pub fn read_mesh_key(path: &Path) -> Result<MeshKey, ConfigError> {
    match files::read_text(path, SMALL_BYTES_MAX) {
        Ok(text) => text.trim().parse().map_err(|_| ConfigError::BadMeshKey(path.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(ConfigError::NoMeshKey(path.to_owned()))
        }
        Err(source) => Err(ConfigError::File { path: path.to_owned(), source }),
    }
}

/// Keeps a mesh key where only the owner can read it.
///
/// # Errors
/// When the file cannot be written.
pub fn write_mesh_key(path: &Path, key: &MeshKey) -> Result<(), ConfigError> {
    files::write_secret(path, format!("{key}\n").as_bytes())
        .map_err(|source| ConfigError::File { path: path.to_owned(), source })
}

fn read_text(path: &Path, bytes_max: u64) -> Result<String, ConfigError> {
    let text = files::read_text(path, bytes_max);
    let text = text.map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

fn variable_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where data is kept unless told otherwise: `$XDG_DATA_HOME/stormo` or `~/.local/share/stormo`.
pub fn data_folder_default() -> PathBuf {
    variable_path("XDG_DATA_HOME")
        .or_else(|| variable_path("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("stormo")
}

/// Where ONNX Runtime may be, for a node with a data directory or a command without one.
pub fn library_search(data: Option<&Path>) -> LibrarySearch {
    let cache = variable_path("XDG_CACHE_HOME")
        .or_else(|| variable_path("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("stormo"));
    LibrarySearch {
        explicit: variable_path("ORT_DYLIB_PATH"),
        beside_binary: std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned)),
        data: data.map(Path::to_owned),
        cache,
        system: runtime_library::system_folders(),
        pip: runtime_library::pip_programs(),
    }
}

/// Whether colours may be printed on a terminal (<https://no-color.org>).
pub fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// What the log shows: our own words from `info` on, the binding's and libp2p's only when they matter.
pub fn log_filter() -> String {
    std::env::var(LOG_VARIABLE)
        .unwrap_or_else(|_| "info,ort=warn,libp2p=warn,multistream_select=warn,yamux=warn".to_owned())
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String =
        name.trim().chars().filter(|letter| !letter.is_control()).take(NAME_BYTES_MAX).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}
