//! Deployments that keep themselves alive: lost hosts are replaced, stewards die, versions roll, whole meshes
//! start again, and what was taken back is gone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use stormo::serve::json::{DeploymentState, DeploymentView, HostView};
use stormo_protocol::model::OrtLevel;
use stormo_testnet::client::Client;
use stormo_testnet::commands::Progress;
use stormo_testnet::digits::{self, Image};
use stormo_testnet::load::{Load, Outcome};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::{Difference, InferRequest};
use stormo_testnet::reference::Reference;
use stormo_testnet::topology::NodeSpec;
use stormo_testnet::trial::{self, COMMAND_MAX, SOON, arguments, asker, edge};
use stormo_testnet::wait;

/// The version before is freed a minute after the newer one is ready.
const REPLACED: Duration = Duration::from_secs(180);
/// Requests of a load that show it is under way, or goes on.
const MANY: usize = 20;
const CALLERS: usize = 3;
/// Between answers of a divided network and the whole one, relative to the largest value.
const DIFFERENCE_MAX: f64 = 1e-4;

fn nodes() -> Vec<NodeSpec> {
    let mut nodes = vec![asker("origin")];
    nodes.extend(["a", "b", "c", "d"].map(edge));
    nodes
}

/// A deployment as a node sees it.
fn seen(client: &Client, name: &str) -> Result<DeploymentView, String> {
    let all = client.deployments().map_err(|error| error.to_string())?.deployments;
    all.into_iter().find(|view| view.name == name).ok_or_else(|| "it is not known".to_owned())
}

/// Waits until a node sees so many warm hosts, all of them among these nodes, and nothing else ordered.
fn wait_until_hosted(client: &Client, hosts: usize, among: &[&str]) -> Result<DeploymentView> {
    let found = wait::until(&format!("{hosts} warm hosts among {among:?}"), SOON, || {
        let view = seen(client, "digits")?;
        let is_well =
            |host: &HostView| host.state == DeploymentState::Ready && among.contains(&host.label.as_str());
        let is_it = view.hosts.len() == hosts && view.hosts.iter().all(is_well);
        if is_it { Ok(view) } else { Err(format!("{view:?}")) }
    })?;
    Ok(found)
}

fn hosts_of(view: &DeploymentView) -> BTreeSet<String> {
    view.hosts.iter().map(|host| host.label.clone()).collect()
}

fn requests(client: &Client) -> Result<Vec<InferRequest>> {
    let input = trial::digits_input(client)?;
    Ok(digits::load()?.iter().map(|image: &Image| image.request(&input)).collect())
}

/// Lets a load end; every request of it must have been answered as the network in one piece answers.
fn end(load: Load, requests: &[InferRequest]) -> Result<Vec<Outcome>> {
    let outcomes = load.end();
    let reference = Reference::of("digits", &digits::model(), OrtLevel::All)?;
    let whole: Vec<_> =
        requests.iter().map(|request| reference.whole(&request.inputs)).collect::<Result<_, _>>()?;
    for Outcome { index, result } in &outcomes {
        let answer = result.as_ref().map_err(|error| anyhow!("a request failed: {error}"))?;
        let apart = Difference::between(&whole[*index], &answer.outputs).context("other names or shapes")?;
        ensure!(apart.relative <= DIFFERENCE_MAX, "answer {index} is wrong: {apart:?}");
    }
    Ok(outcomes)
}

