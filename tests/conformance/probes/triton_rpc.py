"""tritonclient.grpc, and its messages by hand, against a server."""

from __future__ import annotations

import queue

import grpc
import numpy as np
import tritonclient.grpc as client
import tritonclient.grpc.aio as client_aio
from google.protobuf.json_format import MessageToDict
from probing import (
    ENCODED,
    IMAGE,
    LOGITS,
    Probes,
    counted,
    encoded_shape,
    of_config,
    of_statistics,
    read_target,
    tensors_of,
)
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

target = read_target()
images, model = target.images, target.model
server = client.InferenceServerClient(target.rpc)
channel = grpc.insecure_channel(target.rpc)
stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)


def classify(error: Exception) -> str:
    if isinstance(error, InferenceServerException):
        return str(error.status()).removeprefix("StatusCode.")
    if isinstance(error, grpc.RpcError):
        return error.code().name
    return type(error).__name__


probe = Probes(classify)


def as_dict(message):
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def tensor(x, name=IMAGE, datatype="FP32"):
    found = client.InferInput(name, list(x.shape), datatype)
    found.set_data_from_numpy(x)
    return found


def wanted(classes=0, name=LOGITS):
    return client.InferRequestedOutput(name, class_count=classes)


def infer(inputs=None, outputs=None, **more):
    inputs = [tensor(images[:1])] if inputs is None else inputs
    return server.infer(more.pop("model", model), inputs, outputs=outputs, **more)


def logits(*args, **more):
    return infer(*args, **more).as_numpy(LOGITS)


def metadata():
    return as_dict(server.get_model_metadata(model))


# Health, metadata, repository.
probe("live")(server.is_server_live)
probe("ready")(server.is_server_ready)
probe("model_ready")(lambda: server.is_model_ready(model))
probe("model_ready_version")(lambda: server.is_model_ready(model, "1"))
probe("model_ready_unknown")(lambda: server.is_model_ready("nobody"))
probe("model_ready_unknown_version")(lambda: server.is_model_ready(model, "9"))
probe("server_metadata")(lambda: sorted(as_dict(server.get_server_metadata())))
probe("metadata")(lambda: tensors_of(metadata()))
probe("metadata_version")(lambda: tensors_of(as_dict(server.get_model_metadata(model, "1"))))
probe("metadata_unknown")(lambda: as_dict(server.get_model_metadata("nobody")))
probe("config")(lambda: of_config(as_dict(server.get_model_config(model))["config"]))
probe("config_unknown")(lambda: as_dict(server.get_model_config("nobody")))
probe("statistics")(lambda: of_statistics(as_dict(server.get_inference_statistics(model))))
probe("statistics_all")(lambda: of_statistics(as_dict(server.get_inference_statistics())))
probe("statistics_unknown")(lambda: as_dict(server.get_inference_statistics("nobody")))
probe("index")(lambda: as_dict(server.get_model_repository_index()))
probe("load")(lambda: server.load_model(model))
probe("unload")(lambda: server.unload_model(model))
probe("system_memory_status")(lambda: as_dict(server.get_system_shared_memory_status()))
probe("cuda_memory_status")(lambda: as_dict(server.get_cuda_shared_memory_status()))
probe("trace_settings")(lambda: sorted(as_dict(server.get_trace_settings())))
probe("log_settings")(lambda: sorted(as_dict(server.get_log_settings())))


probe("statistics_count_what_ran")(
    lambda: counted(
        lambda: as_dict(server.get_inference_statistics(model)),
        lambda: logits([tensor(images[:3])]),
    )
)


