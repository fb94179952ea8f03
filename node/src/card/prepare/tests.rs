//! Images that are right, odd or hostile, through whole cards.

use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};
use proptest::prelude::*;

use super::*;

const WIDTH: u32 = 24;
const HEIGHT: u32 = 16;

fn card(input: &str) -> Card {
    let text = format!("[input]\nname = \"x\"\nkind = \"image\"\n{input}\n[output]\nkind = \"raw\"\n");
    Card::parse(&text).unwrap()
}

fn spec(dtype: DType, shape: &[u64]) -> TensorSpec {
    TensorSpec { name: "x".into(), dtype, shape: shape.to_vec() }
}

fn png(data: &[u8], width: u32, height: u32, colour: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(data, width, height, colour).unwrap();
    bytes
}

fn pixel(red: u8, green: u8, blue: u8) -> Vec<u8> {
    png(&[red, green, blue], 1, 1, ExtendedColorType::Rgb8)
}

/// Left half red, right half blue.
fn jpeg() -> Vec<u8> {
    let red_or_blue = |at: u32| if at % WIDTH < WIDTH / 2 { [255, 0, 0] } else { [0, 0, 255] };
    let data: Vec<u8> = (0..WIDTH * HEIGHT).flat_map(red_or_blue).collect();
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95)
        .write_image(&data, WIDTH, HEIGHT, ExtendedColorType::Rgb8)
        .unwrap();
    bytes
}

fn floats(card: &Card, encoded: &[u8], shape: &[u64]) -> Vec<f32> {
    let (tensors, _) = card.prepare(encoded, &[spec(DType::F32, shape)]).unwrap();
    tensors[0].data().as_slice_of::<f32>().unwrap().to_vec()
}

fn error(encoded: &[u8]) -> PrepareError {
    card("fit = \"stretch\"\ncolour = \"rgb\"")
        .prepare(encoded, &[spec(DType::F32, &[1, 3, 8, 8])])
        .unwrap_err()
}

#[test]
fn colours_come_in_the_order_of_the_card() {
    let of = |colour: &str| {
        floats(&card(&format!("fit = \"stretch\"\n{colour}")), &pixel(10, 20, 40), &[1, 3, 1, 1])
    };
    assert_eq!(of("colour = \"rgb\""), [10.0, 20.0, 40.0]);
    assert_eq!(of("colour = \"bgr\""), [40.0, 20.0, 10.0]);
    assert_eq!(of("colour = \"bgr\"\nscale = 0.5\nmean = [5, 6, 7]\nstd = [1, 2, 4]"), [15.0, 2.0, -0.5]);
}

#[test]
fn grey_weighs_colours_as_pillow_does() {
    let grey = card("fit = \"stretch\"\ncolour = \"grey\"");
    assert_eq!(floats(&grey, &pixel(10, 20, 40), &[1, 1, 1, 1]), [19.0]);
    assert_eq!(floats(&grey, &pixel(255, 0, 0), &[1, 1, 1, 1]), [76.0]);
}

