//! A scenario played: its mesh started, its models deployed, its load sent, its faults done on time, and all
//! of it noted. What it is worth is for `judge` to say.

mod acts;
mod batteries;
mod leftovers;
mod observe;
mod strain;
mod truth;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use stormo::serve::json::{DeploymentState, DeploymentView};

use crate::commands::Progress;
use crate::counted::counted;
use crate::generator::{self, Course, CoursePace, Generator, Recorded};
use crate::ground::GroundKind;
use crate::history::{History, Name, Outcome};
use crate::judge::{Truth, Wish};
use crate::mesh::Mesh;
use crate::play::acts::{Acts, Stage};
use crate::play::leftovers::Traces;
use crate::play::observe::{Observers, Seen};
use crate::play::truth::Asked;
use crate::process::Node;
use crate::random::Random;
use crate::scenario::{Deploy, LoadSpec, Pace, Rate, Scenario};

/// Until all nodes know each other: some exchanges of a second each, more on slow links.
const KNOWN_MAX: Duration = Duration::from_secs(120);
/// For a deployment, which divides and measures a network.
const DEPLOY_MAX: Duration = Duration::from_secs(300);
/// A closed loop that shows what the mesh can answer.
const CAPACITY_CALLERS: u16 = 8;
const CAPACITY_FOR: Duration = Duration::from_secs(8);
/// Before the load, so that its first requests are not those that open every connection.
const WARM_CALLERS: u16 = 2;
const WARM_FOR: Duration = Duration::from_secs(1);
/// From the last preparation to the load's beginning.
const LEAD: Duration = Duration::from_millis(50);

/// What was played.
#[derive(Debug)]
pub struct Played {
    /// What happened.
    pub history: History,
    /// What should have been answered.
    pub truth: Truth,
    /// Who hosted what when the load began.
    pub deployed: Vec<DeploymentView>,
}

/// Plays a scenario on a ground. `tell` gets a line now and then; the nodes' logs go to `logs`, if given. The calling
/// thread starts the nodes, which end with it.
///
/// # Errors
/// When the mesh does not come up, something cannot be deployed, or on Ctrl-C. What goes wrong once the load
/// is on is not an error: it is in the history.
pub fn play(
    scenario: &Scenario,
    ground: GroundKind,
    seed: u64,
    binary: &Path,
    logs: Option<&Path>,
    tell: &mut dyn FnMut(&str),
) -> Result<Played> {
    let labels: Vec<&str> = scenario.topology.nodes.iter().map(|node| node.label.as_str()).collect();
    tell(&format!("starting {}: {}", counted(labels.len(), "node"), labels.join(", ")));
    let mut mesh = Mesh::start_on(ground, binary, &scenario.mesh(), &mut |log| tell(log.trim_end()))?;
    let traces = Traces::of(&mesh);
    let played = on_mesh(scenario, seed, &mut mesh, tell);
    let mut left: Vec<String> = Vec::new();
    if let Ok(played) = &played {
        left.extend(leftovers::ended_by_themselves(&mut mesh, &played.history));
    }
    let bad = mesh.end();
    left.extend(bad.iter().map(|end| match end.status {
        Some(status) => format!("{} ended with {status} when asked to leave", end.label),
        None => format!("{} did not leave when asked, and was killed", end.label),
    }));
    if let Some(logs) = logs {
        for node in mesh.nodes() {
            fs::copy(node.log(), logs.join(format!("{}.log", node.label())))
                .with_context(|| format!("the log of {} in {}", node.label(), logs.display()))?;
        }
    }
    drop(mesh);
    let mut played = played?;
    left.extend(traces.left());
    played.history.leftovers = left;
    Ok(played)
}

