"""Asks a node through NVIDIA's tritonclient, as a program written for Triton would.

Usage: triton.py HOST:PORT IMAGES.json
IMAGES.json: [{"pixels": [64 numbers], "truth": digit}, ...]
"""

import json
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

MODEL = "digits"


def ask(client, pixels, binary_input, binary_output, **options):
    tensor = triton.InferInput("image", [1, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(pixels, binary_data=binary_input)
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary_output)
    return client.infer(MODEL, [tensor], outputs=[wanted], **options)


def main(address, images):
    client = triton.InferenceServerClient(url=address)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(MODEL) and not client.is_model_ready("numerals")
    assert client.get_server_metadata()["name"] == "stormo"
    metadata = client.get_model_metadata(MODEL)
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8]}], metadata
    assert metadata["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [1, 10]}], metadata
    version = metadata["versions"][0]
    assert client.is_model_ready(MODEL, version)

    right = 0
    for image in images:
        pixels = np.array(image["pixels"], dtype=np.float32).reshape(1, 1, 8, 8)
        answers = [
            ask(client, pixels, binary_input, binary_output)
            for binary_input in (True, False)
            for binary_output in (True, False)
        ]
        arrays = [answer.as_numpy("probabilities") for answer in answers]
        assert all(array.shape == (1, 10) and array.dtype == np.float32 for array in arrays)
        # Different plans may have answered: near, not equal.
        assert all(np.allclose(arrays[0], array, atol=1e-4) for array in arrays), "JSON and binary differ"
        right += int(arrays[0].argmax() == image["truth"])
    assert right >= 0.9 * len(images), f"{right} of {len(images)} were read right"
    last = arrays[0]

    named = ask(client, pixels, True, True, request_id="a name", model_version=version).get_response()
    assert named["id"] == "a name" and named["model_name"] == MODEL, named
    limits = {"timeout_ms": 20000, "max_latency_ms": 10000.0}
    limited = ask(client, pixels, True, False, parameters=limits).get_response()
    assert limited["parameters"]["late"] is False, limited

    # All outputs, unasked, in the form that the client prefers; then several calls at once.
    tensor = triton.InferInput("image", [1, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(pixels)
    assert np.allclose(client.infer(MODEL, [tensor]).as_numpy("probabilities"), last, atol=1e-4)
    waiting = [client.async_infer(MODEL, [tensor]) for _ in range(4)]
    arrays = [one.get_result().as_numpy("probabilities") for one in waiting]
    assert all(np.allclose(array, last, atol=1e-4) for array in arrays)

    wrong = triton.InferInput("image", [1, 1, 8, 9], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 1, 8, 9), dtype=np.float32))
    try:
        client.infer(MODEL, [wrong])
    except InferenceServerException as error:
        assert "must be FP32 [1, 1, 8, 8]" in str(error), error
    else:
        raise AssertionError("a wrong shape was taken")


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        main(sys.argv[1], json.load(file))
