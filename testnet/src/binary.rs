//! The node binary: built from this workspace before any mesh starts, so that what runs is what
//! stands in the tree.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;

use crate::own_group::OwnGroup;

/// Why there is no node binary.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo did not start.
    #[error(
        "cannot run `{cargo}` to build the node: {cause}; is it on the PATH of this user? The variable CARGO may name it"
    )]
    NoCargo {
        /// The program.
        cargo: String,
        /// What the system says.
        cause: io::Error,
    },
    /// Cargo failed; it has said why on its standard error.
    #[error("building the node failed ({0}); cargo's output above says why")]
    Failed(ExitStatus),
    /// Ctrl-C.
    #[error("interrupted while the node was built")]
    Interrupted,
    /// Cargo succeeded without naming the binary.
    #[error("cargo built the package `stormo` but named no binary `stormo`")]
    NotNamed,
}

/// The folder of the workspace that this crate was built in.
pub fn workspace_root() -> &'static Path {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder)
}

/// Builds the node in release mode, cargo's progress on standard error, and says where it is.
///
/// # Errors
/// When cargo is missing, fails, or names no binary; on Ctrl-C, which ends cargo and its compilers.
pub fn build() -> Result<PathBuf, BuildError> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let no_cargo = |cause| BuildError::NoCargo { cargo: cargo.clone(), cause };
    let mut command = Command::new(&cargo);
    // Together with this package, whose features of shared crates `cargo mesh` has built already: alone, the node
    // would be compiled a second time.
    command.args(["build", "--release", "--locked", "--package", "stormo", "--package", "stormo-testnet"]);
    command.args(["--bin", "stormo"]);
    command.arg("--message-format=json-render-diagnostics");
    // What `cargo run` told this process about its own package: left in place, build scripts that
    // watch these variables would run again, and their crates be compiled again, on each change
    // between `cargo build` and `cargo mesh`.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_about_own_package) {
            command.env_remove(name);
        }
    }
    command.current_dir(workspace_root()).stdout(Stdio::piped());
    let mut building = OwnGroup::spawn(&mut command).map_err(no_cargo)?;
    let messages = building.stdout();
    let reader = thread::spawn(move || messages.and_then(named_in));
    let Some(status) = building.wait().map_err(no_cargo)? else { return Err(BuildError::Interrupted) };
    if !status.success() {
        return Err(BuildError::Failed(status));
    }
    reader.join().ok().flatten().ok_or(BuildError::NotNamed)
}

/// The node binary among all of cargo's messages.
fn named_in(messages: ChildStdout) -> Option<PathBuf> {
    let lines = BufReader::new(messages).lines().map_while(Result::ok);
    // To the end, even when found: cargo would fail to write its later messages.
    lines.filter_map(|line| executable_in(&line)).last()
}

/// As [`build`], once per process: what all its tests share.
///
/// # Errors
/// As [`build`].
pub fn build_once() -> Result<&'static Path, &'static BuildError> {
    static BUILT: OnceLock<Result<PathBuf, BuildError>> = OnceLock::new();
    BUILT.get_or_init(build).as_ref().map(PathBuf::as_path)
}

fn is_about_own_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
}

/// The node binary, if this message of cargo is about it.
fn executable_in(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_node = message["reason"] == "compiler-artifact"
        && message["target"]["name"] == "stormo"
        && message["target"]["kind"].as_array()?.iter().any(|kind| kind == "bin");
    if is_node { message["executable"].as_str().map(PathBuf::from) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_binary_among_messages() {
        let binary = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"stormo"},"executable":"/t/stormo"}"#;
        let library =
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"stormo"},"executable":null}"#;
        assert_eq!(executable_in(binary), Some(PathBuf::from("/t/stormo")));
        assert_eq!(executable_in(library), None);
        assert_eq!(executable_in(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable_in("no json"), None);
    }
}
