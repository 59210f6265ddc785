"""The fused network as one ONNX graph, for runtimes that read ONNX."""

from __future__ import annotations

from ...deployment import Deployment
from ...extras import import_for
from ...placement import Segment

_onnx = import_for("onnx", "export")
_merge = import_for("parnet_deploy.builder.onnx_merge", "export")  # rooms do not import each other


def fused_graph(*, directory: str) -> bytes:
    """The graphs of all parts joined and serialized: "image" in, "logits" out."""
    deployment = Deployment.open(directory)
    spec = deployment.spec
    parts = {
        part.name: _onnx.load_from_string(deployment.read_bytes(f"onnx/{part.name}.onnx"))
        for part in spec.parts
    }
    whole = Segment(name="all", parts=tuple(parts), inputs=("image",), outputs=("logits",))
    data: bytes = _merge.merge_segment(whole, spec, parts).SerializeToString()
    return data
