"""The detector's network in its two sizes: what is trained, and the same as an ONNX model."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from digits import CLASSES, IR_VERSION, OPSET

INPUT, OUTPUT = "image", "detections"
SIDE = 96  # of the input, pixels

# One list, read both by the function that is trained and by the export, so the two can't differ.


@dataclass(frozen=True)
class Layer:
    name: str
    op: str
    inputs: tuple[str, ...]
    channels: int = 0  # outputs of Conv
    kernel: int = 0  # side of the window of Conv and MaxPool
    stride: int = 1
    normed: bool = True  # a Conv normalised over the batch while it learns; folded at export


@dataclass(frozen=True)
class Size:
    widths: tuple[int, int, int, int]  # channels at 48x48, 24x24, 12x12 and 6x6
    depths: tuple[int, int, int]  # residual pairs at 24x24, 12x12 and 6x6
    head: int


SIZES = {
    "n": Size((12, 20, 32, 40), (1, 1, 1), 24),
    "s": Size((16, 32, 56, 80), (1, 2, 1), 48),
}


@dataclass(frozen=True)
class Level:
    name: str
    stride: int
    largest: float  # the widest and tallest box it can tell, in pixels


LEVELS = [Level("fine", 8, 64), Level("coarse", 16, 96)]


def layers_of(size):
    layers = []

    def conv(name, into, channels, kernel=3, stride=1):
        layers.append(Layer(name, "Conv", (into,), channels, kernel, stride))
        layers.append(Layer(name + "/relu", "Relu", (name,)))
        return name + "/relu"

    def join(name, *inputs):
        layers.append(Layer(name, "Concat", inputs))
        return name

    def block(name, into, channels, depth):
        """Two branches, one of them through residual pairs, joined side by side and mixed."""
        skip = conv(name + "/skip", into, channels // 2, 1)
        deep = conv(name + "/deep", into, channels // 2, 1)
        for i in range(1, depth + 1):
            pair = f"{name}/pair{i}"
            first = conv(pair + "/conv1", deep, channels // 2)
            layers.append(Layer(pair + "/conv2", "Conv", (first,), channels // 2, 3))
            layers.append(Layer(pair + "/add", "Add", (pair + "/conv2", deep)))
            layers.append(Layer(pair + "/relu", "Relu", (pair + "/add",)))
            deep = pair + "/relu"
        return conv(name + "/mix", join(name + "/concat", skip, deep), channels, 1)

    w48, w24, w12, w6 = size.widths
    d24, d12, d6 = size.depths
    x = conv("stem", INPUT, w48, stride=2)
    x = block("stage1", conv("down1", x, w24, stride=2), w24, d24)
    middle = block("stage2", conv("down2", x, w12, stride=2), w12, d12)
    x = block("stage3", conv("down3", middle, w6, stride=2), w6, d6)
    # What lies around, by ever wider windows.
    near = conv("around/reduce", x, w6 // 2, 1)
    layers.append(Layer("around/pool1", "MaxPool", (near,), kernel=5))
    layers.append(Layer("around/pool2", "MaxPool", ("around/pool1",), kernel=5))
    x = join("around/concat", near, "around/pool1", "around/pool2")
    deep = conv("around/mix", x, w6, 1)
    # From coarse to fine and back.
    layers.append(Layer("neck/up", "Resize", (deep,)))
    fine = block("neck/fine", join("neck/fine/join", "neck/up", middle), w12, 1)
    x = join("neck/coarse/join", conv("neck/down", fine, w12, stride=2), deep)
    coarse = block("neck/coarse", x, w6, 1)
    for level, x in zip(LEVELS, (fine, coarse)):
        name = "head/" + level.name
        box = conv(name + "/box/conv", x, size.head // 2)
        digit = conv(name + "/digit/conv1", x, size.head)
        digit = conv(name + "/digit/conv2", digit, size.head)
        layers.append(Layer(name + "/box", "Conv", (box,), 4, 1, normed=False))
        layers.append(Layer(name + "/digit", "Conv", (digit,), CLASSES, 1, normed=False))
        join(name, name + "/box", name + "/digit")
    return layers


def initial_weights(layers, rng):
    """He's initialisation. Kernels are kept as height, width, in, out."""
    channels = {INPUT: 3}
    params = {}
    residual = {layer.inputs[0] for layer in layers if layer.op == "Add"}
    for layer in layers:
        into = [channels[name] for name in layer.inputs]
        channels[layer.name] = layer.channels or (sum(into) if layer.op == "Concat" else into[0])
        if layer.op != "Conv":
            continue
        shape = (layer.kernel, layer.kernel, into[0], layer.channels)
        scale = math.sqrt(2 / (into[0] * layer.kernel**2))
        if layer.normed:
            # A residual pair starts out close to passing on what it was given.
            gain = 0.3 if layer.name in residual else 1.0
            params[layer.name + "/gain"] = jnp.full(layer.channels, gain, jnp.float32)
            bias = np.zeros(layer.channels)
        else:
            scale *= 0.1
            # Scores start near the share of places that hold any one digit.
            bias = np.full(layer.channels, -4.6 if layer.channels == CLASSES else 0.0)
        params[layer.name + "/weight"] = jnp.asarray(rng.normal(0, scale, shape), jnp.float32)
        params[layer.name + "/bias"] = jnp.asarray(bias, jnp.float32)
    return params


