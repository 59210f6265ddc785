"""Run a converter in a process of its own: its crash, hang or memory is not this one's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
_NEXT = "Use --backend onnxruntime."
_WORKER = "parnet_deploy.builder.convert.worker"


class Item(NamedTuple):
    """A serialized ONNX model of a segment (``name``), and where its engine file goes."""

    name: str
    graph: bytes
    output: Path


def convert_graph(
    graph: bytes, output: Path, *, backend: str, precision: str, name: str
) -> dict[str, Any]:
    """Write the engine file of one segment; see ``convert_graphs``."""
    (record,) = convert_graphs([Item(name, graph, output)], backend=backend, precision=precision)
    return record


def convert_graphs(items: Sequence[Item], *, backend: str, precision: str) -> list[dict[str, Any]]:
    """Write the engine files of segments and return the records of their making, in their order.

    Args:
        items: What to convert. An output is there only if the converter succeeded.
        backend: One of ``CONVERTERS``.
        precision: The engines': fp32, bf16 or int8.

    Raises:
        EngineBuildError: The converter failed, crashed or hung.
        MissingExtraError: A package that it needs is not installed.
    """
    reports: list[dict[str, Any]] = []
    records = []
    with scratch_folder("parnet-convert-") as folder:
        jobs = []
        for index, item in enumerate(items):
            source, made = folder / f"{index}.onnx", folder / f"{index}{item.output.suffix}"
            source.write_bytes(item.graph)
            jobs.append({"graph": str(source), "output": str(made)})
        job = {"module": CONVERTERS[backend], "precision": precision, "graphs": jobs}
        file = folder / "job.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        arguments, limit_s = [str(file)], TIMEOUT_S * len(items)
        ended = run_child(_WORKER, arguments, folder, on_event=reports.append, timeout_s=limit_s)
        for index, item in enumerate(items):
            about = f"segment {item.name}, converter of {backend}"
            facts = _facts(reports[index] if index < len(reports) else {}, ended, about)
            made = Path(jobs[index]["output"])
            if not made.is_file() or not made.stat().st_size:
                raise EngineBuildError(
                    f"segment {item.name}: the converter of {backend} wrote nothing. {_NEXT}"
                )
            item.output.write_bytes(made.read_bytes())
            digest = hashlib.sha256(item.graph).hexdigest()
            records.append({"graph_sha256": digest, "converter": facts})
    return records


def _facts(report: Mapping[str, Any], ended: Ended, what: str) -> Mapping[str, Any]:
    """What the child says of one graph; empty: it ended before it said anything."""
    event = report.get("event")
    if event == "done":
        facts: Mapping[str, Any] = report["facts"]
        return facts
    if event == "missing":
        raise MissingExtraError(report["package"], report["extra"])
    if event == "failed":
        kinds: Mapping[str, type[BackendError]] = {"EngineBuildError": EngineBuildError}
        raise kinds.get(report["error"], BackendError)(f"{what}: {report['message']} {_NEXT}")
    if ended.timed_out:
        raise EngineBuildError(f"{what}: got no answer in {TIMEOUT_S:.0f} s. {_NEXT}")
    said = f": {ended.errors}" if ended.errors else ""
    raise EngineBuildError(f"{what}: its process {ending(ended.status)}{said}. {_NEXT}")
