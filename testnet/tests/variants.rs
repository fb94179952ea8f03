//! Several variants of a model under one name: who gets which, what they answer, and what a variant costs
//! that shares most of its weights with another.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use stormo::serve::json::{DeploymentState, DeploymentView, ModelView, PlansView};
use stormo_protocol::model::OrtLevel;
use stormo_testnet::binary::workspace_root;
use stormo_testnet::client::Client;
use stormo_testnet::commands::Progress;
use stormo_testnet::digits::{self, Image};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::{Difference, FloatTensor, InferRequest};
use stormo_testnet::reference::Reference;
use stormo_testnet::surroundings;
use stormo_testnet::topology::NodeSpec;
use stormo_testnet::trial::{self, COMMAND_MAX, SOON, arguments, edge};
use stormo_testnet::wait;

/// Images that each variant is asked about.
const IMAGES: usize = 5;
/// What a variant may cost in disk and transfer besides its own weights, as a share of the first one: its graph
/// with the small weights, and the descriptions of both.
const DESCRIPTION_MAX: f64 = 0.02;

/// What `stormo deploy --json` prints.
#[derive(Debug, Deserialize)]
struct Deployed {
    #[serde(flatten)]
    view: DeploymentView,
    objects_bytes: u64,
    uploaded_bytes: u64,
    notes: Vec<String>,
}

fn nodes() -> Vec<NodeSpec> {
    (1..=3).map(|number| edge(&format!("node-{number}"))).collect()
}

fn deploy(mesh: &Mesh, options: &[OsString]) -> Result<Deployed> {
    deploy_file(mesh, &digits::model(), options)
}

fn deploy_file(mesh: &Mesh, model: &Path, options: &[OsString]) -> Result<Deployed> {
    let mut command: Vec<OsString> = vec!["deploy".into(), "digits".into(), model.into()];
    command.extend(arguments(&["--ort-level", "off", "--api", mesh.node("node-1").client.base()]));
    command.extend_from_slice(options);
    let deployed: Deployed = mesh.stormo().json(&command, Progress::Kept, COMMAND_MAX)?;
    ensure!(deployed.view.state == DeploymentState::Ready, "it is not warm: {deployed:?}");
    Ok(deployed)
}

/// `--variant LABEL=FILE:ACCURACY`.
fn variant(label: &str, file: &Path, accuracy: &str) -> [OsString; 2] {
    ["--variant".into(), format!("{label}={}:{accuracy}", file.display()).into()]
}

/// A network with about a tenth of its weights negated (the one large weight that is nearest to that), and
/// the share: another network that has all others in common with it.
fn negated(model: &Path, folder: &Path) -> Result<(PathBuf, f64)> {
    let known = Reference::of("model", model, OrtLevel::Off)?;
    let (mut file, manifest) = (fs::read(model)?, known.manifest());
    let total: u64 = manifest.weights.iter().map(|weight| weight.bytes).sum();
    let share = |bytes: &[u8]| bytes.len() as f64 / total as f64;
    let weights = known.objects().filter(|(id, _)| manifest.weights.iter().any(|weight| weight.id == *id));
    let from_a_tenth = |(_, bytes): &(_, &[u8])| (share(bytes) - 0.1).abs();
    let nearest = weights.min_by(|one, other| from_a_tenth(one).total_cmp(&from_a_tenth(other)));
    let (_, weight) = nearest.context("it has weights")?;
    let place =
        file.windows(weight.len()).position(|window| window == weight).context("it is in the file")?;
    file[place..place + weight.len()].chunks_exact_mut(4).for_each(|float| float[3] ^= 0x80);
    let path = folder.join("negated.onnx");
    fs::write(&path, file)?;
    Ok((path, share(weight)))
}

/// Digits on small integers.
fn quantised(mesh: &Mesh, folder: &Path) -> Result<PathBuf> {
    let path = folder.join("int8.onnx");
    let mut command: Vec<OsString> =
        vec!["quantize".into(), digits::model().into(), "-o".into(), path.clone().into()];
    command.extend(["--samples".into(), digits::folder().into(), "--search-s".into(), "0".into()]);
    command.extend(["--card".into(), workspace_root().join("testnet/models/digits.toml").into()]);
    let _: Value = mesh.stormo().json(&command, Progress::Kept, COMMAND_MAX)?;
    Ok(path)
}

