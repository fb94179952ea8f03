//! Who should host which blocks of a new deployment: every variant as its caller wishes, all of them within
//! the memory that nodes say they have. What becomes of it is the order's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::{BLOCKS_MAX, HOSTED_MAX, PLACES_MAX};
use stormo_protocol::model::Manifest;
use stormo_protocol::plan::Plan;
use stormo_protocol::profile::range_index;
use stormo_protocol::state::{Class, Division, Domain, Place, Wished, shared};

use super::Driver;
use super::variants::Choice;
use crate::app::calls::CallError;
use crate::app::names::{self, Called};
use crate::app::planning::{Question, Wanted, foremost, roomiest};
use crate::plan::{self, EXPANSIONS_DEFAULT, NoPlan};
use crate::serve::json::{DeployBody, PlacementEntry};

/// What is placed so far, and the memory that it will take.
#[derive(Debug, Default)]
struct Placing {
    places: Vec<Place>,
    promised_bytes: BTreeMap<NodeId, u64>,
    /// No single part there may take more, as one of one byte more failed there.
    part_bytes_max: BTreeMap<NodeId, u64>,
}

impl Placing {
    fn add(&mut self, place: Place, manifest: &Manifest) {
        let bytes = self.promised_bytes.entry(place.node).or_default();
        *bytes = bytes.saturating_add(manifest.range_memory_bytes(place.first..place.end));
        self.places.push(place);
    }

    fn hosts_of(&self, variant: u8, first: u16, end: u16) -> impl Iterator<Item = NodeId> {
        let of_it = move |place: &&Place| (place.variant, place.first, place.end) == (variant, first, end);
        self.places.iter().filter(of_it).map(|place| place.node)
    }

    fn left_bytes(&self, node: NodeId, free_bytes: u64) -> u64 {
        let left_bytes = free_bytes.saturating_sub(self.promised_bytes.get(&node).copied().unwrap_or(0));
        left_bytes.min(self.part_bytes_max.get(&node).copied().unwrap_or(u64::MAX))
    }
}

impl Driver {
    /// What a call wishes, checked against the variants: any node can place it from this.
    pub(super) fn wished(&self, body: &DeployBody, choices: &[Choice]) -> Result<Wished, CallError> {
        let labels: Vec<&str> = choices.iter().map(|choice| choice.manifest.variant.as_str()).collect();
        let mut named = body.placement.iter().filter_map(|entry| entry.variant.as_deref());
        let unknown = named.find(|label| !labels.contains(label));
        if body.replicas == 0 {
            return Err(CallError::BadRequest("replicas is 0; at least one node hosts each block".into()));
        }
        if body.parts.is_some() && !body.placement.is_empty() {
            return Err(CallError::BadRequest(
                "parts and placement exclude each other; leave one out".into(),
            ));
        }
        if let Some(label) = unknown {
            return Err(CallError::BadRequest(format!(
                "the placement names a variant `{label}`; there are: {}",
                labels.join(", ")
            )));
        }
        let division = if body.placement.is_empty() {
            body.parts.map_or(Division::Whole, Division::Parts)
        } else {
            let told = choices.iter().map(|choice| self.told(&body.placement, body.replicas, choice));
            let told: BTreeSet<Place> = told.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
            refuse_too_many(told.len())?;
            Division::Told(told.into_iter().collect())
        };
        if let Division::Parts(parts) = division {
            choices.iter().try_for_each(|choice| equal_parts(&choice.manifest.manifest, parts).map(drop))?;
        }
        Ok(Wished { replicas: body.replicas, division })
    }

    /// Places for all variants, all of them within the memory that nodes say they have, and smaller than what failed
    /// there if this node is their steward.
    pub(super) fn place(&self, wished: &Wished, choices: &[Choice]) -> Result<Vec<Place>, CallError> {
        let mut placing = Placing { part_bytes_max: self.part_bytes_max(choices), ..Placing::default() };
        for choice in choices {
            let told: Vec<Place> = match &wished.division {
                Division::Told(told) => {
                    told.iter().filter(|place| place.variant == choice.id.index).copied().collect()
                }
                Division::Whole | Division::Parts(_) => Vec::new(),
            };
            match wished.division {
                _ if !told.is_empty() => {
                    told.into_iter().for_each(|place| placing.add(place, &choice.manifest.manifest));
                    self.refuse_what_does_not_fit(&placing)?;
                }
                Division::Parts(parts) => self.place_parts(choice, parts, wished.replicas, &mut placing)?,
                Division::Whole | Division::Told(_) => {
                    self.place_whole(choice, wished.replicas, &mut placing)?;
                }
            }
        }
        refuse_too_many(placing.places.len())?;
        Ok(placing.places)
    }

