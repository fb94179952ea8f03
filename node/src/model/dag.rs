//! The computing nodes of a graph and the tensors between them, and the frontier that moves through
//! them as they run: what is alive, in bytes, and whether a cut may lie there.

use stormo_protocol::limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_TENSORS_MAX};

/// Whether a tensor may cross a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crossing {
    /// Yes.
    Allowed,
    /// Only when nothing reads it any more and it is kept to the end as a result.
    AsResult,
    /// No.
    Never,
}

/// A tensor between nodes.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    pub bytes: u64,
    /// Number of nodes that read it.
    pub readers: u32,
    /// Whether it stays alive to the end, read or not: an output that leaves behind the last part only.
    pub is_kept: bool,
    pub crossing: Crossing,
}

/// Nodes that compute (free ones are not among them), in some topological order.
#[derive(Debug, Default)]
pub(super) struct Dag {
    /// Node -> edges read, each once.
    pub reads: Vec<Vec<usize>>,
    /// Node -> edges made.
    pub writes: Vec<Vec<usize>>,
    /// Node -> nodes that must run before, each once.
    pub before: Vec<Vec<usize>>,
    /// Node -> nodes that must run after.
    pub after: Vec<Vec<usize>>,
    /// Node -> estimate of time, in any unit.
    pub work: Vec<u64>,
    pub edges: Vec<Edge>,
    /// Edges that exist before anything ran.
    pub inputs: Vec<usize>,
}

impl Dag {
    /// Number of nodes.
    pub(super) fn len(&self) -> usize {
        self.reads.len()
    }

    /// Work of all nodes, at least 1.
    pub(super) fn total_work(&self) -> u64 {
        self.work.iter().fold(0, |sum: u64, work| sum.saturating_add(*work)).max(1)
    }

    /// What crosses at each position of an order: `result[i]` lies before its `i`-th node.
    pub(super) fn crossings(&self, order: &[usize]) -> Vec<Position> {
        let mut frontier = Frontier::new(self);
        let mut positions = vec![frontier.position()];
        for node in order {
            frontier.run(*node);
            positions.push(frontier.position());
        }
        positions
    }
}

/// What crosses at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub bytes: u64,
    /// Whether a cut may lie here.
    pub possible: bool,
}

/// What is alive after some nodes ran.
#[derive(Debug, Clone)]
pub(super) struct Frontier<'a> {
    dag: &'a Dag,
    /// Edge -> readers that have not run.
    left: Vec<u32>,
    bytes: u64,
    tensors: usize,
    /// Live edges through which no cut may go.
    refusing: usize,
}

impl<'a> Frontier<'a> {
    /// Before anything ran.
    pub(super) fn new(dag: &'a Dag) -> Self {
        let left = dag.edges.iter().map(|edge| edge.readers).collect();
        let mut frontier = Self { dag, left, bytes: 0, tensors: 0, refusing: 0 };
        for input in &dag.inputs {
            frontier.enter(*input);
        }
        frontier
    }

    pub(super) fn position(&self) -> Position {
        // What crosses a cut goes in one frame.
        let fits = (1..=FRAME_TENSORS_MAX).contains(&self.tensors) && self.bytes <= FRAME_PAYLOAD_BYTES_MAX;
        let possible = self.refusing == 0 && fits;
        Position { bytes: self.bytes, possible }
    }

    /// Edges alive now, ascending.
    pub(super) fn live(&self, made: &[bool]) -> Vec<usize> {
        let alive = |edge: &usize| made[*edge] && (self.left[*edge] > 0 || self.dag.edges[*edge].is_kept);
        (0..self.left.len()).filter(alive).collect()
    }

    /// Bytes alive while a node runs: what is there, and what it makes.
    pub(super) fn bytes_while(&self, node: usize) -> u64 {
        let made = self.dag.writes[node].iter().map(|edge| self.dag.edges[*edge].bytes);
        made.fold(self.bytes, u64::saturating_add)
    }

    /// Change of the bytes alive if this node ran.
    pub(super) fn growth(&self, node: usize) -> i128 {
        let stays = |edge: &&usize| self.dag.edges[**edge].readers > 0 || self.dag.edges[**edge].is_kept;
        let ends = |edge: &&usize| self.left[**edge] == 1 && !self.dag.edges[**edge].is_kept;
        let sum = |edges: &mut dyn Iterator<Item = &usize>| {
            edges.map(|edge| i128::from(self.dag.edges[*edge].bytes)).sum::<i128>()
        };
        sum(&mut self.dag.writes[node].iter().filter(stays))
            - sum(&mut self.dag.reads[node].iter().filter(ends))
    }

    /// Runs a node whose readings are all there.
    pub(super) fn run(&mut self, node: usize) {
        let dag = self.dag;
        for edge in &dag.writes[node] {
            self.enter(*edge);
        }
        for edge in &dag.reads[node] {
            self.leave(*edge);
            self.left[*edge] -= 1;
            self.enter(*edge);
        }
    }

    /// Takes a run back; in the opposite order of running.
    pub(super) fn undo(&mut self, node: usize) {
        let dag = self.dag;
        for edge in &dag.reads[node] {
            self.leave(*edge);
            self.left[*edge] += 1;
            self.enter(*edge);
        }
        for edge in &dag.writes[node] {
            self.leave(*edge);
        }
    }

    /// Counts an edge that exists now, if it is alive.
    fn enter(&mut self, edge: usize) {
        let (alive, refuses) = self.state(edge);
        if alive {
            self.bytes += self.dag.edges[edge].bytes;
            self.tensors += 1;
            self.refusing += usize::from(refuses);
        }
    }

    fn leave(&mut self, edge: usize) {
        let (alive, refuses) = self.state(edge);
        if alive {
            self.bytes -= self.dag.edges[edge].bytes;
            self.tensors -= 1;
            self.refusing -= usize::from(refuses);
        }
    }

    fn state(&self, edge: usize) -> (bool, bool) {
        let Edge { is_kept, crossing, .. } = self.dag.edges[edge];
        let is_read = self.left[edge] > 0;
        let refuses = match crossing {
            Crossing::Allowed => false,
            Crossing::AsResult => is_read,
            Crossing::Never => true,
        };
        (is_read || is_kept, refuses)
    }
}
