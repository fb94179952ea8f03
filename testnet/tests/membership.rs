//! Who belongs to a mesh: joining, staying apart, coming back, leaving.

use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, anyhow, ensure};
use stormo::serve::json::ModelView;
use stormo_testnet::client::Client;
use stormo_testnet::commands::{Progress, Stormo};
use stormo_testnet::process::Admission;
use stormo_testnet::trial::{self, COMMAND_MAX, SOON, arguments, edge};
use stormo_testnet::{digits, wait};

#[derive(serde::Deserialize)]
struct Invitation {
    ticket: String,
}

#[test]
fn joins_by_ticket_with_a_fresh_data_directory_and_by_address_with_the_key() -> Result<()> {
    trial::run(&[edge("one")], |mesh| {
        let api = mesh.node("one").client.base().to_owned();
        let mut invite = arguments(&["invite", "--api", &api, "--data"]);
        invite.push(mesh.key_folder().into());
        let Invitation { ticket } = mesh.stormo().json(&invite, Progress::Kept, COMMAND_MAX)?;
        mesh.add_by(&edge("by-ticket"), &Admission::Ticket(ticket))?;
        // A mesh adds nodes by the key's file and an address.
        mesh.add(&edge("by-address"))?;
        mesh.wait_for_nodes(3, SOON)?;
        // The ticket's key is kept: started again, the node needs neither ticket nor key.
        let before = mesh.node("by-ticket").id();
        mesh.node_mut("by-ticket").kill()?;
        let ports = arguments(&["--api", "127.0.0.1:0", "--grpc", "off", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        let alone = [ports, arguments(&["--label", "by-ticket"])].concat();
        let one = mesh.node("one").ready.addresses.clone();
        let join = one.iter().flat_map(|address| arguments(&["--join", address]));
        let again = [alone, join.collect()].concat();
        let after = mesh.add_with(&edge("by-ticket"), &again)?.id();
        ensure!(before == after, "its peer id changed from {before} to {after}");
        Ok(mesh.wait_for_nodes(3, SOON)?)
    })
}

#[test]
fn two_meshes_never_merge() -> Result<()> {
    trial::run(&[edge("ours")], |ours| {
        trial::run_beside(&[edge("theirs")], |theirs| {
            let address = theirs.node("theirs").ready.addresses[0].clone();
            let Admission::Key { file, mut join } = ours.admission() else {
                unreachable!("a mesh adds by key")
            };
            join.push(address);
            ours.add_by(&edge("astray"), &Admission::Key { file, join })?;
            ours.wait_for_nodes(2, SOON)?;
            // Another one that has no way to its own mesh: it dials the other mesh only.
            let Admission::Key { file, .. } = ours.admission() else { unreachable!("a mesh adds by key") };
            let join = theirs.node("theirs").ready.addresses.clone();
            let lost = ours.add_by(&edge("lost"), &Admission::Key { file, join })?;
            wait::until("a warning that says what to check", SOON, || {
                let log = lost.logged();
                let told = log.lines().any(|line| {
                    line.contains("WARN")
                        && line.contains("cannot join there")
                        && line.contains("key of its mesh")
                });
                if told { Ok(()) } else { Err(log) }
            })?;
            for node in ours.nodes().iter().chain(theirs.nodes()) {
                let seen: Vec<String> = labels(&node.client)?;
                let is_ours = ours.nodes().iter().any(|own| own.id() == node.id());
                ensure!(is_ours != seen.contains(&"theirs".to_owned()), "{} knows {seen:?}", node.label());
            }
            let seen = labels(&theirs.node("theirs").client)?;
            ensure!(seen == ["theirs"], "the other mesh knows {seen:?}");
            Ok(())
        })
    })
}

#[test]
fn a_node_started_again_is_the_same_and_usable() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--replicas", "2"])?;
        let before = mesh.node("two").id();
        mesh.node_mut("two").kill()?;
        trial::wait_until_left_out(&mesh.node("one").client, "two")?;
        let after = mesh.add(&edge("two"))?.id();
        ensure!(before == after, "its peer id changed from {before} to {after}");
        mesh.wait_for_nodes(2, SOON)?;
        // Usable again: it answers itself, and the other one plans with it.
        trial::check_reads(&mesh.node("two").client)?;
        let client = &mesh.node("one").client;
        wait::until("a plan that runs on it", SOON, || {
            let plans = client.plans("digits").map_err(|error| error.to_string())?.plans;
            let uses = plans.iter().find(|plan| plan.stages.iter().all(|stage| stage.label == "two"));
            uses.map(|plan| plan.id).ok_or_else(|| format!("{} plans without it", plans.len()))
        })?;
        Ok(())
    })
}

/// It knows what is deployed, and has to be sent the description.
#[test]
fn who_asks_a_node_that_has_just_started_waits_for_the_description() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--replicas", "1"])?;
        let objects = mesh.node("two").data().join("objects");
        let deployed = mesh.node("two").data().join("deployments");
        wait::until("what is deployed to be kept", SOON, || {
            if deployed.is_file() { Ok(()) } else { Err("it is not".to_owned()) }
        })?;
        mesh.kill("two")?;
        fs::remove_dir_all(&objects)?;
        // Nobody sends it while it is asked for.
        mesh.freeze("one")?;
        let client = mesh.add(&edge("two"))?.client.clone();
        let asking = {
            let client = client.clone();
            thread::spawn(move || client.get::<ModelView>("/v1/models/digits"))
        };
        thread::sleep(Duration::from_millis(300));
        ensure!(!asking.is_finished(), "it was told something: {:?}", asking.join());
        mesh.thaw("one")?;
        let view = asking.join().map_err(|_| anyhow!("asking broke down"))??;
        ensure!(view.name == "digits", "{view:?}");
        trial::check_reads(&client)
    })
}

