"""Trains the project's own detector, in two sizes, which finds handwritten digits in a picture.

The digits are those of digits.py, which scikit-learn carries inside its package; the pictures are
composed here, so nothing is downloaded. Neither building nor testing the project runs this script:
what it writes is committed beside it.

    python3 -m venv ~/detector && . ~/detector/bin/activate
    pip install jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 \\
        pillow==13.0.0 scikit-learn==1.9.1
    python testnet/models/detector.py             # trains, exports, measures, writes
    python testnet/models/detector.py --validate  # tries the recipe without the held-out hands

Either takes `--size n` or `--size s` too, to train only that one; figures of the other stay. With
`--size none` nothing is trained, only the committed pictures are written and measured again, in
a minute or two; on two cores the small network trains in 5 minutes and the larger in 20. The
network is in detector_network.py, the pictures are composed in detector_scenes.py, and what counts
as found is in detector_measure.py.

It writes, in its own folder:

    detector_n.onnx     the small network: `image` float32 [1,3,96,96], RGB in 0..1
                        -> `detections` [1,14,180]
    detector_s.onnx     the larger one, of the same input and output
    detector.json       what was measured: mAP of each size, split, size, cost, versions
    detector/*.jpg      held-out pictures, RGB, of many sizes
    detector/truth.json the digits in each of those pictures and the detections of each size: digit,
                        left, top, right and bottom in pixels of the picture, and the score

The output is laid out as YOLOv8's: for each of 180 places (12x12, then 6x6, row by row) the centre
x, centre y, width and height of a box, in pixels of the input, and ten scores in 0..1. What is
left to do is to drop low scores and, of boxes that overlap, all but the best.

How a picture enters and how the output is read is said by detector.toml, the model card of both
sizes; this script reads its numbers there. A picture is scaled to fit, keeping its proportions
(Pillow's bilinear filter, which averages when it shrinks), and centred on grey 114.

A picture has 0 to 8 digits, 12 to 40 pixels tall once it fits the input, turned and slanted a
little, in any colour that stands out, on flat, shaded, blotched or boxed grounds, with noise, blur
and JPEG damage. A box encloses the ink.

Which hands are held out: the last 3 of the 14 forms, as in digits.py, which says why. The pictures
that the figures come from hold digits of those forms only, those learnt from none of them. No
choice was made by looking at them: the recipe is fixed in this file, training runs for a set
number of steps and keeps the last (averaged) weights; `--validate` stays within the first 11 forms
(learns from 8, measures on 3), and is the place to try a change.

The committed pictures are the first few composed with their own seed, detected well or badly.

The seed fixes the weights for the same package versions on the same kind of processor. Elsewhere
the rounding differs, and with it the last digits of the weights and a little of the mAP.
"""

import argparse
import hashlib
import json
import math
import tempfile
import time
from functools import partial
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from PIL import Image

from detector_measure import (
    OVERLAP_MAX,
    SCORE_MIN,
    SCORE_MIN_MAP,
    check_measure,
    found_in,
    matches,
    measure,
    precisions,
    run_onnx,
)
from detector_network import (
    CENTRES,
    INPUT,
    OUTPUT,
    SIDE,
    SIZES,
    STRIDES,
    decode,
    export,
    initial_weights,
    layers_of,
    raw,
)
from detector_scenes import FILL, compose, learnable, letterbox
from digits import (
    CLASSES,
    FORMS,
    HELD_OUT_FORMS,
    IR_VERSION,
    OPSET,
    PACKAGES,
    load,
    operations,
    shapes_of,
    write_json,
)

HERE = Path(__file__).resolve().parent
SEED = 20

SCENES = 8_000  # composed to learn from
HELD_OUT_SCENES = 500
SAMPLES = 12
# Of the first ones, so that there are some to show; the others are as those learnt from.
SAMPLE_SHAPES = [(256, 192), (320, 240), (192, 256), (240, 240), (320, 180), (256, 192)]
STEPS = {"n": 4_000, "s": 3_600}
PEAK_RATE = {"n": 6e-3, "s": 5e-3}
BATCH = 32
WEIGHT_DECAY = 0.02
BOX_WEIGHT = 3.0
WHICH_WEIGHT = 1.0
NEAR = 0.75  # strides between a place and the middle of the digit it may be asked to find
AVERAGE = 0.995  # how much of the averaged weights each step keeps


