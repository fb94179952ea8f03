"""Asks a node about texts through NVIDIA's tritonclient.

Usage: triton_texts.py http|grpc HOST:PORT
The model `greet` makes `hello, NAME!` of each NAME, two to an item.
"""

import importlib
import sys

import numpy as np
from tritonclient.utils import InferenceServerException


def ask(triton, client, names, binary):
    """`binary`: whether the input is binary data, and the output; over gRPC all is."""
    as_input, as_output = ({"binary_data": is_binary} for is_binary in binary) if binary else ({}, {})
    tensor = triton.InferInput("x", list(names.shape), "BYTES")
    tensor.set_data_from_numpy(names, **as_input)
    wanted = triton.InferRequestedOutput("y", **as_output)
    return client.infer("greet", [tensor], outputs=[wanted]).as_numpy("y")


def text(element):
    return element.decode() if isinstance(element, bytes) else element


def main(front, address):
    triton = importlib.import_module(f"tritonclient.{front}")
    client = triton.InferenceServerClient(url=address)
    if front == "http":
        metadata = client.get_model_metadata("greet")
        assert metadata["inputs"] == [{"name": "x", "datatype": "BYTES", "shape": [-1, 2]}], metadata
        forms = [(one, other) for one in (True, False) for other in (True, False)]
    else:
        metadata = client.get_model_metadata("greet").inputs[0]
        assert (metadata.name, metadata.datatype, list(metadata.shape)) == ("x", "BYTES", [-1, 2]), metadata
        forms = [None]
    names = np.array([["Ada", "é 世界"], ["", "x" * 1000]], dtype=object)
    for binary in forms:
        answer = ask(triton, client, names, binary)
        assert answer.shape == names.shape, answer
        got = [text(element) for element in answer.reshape(-1)]
        assert got == [f"hello, {name}!" for name in names.reshape(-1)], got
    try:
        ask(triton, client, np.array([[b"Ada", b"\xff"]], dtype=object), forms[0])
    except InferenceServerException as error:
        assert "text 1 is not UTF-8" in str(error), error
    else:
        raise AssertionError("bytes that are no text were taken")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
