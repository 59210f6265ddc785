"""tritonclient.http against a server."""

from __future__ import annotations

import numpy as np
import tritonclient.http as client
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
from tritonclient.utils import InferenceServerException

target = read_target()
images, model = target.images, target.model
server = client.InferenceServerClient(target.rest, concurrency=4)


def classify(error: Exception) -> str:
    if isinstance(error, InferenceServerException):
        return f"status {error.status()}"
    return type(error).__name__


probe = Probes(classify)


def tensor(x, name=IMAGE, binary=True, datatype="FP32", shape=None):
    found = client.InferInput(name, list(shape or x.shape), datatype)
    found.set_data_from_numpy(x, binary_data=binary)
    return found


def wanted(binary=True, classes=0, name=LOGITS):
    return client.InferRequestedOutput(name, binary_data=binary, class_count=classes)


def infer(inputs=None, outputs=None, **more):
    inputs = [tensor(images[:1])] if inputs is None else inputs
    name = more.pop("model", model)
    return server.infer(name, inputs, outputs=outputs, **more)


def logits(*args, **more):
    return infer(*args, **more).as_numpy(LOGITS)


# Health, metadata, repository.
probe("live")(server.is_server_live)
probe("ready")(server.is_server_ready)
probe("model_ready")(lambda: server.is_model_ready(model))
probe("model_ready_version")(lambda: server.is_model_ready(model, "1"))
probe("model_ready_unknown_version")(lambda: server.is_model_ready(model, "9"))
probe("model_ready_unknown")(lambda: server.is_model_ready("nobody"))
probe("server_metadata")(lambda: sorted(server.get_server_metadata()))
probe("metadata")(lambda: tensors_of(server.get_model_metadata(model)))
probe("metadata_version")(lambda: tensors_of(server.get_model_metadata(model, "1")))
probe("metadata_unknown")(lambda: server.get_model_metadata("nobody"))
probe("metadata_unknown_version")(lambda: server.get_model_metadata(model, "9"))
probe("config")(lambda: of_config(server.get_model_config(model)))
probe("config_version")(lambda: of_config(server.get_model_config(model, "1")))
probe("config_unknown")(lambda: server.get_model_config("nobody"))
probe("statistics")(lambda: of_statistics(server.get_inference_statistics(model)))
probe("statistics_version")(lambda: of_statistics(server.get_inference_statistics(model, "1")))
probe("statistics_all")(lambda: of_statistics(server.get_inference_statistics()))
probe("statistics_unknown")(lambda: server.get_inference_statistics("nobody"))
probe("index")(server.get_model_repository_index)
probe("load")(lambda: server.load_model(model))
probe("load_unknown")(lambda: server.load_model("nobody"))
probe("unload")(lambda: server.unload_model(model))
probe("system_memory_status")(server.get_system_shared_memory_status)
probe("cuda_memory_status")(server.get_cuda_shared_memory_status)
probe("trace_settings")(lambda: sorted(server.get_trace_settings()))
probe("log_settings")(lambda: sorted(server.get_log_settings()))


probe("statistics_count_what_ran")(
    lambda: counted(
        lambda: server.get_inference_statistics(model), lambda: logits([tensor(images[:3])])
    )
)


# Inference.
probe("infer")(logits)
probe("infer_batch")(lambda: logits([tensor(images[:3])]))
probe("infer_json_in")(lambda: logits([tensor(images[:2], binary=False)]))
probe("infer_json_out")(lambda: logits(outputs=[wanted(binary=False)]))
probe("infer_json_both")(lambda: logits([tensor(images[:2], binary=False)], [wanted(False)]))
probe("infer_named_output")(lambda: logits(outputs=[wanted()]))
probe("infer_version")(lambda: logits(model_version="1"))
probe("infer_id")(lambda: infer(request_id="a b/7").get_response()["id"])
probe("infer_no_id")(lambda: infer().get_response().get("id", ""))
probe("infer_names")(
    lambda: [infer().get_response()[key] for key in ("model_name", "model_version")]
)
probe("infer_output_entry")(
    lambda: {k: infer().get_output(LOGITS)[k] for k in ("name", "datatype", "shape")}
)
probe("infer_priority")(lambda: logits(priority=1))
probe("infer_timeout")(lambda: logits(timeout=10_000_000))
probe("infer_custom_parameter")(lambda: logits(parameters={"mine": "x", "n": 3, "b": True}))
probe("infer_reserved_parameter")(lambda: logits(parameters={"priority": 1}))
probe("infer_header")(lambda: logits(headers={"X-Mine": "x"}))
probe("infer_query")(lambda: logits(query_params={"mine": "x"}))
probe("infer_async")(
    lambda: server.async_infer(model, [tensor(images[:1])]).get_result().as_numpy(LOGITS)
)
for way in ("gzip", "deflate"):
    probe(f"infer_{way}_in")(lambda way=way: logits(request_compression_algorithm=way))
    probe(f"infer_{way}_out")(lambda way=way: logits(response_compression_algorithm=way))
    probe(f"infer_{way}_both")(
        lambda way=way: logits(
            [tensor(images[:2], binary=False)],
            [wanted(binary=False)],
            request_compression_algorithm=way,
            response_compression_algorithm=way,
        )
    )
