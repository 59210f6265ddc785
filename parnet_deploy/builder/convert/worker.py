"""The child process that converts one graph: ``python -m ...builder.convert.worker JOB``.

It reports one JSON object on standard output: "done" with facts, "missing" or "failed". What the
converter prints goes to standard error.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from ...errors import MissingExtraError, ParnetDeployError
from ..in_child import end_with_parent, private_stdout


def main() -> int:
    """Serve one job; returns the exit status."""
    end_with_parent()
    stdout = private_stdout()
    report = _serve(json.loads(sys.argv[1]))
    stdout.write(json.dumps(report) + "\n")
    stdout.flush()
    return int(report["event"] != "done")


def _serve(job: dict[str, Any]) -> dict[str, Any]:
    try:
        converter = import_module(job["module"])
        facts = converter.convert(
            Path(job["graph"]), Path(job["output"]), precision=job["precision"]
        )
    except MissingExtraError as error:
        return {"event": "missing", "package": error.package, "extra": error.extra}
    except ParnetDeployError as error:
        return {"event": "failed", "error": type(error).__name__, "message": str(error)}
    return {"event": "done", "facts": facts}


if __name__ == "__main__":
    sys.exit(main())