# Inference.
probe("infer")(logits)
probe("infer_batch")(lambda: logits([tensor(images[:3])]))
probe("infer_named_output")(lambda: logits(outputs=[wanted()]))
probe("infer_version")(lambda: logits(model_version="1"))
probe("infer_id")(lambda: infer(request_id="a b/7").get_response().id)
probe("infer_no_id")(lambda: infer().get_response().id)
probe("infer_names")(
    lambda: [infer().get_response().model_name, infer().get_response().model_version]
)
probe("infer_priority")(lambda: logits(priority=1))
probe("infer_timeout")(lambda: logits(timeout=10_000_000))
probe("infer_client_timeout")(lambda: logits(client_timeout=10.0))
probe("infer_custom_parameter")(lambda: logits(parameters={"mine": "x", "n": 3, "b": True}))
probe("infer_header")(lambda: logits(headers={"x-mine": "x"}))
for way in ("gzip", "deflate"):
    probe(f"infer_{way}")(lambda way=way: logits(compression_algorithm=way))
probe("infer_nan")(lambda: logits([tensor(np.full_like(images[:1], np.nan))]))
for k in (1, 3, 1000):
    probe(f"classes_{k}")(lambda k=k: logits([tensor(images[:2])], [wanted(classes=k)]))
probe("sequence")(lambda: logits(sequence_id=5, sequence_start=True, sequence_end=True))


@probe("infer_callback")
def _():
    answers = queue.Queue()
    server.async_infer(
        model, [tensor(images[:1])], callback=lambda result, error: answers.put((result, error))
    )
    result, error = answers.get(timeout=60)
    if error is not None:
        raise error
    return result.as_numpy(LOGITS)


@probe("infer_aio")
async def _():
    async with client_aio.InferenceServerClient(target.rpc) as own:
        ready = await own.is_model_ready(model)
        result = await own.infer(model, [tensor(images[:2])], outputs=[wanted()])
        return [ready, result.as_numpy(LOGITS)]


def stream(requests):
    """Answers, or error texts, of a stream in the order in which they come."""
    answers = queue.Queue()
    with client.InferenceServerClient(target.rpc) as own:
        own.start_stream(callback=lambda result, error: answers.put((result, error)))
        for number, (inputs, more) in enumerate(requests):
            own.async_stream_infer(more.pop("model", model), inputs, request_id=str(number), **more)
        found = [answers.get(timeout=60) for _ in requests]
        own.stop_stream()
    return [
        {"error": True} if error else {"id": r.get_response().id, "logits": r.as_numpy(LOGITS)}
        for r, error in found
    ]


probe("stream")(lambda: stream([([tensor(images[i : i + 1])], {}) for i in range(3)]))


@probe("stream_goes_on_after_an_error")
def _():
    one = [tensor(images[:1])]
    found = stream([(one, {}), (one, {"model": "nobody"}), (one, {})])
    return sorted(found, key=str)


@probe("stream_aio")
async def _():
    async def requests():
        for i in range(2):
            yield {"model_name": model, "inputs": [tensor(images[i : i + 1])], "request_id": str(i)}

    async with client_aio.InferenceServerClient(target.rpc) as own:
        return [
            [result.get_response().id, result.as_numpy(LOGITS), error is None]
            async for result, error in own.stream_infer(requests())
        ]


# Image files.
def files(count, data=None):
    array = np.array(target.files[:count] if data is None else data, dtype=np.object_)
    return tensor(array.reshape(encoded_shape(metadata(), count)), ENCODED, "BYTES")


probe("encoded")(lambda: logits([files(1)]))
probe("encoded_batch")(lambda: logits([files(2)]))
probe("encoded_damaged")(lambda: logits([files(1, [target.files[0][:60]])]))
probe("encoded_text")(lambda: logits([files(1, [b"no image"])]))
probe("encoded_and_tensor")(lambda: logits([files(1), tensor(images[:1])]))


# Messages that the client would not write.
def message(x=None, raw=True, **more):
    x = images[:1] if x is None else x
    found = service_pb2.ModelInferRequest(model_name=model, **more)
    entry = found.inputs.add(name=IMAGE, datatype="FP32", shape=x.shape)
    if raw:
        found.raw_input_contents.append(x.tobytes())
    else:
        entry.contents.fp32_contents.extend(x.reshape(-1).tolist())
    return found


