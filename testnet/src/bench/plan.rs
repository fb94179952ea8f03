//! How good the default planner's plans are, and how long it takes: generated meshes, beside the proven optimum and
//! the best single node.

mod meshes;

use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use stormo::plan::{
    EXPANSIONS_DEFAULT, Found, Goal, Method, Missed, Objective, PlanShape, Planner, Problem, SPLIT_GAIN_MIN,
    Search, StageShape, best_replicated, best_split,
};
use stormo_testnet::counted::counted;
use stormo_testnet::interrupt;
use stormo_testnet::random::Random;

use self::meshes::{Asked, draw, region};
use crate::median::{median, quantile};
use crate::table::{Align, Table};

/// Partial plans that the exact search looks at for each case; some seconds.
const EXPANSIONS_EXACT: usize = 20_000_000;
/// Partial schedules of branches that it looks at.
const SCHEDULES_EXACT: usize = 2_000_000;
/// Larger meshes have too many pairs of fork and join for a proof.
const REGION_NODES_MAX: usize = 200;
/// Larger meshes take minutes for each proof of a stream over several routes.
const REPLICATED_NODES_MAX: usize = 12;
/// Programmes solved for such a bound.
const RELAXATIONS_EXACT: usize = 50;
const SIZES: [usize; 4] = [12, 50, 200, 1_000];
/// Accuracy that plans with budgets may lose.
const LOSS_MAX: f64 = 0.01;

/// What to measure, and how thoroughly.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Meshes of each kind and size
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    cases: u64,
    /// Only meshes of so many nodes; may be repeated
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=2_000))]
    nodes: Vec<u16>,
    /// Which meshes: the same seed draws the same ones
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    seed: u64,
    cells: Vec<Cell>,
}

/// One kind of question over meshes of one size.
#[derive(Debug, Serialize)]
struct Cell {
    name: String,
    asked: Asked,
    nodes: usize,
    /// Meshes that can be planned for at all, as far as either planner found.
    cases: usize,
    /// Of these, with an optimum that was proven.
    proven: usize,
    /// Where it was proven, how much more the default planner's plan takes, percent.
    gap_mean_percent: f64,
    gap_99_percent: f64,
    /// Where it was not, how much more it takes than the lower bound, percent: at most.
    unproven_gap_mean_percent: f64,
    /// A plan was there and the default planner found none.
    missed: usize,
    /// Its plan is worse than the best single node's.
    worse_than_single: usize,
    /// Plans with a fork that save enough to be taken.
    forks: usize,
    /// Of streams over several routes: the period of the best plan found, in parts of theirs.
    gain_median: f64,
    time_ms_median: f64,
    time_ms_99: f64,
}

/// Measures and prints.
pub(super) fn run(options: &Options) -> Result<()> {
    let mut cells = vec![];
    for asked in Asked::ALL {
        for nodes in SIZES.into_iter().chain(options.nodes.iter().map(|nodes| usize::from(*nodes))) {
            let is_wanted = options.nodes.is_empty() || options.nodes.contains(&(nodes as u16));
            let nodes_max = match asked {
                Asked::Regions => REGION_NODES_MAX,
                Asked::Replicated => REPLICATED_NODES_MAX,
                _ => usize::MAX,
            };
            let is_wanted = is_wanted && nodes <= nodes_max;
            if is_wanted && !cells.iter().any(|cell: &Cell| (cell.asked, cell.nodes) == (asked, nodes)) {
                note!("{asked:?} over {}", counted(nodes, "node"));
                cells.push(match asked {
                    Asked::Regions => measure_regions(nodes, options)?,
                    Asked::Replicated => measure_replicated(nodes, options)?,
                    _ => measure(asked, nodes, options)?,
                });
            }
        }
    }
    super::kept::show("plan", options.json, &Report { seed: options.seed, cells }, print)
}

#[derive(Default)]
struct Tally {
    gaps: Vec<f64>,
    unproven: Vec<f64>,
    times_ms: Vec<f64>,
    cases: usize,
    missed: usize,
    worse_than_single: usize,
    forks: usize,
    gains: Vec<f64>,
}

