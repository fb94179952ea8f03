//! Each family on tiny outputs with known boxes.

use proptest::prelude::*;
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};

use crate::card::{Card, Detection, Frame, Meaning, ReadError};

/// An image twice as large as the input, with bars of 4 pixels above and below.
const FRAME: Frame =
    Frame { image_px: [64, 48], input_px: [32, 32], scale: [0.5, 0.5], offset_px: [0.0, 4.0] };

fn card(family: &str, labels: &str, tensors: &str) -> Card {
    Card::parse(&format!(
        "[input]\nname = \"x\"\nkind = \"image\"\nfit = \"letterbox\"\ncolour = \"rgb\"\n\
         [output]\nkind = \"detections\"\nfamily = \"{family}\"\nthreshold = 0.5\nnms_iou = 0.5\n\
         labels = {labels}\n[output.tensors]\n{tensors}\n"
    ))
    .unwrap()
}

fn tensor(name: &str, shape: &[u64], values: &[f32]) -> Tensor {
    let spec = TensorSpec { name: name.into(), dtype: DType::F32, shape: shape.to_vec() };
    Tensor::new(spec, TensorData::copied_from(bytemuck::cast_slice(values))).unwrap()
}

fn found(card: &Card, outputs: &[Tensor]) -> Vec<Detection> {
    match card.read(outputs, &FRAME).unwrap() {
        Meaning::Detections(detections) => detections,
        other => panic!("{other:?}"),
    }
}

fn assert_near(detection: &Detection, label: &str, score: f32, box_px: [f32; 4]) {
    assert_eq!(detection.label, label);
    assert!((detection.score - score).abs() < 1e-4, "{detection:?}");
    assert!(
        detection.box_px.iter().zip(box_px).all(|(got, want)| (got - want).abs() < 1e-2),
        "{detection:?}"
    );
}

/// Three places: a cat, a dog, and one below the threshold.
const PLACES: [[f32; 6]; 3] =
    [[8.0, 12.0, 8.0, 4.0, 0.9, 0.1], [20.0, 20.0, 10.0, 40.0, 0.2, 0.8], [8.0, 12.0, 8.0, 4.0, 0.4, 0.3]];

#[test]
fn yolo_is_read_in_either_order() {
    let card = card("yolo", "[\"cat\", \"dog\"]", "all = \"y\"");
    let rows = PLACES.concat();
    let columns: Vec<f32> = (0..18).map(|at| PLACES[at % 3][at / 3]).collect();
    for output in [tensor("y", &[1, 3, 6], &rows), tensor("y", &[1, 6, 3], &columns)] {
        let detections = found(&card, &[output]);
        assert_eq!(detections.len(), 2);
        assert_near(&detections[0], "cat", 0.9, [8.0, 12.0, 24.0, 20.0]);
        // From row 0 to 40 of the input, of which 4 to 28 are the image.
        assert_near(&detections[1], "dog", 0.8, [30.0, 0.0, 50.0, 48.0]);
    }
}

#[test]
fn yolo_multiplies_by_its_objectness_if_it_has_one() {
    let card = card("yolo", "[\"cat\", \"dog\"]", "all = \"y\"\nobjectness = true");
    let with = |objectness: f32, place: [f32; 6]| {
        let [x, y, width, height, cat, dog] = place;
        vec![x, y, width, height, objectness, cat, dog]
    };
    let values = [with(0.9, PLACES[0]), with(0.5, PLACES[1])].concat();
    let detections = found(&card, &[tensor("y", &[1, 2, 7], &values)]);
    assert_eq!(detections.len(), 1);
    assert_near(&detections[0], "cat", 0.81, [8.0, 12.0, 24.0, 20.0]);
}

#[test]
fn yolo_reads_more_places_than_one_tile() {
    let card = card("yolo", "[\"cat\", \"dog\"]", "all = \"y\"");
    let mut values = vec![0.0; 150 * 6];
    values[130 * 6..131 * 6].copy_from_slice(&PLACES[1]);
    let detections = found(&card, &[tensor("y", &[1, 150, 6], &values)]);
    assert_eq!(detections.len(), 1);
    assert_near(&detections[0], "dog", 0.8, [30.0, 0.0, 50.0, 48.0]);
}

