//! One node as a process of its own: started, waited for, frozen, killed, ended.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use stormo::app::config::LOG_VARIABLE;
use stormo::serve::json::as_text;
use stormo_protocol::ids::NodeId;
use stormo_protocol::state::{Class, Domain};

use crate::battery::Watts;
use crate::client::Client;
use crate::clock;
use crate::ground::place::{OwnChild, Place};
use crate::memory::{self, Memory};
use crate::owner::RUN_VARIABLE;
use crate::signals::{self, Signal};
use crate::topology::NodeSpec;
use crate::wait::{self, WaitError};

/// Lines of a node's log that an error repeats.
const LOG_LINES_TOLD: usize = 12;
/// A start that takes longer than this is shown to the user: it obtains ONNX Runtime.
const QUIET_START: Duration = Duration::from_secs(2);

/// What a start is waited for.
const READY: &str = "it to be ready";

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its files or its process could not be made.
    #[error("node {label}: {cause}")]
    NotRun {
        /// The node.
        label: String,
        /// What the system says.
        cause: io::Error,
    },
    /// It ended, or was not ready in time.
    #[error("node {label}: {cause}\nend of its log:\n{log}")]
    NotReady {
        /// The node.
        label: String,
        /// What was waited for.
        cause: WaitError,
        /// The last lines of its log.
        log: String,
    },
    /// It ended before it was ready.
    #[error("node {label} ended ({status}) before it was ready\nend of its log:\n{log}")]
    Ended {
        /// The node.
        label: String,
        /// How.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// What it printed is not the line promised.
    #[error("node {label} printed unexpected JSON: {cause}")]
    Unexpected {
        /// The node.
        label: String,
        /// What does not fit.
        cause: serde_json::Error,
    },
}

/// What a node prints once it is ready.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// Peer id.
    #[serde(with = "as_text")]
    pub id: NodeId,
    /// Where its API is, for this process's own network.
    pub api: String,
    /// Where its API over gRPC is, address and port, in the node's own network.
    pub grpc: Option<String>,
    /// Where it listens, peer id included.
    pub addresses: Vec<String>,
    /// Mesh id.
    pub mesh: String,
}

/// A node that was started and is not known to be ready.
#[derive(Debug)]
pub(crate) struct StartingNode {
    spec: NodeSpec,
    child: OwnChild,
    folder: PathBuf,
    /// Where the API is for us, if not where the node says.
    api: Option<String>,
}

/// How a node gets into a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It has the key of the mesh, and joins at these addresses.
    Key {
        /// The file with the key.
        file: PathBuf,
        /// Addresses of nodes.
        join: Vec<String>,
    },
    /// All it has is a ticket.
    Ticket(String),
}

/// Starts a node; its data and logs go to `folder`. To be called by a thread that lives as long as
/// the node shall: the kernel ends the node when that thread ends.
pub(crate) fn start(
    binary: &Path,
    place: Place<'_>,
    spec: &NodeSpec,
    folder: PathBuf,
    admission: &Admission,
    domains: &[Domain],
) -> Result<StartingNode, StartError> {
    let not_run = |cause| StartError::NotRun { label: spec.label.clone(), cause };
    let budget = spec.memory_budget_bytes.to_string();
    let own = ["--label", &spec.label, "--class", class_name(spec.class), "--memory-budget", &budget];
    let mut arguments: Vec<OsString> = place.options().map_err(not_run)?.map(OsString::from).to_vec();
    arguments.extend(own.map(OsString::from));
    domains.iter().for_each(|domain| arguments.extend(["--domain".into(), domain.to_string().into()]));
    if let Some(Watts { idle, compute, send, receive }) = spec.battery.map(|battery| battery.watts) {
        let power = format!("idle={idle},compute={compute},send={send},receive={receive}");
        arguments.extend(["--power".into(), power.into()]);
    }
    match admission {
        Admission::Key { file, join } => {
            arguments.extend(["--mesh-key".into(), file.into()]);
            join.iter().for_each(|address| arguments.extend(["--join".into(), address.into()]));
        }
        Admission::Ticket(ticket) => arguments.extend(["--join".into(), ticket.into()]),
    }
    start_with(binary, place, spec, folder, &arguments)
}