def answer(request):
    response = stub.ModelInfer(request)
    (output,) = response.outputs
    values = np.frombuffer(response.raw_output_contents[0], np.float32)
    return values.reshape(output.shape)


def changed(edit, **more):
    request = message(**more)
    edit(request)
    return answer(request)


def bytes_contents():
    request = service_pb2.ModelInferRequest(model_name=model)
    entry = request.inputs.add(name=ENCODED, datatype="BYTES", shape=encoded_shape(metadata(), 1))
    entry.contents.bytes_contents.append(target.files[0])
    return answer(request)


probe("typed_contents")(lambda: answer(message(raw=False)))
probe("typed_bytes_contents")(bytes_contents)
probe("typed_and_raw")(lambda: changed(lambda r: r.inputs[0].contents.fp32_contents.extend([0.0])))
probe("raw_too_short")(lambda: changed(lambda r: r.raw_input_contents.__setitem__(0, b"1234")))
probe("raw_too_many")(lambda: changed(lambda r: r.raw_input_contents.append(b"1234")))
probe("raw_missing")(lambda: changed(lambda r: r.ClearField("raw_input_contents")))
probe("typed_too_few")(
    lambda: changed(lambda r: r.inputs[0].contents.fp32_contents.pop(), raw=False)
)
probe("typed_wrong_field")(
    lambda: changed(
        lambda r: (
            r.inputs[0].contents.ClearField("fp32_contents"),
            r.inputs[0].contents.int_contents.extend([1] * images[:1].size),
        ),
        raw=False,
    )
)
probe("negative_shape")(lambda: changed(lambda r: r.inputs[0].shape.__setitem__(0, -1)))
probe("huge_shape")(lambda: changed(lambda r: r.inputs[0].shape.__setitem__(0, 2**62)))
probe("no_datatype")(lambda: changed(lambda r: setattr(r.inputs[0], "datatype", "")))
probe("unknown_datatype")(lambda: changed(lambda r: setattr(r.inputs[0], "datatype", "FP31")))
probe("raw_bytes_damaged")(
    lambda: answer(
        service_pb2.ModelInferRequest(
            model_name=model,
            inputs=[
                service_pb2.ModelInferRequest.InferInputTensor(
                    name=ENCODED, datatype="BYTES", shape=encoded_shape(metadata(), 1)
                )
            ],
            raw_input_contents=[b"\xff\xff\xff\x7fabc"],
        )
    )
)
probe("no_model_name")(lambda: changed(lambda r: setattr(r, "model_name", "")))


@probe("unknown_method")
def _():
    call = channel.unary_unary("/inference.GRPCInferenceService/Nothing")
    return call(b"")


@probe("garbage")
def _():
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    return call(b"\xff\xff\xff")


# What a server refuses.
probe("unknown_model")(lambda: logits(model="nobody"))
probe("unknown_version")(lambda: logits(model_version="9"))
probe("bad_version")(lambda: logits(model_version="one"))
probe("unknown_input")(lambda: logits([tensor(images[:1], "picture")]))
probe("extra_input")(lambda: logits([tensor(images[:1]), tensor(images[:1], "picture")]))
probe("no_input")(lambda: logits([]))
probe("unknown_output")(lambda: logits(outputs=[wanted(name="scores")]))
probe("wrong_height")(lambda: logits([tensor(np.ascontiguousarray(images[:1, :, :8]))]))
probe("no_batch_axis")(lambda: logits([tensor(images[0])]))
probe("wrong_datatype")(lambda: logits([tensor(images[:1].astype(np.float64), datatype="FP64")]))
probe("batch_too_large")(lambda: logits([tensor(np.repeat(images[:1], 9, axis=0))]))
probe("empty_batch")(lambda: logits([tensor(images[:0])]))


@probe("memory_region_that_is_not_there")
def _():
    shared = client.InferInput(IMAGE, list(images[:1].shape), "FP32")
    shared.set_shared_memory("nowhere", images[:1].nbytes)
    return logits([shared])


channel.close()
server.close()
probe.print()
