//! Models that no machine should swallow, brought by `stormo deploy`: each is refused with what is wrong
//! about it, and within a bound of memory, whatever it claims.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stormo_protocol::model::OrtLevel;
use stormo_testnet::client::Client;
use stormo_testnet::commands::{Progress, Stormo};
use stormo_testnet::oip::InferRequest;
use stormo_testnet::onnx_files::{
    COMPLEX, Declared, FLOAT, FLOAT8, cast, endless, external, integers, model, model_of, nested, node,
    weight,
};
use stormo_testnet::reference::Reference;
use stormo_testnet::trial::{self, COMMAND_MAX, arguments, edge};

/// What a command may map, KiB: some times of what one takes that divides a small model.
const MEMORY_KIB_MAX: u64 = 3 << 20;

#[test]
fn graphs_and_tensors_that_cannot_be() -> Result<()> {
    trial::run(&[edge("one")], |mesh| {
        let client = mesh.node("one").client.clone();
        let stormo = bounded(mesh.stormo(), mesh.folder())?;
        let sum = || node("Add", &["x", "w"], &["y"]);
        let filled = |elements: i64| {
            let sum = [node("ReduceSum", &["w"], &["s"]), node("Add", &["x", "s"], &["y"])].concat();
            model(&[integers("shape", &[elements]), node("ConstantOfShape", &["shape"], &["w"]), sum])
        };
        let circle = model(&[
            node("Add", &["x", "b"], &["a"]),
            node("Relu", &["a"], &["b"]),
            node("Relu", &["b"], &["y"]),
        ]);
        let cases = [
            (circle, "goes in a circle through node `a (Add)`"),
            (model(&[sum()]), "reads `w`, which nothing in the model makes"),
            (model(&[node("Relu", &["x"], &["z"])]), "`the model's outputs` reads `y`"),
            (model(&[nested(10_000)]), "nested deeper than"),
            (model(&[weight("w", &[1 << 60], &[1.0]), sum()]), "impossible shape"),
            (model(&[weight("w", &[1 << 40, 1 << 40], &[1.0]), sum()]), "impossible shape"),
            (
                model(&[weight("w", &[1 << 50], &[1.0]), sum()]),
                "holds 4 where its shape asks for 4503599627370496",
            ),
            (filled(1 << 60), "the constant `w` takes"),
            (filled(1 << 32), "the constant `w` takes 17179869184 bytes"),
            (model(&[node("Rolu", &["x"], &["y"])]), "Rolu"),
            (model(&[weight("w", &[3, 2], &[1.0; 6]), sum()]), "ONNX Runtime cannot run this model"),
            (
                model(&[integers("n", &[1, 1 << 40]), node("Tile", &["x", "n"], &["y"])]),
                "ONNX Runtime cannot run",
            ),
        ];
        let complex = Declared { element: COMPLEX, dims: &[Some(1), Some(3)] };
        let floats = Declared { element: FLOAT, dims: &[Some(1), Some(3)] };
        let passed_on = model_of(complex, COMPLEX, &[node("Identity", &["x"], &["y"])]);
        let type_cases = [
            (passed_on, "input `x` is of element type 14"),
            (model_of(floats, FLOAT8, &[cast("x", "y", FLOAT8)]), "leave this output out"),
        ];
        for (bytes, says) in cases.into_iter().chain(type_cases) {
            refused(&stormo, &client, &bytes, mesh.folder(), &[], says)?;
        }
        let sound = model(&[node("Relu", &["x"], &["y"])]);
        let shape = ["--sample-shape", "x=1x4"];
        refused(&stormo, &client, &sound, mesh.folder(), &shape, "does not fit the model")?;
        ensure!(client.models()?.models.is_empty(), "something was deployed");
        Ok(())
    })
}

