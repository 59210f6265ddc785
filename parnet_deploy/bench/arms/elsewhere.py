"""Make a model in a process of its own, so that the memory of the one that is timed is its own.

What makes models (PyTorch, onnx) would count as the arm's otherwise. The model goes through a file
without a name: nothing is left behind, however it ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ...errors import BackendError, CheckpointError, ParnetDeployError
from ...machine.ending import ending

_BOOT = (
    "import json, sys; request = json.load(sys.stdin); sys.path[:] = request.pop('path'); "
    f"from {__name__} import serve; serve(**request)"
)
"""Isolated like the process of an arm, with the very paths of this one."""


def make_elsewhere(entry: str, **options: Any) -> bytes:
    """The bytes that a function returns in a process of its own.

    Args:
        entry: "module:function".
        options: What it takes; plain data.

    Raises:
        CheckpointError: It raised one.
        BackendError: It failed otherwise.
    """
    with tempfile.TemporaryFile() as file:
        request = {"path": sys.path, "fd": file.fileno(), "entry": entry, "options": options}
        done = subprocess.run(
            [sys.executable, "-I", "-c", _BOOT],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            pass_fds=[file.fileno()],
        )
        if done.returncode:
            raise _error(entry, done.returncode, (done.stderr.strip().splitlines() or [""])[-1])
        file.seek(0)
        return file.read()


def serve(*, entry: str, fd: int, options: Mapping[str, Any]) -> None:
    """In that process: call the function and write what it returns to the open file.

    An error of ours ends it with status 1 and, as the last line of stderr, kind and text as JSON.
    """
    module, _, function = entry.partition(":")
    try:
        data = getattr(import_module(module), function)(**options)
    except ParnetDeployError as error:
        sys.exit(json.dumps([type(error).__name__, str(error)]))
    with open(fd, "wb") as file:
        file.write(data)


def _error(entry: str, status: int, last: str) -> ParnetDeployError:
    """What it ended with; a failure that is not ours has its last line."""
    kinds: Mapping[str, type[ParnetDeployError]] = {"CheckpointError": CheckpointError}
    try:
        kind, text = json.loads(last)
    except ValueError:
        return BackendError(f"{entry}: its process {ending(status)}{f': {last}' if last else ''}")
    return kinds.get(kind, BackendError)(text)
