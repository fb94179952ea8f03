"""Writes the "light" networks of the Python package `onnx` with numbers in them.

    light_models.py NAME.onnx FOLDER    writes FOLDER/NAME.onnx
    light_models.py --names             prints the names
    light_models.py --folder            prints where they are as they come

As they come, every weight is one number repeated (ConstantOfShape), so that every class gets the same
score whatever is computed on the way. Here weights are drawn at random, the same ones each time. The
softmax at the end goes: with such weights it would round nearly all scores to 0 or 1.
"""
import os
import sys

import numpy
import onnx
from onnx import numpy_helper

LIGHT = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data", "light")


def drawn(generator, shape):
    """Numbers that keep activations at one scale: He's for filters; near 1 for norms, variances too."""
    if len(shape) < 2:
        return generator.uniform(0.5, 1.5, shape).astype(numpy.float32)
    inputs = numpy.prod(shape[1:])
    return generator.normal(0, (2 / inputs) ** 0.5, shape).astype(numpy.float32)


def with_numbers(model):
    graph = model.graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    generator = numpy.random.default_rng(7)
    nodes = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in stored:
            values = drawn(generator, tuple(stored[node.input[0]]))
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            nodes.append(node)
    if nodes[-1].op_type == "Softmax":
        graph.output[0].name = nodes.pop().input[0]
        graph.output[0].type.tensor_type.ClearField("shape")
    del graph.node[:]
    graph.node.extend(nodes)
    model.ir_version = max(model.ir_version, 4)
    return model


if sys.argv[1:] == ["--names"]:
    print("\n".join(sorted(name for name in os.listdir(LIGHT) if name.endswith(".onnx"))))
elif sys.argv[1:] == ["--folder"]:
    print(LIGHT)
else:
    name, folder = sys.argv[1:]
    onnx.save(with_numbers(onnx.load(os.path.join(LIGHT, name))), os.path.join(folder, name))