/// Starts a node with these arguments and no others than those that let it be owned.
pub(crate) fn start_with(
    binary: &Path,
    place: Place<'_>,
    spec: &NodeSpec,
    folder: PathBuf,
    arguments: &[OsString],
) -> Result<StartingNode, StartError> {
    let not_run = |cause| StartError::NotRun { label: spec.label.clone(), cause };
    fs::create_dir_all(&folder).map_err(not_run)?;
    let mut command = Command::new(binary);
    let owned = format!("--die-with-parent={}", std::process::id());
    command.args(["node", "--json", &owned, "--data"]).arg(data_in(&folder)).args(arguments);
    command.stdin(Stdio::null());
    command.env(RUN_VARIABLE, run_of(&folder));
    command.stdout(File::create(ready_file(&folder)).map_err(not_run)?);
    // A node started again in the same folder writes on, so that its first life can be read too.
    command.stderr(File::options().append(true).create(true).open(log_file(&folder)).map_err(not_run)?);
    if let Some(filter) = &spec.log_filter {
        command.env(LOG_VARIABLE, filter);
    }
    if spec.has_own_clock {
        clock::give(&mut command, &folder).map_err(not_run)?;
    }
    // A group of its own: the terminal's Ctrl-C is for the owner, who then ends the nodes in order.
    let child = place.spawn(command.process_group(0)).map_err(not_run)?;
    if spec.has_own_clock {
        clock::note_process(&folder, child.id()).map_err(not_run)?;
    }
    let api = place.api().map_err(not_run)?;
    Ok(StartingNode { spec: spec.clone(), child, folder, api })
}

impl StartingNode {
    /// Waits until it is ready. `show` gets its log when that takes long.
    pub(crate) fn wait(mut self, within: Duration, show: &mut dyn FnMut(&str)) -> Result<Node, StartError> {
        let since = Instant::now();
        let mut shown_bytes = 0;
        let looked = wait::until(READY, within, || {
            if since.elapsed() > QUIET_START {
                shown_bytes += show_log(&log_file(&self.folder), shown_bytes, show);
            }
            self.look()
        });
        self.settled(looked)
    }

    /// Whether it is ready by now, or never will be: then [`StartingNode::wait`] waits no more.
    pub(crate) fn is_settled(&mut self) -> bool {
        self.look().is_ok()
    }

    /// That it took too long.
    pub(crate) fn too_late(mut self, within: Duration) -> StartError {
        let seen = self.look().err().unwrap_or_default();
        let log = log_end(&log_file(&self.folder));
        let cause = WaitError::Late { what: READY.to_owned(), within, seen };
        StartError::NotReady { label: self.spec.label.clone(), cause, log }
    }

    /// The line that it prints once it is ready, or how it ended; an error while it starts.
    fn look(&mut self) -> Result<Result<String, ExitStatus>, String> {
        let printed = fs::read_to_string(ready_file(&self.folder)).unwrap_or_default();
        if let Some((line, _)) = printed.split_once('\n') {
            return Ok(Ok(line.to_owned()));
        }
        match self.child.ended() {
            Ok(Some(status)) => Ok(Err(status)),
            _ => Err("it runs and has printed nothing".to_owned()),
        }
    }

    fn settled(self, looked: Result<Result<String, ExitStatus>, WaitError>) -> Result<Node, StartError> {
        let label = || self.spec.label.clone();
        let log = || log_end(&log_file(&self.folder));
        let line = looked
            .map_err(|cause| StartError::NotReady { label: label(), cause, log: log() })?
            .map_err(|status| StartError::Ended { label: label(), status, log: log() })?;
        let mut ready: Ready =
            serde_json::from_str(&line).map_err(|cause| StartError::Unexpected { label: label(), cause })?;
        let Self { spec, child, folder, api } = self;
        ready.api = api.unwrap_or(ready.api);
        let client = Client::new(&ready.api);
        Ok(Node { spec, ready, client, child, folder, ended: None, is_killed: false })
    }
}

