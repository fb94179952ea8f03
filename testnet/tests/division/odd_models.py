"""Writes small networks of every kind that a divider may meet; prints their names.

    odd_models.py FOLDER

Weights are drawn at random, the same ones each time. Inputs are for whoever runs them: floats between 0
and 1, integers 0, texts "0", "1" and so on.
"""
import os
import sys

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8
STRING = TensorProto.STRING
OPSET = helper.make_opsetid("", 17)
OF_TEXTS = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 2)]
random = numpy.random.default_rng(3)
node = helper.make_node


def value(name, shape, element=FLOAT):
    return helper.make_tensor_value_info(name, element, shape)


def stored(name, array):
    return numpy_helper.from_array(numpy.asarray(array), name)


def weight(name, *shape):
    return stored(name, random.standard_normal(shape).astype(numpy.float32))


def model(nodes, inputs, outputs, weights=(), opsets=(OPSET,), functions=()):
    graph = helper.make_graph(nodes, "odd", inputs, outputs, list(weights))
    return helper.make_model(graph, opset_imports=list(opsets), functions=list(functions), ir_version=8)


def chain(first, last, length, name="c"):
    """A stretch of cheap nodes, so that there is something to cut."""
    names = [first] + [f"{name}{index}" for index in range(length - 1)] + [last]
    kinds = ["Relu", "Exp", "Neg", "Sigmoid", "Tanh", "Abs"]
    return [node(kinds[index % 6], [names[index]], [names[index + 1]]) for index in range(length)]


def captures():
    """Branches that read tensors from far before."""
    then = helper.make_graph([node("Add", ["a", "w"], ["t"])], "then", [], [value("t", [2, 4])])
    other = helper.make_graph([node("Mul", ["b", "x"], ["e"])], "else", [], [value("e", [2, 4])])
    nodes = chain("x", "a", 3) + chain("a", "b", 3, "d") + [
        node("ReduceMax", ["a"], ["m"], keepdims=0),
        node("Greater", ["m", "z"], ["c"]),
        node("If", ["c"], ["r"], then_branch=then, else_branch=other),
    ] + chain("r", "y", 3, "f")
    return model(nodes, [value("x", [2, 4])], [value("y", None)], [weight("w", 2, 4), stored("z", numpy.float32(0.1))])


def loop_in_branch():
    body = helper.make_graph(
        [node("Add", ["s", "a"], ["s2"]), node("Identity", ["go"], ["on"])],
        "body",
        [value("i", [], INT64), value("go", [], BOOL), value("s", [2, 4])],
        [value("on", [], BOOL), value("s2", [2, 4])],
    )
    then = helper.make_graph([node("Loop", ["n", "", "a"], ["t"], body=body)], "then", [], [value("t", [2, 4])])
    other = helper.make_graph([node("Neg", ["x"], ["e"])], "else", [], [value("e", [2, 4])])
    nodes = chain("x", "a", 2) + [
        node("ReduceSum", ["a"], ["m"], keepdims=0),
        node("Greater", ["m", "z"], ["c"]),
        node("If", ["c"], ["r"], then_branch=then, else_branch=other),
    ] + chain("r", "y", 2, "f")
    return model(nodes, [value("x", [2, 4])], [value("y", None)], [stored("n", numpy.int64(3)), stored("z", numpy.float32(0))])


def scan():
    body = helper.make_graph(
        [node("Add", ["s", "e"], ["s2"]), node("Mul", ["s2", "w"], ["o"])],
        "body",
        [value("s", [4]), value("e", [4])],
        [value("s2", [4]), value("o", [4])],
    )
    nodes = chain("x", "a", 2) + [node("Scan", ["h", "a"], ["l", "o"], body=body, num_scan_inputs=1)] + chain("o", "y", 2, "f")
    return model(nodes, [value("x", [5, 4]), value("h", [4])], [value("y", None), value("l", None)], [weight("w", 4)])


def functions():
    inner = helper.make_function("my", "Inner", ["p"], ["q"], [node("Relu", ["p"], ["t"]), node("Neg", ["t"], ["q"])], [OPSET])
    outer = helper.make_function(
        "my", "Outer", ["p"], ["q"],
        [node("Inner", ["p"], ["t"], domain="my"), node("Exp", ["t"], ["q"])],
        [OPSET, helper.make_opsetid("my", 1)],
    )
    nodes = [node("Outer", ["x"], ["a"], domain="my")] + chain("a", "b", 3) + [node("Inner", ["b"], ["y"], domain="my")]
    return model(nodes, [value("x", [2, 4])], [value("y", None)], opsets=[OPSET, helper.make_opsetid("my", 1)], functions=[inner, outer])


def sequence():
    nodes = chain("x", "a", 2) + [
        node("SplitToSequence", ["a"], ["s"], axis=0),
        node("Exp", ["a"], ["b"]),
        node("SequenceAt", ["s", "i"], ["t"]),
        node("Add", ["t", "b"], ["r"]),
    ] + chain("r", "y", 2, "f")
    return model(nodes, [value("x", [2, 4])], [value("y", None)], [stored("i", numpy.int64(1))])


