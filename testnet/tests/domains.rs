//! Failure domains: told by owners, shown, and replicas kept apart by them, at first and when one is lost.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use stormo::serve::json::{DeploymentState, DeploymentView, NodeView};
use stormo_protocol::state::DomainKind;
use stormo_testnet::client::Client;
use stormo_testnet::digits;
use stormo_testnet::ground::GroundKind;
use stormo_testnet::topology::{DomainSpec, NodeSpec, Topology};
use stormo_testnet::trial::{self, SOON, asker, edge};
use stormo_testnet::wait;

const SITES: [&str; 3] = ["attic", "cellar", "garden"];

/// One that asks, and two nodes at each of three sites.
fn topology() -> Topology {
    let at = |site: &str, number: usize| NodeSpec {
        domains: vec![site.to_owned()],
        ..edge(&format!("{site}-{number}"))
    };
    let hosts = SITES.iter().flat_map(|site| [at(site, 1), at(site, 2)]);
    let nodes = std::iter::once(asker("origin")).chain(hosts).collect();
    let domain = |name: &str, kind, within: Option<&str>| DomainSpec {
        name: name.to_owned(),
        kind,
        within: within.map(str::to_owned),
        uplink_bits_per_s: None,
        downlink_bits_per_s: None,
    };
    let sites = SITES.iter().map(|site| domain(site, DomainKind::Site, Some("ada")));
    let domains = sites.chain([domain("ada", DomainKind::Owner, None)]).collect();
    Topology { domains, ..Topology::plain("sites", nodes) }
}

fn sites_of(client: &Client, hosts: usize) -> Result<(BTreeSet<String>, Vec<String>)> {
    let view: DeploymentView = wait::until("its hosts", SOON, || {
        let all = client.deployments().map_err(|error| error.to_string())?.deployments;
        let view = all.into_iter().find(|view| view.name == "digits").ok_or("it is not known")?;
        let is_well =
            view.hosts.len() == hosts && view.hosts.iter().all(|host| host.state == DeploymentState::Ready);
        if is_well { Ok(view) } else { Err(format!("{view:?}")) }
    })?;
    let labels: Vec<String> = view.hosts.iter().map(|host| host.label.clone()).collect();
    let site = |label: &String| label.split('-').next().unwrap_or_default().to_owned();
    Ok((labels.iter().map(site).collect(), labels))
}

#[test]
fn replicas_are_kept_at_different_sites_and_nodes_tell_where_they_are() -> Result<()> {
    trial::run_on(GroundKind::Loopback, &topology(), |mesh| {
        mesh.wait_for_nodes(7, SOON)?;
        let client = mesh.node("origin").client.clone();
        let told: NodeView = client.get("/v1/nodes/cellar-2")?;
        ensure!(told.domains == ["owner:ada", "site:cellar"], "{:?}", told.domains);
        trial::deploy(mesh, "origin", "digits", &digits::model(), &["--replicas", "2"])?;
        let (sites, labels) = sites_of(&client, 2)?;
        ensure!(sites.len() == 2, "both replicas are at one site: {labels:?}");
        let lost = labels.first().context("it has hosts")?;
        mesh.node_mut(lost).kill()?;
        let (after, labels) = wait::until("a host in its place", SOON, || {
            let (sites, labels) = sites_of(&client, 2).map_err(|error| error.to_string())?;
            if labels.contains(lost) { Err(format!("{labels:?}")) } else { Ok((sites, labels)) }
        })?;
        ensure!(after.len() == 2, "both replicas are at one site: {labels:?}");
        trial::check_reads(&client)
    })
}

#[test]
fn domains_that_cannot_be_are_refused_with_what_to_write() -> Result<()> {
    trial::run(&[edge("one")], |mesh| {
        for (wrong, said) in [("attic", "site:home"), ("place:attic", "owner, site"), ("site:", "letters")] {
            let refused = trial::add_with(mesh, &edge("two"), &["--domain", wrong]).err();
            let text = format!("{:#}", refused.context("it started")?);
            ensure!(text.contains(said), "{text}");
        }
        Ok(())
    })
}
