"""The child process that builds an engine: ``python -m parnet_deploy.builder.tensorrt.worker GPU``.

A crash, a hang or a kill of TensorRT ends this process only. Its standard output carries one JSON
object a line: "environment" first; then it waits for one line, the path of a ``Job`` (or the end of
the input: nothing to do); then "progress" and "log" lines, and "done" or "failed" at the end. What
libraries print goes to standard error.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from ...errors import MissingExtraError, ParnetDeployError
from ...extras import import_for
from ...machine.gpus import gpu_facts
from ...runtime.tensorrt.compat import load_tensorrt
from ...runtime.tensorrt.log import LOGGER
from ..in_child import end_with_parent, private_stdout
from .config import missing_libraries, weakly_typed
from .engine_cache import write_file
from .job import Job


class Reporter(logging.Handler):
    """Writes events to the parent; a logging handler for warnings and errors of TensorRT."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(level=logging.WARNING)
        self._stream = stream
        self._writing = threading.Lock()
        self._last = ("", -1)
        self.cancelled = False

    def send(self, event: str, **fields: Any) -> None:
        """One event, at once."""
        with self._writing:
            self._stream.write(json.dumps({"event": event, **fields}) + "\n")
            self._stream.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        self.send("log", text=f"{level}: {record.getMessage()}")

    def step(self, phase: str, done: int, total: int) -> bool:
        """Report progress in whole percents; False once the parent wants the build to end."""
        percent = 100 * done // max(total, 1)
        if (phase, percent) != self._last:
            self._last = (phase, percent)
            self.send("progress", text=f"{phase}: {percent} %")
        return not self.cancelled

    def cancel(self, *_: object) -> None:
        """Let the build end at its next step. A signal handler."""
        self.cancelled = True


def main() -> int:
    """Serve one job; returns the exit status."""
    end_with_parent()
    reporter = Reporter(private_stdout())
    signal.signal(signal.SIGTERM, reporter.cancel)
    LOGGER.addHandler(reporter)
    LOGGER.propagate = False
    try:
        _serve(int(sys.argv[1]), reporter)
    except MissingExtraError as error:
        fields = {"package": error.package, "extra": error.extra}
        reporter.send("failed", error="MissingExtraError", message=str(error), **fields)
        return 1
    except ParnetDeployError as error:
        reporter.send("failed", error=type(error).__name__, message=str(error))
        return 1
    return 0


def _serve(ordinal: int, reporter: Reporter) -> None:
    trt = load_tensorrt()
    cuda = import_for("parnet_deploy.runtime.cuda.context", "gpu")
    reporter.send(
        "environment",
        tensorrt=trt.__version__,
        device=gpu_facts(ordinal),
        traits={
            "weakly_typed": weakly_typed(trt),
            "missing_libraries": list(missing_libraries(trt)),
        },
    )
    path = sys.stdin.readline().strip()
    if not path:
        return
    from .build import build_plan

    job = Job.from_json(json.loads(Path(path).read_bytes()))
    with cuda.CudaContext.open_primary(job.device).guard():  # TensorRT builds for what is current
        record = build_plan(trt, job, reporter.step)
    write_file(job.result, json.dumps(record).encode())
    reporter.send("done")


if __name__ == "__main__":
    sys.exit(main())
