//! Who should host which blocks of a new deployment: every variant as its caller wishes, all of them within
//! the memory that nodes say they have. Asking the hosts is done elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::BLOCKS_MAX;
use stormo_protocol::model::Manifest;
use stormo_protocol::state::Class;

use super::Driver;
use super::variants::Choice;
use crate::app::calls::{CallError, PlanLimits};
use crate::app::planning::Posed;
use crate::plan::{self, EXPANSIONS_DEFAULT, StageShape};
use crate::serve::json::{DeployBody, PlacementEntry};

/// One wish: these blocks of a variant on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wish {
    pub node: NodeId,
    pub variant: u8,
    pub first: u16,
    pub end: u16,
}

/// What is wished so far, and the memory that it will take.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub all: Vec<Wish>,
    pub notes: Vec<String>,
    promised_bytes: BTreeMap<NodeId, u64>,
}

impl Wishes {
    fn add(&mut self, wish: Wish, manifest: &Manifest) {
        let bytes = self.promised_bytes.entry(wish.node).or_default();
        *bytes = bytes.saturating_add(manifest.range_memory_bytes(wish.first..wish.end));
        self.all.push(wish);
    }

    fn left_bytes(&self, node: NodeId, free_bytes: u64) -> u64 {
        free_bytes.saturating_sub(self.promised_bytes.get(&node).copied().unwrap_or(0))
    }
}

impl Driver {
    /// Wishes for all variants.
    pub(super) fn place(&self, body: &DeployBody, choices: &[Choice]) -> Result<Wishes, CallError> {
        let mut wishes = Wishes::default();
        let labels: Vec<&str> = choices.iter().map(|choice| choice.manifest.variant.as_str()).collect();
        let mut named = body.placement.iter().filter_map(|entry| entry.variant.as_deref());
        let unknown = named.find(|label| !labels.contains(label));
        if let Some(label) = unknown {
            return Err(CallError::BadRequest(format!(
                "the placement names a variant `{label}`; there are: {}",
                labels.join(", ")
            )));
        }
        for choice in choices {
            let label = choice.manifest.variant.as_str();
            let is_of_it =
                |entry: &&PlacementEntry| entry.variant.as_deref().is_none_or(|named| named == label);
            let told: Vec<&PlacementEntry> = body.placement.iter().filter(is_of_it).collect();
            match body.parts {
                _ if !told.is_empty() => self.place_as_told(&told, choice, &mut wishes)?,
                Some(parts) => self.place_parts(choice, parts, body.replicas, &mut wishes)?,
                None => self.place_whole(choice, body.replicas, &mut wishes)?,
            }
        }
        Ok(wishes)
    }

    fn place_as_told(
        &self,
        entries: &[&PlacementEntry],
        choice: &Choice,
        wishes: &mut Wishes,
    ) -> Result<(), CallError> {
        let (manifest, variant) = (&choice.manifest.manifest, choice.id.index);
        let wish = |entry: &&PlacementEntry| {
            let [first, end] = entry.blocks;
            let graph = manifest.graph_blocks();
            if first >= end || first < graph.start || end > graph.end {
                return Err(CallError::BadRequest(format!(
                    "placement on `{}`: blocks {first} to {end} are not within the model's {} to {} (variant `{}`)",
                    entry.node, graph.start, graph.end, manifest.variant
                )));
            }
            let node = self.node_named(&entry.node)?;
            Ok(Wish { node, variant, first, end })
        };
        let told: BTreeSet<Wish> = entries.iter().map(wish).collect::<Result<_, _>>()?;
        let nowhere = manifest
            .graph_blocks()
            .find(|block| !told.iter().any(|wish| (wish.first..wish.end).contains(block)));
        if let Some(block) = nowhere {
            return Err(CallError::BadRequest(format!(
                "the placement hosts block {block} nowhere; `blocks = [A, B]` means A up to, not including, B"
            )));
        }
        told.into_iter().for_each(|wish| wishes.add(wish, manifest));
        self.refuse_what_does_not_fit(wishes)
    }