probe("infer_nan")(lambda: logits([tensor(np.full_like(images[:1], np.nan))]))
probe("sequence")(lambda: logits(sequence_id=5, sequence_start=True, sequence_end=True))


@probe("infer_many_at_once")
def _():
    calls = [server.async_infer(model, [tensor(images[i % 4 : i % 4 + 1])]) for i in range(16)]
    return [call.get_result().as_numpy(LOGITS)[0].argmax().item() for call in calls]


# Classification.
for k in (1, 3, 1000):
    probe(f"classes_{k}")(lambda k=k: logits([tensor(images[:2])], [wanted(classes=k)]))
probe("classes_json")(lambda: logits([tensor(images[:2])], [wanted(binary=False, classes=2)]))
probe("classes_one_image")(lambda: logits(outputs=[wanted(classes=2)]))
probe("classes_entry")(
    lambda: {
        k: infer(outputs=[wanted(classes=2)]).get_output(LOGITS)[k]
        for k in ("name", "datatype", "shape")
    }
)


# Image files.
def files(count, data=None, **more):
    shape = encoded_shape(server.get_model_metadata(model), count)
    data = target.files[:count] if data is None else data
    array = np.array(data, dtype=np.object_).reshape(shape)
    return tensor(array, ENCODED, datatype="BYTES", **more)


flat = np.array(target.files, dtype=np.object_)
probe("encoded")(lambda: logits([files(1)]))
probe("encoded_batch")(lambda: logits([files(2)]))
probe("encoded_classes")(lambda: logits([files(2)], [wanted(classes=1)]))
probe("encoded_flat")(lambda: logits([tensor(flat, ENCODED, datatype="BYTES")]))
probe("encoded_column")(lambda: logits([tensor(flat[:, None], ENCODED, datatype="BYTES")]))
probe("encoded_damaged")(lambda: logits([files(1, [target.files[0][:60]])]))
probe("encoded_text")(lambda: logits([files(1, [b"no image"])]))
probe("encoded_json_text")(lambda: logits([files(1, [b"no image"], binary=False)]))
probe("encoded_empty")(lambda: logits([files(1, [b""])]))
probe("encoded_and_tensor")(lambda: logits([files(1), tensor(images[:1])]))
probe("encoded_as_floats")(
    lambda: logits(
        [tensor(np.zeros(encoded_shape(server.get_model_metadata(model), 1), np.float32), ENCODED)]
    )
)


# What a server refuses.
probe("unknown_model")(lambda: logits(model="nobody"))
probe("unknown_version")(lambda: logits(model_version="9"))
probe("bad_version")(lambda: logits(model_version="one"))
probe("unknown_input")(lambda: logits([tensor(images[:1], "picture")]))
probe("extra_input")(lambda: logits([tensor(images[:1]), tensor(images[:1], "picture")]))
probe("same_input_twice")(lambda: logits([tensor(images[:1]), tensor(images[:1])]))
probe("no_input")(lambda: logits([]))
probe("unknown_output")(lambda: logits(outputs=[wanted(name="scores")]))
probe("same_output_twice")(lambda: logits(outputs=[wanted(), wanted()]))
probe("wrong_height")(lambda: logits([tensor(np.ascontiguousarray(images[:1, :, :8]))]))
probe("wrong_channels")(lambda: logits([tensor(np.ascontiguousarray(images[:1, :1]))]))
probe("no_batch_axis")(lambda: logits([tensor(images[0])]))
probe("too_many_axes")(lambda: logits([tensor(images[None, :1])]))
probe("wrong_datatype")(lambda: logits([tensor(images[:1].astype(np.float64), datatype="FP64")]))
probe("half_datatype")(lambda: logits([tensor(images[:1].astype(np.float16), datatype="FP16")]))
probe("batch_too_large")(lambda: logits([tensor(np.repeat(images[:1], 9, axis=0))]))
probe("empty_batch")(lambda: logits([tensor(images[:0])]))


def _shared():
    found = client.InferInput(IMAGE, list(images[:1].shape), "FP32")
    found.set_shared_memory("nowhere", images[:1].nbytes)
    return found


probe("memory_region_that_is_not_there")(lambda: logits([_shared()]))
server.close()
probe.print()
