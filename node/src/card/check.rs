//! From a card as written to a checked one: the rules that types cannot say.

use super::boxes::Suppression;
use super::classes::Classes;
use super::detect::{Detector, Family, Grid};
use super::geometry::Fit;
use super::places::{CardError, Places};
use super::written::{
    Anchor, ClassesOutput, DetectionsOutput, ExtraInput, Family as FamilyName, FastestDetTensors, FitName,
    Input, NanodetTensors, OutputKind, Probe, RawOutput, Written, YoloTensors, YunetTensors,
};
use super::{Card, ConstantInput, ImageInput, Labels, Output};

/// Most detections or classes that one answer may hold.
const FOUND_MAX: usize = 10_000;
/// Most grids of one detector; the deepest pyramids in use have five.
const GRIDS_MAX: usize = 16;
/// Largest shorter side that a card may ask for, pixels.
const SHORTER_SIDE_MAX_PX: u32 = 16_384;

pub(super) fn card(text: &str) -> Result<Card, CardError> {
    let places = Places::of(text)?;
    let probe: Probe = places.read()?;
    match (probe.output.kind, probe.output.family) {
        (OutputKind::Classes, _) => whole(&places, classes),
        (OutputKind::Raw, _) => whole(&places, |_, _: RawOutput| Ok(Output::Raw)),
        (OutputKind::Detections, Some(FamilyName::Yolo)) => {
            whole(&places, |places, output: DetectionsOutput<YoloTensors>| {
                let YoloTensors { all, objectness } = &output.tensors;
                detections(places, &output, Family::Yolo { tensor: all.clone(), objectness: *objectness })
            })
        }
        (OutputKind::Detections, Some(FamilyName::Fastestdet)) => {
            whole(&places, |places, output: DetectionsOutput<FastestDetTensors>| {
                detections(places, &output, Family::FastestDet { tensor: output.tensors.all.clone() })
            })
        }
        (OutputKind::Detections, Some(FamilyName::Nanodet)) => {
            whole(&places, |places, output: DetectionsOutput<NanodetTensors>| {
                let NanodetTensors { strides, scores, boxes } = &output.tensors;
                let grids = grids(places, strides, scores, boxes, None)?;
                detections(places, &output, Family::Nanodet(grids))
            })
        }
        (OutputKind::Detections, Some(FamilyName::Yunet)) => {
            whole(&places, |places, output: DetectionsOutput<YunetTensors>| {
                let YunetTensors { strides, scores, objectness, boxes } = &output.tensors;
                let grids = grids(places, strides, scores, boxes, Some(objectness))?;
                detections(places, &output, Family::Yunet(grids))
            })
        }
        (OutputKind::Detections, None) => {
            Err(places.wrong("output.family", "detections need one of yolo, nanodet, yunet, fastestdet"))
        }
    }
}

/// The same card with its labels inside, one line of `labels` each, so that it says everything.
///
/// # Errors
/// When the card names no labels file, or is not right with those labels.
pub fn embed_labels(card: &str, labels: &str) -> Result<String, CardError> {
    let places = Places::of(card)?;
    let place = places
        .key_and_value("output", "labels_file")
        .ok_or_else(|| places.wrong("output.labels_file", "the card names no labels file"))?;
    let list = toml::Value::Array(labels.lines().map(|line| line.trim_end().into()).collect());
    let whole = format!("{}labels = {list}{}", &card[..place.start], &card[place.end..]);
    Card::parse(&whole).map(|_| whole)
}

