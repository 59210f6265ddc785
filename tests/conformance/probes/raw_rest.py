"""Requests that no client library would send. Only the standard library and numpy."""

from __future__ import annotations

import gzip
import http.client
import json
import zlib

from probing import IMAGE, LOGITS, Probes, read_target

target = read_target()
images, model = target.images, target.model
path = f"/v2/models/{model}/infer"
raw = images[:1].tobytes()

probe = Probes(lambda error: type(error).__name__)


def send(method, where, body=None, **headers):
    """Status, and what the body is."""
    host, _, port = target.rest.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, where, body, named)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, response.read(), found
    finally:
        connection.close()


def outcome(*args, **headers):
    """The status; for an error, whether it is told as JSON; for an answer, its logits."""
    status, body, named = send(*args, **headers)
    if status != 200:
        return {"status": status, "told": _told(body)}
    if not body:
        return {"status": status}
    length = named.get("inference-header-content-length")
    found = json.loads(body[: int(length)] if length else body)
    outputs = found.get("outputs") if isinstance(found, dict) else None
    if not outputs:
        return {"status": status}
    return {"status": status, "shape": outputs[0]["shape"], "binary": length is not None}


def _told(body):
    try:
        found = json.loads(body)
    except ValueError:
        return "text" if body else "nothing"
    return "error" if isinstance(found, dict) and isinstance(found.get("error"), str) else "json"


def document(**more):
    """A request as JSON, its data in the document."""
    entry = {"name": IMAGE, "shape": list(images[:1].shape), "datatype": "FP32"}
    entry["data"] = images[:1].reshape(-1).tolist()
    entry.update(more.pop("entry", {}))
    return {"inputs": [entry], **more}


def post(data, **headers):
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return outcome("POST", path, body, **headers)


def binary(head=None, tail=raw, length=None, size=None, **headers):
    """A request with binary data after the JSON."""
    if head is None:
        parameters = {"binary_data_size": len(raw) if size is None else size}
        entry = {"name": IMAGE, "shape": list(images[:1].shape), "datatype": "FP32"}
        head = {"inputs": [{**entry, "parameters": parameters}]}
    text = json.dumps(head).encode()
    length = str(len(text)) if length is None else length
    headers["Inference_Header_Content_Length"] = length
    return post(text + tail, **headers)


probe("no_content_type")(lambda: post(document()))
probe("other_content_type")(lambda: post(document(), Content_Type="text/plain"))
probe("nested_data")(lambda: post(document(entry={"data": images[:1].tolist()})))
probe("binary")(binary)
probe("binary_answer_on_demand")(lambda: post(document(parameters={"binary_data_output": True})))
probe("binary_answer_by_output")(
    lambda: post(document(outputs=[{"name": LOGITS, "parameters": {"binary_data": True}}]))
)
probe("output_without_parameters")(lambda: post(document(outputs=[{"name": LOGITS}])))
probe("empty_outputs")(lambda: post(document(outputs=[])))
probe("chunked")(lambda: outcome("POST", path, iter([json.dumps(document()).encode()])))
probe("version_path")(
    lambda: outcome("POST", f"/v2/models/{model}/versions/1/infer", json.dumps(document()).encode())
)

probe("live_status")(lambda: send("GET", "/v2/health/live")[0])
probe("ready_status")(lambda: send("GET", "/v2/health/ready")[0])
probe("live_body")(lambda: send("GET", "/v2/health/live")[1])
probe("ready_body")(lambda: send("GET", "/v2/health/ready")[1])
probe("model_ready_status")(lambda: send("GET", f"/v2/models/{model}/ready")[0])
probe("unknown_model_ready")(lambda: outcome("GET", "/v2/models/nobody/ready"))
probe("unknown_path")(lambda: outcome("GET", "/v2/nothing"))
probe("root")(lambda: outcome("GET", "/nothing"))
probe("get_infer")(lambda: outcome("GET", path))
probe("put_infer")(lambda: outcome("PUT", path, b"{}"))
probe("post_metadata")(lambda: outcome("POST", f"/v2/models/{model}", b"{}"))
probe("post_health")(lambda: outcome("POST", "/v2/health/live", b"{}"))
probe("get_index")(lambda: outcome("GET", "/v2/repository/index"))
probe("index_ready_only")(lambda: outcome("POST", "/v2/repository/index", b'{"ready": true}'))
probe("load_with_body")(
    lambda: outcome("POST", f"/v2/repository/models/{model}/load", b'{"parameters": {}}')
)

