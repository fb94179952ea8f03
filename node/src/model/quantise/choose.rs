//! Which nodes compute on small integers: the weighted ones that are wanted, and between them whatever
//! saves a way to floats and back.

use super::super::links::Links;
use super::kinds::Kind;

/// A graph as far as the choice needs it.
pub(super) struct Net<'a> {
    pub links: &'a Links,
    /// Node -> how it takes to small integers.
    pub kinds: &'a [Kind],
    /// Tensor -> an FP32 activation.
    pub is_activation: Vec<bool>,
    /// Tensor -> nodes that read it.
    pub readers: Vec<Vec<usize>>,
    /// Node -> the Relu or Clip behind it that its range does the work of.
    pub clamp: Vec<Option<usize>>,
}

impl<'a> Net<'a> {
    pub(super) fn new(links: &'a Links, kinds: &'a [Kind], is_activation: Vec<bool>) -> Self {
        let mut readers = vec![Vec::new(); links.names.len()];
        for (node, reads) in links.reads.iter().enumerate() {
            reads.iter().for_each(|tensor| readers[*tensor].push(node));
        }
        let mut net = Self { links, kinds, is_activation, readers, clamp: Vec::new() };
        net.clamp = (0..kinds.len()).map(|node| net.clamp_behind(node)).collect();
        net
    }

    fn clamp_behind(&self, node: usize) -> Option<usize> {
        // Others have the scale of their input, or one that a Relu does not change.
        let has_own_scale = matches!(self.kinds[node], Kind::Weighted(_)) || self.kinds[node].follows();
        let [made] = self.links.writes[node].as_slice() else { return None };
        let [reader] = self.readers[*made].as_slice() else { return None };
        let clamps = self.kinds[*reader] == Kind::Clamps && !self.links.outputs.contains(made);
        (has_own_scale && clamps).then_some(*reader)
    }

    /// The activations that a node reads as numbers to compute with: not shapes, indices or weights.
    pub(super) fn data_inputs(&self, node: usize) -> impl Iterator<Item = usize> {
        let all = self.links.reads[node].iter().copied().filter(|tensor| self.is_activation[*tensor]);
        let first_only = matches!(self.kinds[node], Kind::Moves | Kind::Weighted(_));
        all.take(if first_only { 1 } else { usize::MAX })
    }

    /// What a node makes when it computes on small integers.
    pub(super) fn made(&self, node: usize) -> &[usize] {
        let last = self.clamp[node].unwrap_or(node);
        &self.links.writes[last]
    }
}

/// Node -> computes on small integers, given which weighted ones shall.
pub(super) fn small_nodes(net: &Net, wanted: impl Fn(usize) -> bool) -> Vec<bool> {
    let is_light = |node: usize| net.kinds[node] == Kind::Moves || net.kinds[node].follows();
    let has_data = |node: usize| net.data_inputs(node).next().is_some();
    let mut small: Vec<bool> = (0..net.kinds.len())
        .map(|node| match net.kinds[node] {
            Kind::Weighted(_) => wanted(node) && has_data(node),
            Kind::Moves | Kind::Follows | Kind::Joins => has_data(node),
            Kind::Clamps | Kind::Float => false,
        })
        .collect();
    // Light nodes are struck off until none is left that stands alone.
    loop {
        let leads = leads_to_weighted(net, &small);
        let makers = makers(net, &small);
        let mut changed = false;
        for node in net.links.order.iter().copied().filter(|node| is_light(*node)) {
            if small[node] && !belongs(net, node, &small, &leads, &makers) {
                small[node] = false;
                changed = true;
            }
        }
        if !changed {
            return small;
        }
    }
}

/// Tensor -> the small node that makes it.
fn makers(net: &Net, small: &[bool]) -> Vec<Option<usize>> {
    let mut makers = vec![None; net.links.names.len()];
    for node in (0..small.len()).filter(|node| small[*node]) {
        net.made(node).iter().for_each(|tensor| makers[*tensor] = Some(node));
    }
    makers
}

/// Node -> a weighted small node lies behind it, small ones all the way.
fn leads_to_weighted(net: &Net, small: &[bool]) -> Vec<bool> {
    let mut leads = vec![false; small.len()];
    for node in net.links.order.iter().rev().copied().filter(|node| small[*node]) {
        let mut readers = net.made(node).iter().flat_map(|tensor| &net.readers[*tensor]);
        leads[node] = readers.any(|reader| small[*reader] && (is_weighted(net, *reader) || leads[*reader]));
    }
    leads
}

fn is_weighted(net: &Net, node: usize) -> bool {
    matches!(net.kinds[node], Kind::Weighted(_))
}

/// Whether a light node has small integers before it, and a reason to stay with them.
fn belongs(net: &Net, node: usize, small: &[bool], leads: &[bool], makers: &[Option<usize>]) -> bool {
    let made_small = |tensor: usize| makers[tensor].is_some_and(|maker| small[maker]);
    let read_small = |tensor: usize| {
        net.readers[tensor]
            .iter()
            .any(|reader| *reader != node && small[*reader] && is_weighted(net, *reader))
    };
    let all_small = net.data_inputs(node).all(|tensor| made_small(tensor) || read_small(tensor));
    let moves_small = net.kinds[node] == Kind::Moves && net.data_inputs(node).all(made_small);
    all_small && (leads[node] || moves_small)
}
