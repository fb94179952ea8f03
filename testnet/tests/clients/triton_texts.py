"""Asks a node about texts through NVIDIA's tritonclient.

Usage: triton_texts.py HOST:PORT
The model `greet` makes `hello, NAME!` of each NAME, two to an item.
"""

import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def ask(client, names, binary_input, binary_output):
    tensor = triton.InferInput("x", list(names.shape), "BYTES")
    tensor.set_data_from_numpy(names, binary_data=binary_input)
    wanted = triton.InferRequestedOutput("y", binary_data=binary_output)
    return client.infer("greet", [tensor], outputs=[wanted]).as_numpy("y")


def text(element):
    return element.decode() if isinstance(element, bytes) else element


def main(address):
    client = triton.InferenceServerClient(url=address)
    metadata = client.get_model_metadata("greet")
    assert metadata["inputs"] == [{"name": "x", "datatype": "BYTES", "shape": [-1, 2]}], metadata
    names = np.array([["Ada", "é 世界"], ["", "x" * 1000]], dtype=object)
    for binary_input in (True, False):
        for binary_output in (True, False):
            answer = ask(client, names, binary_input, binary_output)
            assert answer.shape == names.shape, answer
            got = [text(element) for element in answer.reshape(-1)]
            assert got == [f"hello, {name}!" for name in names.reshape(-1)], got
    try:
        ask(client, np.array([[b"Ada", b"\xff"]], dtype=object), True, True)
    except InferenceServerException as error:
        assert "text 1 is not UTF-8" in str(error), error
    else:
        raise AssertionError("bytes that are no text were taken")


if __name__ == "__main__":
    main(sys.argv[1])
