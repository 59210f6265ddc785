"""How long things take once: import, help, opening ParNet-S, fusing ParNet-XL; fresh processes.

python benchmarks/startup.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from networks import write_checkpoint
from report import RESULTS, git_state
from rich.console import Console
from rich.table import Table

from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.machine.describe import describe_machine

OPEN = """
import sys, time
start = time.perf_counter()
from parnet_deploy import Runtime
with Runtime.open(sys.argv[1]):
    print(time.perf_counter() - start)
"""
FUSE = """
import resource, sys, time
start = time.perf_counter()
from pathlib import Path
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
fuse_to_deployment(Path(sys.argv[1]), Path(sys.argv[2]), FuseOptions(activation="silu"))
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    """Measure and write ``results/startup.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    environment = describe_machine()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        small = folder / "parnet-s"
        checkpoint = write_checkpoint("parnet-s", folder / "parnet-s.pth")
        fuse_to_deployment(checkpoint, small, FuseOptions(activation="silu"))
        export_to_deployment(small)
        build_to_deployment(small, BuildOptions(placement="one"))
        large = write_checkpoint("parnet-xl", folder / "parnet-xl.pth")
        rows = [
            _row("an empty Python process", [_wall(["-c", ""]) for _ in range(repeats)]),
            _row(
                "import parnet_deploy, process included",
                [_wall(["-c", "import parnet_deploy"]) for _ in range(repeats)],
            ),
            _row(
                "parnet-deploy --help, process included",
                [_wall(["-m", "parnet_deploy", "--help"]) for _ in range(repeats)],
            ),
            _row(
                "Runtime.open of ParNet-S, imports included",
                [_printed(OPEN, str(small))[0] for _ in range(repeats)],
            ),
        ]
        fused = [_printed(FUSE, str(large), str(folder / f"xl{i}")) for i in range(3)]
        rows.append(_row("fuse ParNet-XL, imports included", [seconds for seconds, _ in fused]))
        rows[-1]["peak_mib"] = max(peak for _, peak in fused)
    document = {
        "benchmark": "startup",
        "schema": 1,
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git": git_state(),
        "environment": {"before": environment, "after": describe_machine()},
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "startup.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    table = Table(title="startup: seconds, fresh process each time")
    for column in ("what", "median", "worst", "peak MiB"):
        table.add_column(column)
    for row in rows:
        peak = f"{row['peak_mib']:.0f}" if "peak_mib" in row else ""
        table.add_row(row["what"], f"{row['median_s']:.3f}", f"{row['worst_s']:.3f}", peak)
    Console(width=100).print(table)


def _row(what: str, seconds: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    return {
        "what": what,
        "median_s": ordered[len(ordered) // 2],
        "worst_s": ordered[-1],
        "samples_s": list(seconds),
    }


def _wall(arguments: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _printed(code: str, *arguments: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
