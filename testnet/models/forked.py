"""Writes a network with two branches that can run beside each other, for tests and benchmarks of plans with a fork.

It computes nothing of use: its weights are drawn, not learned. What it has is what such plans must get right: a stem that
both branches read, branches of much work whose outputs are small, something that passes the branches by, an output of the
model that a branch gives, and a part that needs all of them. Neither building nor testing the project runs this script:
what it writes is committed beside it.

    pip install numpy==2.4.6 onnx==1.23.2
    python testnet/models/forked.py

It writes `forked.onnx`: `x` float32 [1,16,24,24] -> `scores` [1,10] and `left` [1,16,1,1].
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIDE, TIMES = 16, 24, 4
# Convolutions of a branch, and how many of them have weights of their own; the others share those.
LAYERS, KERNELS = 24, 3

draw = np.random.RandomState(7)
nodes, weights = [], []


def weight(name, shape, scale):
    values = draw.standard_normal(shape).astype(np.float32) * np.float32(scale)
    weights.append(numpy_helper.from_array(values, name))
    return name


def kernel(name):
    # He's scale, which keeps the variance behind a Relu.
    return weight(name, (CHANNELS, CHANNELS, 3, 3), np.sqrt(2.0 / (9 * CHANNELS)))


def convolved(source, kernel_name, name):
    nodes.append(helper.make_node("Conv", [source, kernel_name], [f"{name}_c"], pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("Relu", [f"{name}_c"], [name]))
    return name


weights.append(numpy_helper.from_array(np.array([1, 1, TIMES, TIMES]), "repeats"))
stem = convolved("x", kernel("stem_w"), "stem")
nodes.append(helper.make_node("GlobalAveragePool", [stem], ["skip"]))
for branch in ["a", "b"]:
    kernels = [kernel(f"{branch}_w{number}") for number in range(KERNELS)]
    # Little to send, much to do.
    nodes.append(helper.make_node("Tile", [stem, "repeats"], [f"{branch}_tiled"]))
    last = f"{branch}_tiled"
    for layer in range(LAYERS):
        last = convolved(last, kernels[layer % KERNELS], f"{branch}_{layer}")
    nodes.append(helper.make_node("GlobalAveragePool", [last], [f"{branch}_mean"]))
    if branch == "a":
        nodes.append(helper.make_node("GlobalMaxPool", [last], ["left"]))
nodes.append(helper.make_node("Concat", ["a_mean", "b_mean", "skip"], ["all"], axis=1))
nodes.append(helper.make_node("Flatten", ["all"], ["flat"]))
nodes.append(helper.make_node("MatMul", ["flat", weight("scores_w", (3 * CHANNELS, 10), 0.3)], ["scores"]))

graph = helper.make_graph(
    nodes,
    "forked",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])],
    [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10]),
        helper.make_tensor_value_info("left", TensorProto.FLOAT, [1, CHANNELS, 1, 1]),
    ],
    weights,
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="stormo")
model.ir_version = 8
onnx.checker.check_model(model)
path = Path(__file__).resolve().parent / "forked.onnx"
path.write_bytes(model.SerializeToString())
print(path.stat().st_size, "bytes")