probe("empty_body")(lambda: post(b""))
probe("broken_json")(lambda: post(b'{"inputs": ['))
probe("json_of_a_list")(lambda: post([1, 2]))
probe("json_of_a_number")(lambda: post(b"1"))
probe("no_inputs_key")(lambda: post({}))
probe("inputs_not_a_list")(lambda: post({"inputs": {}}))
probe("entry_not_an_object")(lambda: post({"inputs": [1]}))
probe("id_not_a_string")(lambda: post(document(id=7)))
probe("shape_missing")(lambda: post({"inputs": [{"name": IMAGE, "datatype": "FP32", "data": []}]}))
probe("shape_not_a_list")(lambda: post(document(entry={"shape": 1})))
probe("shape_of_strings")(lambda: post(document(entry={"shape": ["1"]})))
probe("shape_negative")(lambda: post(document(entry={"shape": [-1, *images.shape[1:]]})))
probe("shape_huge")(lambda: post(document(entry={"shape": [2**62, *images.shape[1:]]})))
probe("shape_beyond_int64")(lambda: post(document(entry={"shape": [2**64, *images.shape[1:]]})))
probe("shape_fraction")(lambda: post(document(entry={"shape": [1.5, *images.shape[1:]]})))
probe("datatype_unknown")(lambda: post(document(entry={"datatype": "FP31"})))
probe("datatype_missing")(lambda: post({"inputs": [{"name": IMAGE, "shape": [1], "data": [1.0]}]}))
probe("data_missing")(
    lambda: post({"inputs": [{"name": IMAGE, "shape": [1, 3, 2, 2], "datatype": "FP32"}]})
)
probe("data_too_short")(lambda: post(document(entry={"data": [0.0]})))
probe("data_too_long")(lambda: post(document(entry={"data": [0.0] * (images[:1].size + 1)})))
probe("data_of_strings")(lambda: post(document(entry={"data": ["x"] * images[:1].size})))
probe("data_of_integers")(lambda: post(document(entry={"data": [1] * images[:1].size})))
probe("data_of_null")(lambda: post(document(entry={"data": [None] * images[:1].size})))
probe("parameters_not_an_object")(lambda: post(document(parameters=3)))
probe("parameter_null")(lambda: post(document(parameters={"mine": None})))
probe("classification_negative")(
    lambda: post(document(outputs=[{"name": LOGITS, "parameters": {"classification": -1}}]))
)
probe("classification_text")(
    lambda: post(document(outputs=[{"name": LOGITS, "parameters": {"classification": "3"}}]))
)
probe("classification_zero")(
    lambda: post(document(outputs=[{"name": LOGITS, "parameters": {"classification": 0}}]))
)
probe("timeout_text")(lambda: post(document(parameters={"timeout": "soon"})))
probe("timeout_negative")(lambda: post(document(parameters={"timeout": -1})))
probe("priority_negative")(lambda: post(document(parameters={"priority": -1})))

probe("header_length_beyond")(lambda: binary(length="9999999"))
probe("header_length_short")(lambda: binary(length="10"))
probe("header_length_text")(lambda: binary(length="ten"))
probe("header_length_negative")(lambda: binary(length="-1"))
probe("header_length_zero")(lambda: binary(length="0"))
probe("binary_too_short")(lambda: binary(tail=raw[:-4]))
probe("binary_too_long")(lambda: binary(tail=raw + b"1234"))
probe("binary_size_wrong")(lambda: binary(size=8))
probe("binary_size_negative")(lambda: binary(size=-1))
probe("binary_size_text")(lambda: binary(size="x"))
probe("binary_and_data")(
    lambda: binary(head=document(entry={"parameters": {"binary_data_size": len(raw)}}))
)

packed = json.dumps(document()).encode()
probe("gzip")(lambda: post(gzip.compress(packed), Content_Encoding="gzip"))
probe("deflate")(lambda: post(zlib.compress(packed), Content_Encoding="deflate"))
probe("gzip_upper_case")(lambda: post(gzip.compress(packed), Content_Encoding="GZIP"))
probe("identity")(lambda: post(packed, Content_Encoding="identity"))
probe("encoding_unknown")(lambda: post(packed, Content_Encoding="br"))
probe("gzip_damaged")(lambda: post(gzip.compress(packed)[:-20], Content_Encoding="gzip"))
probe("gzip_that_is_none")(lambda: post(packed, Content_Encoding="gzip"))
large = json.dumps(
    {
        "inputs": [
            {
                "name": IMAGE,
                "shape": list(images.shape),
                "datatype": "FP32",
                "data": images.reshape(-1).tolist(),
            }
        ]
    }
).encode()
for coding in ("gzip", "deflate"):
    probe(f"accept_{coding}")(
        lambda coding=coding: send("POST", path, large, Accept_Encoding=coding)[2].get(
            "content-encoding"
        )
    )
probe("accept_gzip_small")(
    lambda: send("POST", path, packed, Accept_Encoding="gzip")[2].get("content-encoding")
)
probe("accept_both")(lambda: send("POST", path, packed, Accept_Encoding="deflate, gzip")[0])
probe("accept_unknown")(lambda: send("POST", path, packed, Accept_Encoding="br")[0])
probe.print()
