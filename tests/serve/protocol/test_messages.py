"""The gRPC messages: compiled from the file beside them, picklable, and in a pool of their own."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from parnet_deploy.serve.protocol import messages


def sample() -> messages.ModelInferRequest:
    request = messages.ModelInferRequest(model_name="parnet", id="7")
    request.parameters["priority"].uint64_param = 1
    tensor = request.inputs.add(name="image", datatype="FP32", shape=[1, 3, 32, 32])
    tensor.parameters["note"].string_param = "x"
    request.raw_input_contents.append(b"\x00\xff")
    return request


def test_the_compiled_file_is_made_from_the_source(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    folder = files("parnet_deploy.serve.protocol")
    out = tmp_path / "out.binpb"
    source = str(folder.joinpath("open_inference.proto"))
    command = ["protoc", f"-I{folder}", f"--descriptor_set_out={out}", source]
    assert protoc.main(command) == 0
    found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    kept = folder.joinpath("open_inference.binpb").read_bytes()
    assert found == descriptor_pb2.FileDescriptorSet.FromString(kept), "run: make proto"


def test_messages_survive_pickle_nested_ones_too() -> None:
    request = sample()
    answer = messages.ModelInferResponse.InferOutputTensor(name="logits")
    for message in (request, request.inputs[0], answer, messages.Nothing()):
        found = pickle.loads(pickle.dumps(message))
        assert type(found) is type(message)
        assert found == message
        assert copy.deepcopy(message) == message


def test_another_process_reads_what_was_pickled() -> None:
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).inputs[0].shape)"
    data = pickle.dumps(sample())
    found = subprocess.run(
        [sys.executable, "-c", code], input=data, capture_output=True, check=True
    )
    assert found.stdout.decode().strip() == "[1, 3, 32, 32]"


def test_classes_are_found_under_their_own_name() -> None:
    for method in messages.methods():
        for found in (messages.request_class(method.name), messages.response_class(method.name)):
            assert getattr(messages, found.__name__) is found
            assert pickle.loads(pickle.dumps(found)) is found


def test_names_of_the_protocol_stay_free_for_a_client_in_the_same_process() -> None:
    pool = descriptor_pool.Default()
    name = "inference.ModelInferRequest"
    with pytest.raises(KeyError):
        pool.FindMessageTypeByName(name)
    theirs = descriptor_pb2.FileDescriptorProto(name="client.proto", package="inference")
    theirs.message_type.add(name="ModelInferRequest")
    code = (
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        f"f = descriptor_pb2.FileDescriptorProto.FromString({theirs.SerializeToString()!r})\n"
        "descriptor_pool.Default().Add(f)\n"
        "from parnet_deploy.serve.protocol import messages\n"
        f"theirs = descriptor_pool.Default().FindMessageTypeByName({name!r})\n"
        "assert theirs is not messages.ModelInferRequest.DESCRIPTOR\n"
        "import pickle\n"
        "m = messages.ModelInferRequest(id='7'); m.inputs.add(name='x')\n"
        "assert pickle.loads(pickle.dumps(m.inputs[0])).name == 'x'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