fn on_mesh(scenario: &Scenario, seed: u64, mesh: &mut Mesh, tell: &mut dyn FnMut(&str)) -> Result<Played> {
    let started = Instant::now();
    mesh.wait_for_views(scenario.topology.nodes.len(), KNOWN_MAX)?;
    let formed_ms = started.elapsed().as_secs_f64() * 1000.0;
    tell(&format!("all know each other {:.2} s after the last one started", formed_ms / 1000.0));
    mesh.wait_for_nodes(scenario.topology.nodes.len(), KNOWN_MAX)?;
    let mut deployed = Vec::new();
    for deploy in &scenario.deploys {
        deployed.push(deploy_one(scenario, mesh, deploy, tell)?);
    }
    let asked = truth::prepare(scenario, mesh, seed)?;
    let capacities_per_s = warm_up(scenario, mesh, &asked, seed, tell)?;
    let courses = courses(scenario, &asked, seed, &capacities_per_s)?;
    tell(&format!(
        "load for {} s from seed {seed}, {}",
        scenario.duration_us as f64 / 1e6,
        counted(scenario.faults.len(), "fault")
    ));
    let (mut history, recorded) = under_load(scenario, mesh, courses, seed, tell)?;
    fill(&mut history, recorded, scenario.duration_us);
    history.capacities_per_s = capacities_per_s;
    let allowed_us = |load: &LoadSpec| load.max_latency_ms.map(|ms| (ms * 1000.0) as u64);
    history.latencies_us_max = scenario.loads.iter().map(allowed_us).collect();
    history.timeouts_us = scenario.loads.iter().map(|load| u64::from(load.timeout_ms) * 1000).collect();
    history.formed_ms = formed_ms;
    let entries = scenario.loads.iter().map(|load| load.at.iter().map(|place| *place as u16).collect());
    let wish = |load: &LoadSpec| Wish { variant: load.variant.clone(), min_accuracy: load.min_accuracy };
    let wishes = scenario.loads.iter().map(wish).collect();
    let truth = Truth { variants: asked.variants, entries: entries.collect(), wishes };
    Ok(Played { history, truth, deployed })
}

/// Deploys by the command, as a user would.
fn deploy_one(
    scenario: &Scenario,
    mesh: &Mesh,
    deploy: &Deploy,
    tell: &mut dyn FnMut(&str),
) -> Result<DeploymentView> {
    let at = &scenario.topology.nodes[deploy.at].label;
    let mut command: Vec<OsString> =
        vec!["deploy".into(), deploy.name.clone().into(), deploy.model.clone().into()];
    let mut option = |name: &str, value: OsString| command.extend([name.into(), value]);
    option("--api", mesh.node(at).client.base().into());
    option("--ort-level", deploy.ort_level.clone().into());
    if let Some(parts) = deploy.parts {
        option("--parts", parts.to_string().into());
    }
    if let Some(replicas) = deploy.replicas {
        option("--replicas", replicas.to_string().into());
    }
    if let Some(accuracy) = deploy.accuracy {
        option("--accuracy", accuracy.to_string().into());
    }
    for (name, path) in [("--card", &deploy.card), ("--samples", &deploy.samples)] {
        if let Some(path) = path {
            option(name, path.into());
        }
    }
    for (label, file, accuracy) in &deploy.variants {
        let accuracy = accuracy.map_or(String::new(), |accuracy| format!(":{accuracy}"));
        option("--variant", format!("{label}={}{accuracy}", file.display()).into());
    }
    if !deploy.placement.is_empty() {
        let places = deploy.placement.iter();
        let text: String = places
            .map(|(node, blocks)| format!("[[place]]\nnode = \"{node}\"\nblocks = {blocks:?}\n"))
            .collect();
        let file = mesh.folder().join(format!("placement-{}.toml", deploy.name));
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        option("--placement", file.into());
    }
    tell(&format!("deploying {} at {at}", deploy.name));
    let view: DeploymentView = mesh.stormo().json(&command, Progress::Kept, DEPLOY_MAX)?;
    let why = || view.message.clone().unwrap_or_else(|| "no node says why".to_owned());
    ensure!(view.state == DeploymentState::Ready, "`{}` is not warm: {}", deploy.name, why());
    Ok(view)
}

