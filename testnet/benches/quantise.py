"""Compares `stormo quantize` with ONNX Runtime's own static quantiser: same models, same samples.

    python3 -m venv venv && . venv/bin/activate
    pip install numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 pillow==13.0.0
    cargo build --release --locked -p stormo
    python testnet/benches/quantise.py --models FOLDER    # with the models, their photos and prepost.py

Theirs is `quantize_static`: QDQ, per channel, min-max, uint8 activations and int8 weights (what its
documentation recommends for x86; its default, int8 activations, is two to three times slower there),
after its own `quant_pre_process`. Both calibrate on the same arrays and are judged on others: crops and mirror
images of the photos, which neither has seen. Agreement is with the fp32 model: the share of answers
that stay (top-1, or detections matched by class and an overlap of 0.5), and the error of the raw
outputs (root mean square of the difference, as a share of that of the fp32 outputs; the median over
images of the worst output).

Speed: sessions of one thread, called in turn in one process, median of the ratios of rounds. Counted
is the thread's processor time, so that other work on the machine weighs little.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "testnet" / "models"


class Case:
    """A model, arrays to calibrate on, others to judge by, and what its outputs mean."""

    def __init__(self, name, path, calibration, held_out, answers, keep_float=()):
        self.name, self.path, self.keep_float = name, path, keep_float
        self.calibration, self.held_out, self.answers = calibration, held_out, answers


def views(photo):
    """Crops and mirror images of a photo."""
    height, width = photo.shape[:2]
    yield np.ascontiguousarray(photo[:, ::-1])
    for top, left in ((0, 0), (0, width // 4), (height // 4, 0), (height // 4, width // 4), (height // 8, width // 8)):
        part = photo[top : top + 3 * height // 4, left : left + 3 * width // 4]
        yield np.ascontiguousarray(part)
        yield np.ascontiguousarray(part[:, ::-1])


def digit_images():
    images = [Image.open(path).convert("L") for path in sorted((DIGITS / "digits").glob("*.png"))]
    assert images, "the digits are not there"
    return images


def cases(folder):
    sys.path.insert(0, str(folder))
    import prepost

    names = sorted(path.name for path in (folder / "photos").glob("*.jpg"))
    photos = [prepost.photo(name) for name in names]
    others = [view for photo in photos for view in views(photo)]
    detectors = {
        "nanodet_m_320": (lambda a: prepost.pre_nanodet(a, 320), lambda a, o: prepost.post_nanodet(a, 320, o)),
        "nanodet_m_416": (lambda a: prepost.pre_nanodet(a, 416), lambda a, o: prepost.post_nanodet(a, 416, o)),
        "fastestdet_352": (prepost.pre_fastestdet, prepost.post_fastestdet),
        "yunet_n_320": (prepost.pre_yunet, prepost.post_yunet),
        "yunet_s_320": (prepost.pre_yunet, prepost.post_yunet),
        "lstr_360x640": (prepost.pre_lstr, None),
        "squeezenet_fp32": (prepost.pre_squeezenet, lambda a, o: int(o[0].argmax())),
    }
    for name, (pre, post) in detectors.items():
        yield Case(
            name,
            folder / f"{name}.onnx",
            [pre(photo) for photo in photos],
            [pre(photo) for photo in others],
            post and (lambda outputs, index, post=post: post(others[index], outputs)),
        )
    digits = digit_images()
    top = lambda outputs, index: int(outputs[0].argmax())
    big = [np.asarray(image.resize((28, 28)), np.float32)[None, None] for image in digits]
    small = [np.asarray(image, np.float32)[None, None] / 255 for image in digits]
    for name, path, arrays, key in (
        ("mnist_cntk", folder / "mnist_cntk.onnx", big, "Input3"),
        ("digits", DIGITS / "digits.onnx", small, "image"),
    ):
        arrays = [{key: array} for array in arrays]
        yield Case(name, path, arrays[::2], arrays[1::2], top)


class Reader(CalibrationDataReader):
    def __init__(self, samples):
        self.left = iter(samples)

    def get_next(self):
        return next(self.left, None)


def theirs(case, folder):
    """Made by ONNX Runtime's quantiser."""
    model = onnx.load(case.path)
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    model.ir_version = max(model.ir_version, 7)
    if opset < 13:
        model = onnx.version_converter.convert_version(model, 13)
    raised, prepared, out = folder / "raised.onnx", folder / "prepared.onnx", folder / "theirs.onnx"
    onnx.save(model, raised)
    try:
        quant_pre_process(raised, prepared, skip_symbolic_shape=True)
    except Exception:
        prepared = raised
    for per_channel in (True, False):
        try:
            quantize_static(
                prepared,
                out,
                Reader(case.calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=per_channel,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            return out
        except ValueError as error:
            # It fails on a product with a bias (mnist_cntk).
            print(f"{case.name}: ONNX Runtime's quantiser fails per channel ({error})", file=sys.stderr)
    raise SystemExit(f"{case.name}: ONNX Runtime's quantiser fails")


def ours(case, folder, binary, options):
    """Made by `stormo quantize`."""
    samples, out = folder / "samples", folder / "ours.onnx"
    samples.mkdir()
    for index, arrays in enumerate(case.calibration):
        np.savez(samples / f"{index:02}.npz", **arrays)
    keep = [word for prefix in case.keep_float for word in ("--keep-float", prefix)]
    command = [binary, "quantize", case.path, "--samples", samples, "-o", out, "--json", *keep, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def error(outputs, reference):
    worst = 0.0
    for one, other in zip(outputs, reference):
        one, other = one.astype(np.float64), other.astype(np.float64)
        size = np.sqrt(np.mean(other**2))
        worst = max(worst, float(np.sqrt(np.mean((one - other) ** 2)) / size) if size > 0 else 0.0)
    return worst


def overlap(one, other):
    left, top = np.maximum(one[:2], other[:2])
    right, bottom = np.minimum(one[2:], other[2:])
    both = max(0, right - left) * max(0, bottom - top)
    area = lambda box: max(0, box[2] - box[0]) * max(0, box[3] - box[1])
    return both / max(1e-9, area(one) + area(other) - both)


def matched(found, reference):
    """How many of two lists of detections belong together."""
    left, count = list(found), 0
    for label, _, box in reference:
        best = max((other for other in left if other[0] == label), key=lambda o: overlap(box, o[2]), default=None)
        if best is not None and overlap(box, best[2]) >= 0.5:
            left.remove(best)
            count += 1
    return count


def agreement(case, outputs, reference):
    """Of all answers, how many are those of the fp32 model; (same, of how many)."""
    same = total = 0
    for index, (mine, theirs) in enumerate(zip(outputs, reference)):
        mine, theirs = case.answers(mine, index), case.answers(theirs, index)
        if isinstance(mine, int):
            same, total = same + (mine == theirs), total + 1
        else:
            same, total = same + 2 * matched(mine, theirs), total + len(mine) + len(theirs)
    return same, total


def speeds(sessions, feed, seconds):
    """Time of each as a share of the first's, in turn, and the first's own in ms."""
    times = {name: [] for name in sessions}
    for made in sessions.values():
        for _ in range(5):
            made.run(None, feed)
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times["fp32"]) < 20:
        for name, made in sessions.items():
            started = time.thread_time()
            made.run(None, feed)
            times[name].append(time.thread_time() - started)
    base = times["fp32"]
    ratios = {name: statistics.median(a / b for a, b in zip(own, base)) for name, own in times.items()}
    return ratios, 1000 * statistics.median(base), times


def judge(case, arguments):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        made = {"fp32": case.path}
        if not arguments.only_ours:
            made["theirs"] = theirs(case, folder)
        if arguments.stormo:
            made["ours"] = ours(case, folder, arguments.stormo, arguments.option)
        sessions = {name: session(path) for name, path in made.items()}
        ratios, fp32_ms, times = speeds(sessions, case.held_out[0], arguments.seconds)
        reference = [sessions["fp32"].run(None, arrays) for arrays in case.held_out]
        row = {"model": case.name, "fp32_ms": fp32_ms, "images": len(case.held_out)}
        if "ours" in times and "theirs" in times:
            row["ours_time_of_theirs"] = statistics.median(
                a / b for a, b in zip(times["ours"], times["theirs"])
            )
        for name in list(sessions)[1:]:
            outputs = [sessions[name].run(None, arrays) for arrays in case.held_out]
            errors = [error(one, other) for one, other in zip(outputs, reference)]
            row[name] = {
                "bytes": Path(made[name]).stat().st_size,
                "time_of_fp32": ratios[name],
                "raw_error": statistics.median(errors),
            }
            if case.answers:
                same, total = agreement(case, outputs, reference)
                row[name] |= {"same": same, "of": total, "agreement": same / max(1, total)}
        return row


def show(row):
    line = f"{row['model']:<16} {row['fp32_ms']:7.2f}"
    for name in ("theirs", "ours"):
        if name in row:
            it = row[name]
            share = f"{100 * it['agreement']:6.1f}% ({it['same']}/{it['of']})" if "agreement" in it else "-"
            line += f" | {it['time_of_fp32']:5.2f} {100 * it['raw_error']:7.2f}% {share:>18} {it['bytes']:9}"
    if "ours_time_of_theirs" in row:
        line += f" | {row['ours_time_of_theirs']:5.2f}"
    print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder with models, photos and prepost.py")
    parser.add_argument("--stormo", default=str(ROOT / "target" / "release" / "stormo"), help="the binary")
    parser.add_argument("--option", action="append", default=[], help="a further word for `stormo quantize`")
    parser.add_argument("--only", action="append", default=[], help="only models with this in their name")
    parser.add_argument("--only-ours", action="store_true", help="leave theirs out")
    parser.add_argument("--seconds", type=float, default=5, help="of measuring speed per model")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if not arguments.json:
        print("                     fp32 |          theirs                                        | ours")
        print("model                  ms |  time    error          agreement     bytes |  the same | ours/theirs")
    rows = []
    for case in cases(arguments.models):
        if arguments.only and not any(word in case.name for word in arguments.only):
            continue
        rows.append(judge(case, arguments))
        if not arguments.json:
            show(rows[-1])
    if arguments.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
