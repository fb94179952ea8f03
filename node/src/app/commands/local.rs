//! What commands need that work on a model on this machine: its file and its card, ONNX Runtime, and a
//! line that says how far they are. What they do with it is theirs.

use std::cell::RefCell;
use std::io::{ErrorKind, IsTerminal};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use super::{external_data, here};
use crate::app::cli::ModelFileArgs;
use crate::app::client::CommandError;
use crate::app::config::library_search;
use crate::card::{CARD_BYTES_MAX, Card, embed_labels};
use crate::engine::{Engine, EngineConfig, runtime_library};
use crate::files;
use crate::model::import_external;

/// Largest model file that is read, bytes: what one protobuf message may be.
const MODEL_BYTES_MAX: u64 = 2 << 30;

/// Where there is no terminal, a step that differs from the last one by its numbers only is told so often.
const STEP_EVERY: Duration = Duration::from_secs(1);

/// Tells what is being done, on one line where there is a terminal.
pub(super) struct Progress {
    started: Instant,
    terminal: bool,
    /// The last step in words, and when it was told.
    told: RefCell<(String, Instant)>,
}

impl Progress {
    pub(super) fn begin() -> Self {
        let started = Instant::now();
        let told = RefCell::new((String::new(), started));
        Self { started, terminal: std::io::stderr().is_terminal(), told }
    }

    pub(super) fn step(&self, text: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        if self.terminal {
            return write(format_args!("\r\x1b[2K[{seconds:5.1} s] {text}"));
        }
        let words: String = text.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        let (last, at) = &mut *self.told.borrow_mut();
        if *last != words || at.elapsed() >= STEP_EVERY {
            note(format_args!("[{seconds:5.1} s] {text}"));
            (*last, *at) = (words, Instant::now());
        }
    }

    /// Takes the last step off the terminal.
    pub(super) fn end(&self) {
        if self.terminal {
            write(format_args!("\r\x1b[2K"));
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A line on standard error; that nobody takes it is no reason to end.
pub(super) fn note(text: impl std::fmt::Display) {
    write(format_args!("{text}\n"));
}

fn write(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = std::io::stderr().write_fmt(text);
}

/// ONNX Runtime for this command alone, and what waits for it.
pub(super) fn engine_here(progress: &Progress) -> Result<(Engine, Runtime), CommandError> {
    let library =
        runtime_library::find_or_obtain(&library_search(None), &|step| progress.step(step)).map_err(here)?;
    let engine = Engine::open(&EngineConfig { library, permits: NonZeroUsize::MIN, batch_within: None })
        .map_err(here)?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(here)?;
    Ok((engine, runtime))
}

fn told(path: &Path, error: &dyn std::fmt::Display) -> CommandError {
    CommandError::Here(format!("`{}`: {error}", path.display()))
}

/// Reads a regular file of at most so many bytes.
pub(super) fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, CommandError> {
    files::read(path, bytes_max).map_err(|error| told(path, &error))
}

/// Reads a model, and what it keeps beside it if that is wished.
pub(super) fn read_model(
    ModelFileArgs { path, external_data }: &ModelFileArgs,
) -> Result<Vec<u8>, CommandError> {
    let bytes = files::read(path, MODEL_BYTES_MAX).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => {
            told(path, &"the file is above 2 GiB, which no ONNX model without external data can be")
        }
        _ => told(path, &error),
    })?;
    if !external_data {
        return Ok(bytes);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    import_external(&bytes, |part| external_data::read(folder, part)).map_err(|error| told(path, &error))
}

/// A card's text, with the labels in it that it names beside itself.
pub(super) fn read_card(path: &Path) -> Result<String, CommandError> {
    // The labels become a part of the card.
    let as_text =
        |path: &Path| files::read_text(path, CARD_BYTES_MAX as u64).map_err(|error| told(path, &error));
    let text = as_text(path)?;
    let card = Card::parse(&text).map_err(|error| told(path, &error))?;
    let Some(labels) = card.labels_file() else { return Ok(text) };
    let beside = path.parent().unwrap_or(Path::new(".")).join(labels);
    let list = as_text(&beside).map_err(|error| {
        let what = format!("its labels_file, looked for beside the card, is missing or no text: {error}");
        told(path, &what)
    })?;
    embed_labels(&text, &list).map_err(|error| told(path, &error))
}
