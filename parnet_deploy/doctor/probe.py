"""Whether a backend can be used, asked in a process of its own.

What it imports is not ours: it may raise anything, crash the interpreter, end it, or never return.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from typing import NamedTuple

from ..errors import ParnetDeployError
from ..extras import import_for
from ..runtime.backend import BACKENDS, load_backend

LIMIT_S = 60.0
_CHECKS = {
    "tensorrt": ("parnet_deploy.runtime.tensorrt.compat", "load_tensorrt"),
    "onnxruntime-cuda": ("parnet_deploy.runtime.onnxruntime.cuda_session", "check_provider"),
}
"""Backends that can be imported and still be of no use: (module, function that says why)."""
_MODULES = {"mnn": "MNN"}
"""Modules that are not named like their backend."""

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    f"from {__name__} import answer; answer(*sys.argv[2:])"
)
_MARK = "parnet-deploy: "
_REINSTALL = (
    "reinstall what it is made of, see packages; python -c 'import {module}' shows it whole"
)


class Probe(NamedTuple):
    """``fix`` None: the backend can be used."""

    detail: str
    fix: str | None = None


def probe_backend(name: str, *, limit_s: float = LIMIT_S) -> Probe:
    """Load a backend elsewhere, and say how that went.

    Args:
        name: Of the backend.
        limit_s: Seconds after which it counts as hanging.
    """
    command = [sys.executable, "-I", "-c", _BOOT, json.dumps(sys.path), name]
    fix = _REINSTALL.format(module=_MODULES.get(name, name.partition("-")[0]))
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Probe(f"cannot be loaded: importing it did not end within {limit_s:g} s", fix)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    found = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
    if found:
        return Probe(*json.loads(found[-1]))
    said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    return Probe(f"cannot be loaded: importing it ended Python with {how}: {said}", fix)


def answer(name: str) -> None:
    """In that process: load the backend, and print what is to be said of it."""
    sys.stdout.write(f"{_MARK}{json.dumps(_load(name))}\n")


def _load(name: str) -> Probe:
    try:
        load_backend(name)
        if name in _CHECKS:
            module, check = _CHECKS[name]
            getattr(import_for(module, BACKENDS[name].extra), check)()
    except ParnetDeployError as error:
        return Probe("cannot be loaded", str(error))
    if name == "fake":
        return Probe("simulated devices, for trying and testing")
    if name == "mixed":
        return Probe("ready; an engine on each of several backends of the CPU")
    if name == "onnxruntime":
        providers = import_module("onnxruntime").get_available_providers()
        short = (provider.removesuffix("ExecutionProvider") for provider in providers)
        return Probe(f"ready; providers: {', '.join(short)}")
    return Probe("ready")