def strings():
    """Numbers that become text on the way, and numbers again."""
    nodes = chain("x", "a", 2) + [node("Cast", ["a"], ["s"], to=STRING), node("Cast", ["s"], ["r"], to=FLOAT)]
    return model(nodes + chain("r", "y", 2, "f"), [value("x", [2, 4])], [value("y", None)])


def texts():
    """Texts in and out, put together and chosen among."""
    nodes = [
        node("StringConcat", ["x", "unit"], ["a"]), node("RegexFullMatch", ["a"], ["small"], pattern="[0-2] µs"),
        node("StringConcat", ["a", "a"], ["b"]), node("Where", ["small", "b", "large"], ["c"]),
        node("StringNormalizer", ["flat"], ["n"], case_change_action="UPPER", locale="C"), node("Equal", ["n", "flat"], ["same"]),
    ]
    nodes.insert(4, node("Reshape", ["c", "six"], ["flat"]))
    stored_texts = [helper.make_tensor("unit", STRING, [1], [" µs".encode()]), helper.make_tensor("large", STRING, [1], [b"large"])]
    outputs = [value("n", None, STRING), value("small", None, BOOL), value("same", None, BOOL)]
    return model(nodes, [value("x", [2, 3], STRING)], outputs, stored_texts + [stored("six", [6])], opsets=OF_TEXTS)


def labels():
    """Labels become numbers, numbers the label of the largest."""
    nodes = [
        node("LabelEncoder", ["x"], ["l"], domain="ai.onnx.ml", keys_strings=["0", "1"], values_floats=[0.5, 1.5], default_float=-1.0),
        node("CategoryMapper", ["x"], ["m"], domain="ai.onnx.ml", cats_strings=["1", "2"], cats_int64s=[7, 8], default_int64=9),
        node("Cast", ["m"], ["f"], to=FLOAT), node("Add", ["l", "f"], ["s"]),
    ] + chain("s", "t", 3) + [
        node("MatMul", ["t", "w"], ["p"]), node("ArgMax", ["p"], ["best"], axis=1, keepdims=0),
        node("LabelEncoder", ["best"], ["y"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2, 3], values_strings=["no", "one", "two", "three"]),
    ]
    return model(nodes, [value("x", ["batch", 3], STRING)], [value("p", None), value("y", None, STRING)], [weight("w", 3, 5)], opsets=OF_TEXTS)


def tokens():
    """As many words as the texts have, some left out."""
    nodes = [
        node("StringNormalizer", ["x"], ["n"], stopwords=["1"], is_case_sensitive=1), node("StringConcat", ["n", "n2"], ["t"]),
        node("StringSplit", ["t"], ["words", "counts"], delimiter=" "), node("Cast", ["words"], ["f"], to=FLOAT),
        node("ReduceSum", ["f"], ["r"], keepdims=0),
    ]
    return model(nodes + chain("r", "y", 3), [value("x", [4], STRING)], [value("y", None)], [helper.make_tensor("n2", STRING, [1], [b" 2"])], opsets=OF_TEXTS)


def found():
    """A tensor as long as there are numbers above zero."""
    nodes = chain("x", "a", 1) + [
        node("NonZero", ["a"], ["n"]), node("Transpose", ["n"], ["t"]), node("GatherND", ["a", "t"], ["v"]),
        node("ReduceSum", ["v"], ["r"], keepdims=0),
    ]
    return model(nodes + chain("r", "y", 2, "f"), [value("x", [2, 4])], [value("y", None)])


def recurrent():
    nodes = [node("LSTM", ["x", "w", "r", "", "", "h"], ["Y", "", "c"], hidden_size=8)] + chain("Y", "y", 3) + chain("c", "z", 2, "d")
    weights = [weight("w", 1, 32, 4), weight("r", 1, 32, 8)]
    return model(nodes, [value("x", [5, 1, 4]), value("h", [1, 1, 8])], [value("y", None), value("z", None)], weights)


def shapes():
    """Flattened by a shape that is computed from the input's, with an open first axis."""
    nodes = chain("x", "a", 2) + [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["b"]), node("Unsqueeze", ["b", "zeros"], ["u"]),
        node("Concat", ["u", "rest"], ["n"], axis=0), node("Reshape", ["a", "n"], ["f"]), node("MatMul", ["f", "w"], ["m"]),
    ]
    weights = [stored("zero", numpy.int64(0)), stored("zeros", [0]), stored("rest", [-1]), weight("w", 12, 5)]
    return model(nodes + chain("m", "y", 2, "g"), [value("x", ["batch", 3, 4])], [value("y", ["batch", 5])], weights)


