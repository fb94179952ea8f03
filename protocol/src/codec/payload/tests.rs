//! Round trips, bounds of error, golden bytes, and arbitrary bytes from strangers.

use proptest::prelude::*;

use super::*;
use crate::limits::TEXTS_BYTES_MAX;
use crate::tensor::{DType, TensorSpec};

fn spec(dtype: DType, shape: &[u64]) -> TensorSpec {
    TensorSpec { name: "x".into(), dtype, shape: shape.to_vec() }
}

fn tensor(shape: &[u64], numbers: &[f32]) -> Tensor {
    Tensor::new(spec(DType::F32, shape), TensorData::copied_from(bytemuck::cast_slice(numbers))).unwrap()
}

/// Waves, smooth as feature maps are, with zeros as a ReLU leaves them.
fn activations(shape: &[u64]) -> Tensor {
    let elements = shape.iter().product::<u64>();
    let wave = |index: u64| ((index as f32 * 0.05).sin() + (index as f32 * 0.003).cos()).max(0.0);
    tensor(shape, &(0..elements).map(wave).collect::<Vec<f32>>())
}

fn round_trip(codec: Codec, tensor: &Tensor) -> (Codec, usize, Tensor) {
    let mut scratch = Scratch::default();
    let coded = CodedTensor::encode(codec, tensor, &mut scratch);
    let (used, bytes) = (coded.codec(), coded.bytes().len());
    assert!(codec.may_become(used));
    assert_eq!(check_length(used, tensor.spec(), bytes as u64), Ok(tensor.data().as_bytes().len() as u64));
    (used, bytes, coded.decode(&mut scratch).unwrap())
}

fn numbers(tensor: &Tensor) -> &[f32] {
    tensor.data().as_slice_of().unwrap()
}

/// Largest error that rounding may make of this number.
fn error_max(codec: Codec, number: f32, low: f32, high: f32) -> f32 {
    match codec {
        Codec::F16 | Codec::F16Lz4 => (number.abs() / 2048.0).max(2.0f32.powi(-25)),
        // Half a step; the rest is f32's own rounding of the product, and of ends far from zero.
        Codec::Int8 | Codec::Int8Lz4 | Codec::Int8Zstd => {
            (high - low) / 255.0 * 0.5002 + low.abs().max(high.abs()) * 2.5e-7 + 1e-36
        }
        Codec::Raw | Codec::ShuffleLz4 => 0.0,
    }
}

fn assert_close(codec: Codec, before: &Tensor, after: &Tensor) {
    assert_eq!(before.spec(), after.spec());
    if codec.is_lossless() {
        assert_eq!(before, after);
        return;
    }
    let channel = int8::channel_elements(before.spec()).unwrap();
    for (before, after) in numbers(before).chunks(channel).zip(numbers(after).chunks(channel)) {
        let low = before.iter().copied().fold(f32::INFINITY, f32::min);
        let high = before.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for (before, after) in before.iter().zip(after) {
            let (error, max) = ((before - after).abs(), error_max(codec, *before, low, high));
            assert!(error <= max, "{}: {before} became {after} in {low}..{high}", codec.name());
        }
    }
}

#[test]
fn activations_round_trip_and_shrink() {
    let tensor = activations(&[1, 12, 40, 40]);
    let raw_bytes = tensor.data().as_bytes().len();
    for (codec, ratio_min) in Codec::ALL.into_iter().zip([1.0, 1.2, 2.0, 2.5, 3.9, 5.0, 6.0]) {
        let (used, bytes, back) = round_trip(codec, &tensor);
        assert_eq!(used, codec);
        assert!(raw_bytes as f64 / bytes as f64 >= ratio_min, "{}: {raw_bytes} to {bytes}", codec.name());
        assert_close(codec, &tensor, &back);
    }
}

#[test]
fn elements_of_every_width_round_trip() {
    let bytes: Vec<u8> = (0..8 * 3 * 700u32).map(|byte| (byte / 64) as u8).collect();
    for dtype in DType::ALL {
        let spec = spec(dtype, &[3, 700]);
        let data = match dtype {
            DType::Text => TensorData::of_texts(["some", "texts", ""].repeat(700)).unwrap(),
            _ => TensorData::copied_from(&bytes[..spec.byte_length().unwrap() as usize]),
        };
        let tensor = Tensor::new(spec, data).unwrap();
        for codec in Codec::ALL {
            let (used, _, back) = round_trip(codec, &tensor);
            match codec.applies_to(tensor.spec()) {
                true => assert!(used == codec || !codec.is_lossless(), "{} of {dtype:?}", codec.name()),
                false => assert_eq!(used, Codec::Raw),
            }
            if used.is_lossless() {
                assert_eq!(back, tensor);
            }
        }
    }
}

