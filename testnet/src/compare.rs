//! `cargo mesh compare`: the figures of two results side by side, by their names. What is noise only repeating tells:
//! of several results on each side, medians are compared, and a difference counts where no result of one side lies
//! among those of the other.

mod alike;
mod figures;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stormo::files;
use stormo_testnet::counted::counted;

use crate::median::median;
use crate::options;
use crate::table::{Align, Table};
use crate::told::{self, tell};
use alike::Verdict;
use figures::figures;

/// A table of so many lines leaves what stands above it in sight.
const SCREEN: usize = 15;
/// Larger files are no results.
const FILE_BYTES_MAX: u64 = 64 << 20;
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct CompareArgs {
    /// A result of `cargo mesh bench` or `cargo mesh run`
    first: PathBuf,
    /// Another one of the same kind
    second: PathBuf,
    /// One more result like the first, to tell differences from noise; may be repeated
    #[arg(long, value_name = "FILE")]
    also_first: Vec<PathBuf>,
    /// One more result like the second; may be repeated
    #[arg(long, value_name = "FILE")]
    also_second: Vec<PathBuf>,
    /// Leave out figures that differ by less, percent
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = options::number(0.0..=1e6, "percent"))]
    above: f64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A figure of both.
#[derive(Debug, PartialEq, serde::Serialize)]
struct Pair {
    figure: String,
    /// The median of the results of a side.
    first: f64,
    second: f64,
    /// Second by first; `null` where the first is 0.
    ratio: Option<f64>,
    /// The smallest and the largest.
    first_range: [f64; 2],
    second_range: [f64; 2],
    /// Whether these ranges do not overlap; `null` where a side has one result only, which tells nothing of noise.
    apart: Option<bool>,
}

/// A figure's values in all results of a side.
type Figures = BTreeMap<String, Vec<f64>>;

pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    let above = args.above;
    let firsts = read_all(&args.first, &args.also_first)?;
    let seconds = read_all(&args.second, &args.also_second)?;
    let [first, second] = [&firsts[0].1, &seconds[0].1];
    for (value, path) in firsts.iter().chain(&seconds).map(|(path, value)| (value, path)) {
        ensure!(
            ["benchmark", "scenario", "spec"].iter().any(|key| value.get(*key).is_some()),
            "{} is no result of `cargo mesh bench`, `run` or `simulate`",
            path.display()
        );
        for key in ["benchmark", "scenario"] {
            ensure!(
                first.get(key) == value.get(key),
                "{} is of {key} {}, {} of {}: compare two of the same",
                args.first.display(),
                or_none(first.get(key)),
                path.display(),
                or_none(value.get(key))
            );
        }
    }
    for (path, value) in firsts.iter().chain(&seconds) {
        let apart = differing_specs(first, value);
        ensure!(
            apart.is_empty(),
            "{} and {} are of different simulations ({}): compare what was asked for the same; only seeds may differ",
            args.first.display(),
            path.display(),
            apart.join(", ")
        );
    }
    if firsts.iter().chain(&seconds).any(|(_, value)| machine(value) != machine(first)) {
        note!("warning: they come from different machines, or ones under different load; ratios say little");
    }
    [&firsts, &seconds].into_iter().try_for_each(|side| alike::ensure_repeats(side))?;
    let unlike = match alike::other_cuts(first, second) {
        Some(cuts) => vec![format!("chains ({cuts})")],
        None => alike::unlike(first, second),
    };
    let verdicts: Vec<Verdict> =
        firsts.iter().chain(&seconds).map(|(path, result)| Verdict::of(path, result)).collect();
    let (firsts, seconds) = (figures_of(&firsts), figures_of(&seconds));
    let alone =
        |these: &Figures, others: &Figures| these.keys().filter(|name| !others.contains_key(*name)).count();
    let only = [alone(&firsts, &seconds), alone(&seconds, &firsts)];
    let pairs = pairs(&firsts, &seconds);
    if pairs.is_empty() {
        bail!("the two have no figure in common");
    }
    let count = pairs.len();
    let shown: Vec<Pair> = pairs.into_iter().filter(|pair| pair.differs_by(above)).collect();
    let compared = Compared { results: verdicts, unlike, figures: shown };
    if args.json {
        told::document(&serde_json::to_string_pretty(&compared)?);
        return Ok(());
    }
    let warning = compared.warning();
    compared.results.iter().filter_map(Verdict::line).chain(warning.clone()).for_each(|line| tell!("{line}"));
    show(&compared.figures, count, above);
    if only != [0, 0] {
        tell!("in the first alone: {}, in the second alone: {}", counted(only[0], "figure"), only[1]);
    }
    // Once more where a long table ends.
    if let Some(warning) = warning.filter(|_| compared.figures.len() > SCREEN) {
        tell!("{warning}");
    }
    Ok(())
}

