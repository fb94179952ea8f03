//! Tensors: shapes, lengths, bounds.

use super::*;
use crate::limits::TEXTS_BYTES_MAX;

fn spec(shape: &[u64]) -> TensorSpec {
    TensorSpec { name: "x".into(), dtype: DType::F32, shape: shape.to_vec() }
}

#[test]
fn length_is_shape_times_element() {
    assert_eq!(spec(&[2, 3]).byte_length(), Ok(24));
    assert_eq!(spec(&[]).byte_length(), Ok(4));
    assert_eq!(spec(&[0, 9]).byte_length(), Ok(0));
}

#[test]
fn texts_are_as_long_as_their_data_says() {
    let texts = |shape: &[u64]| TensorSpec { dtype: DType::Text, ..spec(shape) };
    assert_eq!(texts(&[2, 3]).byte_lengths(), Ok(24..=TEXTS_BYTES_MAX));
    assert_eq!(texts(&[0, 3]).byte_lengths(), Ok(0..=0));
    assert_eq!(texts(&[2, 3]).byte_length(), Ok(6 * texts::TEXT_BYTES_TYPICAL));
    assert_eq!(texts(&[1 << 40]).byte_length(), Err(BadTexts::Many(1 << 40).into()));
}

#[test]
fn a_batch_is_a_multiple_of_one_item() {
    assert_eq!(spec(&[1, 3]).items_of(&spec(&[4, 3])), Some(4));
    assert_eq!(spec(&[49, 3]).items_of(&spec(&[98, 3])), Some(2));
    for other in [&[97, 3][..], &[0, 3], &[49, 4], &[49], &[]] {
        assert_eq!(spec(&[49, 3]).items_of(&spec(other)), None, "{other:?}");
    }
    assert_eq!(spec(&[]).items_of(&spec(&[])), None);
    assert_eq!(spec(&[0, 3]).items_of(&spec(&[0, 3])), None);
}

#[test]
fn absurd_shapes_are_refused() {
    assert!(matches!(spec(&[u64::MAX, 2]).byte_length(), Err(BadTensor::Overflow(_))));
    assert_eq!(spec(&[1; 9]).byte_length(), Err(BadTensor::Rank(9)));
}

#[test]
fn data_must_have_the_described_length() {
    let data = TensorData::copied_from(&[0; 23]);
    assert_eq!(Tensor::new(spec(&[2, 3]), data), Err(BadTensor::Length { expected: 24, got: 23 }));
}

#[test]
fn copies_end_where_the_bytes_end() {
    let bytes: Vec<u8> = (1..=20).collect();
    for length in 0..=bytes.len() {
        assert_eq!(TensorData::copied_from(&bytes[..length]).as_bytes(), &bytes[..length]);
    }
}

#[test]
fn shared_memory_is_used_in_place_where_it_is_aligned() {
    struct Part(Vec<u64>, usize);
    impl AsRef<[u8]> for Part {
        fn as_ref(&self) -> &[u8] {
            &bytemuck::cast_slice(&self.0)[self.1..]
        }
    }
    for (from, in_place) in [(0, true), (8, true), (4, false)] {
        let memory = Arc::new(Part(vec![1, 2, 3], from));
        let data = TensorData::shared(memory.clone());
        assert_eq!(data.as_bytes(), (*memory).as_ref());
        assert_eq!(data.as_bytes().as_ptr() == (*memory).as_ref().as_ptr(), in_place);
        assert!(data.as_slice_of::<u32>().is_some());
    }
}

#[test]
fn data_is_read_in_place_as_numbers() {
    let data = TensorData::copied_from(bytemuck::cast_slice(&[1.5f32, -2.0, 3.0]));
    assert_eq!(data.as_slice_of::<f32>(), Some(&[1.5, -2.0, 3.0][..]));
    assert_eq!(data.as_slice_of::<f64>(), None);
}