def words():
    """Numbers of words in, the number of the best class out."""
    nodes = [node("Gather", ["table", "ids"], ["e"])] + chain("e", "a", 2) + [
        node("MatMul", ["a", "w"], ["m"]), node("ReduceMean", ["m"], ["p"], axes=[1], keepdims=0),
        node("ArgMax", ["p"], ["best"], axis=1, keepdims=0),
    ]
    weights = [weight("table", 1000, 32), weight("w", 32, 10)]
    return model(nodes, [value("ids", [1, 6], INT64)], [value("p", None), value("best", None, INT64)], weights)


def kinds():
    """Bytes in; booleans, doubles and scalars between."""
    nodes = [node("Cast", ["x"], ["f"], to=FLOAT)] + chain("f", "a", 2) + [
        node("Greater", ["a", "z"], ["c"]), node("Cast", ["a"], ["d"], to=TensorProto.DOUBLE), node("Exp", ["d"], ["e"]),
        node("Cast", ["e"], ["g"], to=FLOAT), node("ReduceMean", ["g"], ["m"], keepdims=0), node("Where", ["c", "g", "m"], ["r"]),
    ]
    return model(nodes + chain("r", "y", 2, "h"), [value("x", [2, 4], UINT8)], [value("y", None), value("c", None, BOOL)], [stored("z", numpy.float32(0.1))])


def passing():
    """Outputs that are an input, a weight and a constant."""
    nodes = [node("Constant", [], ["k"], value=weight("", 3)), node("MatMul", ["x", "w"], ["a"])] + chain("a", "y", 3)
    outputs = [value("y", None), value("w", [160, 160]), value("x", [2, 160]), value("k", None)]
    return model(nodes, [value("x", [2, 160])], outputs, [weight("w", 160, 160)])


def typed():
    """Weights in the fields of their type, and computed from others."""
    w = helper.make_tensor("w", FLOAT, [160, 160], random.standard_normal(25600).astype(numpy.float32).tolist())
    small = helper.make_tensor("i", TensorProto.INT8, [70000], random.integers(-128, 127, 70000).tolist())
    nodes = [
        node("MatMul", ["x", "w"], ["a"]), node("Cast", ["i"], ["f"], to=FLOAT), node("Slice", ["f", "from", "to"], ["p"]),
        node("Add", ["a", "p"], ["b"]), node("MatMul", ["b", "w"], ["c"]), node("Add", ["c", "p"], ["y"]),
    ]
    return model(nodes, [value("x", [2, 160])], [value("y", None)], [w, small, stored("from", [0]), stored("to", [160])])


def microsoft():
    nodes = chain("x", "a", 2) + [node("FusedMatMul", ["a", "w"], ["m"], domain="com.microsoft", alpha=0.5)] + chain("m", "y", 2, "f")
    return model(nodes, [value("x", [2, 4])], [value("y", None)], [weight("w", 4, 4)], opsets=[OPSET, helper.make_opsetid("com.microsoft", 1)])


def of_opset(version):
    """A small network for images, with what has changed most between opsets."""
    dropout = node("Dropout", ["p"], ["q"], ratio=0.5) if version < 12 else node("Dropout", ["p", "ratio"], ["q"])
    squeeze = node("Squeeze", ["g"], ["s"], axes=[2, 3]) if version < 13 else node("Squeeze", ["g", "axes"], ["s"])
    if version < 9:
        enlarge = node("Upsample", ["q"], ["u"], scales=[1.0, 1.0, 2.0, 2.0])
    elif version < 11:
        enlarge = node("Upsample" if version == 9 else "Resize", ["q", "scales"], ["u"])
    else:
        enlarge = node("Resize", ["q", "none", "scales"], ["u"])
    nodes = [
        node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["n"], epsilon=1e-5),
        node("Relu", ["n"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        dropout,
        enlarge,
        node("Add", ["u", "r"], ["a"]),
        node("GlobalAveragePool", ["a"], ["g"]),
        squeeze,
        node("Gemm", ["s", "v", "o"], ["y"]),
    ]
    weights = [
        weight("w", 8, 3, 3, 3), weight("scale", 8), weight("bias", 8), weight("mean", 8), stored("var", numpy.full(8, 0.5, numpy.float32)),
        weight("v", 8, 4), weight("o", 4),
    ]
    if version >= 9:
        weights.append(stored("scales", numpy.array([1, 1, 2, 2], numpy.float32)))
    if version >= 11:
        weights.append(stored("none", numpy.zeros(0, numpy.float32)))
    if version >= 12:
        weights.append(stored("ratio", numpy.float32(0.5)))
    if version >= 13:
        weights.append(stored("axes", [2, 3]))
    return model(nodes, [value("x", [1, 3, 8, 8])], [value("y", None)], weights, opsets=[helper.make_opsetid("", version)])


MODELS = [captures, loop_in_branch, scan, functions, sequence, strings, texts, labels, tokens, found, recurrent, shapes, words, kinds, passing, typed, microsoft]

folder = sys.argv[1]
written = {make.__name__: make() for make in MODELS}
written.update({f"opset_{version}": of_opset(version) for version in range(7, 25)})
for name, made in written.items():
    onnx.save(made, os.path.join(folder, f"{name}.onnx"))
    print(name)
