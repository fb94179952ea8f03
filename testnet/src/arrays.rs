//! Arrays of 32-bit floats in NumPy's files, as the shared models keep their golden inputs.

use std::fs::File;
use std::io;
use std::path::Path;

use half::f16;
use npyz::{DType, NpyFile, WriterBuilder};

use crate::oip::FloatTensor;

/// What precedes the names of expected outputs.
const OUTPUT_PREFIX: &str = "out:";

/// A model's input, and what it should give.
#[derive(Debug, Clone)]
pub struct Golden {
    /// Inputs.
    pub inputs: Vec<FloatTensor>,
    /// Outputs.
    pub outputs: Vec<FloatTensor>,
}

/// Reads an `.npz` file; half-precision floats are widened.
///
/// # Errors
/// When it cannot be read, or holds something else than 32-bit and 16-bit floats.
pub fn read_golden(path: &Path) -> io::Result<Golden> {
    let mut archive = zip::ZipArchive::new(File::open(path)?).map_err(io::Error::other)?;
    let mut golden = Golden { inputs: Vec::new(), outputs: Vec::new() };
    for index in 0..archive.len() {
        let member = archive.by_index(index).map_err(io::Error::other)?;
        let name = member.name().trim_end_matches(".npy").to_owned();
        let array = NpyFile::new(member)?;
        let shape = array.shape().to_vec();
        let tensor = |name: &str, data| FloatTensor {
            name: name.to_owned(),
            shape,
            datatype: "FP32".to_owned(),
            data,
        };
        let is_half = matches!(array.dtype(), DType::Plain(kind) if kind.num_bytes() == Some(2));
        let data = match is_half {
            true => array.into_vec::<f16>()?.into_iter().map(f32::from).collect(),
            false => array.into_vec::<f32>()?,
        };
        match name.strip_prefix(OUTPUT_PREFIX) {
            Some(output) => golden.outputs.push(tensor(output, data)),
            None => golden.inputs.push(tensor(&name, data)),
        }
    }
    Ok(golden)
}

/// Writes a `.npy` file.
///
/// # Errors
/// What the system says.
pub fn write_npy(path: &Path, tensor: &FloatTensor) -> io::Result<()> {
    write(File::create(path)?, tensor)
}

/// Writes an `.npz` file.
///
/// # Errors
/// What the system says.
pub fn write_npz(path: &Path, tensors: &[FloatTensor]) -> io::Result<()> {
    let mut archive = zip::ZipWriter::new(File::create(path)?);
    for tensor in tensors {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(format!("{}.npy", tensor.name), options).map_err(io::Error::other)?;
        write(&mut archive, tensor)?;
    }
    archive.finish().map(drop).map_err(io::Error::other)
}

fn write(to: impl io::Write, tensor: &FloatTensor) -> io::Result<()> {
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&tensor.shape).writer(to).begin_nd()?;
    writer.extend(tensor.data.iter().copied())?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oip::InferRequest;

    #[test]
    fn archives_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let input = InferRequest::new("x", &[1, 2], vec![0.5, -1.0]).inputs;
        let output = InferRequest::new("out:y", &[3], vec![1.0, 2.0, 3.0]).inputs;
        write_npz(&path, &[input.clone(), output].concat()).unwrap();
        let golden = read_golden(&path).unwrap();
        assert_eq!(golden.inputs, input);
        assert_eq!((golden.outputs[0].name.as_str(), golden.outputs[0].data.len()), ("y", 3));
    }
}