    fn part_bytes_max(&self, choices: &[Choice]) -> BTreeMap<NodeId, u64> {
        let mut all: BTreeMap<NodeId, u64> = BTreeMap::new();
        for choice in choices {
            let refused = self.stewardship.refusals(choice.id.deployment);
            for (node, (_, first, end)) in refused.filter(|(_, (variant, ..))| *variant == choice.id.index) {
                let less_bytes = choice.manifest.range_memory_bytes(first..end).saturating_sub(1);
                let bytes = all.entry(node).or_insert(less_bytes);
                *bytes = less_bytes.min(*bytes);
            }
        }
        all
    }

    /// As [`Self::place`]; where not all replicas fit, one of each, for the steward adds others as nodes come.
    pub(super) fn place_somehow(&self, wished: &Wished, choices: &[Choice]) -> Result<Vec<Place>, CallError> {
        self.place(wished, choices).or_else(|error| {
            let once = Wished { replicas: 1, division: wished.division.clone() };
            self.place(&once, choices).map_err(|_| error)
        })
    }

    /// Where a variant is told to be.
    fn told(
        &self,
        entries: &[PlacementEntry],
        replicas: u16,
        choice: &Choice,
    ) -> Result<Vec<Place>, CallError> {
        let (manifest, variant) = (&choice.manifest.manifest, choice.id.index);
        let is_of_it = |entry: &&PlacementEntry| {
            entry.variant.as_deref().is_none_or(|named| named == choice.manifest.variant)
        };
        let place = |entry: &PlacementEntry| {
            let [first, end] = entry.blocks;
            let graph = manifest.graph_blocks();
            if first >= end || first < graph.start || end > graph.end {
                return Err(CallError::BadRequest(format!(
                    "placement on `{}`: blocks {first} to {end} are not within the model's {} to {} (variant `{}`)",
                    entry.node, graph.start, graph.end, manifest.variant
                )));
            }
            let node = self.node_named(&entry.node)?;
            if !self.takes_work(node) {
                return Err(CallError::Conflict(names::takes_no_work(&entry.node)));
            }
            Ok(Place { node, variant, first, end })
        };
        let told: Vec<Place> = entries.iter().filter(is_of_it).map(place).collect::<Result<_, _>>()?;
        if told.is_empty() {
            return Ok(told);
        }
        let hosts = |block: u16| {
            let of_it = told.iter().filter(|place| (place.first..place.end).contains(&block));
            of_it.map(|place| place.node).collect::<BTreeSet<_>>().len()
        };
        let fewest = manifest.graph_blocks().map(|block| (hosts(block), block)).min();
        match fewest {
            Some((0, block)) => Err(CallError::BadRequest(format!(
                "the placement hosts block {block} nowhere; `blocks = [A, B]` means A up to, not including, B"
            ))),
            Some((few, block)) if few < usize::from(replicas) => Err(CallError::BadRequest(format!(
                "{replicas} replicas are wished, and the placement names {few} for block {block}; name more nodes, \
                 or leave the replicas to the placement"
            ))),
            Some(_) | None => Ok(told),
        }
    }

    fn takes_work(&self, node: NodeId) -> bool {
        if node == self.own() {
            return self.offer().takes_work();
        }
        self.member.view().get(node).is_none_or(|known| known.record.offer.takes_work())
    }

    fn refuse_what_does_not_fit(&self, placing: &Placing) -> Result<(), CallError> {
        let nothing = Placing::default();
        for (node, free_bytes) in self.nodes_by_class(&nothing) {
            let need_bytes = placing.promised_bytes.get(&node).copied().unwrap_or(0);
            if need_bytes > free_bytes {
                return Err(CallError::Conflict(format!(
                    "the placement asks `{}` for {}\n{}",
                    self.label_of(node),
                    megabytes(need_bytes),
                    self.memory_table(&nothing)
                )));
            }
        }
        Ok(())
    }

    fn node_named(&self, name: &str) -> Result<NodeId, CallError> {
        let own = Called { node: self.own(), label: &self.parts.machine.label, is_usable: true };
        let others = self.member.view().iter().map(|known| {
            let node = known.record.node;
            Called { node, label: &known.record.machine.label, is_usable: self.is_usable(node) }
        });
        names::called(name, others.chain([own])).map_err(CallError::BadRequest)
    }

