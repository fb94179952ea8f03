//! The inputs of `stormo infer`: images, `.npy` and `.npz` files, lines of text, turned into the model's
//! tensors.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use image::imageops::FilterType;
use ndarray::Array4;
use npyz::{DType as NpyType, NpyFile, TypeChar};
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};

use super::local::read_file;
use super::texts::read_texts;
use crate::app::client::CommandError;
use crate::ends::{ENCODED_BYTES_MAX, bytes_tensor};
use crate::files;
use crate::serve::json::{ModelView, TensorView};
use stormo_protocol::model::ENCODED_IMAGE;

/// Largest array that is read, bytes.
const ARRAY_BYTES_MAX: u64 = 256 << 20;
/// With the header before it, which tells type and shape.
const ARRAY_FILE_BYTES_MAX: u64 = ARRAY_BYTES_MAX + (1 << 20);
/// Largest image, pixels to a side.
const IMAGE_SIDE_MAX: u32 = 16_384;
/// Memory that decoding an image may take, bytes.
pub(super) const IMAGE_BYTES_MAX: u64 = 512 << 20;

fn wrong(what: impl Into<String>) -> CommandError {
    CommandError::Here(what.into())
}

/// Reads all inputs as given on the command line.
pub(super) fn read_inputs(given: &[String], model: &ModelView) -> Result<Vec<Tensor>, CommandError> {
    let mut tensors = Vec::new();
    for argument in given {
        let (name, path) = split(argument, &model.inputs);
        read_input(Path::new(path), name, model, &mut tensors, |note| eprintln!("note: {note}"))?;
    }
    Ok(tensors)
}

/// Reads a file of one input, or of several if it is an archive; without a name, the model has one only. What became of
/// an image that no card describes is noted.
pub(super) fn read_input(
    path: &Path,
    name: Option<&str>,
    model: &ModelView,
    into: &mut Vec<Tensor>,
    note: impl FnOnce(&str),
) -> Result<(), CommandError> {
    let inputs = &model.inputs;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npz") => {
            let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
            read_npz(path, &names, into)?;
        }
        Some("npy") => into.push(read_npy_file(path, &only_name(name, inputs)?)?),
        _ if model.card.is_some() => into.push(read_encoded(path)?),
        _ => {
            let input = input_of(&only_name(name, inputs)?, inputs)?;
            if input.datatype == DType::Text.oip_name() {
                into.push(read_texts(path, &input)?);
            } else {
                into.push(read_image(path, &input)?);
                note(&how_scaled(&format!("`{}`", path.display()), &input));
            }
        }
    }
    Ok(())
}

/// An image that is in memory, as the model's only input.
///
/// # Errors
/// When the model takes no image.
pub(super) fn image_input(
    bytes: &[u8],
    model: &ModelView,
    note: impl FnOnce(&str),
) -> Result<Tensor, CommandError> {
    if model.card.is_some() {
        return bytes_tensor(ENCODED_IMAGE, bytes).ok_or_else(|| wrong("the image is too long"));
    }
    let input = input_of(&only_name(None, &model.inputs)?, &model.inputs)?;
    let tensor = image_tensor(bytes, &input).map_err(wrong)?;
    note(&how_scaled("each image", &input));
    Ok(tensor)
}

/// The image among the inputs that goes to the model as it is.
pub(super) fn encoded_image<'a>(given: &'a [String], model: &ModelView) -> Option<&'a Path> {
    let mut paths = given.iter().map(|argument| Path::new(split(argument, &model.inputs).1));
    let is_array =
        |path: &Path| path.extension().is_some_and(|extension| extension == "npy" || extension == "npz");
    model.card.as_ref().and_then(|_| paths.find(|path| !is_array(path)))
}

/// `NAME=FILE`, where NAME is one of the model's inputs; otherwise a file.
fn split<'a>(argument: &'a str, inputs: &[TensorView]) -> (Option<&'a str>, &'a str) {
    let named = inputs.iter().find_map(|input| {
        let path = argument.strip_prefix(input.name.as_str())?.strip_prefix('=')?;
        Some((Some(&argument[..input.name.len()]), path))
    });
    named
        .or_else(|| argument.split_once('=').map(|(name, path)| (Some(name), path)))
        .unwrap_or((None, argument))
}

