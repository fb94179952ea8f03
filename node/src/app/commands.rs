//! What each command does. Results go to stdout, progress and errors to stderr.

mod annotate;
mod asking;
mod deploy;
mod drawing;
mod external_data;
mod infer;
mod inputs;
mod local;
mod mesh;
mod models;
mod node;
mod plan;
mod quantise;
mod samples;
mod status;
mod stream;
mod table;
mod texts;
mod timeline;
mod top;
mod work;

use std::io;
use std::sync::OnceLock;

use super::cli::{Cli, Command};
use super::client::CommandError;
use serde::Serialize;

/// Runs a command to its end.
///
/// # Errors
/// What to tell the user; the exit code is then 1.
pub fn run(cli: Cli) -> Result<(), CommandError> {
    done(cli)?;
    all_written()
}

fn done(cli: Cli) -> Result<(), CommandError> {
    match cli.command {
        Command::Init(args) => mesh::init(&args),
        Command::Invite(args) => mesh::invite(&args),
        Command::Node(args) => node::run(args),
        Command::Deploy(args) => deploy::run(args),
        Command::Undeploy(args) => deploy::take_back(&args),
        Command::Infer(args) => infer::run(&args),
        Command::Stream(args) => stream::run(args),
        Command::Plan(args) => plan::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Work(args) => work::run(&args),
        Command::Quantize(args) => quantise::run(&args),
    }
}

fn here(error: impl std::fmt::Display) -> CommandError {
    CommandError::Here(error.to_string())
}

/// What was said and could not be written.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// Prints a line; a reader that went away (`| head`) is no error, a full disk is one at the end.
fn say(text: impl std::fmt::Display) {
    use std::io::Write;
    if let Err(error) = writeln!(io::stdout(), "{text}")
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = UNWRITTEN.set(error);
    }
}

/// Whether all was written that was said.
fn all_written() -> Result<(), CommandError> {
    match UNWRITTEN.get() {
        Some(error) => Err(here(format!("the output could not be written: {error}"))),
        None => Ok(()),
    }
}

fn say_json(value: &impl Serialize) -> Result<(), CommandError> {
    say(serde_json::to_string_pretty(value).map_err(here)?);
    Ok(())
}