    /// The whole variant on the nodes that answer soonest; where it fits on none, the best division.
    fn place_whole(&self, choice: &Choice, replicas: u16, placing: &mut Placing) -> Result<(), CallError> {
        let manifest = &choice.manifest.manifest;
        let (own, out) = (self.record(), self.suspects.out());
        let question = self.asked_of_all(choice, &own, &out);
        let (Range { start, end }, variant) = (manifest.graph_blocks(), choice.id.index);
        let soonest = question.whole_hosts(|node, free_bytes| placing.left_bytes(node, free_bytes));
        let chosen = self.apart(&soonest, usize::from(replicas.max(1)));
        for node in &chosen {
            placing.add(Place { node: *node, variant, first: start, end }, manifest);
        }
        if !chosen.is_empty() {
            return Ok(());
        }
        let plan = divided(question, placing).map_err(|none| {
            CallError::Conflict(format!(
                "no node is able to host `{}` (variant `{}`): {none}\n{}",
                manifest.model,
                manifest.variant,
                self.memory_table(placing)
            ))
        })?;
        for stage in &plan.stages {
            placing.add(Place { node: stage.node, variant, first: stage.first, end: stage.end }, manifest);
        }
        Ok(())
    }

    /// So many of these nodes, the earlier ones first, but for those that share failure domains with one that was chosen
    /// while others do not.
    fn apart(&self, nodes: &[NodeId], count: usize) -> Vec<NodeId> {
        let (mut left, mut chosen) = (nodes.to_vec(), Vec::new());
        while chosen.len() < count && !left.is_empty() {
            let best = (0..left.len()).min_by_key(|index| (self.shared_with(left[*index], &chosen), *index));
            chosen.push(left.remove(best.unwrap_or(0)));
        }
        chosen
    }

    /// Failure domains that a node has in common with others, all together.
    fn shared_with(&self, node: NodeId, others: &[NodeId]) -> usize {
        let own = self.domains_of(node);
        others.iter().map(|other| shared(own, self.domains_of(*other))).sum()
    }

    fn domains_of(&self, node: NodeId) -> &[Domain] {
        if node == self.own() {
            return &self.parts.domains;
        }
        self.member.view().get(node).map_or(&[], |known| &known.record.domains)
    }

    /// Parts of about equal time, on different nodes, devices first as data usually flows.
    fn place_parts(
        &self,
        choice: &Choice,
        parts: u16,
        replicas: u16,
        placing: &mut Placing,
    ) -> Result<(), CallError> {
        let (manifest, variant) = (&choice.manifest.manifest, choice.id.index);
        let ranges = equal_parts(manifest, parts)?;
        let mut nodes = self.nodes_by_class(placing);
        let wanted = ranges.len() * usize::from(replicas.max(1));
        for _ in 0..replicas.max(1) {
            for &(first, end) in &ranges {
                let need_bytes = manifest.range_memory_bytes(first..end);
                let others: Vec<NodeId> = placing.hosts_of(variant, first, end).collect();
                let fitting = (0..nodes.len()).filter(|index| nodes[*index].1 >= need_bytes);
                let position =
                    fitting.min_by_key(|index| (self.shared_with(nodes[*index].0, &others), *index));
                let Some(position) = position else {
                    let copies = replicas.max(1);
                    return Err(CallError::Conflict(format!(
                        "no free node for blocks {first} to {} of variant `{}` ({need_bytes} bytes): {} parts in \
                         {copies} cop{} (--replicas {copies}) take {wanted} different nodes with memory for \
                         them\n{}",
                        end - 1,
                        manifest.variant,
                        ranges.len(),
                        if copies == 1 { "y" } else { "ies" },
                        self.memory_table(placing)
                    )));
                };
                let (node, _) = nodes.remove(position);
                placing.add(Place { node, variant, first, end }, manifest);
            }
        }
        Ok(())
    }

