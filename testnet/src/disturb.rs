//! `cargo mesh chaos`: faults drawn from a seed, done to a scenario that has none; if something does not hold
//! then, a smaller schedule that still breaks it, as a scenario file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use stormo_testnet::chaos::{self, Bounds, Stretch};
use stormo_testnet::counted::counted;
use stormo_testnet::ground::network;
use stormo_testnet::printable::printable;
use stormo_testnet::report::Document;
use stormo_testnet::scenario::{Scenario, Scheduled};
use stormo_testnet::{binary, clock};

use crate::narrator::Narrator;
use crate::options;
use crate::run::results::Results;
use crate::run::{self, Ended};
use crate::told;

/// Of a shorter run, little is left between what must be quiet before faults and behind them.
const MINUTES_MIN: f64 = 0.5;
/// Longer runs are for steady load.
const MINUTES_MAX: f64 = 120.0;
/// More never act at once: a mesh has no more nodes.
const FAULTS_MAX: usize = 64;
/// More plays than anybody waits for.
const REPEATS_MAX: usize = 100;

/// What to disturb, and how.
// A negative number is a wrong value, not an option.
#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct ChaosArgs {
    /// A scenario without faults: a file, or the name of one in `testnet/scenarios/`
    #[arg(default_value = "chaos")]
    scenario: PathBuf,
    /// Where chance begins; a file cannot say larger ones
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: u64,
    /// How many minutes load is sent and faults are drawn for, 0.5 to 120, instead of the scenario's own duration; a load
    /// with `from_s` or `for_s` keeps its share of the whole. Each play takes as long, and starting and ending come on top
    #[arg(long, value_name = "MINUTES", default_value_t = 2.0, value_parser = options::number(MINUTES_MIN..=MINUTES_MAX, "minutes"))]
    minutes: f64,
    /// Faults that act at once [default: as many as each part of the deployment has replicas to spare]
    #[arg(long, value_name = "FAULTS", value_parser = options::count(1..=FAULTS_MAX))]
    at_once: Option<usize>,
    /// Plays of each smaller schedule: processes do not do the same twice; it breaks if one play does
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = options::count(1..=REPEATS_MAX))]
    repeats: usize,
    /// Smaller schedules that are tried at most; 0 leaves it at the first play
    #[arg(long, value_name = "COUNT", default_value_t = 12)]
    tries: usize,
    /// Plain processes, without the links and limits of the topology, and only what can be done to them
    #[arg(long)]
    loopback: bool,
    /// Where reports and the smaller scenario go; what earlier plays left there is moved to `earlier-1` in it, or the next
    /// number [default: target/scenarios/chaos-SEED]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the JSON document of the first play; what happens is told on standard error
    #[arg(long)]
    json: bool,
}

/// What is played again and again.
struct Disturbed<'a> {
    base: &'a Scenario,
    args: &'a ChaosArgs,
    stretch: Stretch,
    folder: &'a Path,
    narrator: &'a Narrator,
}

/// Draws, plays, and makes smaller what breaks.
pub(crate) fn run(args: &ChaosArgs) -> Result<Ended> {
    let base = Scenario::load(&args.scenario)?;
    let path = base.path.display();
    ensure!(
        base.faults.is_empty(),
        "{path} has faults of its own; chaos draws them: name a scenario without"
    );
    let narrator = Narrator::new(args.json);
    if let Some(why) = run::cannot(&base, args.loopback) {
        note!("skipped: {}", printable(&why));
        return Ok(Ended::Skipped);
    }
    let stretch = Stretch::to((args.minutes * 60e6) as u64);
    let bounds = Bounds {
        is_emulated: is_emulated(args, &narrator),
        has_clocks: clock::is_possible().is_ok(),
        at_once_max: args.at_once.unwrap_or_else(|| Bounds::at_once_of(&base)),
        stretch,
    };
    let drawn = chaos::draw(&base, args.seed, &bounds);
    let faults = drawn.with_context(|| format!("{path}: nothing to disturb"))?.faults;
    if let Some(lacking) = run::lacking(&base.topology, args.loopback) {
        narrator.say(lacking);
    }
    let default = || binary::workspace_root().join(format!("target/scenarios/chaos-{}", args.seed));
    let folder = args.out.clone().unwrap_or_else(default);
    let results = Results::open(&folder, is_result)?;
    if let Some(earlier) = &results.earlier {
        narrator.say(&format!("what earlier plays left is in {} now", earlier.display()));
    }
    let disturbed = Disturbed { base: &base, args, stretch, folder: &folder, narrator: &narrator };
    let (count, at_once) = (faults.len(), bounds.at_once_max);
    narrator.say(&format!("{} from seed {}, at most {at_once} at once", counted(count, "fault"), args.seed));
    let first = disturbed.play("first", &faults, stretch)?;
    if args.json {
        told::document(&serde_json::to_string_pretty(&first)?);
    }
    if first.holds && first.faults.iter().all(|fault| fault.requests == 0) {
        narrator
            .say("No fault was where a request ran: nothing is shown. Another --seed, or more --minutes.");
        return Ok(Ended::Badly);
    }
    if first.holds {
        return Ok(Ended::Well);
    }
    disturbed.make_smaller(&faults, &failed(&first))?;
    Ok(Ended::Badly)
}