fn only_name(name: Option<&str>, inputs: &[TensorView]) -> Result<String, CommandError> {
    match (name, inputs) {
        (Some(name), _) => Ok(name.to_owned()),
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => {
            let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
            Err(wrong(format!("the model has several inputs ({}); say which: NAME=FILE", names.join(", "))))
        }
    }
}

fn input_of(name: &str, inputs: &[TensorView]) -> Result<TensorView, CommandError> {
    inputs.iter().find(|input| input.name == name).cloned().ok_or_else(|| {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        wrong(format!("the model has no input `{name}`; its inputs: {}", names.join(", ")))
    })
}

fn open(path: &Path) -> Result<BufReader<File>, CommandError> {
    let file = files::open(path).map_err(|error| wrong(format!("`{}`: {error}", path.display())))?;
    Ok(BufReader::new(file))
}

pub(super) fn read_npy_file(path: &Path, name: &str) -> Result<Tensor, CommandError> {
    read_npy(open(path)?.take(ARRAY_FILE_BYTES_MAX), name)
        .map_err(|error| wrong(format!("`{}`: {error}", path.display())))
}

/// All arrays of the archive that are inputs of the model; others (such as expected outputs) are left.
pub(super) fn read_npz(path: &Path, inputs: &[&str], into: &mut Vec<Tensor>) -> Result<(), CommandError> {
    let told = |error: &dyn std::fmt::Display| wrong(format!("`{}`: {error}", path.display()));
    let mut archive = zip::ZipArchive::new(open(path)?).map_err(|error| told(&error))?;
    let before = into.len();
    for input in inputs {
        let name = format!("{input}.npy");
        if archive.index_for_name(&name).is_some() {
            let member = archive.by_name(&name).map_err(|error| told(&error))?;
            into.push(read_npy(member.take(ARRAY_FILE_BYTES_MAX), input).map_err(|error| told(&error))?);
        }
    }
    if into.len() > before {
        return Ok(());
    }
    Err(told(&format!("holds none of the model's inputs ({})", inputs.join(", "))))
}

