"""Asks a node through NVIDIA's tritonclient over gRPC, as a program written for Triton would.

Usage: triton_grpc.py HOST:PORT HTTP_HOST:PORT PLAN IMAGES.json GUARDED_HOST:PORT TOKEN
The first two are one node's, which knows PLAN; the third wants TOKEN. IMAGES.json: [{"pixels": [64 numbers], "truth": digit}, ...]
The model `half` gives four FP16 numbers back.
"""

import json
import queue
import socket
import sys

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.http as over_http
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

MODEL = "digits"
FRAMES = 50


def pixels_of(image):
    return np.array(image["pixels"], dtype=np.float32).reshape(1, 1, 8, 8)


def inputs_of(client, array, name="image", datatype="FP32"):
    tensor = client.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return [tensor]


def refused(code, text, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{code}", error
        assert text in error.message(), error
    else:
        raise AssertionError(f"{text}: it was taken")


def metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(MODEL) and not client.is_model_ready("numerals")
    assert client.get_server_metadata().name == "stormo"
    told = client.get_model_metadata(MODEL, as_json=True)
    assert told["inputs"] == [{"name": "image", "datatype": "FP32", "shape": ["1", "1", "8", "8"]}], told
    assert told["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": ["1", "10"]}], told
    version = told["versions"][0]
    assert client.is_model_ready(MODEL, version) and not client.is_model_ready(MODEL, version + "0")
    index = client.get_model_repository_index().models
    assert any((model.name, model.version, model.state) == (MODEL, version, "READY") for model in index), index
    refused("NOT_FOUND", "numerals", client.get_model_metadata, "numerals")
    refused("UNIMPLEMENTED", "there is no call", client.get_model_config, MODEL)
    return version


def answers_over_http(http, images, plan):
    """What HTTP answers by the plan: gRPC has to answer the same bit by bit."""
    client = over_http.InferenceServerClient(url=http)
    ask = lambda image: client.infer(MODEL, inputs_of(over_http, pixels_of(image)), parameters={"plan_id": plan})
    return [ask(image).as_numpy("probabilities") for image in images]


def single(client, images, plan, expected, version):
    limits = {"plan_id": plan, "timeout_ms": 20000, "max_latency_ms": 10000.0}
    right = 0
    for image, truth in zip(images, expected):
        wanted = [triton.InferRequestedOutput("probabilities")]
        answer = client.infer(
            MODEL,
            inputs_of(triton, pixels_of(image)),
            outputs=wanted,
            parameters=limits,
            request_id="a name",
            model_version=version,
        )
        array = answer.as_numpy("probabilities")
        assert array.dtype == np.float32 and np.array_equal(array, truth), (array, truth)
        right += int(array.argmax() == image["truth"])
        told = answer.get_response()
        assert (told.id, told.model_name, told.model_version) == ("a name", MODEL, version), told
        assert told.parameters["plan_id"].string_param == plan, told
        assert told.parameters["late"].bool_param is False and told.parameters["nodes"].string_param, told
        assert told.parameters["latency_ms"].double_param > 0, told
    assert right >= 0.9 * len(images), f"{right} of {len(images)} were read right"


def several(client, images, plan, expected):
    came = queue.Queue()
    for number, image in enumerate(images):
        callback = lambda result, error, number=number: came.put((number, result, error))
        client.async_infer(
            MODEL, inputs_of(triton, pixels_of(image)), callback, parameters={"plan_id": plan}
        )
    for _ in images:
        number, result, error = came.get(timeout=60)
        assert error is None, error
        assert np.array_equal(result.as_numpy("probabilities"), expected[number])


def other_tensors(client, stub):
    half = np.array([[1.5, -2.0, 65504.0, 6e-8]], dtype=np.float16)
    back = client.infer("half", inputs_of(triton, half, "x", "FP16")).as_numpy("y")
    assert back.dtype == np.float16 and np.array_equal(back, half), back
    # Values one by one, as tritonclient never sends them.
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    tensor = request.inputs.add(name="image", datatype="FP32", shape=[1, 1, 8, 8])
    tensor.contents.fp32_contents.extend([0.5] * 64)
    answer = np.frombuffer(stub.ModelInfer(request).raw_output_contents[0], dtype=np.float32)
    raw = client.infer(MODEL, inputs_of(triton, np.full((1, 1, 8, 8), 0.5, dtype=np.float32)))
    assert np.allclose(answer, raw.as_numpy("probabilities").reshape(-1), atol=1e-4)