fn whole<O: serde::de::DeserializeOwned>(
    places: &Places<'_>,
    output: impl FnOnce(&Places<'_>, O) -> Result<Output, CardError>,
) -> Result<Card, CardError> {
    let written: Written<O> = places.read()?;
    Ok(Card {
        constants: constants(places, &written.extra_input, &written.input.name)?,
        image: image(places, written.input)?,
        output: output(places, written.output)?,
    })
}

fn image(places: &Places<'_>, input: Input) -> Result<ImageInput, CardError> {
    let fit = fit(places, &input)?;
    let channels = input.colour.channels();
    let per_channel = |field: &str, given: Option<Vec<f64>>, default: f64| match given {
        None => Ok(vec![default; channels]),
        Some(given) if given.iter().any(|value| !value.is_finite()) => {
            Err(places.wrong(field, "every number must be finite"))
        }
        Some(given) if given.len() == channels => Ok(given),
        Some(given) if given.len() == 1 => Ok(vec![given[0]; channels]),
        Some(given) => Err(places
            .wrong(field, format!("{} numbers for {channels} channels; give 1 or {channels}", given.len()))),
    };
    let std = per_channel("input.std", input.std, 1.0)?;
    if std.contains(&0.0) {
        return Err(places.wrong("input.std", "a deviation of 0 would divide by zero"));
    }
    let scale = input.scale.unwrap_or(1.0);
    if !scale.is_finite() || scale == 0.0 {
        return Err(places.wrong("input.scale", "must be finite and not 0"));
    }
    if input.name.is_empty() {
        return Err(places.wrong("input.name", "must name the model's input"));
    }
    Ok(ImageInput {
        mean: per_channel("input.mean", input.mean, 0.0)?,
        name: input.name,
        fit,
        colour: input.colour,
        layout: input.layout,
        scale,
        std,
    })
}

fn fit(places: &Places<'_>, input: &Input) -> Result<Fit, CardError> {
    let only =
        |field: &str, fit: &str| Err(places.wrong(field, format!("has a meaning with fit = \"{fit}\" only")));
    if input.fit != FitName::Letterbox && input.fill.is_some() {
        return only("input.fill", "letterbox");
    }
    if input.fit != FitName::Letterbox && input.anchor.is_some() {
        return only("input.anchor", "letterbox");
    }
    if input.fit != FitName::ShorterSideCrop && input.shorter_side.is_some() {
        return only("input.shorter_side", "shorter-side-crop");
    }
    Ok(match (input.fit, input.shorter_side) {
        (FitName::Stretch, _) => Fit::Stretch,
        (FitName::Letterbox, _) => {
            let centred = input.anchor != Some(Anchor::TopLeft);
            Fit::Letterbox { fill: input.fill.unwrap_or(0), centred }
        }
        (FitName::ShorterSideCrop, Some(shorter_side @ 1..=SHORTER_SIDE_MAX_PX)) => {
            Fit::ShorterSideCrop { shorter_side }
        }
        (FitName::ShorterSideCrop, _) => {
            let why = format!("shorter-side-crop needs 1 to {SHORTER_SIDE_MAX_PX} pixels here");
            return Err(places.wrong("input.shorter_side", why));
        }
    })
}

fn constants(
    places: &Places<'_>,
    written: &[ExtraInput],
    image: &str,
) -> Result<Vec<ConstantInput>, CardError> {
    for (index, input) in written.iter().enumerate() {
        let twice = written[..index].iter().any(|earlier| earlier.name == input.name);
        if twice || input.name == image || input.name.is_empty() {
            return Err(places.wrong(&format!("extra_input.{index}.name"), "must name an input of its own"));
        }
        if !input.fill.is_finite() {
            return Err(places.wrong(&format!("extra_input.{index}.fill"), "must be finite"));
        }
    }
    Ok(written.iter().map(|input| ConstantInput { name: input.name.clone(), fill: input.fill }).collect())
}

fn classes(places: &Places<'_>, output: ClassesOutput) -> Result<Output, CardError> {
    if !(1..=FOUND_MAX).contains(&output.top) {
        return Err(places.wrong("output.top", format!("must be 1 to {FOUND_MAX}")));
    }
    let labels = labels(places, output.labels, output.labels_file)?;
    Ok(Output::Classes(Classes { tensor: output.tensor, softmax: output.softmax, top: output.top, labels }))
}

fn detections<T>(
    places: &Places<'_>,
    output: &DetectionsOutput<T>,
    family: Family,
) -> Result<Output, CardError> {
    for (field, share) in [("output.threshold", output.threshold), ("output.nms_iou", output.nms_iou)] {
        if !(0.0..=1.0).contains(&share) {
            return Err(places.wrong(field, "must be from 0 to 1"));
        }
    }
    if !(1..=FOUND_MAX).contains(&output.detections_max) {
        return Err(places.wrong("output.detections_max", format!("must be 1 to {FOUND_MAX}")));
    }
    Ok(Output::Detections(Detector {
        family,
        threshold: output.threshold,
        suppression: Suppression {
            iou: output.nms_iou,
            class_aware: output.class_aware,
            kept_max: output.detections_max,
        },
        labels: labels(places, output.labels.clone(), output.labels_file.clone())?,
    }))
}

fn labels(places: &Places<'_>, list: Option<Vec<String>>, file: Option<String>) -> Result<Labels, CardError> {
    match (list, file) {
        (Some(list), None) if !list.is_empty() => Ok(Labels::List(list)),
        (None, Some(file)) if is_beside(&file) => Ok(Labels::File(file)),
        (None, Some(_)) => {
            Err(places.wrong("output.labels_file", "must be a path below the model's folder, with / between"))
        }
        (Some(_), Some(_)) => Err(places.wrong("output.labels_file", "give labels or labels_file, not both")),
        (_, None) => {
            Err(places.wrong("output.labels", "give a name for every class, here or in labels_file"))
        }
    }
}

/// Whether a path stays below the folder that it starts from, on any system.
fn is_beside(path: &str) -> bool {
    !path.contains(['\\', ':', '\0']) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn grids(
    places: &Places<'_>,
    strides: &[u32],
    scores: &[String],
    boxes: &[String],
    objectness: Option<&Vec<String>>,
) -> Result<Vec<Grid>, CardError> {
    if strides.is_empty() || strides.len() > GRIDS_MAX || strides.contains(&0) {
        let why = format!("needs 1 to {GRIDS_MAX} strides above 0");
        return Err(places.wrong("output.tensors.strides", why));
    }
    let lists =
        [("scores", Some(scores)), ("boxes", Some(boxes)), ("objectness", objectness.map(Vec::as_slice))];
    for (field, list) in lists {
        if list.is_some_and(|list| list.len() != strides.len()) {
            let why = format!("needs one tensor for each of the {} strides", strides.len());
            return Err(places.wrong(&format!("output.tensors.{field}"), why));
        }
    }
    let grid = |index: usize| Grid {
        stride_px: strides[index],
        scores: scores[index].clone(),
        boxes: boxes[index].clone(),
        objectness: objectness.map(|list| list[index].clone()),
    };
    Ok((0..strides.len()).map(grid).collect())
}