# --- Training ----------------------------------------------------------------------------------


def corners(boxes):
    """Centre and size -> left, top, right, bottom."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def overlap(a, b):
    """Intersection over union of boxes given by their corners, and CIoU, which also tells how far
    apart and how differently shaped they are (Zheng et al. 2020, arXiv:1911.08287)."""
    wh = jnp.clip(jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2]), 0)
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    shared = wh.prod(-1)
    iou = shared / (size_a.prod(-1) + size_b.prod(-1) - shared + 1e-7)
    hull = jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2])
    apart = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) ** 2).sum(-1) / 4
    slope_a, slope_b = (jnp.arctan2(s[..., 0], s[..., 1] + 1e-7) for s in (size_a, size_b))
    shape = 4 / math.pi**2 * (slope_a - slope_b) ** 2
    weight = jax.lax.stop_gradient(shape / (1 - iou + shape + 1e-7))
    return iou, iou - apart / ((hull**2).sum(-1) + 1e-7) - weight * shape


def assign(truth, digits):
    """Which digit each place is to find: that whose middle is nearest, if it is near (some two
    places of each level are for a digit). Returns whether there is one, its box and its digit."""
    middle = (truth[..., :2] + truth[..., 2:]) / 2
    apart = jnp.abs(CENTRES - middle[:, :, None]).max(-1)  # [n,digit,place]
    near = (apart < NEAR * STRIDES) & (digits >= 0)[:, :, None]
    nearest = jnp.where(near, -apart, -jnp.inf).argmax(1)  # [n,place]
    box = jnp.take_along_axis(truth, nearest[..., None], axis=1)
    return near.any(1), box, jnp.take_along_axis(digits, nearest, axis=1)


def loss(params, layers, images, truth, digits):
    values, _ = raw(layers, params, images)
    taken, box, digit = assign(truth, digits)
    iou, ciou = overlap(corners(decode(values)), box)
    # A place whose box is better is to be surer of its digit, so that of two the better one stays.
    target = taken * (1 + jax.lax.stop_gradient(jnp.clip(iou, 0))) / 2
    total = jnp.maximum(taken.sum(), 1)
    scores = values[..., 4:]
    wanted = jax.nn.one_hot(digit, CLASSES) * target[..., None]
    classes = (jax.nn.softplus(scores) - wanted * scores).sum()
    # Which digit it is, given that there is one: learnt much sooner than by the scores alone, most
    # of which are only to be low.
    which = jnp.take_along_axis(jax.nn.log_softmax(scores), jnp.clip(digit, 0)[..., None], axis=-1)
    classes = (classes - WHICH_WEIGHT * (which[..., 0] * taken).sum()) / total
    return classes + BOX_WEIGHT * ((1 - ciou) * taken).sum() / total


def vary(pictures, key):
    """Pictures in 0..1 with their colours exchanged, and lightened or darkened, at random."""
    n = len(pictures)
    orders = jnp.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    swap, gain, lift = jax.random.split(key, 3)
    order = orders[jax.random.randint(swap, (n,), 0, len(orders))]
    images = pictures.astype(jnp.float32) / 255
    images = jnp.take_along_axis(images, order[:, None, None], axis=3)
    spread = (n, 1, 1, 1)
    images = images * jax.random.uniform(gain, spread, minval=0.8, maxval=1.2)
    return jnp.clip(images + jax.random.uniform(lift, spread, minval=-0.1, maxval=0.1), 0, 1)


@partial(jax.jit, static_argnums=1, donate_argnums=0)
def step(state, layers, key, count, rate, pictures, truth, digits):
    """One step of Adam with weight decay kept apart from the gradient (AdamW)."""
    params, first, second, mean = state
    images = vary(pictures, key)
    value, gradient = jax.value_and_grad(loss)(params, layers, images, truth, digits)
    norm = jnp.sqrt(sum((g**2).sum() for g in gradient.values()))
    shrink = jnp.minimum(1, 10 / (norm + 1e-6))
    # The average starts out short, or the first weights would stay in it for long.
    keep = jnp.minimum(AVERAGE, count / (count + 10))
    for name, g in gradient.items():
        first[name] = 0.9 * first[name] + 0.1 * shrink * g
        second[name] = 0.999 * second[name] + 0.001 * (shrink * g) ** 2
        move = first[name] / (1 - 0.9**count)
        move /= jnp.sqrt(second[name] / (1 - 0.999**count)) + 1e-8
        decay = WEIGHT_DECAY if name.endswith("/weight") else 0.0
        params[name] = params[name] - rate * (move + decay * params[name])
        mean[name] = keep * mean[name] + (1 - keep) * params[name]
    return (params, first, second, mean), value


def train(name, arrays, label):
    """Trains from scratch; returns the folded weights, the seconds taken and the last mean loss."""
    began = time.perf_counter()
    rng = np.random.default_rng(SEED)
    pictures, truth, digits = arrays
    steps, peak_rate = STEPS[name], PEAK_RATE[name]
    layers = tuple(layers_of(SIZES[name]))
    params = initial_weights(layers, rng)
    zeros = {name: jnp.zeros_like(p) for name, p in params.items()}
    state = jax.tree.map(jnp.copy, (params, zeros, zeros, params))
    key = jax.random.key(SEED)
    order, losses = [], []
    for count in range(1, steps + 1):
        if len(order) < BATCH:
            order = rng.permutation(len(pictures))
        part, order = order[:BATCH], order[BATCH:]
        # The rate climbs over the first twentieth, then falls to 0 along a cosine.
        warm = min(1.0, count / (steps / 20))
        rate = peak_rate * warm * (1 + math.cos(math.pi * count / steps)) / 2
        state, value = step(
            state,
            layers,
            jax.random.fold_in(key, count),
            float(count),
            rate,
            pictures[part],
            truth[part],
            digits[part],
        )
        losses.append(value)
        if count % 200 == 0 or count == 50:
            recent, seconds = float(np.mean(losses[-200:])), time.perf_counter() - began
            print(f"{label}: step {count}, loss {recent:.4f}, {seconds:.0f} s", flush=True)
    params = fold(layers, state[3], pictures, rng)
    return params, time.perf_counter() - began, float(np.mean(losses[-200:]))


def fold(layers, params, pictures, rng, batches=40):
    """Weights that need no normalising: each layer's mean and variance, measured over pictures
    learnt from, go into its kernel and bias."""
    measure = jax.jit(lambda params, x: raw(layers, params, x)[1])
    parts = np.array_split(rng.permutation(len(pictures))[: batches * 64], batches)
    moments = [measure(params, pictures[part].astype(np.float32) / 255) for part in parts]
    folded = dict(params)
    for name in moments[0]:
        mean, variance = (np.mean([m[name][i] for m in moments], axis=0) for i in range(2))
        gain = folded.pop(name + "/gain") / np.sqrt(variance + 1e-5)
        folded[name + "/weight"] = params[name + "/weight"] * gain
        folded[name + "/bias"] = params[name + "/bias"] - mean * gain
    return folded


# --- The two ways to run -----------------------------------------------------------------------


def compose_all(label, seed, count, grey, digits):
    began = time.perf_counter()
    rng = np.random.default_rng([SEED, seed])
    scenes = [compose(rng, grey, digits) for _ in range(count)]
    total = sum(len(s.digits) for s in scenes)
    seconds = time.perf_counter() - began
    print(f"{label}: {count} pictures, {total} digits, {seconds:.0f} s", flush=True)
    return scenes


def split(held_out, learnt):
    grey, digits, forms = load()
    learn, probe = np.isin(forms, learnt), np.isin(forms, held_out)
    return (grey[learn], digits[learn]), (grey[probe], digits[probe])


def validate(sizes):
    """Tries the recipe inside the training forms; writes nothing beside this file."""
    last = FORMS - HELD_OUT_FORMS
    learn, probe = split(range(last - 2, last + 1), range(1, last - 2))
    arrays = learnable(compose_all("to learn from", 0, SCENES, *learn))
    scenes = compose_all("to measure on", 1, HELD_OUT_SCENES, *probe)
    inputs, ways_back = zip(*(letterbox(scene.picture) for scene in scenes))
    for name in sizes:
        params, _, _ = train(name, arrays, f"{name}, validation")
        path = Path(tempfile.gettempdir(), f"detector_{name}_validation.onnx")
        onnx.save(export(layers_of(SIZES[name]), params, f"detector_{name}"), path)
        outputs, milliseconds = run_onnx(path, inputs)
        print(name, measure(scenes, outputs, ways_back))
        print(f"{path.stat().st_size} bytes, {milliseconds:.2f} ms", flush=True)


def make(name, arrays, scenes):
    """Trains one size, writes its file and returns what was measured."""
    layers = layers_of(SIZES[name])
    params, seconds, last_loss = train(name, arrays, name)
    model = export(layers, params, f"detector_{name}")
    path = HERE / f"detector_{name}.onnx"
    onnx.save(model, path)

    # The mAP is that of the written file, not of the trained function.
    inputs, ways_back = zip(*(letterbox(scene.picture) for scene in scenes))
    outputs, milliseconds = run_onnx(path, inputs)
    images = np.stack(inputs[:100]).astype(np.float32) / 255
    values, _ = jax.jit(lambda x: raw(layers, params, x))(images)
    expected = jnp.concatenate([decode(values), jax.nn.sigmoid(values[..., 4:])], axis=-1)
    differences = np.abs(outputs[:100] - np.asarray(expected).transpose(0, 2, 1))
    in_pixels, in_scores = float(differences[:, :4].max()), float(differences[:, 4:].max())
    assert in_pixels < 1e-2 and in_scores < 1e-3, (in_pixels, in_scores)

    shapes = shapes_of(model)
    flop = 0
    for node in model.graph.node:
        flop += operations(node, shapes)
        print(f"{node.name:24} {node.op_type:10} {shapes[node.output[0]]}")
    weights = {t.name: math.prod(t.dims) for t in model.graph.initializer}
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "nodes": len(model.graph.node),
        "parameters": sum(n for t, n in weights.items() if not t.startswith("decode/")),
        "weights_of_64_kib_or_more": sum(4 * n >= 64 * 1024 for n in weights.values()),
        "mflop_per_inference": round(flop / 1e6, 2),
        "onnxruntime_milliseconds_one_thread": round(milliseconds, 3),
        "largest_difference_from_trained_function": {"pixels": in_pixels, "score": in_scores},
        "held_out": measure(scenes, outputs, ways_back),
        "training": {
            "steps": STEPS[name],
            "peak_rate": PEAK_RATE[name],
            "last_loss": round(last_loss, 4),
            "seconds": round(seconds, 1),
        },
    }


def write_samples(folder, grey, digits):
    """Writes the pictures as JPEG; returns them as they are read back."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    rng = np.random.default_rng([SEED, 2])
    samples = {}
    for n, shape in zip_longest(range(1, SAMPLES + 1), SAMPLE_SHAPES):
        scene = compose(rng, grey, digits, shape)
        path = folder / f"held-out-{n:02}-{len(scene.digits)}-digits.jpg"
        # Colours at full resolution: decoders differ in how they restore less.
        Image.fromarray(scene.picture).save(path, quality=90, subsampling=0)
        scene.picture = np.asarray(Image.open(path))
        samples[path.name] = scene
    return samples