/// Beside the shortest period of any stream, as far as it is proven; the time is that beyond planning a single plan.
fn measure_replicated(nodes: usize, options: &Options) -> Result<Cell> {
    let greedy = Search { method: Method::Greedy, expansions_max: EXPANSIONS_DEFAULT };
    let mut tally = Tally::default();
    for case in 0..options.cases {
        if interrupt::is_noted() {
            bail!("interrupted");
        }
        let seed = Random::of(options.seed, &format!("{:?} {nodes} {case}", Asked::Replicated)).bits();
        let (problem, goal) = draw(Asked::Replicated, nodes, seed);
        let Ok(plan) = greedy.best_for(&problem, &goal) else { continue };
        tally.cases += 1;
        let began_ms = busy_ms();
        let found = best_replicated(&problem, vec![plan.priced.shape.clone()], Method::Greedy, 0);
        tally.times_ms.push(busy_ms() - began_ms);
        let Some(found) = found.map(|found| found.priced) else {
            tally.missed += 1;
            continue;
        };
        let route = found.shape.routes[0].0.clone();
        let exact =
            best_replicated(&problem, vec![plan.priced.shape, route], Method::Exact, RELAXATIONS_EXACT);
        let (least_ms, bound_ms) = exact.map_or((0.0, 0.0), |exact| (exact.priced.period_ms, exact.bound_ms));
        let is_proven = least_ms <= bound_ms * (1.0 + 1e-6);
        let gaps = if is_proven { &mut tally.gaps } else { &mut tally.unproven };
        gaps.push((found.period_ms / bound_ms - 1.0).max(0.0) * 100.0);
        tally.gains.push(plan.priced.period_ms / found.period_ms);
        let single = best_single(&problem, &goal);
        let is_worse = single.is_some_and(|single| found.period_ms > single * (1.0 + 1e-9));
        tally.worse_than_single += usize::from(is_worse);
    }
    Ok(tally.cell(Asked::Replicated, nodes))
}

/// Beside the best plan with a fork: how it was found, and whether it saves enough to be taken.
fn measure_regions(nodes: usize, options: &Options) -> Result<Cell> {
    let greedy = Search { method: Method::Greedy, expansions_max: EXPANSIONS_DEFAULT };
    let mut tally = Tally::default();
    for case in 0..options.cases {
        if interrupt::is_noted() {
            bail!("interrupted");
        }
        let seed = Random::of(options.seed, &format!("{:?} {nodes} {case}", Asked::Regions)).bits();
        let (problem, goal) = draw(Asked::Regions, nodes, seed);
        let regions = [region(&problem, seed)];
        let began_ms = busy_ms();
        let found = best_split(&problem, &regions, Method::Greedy, 0);
        tally.times_ms.push(busy_ms() - began_ms);
        let Some(best) = best_split(&problem, &regions, Method::Exact, SCHEDULES_EXACT) else { continue };
        tally.cases += 1;
        let Some(found) = found else {
            tally.missed += 1;
            continue;
        };
        let (found_ms, best_ms) = (found.priced.latency_ms, best.priced.latency_ms);
        let is_proven = best_ms <= best.bound_ms * (1.0 + 1e-9);
        let gaps = if is_proven { &mut tally.gaps } else { &mut tally.unproven };
        gaps.push((found_ms / best.bound_ms - 1.0).max(0.0) * 100.0);
        let chain = greedy.best_for(&problem, &goal).map_or(f64::INFINITY, |chain| chain.priced.latency_ms);
        let is_fork = found_ms <= chain * (1.0 - SPLIT_GAIN_MIN);
        tally.forks += usize::from(is_fork);
        let taken_ms = if is_fork { found_ms } else { chain };
        let single = best_single(&problem, &goal);
        tally.worse_than_single += usize::from(single.is_some_and(|single| taken_ms > single * (1.0 + 1e-9)));
    }
    Ok(tally.cell(Asked::Regions, nodes))
}

fn measure(asked: Asked, nodes: usize, options: &Options) -> Result<Cell> {
    let greedy = Search { method: Method::Greedy, expansions_max: EXPANSIONS_DEFAULT };
    let exact = Search { method: Method::Exact, expansions_max: EXPANSIONS_EXACT };
    let mut tally = Tally::default();
    for case in 0..options.cases {
        if interrupt::is_noted() {
            bail!("interrupted");
        }
        let seed = Random::of(options.seed, &format!("{asked:?} {nodes} {case}")).bits();
        let (mut problem, mut goal) = draw(asked, nodes, seed);
        if asked == Asked::LatencyWithBudgets {
            set_budgets(&mut problem, &mut goal, seed, &greedy);
        }
        let began_ms = busy_ms();
        let found = greedy.best_for(&problem, &goal);
        tally.times_ms.push(busy_ms() - began_ms);
        tally.take(&problem, &goal, found, &exact);
    }
    Ok(tally.cell(asked, nodes))
}

/// Processor time of this thread, so that other work on the machine does not count.
fn busy_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// Energy between the least that will do and what the quickest plan draws, so that it binds.
fn set_budgets(problem: &mut Problem, goal: &mut Goal, seed: u64, planner: &impl Planner) {
    problem.loss_max = LOSS_MAX;
    let quickest = planner.best_for(problem, goal);
    let thriftiest = planner.best_for(problem, &Goal { objective: Objective::Energy, ..*goal });
    if let (Ok(quickest), Ok(thriftiest)) = (quickest, thriftiest) {
        let (most, least) = (quickest.priced.energy_mj, thriftiest.priced.energy_mj);
        goal.energy_mj_max = Some(Random::of(seed, "budget").between(least * 1.02, most.max(least * 1.05)));
    }
}

