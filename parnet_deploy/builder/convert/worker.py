"""The child process that converts graphs: ``python -m ...builder.convert.worker JOB``.

JOB is a JSON file. For each graph in it one JSON object goes to standard output: "done" with facts,
or "missing" or "failed", which is the last. What the converter prints goes to standard error.
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
    """Convert what the job names; returns the exit status."""
    end_with_parent()
    stdout = private_stdout()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for item in job["graphs"]:
        report = _convert(job["module"], item, job["precision"])
        stdout.write(json.dumps(report) + "\n")
        stdout.flush()
        if report["event"] != "done":
            return 1
    return 0


def _convert(module: str, item: dict[str, str], precision: str) -> dict[str, Any]:
    try:
        converter = import_module(module)
        facts = converter.convert(Path(item["graph"]), Path(item["output"]), precision=precision)
    except MissingExtraError as error:
        return {"event": "missing", "package": error.package, "extra": error.extra}
    except ParnetDeployError as error:
        return {"event": "failed", "error": type(error).__name__, "message": str(error)}
    return {"event": "done", "facts": facts}


if __name__ == "__main__":
    sys.exit(main())
