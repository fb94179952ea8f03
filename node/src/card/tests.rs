//! Cards as text: the ones in the tree, wrong ones, and what classifiers mean.

use proptest::prelude::*;
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};

use super::*;

const DIGITS: &str = include_str!("../../../testnet/models/digits.toml");
const SQUEEZENET: &str = include_str!("../../../testnet/models/cards/squeezenet.toml");
const CARDS: [&str; 9] = [
    DIGITS,
    SQUEEZENET,
    include_str!("../../../testnet/models/cards/fastestdet_352.toml"),
    include_str!("../../../testnet/models/cards/lstr_360x640.toml"),
    include_str!("../../../testnet/models/cards/mnist_cntk.toml"),
    include_str!("../../../testnet/models/cards/nanodet_m_320.toml"),
    include_str!("../../../testnet/models/cards/nanodet_m_416.toml"),
    include_str!("../../../testnet/models/cards/yunet_n_320.toml"),
    include_str!("../../../testnet/models/cards/yunet_s_320.toml"),
];

const FRAME: Frame = Frame { image_px: [8, 8], input_px: [8, 8], scale: [1.0, 1.0], offset_px: [0.0, 0.0] };

fn scores(name: &str, dtype: DType, bytes: &[u8]) -> Tensor {
    let shape = vec![1, bytes.len() as u64 / dtype.bytes().unwrap()];
    Tensor::new(TensorSpec { name: name.into(), dtype, shape }, TensorData::copied_from(bytes)).unwrap()
}

#[test]
fn the_cards_of_the_tree_are_right() {
    for card in CARDS {
        Card::parse(card).unwrap_or_else(|error| panic!("{error}\n{card}"));
    }
}

#[test]
fn a_digit_becomes_grey_levels_and_its_scores_a_digit() {
    let card = Card::parse(DIGITS).unwrap();
    let file = include_bytes!("../../../testnet/models/digits/held-out-00-truth-0.png");
    let spec = TensorSpec { name: "image".into(), dtype: DType::F32, shape: vec![1, 1, 8, 8] };
    let (tensors, _) = card.prepare(file, &[spec]).unwrap();
    let pixels = image::load_from_memory(file).unwrap().into_luma8();
    let values = tensors[0].data().as_slice_of::<f32>().unwrap();
    assert!(
        values
            .iter()
            .zip(pixels.as_raw())
            .all(|(value, level)| (value * 255.0 - f32::from(*level)).abs() < 1e-4)
    );
    let outputs: [f32; 10] = [0.0, 0.1, 0.0, 0.6, 0.0, 0.0, 0.0, 0.3, 0.0, 0.0];
    let output = scores("probabilities", DType::F32, bytemuck::cast_slice(&outputs));
    let meaning = card.read(&[output], &FRAME).unwrap();
    assert_eq!(
        serde_json::to_string(&meaning).unwrap(),
        "{\"kind\":\"classes\",\"found\":[{\"label\":\"3\",\"index\":3,\"score\":0.6},\
         {\"label\":\"7\",\"index\":7,\"score\":0.3},{\"label\":\"1\",\"index\":1,\"score\":0.1}]}"
    );
}

#[test]
fn a_softmax_makes_shares_of_logits_and_halves_are_read_too() {
    let text = DIGITS.replace("softmax = false", "softmax = true").replace(
        "[\"0\", \"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\", \"9\"]",
        "[\"no\", \"yes\"]",
    );
    let card = Card::parse(&text).unwrap();
    let logits = [1000.0, 1000.0 + 3f32.ln()].map(half::f16::from_f32);
    let output = scores("probabilities", DType::F16, bytemuck::cast_slice(&logits));
    let Meaning::Classes(classes) = card.read(&[output], &FRAME).unwrap() else { panic!("no classes") };
    assert_eq!(classes[0].label, "yes");
    assert!((classes[0].score - 0.75).abs() < 0.02 && (classes[1].score - 0.25).abs() < 0.02);
    let odd = scores("probabilities", DType::F32, bytemuck::cast_slice(&[f32::NAN, 0.0]));
    assert_eq!(card.read(&[odd], &FRAME), Err(ReadError::NotFinite("probabilities".into())));
    let many = scores("probabilities", DType::F32, bytemuck::cast_slice(&[0f32; 3]));
    assert!(matches!(card.read(&[many], &FRAME), Err(ReadError::Shape { .. })));
}

