//! Whom a fault is done to that chooses its node itself.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Acts;
use crate::generator::Generator;
use crate::mesh::Mesh;
use crate::scenario::{Scenario, Target, clash};

/// Whoever ran most of the answers of so long before is the busiest. Of those that ran half as much at least, who met
/// fewest faults comes first, so that a fault that is repeated meets another one each time.
const BUSIEST_OF_US: u64 = 1_000_000;
/// Who ran none of the answers of so long before, if others did, is busy no longer: plans turned away from it.
const BUSY_OF_US: u64 = 250_000;

impl Acts {
    /// Label of the node that a fault is done to, if it is one on a node.
    pub(super) fn target(
        &self,
        index: usize,
        scenario: &Scenario,
        mesh: &Mesh,
        generator: &Generator,
    ) -> Result<Option<String>, String> {
        match scenario.faults[index].kind.target() {
            None => Ok(None),
            Some(Target::Node(label)) => Ok(Some(label.clone())),
            Some(Target::Busiest) => {
                self.busiest(scenario, mesh, generator, &self.chosen_from(index, scenario)).map(Some)
            }
            Some(Target::Host) => self.host(scenario, mesh, &self.chosen_from(index, scenario)).map(Some),
        }
    }

    /// Places of those that a fault may choose from: no load enters there, and no other fault acts on them or will
    /// do so meanwhile.
    fn chosen_from(&self, index: usize, scenario: &Scenario) -> Vec<usize> {
        let now_us = self.now_us();
        let named = clash::named_meanwhile(&scenario.faults, index);
        let is_free = |place: &usize| {
            !self.entries.contains(place)
                && !named.contains(scenario.topology.nodes[*place].label.as_str())
                && !self.events.iter().flatten().any(|event| event.acts_on(*place as u16, now_us))
        };
        (0..scenario.topology.nodes.len()).filter(is_free).collect()
    }

    /// Who ran most.
    fn busiest(
        &self,
        scenario: &Scenario,
        mesh: &Mesh,
        generator: &Generator,
        from: &[usize],
    ) -> Result<String, String> {
        let now_us = self.now_us();
        let runs_of = |time_us| {
            let mut runs: BTreeMap<usize, usize> = BTreeMap::new();
            for peer in generator.ran_since(now_us.saturating_sub(time_us)) {
                let node = mesh.nodes().iter().find(|node| node.id().to_string() == peer);
                let place = node.and_then(|node| scenario.place(node.label()));
                if let Some(place) = place.filter(|place| from.contains(place)) {
                    *runs.entry(place).or_default() += 1;
                }
            }
            runs
        };
        let (mut runs, lately) = (runs_of(BUSIEST_OF_US), runs_of(BUSY_OF_US));
        if !lately.is_empty() {
            runs.retain(|place, _| lately.contains_key(place));
        }
        let met = |place: &usize| {
            self.events.iter().flatten().filter(|event| event.nodes.contains(&(*place as u16))).count()
        };
        let most = runs.values().max().copied().unwrap_or(0);
        let busy = runs.into_iter().filter(|(_, runs)| 2 * runs >= most);
        let rank = |(place, runs): &(usize, usize)| (Reverse(met(place)), *runs, Reverse(*place));
        let busiest = busy.max_by_key(rank);
        let label = busiest.map(|(place, _)| scenario.topology.nodes[place].label.clone());
        label.ok_or_else(|| {
            "no node ran an answer in the last second but those where requests enter or faults act".to_owned()
        })
    }

    /// A host of some block.
    fn host(&self, scenario: &Scenario, mesh: &Mesh, from: &[usize]) -> Result<String, String> {
        let entry = self.entries.first().ok_or_else(|| "no load enters anywhere".to_owned())?;
        let asked = &scenario.topology.nodes[*entry].label;
        let told = mesh.node(asked).client.deployments().map_err(|error| error.to_string())?;
        let hosts = told.deployments.iter().flat_map(|deployment| &deployment.hosts);
        let places =
            hosts.filter_map(|host| scenario.place(&host.label)).filter(|place| from.contains(place));
        let label = places.map(|place| &scenario.topology.nodes[place].label).min();
        let nobody = "no node hosts anything but those where requests enter or faults act";
        label.cloned().ok_or_else(|| nobody.to_owned())
    }
}