fn images() -> Result<Vec<Image>> {
    Ok(digits::load()?.into_iter().take(IMAGES).collect())
}

fn request(image: &Image) -> InferRequest {
    InferRequest::new("image", &[1, 1, 8, 8], image.pixels.clone())
}

#[test]
fn requests_get_the_variant_they_name_or_else_the_most_accurate() -> Result<()> {
    trial::run(&nodes(), |mesh| {
        let folder = tempfile::tempdir()?;
        let (int8, (negated, _)) =
            (quantised(mesh, folder.path())?, negated(&digits::model(), folder.path())?);
        let options = [
            arguments(&["--accuracy", "0.97", "--parts", "3"]),
            variant("int8", &int8, "0.96").to_vec(),
            variant("negated", &negated, "0.1").to_vec(),
        ];
        let deployed = deploy(mesh, &options.concat())?;
        let hosted: Vec<&str> = deployed.view.hosts.iter().map(|host| host.variant.as_str()).collect();
        ensure!(
            hosted == ["base", "base", "base", "int8", "int8", "int8", "negated", "negated", "negated"],
            "{hosted:?}"
        );
        // What another node says of it, which was not asked to deploy anything.
        let client = &mesh.node("node-3").client;
        let described = || -> Result<ModelView> {
            let model: ModelView = client.get("/v1/models/digits")?;
            ensure!(model.variants.len() == 3, "it knows {:?}", model.variants);
            Ok(model)
        };
        let model =
            wait::until("all variants to be known", SOON, || described().map_err(|error| error.to_string()))?;
        let told: Vec<(&str, Option<f64>)> =
            model.variants.iter().map(|variant| (variant.label.as_str(), variant.accuracy)).collect();
        ensure!(told == [("base", Some(0.97)), ("int8", Some(0.96)), ("negated", Some(0.1))], "{told:?}");
        ensure!(model.variant == "base", "the most accurate is shown first: {}", model.variant);
        for (label, file) in [("base", digits::model()), ("int8", int8), ("negated", negated)] {
            check_variant(client, label, &Reference::of(label, &file, OrtLevel::Off)?)?;
        }
        check_choice(client)
    })
}

/// Every image by a variant, chosen by name and by each of its plans: the bits of its undivided model.
fn check_variant(client: &Client, label: &str, reference: &Reference) -> Result<()> {
    let plans: PlansView = client.get(&format!("/v1/plans?model=digits&all=true&variant={label}"))?;
    ensure!(plans.plans.iter().all(|plan| plan.variant == label), "{plans:?}");
    let divided = plans.plans.iter().find(|plan| plan.kind == "chain-3").context("one in three parts")?;
    for image in images()? {
        let whole = reference.whole(&request(&image).inputs)?;
        let by_name = client.infer("digits", &request(&image).by_variant(label))?;
        let by_plan = client.infer("digits", &request(&image).by_plan(divided.id))?;
        for answer in [by_name, by_plan] {
            ensure!(answer.parameters.variant == label, "{} answered for {label}", answer.parameters.variant);
            ensure!(is_same(&whole, &answer.outputs), "{label} divided and whole differ on {}", image.name);
        }
    }
    Ok(())
}

fn is_same(one: &[FloatTensor], other: &[FloatTensor]) -> bool {
    Difference::between(one, other).is_some_and(|difference| difference.is_identical)
}

