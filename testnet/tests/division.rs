//! Networks divided at every kept cut and in random chains of parts, in this one process: what the parts
//! give, against what the network gives in one piece.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use stormo_protocol::model::OrtLevel;
use stormo_protocol::tensor::DType;
use stormo_testnet::trial;

#[path = "division/divided.rs"]
mod divided;
#[path = "division/models.rs"]
mod models;
#[path = "division/thin.rs"]
mod thin;

use divided::{Divided, Tensors, relative_difference};
use models::{Kind, Model};

/// Parts of a random chain.
const PARTS: std::ops::RangeInclusive<usize> = 2..=8;
/// Random chains of a model in a usual run.
const CHAINS_FEW: usize = 2;
/// And when all is checked.
const CHAINS_MANY: usize = 100;
/// At its default level ONNX Runtime fuses across what a cut separates, relative to the largest value.
const FUSION_DIFFERENCE_MAX: f64 = 1e-4;
/// ONNX Runtime computes neighbours of half-precision nodes in single precision; a cut rounds between.
const HALF_DIFFERENCE_MAX: f64 = 5e-5;

#[test]
fn shared_models_in_all_blocks_and_a_few_chains() -> Result<()> {
    let Some(models) = models::shared() else { return Ok(()) };
    each(&models, Extent::Few)
}

#[test]
fn light_models_in_all_blocks_and_a_few_chains() -> Result<()> {
    let Some(python) = models::python_with("onnx") else { return Ok(()) };
    each(&models::light(&python)?, Extent::Few)
}

#[test]
fn odd_models_in_all_blocks_and_a_few_chains() -> Result<()> {
    let Some(python) = models::python_with("onnx") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    each(&models::odd(&python, folder.path())?, Extent::Few)
}

/// A thin cut of another order must have one as thin within this share of the operations.
const NEAR: f64 = 0.05;
/// Not all cuts "what a tensor needs | the rest" fit one order: some cross each other.
const NEAR_CLOSURES: f64 = 0.1;

#[test]
fn cuts_are_as_thin_at_every_depth_as_those_that_the_shared_tools_find() -> Result<()> {
    let (Some(folder), Some(models)) = (models::shared_folder(), models::shared()) else { return Ok(()) };
    let python = models::python_with("onnx, onnxruntime");
    for model in &models {
        let cuts = thin::of_division(Divided::of(model)?.manifest());
        let listed = thin::listed(&folder.join("models"), model)?;
        let mut rows = vec![("listed", thin::per_tenth(&listed))];
        let mut found = vec![(listed, NEAR)];
        if let Some(python) = &python {
            let closures = thin::closures(python, &folder.join("tools"), model)?;
            rows.push(("closures", thin::per_tenth(&closures)));
            found.push((closures, NEAR_CLOSURES));
        }
        rows.push(("ours", thin::per_tenth(&cuts)));
        for (name, row) in rows {
            trial::told(&format!("{:20} {name:>9}, kB per tenth: {}", model.name, row.join("  ")));
        }
        for (points, near) in found {
            let far = points.iter().find(|point| thin::distance(**point, &cuts) > near);
            ensure!(far.is_none(), "{}: no cut near {far:?} is as thin", model.name);
        }
    }
    Ok(())
}

#[test]
#[ignore = "takes an hour or two of a core"]
fn shared_models_at_every_cut_and_in_100_chains() -> Result<()> {
    let Some(models) = models::shared() else { return Ok(()) };
    each(&models, Extent::All)
}

#[test]
#[ignore = "takes some hours of a core, and up to 5 GB of memory"]
fn light_models_with_numbers_at_every_cut_and_in_100_chains() -> Result<()> {
    let Some(python) = models::python_with("onnx") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    for name in models::light_names(&python)? {
        let model = models::with_numbers(&python, &name, folder.path())?;
        each(std::slice::from_ref(&model), Extent::All)?;
        std::fs::remove_file(&model.file)?;
    }
    Ok(())
}

/// How much is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Few,
    All,
}

fn each(models: &[Model], extent: Extent) -> Result<()> {
    let seed = models::seed_given().unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64)
    });
    for model in models {
        let told = || format!("{} (to repeat: STORMO_TEST_SEED={seed})", model.name);
        check(model, extent, Random(seed)).with_context(told)?;
    }
    Ok(())
}