/// All that is told.
#[derive(Debug, serde::Serialize)]
struct Compared {
    results: Vec<Verdict>,
    /// In what the two are not alike, so that figures differ for other reasons than those that are looked for.
    unlike: Vec<String>,
    figures: Vec<Pair>,
}

impl Compared {
    fn warning(&self) -> Option<String> {
        let unlike = self.unlike.join(", ");
        (!unlike.is_empty()).then(|| {
            format!("UNLIKE: the first and the second differ in their {unlike}; figures may differ for that reason alone")
        })
    }
}

fn show(shown: &[Pair], count: usize, above: f64) {
    let mut table = Table::new(&[
        ("figure", Align::Left),
        ("first", Align::Right),
        ("second", Align::Right),
        ("second/first", Align::Right),
        ("", Align::Left),
    ]);
    for Pair { figure, first, second, ratio, apart, .. } in shown {
        let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        let noise = if *apart == Some(false) { "may be noise" } else { "" };
        table.row([figure.clone(), short(*first), short(*second), ratio, noise.to_owned()]);
    }
    if !shown.is_empty() {
        table.lines().iter().for_each(|line| tell!("{line}"));
    }
    if let Some(nothing) = nothing_differs(shown, count, above) {
        tell!("{nothing}");
    }
    if shown.iter().any(|pair| pair.apart.is_none() && pair.first != pair.second) {
        tell!(
            "one result tells nothing of noise: repeat both, and give the others with --also-first and --also-second"
        );
    }
}

/// What to say where no figure differs.
fn nothing_differs(shown: &[Pair], count: usize, above: f64) -> Option<String> {
    if shown.is_empty() {
        return Some(format!("none of the figures that both have ({count}) differs by {above} % or more"));
    }
    let is_equal = shown.iter().all(|pair| pair.first == pair.second);
    is_equal.then(|| format!("all figures that both have ({count}) are equal"))
}

fn read(file: &Path) -> Result<Value> {
    let told = || file.display().to_string();
    let text = files::read_text(file, FILE_BYTES_MAX).with_context(told)?;
    serde_json::from_str(&text).with_context(|| format!("{}: not the JSON of a result", told()))
}

/// All results of a side, with where they were read from.
fn read_all<'a>(first: &'a Path, others: &'a [PathBuf]) -> Result<Vec<(&'a Path, Value)>> {
    [first]
        .into_iter()
        .chain(others.iter().map(PathBuf::as_path))
        .map(|path| Ok((path, read(path)?)))
        .collect()
}

fn or_none(value: Option<&Value>) -> String {
    value.map_or_else(|| "none".to_owned(), Value::to_string)
}

/// What matters of the machine: its load differs always a little.
fn machine(document: &Value) -> Option<Value> {
    let mut machine = document.get("machine")?.as_object()?.clone();
    machine.remove("load_hundredths");
    Some(Value::Object(machine))
}

/// What two simulations were asked for differently, but their seeds.
fn differing_specs(first: &Value, second: &Value) -> Vec<String> {
    let of = |document: &Value| document.get("spec").and_then(Value::as_object).cloned();
    let (firsts, seconds) = (of(first).unwrap_or_default(), of(second).unwrap_or_default());
    let keys: BTreeSet<&String> = firsts.keys().chain(seconds.keys()).collect();
    let differ = keys.into_iter().filter(|key| *key != "seed" && firsts.get(*key) != seconds.get(*key));
    differ
        .map(|key| format!("{key}: {} and {}", or_none(firsts.get(key)), or_none(seconds.get(key))))
        .collect()
}

/// What all results of a side have.
fn figures_of(results: &[(&Path, Value)]) -> Figures {
    let mut found = Figures::new();
    for (name, figure) in results.iter().flat_map(|(_, document)| figures(document)) {
        found.entry(name).or_default().push(figure);
    }
    found.retain(|_, values| values.len() == results.len());
    found
}