def described(digits, boxes, scores=()):
    rows = [[int(d), *(round(float(v), 1) for v in box)] for d, box in zip(digits, boxes)]
    return [[*row, *(round(float(v), 3) for v in score)] for row, *score in zip(rows, *scores)]


def samples_report(folder, samples, names):
    """Writes truth.json; returns what is right in the samples, for each size."""
    scenes = list(samples.values())
    inputs, ways_back = zip(*(letterbox(scene.picture) for scene in scenes))
    truth = [{"digits": described(s.digits, s.boxes)} for s in scenes]
    figures = {}
    for name in names:
        outputs, _ = run_onnx(HERE / f"detector_{name}.onnx", inputs)
        every = found_in(scenes, outputs, ways_back, SCORE_MIN)
        for entry, found in zip(truth, every):
            entry[name] = described(found.digits, found.boxes, [found.scores])
        table = precisions(every, scenes)
        figures[name] = {
            "detections": sum(len(found.digits) for found in every),
            "right": sum(int(matches(f, s, 0.5).sum()) for f, s in zip(every, scenes)),
            "map_50": round(float(table[:, 0].mean()), 4),
            "map_50_95": round(float(table.mean()), 4),
        }
    # A line for each picture.
    lines = [f"{json.dumps(file)}: {json.dumps(entry)}" for file, entry in zip(samples, truth)]
    (folder / "truth.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return {"pictures": len(scenes), "digits": sum(len(s.digits) for s in scenes), **figures}


def main(sizes):
    print(f"seed {SEED}")
    check_measure()
    held = range(FORMS - HELD_OUT_FORMS + 1, FORMS + 1)
    learn, probe = split(held, range(1, FORMS - HELD_OUT_FORMS + 1))
    scenes = compose_all("held out", 1, HELD_OUT_SCENES, *probe)
    learnt = compose_all("to learn from", 0, SCENES, *learn)
    arrays = learnable(learnt)

    report_path = HERE / "detector.json"
    models = json.loads(report_path.read_text())["models"] if report_path.exists() else {}
    models |= {name: make(name, arrays, scenes) for name in sizes}
    models = {name: models[name] for name in SIZES if name in models}
    folder = HERE / "detector"
    samples = write_samples(folder, *probe)
    report = {
        "input": {
            "name": INPUT,
            "shape": [1, 3, SIDE, SIDE],
            "type": "float32",
            "range": [0, 1],
            "colour": "RGB",
            "fit": f"letterbox, centred, bilinear, on grey {FILL}",
        },
        "output": {
            "name": OUTPUT,
            "shape": [1, 4 + CLASSES, len(STRIDES)],
            "type": "float32",
            "rows": "centre x, centre y, width, height in pixels of the input; scores of 0 to 9",
            "score_min": SCORE_MIN,
            "overlap_max": OVERLAP_MAX,
        },
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "mflop_counts": "each multiplication and each addition of Conv",
        "variants": {
            name: {"file": m["file"], "accuracy": m["held_out"]["map_50"]}
            for name, m in models.items()
        },
        "models": models,
        "held_out": {
            "split": f"digits of the last {HELD_OUT_FORMS} of {FORMS} forms, each filled in by one "
            "hand; nothing was learnt from them or chosen by them; measured on the written files",
            "scans": len(probe[1]),
            "pictures": len(scenes),
            "digits": sum(len(s.digits) for s in scenes),
            "map": "mean over the ten digits of the average precision (101 recalls), at an IoU of "
            f"0.5, and over 0.5, 0.55 .. 0.95; scores above {SCORE_MIN_MAP}",
        },
        "samples": {
            "folder": "detector",
            "chosen": "the first pictures of their seed, detected well or badly; measured on the "
            f"JPEG files, all of it with the scores above {SCORE_MIN} alone",
            **samples_report(folder, samples, models),
        },
        "training": {
            "seed": SEED,
            "scans": len(learn[1]),
            "pictures": SCENES,
            "digits": sum(len(s.digits) for s in learnt),
            "batch": BATCH,
            "packages": {name: version(name) for name in PACKAGES},
        },
        "data": json.loads((HERE / "digits.json").read_text())["data"]
        | {"changes": "composed into pictures as this script says"},
    }
    write_json(report_path, report)
    for name, model in models.items():
        print(name, model["held_out"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--validate", action="store_true", help="try the recipe, write nothing")
    parser.add_argument("--size", choices=[*SIZES, "none"], help="only this one, or none at all")
    arguments = parser.parse_args()
    sizes = [size for size in SIZES if arguments.size in (None, size)]
    validate(sizes) if arguments.validate else main(sizes)