impl Tally {
    fn take(&mut self, problem: &Problem, goal: &Goal, found: Result<Found, Missed>, exact: &impl Planner) {
        let best = exact.best_for(problem, goal);
        let single = best_single(problem, goal);
        let Ok(found) = found else {
            self.missed += usize::from(best.is_ok() || single.is_some());
            self.cases += usize::from(best.is_ok() || single.is_some());
            return;
        };
        self.cases += 1;
        let value = goal.value(&found.priced);
        self.worse_than_single += usize::from(single.is_some_and(|single| value > single * (1.0 + 1e-9)));
        let gap = |least: f64| if least > 0.0 { (value / least - 1.0).max(0.0) * 100.0 } else { 0.0 };
        match best {
            Ok(best) if goal.value(&best.priced) <= best.bound * (1.0 + 1e-9) => {
                self.gaps.push(gap(goal.value(&best.priced)));
            }
            Ok(best) => self.unproven.push(gap(best.bound)),
            Err(_) => self.unproven.push(gap(found.bound)),
        }
    }

    fn cell(self, asked: Asked, nodes: usize) -> Cell {
        let Self { gaps, unproven, times_ms, .. } = self;
        let mean = |figures: &[f64]| {
            figures.iter().fold(0.0, |sum, figure| sum + figure) / figures.len().max(1) as f64
        };
        Cell {
            name: format!("{asked:?} {nodes}"),
            asked,
            nodes,
            cases: self.cases,
            proven: gaps.len(),
            gap_mean_percent: mean(&gaps),
            gap_99_percent: quantile(gaps.iter().copied(), 0.99),
            unproven_gap_mean_percent: mean(&unproven),
            missed: self.missed,
            worse_than_single: self.worse_than_single,
            forks: self.forks,
            gain_median: if self.gains.is_empty() { 1.0 } else { median(self.gains.into_iter()) },
            time_ms_median: median(times_ms.iter().copied()),
            time_ms_99: quantile(times_ms.into_iter(), 0.99),
        }
    }
}

/// The least that any node alone would take, everything on it.
fn best_single(problem: &Problem, goal: &Goal) -> Option<f64> {
    let whole = |node: usize| {
        let end = problem.cut_bytes.len() as u16 - 1;
        let shape: PlanShape = problem.lossless(vec![StageShape { node, first: 0, end }]);
        let priced = problem.price(&shape).ok()?;
        goal.is_met(&priced).then(|| goal.value(&priced))
    };
    (0..problem.nodes.len()).filter_map(whole).min_by(f64::total_cmp)
}

fn print(report: &Report) {
    let columns = [
        ("asked", Align::Left),
        ("nodes", Align::Right),
        ("cases", Align::Right),
        ("proven", Align::Right),
        ("gap, mean", Align::Right),
        ("99 %", Align::Right),
        ("unproven, at most", Align::Right),
        ("missed", Align::Right),
        ("worse than one node", Align::Right),
        ("time, median", Align::Right),
        ("99 %", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for cell in &report.cells {
        let asked = match cell.asked {
            Asked::LatencyWithMemory => "latency, memory tight",
            Asked::LatencyWithBudgets => "latency within energy and accuracy",
            Asked::Throughput => "throughput",
            Asked::Regions => "latency, forked",
            Asked::Replicated => "throughput, several routes",
        };
        table.row([
            asked.to_owned(),
            cell.nodes.to_string(),
            cell.cases.to_string(),
            cell.proven.to_string(),
            format!("{:.3} %", cell.gap_mean_percent),
            format!("{:.2} %", cell.gap_99_percent),
            match cell.cases - cell.missed - cell.proven {
                0 => "none".to_owned(),
                unproven => format!("{unproven}: {:.2} %", cell.unproven_gap_mean_percent),
            },
            cell.missed.to_string(),
            cell.worse_than_single.to_string(),
            format!("{:.2} ms", cell.time_ms_median),
            format!("{:.2} ms", cell.time_ms_99),
        ]);
    }
    table.lines().iter().for_each(|line| println!("  {line}"));
    for cell in report.cells.iter().filter(|cell| cell.asked == Asked::Regions) {
        let Cell { forks, cases, nodes, .. } = cell;
        let percent = SPLIT_GAIN_MIN * 100.0;
        println!(
            "  {forks} of {} over {} nodes save {percent:.0} % and would be taken",
            counted(*cases, "fork"),
            nodes
        );
    }
    for cell in report.cells.iter().filter(|cell| cell.asked == Asked::Replicated) {
        let Cell { gain_median, nodes, .. } = cell;
        println!(
            "  several routes over {nodes} nodes answer {gain_median:.2} times as often as one (median)"
        );
    }
}