    fn refuse_what_does_not_fit(&self, wishes: &Wishes) -> Result<(), CallError> {
        let nothing = Wishes::default();
        for (node, free_bytes) in self.nodes_by_class(&nothing) {
            let need_bytes = wishes.promised_bytes.get(&node).copied().unwrap_or(0);
            if need_bytes > free_bytes {
                return Err(CallError::Conflict(format!(
                    "the placement asks `{}` for {need_bytes} bytes\n{}",
                    self.label_of(node),
                    self.memory_table(&nothing)
                )));
            }
        }
        Ok(())
    }

    /// By its peer id or label. Those that plans leave out count only where no other has that name: a dead
    /// node's successor may have its label, and a node that has just joined may be asked before it is heard.
    fn node_named(&self, name: &str) -> Result<NodeId, CallError> {
        let now_ms = self.now_ms();
        let all = std::iter::once(self.own()).chain(self.member.view().iter().map(|known| known.record.node));
        let named = all.filter(|node| node.to_string() == name || self.label_of(*node) == name);
        let is_usable = |node: &NodeId| *node == self.own() || self.member.view().is_usable(now_ms, *node);
        let (usable, left_out): (Vec<NodeId>, Vec<NodeId>) = named.partition(is_usable);
        match if usable.is_empty() { left_out } else { usable }[..] {
            [node] => Ok(node),
            [] => Err(CallError::BadRequest(format!("no node is called `{name}`; see `stormo status`"))),
            _ => Err(CallError::BadRequest(format!("several nodes are called `{name}`; give the peer id"))),
        }
    }

    /// The whole variant on the nodes that answer soonest; where it fits on none, the best division.
    fn place_whole(&self, choice: &Choice, replicas: u16, wishes: &mut Wishes) -> Result<(), CallError> {
        let manifest = &choice.manifest.manifest;
        let posed = self.pose_beside(choice, wishes);
        let (Range { start, end }, variant) = (manifest.graph_blocks(), choice.id.index);
        let mut whole: Vec<(f64, NodeId)> = (0..posed.nodes.len())
            .filter_map(|node| {
                let stages = vec![StageShape { node, first: 0, end: end - start }];
                let priced = posed.problem.price(&posed.problem.lossless(stages)).ok()?;
                Some((priced.latency_ms - priced.cold_ms, posed.nodes[node]))
            })
            .collect();
        whole.sort_by(|one, other| one.0.total_cmp(&other.0));
        whole.truncate(usize::from(replicas.max(1)));
        if whole.len() < usize::from(replicas) && !whole.is_empty() {
            wishes.notes.push(format!(
                "{replicas} replicas were wished; the whole of variant `{}` fits on {} nodes",
                manifest.variant,
                whole.len()
            ));
        }
        for (_, node) in &whole {
            wishes.add(Wish { node: *node, variant, first: start, end }, manifest);
        }
        if !whole.is_empty() {
            return Ok(());
        }
        let best = plan::best(&posed.problem, EXPANSIONS_DEFAULT).map_err(|none| {
            CallError::Conflict(format!(
                "no node is able to host `{}` (variant `{}`): {none}\n{}",
                manifest.model,
                manifest.variant,
                self.memory_table(wishes)
            ))
        })?;
        let plan = posed.plan(&best.priced.shape);
        for stage in &plan.stages {
            wishes.add(Wish { node: stage.node, variant, first: stage.first, end: stage.end }, manifest);
        }
        wishes.notes.push(format!(
            "the whole of variant `{}` fits on no node, so it is divided over {}",
            manifest.variant,
            plan.stages.len()
        ));
        Ok(())
    }