fn pairs(firsts: &Figures, seconds: &Figures) -> Vec<Pair> {
    let both = firsts.iter().filter_map(|(figure, firsts)| Some((figure, firsts, seconds.get(figure)?)));
    let pair = |(figure, firsts, seconds): (&String, &Vec<f64>, &Vec<f64>)| {
        let [first, second] = [firsts, seconds].map(|values| median(values.iter().copied()));
        let [first_range, second_range] = [firsts, seconds].map(|values| range(values));
        let ratio = (first != 0.0).then(|| second / first);
        let are_repeated = firsts.len() > 1 && seconds.len() > 1;
        let apart = || first_range[1] < second_range[0] || second_range[1] < first_range[0];
        let apart = are_repeated.then(apart);
        Pair { figure: figure.clone(), first, second, ratio, first_range, second_range, apart }
    };
    both.map(pair).collect()
}

fn range(values: &[f64]) -> [f64; 2] {
    values.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[least, most], value| {
        [least.min(*value), most.max(*value)]
    })
}

impl Pair {
    fn differs_by(&self, percent: f64) -> bool {
        let apart = self.ratio.map_or(f64::INFINITY, |ratio| (ratio - 1.0).abs() * 100.0);
        self.first == self.second && percent == 0.0 || self.first != self.second && apart >= percent
    }
}

/// A few digits, whatever the size.
fn short(figure: f64) -> String {
    if figure == figure.trunc() && figure.abs() < 1e9 { format!("{figure}") } else { format!("{figure:.4}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(values: &[f64]) -> Figures {
        Figures::from([("a".to_owned(), values.to_vec())])
    }

    #[test]
    fn a_difference_counts_where_repeated_results_lie_apart() {
        let apart = |firsts: &[f64], seconds: &[f64]| pairs(&of(firsts), &of(seconds)).remove(0);
        let pair = apart(&[1.0, 3.0, 2.0], &[4.0, 6.0]);
        assert_eq!((pair.first, pair.second, pair.ratio), (2.0, 5.0, Some(2.5)));
        assert_eq!((pair.first_range, pair.second_range), ([1.0, 3.0], [4.0, 6.0]));
        assert_eq!(pair.apart, Some(true));
        assert_eq!(apart(&[4.0, 6.0], &[1.0, 3.0]).apart, Some(true));
        assert_eq!(apart(&[1.0, 4.0], &[4.0, 6.0]).apart, Some(false));
        assert_eq!(apart(&[1.0], &[4.0, 6.0]).apart, None);
    }

    #[test]
    fn a_side_has_the_figures_that_all_its_results_have() {
        let [one, two] = [json!({ "figures": { "a": 1, "b": 2 } }), json!({ "figures": { "a": 3 } })];
        let path = Path::new("one");
        assert_eq!(figures_of(&[(path, one), (path, two)]), of(&[1.0, 3.0]));
    }

    #[test]
    fn that_nothing_differs_is_said() {
        let pair = |second| pairs(&of(&[2.0]), &of(&[second])).remove(0);
        assert_eq!(nothing_differs(&[pair(3.0)], 4, 0.0), None);
        assert_eq!(
            nothing_differs(&[], 4, 5.0).as_deref(),
            Some("none of the figures that both have (4) differs by 5 % or more")
        );
        assert_eq!(
            nothing_differs(&[pair(2.0)], 1, 0.0).as_deref(),
            Some("all figures that both have (1) are equal")
        );
    }

    #[test]
    fn simulations_of_different_sizes_are_not_compared() {
        let of = |nodes: u16, seed: u64| json!({ "spec": { "nodes": nodes, "seed": seed } });
        assert_eq!(differing_specs(&of(10, 1), &of(30, 1)), ["nodes: 10 and 30"]);
        assert!(differing_specs(&of(10, 1), &of(10, 2)).is_empty());
    }

    #[test]
    fn only_what_differs_enough_is_told() {
        let of = |a, b| Figures::from([("a".to_owned(), vec![a]), ("b".to_owned(), vec![b])]);
        let pairs = pairs(&of(2.0, 0.0), &of(3.0, 1.0));
        assert_eq!(pairs[0].ratio, Some(1.5));
        assert_eq!(pairs[1].ratio, None);
        assert!(pairs[0].differs_by(50.0) && !pairs[0].differs_by(51.0) && pairs[1].differs_by(1e9));
    }
}