#[test]
fn a_run_that_does_not_end() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("endless.onnx");
    fs::write(&path, model(&[endless()]))?;
    let refused = Reference::within(Duration::from_secs(1), "endless", &path, OrtLevel::All);
    let error = refused.err().context("it was taken")?.to_string();
    ensure!(error.contains("one run takes longer than 1 s"), "{error}");
    Ok(())
}

/// What a model says of its data, options of the command, and what is said of it.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a str);

#[test]
fn external_data_beside_the_model_and_elsewhere() -> Result<()> {
    trial::run(&[edge("one")], |mesh| {
        let client = mesh.node("one").client.clone();
        let stormo = bounded(mesh.stormo(), mesh.folder())?;
        let folder = mesh.folder().join("models");
        fs::create_dir(&folder)?;
        let numbers: Vec<u8> = [9.0f32, 1.0, 2.0, 3.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        fs::write(folder.join("w.bin"), &numbers)?;
        fs::write(mesh.folder().join("outside.bin"), &numbers)?;
        std::os::unix::fs::symlink("../outside.bin", folder.join("link.bin"))?;
        let with = |entries: &[(&str, &str)]| {
            model(&[external("w", &[3], entries), node("Add", &["x", "w"], &["y"])])
        };
        let flag = ["--external-data"];
        let outside = mesh.folder().join("outside.bin").to_string_lossy().into_owned();
        let cases: [Case; 8] = [
            (&[("location", "w.bin")], &[], "--external-data"),
            (&[("location", "../outside.bin")], &flag, "outside the model's folder"),
            (&[("location", &outside)], &flag, "outside the model's folder"),
            (&[("location", "link.bin")], &flag, "a link to outside"),
            (&[("location", "/dev/zero")], &flag, "outside the model's folder"),
            (&[("location", "w.bin"), ("offset", "8")], &flag, "it has 16 bytes, and 12 are to begin at 8"),
            (&[("location", "w.bin"), ("length", "16")], &flag, "length is 16 where its shape asks for 12"),
            (&[("location", "nothing.bin")], &flag, "No such file"),
        ];
        for (entries, options, says) in cases {
            refused(&stormo, &client, &with(entries), &folder, options, says)?;
        }
        let path = folder.join("sound.onnx");
        fs::write(&path, with(&[("location", "w.bin"), ("offset", "4"), ("length", "12")]))?;
        trial::deploy(mesh, "one", "sound", &path, &flag)?;
        let request = InferRequest::new("x", &[1, 3], vec![10.0, 20.0, 30.0]);
        let answer = client.infer("sound", &request)?;
        let output = answer.outputs.first().context("an output")?;
        ensure!(output.data == [11.0, 22.0, 33.0], "{:?}", output.data);
        Ok(())
    })
}

/// The same commands with a limit to what they may map.
fn bounded(stormo: &Stormo, folder: &Path) -> Result<Stormo> {
    let script = folder.join("bounded-stormo");
    let line = format!("#!/bin/sh\nulimit -v {MEMORY_KIB_MAX}\nexec '{}' \"$@\"\n", stormo.binary.display());
    fs::write(&script, line)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
    Ok(Stormo { binary: script })
}

fn refused(
    stormo: &Stormo,
    client: &Client,
    model: &[u8],
    folder: &Path,
    options: &[&str],
    says: &str,
) -> Result<()> {
    let path = folder.join("bad.onnx");
    fs::write(&path, model)?;
    let words = ["deploy", "bad", "--api", client.base()];
    let words = [&arguments(&words)[..], &[path.into()], &arguments(options)].concat();
    let ran = stormo.run(&words, Progress::Kept, COMMAND_MAX)?;
    ensure!(
        ran.status.code() == Some(1),
        "ended with {} where `{says}` is wrong: {}",
        ran.status,
        ran.stderr
    );
    ensure!(ran.stderr.contains(says), "does not say `{says}`: {}", ran.stderr);
    ensure!(!ran.stderr.contains("panicked"), "broke down: {}", ran.stderr);
    Ok(())
}
