"""Run a converter in a process of its own: its crash, hang or memory is not this one's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import BackendError, EngineBuildError, MissingExtraError
from ...machine.ending import ending
from ...storage.scratch import scratch_folder
from ..child import Ended, run_child

CONVERTERS = {
    "openvino": "parnet_deploy.builder.convert.to_openvino",
    "mnn": "parnet_deploy.builder.convert.to_mnn",
    "ncnn": "parnet_deploy.builder.convert.to_ncnn",
}
"""Backend -> the module whose ``convert(graph, output, precision)`` makes its engine files.

``graph`` is the path of an ONNX file, ``output`` where the engine goes (one file); it returns
facts for people, versions above all, as plain JSON types, and raises ``EngineBuildError``.
"""

TIMEOUT_S = 600.0
_WORKER = "parnet_deploy.builder.convert.worker"


def convert_graph(
    graph: bytes, output: Path, *, backend: str, precision: str, name: str
) -> dict[str, Any]:
    """Write the engine file of one segment and return the record of its making.

    Args:
        graph: The segment as a serialized ONNX model.
        output: The engine file; it is there only if the converter succeeded.
        backend: One of ``CONVERTERS``.
        precision: The engine's: fp32, bf16 or int8.
        name: The segment's, for messages.

    Raises:
        EngineBuildError: The converter failed, crashed or hung.
        MissingExtraError: A package that it needs is not installed.
    """
    reports: list[dict[str, Any]] = []
    with scratch_folder("parnet-convert-") as folder:
        source, made = folder / "graph.onnx", folder / f"made{output.suffix}"
        source.write_bytes(graph)
        job = {
            "module": CONVERTERS[backend],
            "graph": str(source),
            "output": str(made),
            "precision": precision,
        }
        ended = run_child(
            _WORKER, [json.dumps(job)], folder, on_event=reports.append, timeout_s=TIMEOUT_S
        )
        facts = _facts(reports, ended, f"segment {name}, converter of {backend}")
        if not made.is_file() or not made.stat().st_size:
            raise EngineBuildError(f"segment {name}: the converter of {backend} wrote nothing.")
        output.write_bytes(made.read_bytes())
    return {"graph_sha256": hashlib.sha256(graph).hexdigest(), "converter": facts}


def _facts(reports: list[dict[str, Any]], ended: Ended, what: str) -> Mapping[str, Any]:
    last = reports[-1] if reports else {}
    if last.get("event") == "done":
        facts: Mapping[str, Any] = last["facts"]
        return facts
    if last.get("event") == "missing":
        raise MissingExtraError(last["package"], last["extra"])
    if last.get("event") == "failed":
        kinds: Mapping[str, type[BackendError]] = {"EngineBuildError": EngineBuildError}
        raise kinds.get(last["error"], BackendError)(last["message"])
    if ended.timed_out:
        raise EngineBuildError(f"{what}: got no answer in {TIMEOUT_S:.0f} s.")
    said = f": {ended.errors}" if ended.errors else ""
    raise EngineBuildError(f"{what}: its process {ending(ended.status)}{said}")
