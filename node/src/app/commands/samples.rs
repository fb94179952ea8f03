//! A folder of samples, as inputs of a model: images through its card, `.npy` and `.npz` files as they
//! are. Other files in it are left alone.

use std::collections::HashMap;
use std::path::Path;

use stormo_protocol::tensor::{Tensor, TensorSpec};

use super::inputs::{read_npy_file, read_npz};
use super::local::read_file;
use crate::app::client::CommandError;
use crate::card::Card;
use crate::ends::ENCODED_BYTES_MAX;
use crate::model::InputDecl;
use crate::sample::Sample;

/// Samples that a calibration gains from; more are not read.
pub(super) const CALIBRATION_MAX: usize = 512;
/// Memory that they may take together, bytes.
const SAMPLES_BYTES_MAX: usize = 1 << 30;

/// What samples are read for.
pub(super) struct For<'a> {
    pub inputs: &'a [InputDecl],
    /// Shapes of inputs whose axes the model leaves open.
    pub shapes: &'a HashMap<String, Vec<u64>>,
    pub card: Option<&'a Card>,
    /// More are not read: then some, at equal distances in the order of their names, so that a folder
    /// sorted by class gives some of each.
    pub count_max: usize,
}

/// Reads the samples of a folder, in the order of their names.
pub(super) fn read_samples(folder: &Path, wanted: &For<'_>) -> Result<Vec<Sample>, CommandError> {
    let wrong = |what: String| CommandError::Here(format!("`{}`: {what}", folder.display()));
    let entries = std::fs::read_dir(folder).map_err(|error| wrong(error.to_string()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| wrong(error.to_string()))?.path();
        if kind(&path).is_some() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(wrong("there are no samples in it: put JPEG, PNG, .npy or .npz files there".to_owned()));
    }
    paths.sort();
    let mut samples = Vec::new();
    let mut bytes_so_far = 0;
    for path in spread(&paths, wanted.count_max) {
        let sample = read_sample(path, wanted)?;
        bytes_so_far += sample.inputs.iter().map(|input| input.data().as_bytes().len()).sum::<usize>();
        if bytes_so_far > SAMPLES_BYTES_MAX {
            break;
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// At most so many, at equal distances.
fn spread<T>(all: &[T], count_max: usize) -> impl Iterator<Item = &T> {
    let count = all.len().min(count_max);
    (0..count).filter_map(move |index| all.get(index * all.len() / count))
}

enum Kind {
    Image,
    Array,
    Archive,
}

fn kind(path: &Path) -> Option<Kind> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "jpg" | "jpeg" | "png" => Some(Kind::Image),
        "npy" => Some(Kind::Array),
        "npz" => Some(Kind::Archive),
        _ => None,
    }
}

fn read_sample(path: &Path, wanted: &For<'_>) -> Result<Sample, CommandError> {
    let wrong = |what: String| CommandError::Here(format!("`{}`: {what}", path.display()));
    let names: Vec<&str> = wanted.inputs.iter().map(|input| input.name.as_str()).collect();
    let mut tensors: Vec<Tensor> = Vec::new();
    match kind(path) {
        Some(Kind::Image) => {
            let card = wanted.card.ok_or_else(|| {
                wrong(
                    "an image needs the model's card (--card FILE), which says how it becomes numbers"
                        .to_owned(),
                )
            })?;
            let specs = specs(wanted).map_err(wrong)?;
            let (inputs, frame) = card
                .prepare(&read_file(path, ENCODED_BYTES_MAX)?, &specs)
                .map_err(|error| wrong(error.to_string()))?;
            return Ok(Sample { inputs, frame: Some(frame) });
        }
        Some(Kind::Archive) => read_npz(path, &names, &mut tensors)?,
        _ => match names.as_slice() {
            [only] => tensors.push(read_npy_file(path, only)?),
            _ => {
                let what = format!("the model has several inputs ({}): use .npz files", names.join(", "));
                return Err(wrong(what));
            }
        },
    }
    let in_order = wanted.inputs.iter().map(|input| {
        let tensor = tensors.iter().find(|tensor| tensor.spec().name == input.name);
        let tensor = tensor.ok_or_else(|| wrong(format!("the input `{}` is missing", input.name)))?;
        let spec = tensor.spec();
        if spec.dtype != input.dtype || !input.accepts(&spec.shape) {
            let got = format!("{} {:?}", spec.dtype.oip_name(), spec.shape);
            return Err(wrong(format!("`{}` is {got}, which the model does not take", input.name)));
        }
        Ok(tensor.clone())
    });
    Ok(Sample { inputs: in_order.collect::<Result<_, _>>()?, frame: None })
}

/// What an image becomes: declared shapes, one image at a time.
fn specs(wanted: &For<'_>) -> Result<Vec<TensorSpec>, String> {
    let spec = |input: &InputDecl| {
        let declared = input.dims.as_ref().filter(|dims| dims.iter().skip(1).all(Option::is_some));
        let shape = wanted.shapes.get(&input.name).cloned();
        let shape = shape.or_else(|| Some(declared?.iter().map(|dim| dim.unwrap_or(1)).collect()));
        let open = || format!("input `{0}` has no fixed shape: --sample-shape {0}=1x3x224x224", input.name);
        Ok(TensorSpec { name: input.name.clone(), dtype: input.dtype, shape: shape.ok_or_else(open)? })
    };
    wanted.inputs.iter().map(spec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_over_the_folder() {
        let of = |count| spread(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], count).copied().collect::<Vec<_>>();
        assert_eq!(of(3), [0, 3, 6]);
        assert_eq!((of(20).len(), of(0).len()), (10, 0));
    }
}
