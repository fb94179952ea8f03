//! `stormo node`: runs a node until it is told to end.

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;
use rustix::process::{self, Signal};
use tokio::signal::unix::{SignalKind, signal};

use super::{here, say};
use crate::app::cli::{Cli, Command, NodeArgs};
use crate::app::client::CommandError;
use crate::app::config::{KeyArgs, NodeConfig, args_of_file, log_filter};
use crate::app::node;

pub(super) fn run(args: NodeArgs) -> Result<(), CommandError> {
    let args = with_file(args)?;
    if let Some(parent) = args.die_with_parent {
        die_with_parent(parent)?;
    }
    let json = args.json;
    let filter = tracing_subscriber::EnvFilter::try_new(log_filter()).map_err(here)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let config = NodeConfig::from_args(args).map_err(here)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(here)?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).map_err(here)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(here)?;
        let ended = async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        };
        node::run(config, |ready| tell(ready, json), ended).await.map_err(here)
    })
}

/// Reads the arguments again with those of the configuration file before them.
fn with_file(args: NodeArgs) -> Result<NodeArgs, CommandError> {
    let Some(path) = &args.config else { return Ok(args) };
    let mut all: Vec<OsString> = vec!["stormo".into(), "node".into()];
    let keys = args_of_file(path).map_err(here)?;
    // Each by itself first: what is wrong is then told with its key.
    for KeyArgs { key, args } in &keys {
        let alone = ["stormo", "node"].into_iter().chain(args.iter().map(String::as_str));
        if let Err(error) = Cli::try_parse_from(alone) {
            return Err(CommandError::Here(format!("`{}`, key `{key}`: {error}", path.display())));
        }
    }
    all.extend(keys.into_iter().flat_map(|key| key.args).map(OsString::from));
    all.extend(std::env::args_os().skip(2));
    match Cli::try_parse_from(all) {
        Ok(Cli { command: Command::Node(args) }) => Ok(args),
        Ok(_) => Err(CommandError::Here("a configuration file is for `stormo node` only".into())),
        Err(error) => Err(CommandError::Here(format!("`{}`: {error}", path.display()))),
    }
}

fn tell(ready: &node::Ready, json: bool) {
    if json {
        say(serde_json::to_string(ready).unwrap_or_default());
    } else {
        say(format!("node `{}` {}\nmesh {}\nAPI  {}", ready.label, ready.id, ready.mesh, ready.api));
        if let Some(grpc) = &ready.grpc {
            say(format!("gRPC {grpc}"));
        }
        for address in &ready.addresses {
            say(format!("at   {address}"));
        }
    }
    let _ = std::io::stdout().flush();
}

/// Asks the kernel to end this process when the thread that started it ends. It does so for what ends from now on: who
/// is gone by now is told by its process id, if that is known.
fn die_with_parent(parent: i32) -> Result<(), CommandError> {
    process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(here)?;
    let now = process::getppid().map_or(0, process::Pid::as_raw_pid);
    if parent > 0 && now != parent {
        return Err(CommandError::Here(format!("process {parent}, which started this one, has ended")));
    }
    Ok(())
}