fn read_npy(reader: impl Read, name: &str) -> Result<Tensor, String> {
    let file = NpyFile::new(reader).map_err(|error| format!("is no .npy file: {error}"))?;
    if file.order() != npyz::Order::C {
        return Err("is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let dtype = dtype_of(&file.dtype())?;
    let spec = TensorSpec { name: name.to_owned(), dtype, shape: file.shape().to_vec() };
    let bytes = spec.byte_length().map_err(|error| error.to_string())?;
    if bytes > ARRAY_BYTES_MAX {
        return Err(format!("has {bytes} bytes, above the limit of {ARRAY_BYTES_MAX}"));
    }
    let data = raw_bytes(file, dtype).map_err(|error| format!("ends early or is damaged: {error}"))?;
    Tensor::new(spec, TensorData::copied_from(&data)).map_err(|error| error.to_string())
}

fn dtype_of(npy: &NpyType) -> Result<DType, String> {
    let NpyType::Plain(plain) = npy else { return Err("holds records, not numbers".into()) };
    if plain.endianness() == npyz::Endianness::Big {
        return Err("is big-endian; save it with astype('<f4') or the like".into());
    }
    match (plain.type_char(), plain.num_bytes().unwrap_or(0)) {
        (TypeChar::Float, 2) => Ok(DType::F16),
        (TypeChar::Float, 4) => Ok(DType::F32),
        (TypeChar::Float, 8) => Ok(DType::F64),
        (TypeChar::Int, 1) => Ok(DType::I8),
        (TypeChar::Int, 2) => Ok(DType::I16),
        (TypeChar::Int, 4) => Ok(DType::I32),
        (TypeChar::Int, 8) => Ok(DType::I64),
        (TypeChar::Uint, 1) => Ok(DType::U8),
        (TypeChar::Uint, 2) => Ok(DType::U16),
        (TypeChar::Uint, 4) => Ok(DType::U32),
        (TypeChar::Uint, 8) => Ok(DType::U64),
        (TypeChar::Bool, _) => Ok(DType::Bool),
        (TypeChar::UnicodeStr | TypeChar::ByteStr, _) => {
            Err("holds texts; `stormo infer` reads them from a .txt file, one on each line".into())
        }
        _ => Err(format!("holds `{}`, which no tensor can", npy.descr())),
    }
}

fn raw_bytes(file: NpyFile<impl Read>, dtype: DType) -> std::io::Result<Vec<u8>> {
    macro_rules! numbers {
        ($type:ty) => {{
            let values: Vec<$type> = file.into_vec()?;
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        }};
    }
    Ok(match dtype {
        DType::F32 => numbers!(f32),
        DType::F64 => numbers!(f64),
        DType::F16 | DType::BF16 => {
            let values: Vec<half::f16> = file.into_vec()?;
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        DType::I8 => numbers!(i8),
        DType::I16 => numbers!(i16),
        DType::I32 => numbers!(i32),
        DType::I64 => numbers!(i64),
        DType::U8 => numbers!(u8),
        DType::U16 => numbers!(u16),
        DType::U32 => numbers!(u32),
        DType::U64 => numbers!(u64),
        DType::Bool => {
            let values: Vec<bool> = file.into_vec()?;
            values.into_iter().map(u8::from).collect()
        }
        DType::Text => return Err(std::io::ErrorKind::Unsupported.into()),
    })
}

/// An image as it is, for a model whose card says what to do with it.
fn read_encoded(path: &Path) -> Result<Tensor, CommandError> {
    let told = |error: &dyn std::fmt::Display| wrong(format!("`{}`: {error}", path.display()));
    let bytes = read_file(path, ENCODED_BYTES_MAX)?;
    bytes_tensor(ENCODED_IMAGE, &bytes).ok_or_else(|| told(&"is too long"))
}

/// An image for a model without a card.
fn read_image(path: &Path, input: &TensorView) -> Result<Tensor, CommandError> {
    // A decoder may read all of the file.
    let bytes = read_file(path, IMAGE_BYTES_MAX)?;
    image_tensor(&bytes, input).map_err(|error| wrong(format!("`{}`: {error}", path.display())))
}

/// What became of an image, and what to do if that is wrong.
fn how_scaled(what: &str, input: &TensorView) -> String {
    let [.., height, width] = input.shape[..] else { return String::new() };
    format!(
        "{what} is resized to {width}x{height} and its pixels go from 0 to 1; a model that was trained on other numbers \
         needs {}=FILE.npy",
        input.name
    )
}

/// An image for a model with one NCHW float input: resized to its size, pixels from 0 to 1. Models
/// that want other numbers get a `.npy` file.
///
/// # Errors
/// In words, when the input takes no image, or the bytes are none.
fn image_tensor(bytes: &[u8], input: &TensorView) -> Result<Tensor, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let [1, channels @ (1 | 3), height, width] = input.shape[..] else {
        return Err(told(&format!(
            "an image needs an input of shape [1, 1 or 3, height, width]; `{}` has {:?}; give {}=FILE.npy",
            input.name, input.shape, input.name
        )));
    };
    if input.datatype != DType::F32.oip_name() {
        return Err(told(&format!("an image needs an FP32 input; `{}` is {}", input.name, input.datatype)));
    }
    let mut reader =
        image::ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| told(&error))?;
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(IMAGE_SIDE_MAX);
    limits.max_image_height = Some(IMAGE_SIDE_MAX);
    limits.max_alloc = Some(IMAGE_BYTES_MAX);
    reader.limits(limits);
    let image = reader
        .decode()
        .map_err(|error| told(&format!("is neither a JPEG, a PNG, a .npy nor a .npz file: {error}")))?;
    let (width, height) = (width as u32, height as u32);
    let same_size = (image.width(), image.height()) == (width, height);
    let image = if same_size { image } else { image.resize_exact(width, height, FilterType::Triangle) };
    let pixels = if channels == 1 { image.to_luma8().into_raw() } else { image.to_rgb8().into_raw() };
    let (channels, height, width) = (channels as usize, height as usize, width as usize);
    let value = |(_, channel, row, column): (usize, usize, usize, usize)| {
        f32::from(pixels[(row * width + column) * channels + channel]) / 255.0
    };
    let array = Array4::from_shape_fn((1, channels, height, width), value);
    let data: Vec<u8> = array.iter().flat_map(|value| value.to_le_bytes()).collect();
    let spec = TensorSpec { name: input.name.clone(), dtype: DType::F32, shape: input.shape.clone() };
    Tensor::new(spec, TensorData::copied_from(&data)).map_err(|error| told(&error))
}
