//! Where the networks are: the shared ones, and those that the Python package `onnx` brings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use stormo_testnet::binary::workspace_root;
use stormo_testnet::trial;

/// The script that writes them with numbers.
const LIGHT_MODELS: &str = "light_models.py";

/// What a network computes with: how close its parts must come to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    Half,
    Int8,
}

/// A network in a file.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Inputs to run it on, where there are some.
    pub(crate) golden: Option<PathBuf>,
    pub(crate) kind: Kind,
}

/// The seed to repeat a run with.
pub(crate) fn seed_given() -> Option<u64> {
    std::env::var("STORMO_TEST_SEED").ok()?.parse().ok()
}

/// The folder of the shared models; says so when there is none.
pub(crate) fn shared_folder() -> Option<PathBuf> {
    let beside = || workspace_root().parent().unwrap_or(Path::new("..")).join("shared");
    let shared = std::env::var_os("STORMO_SHARED").map_or_else(beside, PathBuf::from);
    let found = Some(shared).filter(|shared| shared.join("models").is_dir());
    if found.is_none() {
        trial::skipped("no shared models. Set STORMO_SHARED to the folder that holds `models/`.");
    }
    found
}

/// Every shared model.
pub(crate) fn shared() -> Option<Vec<Model>> {
    let folder = shared_folder()?.join("models");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "onnx"));
    files.sort();
    let model = |file: PathBuf| {
        let name = file.file_stem()?.to_string_lossy().into_owned();
        let kind = match name.rsplit('_').next() {
            Some("int8") => Kind::Int8,
            Some("fp16") => Kind::Half,
            _ => Kind::Single,
        };
        let golden = folder.join("golden").join(format!("{name}.npz"));
        Some(Model { name, file, golden: Some(golden), kind })
    };
    Some(files.into_iter().filter_map(model).collect())
}

/// A Python with these packages; says so when there is none.
pub(crate) fn python_with(packages: &str) -> Option<OsString> {
    let python = std::env::var_os("STORMO_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let ran = Command::new(&python).args(["-c", &format!("import {packages}")]).output();
    let found = ran.is_ok_and(|ran| ran.status.success()).then_some(python);
    if found.is_none() {
        trial::skipped(&format!(
            "no Python with {packages}. Install them with `pip`, or set STORMO_TEST_PYTHON to the Python of \
             an environment that has them."
        ));
    }
    found
}

/// What a script beside this file says.
fn script(python: &OsString, script: &str, arguments: &[&str]) -> Result<String> {
    let path = workspace_root().join("testnet/tests/division").join(script);
    let ran = Command::new(python).arg(path).args(arguments).output()?;
    ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    Ok(String::from_utf8(ran.stdout)?)
}

/// Small networks of every kind, written into a folder.
pub(crate) fn odd(python: &OsString, folder: &Path) -> Result<Vec<Model>> {
    let names = script(python, "odd_models.py", &[folder.to_str().context("a folder with a plain name")?])?;
    Ok(names.lines().map(|name| model(folder, &format!("{name}.onnx"))).collect())
}

/// Names of the light networks' files.
pub(crate) fn light_names(python: &OsString) -> Result<Vec<String>> {
    let names: Vec<String> = script(python, LIGHT_MODELS, &["--names"])?.lines().map(str::to_owned).collect();
    ensure!(!names.is_empty(), "the package `onnx` of {} brings no light models", python.display());
    Ok(names)
}

/// The light networks as they come: every weight one number repeated.
pub(crate) fn light(python: &OsString) -> Result<Vec<Model>> {
    let folder = script(python, LIGHT_MODELS, &["--folder"])?;
    let folder = Path::new(folder.trim());
    Ok(light_names(python)?.iter().map(|name| model(folder, name)).collect())
}

/// One of them with weights drawn at random, written into a folder.
pub(crate) fn with_numbers(python: &OsString, name: &str, folder: &Path) -> Result<Model> {
    script(python, LIGHT_MODELS, &[name, folder.to_str().context("a folder with a plain name")?])?;
    Ok(model(folder, name))
}

fn model(folder: &Path, name: &str) -> Model {
    Model { name: name.to_owned(), file: folder.join(name), golden: None, kind: Kind::Single }
}
