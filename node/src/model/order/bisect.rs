//! Refines an order: finds the thin cut "all that some node needs | the rest" (or "all but what needs
//! some node | the rest") inside a stretch, reorders the stretch around it, and goes on in both halves.

use std::ops::Range;

use crate::model::dag::{Dag, Frontier};

/// Node visits that one refinement may spend. On the shared models more found no thinner cuts, and less did
/// find wider ones; a whole division of 10,000 to 99,000 nodes took 1 to 13 s (one core of a busy machine).
const VISITS_MAX: usize = 8_000_000;
/// Shortest stretch worth reordering.
const STRETCH_MIN: usize = 3;

/// The order rearranged around such cuts, as far as the visits reach; whether it is better is for the
/// caller to judge.
pub(super) fn refine(dag: &Dag, order: &[usize]) -> Vec<usize> {
    let mut search = Search {
        dag,
        order: order.to_vec(),
        place: vec![0; dag.len()],
        mark: vec![false; dag.len()],
        visits_left: VISITS_MAX,
    };
    search.update_places(0, order.len());
    // Stretches come off the stack from left to right, so that the frontier only moves forward.
    let mut frontier = Frontier::new(dag);
    let mut open = vec![(0, order.len())];
    while let Some((start, end)) = open.pop() {
        let middle = if end - start >= STRETCH_MIN { search.split(&mut frontier, start, end) } else { None };
        match middle {
            Some(middle) => open.extend([(middle, end), (start, middle)]),
            None => search.order[start..end].iter().for_each(|node| frontier.run(*node)),
        }
    }
    search.order
}

struct Search<'a> {
    dag: &'a Dag,
    order: Vec<usize>,
    /// Node -> index in `order`.
    place: Vec<usize>,
    /// Scratch: nodes of the closure being looked at.
    mark: Vec<bool>,
    visits_left: usize,
}

/// The two kinds of closures.
#[derive(Debug, Clone, Copy)]
enum Closure {
    /// A node and all that it needs.
    Needs(usize),
    /// All but a node and what needs it.
    Without(usize),
}

impl Search<'_> {
    fn update_places(&mut self, start: usize, end: usize) {
        for index in start..end {
            self.place[self.order[index]] = index;
        }
    }

    /// Finds the best cut of a stretch, puts its nodes in front, and tells where it lies now.
    fn split(&mut self, frontier: &mut Frontier, start: usize, end: usize) -> Option<usize> {
        let length = end - start;
        // Large stretches try a sample of their nodes, so that small ones are still reached.
        let tries = (self.visits_left / 8 / length).min(length);
        let step = length.checked_div(tries)?.max(1);
        let work = self.work(&self.order[start..end]);
        let mut best: Option<(f64, Closure)> = None;
        for index in (start..end).step_by(step) {
            let node = self.order[index];
            for closure in [Closure::Needs(node), Closure::Without(node)] {
                let cost = self.cost(frontier, closure, start..end, work);
                if let Some(cost) = cost
                    && best.is_none_or(|(least, _)| cost < least)
                {
                    best = Some((cost, closure));
                }
            }
        }
        let (_, closure) = best?;
        let (front, back): (Vec<usize>, Vec<usize>) = {
            let front = self.collect(closure, start..end);
            front.iter().for_each(|node| self.mark[*node] = true);
            let parts = self.order[start..end].iter().partition(|node| self.mark[**node]);
            front.iter().for_each(|node| self.mark[*node] = false);
            parts
        };
        let middle = start + front.len();
        self.order[start..middle].copy_from_slice(&front);
        self.order[middle..end].copy_from_slice(&back);
        self.update_places(start, end);
        Some(middle)
    }

    /// Bytes at the cut behind a closure, raised where it divides the work of the stretch unevenly.
    fn cost(
        &mut self,
        frontier: &mut Frontier,
        closure: Closure,
        within: Range<usize>,
        work: f64,
    ) -> Option<f64> {
        let front = self.collect(closure, within.clone());
        let looked_at = if matches!(closure, Closure::Without(_)) { within.len() } else { front.len() };
        self.visits_left = self.visits_left.saturating_sub(2 * front.len() + looked_at + 1);
        if front.is_empty() || front.len() == within.len() {
            return None;
        }
        front.iter().for_each(|node| frontier.run(*node));
        let position = frontier.position();
        front.iter().rev().for_each(|node| frontier.undo(*node));
        let share = self.work(&front) / work.max(1.0);
        let evenness = (4.0 * share * (1.0 - share)).sqrt().max(0.01);
        position.possible.then_some((position.bytes as f64 + 1.0) / evenness)
    }

    fn work(&self, nodes: &[usize]) -> f64 {
        nodes.iter().map(|node| self.dag.work[*node] as f64).sum()
    }

    /// Nodes of a closure within a stretch, in the stretch's order.
    fn collect(&mut self, closure: Closure, within: Range<usize>) -> Vec<usize> {
        let (seed, near) = match closure {
            Closure::Needs(node) => (node, &self.dag.before),
            Closure::Without(node) => (node, &self.dag.after),
        };
        let mut found = vec![seed];
        self.mark[seed] = true;
        let mut next = 0;
        while let Some(node) = found.get(next).copied() {
            next += 1;
            for other in &near[node] {
                if within.contains(&self.place[*other]) && !std::mem::replace(&mut self.mark[*other], true) {
                    found.push(*other);
                }
            }
        }
        let mut front: Vec<usize> = match closure {
            Closure::Needs(_) => found.clone(),
            Closure::Without(_) => {
                self.order[within].iter().copied().filter(|node| !self.mark[*node]).collect()
            }
        };
        found.iter().for_each(|node| self.mark[*node] = false);
        front.sort_unstable_by_key(|node| self.place[*node]);
        front
    }
}