fn check_choice(client: &Client) -> Result<()> {
    let image = images()?.swap_remove(0);
    let default = client.infer("digits", &request(&image))?;
    ensure!(default.parameters.variant == "base", "by default {}", default.parameters.variant);
    let limited = |min_accuracy: f64| {
        let mut limited = request(&image);
        limited.parameters.min_accuracy = Some(min_accuracy);
        client.infer("digits", &limited)
    };
    let enough = limited(0.965)?;
    ensure!(enough.parameters.variant == "base", "0.965 and more has {}", enough.parameters.variant);
    let too_much = limited(0.98).map(drop).map_err(|error| error.to_string());
    ensure!(too_much.as_ref().is_err_and(|error| error.contains("the closest is 0.97")), "{too_much:?}");
    let unknown = client.infer("digits", &request(&image).by_variant("int4"));
    let unknown = unknown.map(drop).map_err(|error| error.to_string());
    let names_all = |error: &String| error.contains("no variant `int4`; there are: base, int8, negated");
    ensure!(unknown.as_ref().is_err_and(names_all), "{unknown:?}");
    let all: PlansView = client.get("/v1/plans?model=digits&all=true")?;
    let mut labels: Vec<&str> = all.plans.iter().map(|plan| plan.variant.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    ensure!(labels == ["base", "int8", "negated"], "plans of {labels:?}");
    Ok(())
}

#[test]
fn a_variant_that_shares_nine_tenths_costs_a_tenth_and_its_description() -> Result<()> {
    costs_its_share(&digits::model())
}

#[test]
fn a_variant_of_squeezenet_that_shares_nine_tenths_costs_a_tenth_and_its_description() -> Result<()> {
    match surroundings::shared_models() {
        Some(folder) => costs_its_share(&folder.join("squeezenet_fp32.onnx")),
        None => Ok(()),
    }
}

/// Deploys a network, then again with a second variant.
fn costs_its_share(model: &Path) -> Result<()> {
    trial::run(&nodes(), |mesh| {
        let folder = tempfile::tempdir()?;
        let (negated, share) = negated(model, folder.path())?;
        let replicas = arguments(&["--replicas", "3"]);
        let alone = deploy_file(mesh, model, &replicas)?;
        ensure!(alone.uploaded_bytes == alone.objects_bytes, "the pools were empty: {alone:?}");
        let before = pools(mesh)?;
        let both =
            deploy_file(mesh, model, &[replicas, variant("negated", &negated, "0.1").to_vec()].concat())?;
        let after = pools(mesh)?;
        let uploaded = both.uploaded_bytes as f64 / alone.uploaded_bytes as f64;
        trial::told(&format!(
            "a second variant with {:.1} % of the weights its own: {:.1} % more uploaded ({} after {} bytes)",
            100.0 * share,
            100.0 * uploaded,
            both.uploaded_bytes,
            alone.uploaded_bytes
        ));
        let cost_max = share + DESCRIPTION_MAX;
        ensure!(uploaded <= cost_max, "{uploaded} more was uploaded");
        for ((label, before), (_, after)) in before.iter().zip(&after) {
            let grown = (after - before) as f64 / *before as f64;
            let told =
                format!("the pool of {label} grew by {:.1} % ({before} to {after} bytes)", 100.0 * grown);
            trial::told(&told);
            ensure!(grown > 0.0 && grown <= cost_max, "{told}");
        }
        Ok(())
    })
}

/// Bytes of all objects of each node.
fn pools(mesh: &Mesh) -> Result<Vec<(String, u64)>> {
    let pool = |node: &stormo_testnet::process::Node| {
        let mut bytes = 0;
        let mut folders = vec![node.data().join("objects")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else {
                    bytes += metadata.len();
                }
            }
        }
        Ok((node.label().to_owned(), bytes))
    };
    mesh.nodes().iter().map(pool).collect()
}

#[test]
fn what_is_made_is_deployed_if_it_is_faster_and_strangers_are_not() -> Result<()> {
    trial::run(&nodes()[..1], |mesh| {
        let client = &mesh.node("node-1").client;
        let mut options = arguments(&["--quantize", "int8", "--samples"]);
        options.extend([digits::folder().into(), "--card".into()]);
        options.push(workspace_root().join("testnet/models/digits.toml").into());
        let deployed = deploy(mesh, &options)?;
        let model: ModelView = client.get("/v1/models/digits")?;
        let labels: Vec<&str> = model.variants.iter().map(|variant| variant.label.as_str()).collect();
        let note = deployed.notes.first().context("it says what was made")?;
        let is_left_out = note.contains("not deployed");
        ensure!(
            labels == if is_left_out { vec!["base"] } else { vec!["base", "int8"] },
            "{labels:?}: {note}"
        );
        let refused = |options: Vec<OsString>, reason: &str| -> Result<()> {
            let error = deploy(mesh, &options).map(drop).err().context(reason.to_owned())?.to_string();
            ensure!(error.contains(reason), "{error}");
            Ok(())
        };
        refused(variant("base", &digits::model(), "0.5").to_vec(), "the label of another variant")?;
        if let Some(folder) = surroundings::shared_models() {
            let other = folder.join("mnist_cntk.onnx");
            refused(variant("other", &other, "0.5").to_vec(), "does not take and give what `base` does")?;
        }
        Ok(())
    })
}