/// Whether plays of chaos leave something of this name.
fn is_result(name: &str) -> bool {
    let stem = name.strip_suffix(".toml").unwrap_or(name);
    ["first", "smaller"].contains(&stem)
        || stem.strip_prefix("try-").is_some_and(|number| number.parse::<u32>().is_ok())
}

fn is_emulated(args: &ChaosArgs, narrator: &Narrator) -> bool {
    if args.loopback {
        return false;
    }
    let possible = network::is_possible();
    if let Err(why) = &possible {
        narrator.say(&format!(
            "Without emulated links ({why}): nodes are only killed, frozen and started again, and their clocks put wrong."
        ));
    }
    possible.is_ok()
}

/// What did not hold.
fn failed(document: &Document) -> BTreeSet<String> {
    let failed = document.verdict.checks.iter().filter(|check| !check.holds);
    failed.map(|check| check.what.clone()).collect()
}

impl Disturbed<'_> {
    fn scenario(&self, name: &str, faults: &[Scheduled], stretch: Stretch) -> Result<Scenario> {
        let (count, seed) = (faults.len(), self.args.seed);
        let about = format!("{} Disturbed by {} from seed {seed}.", self.base.about, counted(count, "fault"));
        let text = chaos::written(self.base, &about, seed, &stretch, faults)?;
        let path = self.folder.join(format!("{name}.toml"));
        // What these faults cannot show would fail by itself, and with all that are fewer.
        let unshown = Scenario::parse(&path, text.clone())?.unshown();
        let text = chaos::without(&text, &unshown)?;
        fs::create_dir_all(self.folder).with_context(|| self.folder.display().to_string())?;
        fs::write(&path, &text).with_context(|| path.display().to_string())?;
        Ok(Scenario::parse(&path, text)?)
    }

    fn play(&self, name: &str, faults: &[Scheduled], stretch: Stretch) -> Result<Document> {
        let scenario = self.scenario(name, faults, stretch)?;
        let ground = run::ground(&scenario, self.args.seed, self.args.loopback);
        run::ran(&scenario, ground, self.args.seed, &self.folder.join(name), self.narrator)
    }

    /// Leaves out faults while some of what failed first still fails.
    fn make_smaller(&self, faults: &[Scheduled], failed_first: &BTreeSet<String>) -> Result<()> {
        let what: Vec<&str> = failed_first.iter().map(String::as_str).collect();
        self.narrator
            .title(&format!("a smaller schedule after which one of these fails too: {}", what.join(", ")));
        let mut plays = 0;
        // Without any fault all of it is played: what fails by itself may take its time.
        let cut = |fewer: &[Scheduled]| match fewer {
            [] => self.stretch,
            some => self.stretch.cut(self.base, chaos::shown_by_us(self.base, some)),
        };
        let breaks = |fewer: &[Scheduled]| {
            for _ in 0..self.args.repeats {
                plays += 1;
                let document = self.play(&format!("try-{plays}"), fewer, cut(fewer))?;
                if !failed(&document).is_disjoint(failed_first) {
                    return Ok::<_, anyhow::Error>(true);
                }
            }
            Ok(false)
        };
        let left = chaos::minimise(faults, self.args.tries, breaks)?;
        if left.faults.is_empty() && !faults.is_empty() {
            self.narrator.say("Without any fault some of it fails as well: the scenario fails by itself.");
        }
        let scenario = self.scenario("smaller", &left.faults, cut(&left.faults))?;
        self.narrator.say(&format!(
            "Of {}, {} left after {}{}.",
            counted(faults.len(), "fault"),
            if left.faults.len() == 1 { "1 is".to_owned() } else { format!("{} are", left.faults.len()) },
            counted(left.tried, "try"),
            if left.faults.is_empty() {
                ""
            } else if left.is_minimal {
                "; with any one fewer it held"
            } else {
                " (all that were allowed)"
            }
        ));
        let loopback = if self.args.loopback { " --loopback" } else { "" };
        self.narrator.say(&format!("cargo mesh run {}{loopback}", scenario.path.display()));
        Ok(())
    }
}
