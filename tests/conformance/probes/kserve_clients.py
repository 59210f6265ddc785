"""KServe's own clients against a server; their messages do not live beside tritonclient's."""

from __future__ import annotations

import logging

import grpc
import httpx
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from probing import IMAGE, LOGITS, Probes, read_target

logging.disable(logging.CRITICAL)
target = read_target()
images, model = target.images, target.model
base = f"http://{target.rest}"


def classify(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return error.code().name
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    return type(error).__name__


probe = Probes(classify)


def rest(ask):
    async def run():
        async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:
            return await ask(client)

    return run


def rpc(ask):
    async def run():
        async with InferenceGRPCClient(target.rpc, retries=0) as client:
            return await ask(client)

    return run


def request(x=None, *, binary=True, outputs=None, name=model, **more):
    x = images[:1] if x is None else x
    entry = InferInput(name=IMAGE, shape=list(x.shape), datatype="FP32")
    entry.set_data_from_numpy(x, binary_data=binary)
    wanted = None if outputs is None else [RequestedOutput(LOGITS, outputs)]
    return InferRequest(
        model_name=name, infer_inputs=[entry], request_outputs=wanted, request_id="k1", **more
    )


def by_rest(given):
    async def ask(client):
        response = await client.infer(base, given, model_name=given.model_name)
        (output,) = response.outputs
        return [response.id, output.as_numpy()]

    return rest(ask)


def by_rpc(given):
    async def ask(client):
        response = await client.infer(given)
        (output,) = response.outputs
        return [response.id, output.as_numpy()]

    return rpc(ask)


probe("rest_live")(rest(lambda client: client.is_server_live(base)))
probe("rest_ready")(rest(lambda client: client.is_server_ready(base)))
probe("rest_model_ready")(rest(lambda client: client.is_model_ready(base, model)))
probe("rest_unknown_model_ready")(rest(lambda client: client.is_model_ready(base, "nobody")))
probe("rest_binary")(by_rest(request(images[:2])))
probe("rest_json")(by_rest(request(images[:2], binary=False)))
probe("rest_binary_answer")(by_rest(request(outputs={"binary_data": True})))
probe("rest_json_answer")(by_rest(request(outputs={"binary_data": False})))
probe("rest_unknown_model")(by_rest(request(name="nobody")))

probe("rpc_live")(rpc(lambda client: client.is_server_live()))
probe("rpc_ready")(rpc(lambda client: client.is_server_ready()))
probe("rpc_model_ready")(rpc(lambda client: client.is_model_ready(model)))
probe("rpc_unknown_model_ready")(rpc(lambda client: client.is_model_ready("nobody")))
probe("rpc_infer")(by_rpc(request(images[:2])))
probe("rpc_typed")(by_rpc(request(images[:2], binary=False)))
probe("rpc_unknown_model")(by_rpc(request(name="nobody")))
probe.print()