def raw(layers, params, images):
    """The function that is trained: images [n,96,96,3] in 0..1 -> values [n,180,14] before the
    sigmoid, and each normalised layer's mean and variance over this batch.

    Folded weights have no gains: then nothing is normalised.
    """
    value, moments = {INPUT: images}, {}
    for layer in layers:
        x = [value[name] for name in layer.inputs]
        match layer.op:
            case "Conv":
                weight, bias = params[layer.name + "/weight"], params[layer.name + "/bias"]
                y = convolve(x[0], weight, layer.stride)
                if layer.name + "/gain" in params:
                    mean = y.mean((0, 1, 2))
                    variance = (y * y).mean((0, 1, 2)) - mean**2
                    moments[layer.name] = mean, variance
                    y = (y - mean) * (params[layer.name + "/gain"] / jnp.sqrt(variance + 1e-5))
                y = y + bias
            case "Relu":
                y = jax.nn.relu(x[0])
            case "Add":
                y = x[0] + x[1]
            case "Concat":
                y = jnp.concatenate(x, axis=3)
            case "MaxPool":
                window = (1, layer.kernel, layer.kernel, 1)
                y = jax.lax.reduce_window(x[0], -jnp.inf, jax.lax.max, window, (1,) * 4, "SAME")
            case "Resize":
                y = x[0].repeat(2, axis=1).repeat(2, axis=2)
        value[layer.name] = y
    heads = [value["head/" + level.name] for level in LEVELS]
    flat = [h.reshape(len(images), -1, 4 + CLASSES) for h in heads]
    return jnp.concatenate(flat, axis=1), moments