#[test]
fn numbers_that_are_none_are_sent_as_they_are() {
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // Once among the lanes, once in the rest.
        for place in [3, 98] {
            let mut of_one = vec![0.5; 99];
            of_one[place] = odd;
            let tensor = tensor(&[1, 1, 99], &of_one);
            for codec in [Codec::Int8, Codec::Int8Lz4, Codec::Int8Zstd] {
                assert_eq!(round_trip(codec, &tensor), (Codec::Raw, 396, tensor.clone()));
            }
            let (used, _, back) = round_trip(Codec::F16, &tensor);
            assert_eq!(used, Codec::F16);
            assert_eq!(numbers(&back)[place].to_string(), odd.to_string());
        }
    }
}

#[test]
fn what_would_become_infinite_is_sent_as_it_is() {
    let wide = tensor(&[40], &[[f32::MAX; 20], [f32::MIN; 20]].concat());
    for codec in [Codec::F16, Codec::F16Lz4, Codec::Int8, Codec::Int8Lz4, Codec::Int8Zstd] {
        assert_eq!(round_trip(codec, &wide).0, Codec::Raw);
    }
    let above_half = tensor(&[40], &[70_000.0; 40]);
    assert_eq!(round_trip(Codec::F16Lz4, &above_half).0, Codec::Raw);
    let (used, _, back) = round_trip(Codec::Int8, &above_half);
    assert_eq!((used, back), (Codec::Int8, above_half));
}

#[test]
fn what_does_not_shrink_goes_by_the_simpler_codec() {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from_bits(state >> 9 | 0x3f80_0000)
    };
    let noise = tensor(&[1, 4, 500], &(0..2000).map(|_| noise()).collect::<Vec<_>>());
    assert_eq!(round_trip(Codec::Int8Lz4, &noise).0, Codec::Int8);
    assert_eq!(round_trip(Codec::Int8Zstd, &noise).0, Codec::Int8);
    for codec in Codec::ALL {
        assert_eq!(round_trip(codec, &tensor(&[], &[7.5])).1, 4);
        assert_eq!(round_trip(codec, &tensor(&[3, 0], &[])).0, Codec::Raw);
    }
}

#[test]
fn channels_are_the_axes_from_2_on_where_that_is_long_enough() {
    let elements = |shape: &[u64]| int8::channel_elements(&spec(DType::F32, shape));
    assert_eq!(elements(&[2, 64, 80, 80]), Some(6400));
    assert_eq!(elements(&[7, 1, 32]), Some(32));
    assert_eq!(elements(&[5, 64, 2, 2]), Some(256));
    assert_eq!(elements(&[2, 1000]), Some(1000));
    assert_eq!(elements(&[8, 4]), Some(32));
    assert_eq!(elements(&[1000]), Some(1000));
    assert_eq!(elements(&[]), Some(1));
    assert_eq!(elements(&[0, u64::MAX, u64::MAX]), None);
}

#[test]
fn a_channel_has_its_own_range() {
    let small = (0..32).map(|index| index as f32 * 1e-3);
    let both: Vec<f32> = small.clone().chain(small.map(|number| number * 1e6)).collect();
    let tensor = tensor(&[1, 2, 32], &both);
    let (_, _, back) = round_trip(Codec::Int8, &tensor);
    assert!((numbers(&back)[17] - 0.017).abs() < 1e-4);
}

