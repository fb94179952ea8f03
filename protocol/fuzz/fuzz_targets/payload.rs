//! Coded bytes of a tensor. The first bytes say which codec, element type and shape.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use stormo_protocol::codec::payload::{Codec, Scratch, decode};
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};

/// Larger tensors only make runs slower.
const BYTES_MAX: u64 = 256 << 10;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[codec, dtype, rank, first, second, third], coded)) = bytes.split_first_chunk::<6>() else { return };
    // Mostly what codecs differ on, and what must be checked.
    let dtype = match dtype {
        0..128 => DType::F32,
        128..160 => DType::Text,
        _ => DType::ALL[usize::from(dtype) % DType::ALL.len()],
    };
    let codec = Codec::ALL[usize::from(codec) % Codec::ALL.len()];
    let shape = [first, second, third].map(u64::from)[..usize::from(rank % 4)].to_vec();
    let spec = TensorSpec { name: String::new(), dtype, shape };
    let Some(length) = spec.byte_length().ok().filter(|length| *length <= BYTES_MAX) else { return };
    let decoded = SCRATCH.with_borrow_mut(|scratch| decode(codec, &spec, coded, scratch));
    let Ok(data) = decoded else { return };
    if dtype != DType::Text {
        assert_eq!(data.as_bytes().len() as u64, length);
        return;
    }
    // Texts are checked when they become a tensor; what passes is written just so.
    let Ok(tensor) = Tensor::new(spec, data) else { return };
    let texts: Vec<&str> = tensor.texts().unwrap().collect();
    assert_eq!(texts.len() as u64, tensor.spec().elements().unwrap());
    assert_eq!(TensorData::of_texts(texts).unwrap(), *tensor.data());
});
