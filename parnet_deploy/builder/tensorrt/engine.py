"""Build TensorRT engines: each in a child process, found in a cache if it was built before.

This process imports no TensorRT. The child (``worker``) tells what it would build with, this
process makes the key from it and looks into the cache, and only then lets the child build.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import (
    BackendError,
    DeviceUnavailableError,
    EngineBuildError,
    EngineLoadError,
    MissingExtraError,
    OutOfMemoryError,
)
from ...runtime.tensorrt.log import LOGGER, lacks_memory, quote
from ...storage.files import hash_file
from ...storage.scratch import scratch_folder
from ..child import Ended, run_child
from .cache_key import EngineKey
from .engine_cache import CachedEngine, EngineCache, place_file
from .graph_facts import GraphFacts, read_graph
from .job import Job, TensorRtOptions
from .profiles import Profile, check_profiles, profiles_to_json

__all__ = ["TensorRtOptions", "build_engine"]

WORKER = "parnet_deploy.builder.tensorrt.worker"
LOG_KEPT = 20

_ERRORS: dict[str, type[BackendError]] = {
    kind.__name__: kind
    for kind in (
        BackendError,
        DeviceUnavailableError,
        EngineBuildError,
        EngineLoadError,
        OutOfMemoryError,
    )
}


def build_engine(
    graph: bytes,
    output: Path,
    *,
    name: str,
    device: int,
    profiles: Sequence[Profile],
    options: TensorRtOptions | None = None,
    cache: EngineCache | None = None,
    on_progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Build a segment's engine, or take it from the cache, and write its plan to ``output``.

    Args:
        graph: The segment as a serialized ONNX model; its types say the precision.
        output: Where the plan goes; it is written whole or not at all.
        name: The segment's, for messages.
        device: Ordinal of the GPU.
        profiles: Shapes to tune for; see ``segment_profiles``.
        options: How to build.
        cache: Where to look and keep; None is the user's.
        on_progress: Called with short texts.

    Returns: The record, as plain JSON types: ``cache`` (key, hit), ``device``, ``tensorrt``,
        ``graph_sha256``, ``plan_sha256``, ``plan_bytes``, ``precision``, ``profiles``, ``options``
        and all that ``build.build_plan`` tells. Where the cache had it, times and the uuid of
        the GPU are those of the build.

    Raises:
        SpecError: The profiles do not fit the graph.
        MissingExtraError: TensorRT or the CUDA bindings are not installed.
        DeviceUnavailableError: There is no such GPU.
        EngineBuildError: TensorRT cannot build it, crashed or hung; its log is quoted.
        OutOfMemoryError: The GPU has too little memory.
    """
    options = options or TensorRtOptions()
    facts = read_graph(graph, f"engine {name}")
    check_profiles(profiles, facts.inputs, f"engine {name}")
    with _folder() as folder, ExitStack() as held:
        build = _Build(
            folder=folder,
            name=name,
            device=device,
            graph=graph,
            facts=facts,
            profiles=profiles,
            options=options,
            cache=cache or EngineCache.default(),
            on_progress=on_progress,
            held=held,
        )
        record = build.run()
        place_file(build.plan, output)
        return record


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the job, the plan and the child's messages.

    Raises:
        EngineBuildError: The disk is full, or a folder cannot be written.
    """
    try:
        with scratch_folder("parnet-engine-") as folder:
            yield folder
    except OSError as error:
        where = error.filename2 or error.filename or tempfile.gettempdir()
        raise EngineBuildError(
            f"file {where}: got {error.strerror or error}, expected room for an engine. "
            "Free some space, or set TMPDIR to another folder for temporary files."
        ) from error


@dataclass(kw_only=True)
class _Build:
    """One run of the child: what it is asked, and what it has said so far."""

    folder: Path
    name: str
    device: int
    graph: bytes
    facts: GraphFacts
    profiles: Sequence[Profile]
    options: TensorRtOptions
    cache: EngineCache
    on_progress: Callable[[str], None]
    held: ExitStack
    start: float = field(default_factory=time.monotonic)
    key: str = ""
    plan: Path = Path()
    identity: dict[str, Any] = field(default_factory=dict)
    found: CachedEngine | None = None
    failed: dict[str, Any] | None = None
    done: bool = False
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_KEPT))

    def run(self) -> dict[str, Any]:
        """The record; ``plan`` is then where the engine lies."""
        self.plan = self.folder / "engine.plan"
        ended = run_child(
            WORKER,
            [str(self.device)],
            self.folder,
            on_event=self._on_event,
            on_idle=self._on_idle,
            timeout_s=self.options.timeout_s,
        )
        if self.found is not None:
            self.plan = self.found.plan
            return {**self.found.record, "cache": {"key": self.key, "hit": True}}
        if not self.done:  # a crash on the way out, after that, changes nothing
            raise self._error(ended)
        record = self._describe(json.loads((self.folder / "result.json").read_bytes()))
        try:
            self.cache.store(self.key, self.plan, record)
        except BackendError as error:  # the engine itself is there
            LOGGER.warning("engine %s is not kept for the next build: %s", self.name, error)
        return {**record, "cache": {"key": self.key, "hit": False}}

    def _on_event(self, event: dict[str, Any]) -> str | None:
        kind = event.get("event")
        if kind == "environment":
            return self._on_environment(event)
        if kind == "progress":
            self.on_progress(f"{self.name}: {event['text']}")
        elif kind == "log":
            self.log.append(event["text"])
        elif kind == "failed":
            self.failed = event
        elif kind == "done":
            self.done = True
        return None

    def _on_environment(self, environment: Mapping[str, Any]) -> str:
        """Look into the cache; returns the path of the job, or nothing if there is none to do."""
        device = environment["device"]
        self.identity = {
            "tensorrt": environment["tensorrt"],
            "device": device,
            "graph_sha256": hashlib.sha256(self.graph).hexdigest(),
            "precision": self.facts.precision,
            "profiles": profiles_to_json(self.profiles),
            "options": self.options.to_json(),
        }
        self.key = EngineKey(
            graph_sha256=self.identity["graph_sha256"],
            tensorrt=environment["tensorrt"],
            device=device["name"],
            compute_capability=device["compute_capability"],
            driver=str(device["driver"] or device["driver_cuda"]).partition(".")[0],
            precision=self.facts.precision,
            keep_float=self.facts.keep_float,
            profiles=self.identity["profiles"],
            options=self.identity["options"],
            traits=environment["traits"],
        ).digest
        waiting = f"{self.name}: waiting for another process that builds the same engine"
        try:
            self.held.enter_context(self.cache.lock(self.key, lambda: self.on_progress(waiting)))
            self.found = self.cache.find(self.key, self.identity["graph_sha256"])
        except BackendError as error:  # the engine can be built without it
            LOGGER.warning("engine %s is built without the cache: %s", self.name, error)
        if self.found is not None:
            self.on_progress(f"{self.name}: found in the cache")
            return ""
        self.on_progress(f"{self.name}: building with TensorRT {environment['tensorrt']}")
        return str(self._write_job(environment["tensorrt"], device["name"]))

    def _write_job(self, tensorrt: str, device_name: str) -> Path:
        job = Job(
            name=self.name,
            device=self.device,
            graph=self.folder / "graph.onnx",
            plan=self.plan,
            result=self.folder / "result.json",
            timing_cache=self.cache.timing_file(tensorrt, device_name).absolute(),
            profiles=self.profiles,
            options=self.options,
            half=self.facts.half,
            quantized=self.facts.quantized,
            keep_float=self.facts.keep_float,
        )
        job.graph.write_bytes(self.graph)
        path = self.folder / "job.json"
        path.write_text(json.dumps(job.to_json()), encoding="utf-8")
        return path

    def _on_idle(self) -> None:
        self.on_progress(f"{self.name}: {time.monotonic() - self.start:.0f} s so far")

    def _describe(self, result: Mapping[str, Any]) -> dict[str, Any]:
        digest, size = hash_file(self.plan)
        return {**self.identity, "plan_sha256": digest, "plan_bytes": size, **result}

    def _error(self, ended: Ended) -> BackendError:
        """What went wrong in the child, as our error."""
        if self.failed is not None:
            if self.failed["error"] == "MissingExtraError":
                return MissingExtraError(self.failed["package"], self.failed["extra"])
            kind = _ERRORS.get(self.failed["error"], EngineBuildError)
            return kind(self.failed["message"])
        return child_error(self.name, ended, list(self.log), self.options.timeout_s)


def child_error(
    name: str, ended: Ended, log: Sequence[str], timeout_s: float | None
) -> BackendError:
    """The error for a child that ended without saying why.

    Args:
        name: The engine.
        ended: How it ended.
        log: What TensorRT said before.
        timeout_s: How long it was given.
    """
    if ended.timed_out:
        got = f"no plan within {timeout_s:g} s" if timeout_s else "no plan in time"
        cure = "Give it more time, or a lower optimization level."
    elif ended.signal_name == "SIGKILL":
        got = "a child process ended by SIGKILL"
        cure = "If the kernel did it for want of memory (see dmesg), free some and build again."
    elif ended.signal_name is not None:
        got = f"a child process ended by {ended.signal_name}"
        cure = "TensorRT crashed: try another version, or a lower optimization level."
    else:
        got = f"a child process that ended with status {ended.status}"
        cure = "Run: parnet-deploy doctor."
    kind = OutOfMemoryError if lacks_memory(log) else EngineBuildError
    last = f" Its last words: {ended.errors}" if ended.errors else ""
    return kind(
        f"engine {name}: got {got}, expected a plan. TensorRT says: {quote(log)}{last} {cure}"
    )
