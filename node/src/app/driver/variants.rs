//! Which variants of a model a caller may get: found by name, the most accurate first, those left out
//! that are not accurate enough or do not take what is given. Plans are made elsewhere.

use std::ops::Range;
use std::sync::Arc;

use stormo_protocol::ids::VariantId;
use stormo_protocol::plan::Plan;
use stormo_protocol::state::{Accuracy, Deployment};
use stormo_protocol::tensor::Tensor;

use super::Driver;
use super::signature::what_to_run;
use crate::app::calls::{CallError, PlanLimits};
use crate::ends::Described;

/// A variant whose description is here.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub id: VariantId,
    pub manifest: Arc<Described>,
    /// Of its answers when nothing is lost between stages, if known.
    pub accuracy: Option<f64>,
}

/// A variant and what a request makes of it.
#[derive(Debug)]
pub(super) struct Bound {
    pub choice: Choice,
    /// What it runs: all blocks, or without the ends.
    pub blocks: Range<u16>,
    /// The tensors of the cut before.
    pub inputs: Vec<Tensor>,
}

impl Bound {
    /// What a stage of a plan sends to the origin, as indices into the manifest's tensors.
    pub(super) fn results_of(&self, plan: &Plan, stage: u16) -> Vec<u32> {
        self.choice.manifest.results(plan, stage).unwrap_or_default()
    }

    /// What a stage of a plan is sent from the origin, if anything.
    pub(super) fn inputs_of(&self, plan: &Plan, stage: u16) -> Option<Vec<Tensor>> {
        let manifest = &self.choice.manifest;
        let ways = manifest.ways_from_origin(plan)?;
        let way = ways.into_iter().find(|way| way.other == stage)?;
        let found = |index: u32| self.inputs.iter().find(|tensor| manifest.is_of(index, tensor.spec()));
        Some(way.tensors.into_iter().filter_map(found).cloned().collect())
    }

    /// Items in its batch; `None` where the model's inputs do not tell.
    pub(super) fn items(&self) -> Option<u64> {
        let manifest = &self.choice.manifest;
        let cut = &manifest.cuts[usize::from(self.blocks.start)];
        manifest.items(&cut.tensors, self.inputs.iter().map(Tensor::spec))
    }
}

impl Choice {
    pub(super) fn new(id: VariantId, manifest: Arc<Described>, accuracy: Option<Accuracy>) -> Self {
        Self { id, manifest, accuracy: accuracy.map(Accuracy::share) }
    }

    /// Where nothing is known, nothing is promised. But the first variant is what agreement is measured
    /// against, so without a figure it counts as right.
    pub(super) fn accuracy_known(&self) -> f64 {
        self.accuracy.unwrap_or(if self.id.index == 0 { 1.0 } else { 0.0 })
    }
}

impl Driver {
    /// That no model of this name is deployed, and which ones are.
    pub(super) fn none_of(&self, name: &str) -> CallError {
        let known: Vec<&str> = self.member.deployments().newest().map(|known| known.name.as_str()).collect();
        let known = if known.is_empty() {
            "none is deployed".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        CallError::NotFound(format!(
            "no model `{name}` is deployed ({known}); deploy one with `stormo deploy`"
        ))
    }

    /// A live deployment of this name, in the version that serves unless another one is asked for.
    pub(super) fn find_deployment(&self, name: &str, version: Option<u64>) -> Result<&Deployment, CallError> {
        let serving = self.member.deployments().serving(name).ok_or_else(|| self.none_of(name))?;
        let Some(version) = version else { return Ok(serving) };
        let mut versions = self.member.deployments().live().filter(|deployment| deployment.name == name);
        versions.find(|deployment| deployment.version == version).ok_or_else(|| {
            CallError::NotFound(format!(
                "version {version} of `{name}` is not deployed; the deployed one is {}",
                serving.version
            ))
        })
    }

    /// Its variants, the most accurate first, of equal ones the one that was named first; or the one of
    /// this label alone.
    pub(super) fn variants_of(
        &self,
        deployment: &Deployment,
        label: Option<&str>,
    ) -> Result<Vec<Choice>, CallError> {
        let wanted = |other: &str| label.is_none_or(|label| label == other);
        if !deployment.variants.iter().any(|variant| wanted(&variant.label)) {
            let known: Vec<&str> = deployment.variants.iter().map(|known| known.label.as_str()).collect();
            return Err(CallError::NotFound(format!(
                "`{}` has no variant `{}`; there are: {}",
                deployment.name,
                label.unwrap_or_default(),
                known.join(", ")
            )));
        }
        let all = deployment.variants().filter(|(_, variant)| wanted(&variant.label));
        let described = all.filter_map(|(id, variant)| {
            Some(Choice::new(id, self.manifests.get(&id)?.clone(), variant.accuracy))
        });
        let mut choices: Vec<Choice> = described.collect();
        choices.sort_by(|one, other| other.accuracy_known().total_cmp(&one.accuracy_known()));
        if choices.is_empty() {
            return Err(CallError::Unavailable(format!(
                "the description of `{}` has not arrived at this node yet; try again in a second",
                deployment.name
            )));
        }
        Ok(choices)
    }

    /// Whether this model is known by name only, or one of its variants' descriptions is being fetched. One
    /// that cannot be had holds up nobody.
    pub(super) fn is_description_on_its_way(&self, model: &str) -> bool {
        let Some(known) = self.member.deployments().serving(model) else { return false };
        let is_here = |id: &VariantId| self.manifests.contains_key(id);
        let ids = || known.variants().map(|(id, _)| id);
        !ids().any(|id| is_here(&id)) || ids().any(|id| !is_here(&id) && self.manifests_wanted.contains(&id))
    }
}

/// Those that reach the accuracy that is enough.
pub(super) fn accurate_enough(choices: Vec<Choice>, limits: PlanLimits) -> Result<Vec<Choice>, CallError> {
    let Some(enough) = limits.min_accuracy else { return Ok(choices) };
    let closest = choices
        .first()
        .map(|best| (best.manifest.model.clone(), best.manifest.variant.clone(), best.accuracy_known()));
    let left: Vec<Choice> = choices.into_iter().filter(|choice| choice.accuracy_known() >= enough).collect();
    match closest {
        Some((model, variant, best)) if left.is_empty() => Err(CallError::Conflict(format!(
            "no plan for `{model}` reaches an accuracy of {enough}: the closest is {best}, its variant `{variant}` \
             with nothing lost on the way; lower min_accuracy to {best}"
        ))),
        _ => Ok(left),
    }
}

/// What can be done with any of the variants; why not with the first, if with none.
pub(super) fn with_any<T>(
    choices: Vec<Choice>,
    attempt: impl Fn(&Choice) -> Result<T, CallError>,
) -> Result<Vec<(Choice, T)>, CallError> {
    let mut first_error = None;
    let mut all = Vec::with_capacity(choices.len());
    for choice in choices {
        match attempt(&choice) {
            Ok(done) => all.push((choice, done)),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        Some(error) if all.is_empty() => Err(error),
        _ => Ok(all),
    }
}

/// Those that take what a request brings, and what they make of it.
pub(super) fn bound(choices: Vec<Choice>, given: &[Tensor]) -> Result<Vec<Bound>, CallError> {
    let taken = with_any(choices, |choice| what_to_run(&choice.manifest, given.to_vec()))?;
    let bound = |(choice, (blocks, inputs))| Bound { choice, blocks, inputs };
    Ok(taken.into_iter().map(bound).collect())
}