/// The bytes as version 1 defines them: a change here is a change of the protocol.
#[test]
fn golden_bytes_of_version_1() {
    let mut scratch = Scratch::default();
    let mut coded = |codec, numbers: &[f32]| {
        let tensor = tensor(&[1, 1, numbers.len() as u64], numbers);
        let coded = encode(codec, &tensor, &mut scratch);
        assert_eq!(coded.codec, codec);
        coded.bytes.to_vec()
    };
    assert_eq!(coded(Codec::Raw, &[1.0, -2.0]), [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
    assert_eq!(coded(Codec::F16, &[1.0, -2.0].repeat(16)), [0, 0x3c, 0, 0xc0].repeat(16));
    // From -1 in steps of 1/64.
    let mut numbers = vec![0.0; 32];
    numbers[0] = -1.0;
    numbers[31] = 255.0 / 64.0 - 1.0;
    let head = [0, 0, 0x80, 0xbf, 0, 0, 0x80, 0x3c];
    let int8 = [&head[..], &[0], &[64; 30], &[255]].concat();
    assert_eq!(coded(Codec::Int8, &numbers), int8);
}

/// Compressors may improve, so their own output is not golden; that what they gave once is still read is.
#[test]
fn golden_compressed_bytes_of_version_1_are_read() {
    let mut scratch = Scratch::default();
    let zeros = spec(DType::F32, &[1, 1, 64]);
    let mut decoded = |codec, bytes: &[u8]| decode(codec, &zeros, bytes, &mut scratch).unwrap();
    let ones = TensorData::copied_from(bytemuck::cast_slice(&[1.0f32; 64]));
    // 128 zeros, 64 times 0x80, 64 times 0x3f, in LZ4: literal and a match of distance 1 each.
    let shuffled =
        [0x1f, 0, 1, 0, 108, 0x1f, 0x80, 1, 0, 44, 0x1f, 0x3f, 1, 0, 39, 0x50, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f];
    assert_eq!(decoded(Codec::ShuffleLz4, &shuffled), ones);
    let halfs = [0x2f, 0, 0x3c, 2, 0, 102, 0x50, 0x3c, 0, 0x3c, 0, 0x3c];
    assert_eq!(decoded(Codec::F16Lz4, &halfs), ones);
    let head = [0, 0, 0x80, 0x3f, 0, 0, 0, 0];
    let levels = [0x1f, 0, 1, 0, 39, 0x50, 0, 0, 0, 0, 0];
    assert_eq!(decoded(Codec::Int8Lz4, &[&head[..], &levels].concat()), ones);
    // Magic number, single segment of 64 bytes, one last block: 64 times 0.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 64, 0x03, 0x02, 0x00, 0];
    assert_eq!(decoded(Codec::Int8Zstd, &[&head[..], &frame].concat()), ones);
}

#[test]
fn lengths_that_no_encoder_gives_are_refused() {
    let image = spec(DType::F32, &[1, 2, 64]);
    let possible = |codec, bytes| check_length(codec, &image, bytes).is_ok();
    assert!(possible(Codec::Raw, 512) && !possible(Codec::Raw, 511) && !possible(Codec::Raw, 513));
    assert!(possible(Codec::ShuffleLz4, 511) && !possible(Codec::ShuffleLz4, 512));
    assert!(possible(Codec::F16, 256) && !possible(Codec::F16, 255));
    assert!(possible(Codec::F16Lz4, 255) && !possible(Codec::F16Lz4, 256));
    assert!(possible(Codec::Int8, 144) && !possible(Codec::Int8, 143));
    assert!(possible(Codec::Int8Lz4, 17) && !possible(Codec::Int8Lz4, 16));
    assert!(possible(Codec::Int8Zstd, 143) && !possible(Codec::Int8Zstd, 144));
    assert!(Codec::ALL.iter().all(|codec| !possible(*codec, 0) && !possible(*codec, u64::MAX)));
    let integers = spec(DType::I32, &[64]);
    assert_eq!(check_length(Codec::F16, &integers, 128), Err(BadPayload::Announced(Codec::F16)));
    let huge = spec(DType::F32, &[1 << 28]);
    assert_eq!(check_length(Codec::ShuffleLz4, &huge, 9), Err(BadPayload::AboveLimit));
}

#[test]
fn texts_travel_as_they_are_and_are_checked_on_arrival() {
    let words = spec(DType::Text, &[2]);
    assert_eq!(check_length(Codec::Raw, &words, 9), Ok(9));
    assert_eq!(check_length(Codec::Raw, &words, 7), Err(BadPayload::Announced(Codec::Raw)));
    let above = TEXTS_BYTES_MAX + 1;
    assert_eq!(check_length(Codec::Raw, &words, above), Err(BadPayload::Announced(Codec::Raw)));
    assert_eq!(check_length(Codec::Raw, &spec(DType::Text, &[1 << 40]), 9), Err(BadPayload::AboveLimit));
    for codec in Codec::ALL.into_iter().filter(|codec| *codec != Codec::Raw) {
        assert_eq!(check_length(codec, &words, 9), Err(BadPayload::Announced(codec)));
    }
    let arrived = |bytes: &[u8]| {
        let bytes = TensorData::copied_from(bytes);
        CodedTensor::new(words.clone(), Codec::Raw, bytes).unwrap().decode(&mut Scratch::default())
    };
    assert!(arrived(b"\x01\0\0\0a\0\0\0\0").is_ok());
    assert_eq!(arrived(b"\x02\0\0\0a\0\0\0\0"), Err(BadPayload::Malformed(Codec::Raw)));
}

#[test]
fn a_head_that_leads_to_infinity_is_refused() {
    let image = spec(DType::F32, &[32]);
    for (low, step) in [(f32::NAN, 0.0), (0.0, f32::INFINITY), (f32::MAX, f32::MAX), (0.0, -1.0)] {
        let coded = [&low.to_le_bytes()[..], &step.to_le_bytes(), &[1; 32]].concat();
        let refused = Err(BadPayload::Malformed(Codec::Int8));
        assert_eq!(decode(Codec::Int8, &image, &coded, &mut Scratch::default()), refused);
    }
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(Codec::ALL.to_vec())
}

fn any_number() -> impl Strategy<Value = f32> {
    prop_oneof![4 => -1e3f32..1e3, 2 => Just(0.0), 1 => any::<f32>()]
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    (prop::collection::vec(0u64..6, 0..5), prop::sample::select(DType::ALL.to_vec())).prop_flat_map(
        |(shape, dtype)| {
            let spec = spec(dtype, &shape);
            let bytes = spec.byte_length().unwrap() as usize;
            let data = match dtype {
                DType::F32 => prop::collection::vec(any_number(), bytes / 4)
                    .prop_map(|numbers| TensorData::copied_from(bytemuck::cast_slice(&numbers)))
                    .boxed(),
                DType::Text => prop::collection::vec("[a-z]{0,9}", spec.elements().unwrap() as usize)
                    .prop_map(|texts| TensorData::of_texts(texts.iter().map(String::as_str)).unwrap())
                    .boxed(),
                _ => prop::collection::vec(any::<u8>(), bytes)
                    .prop_map(|data| TensorData::copied_from(&data))
                    .boxed(),
            };
            data.prop_map(move |data| Tensor::new(spec.clone(), data).unwrap())
        },
    )
}

proptest! {
    #[test]
    fn every_tensor_round_trips(tensor in any_tensor(), codec in any_codec()) {
        let (used, bytes, back) = round_trip(codec, &tensor);
        prop_assert!(bytes <= tensor.data().as_bytes().len());
        if used.is_lossless() {
            prop_assert_eq!(back, tensor);
        } else if numbers(&tensor).iter().all(|number| number.is_finite()) {
            assert_close(used, &tensor, &back);
        }
    }

    #[test]
    fn a_scratch_carries_nothing_over(first in any_tensor(), second in any_tensor(), codec in any_codec()) {
        let mut used = Scratch::default();
        CodedTensor::encode(codec, &first, &mut used).decode(&mut used).unwrap();
        let with_used = CodedTensor::encode(codec, &second, &mut used);
        prop_assert_eq!(with_used, CodedTensor::encode(codec, &second, &mut Scratch::default()));
    }

    #[test]
    fn any_bytes_are_decoded_without_panic(
        codec in any_codec(),
        dtype in prop::sample::select(DType::ALL.to_vec()),
        shape in prop::collection::vec(prop_oneof![4 => 0u64..40, 1 => any::<u64>()], 0..10),
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let spec = spec(dtype, &shape);
        if let Ok(data) = decode(codec, &spec, &bytes, &mut Scratch::default()) {
            prop_assert!(spec.byte_lengths().unwrap().contains(&(data.as_bytes().len() as u64)));
        }
    }

    /// Damaged payloads get further into a decoder than arbitrary ones.
    #[test]
    fn damaged_bytes_are_decoded_without_panic(
        codec in any_codec(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let tensor = activations(&[1, 3, 9, 10]);
        let mut scratch = Scratch::default();
        let coded = encode(codec, &tensor, &mut scratch);
        let (codec, mut bytes) = (coded.codec, coded.bytes.to_vec());
        for (place, value) in flips {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(data) = decode(codec, tensor.spec(), &bytes, &mut scratch) {
            prop_assert_eq!(data.as_bytes().len(), 1080);
        }
    }
}

#[test]
fn codecs_have_one_number_and_one_name_everywhere() {
    for codec in Codec::ALL {
        assert_eq!(Codec::from_number(codec as u8), Some(codec));
        assert_eq!(Codec::from_name(codec.name()), Some(codec));
        assert_eq!(crate::codec::encode(&codec), [codec as u8]);
    }
    assert_eq!((Codec::from_number(7), Codec::from_name("int4")), (None, None));
}

#[test]
fn a_codec_becomes_only_simpler_ones() {
    let becomes =
        |codec: Codec| Codec::ALL.into_iter().filter(|used| codec.may_become(*used)).collect::<Vec<_>>();
    assert_eq!(becomes(Codec::Raw), [Codec::Raw]);
    assert_eq!(becomes(Codec::ShuffleLz4), [Codec::Raw, Codec::ShuffleLz4]);
    assert_eq!(becomes(Codec::F16Lz4), [Codec::Raw, Codec::F16, Codec::F16Lz4]);
    assert_eq!(becomes(Codec::Int8Zstd), [Codec::Raw, Codec::Int8, Codec::Int8Zstd]);
}

#[test]
fn small_tensors_are_never_rounded() {
    let place = tensor(&[31], &[0.3; 31]);
    for codec in Codec::ALL {
        assert_eq!(round_trip(codec, &place).2, place);
    }
    assert_eq!(check_length(Codec::F16, place.spec(), 62), Err(BadPayload::Announced(Codec::F16)));
}
