//! Whether tensors fit a manifest. Their descriptions are those that it lists, but for two things: the
//! dimensions of a variable tensor, and how many items a batch has.

use serde::{Deserialize, Serialize};

use super::{BadManifest, Manifest, VariableTensor};
use crate::limits::BATCH_ITEMS_MAX;
use crate::tensor::TensorSpec;

/// A first axis that the model leaves open: a request may bring several items at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Tensors whose first axis is, for `n` items, `n` times that of their description. Ascending indices
    /// into [`Manifest::tensors`].
    pub tensors: Vec<u32>,
    /// Most items in one request.
    pub items_max: u64,
}

/// How a description fits a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Not,
    /// Whatever the batch.
    Always,
    /// In a batch of so many items.
    Items(u64),
}

impl Manifest {
    /// Whether tensors of these descriptions, in this order, are those that cross a cut.
    pub fn are_the_cut<'a>(&self, cut: u16, specs: impl ExactSizeIterator<Item = &'a TensorSpec>) -> bool {
        let tensors = self.cuts.get(usize::from(cut)).map(|cut| cut.tensors.as_slice()).unwrap_or_default();
        self.are(tensors, specs)
    }

    /// Whether tensors of these descriptions, in this order, are these of the manifest, all of one batch.
    pub fn are<'a>(&self, tensors: &[u32], specs: impl ExactSizeIterator<Item = &'a TensorSpec>) -> bool {
        self.fit(tensors, specs) != Fit::Not
    }

    /// Items in the batch of these tensors. `None` if none of them tells, or they do not fit.
    pub fn items<'a>(
        &self,
        tensors: &[u32],
        specs: impl ExactSizeIterator<Item = &'a TensorSpec>,
    ) -> Option<u64> {
        match self.fit(tensors, specs) {
            Fit::Items(items) => Some(items),
            Fit::Not | Fit::Always => None,
        }
    }

    /// Whether a description is that of a tensor of this manifest, in a batch of any size.
    pub fn is_of(&self, tensor: u32, spec: &TensorSpec) -> bool {
        self.fit_one(tensor, spec) != Fit::Not
    }

    /// Whether a tensor's first axis follows the batch.
    pub fn is_batched(&self, tensor: u32) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.tensors.contains(&tensor))
    }

    /// Whether a tensor's dimensions differ from request to request.
    pub fn is_variable(&self, tensor: u32) -> bool {
        self.variable.iter().any(|variable| variable.tensor == tensor)
    }

    fn fit<'a>(&self, tensors: &[u32], specs: impl ExactSizeIterator<Item = &'a TensorSpec>) -> Fit {
        if tensors.len() != specs.len() {
            return Fit::Not;
        }
        let fits = tensors.iter().zip(specs).map(|(tensor, spec)| self.fit_one(*tensor, spec));
        fits.fold(Fit::Always, |all, one| match (all, one) {
            (Fit::Not, _) | (_, Fit::Not) => Fit::Not,
            (Fit::Items(all), Fit::Items(one)) if all != one => Fit::Not,
            (Fit::Always, one) => one,
            (all, _) => all,
        })
    }

    fn fit_one(&self, tensor: u32, spec: &TensorSpec) -> Fit {
        let Some(expected) = self.tensors.get(tensor as usize) else { return Fit::Not };
        let always = |fits: bool| if fits { Fit::Always } else { Fit::Not };
        if let Some(batch) = self.batch.as_ref().filter(|_| self.is_batched(tensor)) {
            let items = expected.items_of(spec).filter(|items| *items <= batch.items_max);
            return items.map_or(Fit::Not, Fit::Items);
        }
        match self.variable.iter().find(|variable| variable.tensor == tensor) {
            None => always(expected == spec),
            Some(VariableTensor { bytes_max, .. }) => always(
                (&expected.name, expected.dtype) == (&spec.name, spec.dtype)
                    && expected.shape.len() == spec.shape.len()
                    && spec.byte_length().is_ok_and(|bytes| bytes <= *bytes_max),
            ),
        }
    }

    /// A batch has some items, and an input tells how many.
    pub(super) fn check_batch(&self) -> Result<(), BadManifest> {
        let Some(Batch { tensors, items_max }) = &self.batch else { return Ok(()) };
        let has_axis = |tensor: &u32| {
            let spec = self.tensors.get(*tensor as usize);
            spec.is_some_and(|spec| spec.shape.first().is_some_and(|items| *items > 0))
        };
        let follows = |tensor: &u32| has_axis(tensor) && !self.is_variable(*tensor);
        // Strictly, so that there are no more than tensors.
        if !tensors.is_sorted_by(|one, next| one < next) || !tensors.iter().all(follows) {
            return Err(BadManifest::Index("tensors of a batch"));
        }
        if !self.inputs.iter().any(|input| tensors.contains(input)) {
            return Err(BadManifest::Count("an input tells how many items a batch has"));
        }
        if !(2..=BATCH_ITEMS_MAX).contains(items_max) {
            return Err(BadManifest::Count("a batch has up to 2 or more items, within the limit"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::tests::manifest;
    use crate::tensor::DType;

    /// `x` and `a` follow the batch, `y` does not.
    fn batched() -> Manifest {
        let mut manifest = manifest();
        manifest.batch = Some(Batch { tensors: vec![0, 1], items_max: 8 });
        manifest
    }

    fn of_items(manifest: &Manifest, tensor: usize, items: u64) -> TensorSpec {
        let mut spec = manifest.tensors[tensor].clone();
        spec.shape[0] *= items;
        spec
    }

    #[test]
    fn tensors_of_one_batch_fit_together() {
        let manifest = batched();
        assert_eq!(manifest.check(), Ok(()));
        let spec = |tensor, items| of_items(&manifest, tensor, items);
        assert_eq!(manifest.items(&[0], [spec(0, 4)].iter()), Some(4));
        assert_eq!(manifest.items(&[0, 1, 2], [spec(0, 4), spec(1, 4), spec(2, 1)].iter()), Some(4));
        assert!(!manifest.are(&[0, 1], [spec(0, 4), spec(1, 3)].iter()));
        assert!(!manifest.are(&[0], [spec(0, 9)].iter()) && !manifest.are(&[0], [spec(0, 0)].iter()));
        assert!(!manifest.are(&[2], [spec(2, 4)].iter()));
        assert!(manifest.are(&[2], [spec(2, 1)].iter()));
        assert_eq!(manifest.items(&[2], [spec(2, 1)].iter()), None);
        assert!(manifest.are_the_cut(1, [spec(1, 8)].iter()));
    }

    #[test]
    fn a_batch_that_makes_no_sense_is_refused() {
        let with = |batch: Batch| {
            let mut manifest = manifest();
            manifest.batch = Some(batch);
            manifest.check()
        };
        for (tensors, items_max) in
            [(vec![9], 8), (vec![1], 8), (vec![1, 0], 8), (vec![0, 0], 8), (vec![0], 1), (vec![0], u64::MAX)]
        {
            let wrong = Batch { tensors, items_max };
            assert!(with(wrong.clone()).is_err(), "{wrong:?}");
        }
    }

    /// Few names and types, and dimensions of which some are nothing.
    fn spec() -> impl Strategy<Value = TensorSpec> {
        let dtype = prop::sample::select(vec![DType::F32, DType::I64]);
        let shape = prop::collection::vec(0..9u64, 0..4);
        (prop::sample::select(vec!["x", "y"]), dtype, shape).prop_map(|(name, dtype, shape)| TensorSpec {
            name: name.into(),
            dtype,
            shape,
        })
    }

    proptest! {
        #[test]
        fn a_variable_tensor_has_any_dimensions_within_its_bound(
            known in spec(),
            given in spec(),
            bytes_max in 0..2000u64,
        ) {
            let mut manifest = manifest();
            manifest.tensors[2] = known.clone();
            manifest.variable = vec![VariableTensor { tensor: 2, bytes_max }];
            let element_bytes = if given.dtype == DType::F32 { 4 } else { 8 };
            let is_alike = (&known.name, known.dtype) == (&given.name, given.dtype);
            let fits = is_alike
                && known.shape.len() == given.shape.len()
                && given.shape.iter().product::<u64>() * element_bytes <= bytes_max;
            prop_assert_eq!(manifest.are(&[2], [&given].into_iter()), fits);
            prop_assert_eq!(manifest.items(&[2], [&given].into_iter()), None);
            // The others have their own shape as before.
            let alike = TensorSpec { shape: given.shape, ..manifest.tensors[0].clone() };
            prop_assert_eq!(manifest.is_of(0, &alike), alike == manifest.tensors[0]);
        }
    }

    #[test]
    fn a_variable_tensor_follows_no_batch() {
        let mut manifest = batched();
        manifest.variable = vec![VariableTensor { tensor: 2, bytes_max: 100 }];
        assert_eq!(manifest.check(), Ok(()));
        let found = TensorSpec { shape: vec![7, 3], ..manifest.tensors[2].clone() };
        assert_eq!(manifest.items(&[0, 2], [of_items(&manifest, 0, 4), found].iter()), Some(4));
        let endless = TensorSpec { shape: vec![u64::MAX, 3], ..manifest.tensors[2].clone() };
        assert!(!manifest.is_of(2, &endless));
        manifest.batch = Some(Batch { tensors: vec![0, 2], items_max: 8 });
        assert_eq!(manifest.check(), Err(BadManifest::Index("tensors of a batch")));
    }

    #[test]
    fn a_variable_tensor_is_no_input_and_crosses_no_cut_within_the_graph() {
        for wrong in [0, 1, 9] {
            let mut manifest = manifest();
            manifest.variable = vec![VariableTensor { tensor: wrong, bytes_max: 100 }];
            assert_eq!(manifest.check(), Err(BadManifest::Index("variable tensors")), "{wrong}");
        }
        // However often, though each would do alone: it is looked through for each tensor of a frame.
        let mut manifest = manifest();
        manifest.variable = vec![VariableTensor { tensor: 2, bytes_max: 100 }; 67];
        assert_eq!(manifest.check(), Err(BadManifest::Count("too many variable tensors")));
    }
}