#[test]
fn nanodet_takes_the_mean_of_each_distribution() {
    let tensors = "strides = [16]\nscores = [\"s\"]\nboxes = [\"d\"]";
    let card = card("nanodet", "[\"cat\", \"dog\"]", tensors);
    let scores = [0.1, 0.2, 0.1, 0.7, 0.0, 0.0, 0.0, 0.0];
    // Cell 1 is right above; middle at (23.5, 7.5). Bins 0, 1, 2: all but one are out of the question.
    let mut distances = vec![0.0; 4 * 12];
    for (side, bin) in [1, 0, 0, 1].into_iter().enumerate() {
        distances[12 + side * 3 + bin] = 50.0;
    }
    let outputs = [tensor("s", &[1, 4, 2], &scores), tensor("d", &[1, 4, 12], &distances)];
    let detections = found(&card, &outputs);
    assert_eq!(detections.len(), 1);
    // In the input 7.5 to 23.5 and 7.5 to 23.5.
    assert_near(&detections[0], "dog", 0.7, [15.0, 7.0, 47.0, 39.0]);
}

#[test]
fn yunet_has_offsets_logarithms_and_a_root() {
    let tensors = "strides = [16]\nscores = [\"s\"]\nobjectness = [\"o\"]\nboxes = [\"b\"]";
    let card = card("yunet", "[\"face\"]", tensors);
    let mut boxes = vec![0.0; 16];
    boxes[12..].copy_from_slice(&[-0.5, 0.0, 0.0, -(2f32.ln())]);
    let outputs = [
        tensor("s", &[1, 4, 1], &[0.1, 0.1, 0.1, 0.9]),
        tensor("o", &[1, 4, 1], &[0.1, 0.1, 0.1, 0.4]),
        tensor("b", &[1, 4, 4], &boxes),
    ];
    let detections = found(&card, &outputs);
    assert_eq!(detections.len(), 1);
    // Centre (8, 16), 16 wide and 8 high.
    assert_near(&detections[0], "face", 0.6, [0.0, 16.0, 32.0, 32.0]);
}

#[test]
fn fastestdet_speaks_in_shares_of_the_input() {
    let card = card("fastestdet", "[\"cat\", \"dog\"]", "all = \"y\"");
    let mut values = vec![0.0; 7 * 4];
    // Cell 3 of 2x2: objectness, no offset, half of each side, cat, dog.
    for (attribute, value) in [1.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.8].into_iter().enumerate() {
        values[attribute * 4 + 3] = value;
    }
    let detections = found(&card, &[tensor("y", &[1, 7, 2, 2], &values)]);
    assert_eq!(detections.len(), 1);
    // Centre (16, 16), 16 wide and high.
    assert_near(&detections[0], "dog", 0.8f32.powf(0.4), [16.0, 8.0, 48.0, 40.0]);
}

#[test]
fn outputs_that_do_not_fit_the_card_are_named() {
    let card = card("yolo", "[\"cat\", \"dog\"]", "all = \"y\"");
    let read = |output: Tensor| card.read(&[output], &FRAME).unwrap_err();
    assert_eq!(read(tensor("z", &[1], &[0.0])), ReadError::Missing("y".into()));
    assert!(matches!(read(tensor("y", &[1, 5, 3], &[0.0; 15])), ReadError::Shape { .. }));
    assert!(matches!(read(tensor("y", &[2, 6, 1], &[0.0; 12])), ReadError::Shape { .. }));
    let spec = TensorSpec { name: "y".into(), dtype: DType::U8, shape: vec![1, 6, 1] };
    let bytes = Tensor::new(spec, TensorData::copied_from(&[0; 6])).unwrap();
    assert!(matches!(read(bytes), ReadError::ElementType { dtype: DType::U8, .. }));
}

#[test]
fn numbers_that_are_none_find_nothing() {
    let card = card("yolo", "[\"cat\", \"dog\"]", "all = \"y\"");
    let place = |odd: f32| [odd, 12.0, 8.0, 4.0, 0.9, 0.1];
    let values = [place(f32::NAN), place(f32::INFINITY), [1.0, 1.0, 1.0, 1.0, f32::NAN, f32::NAN]].concat();
    assert_eq!(found(&card, &[tensor("y", &[1, 3, 6], &values)]), []);
}

proptest! {
    #[test]
    fn any_outputs_end_in_a_value(
        shape in prop::collection::vec(0u64..8, 0..5),
        value in prop::num::f32::ANY,
        input_px in prop::array::uniform2(1u32..64),
    ) {
        let length: u64 = shape.iter().product();
        let outputs = ["y", "s", "o", "b"].map(|name| tensor(name, &shape, &vec![value; length as usize]));
        let frame = Frame { input_px, ..FRAME };
        let grid = "strides = [16]\nscores = [\"s\"]\nboxes = [\"b\"]";
        for (family, tensors) in [
            ("yolo", "all = \"y\"".to_owned()),
            ("fastestdet", "all = \"y\"".to_owned()),
            ("nanodet", grid.to_owned()),
            ("yunet", format!("{grid}\nobjectness = [\"o\"]")),
        ] {
            let _ = card(family, "[\"a\", \"b\"]", &tensors).read(&outputs, &frame);
        }
    }
}