#[test]
fn layouts_and_element_types_follow_the_model() {
    let image = png(&[1, 2, 3, 4, 5, 6], 2, 1, ExtendedColorType::Rgb8);
    let first = card("fit = \"stretch\"\ncolour = \"rgb\"");
    assert_eq!(floats(&first, &image, &[1, 3, 1, 2]), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let last = card("fit = \"stretch\"\ncolour = \"rgb\"\nlayout = \"NHWC\"");
    assert_eq!(floats(&last, &image, &[1, 1, 2, 3]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let (bytes, _) = last.prepare(&image, &[spec(DType::U8, &[1, 1, 2, 3])]).unwrap();
    assert_eq!(bytes[0].data().as_bytes(), [1, 2, 3, 4, 5, 6]);
    let (halves, _) = last.prepare(&image, &[spec(DType::F16, &[1, 1, 2, 3])]).unwrap();
    assert_eq!(halves[0].data().as_slice_of::<f16>().unwrap()[4], f16::from_f32(5.0));
}

#[test]
fn bars_hold_the_fill_in_either_layout() {
    let image = png(&[9, 9, 9, 9, 9, 9], 2, 1, ExtendedColorType::Rgb8);
    let fit = "fit = \"letterbox\"\nfill = 7\ncolour = \"rgb\"\nscale = 2";
    let first = floats(&card(fit), &image, &[1, 3, 4, 4]);
    let rows: Vec<f32> = [14.0, 18.0, 18.0, 14.0].into_iter().flat_map(|value| [value; 4]).collect();
    assert_eq!(first, rows.repeat(3));
    let last =
        floats(&card(&format!("{fit}\nlayout = \"NHWC\"\nanchor = \"top-left\"")), &image, &[1, 4, 4, 3]);
    assert_eq!((last[..24].to_vec(), last[24..].to_vec()), (vec![18.0; 24], vec![14.0; 24]));
}

#[test]
fn alpha_is_left_out_and_grey_becomes_colour() {
    let colour = card("fit = \"stretch\"\ncolour = \"rgb\"");
    let alpha = png(&[10, 20, 40, 0], 1, 1, ExtendedColorType::Rgba8);
    assert_eq!(floats(&colour, &alpha, &[1, 3, 1, 1]), [10.0, 20.0, 40.0]);
    let grey = png(&[33], 1, 1, ExtendedColorType::L8);
    assert_eq!(floats(&colour, &grey, &[1, 3, 1, 1]), [33.0; 3]);
    let grey_alpha = png(&[33, 128], 1, 1, ExtendedColorType::La8);
    assert_eq!(floats(&card("fit = \"stretch\"\ncolour = \"grey\""), &grey_alpha, &[1, 1, 1, 1]), [33.0]);
    let deep = png(bytemuck::cast_slice(&[0x2121_u16; 3]), 1, 1, ExtendedColorType::Rgb16);
    assert_eq!(floats(&colour, &deep, &[1, 3, 1, 1]), [33.0; 3]);
}

#[test]
fn a_jpeg_lies_as_its_camera_was_held() {
    let plain = jpeg();
    // Exif with one entry: tag 0x0112, a SHORT, value 6: turn right by a quarter to see it upright.
    let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let length = (exif.len() as u16 + 2).to_be_bytes();
    let turned = [&plain[..2], &[0xff, 0xe1], &length, exif, &plain[2..]].concat();
    let card = card("fit = \"stretch\"\ncolour = \"rgb\"");
    let (tensors, frame) = card.prepare(&turned, &[spec(DType::F32, &[1, 3, 24, 16])]).unwrap();
    assert_eq!(frame.image_px, [HEIGHT, WIDTH]);
    let red = &tensors[0].data().as_slice_of::<f32>().unwrap()[..24 * 16];
    assert!(red[..11 * 16].iter().all(|value| *value > 230.0), "red was left and is now above");
    assert!(red[13 * 16..].iter().all(|value| *value < 25.0));
}

#[test]
fn other_inputs_are_filled_and_none_is_left_out() {
    let text = "[input]\nname = \"x\"\nkind = \"image\"\nfit = \"stretch\"\ncolour = \"rgb\"\n\
                [[extra_input]]\nname = \"mask\"\nfill = 2\n[output]\nkind = \"raw\"\n";
    let card = Card::parse(text).unwrap();
    let mask = TensorSpec { name: "mask".into(), dtype: DType::I64, shape: vec![2] };
    let specs = [mask, spec(DType::F32, &[1, 3, 1, 1])];
    let (tensors, _) = card.prepare(&pixel(1, 2, 3), &specs).unwrap();
    assert_eq!(tensors[0].data().as_slice_of::<i64>(), Some(&[2, 2][..]));
    assert_eq!(tensors[1].spec().name, "x");
    let only_image = card.prepare(&pixel(1, 2, 3), &specs[1..]).unwrap_err();
    assert!(matches!(only_image, PrepareError::NoSuchInput(name) if name == "mask"));
    let mut more = specs.to_vec();
    more.push(TensorSpec { name: "state".into(), dtype: DType::F32, shape: vec![1] });
    let left_out = card.prepare(&pixel(1, 2, 3), &more).unwrap_err();
    assert!(matches!(left_out, PrepareError::NotOnCard(name) if name == "state"));
}

#[test]
fn a_model_that_takes_no_such_image_is_named() {
    let colour = card("fit = \"stretch\"\ncolour = \"rgb\"");
    for shape in [&[1, 1, 8, 8][..], &[3, 8, 8], &[2, 3, 8, 8], &[1, 3, 0, 8], &[1, 3, 1 << 40, 8]] {
        let refused = colour.prepare(&jpeg(), &[spec(DType::F32, shape)]).unwrap_err();
        assert!(matches!(refused, PrepareError::Shape { .. }), "{refused}");
    }
    let integers = colour.prepare(&jpeg(), &[spec(DType::I64, &[1, 3, 8, 8])]).unwrap_err();
    assert!(matches!(integers, PrepareError::ElementType { dtype: DType::I64, .. }));
    let vast = colour.prepare(&jpeg(), &[spec(DType::F32, &[1, 3, 16_384, 16_384])]).unwrap_err();
    assert!(matches!(vast, PrepareError::Tensor(_)));
}

#[test]
fn what_is_no_whole_image_is_refused() {
    assert!(matches!(error(&[]), PrepareError::Format));
    assert!(matches!(error(b"GIF89a\x01\0\x01\0"), PrepareError::Format));
    assert!(matches!(error(&vec![0; ENCODED_BYTES_MAX + 1]), PrepareError::EncodedBytes(_)));
    let whole = jpeg();
    for end in 3..whole.len() - 1 {
        assert!(matches!(error(&whole[..end]), PrepareError::CutShort), "{end} bytes of a JPEG");
    }
    let whole = pixel(1, 2, 3);
    for end in 8..whole.len() - 12 {
        assert!(matches!(error(&whole[..end]), PrepareError::Damaged(_)), "{end} bytes of a PNG");
    }
}

#[test]
fn a_bomb_is_refused_by_its_header() {
    let mut bomb = pixel(0, 0, 0);
    bomb[16..24].copy_from_slice(&[0, 0, 0x3f, 0xff, 0, 0, 0x3f, 0xff]);
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    assert!(matches!(error(&bomb), PrepareError::Pixels { width: 16_383, height: 16_383 }));
    let mut bomb = jpeg();
    let frame = bomb.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    bomb[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(error(&bomb), PrepareError::Pixels { width: 65_535, height: 65_535 }));
}

/// As in the PNG specification, annex D.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

proptest! {
    #[test]
    fn damaged_images_end_in_a_value(at in 0usize..600, bits in 1u8.., cut in 0usize..600, is_png: bool) {
        let grey_png = || png(&[77; 24 * 16 * 3], WIDTH, HEIGHT, ExtendedColorType::Rgb8);
        let mut bytes = if is_png { grey_png() } else { jpeg() };
        let at = at % bytes.len();
        bytes[at] ^= bits;
        let until = bytes.len().saturating_sub(cut / 8);
        let card = card("fit = \"shorter-side-crop\"\nshorter_side = 9\ncolour = \"grey\"");
        let _ = card.prepare(&bytes[..until], &[spec(DType::F32, &[1, 1, 8, 8])]);
    }
}