    /// The planner's problem, when what is wished already is loaded.
    fn pose_beside(&self, choice: &Choice, wishes: &Wishes) -> Posed {
        let mut posed = self.pose(choice, choice.manifest.graph_blocks(), &[], PlanLimits::default());
        for (node, id) in posed.problem.nodes.iter_mut().zip(&posed.nodes) {
            node.memory_free_bytes = wishes.left_bytes(*id, node.memory_free_bytes);
        }
        posed
    }

    /// Parts of about equal time, on different nodes, devices first as data usually flows.
    fn place_parts(
        &self,
        choice: &Choice,
        parts: u16,
        replicas: u16,
        wishes: &mut Wishes,
    ) -> Result<(), CallError> {
        let (manifest, variant) = (&choice.manifest.manifest, choice.id.index);
        let ranges = equal_parts(manifest, parts)?;
        let mut nodes = self.nodes_by_class(wishes);
        let wanted = ranges.len() * usize::from(replicas.max(1));
        for _ in 0..replicas.max(1) {
            for &(first, end) in &ranges {
                let need_bytes = manifest.range_memory_bytes(first..end);
                let position = nodes.iter().position(|(_, free_bytes)| *free_bytes >= need_bytes);
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
                        self.memory_table(wishes)
                    )));
                };
                let (node, _) = nodes.remove(position);
                wishes.add(Wish { node, variant, first, end }, manifest);
            }
        }
        Ok(())
    }

    /// Usable nodes with the memory that wishes leave free: this one first, then devices, edges, clouds.
    fn nodes_by_class(&self, wishes: &Wishes) -> Vec<(NodeId, u64)> {
        let now_ms = self.now_ms();
        let rank = |class: Class| match class {
            Class::Device => 1,
            Class::Edge => 2,
            Class::Cloud => 3,
        };
        let own = self.record();
        let others =
            self.member.view().iter().filter(|known| self.member.view().is_usable(now_ms, known.record.node));
        let mut nodes: Vec<(i32, NodeId, u64)> = std::iter::once((0, &own))
            .chain(others.map(|known| (rank(known.record.machine.class), known.record.as_ref())))
            .map(|(rank, record)| {
                let free = record.machine.memory_budget_bytes.saturating_sub(record.load.memory_used_bytes);
                (rank, record.node, wishes.left_bytes(record.node, free))
            })
            .collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|(_, node, free_bytes)| (node, free_bytes)).collect()
    }

    fn memory_table(&self, wishes: &Wishes) -> String {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let line = |(node, free_bytes): (NodeId, u64)| {
            format!("  `{}` has {:.2} MiB free", self.label_of(node), mebibytes(free_bytes))
        };
        let lines: Vec<String> = self.nodes_by_class(wishes).into_iter().map(line).collect();
        format!("{}\nGive a node more (--memory-budget), add nodes, or ask for less.", lines.join("\n"))
    }
}

/// Contiguous ranges of the graph's blocks, about equal in time and cut where little crosses.
fn equal_parts(manifest: &Manifest, parts: u16) -> Result<Vec<(u16, u16)>, CallError> {
    let graph = manifest.graph_blocks();
    let blocks = &manifest.blocks[usize::from(graph.start)..usize::from(graph.end)];
    let times_ns: Vec<u64> = blocks.iter().map(|block| block.time_ns.max(1)).collect();
    let cut_bytes: Vec<u64> = (graph.start..=graph.end).map(|cut| manifest.cut_bytes(cut)).collect();
    let ranges = plan::parts(&times_ns, &cut_bytes, usize::from(parts)).ok_or_else(|| {
        let blocks = blocks.len();
        CallError::BadRequest(format!(
            "the model has {blocks} blocks, so it can be divided into 1 to {blocks} parts, not {parts} \
             (at most {BLOCKS_MAX} for any model)"
        ))
    })?;
    let of_model = |block: usize| graph.start + block as u16;
    Ok(ranges.into_iter().map(|range| (of_model(range.start), of_model(range.end))).collect())
}
