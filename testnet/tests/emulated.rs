//! Meshes on emulated machines and links: joined, divided, healed, slowed down, without power. As root;
//! otherwise each test says that it is left out.

use anyhow::{Result, ensure};
use stormo_testnet::battery::{BatterySpec, Watts};
use stormo_testnet::digits;
use stormo_testnet::ground::{GroundKind, network};
use stormo_testnet::link::LinkSpec;
use stormo_testnet::mesh::Mesh;
use stormo_testnet::topology::Topology;
use stormo_testnet::trial::{self, SOON, edge};
use stormo_testnet::wait;

/// Of the links' chances.
const SEED: u64 = 11;

fn run(topology: &Topology, test: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
    match network::is_possible() {
        Ok(()) => trial::run_on(GroundKind::Emulated { seed: SEED }, topology, test),
        Err(why) => {
            trial::skipped(&format!("emulated links: {why}"));
            Ok(())
        }
    }
}

fn three() -> Topology {
    let mut topology = Topology::plain("three with 2 ms between them", ["a", "b", "c"].map(edge).to_vec());
    topology.default_link = LinkSpec { latency_us: 2_000, ..LinkSpec::default() };
    topology
}

#[test]
fn a_mesh_is_divided_healed_and_answers() -> Result<()> {
    run(&three(), |mesh| {
        mesh.wait_for_nodes(3, SOON)?;
        trial::deploy(mesh, "a", "digits", &digits::model(), &["--parts", "3"])?;
        trial::check_reads(&mesh.node("c").client)?;
        ensure!(mesh.link("a", "b")?.latency_us == 2_000);

        mesh.partition(&[&["a", "b"], &["c"]])?;
        ensure!(mesh.link("a", "c")?.cut && mesh.link("c", "b")?.cut && !mesh.link("a", "b")?.cut);
        trial::wait_until_left_out(&mesh.node("a").client, "c")?;
        trial::wait_until_left_out(&mesh.node("c").client, "a")?;
        mesh.heal()?;
        mesh.wait_for_nodes(3, SOON)?;
        trial::check_reads(&mesh.node("c").client)
    })
}

#[test]
fn machines_are_slowed_down_limited_and_lose_power() -> Result<()> {
    let mut topology = three();
    topology.nodes[1].cpu_share = Some(0.5);
    topology.nodes[1].memory_bytes = Some(1 << 30);
    topology.nodes[1].disk_bytes = Some(64 << 20);
    run(&topology, |mesh| {
        mesh.wait_for_nodes(3, SOON)?;
        let id = mesh.node("b").id();
        mesh.freeze("b")?;
        trial::wait_until_left_out(&mesh.node("a").client, "b")?;
        mesh.thaw("b")?;
        mesh.wait_for_nodes(3, SOON)?;

        mesh.set_cpu("b", Some(0.2))?;
        mesh.set_cpu("b", None)?;
        mesh.set_memory("b", Some(512 << 20))?;
        mesh.set_memory("b", None)?;
        mesh.set_uplink("b", Some(10_000_000), None)?;
        let said = mesh.set_cpu("b", Some(0.0)).unwrap_err().to_string();
        ensure!(said.contains("a share of 0"), "{said}");
        let said = mesh.set_uplink("b", Some(0), None).unwrap_err().to_string();
        ensure!(said.contains("a rate of 0"), "{said}");

        mesh.power_loss("b")?;
        trial::wait_until_left_out(&mesh.node("a").client, "b")?;
        mesh.restart("b")?;
        mesh.wait_for_nodes(3, SOON)?;
        ensure!(mesh.node("b").id() == id, "its disk was kept");
        // Frozen, it still ends when it is asked to.
        mesh.freeze("b")?;
        Ok(())
    })
}

#[test]
fn batteries_drain_are_shown_and_end_their_machines() -> Result<()> {
    let mut topology = three();
    let watts = Watts { idle: 1.0, compute: 4.0, send: 2.0, receive: 1.5 };
    topology.nodes[1].battery = Some(BatterySpec { capacity_j: 3_600.0, level: 0.5, watts });
    topology.nodes[1].uplink_bits_per_s = Some(1_000_000_000);
    topology.nodes[1].downlink_bits_per_s = Some(1_000_000_000);
    run(&topology, |mesh| {
        mesh.wait_for_nodes(3, SOON)?;
        let drawn_j = |mesh: &Mesh| mesh.batteries().iter().map(|battery| battery.drawn_j).sum::<f64>();
        let before_j = drawn_j(mesh);
        wait::until("the battery to give two joules", SOON, || match drawn_j(mesh) - before_j {
            drawn_j if drawn_j >= 2.0 => Ok(()),
            drawn_j => Err(format!("it gave {drawn_j:.3} J")),
        })?;
        let shown = |mesh: &Mesh, name: &str| {
            let folder = mesh.folder().join("b/power_supply/BAT0");
            std::fs::read_to_string(folder.join(name)).map(|text| text.trim().to_owned())
        };
        ensure!(shown(mesh, "type")? == "Battery" && shown(mesh, "energy_full")? == "1000000");
        let now: u64 = shown(mesh, "energy_now")?.parse()?;
        ensure!((400_000..500_000).contains(&now), "{now} microwatt-hours of a half full battery");

        let said = mesh.set_battery("a", 0.5).unwrap_err().to_string();
        ensure!(said.contains("gives it no `battery`"), "{said}");
        mesh.set_battery("b", 0.0)?;
        wait::until("it to be off", SOON, || match mesh.node_mut("b").ended() {
            Some(_) => Ok(()),
            None => Err("it runs".to_owned()),
        })?;
        trial::wait_until_left_out(&mesh.node("a").client, "b")?;
        ensure!(mesh.batteries().iter().all(|battery| battery.empty_since.is_some()));
        // Charged and switched on.
        mesh.set_battery("b", 0.5)?;
        mesh.restart("b")?;
        mesh.wait_for_nodes(3, SOON)?;
        Ok(())
    })
}
