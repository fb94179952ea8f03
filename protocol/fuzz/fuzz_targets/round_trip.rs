//! Any numbers through every codec: what was encoded is decoded, lossless ones to the bit, and no codec
//! makes infinity of a number or a number of infinity.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use stormo_protocol::codec::payload::{Codec, CodedTensor, Scratch};
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[codec, channels], numbers)) = bytes.split_first_chunk::<2>() else { return };
    let codec = Codec::ALL[usize::from(codec) % Codec::ALL.len()];
    let channels = usize::from(channels % 8) + 1;
    let elements = numbers.len() / 4 / channels;
    let shape = vec![1, channels as u64, elements as u64];
    let spec = TensorSpec { name: String::new(), dtype: DType::F32, shape };
    let data = TensorData::copied_from(&numbers[..channels * elements * 4]);
    let tensor = Tensor::new(spec, data).unwrap();
    SCRATCH.with_borrow_mut(|scratch| {
        let coded = CodedTensor::encode(codec, &tensor, scratch);
        assert!(coded.bytes().len() <= tensor.data().as_bytes().len());
        let used = coded.codec();
        let back = coded.decode(scratch).unwrap();
        if used.is_lossless() {
            assert_eq!(back, tensor);
        }
        let (before, after) = (tensor.data().as_slice_of::<f32>(), back.data().as_slice_of::<f32>());
        for (before, after) in before.unwrap().iter().zip(after.unwrap()) {
            assert_eq!(before.is_finite(), after.is_finite(), "{before} became {after}");
        }
    });
});
