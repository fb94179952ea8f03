"""What a detector found in pictures, and how much of it is right: mean average precision."""

import statistics
import time
from dataclasses import dataclass

import numpy as np
import onnxruntime

from detector_network import INPUT, OUTPUT
from detector_scenes import CARD, Scene
from digits import CLASSES

SCORE_MIN = CARD["output"]["threshold"]  # above which a detection is shown
SCORE_MIN_MAP = 0.01  # above which it counts for the mAP
OVERLAP_MAX = CARD["output"]["nms_iou"]
IOUS = [round(0.5 + 0.05 * i, 2) for i in range(10)]


@dataclass
class Found:
    boxes: np.ndarray  # [k,4] left, top, right, bottom
    digits: np.ndarray  # [k]
    scores: np.ndarray  # [k], falling


def run_onnx(path, pictures):
    """Runs the written file on each 8-bit input; returns the outputs and the median ms."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    outputs, milliseconds = [], []
    for picture in pictures:
        image = np.ascontiguousarray((picture.astype(np.float32) / 255).transpose(2, 0, 1)[None])
        began = time.perf_counter()
        outputs.append(session.run([OUTPUT], {INPUT: image})[0][0])
        milliseconds.append(1000 * (time.perf_counter() - began))
    return np.stack(outputs), statistics.median(milliseconds)


def detections(output, score_min, way_back, shape):
    """What the output [14,180] says of a picture of that height and width, as the card has it: of
    each place its best digit; of boxes that overlap, the best."""
    scores, digits = output[4:].max(0), output[4:].argmax(0)
    offset, scale = way_back
    centre, half = output[:2].T, output[2:4].T / 2
    boxes = (np.concatenate([centre - half, centre + half], 1) - offset) / scale
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] <= score_min:
            break
        if not kept or iou_of(boxes[i], boxes[kept]).max() <= OVERLAP_MAX:
            kept.append(i)
    return Found(np.clip(boxes[kept], 0, [*shape[::-1]] * 2), digits[kept], scores[kept])


def iou_of(box, boxes):
    wh = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.clip(wh, 0, None).prod(1)
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return shared / (sizes - shared)


def matches(found, scene, iou_min):
    """For each detection, best first, whether it is right. A digit in the scene is matched once."""
    free = np.ones(len(scene.digits), bool)
    right = np.zeros(len(found.digits), bool)
    for k in range(len(found.digits)):
        may = np.flatnonzero(free & (scene.digits == found.digits[k]))
        if len(may):
            ious = iou_of(found.boxes[k], scene.boxes[may])
            if ious.max() >= iou_min:
                right[k] = True
                free[may[ious.argmax()]] = False
    return right


def average_precision(right, scores, total):
    """The area under precision against recall as COCO takes it: the mean, at 101 recalls, of the
    best precision at that recall or a higher one."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    recall, precision = hits / total, hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101) - 1e-9)
    return float(np.append(best, 0)[at].mean())


def precisions(found, scenes):
    """Average precision of each digit (rows) at each of `IOUS` (columns)."""
    table = np.zeros((CLASSES, len(IOUS)))
    digits = np.concatenate([f.digits for f in found])
    scores = np.concatenate([f.scores for f in found])
    truth = np.concatenate([s.digits for s in scenes])
    for column, iou_min in enumerate(IOUS):
        right = np.concatenate([matches(f, s, iou_min) for f, s in zip(found, scenes)])
        for digit in range(CLASSES):
            of = digits == digit
            total = int((truth == digit).sum())
            table[digit, column] = average_precision(right[of], scores[of], total) if total else 1.0
    return table


def check_measure():
    """A case worked out by hand: two digits, found by three boxes of which the second is wrong."""
    scene = Scene(None, np.float32([[0, 0, 10, 10], [20, 0, 30, 10]]), np.array([3, 3]))
    boxes = np.float32([[0, 0, 10, 10], [40, 0, 50, 10], [20, 0, 30, 8]])
    found = Found(boxes, np.array([3, 3, 3]), np.float32([0.9, 0.8, 0.7]))
    # Precision 1 up to recall 1/2 (51 of 101 points), then 2/3. The last box overlaps by 0.8.
    assert matches(found, scene, 0.5).tolist() == [True, False, True]
    row = precisions([found], [scene])[3]
    assert np.allclose(row[:7], (51 + 50 * 2 / 3) / 101), row
    assert np.allclose(row[7:], 51 / 101), row


def found_in(scenes, outputs, ways_back, score_min):
    shapes = [scene.picture.shape[:2] for scene in scenes]
    return [detections(o, score_min, w, s) for o, w, s in zip(outputs, ways_back, shapes)]


def measure(scenes, outputs, ways_back):
    """mAP, and what is right and wrong among the detections that would be shown."""
    table = precisions(found_in(scenes, outputs, ways_back, SCORE_MIN_MAP), scenes)
    shown = found_in(scenes, outputs, ways_back, SCORE_MIN)
    right = sum(int(matches(f, s, 0.5).sum()) for f, s in zip(shown, scenes))
    said = sum(len(f.digits) for f in shown)
    there = sum(len(s.digits) for s in scenes)
    whole = sum(
        len(f.digits) == len(s.digits) and bool(matches(f, s, 0.5).all())
        for f, s in zip(shown, scenes)
    )
    return {
        "map_50": round(float(table[:, 0].mean()), 4),
        "map_50_95": round(float(table.mean()), 4),
        "map_50_by_digit": {str(d): round(float(table[d, 0]), 4) for d in range(CLASSES)},
        "shown": {
            "score_min": SCORE_MIN,
            "iou_min": 0.5,
            "detections": said,
            "right": right,
            "precision": round(right / max(1, said), 4),
            "recall": round(right / there, 4),
            "pictures_without_a_mistake": whole,
        },
    }