def errors(client, http):
    good = inputs_of(triton, np.zeros((1, 1, 8, 8), dtype=np.float32))
    wrong = inputs_of(triton, np.zeros((1, 1, 8, 9), dtype=np.float32))
    refused("INVALID_ARGUMENT", "must be FP32 [1, 1, 8, 8]", client.infer, MODEL, wrong)
    refused("NOT_FOUND", "numerals", client.infer, "numerals", good)
    refused("NOT_FOUND", "is no version", client.infer, MODEL, good, model_version="first")
    refused("INVALID_ARGUMENT", "no parameter `window`", client.infer, MODEL, good, parameters={"window": 2})
    refused("UNIMPLEMENTED", "compressed", client.infer, MODEL, good, compression_algorithm="gzip")
    refused("DEADLINE_EXCEEDED", "", client.infer, MODEL, good, client_timeout=1e-6)
    # The same words as over HTTP.
    plan = {"plan_id": "0" * 32}
    try:
        over_http.InferenceServerClient(url=http).infer(
            MODEL, inputs_of(over_http, np.zeros((1, 1, 8, 8), dtype=np.float32)), parameters=plan
        )
    except InferenceServerException as error:
        code = {"404": "NOT_FOUND", "409": "FAILED_PRECONDITION"}[error.status()]
        refused(code, error.message(), client.infer, MODEL, good, parameters=plan)
    else:
        raise AssertionError("a plan that is none was run")
    large = inputs_of(triton, np.zeros((1, 258 << 18), dtype=np.float32))
    refused("RESOURCE_EXHAUSTED", "a message has at most", client.infer, MODEL, large)


def streamed(address, images, plan, expected):
    """All in order; what is wrong with one frame does not end the stream."""
    client = triton.InferenceServerClient(url=address)
    for headers in ({}, {"stormo-window": "8"}):
        came = queue.Queue()
        client.start_stream(lambda result, error: came.put((result, error)), headers=headers)
        for number in range(FRAMES):
            array = pixels_of(images[number % len(images)])
            if number == FRAMES // 2:
                array = array[:, :, :, :7].copy()
            client.async_stream_infer(
                MODEL,
                inputs_of(triton, array),
                request_id=str(number),
                parameters={"plan_id": plan},
                enable_empty_final_response=number % 2 == 0,
            )
        client.stop_stream()
        assert came.qsize() == FRAMES, came.qsize()
        for number in range(FRAMES):
            result, error = came.get()
            if number == FRAMES // 2:
                assert result is None and "must be FP32 [1, 1, 8, 8]" in error.message(), error
                continue
            assert error is None, error
            told = result.get_response()
            assert told.id == str(number), f"{told.id} instead of {number}"
            assert told.parameters["triton_final_response"].bool_param
            assert np.array_equal(result.as_numpy("probabilities"), expected[number % len(images)])
    came = queue.Queue()
    client.start_stream(lambda result, error: came.put(error), headers={"stormo-window": "65"})
    error = came.get(timeout=60)
    assert error.status() == "StatusCode.INVALID_ARGUMENT" and "from 1 to 64" in error.message(), error
    client.stop_stream(cancel_requests=True)


def given_up(client, address, images):
    """More calls and frames than a node takes at once are given up: none keeps its place."""
    inputs = inputs_of(triton, pixels_of(images[0]))
    for _ in range(2):
        calls = [client.async_infer(MODEL, inputs, lambda result, error: None) for _ in range(300)]
        for call in calls:
            call.cancel()
    for _ in range(8):
        streaming = triton.InferenceServerClient(url=address)
        streaming.start_stream(lambda result, error: None, headers={"stormo-window": "64"})
        for _ in range(64):
            streaming.async_stream_infer(MODEL, inputs)
        streaming.stop_stream(cancel_requests=True)
    # What was given up is let go of soon, not at once.
    for _ in range(600):
        try:
            assert client.infer(MODEL, inputs).as_numpy("probabilities").shape == (1, 10)
            return
        except InferenceServerException as error:
            assert error.status() in ("StatusCode.RESOURCE_EXHAUSTED", "StatusCode.UNAVAILABLE"), error
    raise AssertionError("calls that were given up keep their places")


def garbage(client, address, channel):
    host, port = address.rsplit(":", 1)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for sent in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(256)) * 64, preface + b"\xff" * 100):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            try:
                connection.sendall(sent)
                while connection.recv(1 << 16):
                    pass
            except ConnectionError:
                pass
    same = lambda payload: payload
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", same, same)
    for payload in (b"\xff" * 100, b"\x2a\x00" * 5000):
        try:
            call(payload)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        else:
            raise AssertionError("garbage was taken")
    stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer", same, same)
    read = service_pb2.ModelStreamInferResponse.FromString
    answers = [read(answer) for answer in stream(iter([b"\xff" * 9, b"\x2a\x00" * 5000]))]
    assert len(answers) == 2 and all(answer.error_message for answer in answers), answers
    assert client.is_server_live()


def guarded(address, token):
    client = triton.InferenceServerClient(url=address)
    refused("UNAUTHENTICATED", "send the API token", client.is_server_live)
    refused("UNAUTHENTICATED", "send the API token", client.is_server_live, headers={"authorization": "Bearer x"})
    assert client.is_server_live(headers={"authorization": f"Bearer {token}"})


def main(address, http, plan, images, guarded_address, token):
    client = triton.InferenceServerClient(url=address)
    version = metadata(client)
    expected = answers_over_http(http, images, plan)
    single(client, images, plan, expected, version)
    several(client, images[:8], plan, expected)
    channel = grpc.insecure_channel(address)
    other_tensors(client, service_pb2_grpc.GRPCInferenceServiceStub(channel))
    errors(client, http)
    streamed(address, images, plan, expected)
    given_up(client, address, images)
    garbage(client, address, channel)
    guarded(guarded_address, token)


if __name__ == "__main__":
    with open(sys.argv[4], encoding="utf-8") as file:
        main(*sys.argv[1:4], json.load(file), *sys.argv[5:])
