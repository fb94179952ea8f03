//! `cargo mesh chaos`: faults drawn from a seed, done to a scenario that has none; if something does not hold
//! then, a smaller schedule that still breaks it, as a scenario file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use stormo_testnet::binary;
use stormo_testnet::chaos::{self, Bounds, QUIET_AFTER_US};
use stormo_testnet::report::Document;
use stormo_testnet::scenario::{Scenario, Scheduled};

use crate::narrator::Narrator;
use crate::run::{self, Ended};

/// Longer runs are for steady load.
const MINUTES_MAX: f64 = 120.0;

/// What to disturb, and how.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// A scenario without faults: a file, or the name of one in `testnet/scenarios/`
    #[arg(default_value = "chaos")]
    scenario: PathBuf,
    /// Where chance begins
    #[arg(long, value_name = "NUMBER")]
    seed: u64,
    /// How long load is sent
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Faults that act at once [default: as many as each part of the deployment has replicas to spare]
    #[arg(long, value_name = "FAULTS")]
    at_once: Option<usize>,
    /// Plays of each smaller schedule: processes do not do the same twice; it breaks if one play does
    #[arg(long, default_value_t = 2)]
    repeats: usize,
    /// Smaller schedules that are tried
    #[arg(long, default_value_t = 12)]
    tries: usize,
    /// Only what plain processes on loopback can do
    #[arg(long)]
    loopback: bool,
    /// Where reports and the smaller scenario go [default: target/scenarios/chaos-SEED]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the JSON document of the first play; what happens is told on standard error
    #[arg(long)]
    json: bool,
}

/// What is played again and again.
struct Disturbed<'a> {
    base: &'a Scenario,
    seed: u64,
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
    ensure!((0.25..=MINUTES_MAX).contains(&args.minutes), "--minutes: from 0.25 to {MINUTES_MAX}");
    let narrator = Narrator::new(args.json);
    let is_emulated = !args.loopback && run::emulation().is_ok();
    if let (false, Err(why)) = (args.loopback, run::emulation()) {
        narrator.say(&format!(
            "Without emulated links ({why}): nodes are only killed, frozen and started again."
        ));
    }
    let at_once_max = args.at_once.unwrap_or_else(|| Bounds::at_once_of(&base));
    if at_once_max == 0 {
        bail!("{path}: no deployment has a replica to spare; deploy with replicas, or say --at-once");
    }
    let bounds = Bounds { is_emulated, at_once_max, duration_us: (args.minutes * 60e6) as u64 };
    let faults = chaos::draw(&base, args.seed, &bounds).faults;
    let default = || binary::workspace_root().join(format!("target/scenarios/chaos-{}", args.seed));
    let folder = args.out.clone().unwrap_or_else(default);
    let disturbed = Disturbed { base: &base, seed: args.seed, folder: &folder, narrator: &narrator };
    narrator.say(&format!("{} faults from seed {}, at most {at_once_max} at once", faults.len(), args.seed));
    let first = disturbed.play("first", &faults, bounds.duration_us)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&first)?);
    }
    if first.holds {
        return Ok(Ended::Well);
    }
    disturbed.make_smaller(&faults, &failed(&first), args)?;
    Ok(Ended::Badly)
}

/// What did not hold.
fn failed(document: &Document) -> BTreeSet<String> {
    let failed = document.verdict.checks.iter().filter(|check| !check.holds);
    failed.map(|check| check.what.clone()).collect()
}

impl Disturbed<'_> {
    fn scenario(&self, name: &str, faults: &[Scheduled], duration_us: u64) -> Result<Scenario> {
        let base_folder = self.base.path.parent().unwrap_or(Path::new(""));
        let count = faults.len();
        let about = format!(
            "{} Disturbed by {count} fault{} from seed {}.",
            self.base.about,
            if count == 1 { "" } else { "s" },
            self.seed
        );
        let text = chaos::written(&self.base.text, base_folder, &about, self.seed, duration_us, faults)?;
        let path = self.folder.join(format!("{name}.toml"));
        fs::create_dir_all(self.folder).with_context(|| self.folder.display().to_string())?;
        fs::write(&path, &text).with_context(|| path.display().to_string())?;
        Ok(Scenario::parse(&path, text)?)
    }

    fn play(&self, name: &str, faults: &[Scheduled], duration_us: u64) -> Result<Document> {
        let scenario = self.scenario(name, faults, duration_us)?;
        run::ran(&scenario, self.seed, &self.folder.join(name), self.narrator)
    }

    /// Leaves out faults while some of what failed first still fails.
    fn make_smaller(
        &self,
        faults: &[Scheduled],
        failed_first: &BTreeSet<String>,
        args: &ChaosArgs,
    ) -> Result<()> {
        let what: Vec<&str> = failed_first.iter().map(String::as_str).collect();
        self.narrator
            .title(&format!("a smaller schedule after which one of these fails too: {}", what.join(", ")));
        let mut plays = 0;
        let breaks = |fewer: &[Scheduled]| {
            for _ in 0..args.repeats.max(1) {
                plays += 1;
                let document = self.play(&format!("try-{plays}"), fewer, length_us(fewer))?;
                if !failed(&document).is_disjoint(failed_first) {
                    return Ok::<_, anyhow::Error>(true);
                }
            }
            Ok(false)
        };
        let left = chaos::minimise(faults, args.tries, breaks)?;
        let scenario = self.scenario("smaller", &left.faults, length_us(&left.faults))?;
        self.narrator.say(&format!(
            "{} of {} faults are left after {} tries{}.",
            left.faults.len(),
            faults.len(),
            left.tried,
            if left.is_minimal { "; with any one fewer it held" } else { " (all that were allowed)" }
        ));
        self.narrator.say(&format!("cargo mesh run {}", scenario.path.display()));
        Ok(())
    }
}

/// To the end of the last fault, and what progress takes to show.
fn length_us(faults: &[Scheduled]) -> u64 {
    let ends = faults.iter().map(|fault| fault.at_us + fault.for_us.unwrap_or(1_000_000));
    ends.max().unwrap_or(0) + QUIET_AFTER_US
}