#[test]
fn labels_are_put_into_the_card_that_names_their_file() {
    let card = Card::parse(SQUEEZENET).unwrap();
    assert_eq!(card.labels_file(), Some("labels/imagenet_1000.txt"));
    let output = scores("softmaxout_1", DType::F32, bytemuck::cast_slice(&[0.2f32, 0.8]));
    let unnamed = card.read(std::slice::from_ref(&output), &FRAME);
    assert_eq!(unnamed, Err(ReadError::LabelsNotEmbedded("labels/imagenet_1000.txt".into())));
    let whole = embed_labels(SQUEEZENET, "tench, Tinca tinca\r\na \"quoted\" fish\n").unwrap();
    assert!(whole.starts_with("# SqueezeNet") && whole.contains("top = 5"));
    let card = Card::parse(&whole).unwrap();
    assert_eq!(card.labels_file(), None);
    let Meaning::Classes(classes) = card.read(&[output], &FRAME).unwrap() else { panic!("no classes") };
    assert_eq!(classes[0].label, "a \"quoted\" fish");
    assert!(embed_labels(DIGITS, "x").unwrap_err().to_string().contains("names no labels file"));
    assert!(embed_labels(SQUEEZENET, "").is_err());
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let nanodet = CARDS[5];
    for (card, from, to, told) in [
        (
            DIGITS,
            "fit = \"stretch\"",
            "fit = \"strech\"",
            "line 6 of the card (`fit = \"strech\"`): unknown variant",
        ),
        (DIGITS, "name = \"image\"", "", "line 3 of the card (`[input]`): missing field `name`"),
        (DIGITS, "scale =", "scal =", "unknown field `scal`"),
        (DIGITS, "scale = 0.00392156862745098", "scale = 0", "line 11 of the card, field `input.scale`"),
        (DIGITS, "scale = 0.00392156862745098", "std = [0]", "line 11 of the card, field `input.std`"),
        (DIGITS, "scale = 0.00392156862745098", "mean = [1, 2]", "2 numbers for 1 channels"),
        (DIGITS, "scale = 0.00392156862745098", "mean = [nan]", "must be finite"),
        (DIGITS, "scale = 0.00392156862745098", "fill = 3", "field `input.fill`: has a meaning with fit"),
        (DIGITS, "top = 3", "top = 0", "line 18 of the card, field `output.top`"),
        (DIGITS, "softmax = false", "softmax = 1", "line 16 of the card (`softmax = 1`): invalid type"),
        (DIGITS, "kind = \"classes\"", "kind = \"detections\"", "line 13 of the card, field `output.family`"),
        (DIGITS, "[output]", "[output", "line 13 of the card"),
        (SQUEEZENET, "shorter_side = 256", "", "line 3 of the card, field `input.shorter_side`"),
        (SQUEEZENET, "labels/", "../", "field `output.labels_file`: must be a path below"),
        (SQUEEZENET, "labels_file = \"labels/imagenet_1000.txt\"", "", "field `output.labels`: give a name"),
        (
            nanodet,
            "strides = [8, 16, 32]",
            "strides = [8, 16]",
            "field `output.tensors.scores`: needs one tensor",
        ),
        (nanodet, "strides = [8, 16, 32]", "strides = [8, 0, 32]", "field `output.tensors.strides`"),
        (nanodet, "threshold = 0.4", "threshold = 4", "line 18 of the card, field `output.threshold`"),
        (CARDS[3], "\"input_mask\"", "\"input_rgb\"", "field `extra_input.0.name`"),
    ] {
        assert!(card.contains(from), "{from}");
        let error = Card::parse(&card.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(told), "`{to}` is told as `{error}`, not `{told}`");
    }
    let long = format!("{DIGITS}#{}", "x".repeat(CARD_BYTES_MAX));
    assert!(matches!(Card::parse(&long), Err(CardError::Size(_))));
}

proptest! {
    #[test]
    fn damaged_cards_end_in_a_value(which in 0..CARDS.len(), at in 0usize..700, with: char) {
        let mut text: Vec<char> = CARDS[which].chars().collect();
        let at = at % text.len();
        text[at] = with;
        let text: String = text.into_iter().collect();
        let _ = Card::parse(&text);
        let _ = embed_labels(&text, "one\ntwo");
    }
}