fn check(model: &Model, extent: Extent, mut random: Random) -> Result<()> {
    let divided = Divided::of(model)?;
    let blocks = divided.manifest().block_count();
    let is_text = |cut: u16| divided.manifest().cut_specs(cut).any(|spec| spec.dtype == DType::Text);
    ensure!(
        model.name != "texts.onnx" || (1..blocks).any(is_text),
        "no cut between {blocks} blocks has texts"
    );
    let mut chains: Vec<Vec<u16>> = vec![(0..=blocks).collect()];
    if extent == Extent::All {
        chains.extend((1..blocks).map(|cut| vec![0, cut, blocks]));
    }
    let count = if extent == Extent::All { CHAINS_MANY } else { CHAINS_FEW };
    chains.extend((0..count).map(|_| random.chain(blocks)));
    for level in [OrtLevel::Off, OrtLevel::All] {
        let whole = divided.whole(level)?;
        let mut worst = branches_apart(&divided, model, level, &whole).context("branch by branch")?;
        for bounds in &chains {
            let told = || format!("parts {bounds:?} at level {level:?}");
            worst = worst.max(compare(&divided, model.kind, level, bounds, &whole).with_context(told)?);
        }
        trial::told(&format!(
            "{}: {blocks} blocks, {} regions, {} chains at level {level:?}: at most {worst:.1e} of the largest value apart",
            model.name,
            divided.manifest().regions.len(),
            chains.len(),
        ));
    }
    Ok(())
}

fn allowed(kind: Kind, level: OrtLevel) -> f64 {
    match (kind, level) {
        (Kind::Int8, _) | (Kind::Single, OrtLevel::Off) => 0.0,
        (Kind::Half, _) => HALF_DIFFERENCE_MAX,
        (Kind::Single, _) => FUSION_DIFFERENCE_MAX,
    }
}

/// Runs branches apart; the largest difference of an output. Networks of fire and inception modules have
/// branches.
fn branches_apart(divided: &Divided, model: &Model, level: OrtLevel, whole: &Tensors) -> Result<f64> {
    let regions = divided.manifest().regions.len();
    let forks = ["squeezenet", "inception"].iter().any(|kind| model.name.contains(kind));
    ensure!(!forks || regions >= 8, "{regions} parallel regions");
    if regions == 0 {
        return Ok(0.0);
    }
    let tensors = divided.branch_by_branch(level)?;
    let mut worst = 0f64;
    for spec in divided.manifest().output_specs() {
        let pair = (whole.get(&spec.name), tensors.get(&spec.name));
        let (Some(expected), Some(got)) = pair else { anyhow::bail!("no output `{}`", spec.name) };
        let apart = relative_difference(expected, got)?;
        ensure!(apart <= allowed(model.kind, level), "`{}` is {apart:.1e} apart", spec.name);
        worst = worst.max(apart);
    }
    Ok(worst)
}

/// Runs a chain; the largest difference of an output.
fn compare(divided: &Divided, kind: Kind, level: OrtLevel, bounds: &[u16], whole: &Tensors) -> Result<f64> {
    let allowed = allowed(kind, level);
    let mut worst = 0f64;
    divided.chain(bounds, level, |cut, tensors| {
        // Where a half was rounded on the way says nothing; what it does to the outputs does.
        if kind == Kind::Half && cut != divided.manifest().block_count() {
            return Ok(());
        }
        for spec in divided.manifest().cut_specs(cut) {
            let name = &spec.name;
            let got = tensors.get(name).with_context(|| format!("cut {cut} lacks `{name}`"))?;
            // Unoptimised, what is computed on the way can be told from the network in one piece too.
            let Some(expected) = whole.get(name) else { continue };
            let apart = relative_difference(expected, got)?;
            ensure!(apart <= allowed, "`{name}` at cut {cut} is {apart:.1e} of its largest value apart");
            worst = worst.max(apart);
        }
        Ok(())
    })?;
    Ok(worst)
}

/// A linear congruential generator (Knuth's MMIX): chains to try, the same ones for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }

    /// Bounds of 2 to 8 parts, or of as many as there are blocks.
    fn chain(&mut self, blocks: u16) -> Vec<u16> {
        let parts = PARTS.start() + self.below(PARTS.end() - PARTS.start() + 1);
        let mut inner: Vec<u16> = (1..blocks).collect();
        while inner.len() + 1 > parts {
            inner.remove(self.below(inner.len()));
        }
        [&[0], inner.as_slice(), &[blocks]].concat()
    }
}