    /// Usable nodes with the memory that wishes leave free: this one first, then devices, edges, clouds.
    fn nodes_by_class(&self, placing: &Placing) -> Vec<(NodeId, u64)> {
        let rank = |class: Class| match class {
            Class::Device => 1,
            Class::Edge => 2,
            Class::Cloud => 3,
        };
        let own = self.record();
        let others = self.member.view().iter().filter(|known| self.is_usable(known.record.node));
        let others = others.filter(|known| known.record.offer.takes_work());
        let own = Some((0, &own)).filter(|_| self.offer().takes_work());
        let mut nodes: Vec<(i32, NodeId, u64)> = own
            .into_iter()
            .chain(others.map(|known| (rank(known.record.machine.class), known.record.as_ref())))
            .map(|(rank, record)| {
                let free = record.free_bytes();
                (rank, record.node, placing.left_bytes(record.node, free))
            })
            .collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|(_, node, free_bytes)| (node, free_bytes)).collect()
    }

    fn memory_table(&self, placing: &Placing) -> String {
        let line = |(node, free_bytes): (NodeId, u64)| {
            let label = self.label_of(node);
            if self.record_there(node).is_some_and(|record| record.is_full()) {
                return format!("  `{label}` hosts {HOSTED_MAX} parts, as many as a node may");
            }
            format!("  `{label}` has {} free", megabytes(free_bytes))
        };
        let lines: Vec<String> = self.nodes_by_class(placing).into_iter().map(line).collect();
        if lines.is_empty() {
            return "No node takes work of others now: see `stormo status`, and --roles, --hours and `stormo work`.".to_owned();
        }
        format!("{}\nGive a node more (--memory-budget), add nodes, or ask for less.", lines.join("\n"))
    }
}

/// Memory for people, fine enough to see what is lacking: 1 MB are 1,000,000 bytes.
fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

/// The best plan when what is wished already is loaded: over the foremost nodes, and if these cannot hold the model, over
/// those with most memory.
fn divided(mut question: Question<'_>, placing: &Placing) -> Result<Plan, NoPlan> {
    let all = question.candidates.clone();
    let left = |node: NodeId, free_bytes: u64| placing.left_bytes(node, free_bytes);
    let best = |question: &Question<'_>| {
        let mut posed = question.pose();
        posed.leave(left);
        let best = plan::best(&posed.problem, EXPANSIONS_DEFAULT)?;
        Ok(posed.plan(&best.priced.shape))
    };
    let wanted =
        Wanted { manifest: question.manifest, variant: question.variant, blocks: question.blocks.clone() };
    question.candidates = foremost(&[wanted], all.clone());
    best(&question).or_else(|none: NoPlan| {
        if question.candidates.len() == all.len() {
            return Err(none);
        }
        question.candidates = roomiest(all, |candidate| {
            let record = candidate.record;
            let free = record.free_bytes();
            left(record.node, free)
        });
        best(&question)
    })
}

fn refuse_too_many(places: usize) -> Result<(), CallError> {
    if places <= PLACES_MAX {
        return Ok(());
    }
    Err(CallError::BadRequest(format!(
        "{places} ranges of blocks on nodes were wished; a deployment has at most {PLACES_MAX}: ask for fewer replicas \
         or parts"
    )))
}

/// Contiguous ranges of the graph's blocks, about equal in time and cut where that takes least time.
fn equal_parts(manifest: &Manifest, parts: u16) -> Result<Vec<(u16, u16)>, CallError> {
    let graph = manifest.graph_blocks();
    let blocks = graph.len();
    let range_ns = |part: Range<usize>| {
        let index = range_index(blocks, part.start, part.end);
        manifest.reference.range_ns.get(index).map_or(1, |time_ns| (*time_ns).max(1))
    };
    let cut_bytes: Vec<u64> = (graph.start..=graph.end).map(|cut| manifest.cut_bytes(cut)).collect();
    let ranges = plan::parts(blocks, range_ns, &cut_bytes, usize::from(parts)).ok_or_else(|| {
        CallError::BadRequest(format!(
            "the model has {blocks} blocks, so it can be divided into 1 to {blocks} parts, not {parts} \
             (at most {BLOCKS_MAX} for any model)"
        ))
    })?;
    let of_model = |block: usize| graph.start + block as u16;
    Ok(ranges.into_iter().map(|range| (of_model(range.start), of_model(range.end))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_with_a_part_is_given_a_smaller_one_or_none() {
        let node = NodeId([1; 32]);
        let mut placing = Placing { part_bytes_max: [(node, 99)].into(), ..Placing::default() };
        assert_eq!(placing.left_bytes(node, 1000), 99);
        placing.promised_bytes.insert(node, 950);
        assert_eq!(placing.left_bytes(node, 1000), 50);
        assert_eq!(placing.left_bytes(NodeId([2; 32]), 1000), 1000);
    }
}