/// A node that was ready.
#[derive(Debug)]
pub struct Node {
    /// As it was asked for.
    pub spec: NodeSpec,
    /// As it is.
    pub ready: Ready,
    /// Its API.
    pub client: Client,
    child: OwnChild,
    folder: PathBuf,
    ended: Option<ExitStatus>,
    /// Whether it ran until [`Node::kill`].
    is_killed: bool,
}

impl Node {
    /// Its label.
    pub fn label(&self) -> &str {
        &self.spec.label
    }

    /// Its peer id.
    pub fn id(&self) -> NodeId {
        self.ready.id
    }

    /// Number of its process; another one's, perhaps, once it was waited for.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        data_in(&self.folder)
    }

    /// Puts its wall clock off by so many seconds.
    pub(crate) fn set_clock(&self, offset_s: f64) -> io::Result<()> {
        if self.spec.has_own_clock {
            return clock::set(&self.folder, offset_s);
        }
        Err(io::Error::other("it was not started with a clock of its own"))
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        log_file(&self.folder)
    }

    /// All that it has logged so far.
    pub fn logged(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        log_end(&self.log())
    }

    /// Whether it was killed, or ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.ended().ok().flatten();
        }
        self.ended
    }

    /// How it ended, unless it was [`Node::kill`] that ended it.
    pub fn ended_by_itself(&mut self) -> Option<ExitStatus> {
        self.ended().filter(|_| !self.is_killed)
    }

    /// Its memory.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> io::Result<Memory> {
        memory::of_process(self.child.id())
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// What the system says.
    pub fn kill(&mut self) -> io::Result<()> {
        if self.ended().is_none() {
            self.ended = Some(self.child.kill()?);
            self.is_killed = true;
        }
        Ok(())
    }

    /// Lets it stand still, by the freezer of its machine or SIGSTOP: its connections stay open, and it
    /// says nothing.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&mut self) -> io::Result<()> {
        self.running()?.freeze()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw(&mut self) -> io::Result<()> {
        self.running()?.thaw()
    }

    /// Asks it to leave the mesh and end; a frozen one is thawed, since it could not hear.
    pub fn ask_to_end(&mut self) {
        if let Ok(child) = self.running() {
            let _ = signals::send(child.id(), Signal::End);
            let _ = child.thaw();
        }
    }

    fn running(&mut self) -> io::Result<&OwnChild> {
        match self.ended() {
            Some(status) => Err(io::Error::other(format!("node {} has ended ({status})", self.label()))),
            None => Ok(&self.child),
        }
    }
}

/// The command line's word for a class.
pub fn class_name(class: Class) -> &'static str {
    match class {
        Class::Device => "device",
        Class::Edge => "edge",
        Class::Cloud => "cloud",
    }
}

/// Name of the run that a node's folder belongs to.
fn run_of(folder: &Path) -> OsString {
    folder.parent().and_then(Path::file_name).unwrap_or_default().to_owned()
}

fn ready_file(folder: &Path) -> PathBuf {
    folder.join("ready.json")
}

/// The data folder of the node with this folder.
pub(crate) fn data_in(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("log.txt")
}

/// Shows what came to a log after `from_bytes`; says how much that was.
fn show_log(log: &Path, from_bytes: u64, show: &mut dyn FnMut(&str)) -> u64 {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(from_bytes))?;
        file.read_to_end(&mut text)
    });
    if read.is_ok() && !text.is_empty() {
        show(&String::from_utf8_lossy(&text));
    }
    text.len() as u64
}

fn log_end(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_TOLD)..].join("\n")
}
