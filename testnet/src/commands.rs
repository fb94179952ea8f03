//! The node binary's commands, run as a user runs them.

use std::ffi::OsString;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};
use stormo::card::Meaning;

use crate::oip::AnswerParameters;
use crate::wait::{self, WaitError};

/// Why a command brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be run.
    #[error("cannot run `{command}`: {cause}")]
    NotRun {
        /// The command.
        command: String,
        /// What the system says.
        cause: io::Error,
    },
    /// It did not end in time, or Ctrl-C was pressed; it was ended.
    #[error("`{command}`: {cause}")]
    NotEnded {
        /// The command.
        command: String,
        /// What was waited for.
        cause: WaitError,
    },
    /// It failed.
    #[error("`{command}` failed ({status}){}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said; empty when the user has seen it already.
        stderr: String,
    },
    /// It printed something else than the JSON promised.
    #[error("`{command}` printed unexpected JSON: {cause}")]
    Unexpected {
        /// The command.
        command: String,
        /// What does not fit.
        cause: serde_json::Error,
    },
}

/// How a command ended, and what it printed.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error; empty when it was shown to the user.
    pub stderr: String,
}

/// Where a command's standard error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// To the user.
    Shown,
    /// Into [`Ran::stderr`].
    Kept,
}

/// What a model with a card answers to an image.
#[derive(Debug, Clone)]
pub struct ImageAnswer {
    /// What it saw.
    pub meaning: Meaning,
    /// How it ran.
    pub parameters: AnswerParameters,
}

/// The commands of one binary.
#[derive(Debug, Clone)]
pub struct Stormo {
    /// The binary.
    pub binary: PathBuf,
}

impl Stormo {
    /// Makes the key of a new mesh in a folder; says where it is.
    ///
    /// # Errors
    /// When the command fails.
    pub fn init(&self, data: &Path) -> Result<PathBuf, CommandError> {
        let arguments: [OsString; 3] = ["init".into(), "--data".into(), data.into()];
        let ran = self.run(&arguments, Progress::Kept, Duration::from_secs(30))?;
        self.succeeded(&arguments, ran)?;
        Ok(data.join("mesh.key"))
    }

    /// Runs a command with `--json` and reads what it prints.
    ///
    /// # Errors
    /// When the command fails, takes too long, or prints something else.
    pub fn json<T: DeserializeOwned>(
        &self,
        arguments: &[OsString],
        progress: Progress,
        within: Duration,
    ) -> Result<T, CommandError> {
        let mut arguments = arguments.to_vec();
        arguments.push("--json".into());
        let ran = self.run(&arguments, progress, within)?;
        let stdout = self.succeeded(&arguments, ran)?;
        serde_json::from_str(&stdout)
            .map_err(|cause| CommandError::Unexpected { command: self.line(&arguments), cause })
    }

    /// Asks a model with a card for an image, at the node with this API (`stormo infer`).
    ///
    /// # Errors
    /// When the command fails, or the answer is of another kind.
    pub fn infer_image(
        &self,
        api: &str,
        model: &str,
        image: &Path,
        options: &[OsString],
        within: Duration,
    ) -> Result<ImageAnswer, CommandError> {
        #[derive(Deserialize)]
        struct Answer {
            outputs: [Output; 1],
            parameters: AnswerParameters,
        }
        #[derive(Deserialize)]
        struct Output {
            data: [String; 1],
        }
        let mut arguments: Vec<OsString> = vec!["infer".into(), model.into(), image.into()];
        arguments.extend(["--api".into(), api.into()]);
        arguments.extend_from_slice(options);
        let answer: Answer = self.json(&arguments, Progress::Kept, within)?;
        let [Output { data: [meaning] }] = answer.outputs;
        let meaning = serde_json::from_str(&meaning).map_err(|cause| CommandError::Unexpected {
            command: self.line(&arguments),
            cause: serde_json::Error::custom(format!("`{meaning}`: {cause}")),
        })?;
        Ok(ImageAnswer { meaning, parameters: answer.parameters })
    }

    /// Runs a command to its end, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be run, or takes too long.
    pub fn run(
        &self,
        arguments: &[OsString],
        progress: Progress,
        within: Duration,
    ) -> Result<Ran, CommandError> {
        let not_run = |cause| CommandError::NotRun { command: self.line(arguments), cause };
        // Files, since nobody reads a pipe while the command is waited for.
        let mut stdout = tempfile::tempfile().map_err(not_run)?;
        let mut stderr = tempfile::tempfile().map_err(not_run)?;
        let shown = match progress {
            Progress::Shown => Stdio::inherit(),
            Progress::Kept => stderr.try_clone().map_err(not_run)?.into(),
        };
        let mut command = Command::new(&self.binary);
        command.args(arguments).stdin(Stdio::null()).stderr(shown);
        let mut child = command.stdout(stdout.try_clone().map_err(not_run)?).spawn().map_err(not_run)?;
        let ended = wait::until("its end", within, || match child.try_wait() {
            Ok(Some(status)) => Ok(Ok(status)),
            Ok(None) => Err("still running".to_owned()),
            Err(cause) => Ok(Err(cause)),
        });
        let status = match ended {
            Ok(status) => status.map_err(not_run)?,
            Err(cause) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(CommandError::NotEnded { command: self.line(arguments), cause });
            }
        };
        let text = |file: &mut std::fs::File| {
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(not_run)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Ran { status, stdout: text(&mut stdout)?, stderr: text(&mut stderr)? })
    }

    fn succeeded(&self, arguments: &[OsString], ran: Ran) -> Result<String, CommandError> {
        if ran.status.success() {
            return Ok(ran.stdout);
        }
        let stderr = ran.stderr.trim().to_owned();
        Err(CommandError::Failed { command: self.line(arguments), status: ran.status, stderr })
    }

    fn line(&self, arguments: &[OsString]) -> String {
        arguments.iter().fold("stormo".to_owned(), |line, next| line + " " + &next.to_string_lossy())
    }
}