/// Opens connections, loads what is cold; and measures the capacity of each load that is a share of it.
fn warm_up(
    scenario: &Scenario,
    mesh: &Mesh,
    asked: &Asked,
    seed: u64,
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<Option<f64>>> {
    let mut capacities = Vec::new();
    for (load, course) in scenario.loads.iter().zip(&asked.courses) {
        let is_measured = matches!(load.pace, Pace::Open { rate: Rate::OfCapacity(_), .. });
        let (clients, time) =
            if is_measured { (CAPACITY_CALLERS, CAPACITY_FOR) } else { (WARM_CALLERS, WARM_FOR) };
        let until_us = time.as_micros() as u64;
        let pace = CoursePace::Closed { clients, from_us: 0, until_us };
        let course = Course { pace, ..course.clone() };
        let ids = format!("{seed:x}-warm-{}", load.deploy);
        let recorded = Generator::begin(vec![course], ids, addresses(scenario, mesh)?, Instant::now()).end();
        let answered = recorded.requests.iter().filter(|request| request.answer().is_some()).count();
        if answered == 0 {
            bail!("`{}` answers nothing before any fault: {}", load.deploy, first_end(&recorded));
        }
        let mut capacity = None;
        if is_measured {
            // The second half: by then everything is loaded and every way is known.
            let later = recorded.requests.iter().filter(|request| request.answer().is_some());
            let later = later.filter(|request| (until_us / 2..until_us).contains(&request.ended_us)).count();
            let per_s = later as f64 / (until_us as f64 / 2e6);
            tell(&format!(
                "capacity of `{}`: {per_s:.0} answers a second to {}",
                load.deploy,
                counted(clients, "caller")
            ));
            capacity = Some(per_s);
        }
        capacities.push(capacity);
    }
    Ok(capacities)
}

/// How the first request ended that was not answered.
fn first_end(recorded: &Recorded) -> String {
    let text = |name: Name| recorded.names.text(name).to_owned();
    match recorded.requests.first().map(|request| &request.outcome) {
        None => "no request was sent".to_owned(),
        Some(Outcome::Answered(_)) => "the first one was answered".to_owned(),
        Some(Outcome::Refused { status, error }) => format!("{status}: {}", text(*error)),
        Some(Outcome::Broken { error } | Outcome::NotConnected { error } | Outcome::Malformed { error }) => {
            text(*error)
        }
        Some(Outcome::Silent) => "nothing came until the deadline".to_owned(),
        Some(Outcome::Shed) => "too many requests were under way".to_owned(),
    }
}

fn courses(
    scenario: &Scenario,
    asked: &Asked,
    seed: u64,
    capacities_per_s: &[Option<f64>],
) -> Result<Vec<Course>> {
    let course = |(place, (load, course)): (usize, (&LoadSpec, &Course))| {
        let span = [load.from_us, load.until_us];
        let pace = match load.pace {
            Pace::Closed { clients } => CoursePace::Closed { clients, from_us: span[0], until_us: span[1] },
            Pace::Open { rate, is_poisson } => {
                let per_s = match rate {
                    Rate::PerSecond(per_s) => per_s,
                    Rate::OfCapacity(share) => {
                        let capacity = capacities_per_s.get(place).copied().flatten();
                        let capacity = capacity.filter(|capacity| *capacity > 0.0);
                        share * capacity.context("the capacity was not measured")?
                    }
                };
                let mut random = Random::of(seed, &format!("arrivals of load {place}"));
                let drawn =
                    generator::arrivals(per_s, is_poisson, span, &course.at, load.inputs, &mut random);
                ensure!(
                    drawn.len() < generator::ARRIVALS_MAX,
                    "load {place} ({per_s:.0} requests a second) makes more than {} requests; shorten it",
                    generator::ARRIVALS_MAX
                );
                CoursePace::Open(drawn.into())
            }
        };
        Ok(Course { pace, ..course.clone() })
    };
    scenario.loads.iter().zip(&asked.courses).enumerate().map(course).collect()
}

fn addresses(scenario: &Scenario, mesh: &Mesh) -> Result<Vec<Option<std::net::SocketAddr>>> {
    let address = |label: &str| {
        let base = mesh.node(label).client.base();
        let address = base.trim_start_matches("http://").parse();
        address.map(Some).with_context(|| format!("the API of {label} is at `{base}`"))
    };
    scenario.topology.nodes.iter().map(|node| address(&node.label)).collect()
}

/// Sends the load while faults are done and nodes are watched.
fn under_load(
    scenario: &Scenario,
    mesh: &mut Mesh,
    courses: Vec<Course>,
    seed: u64,
    tell: &mut dyn FnMut(&str),
) -> Result<(History, Recorded)> {
    let begun = Instant::now() + LEAD;
    let addresses = addresses(scenario, mesh)?;
    let full = mesh.batteries();
    let observers = Observers::begin(scenario, mesh, begun);
    let generator = Generator::begin(courses, format!("{seed:x}"), addresses, begun);
    let mut acts = Acts::new(scenario, begun);
    let mut on = Stage { scenario, mesh, generator: &generator, observers: &observers };
    let is_whole = acts.all(&mut on, begun + Duration::from_micros(scenario.duration_us), tell);
    generator.stop();
    ensure!(is_whole, "interrupted");
    // Calls of a node that stands still would else wait for their deadlines.
    acts.thaw_all(mesh);
    let recorded = generator.end();
    let seen = observers.end();
    let own_memory = own_memory(scenario, mesh);
    let batteries = batteries::used(scenario, &full, &mesh.batteries(), begun);
    let mut faults = acts.done();
    faults.extend(batteries::losses(scenario, &batteries));
    faults.sort_by_key(|event| event.begun_us);
    let nodes = scenario.topology.nodes.iter().map(|node| node.label.clone()).collect();
    let place = |label: &str| scenario.place(label).map(|place| place as u16);
    let peers = mesh.nodes().iter().filter_map(|node| Some((node.id().to_string(), place(node.label())?)));
    let peers = peers.collect();
    let Seen { states, usage, hosting, looks, hosting_looks, look_every_us, strain } = seen;
    let history = History {
        nodes,
        peers,
        faults,
        states,
        hosting,
        looks,
        hosting_looks,
        look_every_us,
        strain,
        usage,
        own_memory,
        batteries,
        ..History::default()
    };
    Ok((history, recorded))
}

/// What each running process holds beyond its partitions and ONNX Runtime's library.
fn own_memory(scenario: &Scenario, mesh: &mut Mesh) -> Vec<(u16, u64)> {
    let own = |node: &Node| {
        let own_bytes = node.memory().ok()?.own_pss_bytes;
        let hosted_bytes = node.client.node().ok()?.memory_used_bytes;
        Some((scenario.place(node.label())? as u16, own_bytes.saturating_sub(hosted_bytes)))
    };
    let running = mesh.nodes_mut().iter_mut().filter_map(|node| node.ended().is_none().then_some(&*node));
    running.filter_map(own).collect()
}

fn fill(history: &mut History, recorded: Recorded, duration_us: u64) {
    let seconds = (duration_us as f64 / 1e6).max(1e-3);
    history.generator_share = recorded.busy.as_secs_f64() / seconds;
    history.begun = recorded.begun;
    history.names = recorded.names;
    history.requests = recorded.requests;
    history.outputs = recorded.outputs;
    history.unasked = recorded.unasked;
    history.generator_faults = recorded.faults;
    history.strain.sent_late_ms_max = recorded.late_max.as_secs_f64() * 1000.0;
    history.load_ended_us = duration_us;
}
