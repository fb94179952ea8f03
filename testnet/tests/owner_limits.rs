//! What the owner of a node lets others have of it: announced, kept to by planners, and held at the node itself.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stormo::monitor::minute_of_day;
use stormo::serve::json::{HostedView, NodeView};
use stormo_testnet::client::Client;
use stormo_testnet::commands::Progress;
use stormo_testnet::load::Load;
use stormo_testnet::trial::{self, COMMAND_MAX, SOON, arguments, edge};
use stormo_testnet::{digits, wait};

/// The hours of the test end within this.
const CLOSING_MAX: Duration = Duration::from_secs(240);

/// From so many minutes after now to so many, as an owner writes it.
fn hours(from: i32, to: i32) -> String {
    let at = |after: i32| (i32::from(minute_of_day()) + after).rem_euclid(24 * 60);
    let (from, to) = (at(from), at(to));
    format!("{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
}

fn node(client: &Client, label: &str) -> Result<NodeView> {
    let found = client.nodes()?.into_iter().find(|node| node.label == label);
    found.with_context(|| format!("{label} is not known"))
}

fn hosts(client: &Client, label: &str) -> Result<Vec<HostedView>> {
    Ok(node(client, label)?.hosted)
}

#[test]
fn roles_and_hours_are_told_and_held() -> Result<()> {
    trial::run(&[edge("one")], |mesh| {
        trial::add_with(mesh, &edge("attic"), &["--roles", "store"])?;
        trial::add_with(mesh, &edge("laptop"), &["--hours", &hours(120, 180)])?;
        mesh.wait_for_nodes(3, SOON)?;
        let client = mesh.node("one").client.clone();
        let (attic, laptop) = (node(&client, "attic")?, node(&client, "laptop")?);
        ensure!(attic.usable && !attic.offer.computes && attic.offer.stores, "{attic:?}");
        ensure!(laptop.usable && laptop.offer.computes && !laptop.offer.open, "{laptop:?}");
        // As many replicas as can be: nobody who does not want to is asked.
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--replicas", "3"])?;
        ensure!(hosts(&client, "attic")?.is_empty() && hosts(&client, "laptop")?.is_empty(), "others host");
        for plan in client.plans("digits")?.plans {
            let on: Vec<&str> = plan.stages.iter().map(|stage| stage.label.as_str()).collect();
            ensure!(on.iter().all(|label| *label == "one"), "a plan runs on {on:?}");
        }
        // Nor who asks for it by name.
        let blocks = client.deployments()?.deployments.swap_remove(0).hosts.swap_remove(0).blocks;
        for label in ["attic", "laptop"] {
            let placement = mesh.folder().join("placement.toml");
            fs::write(&placement, format!("[[place]]\nnode = \"{label}\"\nblocks = {blocks:?}\n"))?;
            let told = ["--placement", &*placement.to_string_lossy()];
            let refused = trial::deploy(mesh, "one", "told", &digits::model(), &told).err();
            let said = format!("{:#}", refused.with_context(|| format!("{label} was asked to host"))?);
            ensure!(said.contains("take no work of others") && said.contains(label), "{said}");
        }
        // Their own requests are answered all the same.
        trial::check_reads(&mesh.node("attic").client)?;
        trial::check_reads(&mesh.node("laptop").client)?;
        let status = mesh.stormo().run(
            &arguments(&["status", "--api", client.base()]),
            Progress::Kept,
            COMMAND_MAX,
        )?;
        ensure!(
            status.stdout.contains("usable, closed") && status.stdout.contains("usable, asks only"),
            "{}",
            status.stdout
        );
        Ok(())
    })
}

#[test]
fn what_is_kept_warm_for_others_goes_when_the_hours_end() -> Result<()> {
    trial::run(&[edge("one")], |mesh| {
        trial::add_with(mesh, &edge("laptop"), &["--hours", &hours(-60, 2)])?;
        mesh.wait_for_nodes(2, SOON)?;
        let client = mesh.node("one").client.clone();
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--replicas", "2"])?;
        ensure!(!hosts(&client, "laptop")?.is_empty(), "it hosts nothing within its hours");
        let laptop = mesh.node("laptop").client.clone();
        let image = digits::load()?.swap_remove(3);
        let request = image.request(&trial::digits_input(&client)?);
        // Entered at either, so that some are under way on the laptop at any time: none fails when its hours end.
        let loads = [&client, &laptop].map(|at| Load::begin(at, "digits", std::slice::from_ref(&request), 2));
        wait::until("its parts to go", CLOSING_MAX, || {
            let seen = node(&client, "laptop").map_err(|error| error.to_string())?;
            if seen.hosted.is_empty() && !seen.offer.open { Ok(()) } else { Err(format!("{seen:?}")) }
        })?;
        for load in loads {
            load.wait_for_more(20, SOON)?;
            for outcome in load.end() {
                let answer = outcome.result.context("a request failed while the hours ended")?;
                ensure!(digits::read(&answer.outputs) == Some(image.truth), "a wrong answer");
            }
        }
        trial::check_reads(&client)?;
        trial::check_reads(&mesh.node("laptop").client)
    })
}

#[test]
fn the_owner_stops_and_resumes_work_for_others_by_command() -> Result<()> {
    trial::run(&[edge("one")], |mesh| {
        mesh.add(&edge("laptop"))?;
        mesh.wait_for_nodes(2, SOON)?;
        let client = mesh.node("one").client.clone();
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--replicas", "2"])?;
        ensure!(!hosts(&client, "laptop")?.is_empty(), "it hosts nothing");
        let laptop = mesh.node("laptop").client.clone();
        let work = |word: &str| {
            let words = arguments(&["work", word, "--api", laptop.base()]);
            mesh.stormo().run(&words, Progress::Kept, COMMAND_MAX)
        };
        let said = work("off")?.stdout;
        ensure!(said.contains("takes no work of others"), "{said}");
        wait::until("its parts to go", SOON, || {
            trial::check_reads(&client).map_err(|error| error.to_string())?;
            let seen = node(&client, "laptop").map_err(|error| error.to_string())?;
            if seen.hosted.is_empty() && !seen.offer.open { Ok(()) } else { Err(format!("{seen:?}")) }
        })?;
        wait::until("the reason to be told", SOON, || {
            let deployed = client.deployments().map_err(|error| error.to_string())?.deployments;
            let told = deployed.iter().filter_map(|view| view.message.as_deref()).collect::<String>();
            let wanted =
                ["2 replicas were wished", "fits on 1 node; `laptop`: its owner lets it take no work"];
            if wanted.iter().all(|part| told.contains(part)) { Ok(()) } else { Err(told) }
        })?;
        let said = work("on")?.stdout;
        ensure!(said.contains("`laptop` takes work of others."), "{said}");
        wait::until("it to host again", CLOSING_MAX, || {
            let seen = node(&client, "laptop").map_err(|error| error.to_string())?;
            if !seen.hosted.is_empty() && seen.offer.open { Ok(()) } else { Err(format!("{seen:?}")) }
        })?;
        let refused = laptop.put_raw("/v1/node/work", br#"{"take": "yes"}"#)?;
        let says = String::from_utf8_lossy(&refused.body).into_owned();
        ensure!(refused.status == 400 && says.contains(r#"{\"take\": false}"#), "{} {says}", refused.status);
        Ok(())
    })
}

#[test]
fn memory_and_cores_that_are_kept_free() -> Result<()> {
    trial::run(&[edge("one")], |mesh| {
        let cores = mesh.node("one").client.node()?.cores;
        // More than any machine has: nothing is left for parts.
        trial::add_with(mesh, &edge("full"), &["--keep-free-memory", "900000GB"])?;
        mesh.wait_for_nodes(2, SOON)?;
        let client = mesh.node("one").client.clone();
        wait::until("its budget to be told", SOON, || match node(&client, "full") {
            Ok(seen) if seen.memory_budget_bytes == 0 => Ok(()),
            seen => Err(format!("{seen:?}")),
        })?;
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--replicas", "2"])?;
        ensure!(hosts(&client, "full")?.is_empty(), "it hosts although its memory is kept free");
        if cores < 2 {
            trial::skipped("a machine of one core has none to keep free");
            return Ok(());
        }
        trial::add_with(mesh, &edge("shared"), &["--keep-free-cpu", "0.5"])?;
        mesh.wait_for_nodes(3, SOON)?;
        let left = node(&client, "shared")?.cores;
        ensure!(left == cores / 2, "{left} of {cores} cores are left");
        Ok(())
    })
}

#[test]
fn wrong_values_are_refused_at_start_with_flag_or_key() -> Result<()> {
    let stormo = trial::stormo()?;
    let folder = tempfile::tempdir()?;
    stormo.init(folder.path())?;
    let refused = |options: &[&str]| -> Result<String> {
        let mut words =
            arguments(&["node", "--api", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0", "--data"]);
        words.push(folder.path().into());
        words.extend(arguments(options));
        let ran = stormo.run(&words, Progress::Kept, COMMAND_MAX)?;
        ensure!(!ran.status.success(), "{options:?} was taken");
        Ok(ran.stderr)
    };
    let wrong = [
        ("--roles", "roles", "cook", "is no role"),
        ("--hours", "hours", "22-7", "such as 22:00-07:00"),
        ("--keep-free-memory", "keep_free_memory", "much", "use a number of bytes"),
        ("--keep-free-cpu", "keep_free_cpu", "1.5", "such as 0.5"),
    ];
    let file = folder.path().join("node.toml");
    let path = file.to_string_lossy().into_owned();
    for (flag, key, value, says) in wrong {
        let error = refused(&[flag, value])?;
        ensure!(error.contains(flag) && error.contains(says), "{flag} {value}: {error}");
        fs::write(&file, format!("label = \"n\"\n{key} = \"{value}\"\n"))?;
        let error = refused(&["--config", &path])?;
        let names = format!("`{path}`, key `{key}`");
        ensure!(error.contains(&names) && error.contains(says), "{key} = {value}: {error}");
    }
    let error = refused(&["--keep-free-cpu", "0.9999"])?;
    ensure!(error.contains("--keep-free-cpu 0.9999 leaves less than one"), "{error}");
    Ok(())
}
