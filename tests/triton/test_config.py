"""config.pbtxt: the contract, batching, instances and what each kind of model needs."""

from __future__ import annotations

import re

import pytest

from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import DeploymentError, SpecError
from parnet_deploy.triton.config import render_config
from parnet_deploy.triton.options import TritonOptions
from parnet_deploy.triton.source import choose_source
from parnet_deploy.triton.text_format import Word, render_comment, render_message
from tests.triton.conftest import add_tensorrt


def config_of(directory, **options) -> str:
    opened = Deployment.open(directory)
    return " ".join(render_config(choose_source(opened, TritonOptions(**options))).split())


def test_contract_of_the_python_kind(toy):
    text = config_of(toy)
    assert 'name: "toy" backend: "python" max_batch_size: 4' in text
    assert 'name: "image" data_type: TYPE_FP32 dims: [3, 16, 16] optional: true' in text
    assert 'name: "encoded_image" data_type: TYPE_STRING dims: [1] optional: true' in text
    assert 'name: "logits" data_type: TYPE_FP32 dims: [3] label_filename: "labels.txt"' in text
    assert "instance_group { count: 1 kind: KIND_CPU }" in text
    assert "parameters" not in text


def test_one_instance_is_not_batched_unless_asked_for(toy):
    assert "dynamic_batching" not in config_of(toy)
    assert "Requests run one by one" in config_of(toy)
    for options in ({"replicas": 2}, {"batching": True}, {"queue_delay_us": 9}):
        assert "dynamic_batching { max_queue_delay_microseconds: " in config_of(toy, **options)
        assert "one by one" not in config_of(toy, **options)
    assert "dynamic_batching" not in config_of(toy, replicas=2, batching=False)


def test_queue_and_replicas(toy):
    options = {"replicas": 3, "queue_delay_us": 500, "queue_size": 7, "timeout_us": 9}
    text = config_of(toy, **options)
    assert "max_queue_delay_microseconds: 500" in text
    policy = "timeout_action: REJECT default_timeout_microseconds: 9 allow_timeout_override: true"
    assert f"default_queue_policy {{ {policy} max_queue_size: 7 }}" in text
    assert "count: 3" in text


def test_onnxruntime_has_the_tensor_only_and_the_threads_of_the_plan(toy):
    text = config_of(toy, kind="onnxruntime")
    assert 'platform: "onnxruntime_onnx"' in text
    assert "encoded_image" not in text
    assert "optional" not in text
    assert 'key: "intra_op_thread_count" value { string_value: "1" }' in text
    assert "kind: KIND_CPU" in text


def test_tensorrt_names_profiles_device_graphs_and_version(toy):
    text = config_of(add_tensorrt(toy, device=1), kind="tensorrt", replicas=2)
    assert 'platform: "tensorrt_plan" max_batch_size: 8' in text
    group = 'count: 2 kind: KIND_GPU gpus: [1] profile: ["0", "1"]'
    assert f"instance_group {{ {group} }}" in text
    shape = 'input { key: "image" value { dim: [3, 16, 16] } }'
    for batch in (1, 8):
        assert f"graph_spec {{ batch_size: {batch} {shape} }}" in text
    assert "TensorRT 10.16.1.11 for NVIDIA H100 (compute capability # 9.0)" in text
    assert "optimization" not in config_of(toy, kind="tensorrt", cuda_graphs=False)


def test_our_runtime_chooses_its_gpus_itself(toy):
    text = config_of(add_tensorrt(toy), plan="trt")
    assert "kind: KIND_MODEL" in text
    assert 'key: "plan" value { string_value: "trt" }' in text


def test_an_engine_with_other_types_at_its_border_is_refused(toy):
    with pytest.raises(DeploymentError, match=r"tensor image of type float16, expected float32"):
        config_of(add_tensorrt(toy, dtype="float16"), kind="tensorrt")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "openvino"}, "kind: got 'openvino', expected one of python, onnxruntime"),
        ({"replicas": 0}, "replicas: got 0, expected 1 to 1024"),
        ({"queue_size": -1}, "queue_size: got -1, expected 0 to"),
        (
            {"queue_delay_us": 5, "batching": False},
            "queue_delay_us: got 5, expected 0 where nothing is batched",
        ),
        ({"timeout_us": 2**31}, "timeout_us: got 2147483648, expected 0 to"),
    ],
)
def test_options_that_cannot_be(options, text):
    with pytest.raises(SpecError, match=re.escape(text)):
        TritonOptions(**options)


def test_text_form_quotes_what_people_name():
    message = {"a": 'x"\\\n', "b": Word("WORD"), "c": [1, 2], "d": [{"e": True}, {"e": False}]}
    lines = ['a: "x\\"\\\\\\n"', "b: WORD", "c: [1, 2]"]
    lines += ["d {", "  e: true", "}", "d {", "  e: false", "}"]
    assert render_message(message).splitlines() == lines
    assert render_comment("one\ntwo\x1b") == "# one\n# two?\n"