fn wait_until_freed(mesh: &Mesh, within: Duration) -> Result<()> {
    wait::until("the memory of all nodes to be free", within, || {
        for node in mesh.nodes() {
            let view = node.client.node().map_err(|error| error.to_string())?;
            if view.memory_used_bytes > 0 || !view.hosted.is_empty() {
                return Err(format!("`{}` uses {} bytes", view.label, view.memory_used_bytes));
            }
        }
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_killed_host_is_replaced_while_requests_go_on_and_undeploying_frees_all() -> Result<()> {
    trial::run(&nodes(), |mesh| {
        let client = mesh.node("origin").client.clone();
        let before = trial::deploy(mesh, "origin", "digits", &digits::model(), &["--replicas", "2"])?;
        ensure!(before.sequence == Some(1) && before.replicas == 2, "{before:?}");
        let requests = requests(&client)?;
        let load = Load::begin(&client, "digits", &requests, CALLERS);
        load.wait_for_more(MANY, SOON)?;
        let lost = before.hosts.first().context("it has hosts")?.label.clone();
        mesh.node_mut(&lost).kill()?;
        let left: Vec<&str> = ["a", "b", "c", "d"].into_iter().filter(|label| *label != lost).collect();
        let after = wait_until_hosted(&client, 2, &left)?;
        ensure!(after.sequence > Some(1) && after.version == before.version, "{after:?}");
        load.wait_for_more(MANY, SOON)?;
        end(load, &requests)?;
        // All nodes tell the same, also one that had no part in it.
        for label in &left {
            let told = wait_until_hosted(&mesh.node(label).client, 2, &left)?;
            ensure!(hosts_of(&told) == hosts_of(&after), "{told:?} at {label}, {after:?} at the origin");
            let steward = told.steward.context("it has a steward")?;
            ensure!(steward.label != "origin", "a device is steward: {steward:?}");
        }
        // The lost node comes back, and holds nothing that it is not asked to.
        mesh.add(&edge(&lost))?;
        mesh.wait_for_nodes(5, SOON)?;
        wait::until("the node that came back to be empty", SOON, || {
            let view = mesh.node(&lost).client.node().map_err(|error| error.to_string())?;
            let now = seen(&client, "digits")?;
            let hosts = hosts_of(&now).contains(&lost);
            if hosts != view.hosted.is_empty() { Ok(()) } else { Err(format!("{view:?}, {now:?}")) }
        })?;
        undeploy(mesh, "origin")?;
        wait_until_freed(mesh, SOON)
    })
}

fn undeploy(mesh: &Mesh, at: &str) -> Result<()> {
    let words = arguments(&["undeploy", "digits", "--api", mesh.node(at).client.base()]);
    mesh.stormo().json::<DeploymentView>(&words, Progress::Kept, COMMAND_MAX)?;
    Ok(())
}

#[test]
fn a_deployment_completes_though_its_steward_dies_while_a_host_stands_still() -> Result<()> {
    trial::run(&nodes(), |mesh| {
        let other = trial::deploy(mesh, "origin", "other", &digits::model(), &["--replicas", "1"])?;
        let whole = other.hosts.first().context("it has a host")?.blocks;
        let placement = mesh.folder().join("placement.toml");
        let place = |node| format!("[[place]]\nnode = \"{node}\"\nblocks = {whole:?}\n");
        std::fs::write(&placement, place("a") + &place("b"))?;
        let client = mesh.node("origin").client.clone();
        // It takes its order and goes no further.
        mesh.node_mut("b").freeze()?;
        let mut command: Vec<OsString> = vec!["deploy".into(), "digits".into(), digits::model().into()];
        command.extend(arguments(&["--placement", &placement.to_string_lossy(), "--api", client.base()]));
        let stormo = mesh.stormo().clone();
        let deploying =
            thread::spawn(move || stormo.json::<DeploymentView>(&command, Progress::Kept, COMMAND_MAX));
        let steward = wait::until("its steward", SOON, || {
            let view = seen(&client, "digits")?;
            view.steward.map(|steward| steward.label).ok_or_else(|| "there is none".to_owned())
        })?;
        mesh.node_mut(&steward).kill()?;
        let deployed = deploying.join().map_err(|_| anyhow!("the thread of the command panicked"))??;
        ensure!(deployed.state == DeploymentState::Ready, "{deployed:?}");
        let left: Vec<&str> = ["a", "c", "d"].into_iter().filter(|label| *label != steward).collect();
        let elsewhere = wait_until_hosted(&client, 2, &left)?.message.unwrap_or_default();
        ensure!(elsewhere.contains("placed on `b`, which is not there"), "{elsewhere}");
        trial::check_reads(&client)?;
        if steward != "b" {
            mesh.node_mut("b").thaw()?;
            wait::until("what came back late to host nothing twice", REPLACED, || {
                let mut hosted = mesh.node("b").client.node().map_err(|error| error.to_string())?.hosted;
                hosted.retain(|hosted| hosted.model == "digits");
                let ordered = hosts_of(&seen(&client, "digits")?).contains("b");
                if hosted.is_empty() || ordered { Ok(()) } else { Err(format!("{hosted:?}")) }
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_new_version_takes_over_without_a_failed_request() -> Result<()> {
    trial::run(&nodes(), |mesh| {
        trial::deploy(mesh, "origin", "digits", &digits::model(), &["--replicas", "2"])?;
        let client = mesh.node("origin").client.clone();
        let requests = requests(&client)?;
        let load = Load::begin(&client, "digits", &requests, CALLERS);
        load.wait_for_more(MANY, SOON)?;
        let second =
            trial::deploy(mesh, "origin", "digits", &digits::model(), &["--parts", "2", "--replicas", "2"])?;
        ensure!(second.version == 2 && second.serving == 2, "{second:?}");
        load.wait_for_more(MANY, SOON)?;
        let outcomes = end(load, &requests)?;
        let versions: Vec<&str> = outcomes
            .iter()
            .flat_map(|outcome| &outcome.result)
            .map(|answer| answer.model_version.as_str())
            .collect();
        ensure!(versions.first() == Some(&"1") && versions.last() == Some(&"2"), "{versions:?}");
        // The old one goes everywhere, and nothing is hosted beyond what is wished.
        wait::until("the old version to be freed", REPLACED, || {
            for node in mesh.nodes() {
                let view = node.client.node().map_err(|error| error.to_string())?;
                if view.hosted.iter().any(|hosted| hosted.version != 2) {
                    return Err(format!("{} hosts {:?}", view.label, view.hosted));
                }
            }
            Ok(())
        })?;
        trial::check_reads(&client)
    })
}

#[test]
fn a_mesh_that_starts_again_whole_serves_and_removals_do_not_return() -> Result<()> {
    trial::run(&nodes(), |mesh| {
        let before = trial::deploy(mesh, "a", "digits", &digits::model(), &["--replicas", "2"])?;
        // All have it on disk once they have heard of it.
        for node in mesh.nodes() {
            wait::until("the deployment to be stored", SOON, || {
                let stored = node.data().join("deployments").exists();
                if stored { Ok(()) } else { Err(format!("not by {}", node.label())) }
            })?;
        }
        start_again(mesh)?;
        let client = mesh.node("origin").client.clone();
        let after = wait_until_hosted(&client, 2, &["a", "b", "c", "d"])?;
        ensure!(after.version == before.version && after.id == before.id, "{before:?}, {after:?}");
        trial::check_reads(&client)?;
        undeploy(mesh, "a")?;
        wait_until_freed(mesh, SOON)?;
        start_again(mesh)?;
        for node in mesh.nodes() {
            let known = node.client.deployments()?.deployments;
            ensure!(known.is_empty(), "{} knows {known:?}", node.label());
        }
        wait_until_freed(mesh, SOON)
    })
}

/// Kills all nodes at once, then starts them with the same data.
fn start_again(mesh: &mut Mesh) -> Result<()> {
    for spec in nodes() {
        mesh.node_mut(&spec.label).kill()?;
    }
    for spec in nodes() {
        mesh.add(&spec)?;
    }
    Ok(mesh.wait_for_nodes(nodes().len(), SOON)?)
}

#[test]
fn a_name_has_one_publisher() -> Result<()> {
    trial::run(&[edge("a"), edge("b")], |mesh| {
        trial::deploy(mesh, "a", "digits", &digits::model(), &["--replicas", "1"])?;
        trial::digits_input(&mesh.node("b").client)?;
        let refused = trial::deploy(mesh, "b", "digits", &digits::model(), &["--replicas", "1"]);
        let said = refused.err().context("a second publisher took the name")?.to_string();
        ensure!(
            said.contains("`digits` was published by `a`") && said.contains("choose another name"),
            "{said}"
        );
        trial::check_reads(&mesh.node("b").client)
    })
}

fn refused<T>(said: Result<T>, words: &str) -> Result<()> {
    let said = said.err().context("another's name was taken")?.to_string();
    ensure!(said.contains(words), "{said}");
    Ok(())
}

#[test]
fn a_name_whose_publisher_is_gone_is_taken_over_and_one_taken_back_is_anybodys() -> Result<()> {
    trial::run(&[edge("a"), edge("b"), edge("c")], |mesh| {
        trial::deploy(mesh, "a", "digits", &digits::model(), &["--replicas", "2"])?;
        trial::digits_input(&mesh.node("b").client)?;
        let over = ["--replicas", "2", "--take-over"];
        refused(trial::deploy(mesh, "b", "digits", &digits::model(), &over), "which is there")?;
        mesh.kill("a")?;
        trial::wait_until_left_out(&mesh.node("b").client, "a")?;
        refused(trial::deploy(mesh, "b", "digits", &digits::model(), &["--replicas", "2"]), "--take-over")?;
        trial::deploy(mesh, "b", "digits", &digits::model(), &over)?;
        trial::check_reads(&mesh.node("c").client)?;
        // Whoever comes back knows the name as its own, and hears that it is not.
        mesh.add(&edge("a"))?;
        let publisher = mesh.node("b").id();
        wait::until("the first publisher to hear of it", SOON, || {
            let known = mesh.node("a").client.deployments().map_err(|error| error.to_string())?.deployments;
            let is_so = known.iter().any(|known| known.publisher == publisher);
            let logged = mesh.node("a").logged();
            if is_so && logged.contains("belongs to another node now") { Ok(()) } else { Err(logged) }
        })?;
        refused(undeploy(mesh, "a"), "was published by `b`")?;
        trial::check_reads(&mesh.node("a").client)?;
        undeploy(mesh, "b")?;
        wait_until_freed(mesh, SOON)?;
        trial::deploy(mesh, "a", "digits", &digits::model(), &["--replicas", "2"])?;
        trial::check_reads(&mesh.node("c").client)
    })
}

/// What a caller was told is on disk: a power cut in the next moment takes nothing back.
#[test]
fn what_was_answered_outlives_a_kill_in_the_same_moment() -> Result<()> {
    trial::run(&[edge("a")], |mesh| {
        let names = |mesh: &Mesh| -> Result<Vec<String>> {
            let known = mesh.node("a").client.deployments()?.deployments;
            Ok(known.into_iter().map(|known| known.name).collect())
        };
        for round in 0..4 {
            trial::deploy(mesh, "a", "digits", &digits::model(), &["--replicas", "1"])?;
            mesh.kill("a")?;
            mesh.add(&edge("a"))?;
            ensure!(names(mesh)? == ["digits"], "round {round}: a deployment is gone");
            undeploy(mesh, "a")?;
            mesh.kill("a")?;
            mesh.add(&edge("a"))?;
            let known = names(mesh)?;
            ensure!(known.is_empty(), "round {round}: {known:?} came back");
        }
        Ok(())
    })
}
