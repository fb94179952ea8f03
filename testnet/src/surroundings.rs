//! What may lie around a checkout without being part of it: shared models, a Python with packages.
//! Whoever needs one of them says what is left out where it is missing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::binary::workspace_root;

/// Names a folder whose `models` are shared by several checkouts; else it is looked for beside this one.
pub const SHARED: &str = "STORMO_SHARED";
/// Names the Python of an environment with packages that tests and benchmarks can use.
pub const PYTHON: &str = "STORMO_TEST_PYTHON";

/// The folder that several checkouts share, whether it is there or not.
pub fn shared() -> PathBuf {
    let beside = || workspace_root().parent().unwrap_or(Path::new("..")).join("shared");
    std::env::var_os(SHARED).map_or_else(beside, PathBuf::from)
}

/// The folder that a variable names, if it does.
pub fn folder(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// The folder of the shared models, if it is there.
pub fn shared_models() -> Option<PathBuf> {
    Some(shared().join("models")).filter(|models| models.is_dir())
}

/// A Python that has a module; none that was named without it counts as none.
pub fn python_with(module: &str) -> Option<OsString> {
    let python = std::env::var_os(PYTHON).unwrap_or_else(|| "python3".into());
    let mut command = Command::new(&python);
    command.args(["-c", &format!("import {module}")]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().ok().filter(|status| status.success()).map(|_| python)
}

/// The folder of the "light" models in the Python package `onnx`: graphs of known networks whose
/// weights are made by nodes.
pub fn light_models() -> Option<PathBuf> {
    let print = "import onnx, os; print(os.path.dirname(onnx.__file__))";
    let ran = Command::new(python_with("onnx")?).args(["-c", print]).output().ok()?;
    let package = PathBuf::from(String::from_utf8(ran.stdout).ok()?.trim());
    Some(package.join("backend/test/data/light")).filter(|models| models.is_dir())
}