#[test]
fn a_killed_node_leaves_the_plans_and_the_status_says_so() -> Result<()> {
    trial::run(&[edge("one"), edge("two"), edge("three")], |mesh| {
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--replicas", "3"])?;
        trial::loaded_plan(&mesh.node("one").client, "digits", "remote")?;
        mesh.node_mut("two").kill()?;
        let client = &mesh.node("one").client;
        trial::wait_until_left_out(client, "two")?;
        for plan in client.plans("digits")?.plans {
            let on: Vec<&str> = plan.stages.iter().map(|stage| stage.label.as_str()).collect();
            ensure!(!on.contains(&"two"), "a plan still runs on {on:?}");
        }
        let status = run(mesh.stormo(), &["status", "--api", client.base()])?;
        let line = status.lines().find(|line| line.starts_with("two ")).context("it is listed")?;
        ensure!(line.contains(" lost "), "the status says: {line}");
        trial::check_reads(&mesh.node("one").client)
    })
}

#[test]
fn a_node_asked_to_end_says_that_it_leaves_and_exits_with_0() -> Result<()> {
    trial::run(&[edge("one"), edge("two"), edge("three")], |mesh| {
        mesh.node_mut("two").ask_to_end();
        let node = mesh.node_mut("two");
        let status = wait::until("its end", SOON, || node.ended().ok_or_else(|| "it runs".to_owned()))?;
        ensure!(status.success(), "it ended with {status}");
        for label in ["one", "three"] {
            trial::wait_until_left_out(&mesh.node(label).client, "two")?;
        }
        Ok(())
    })
}

#[test]
fn init_does_not_overwrite_a_key() -> Result<()> {
    let stormo = trial::stormo()?;
    let folder = tempfile::tempdir()?;
    let key = stormo.init(folder.path())?;
    let before = std::fs::read(&key)?;
    let refused = stormo.init(folder.path()).err().context("a second key was made")?.to_string();
    ensure!(refused.contains("already holds the key"), "{refused}");
    ensure!(std::fs::read(&key)? == before, "the key changed");
    Ok(())
}

fn run(stormo: &Stormo, words: &[&str]) -> Result<String> {
    let ran = stormo.run(&arguments(words), Progress::Kept, COMMAND_MAX)?;
    ensure!(ran.status.success(), "{words:?}: {}", ran.stderr);
    Ok(ran.stdout)
}

fn labels(client: &Client) -> Result<Vec<String>> {
    Ok(client.nodes()?.into_iter().map(|node| node.label).collect())
}

/// Its ports are others than before, so nobody finds it by where it was: it has to know where the others are.
#[test]
fn a_node_that_starts_again_finds_its_mesh_without_being_told_where() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        let contacts = mesh.node("two").data().join("contacts");
        wait::until("addresses of others to be kept", SOON, || {
            if contacts.is_file() { Ok(()) } else { Err("there are none".to_owned()) }
        })?;
        mesh.kill("two")?;
        let Admission::Key { file, .. } = mesh.admission() else { unreachable!("a mesh adds by key") };
        mesh.add_by(&edge("two"), &Admission::Key { file, join: vec![] })?;
        Ok(mesh.wait_for_nodes(2, SOON)?)
    })
}

/// Two processes with one identity would answer for each other for ever.
#[test]
fn of_a_node_and_a_copy_of_its_data_folder_one_ends_and_says_how_to_be_two() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        let (original, of_copy) = (mesh.node("two").data(), mesh.data_of(&edge("copy")));
        fs::create_dir_all(&of_copy)?;
        for file in ["node.key", "generation"] {
            fs::copy(original.join(file), of_copy.join(file))?;
        }
        mesh.add(&edge("copy"))?;
        let twins = ["two", "copy"];
        let ended = wait::until("one of the two to end", SOON, || {
            let ended = twins.into_iter().find(|label| mesh.node_mut(label).ended().is_some());
            ended.ok_or_else(|| mesh.node("copy").logged())
        })?;
        let node = mesh.node_mut(ended);
        let code = node.ended().and_then(|status| status.code());
        ensure!(code == Some(1), "{ended} ended with {code:?}");
        let log = node.logged();
        let key = node.data().join("node.key");
        let tells = log.lines().any(|line| {
            line.contains("a copy of this node runs") && line.contains(&format!("remove `{}`", key.display()))
        });
        ensure!(tells, "it says nothing of how to go on: {log}");
        // As it says: without the key it is a node of its own.
        fs::remove_file(key)?;
        mesh.add(&edge(ended))?;
        mesh.wait_for_nodes(3, SOON)?;
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--replicas", "3"])?;
        for label in ["one", "two", "copy"] {
            trial::check_reads(&mesh.node(label).client)?;
        }
        Ok(())
    })
}