def convolve(x, weight, stride):
    if weight.shape[:2] == (1, 1):
        return x @ weight[0, 0]  # the same, with a much faster gradient
    pads = [(weight.shape[0] // 2,) * 2] * 2
    if x.shape[3] == 3:
        # The same convolution over 2x2 pixels at a time, because three channels run very slowly.
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, h // 2, w // 2, 4 * c)
        weight = jnp.pad(weight, ((1, 0), (1, 0), (0, 0), (0, 0)))
        weight = weight.reshape(2, 2, 2, 2, c, -1).transpose(0, 2, 1, 3, 4, 5)
        weight = weight.reshape(2, 2, 4 * c, -1)
        stride, pads = 1, [(1, 0)] * 2
    return jax.lax.conv_general_dilated(
        x, weight, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def places():
    """For each place its centre (x, y), its stride and its largest box, in pixels."""
    centres, strides, largest = [], [], []
    for level in LEVELS:
        n = SIDE // level.stride
        row, column = np.mgrid[:n, :n]
        centre = np.stack([column.ravel(), row.ravel()], 1) * level.stride + level.stride / 2
        centres.append(centre)
        strides += [level.stride] * n * n
        largest += [level.largest] * n * n
    as32 = partial(np.asarray, dtype=np.float32)
    return as32(np.concatenate(centres)), as32(strides), as32(largest)


CENTRES, STRIDES, LARGEST = places()


def decode(values):
    """Boxes [n,180,4] as centre and size in pixels. A centre is within two strides of its place."""
    shares = jax.nn.sigmoid(values[..., :4])
    centre = CENTRES + (4 * shares[..., :2] - 2) * STRIDES[:, None]
    return jnp.concatenate([centre, shares[..., 2:] ** 2 * LARGEST[:, None]], axis=-1)


def export(layers, params, name):
    """The trained network as an ONNX model, checked and with the shape of every tensor in it."""
    nodes, initializers = [], []

    def constant(label, array):
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), label))
        return label

    def node(label, op, inputs, outputs=None, **attributes):
        nodes.append(helper.make_node(op, inputs, outputs or [label], name=label, **attributes))
        return label

    for layer in layers:
        inputs = list(layer.inputs)
        attributes = {}
        side, pad = layer.kernel, layer.kernel // 2
        window = {"kernel_shape": [side] * 2, "pads": [pad] * 4, "strides": [layer.stride] * 2}
        match layer.op:
            case "Conv":
                weight = np.asarray(params[layer.name + "/weight"]).transpose(3, 2, 0, 1)
                bias = np.asarray(params[layer.name + "/bias"])
                inputs.append(constant(layer.name + "/weight", weight))
                inputs.append(constant(layer.name + "/bias", bias))
                attributes = window
            case "MaxPool":
                attributes = window
            case "Concat":
                attributes = {"axis": 1}
            case "Resize":
                inputs += ["", constant(layer.name + "/scales", np.float32([1, 1, 2, 2]))]
                attributes = {
                    "mode": "nearest",
                    "coordinate_transformation_mode": "asymmetric",
                    "nearest_mode": "floor",
                }
        node(layer.name, layer.op, inputs, **attributes)

    flat = []
    for level in LEVELS:
        shape = np.int64([1, 4 + CLASSES, (SIDE // level.stride) ** 2])
        label = f"decode/{level.name}"
        inputs = [f"head/{level.name}", constant(label + "/shape", shape)]
        flat.append(node(label, "Reshape", inputs))
    node("decode/places", "Concat", flat, axis=2)
    node("decode/sigmoid", "Sigmoid", ["decode/places"])
    split = constant("decode/split/sizes", np.int64([2, 2, CLASSES]))
    shares = ["decode/centre/share", "decode/size/share", "decode/scores"]
    node("decode/split", "Split", ["decode/sigmoid", split], shares, axis=1)
    reach = constant("decode/centre/reach", 4 * STRIDES[None, None])
    origin = constant("decode/centre/origin", (CENTRES - 2 * STRIDES[:, None]).T[None])
    node("decode/centre/scaled", "Mul", [shares[0], reach])
    node("decode/centre", "Add", ["decode/centre/scaled", origin])
    node("decode/size/square", "Mul", [shares[1], shares[1]])
    largest = constant("decode/size/largest", LARGEST[None, None])
    node("decode/size", "Mul", ["decode/size/square", largest])
    parts = ["decode/centre", "decode/size", shares[2]]
    node("decode/join", "Concat", parts, [OUTPUT], axis=1)

    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, 4 + CLASSES, len(STRIDES)])],
        initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="detector.py",
        doc_string="Finds handwritten digits: RGB in 0..1, letterboxed on grey 114, in; centre x "
        "and y, width, height in pixels of the input and ten scores for each place out.",
    )
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)
