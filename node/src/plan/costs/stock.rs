//! What costs over any members are put together from: made once for each node and each price of agreement that
//! searches of one problem ask for.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use super::codings::Codings;
use super::node::Runs;
use crate::plan::problem::Problem;
use crate::plan::ranges::Ranges;
use crate::plan::wanted::Wanted;

/// A problem, and what was made of it so far.
pub(in crate::plan) struct Stock<'a> {
    pub(in crate::plan) problem: &'a Problem,
    pub(in crate::plan) ranges: &'a Ranges,
    /// Whether to go on with searches.
    pub(in crate::plan) wanted: Wanted<'a>,
    /// By node.
    runs: Vec<OnceCell<Rc<Runs>>>,
    /// By the price of all agreement.
    worthwhile: RefCell<Vec<(f64, Rc<Codings>)>>,
    every: OnceCell<Rc<Codings>>,
}

impl<'a> Stock<'a> {
    /// With nothing made yet.
    pub(in crate::plan) fn new(problem: &'a Problem, ranges: &'a Ranges) -> Self {
        let runs = vec![OnceCell::new(); problem.nodes.len()];
        let wanted = Wanted::default();
        Self { problem, ranges, wanted, runs, worthwhile: RefCell::new(vec![]), every: OnceCell::new() }
    }

    /// For searches that end when they are no longer wanted.
    pub(in crate::plan) fn wanted(self, wanted: Wanted<'a>) -> Self {
        Self { wanted, ..self }
    }

    /// What runs cost on a node.
    pub(in crate::plan) fn runs(&self, node: usize) -> &Rc<Runs> {
        let new = || Rc::new(Runs::new(self.problem, self.ranges, &self.problem.nodes[node]));
        self.runs[node].get_or_init(new)
    }

    /// Ways to send each cut that may be best somewhere, at a price of all agreement.
    pub(in crate::plan) fn worthwhile(&self, loss_price_ms: f64) -> Rc<Codings> {
        let mut all = self.worthwhile.borrow_mut();
        if let Some((_, known)) = all.iter().find(|(price_ms, _)| *price_ms == loss_price_ms) {
            return known.clone();
        }
        let new = Rc::new(Codings::worthwhile(self.problem, loss_price_ms));
        all.push((loss_price_ms, new.clone()));
        new
    }

    pub(super) fn every(&self) -> Rc<Codings> {
        self.every.get_or_init(|| Rc::new(Codings::every(self.problem))).clone()
    }
}
