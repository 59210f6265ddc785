"""A place with checkpoints, images and a deployment, and commands that are run in it and killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tests.chaos.faults import Fault
from tests.chaos.state import SIDE, left_over
from tests.networks import SPECS, random_state, write_state

ROOT = Path(__file__).parents[2]
SPEC = SPECS["two"]
IMAGES = 32

_LAX: tuple[str, ...] = (
    "--no-search",
    "--min-sqnr",
    "-100",
    "--min-noisy-sqnr",
    "-100",
    "--max-clipped",
    "1",
)
_LAX += ("--min-agreement", "0", "--min-noisy-agreement", "0", "--max-kernel-gap", "1000")
_LAX += ("--min-kernel-agreement", "0")
_CALIBRATE = ("calibrate", "net", "images", "--precision", "int8-cpu", *_LAX)
_ONE = ("--placement", "one", "--threads", "1")
_QUICK = ("--vs", "none", "--mode", "saturated", "--rounds", "1", "--budget", "0.1")

COMMANDS: dict[str, tuple[str, ...]] = {
    "fuse a": ("fuse", "a.pth", "--name", "net", "--size", str(SIDE)),
    "fuse b": ("fuse", "b.pth", "--name", "net", "--size", str(SIDE)),
    "export": ("export", "net", "--input-size", str(SIDE)),
    "export range": ("export", "net", "--dynamic-size", f"{SIDE}:{2 * SIDE}"),
    "calibrate": _CALIBRATE,
    "calibrate mse": (*_CALIBRATE, "--method", "mse"),
    "build": ("build", "net", *_ONE),
    "build streams": ("build", "net", "--placement", "streams", "--threads", "1"),
    "build batch": ("build", "net", *_ONE, "--max-batch", "2"),
    "build int8": ("build", "net", *_ONE, "--precision", "int8"),
    "verify": ("verify", "net"),
    "bench": ("bench", "net", *_QUICK),
}
"""Commands that write, on the networks a and b: each on a tiny network with random weights."""

NO_FAULT = Fault(root="/nowhere")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended.

    ``writing_s``: of its ``seconds``, from its first change on. ``orphans``: descendants that had
    to be killed after it.
    """

    status: int
    out: str
    err: str
    changes: int
    seconds: float
    writing_s: float
    hung: bool
    orphans: int

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status == -9

    def refused(self) -> str:
        """The one line of an error of ours; fails if it is anything else."""
        lines = [line for line in self.err.splitlines() if not line.startswith("using ")]
        assert self.status in (1, 3), self
        assert lines, self
        assert lines[-1].startswith("error: "), self
        assert "Traceback" not in self.err, self.err
        assert not self.out, self.out
        return lines[-1]


class Zygote:
    """The process that runs commands; see ``tests.chaos.zygote``. One command at a time.

    Args:
        environment: More of it.
        before: Words in front of its command line, such as ``unshare``.
    """

    def __init__(
        self, *, environment: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> None:
        quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        self._process = subprocess.Popen(
            [*before, sys.executable, "-m", "tests.chaos.zygote"],
            cwd=ROOT,
            env={**os.environ, **quiet, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> Ended:
        """One request and its answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"fault": asdict(NO_FAULT), **request}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, "the zygote has died"
        return Ended(**json.loads(line))

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()


class Place:
    """A directory with ``a.pth``, ``b.pth``, ``images`` and the deployment ``engines/net``."""

    def __init__(self, root: Path, zygote: Zygote) -> None:
        self.root, self.zygote = root, zygote
        self.deployment = root / "engines" / "net"
        self.temporary = root / "tmp"

    @classmethod
    def make(cls, root: Path, zygote: Zygote) -> Place:
        """A new one, without a deployment."""
        place = cls(root, zygote)
        place.temporary.mkdir(parents=True)
        for seed, name in enumerate("ab"):
            write_state(root / f"{name}.pth", random_state(SPEC, seed))
        (root / "images").mkdir()
        random = np.random.default_rng(0)
        for i in range(IMAGES):
            array = random.standard_normal((SPEC.in_channels, SIDE, SIDE), dtype=np.float32)
            np.save(root / "images" / f"{i:03}.npy", array)
        return place

    def copy(self, root: Path) -> Place:
        """The same at another place. The deployment keeps the path of the first checkpoint."""
        shutil.copytree(self.root, root)
        return Place(root, self.zygote)

    def run(self, command: str, *, at: int = 0, code: int | None = None, **more: Any) -> Ended:
        """Run one of ``COMMANDS``, with a fault at the n-th change below the deployment.

        ``more`` goes to the zygote: ``kill_s``, ``from_change``; ``limits`` are of a ``Fault``.
        """
        limits = more.pop("limits", {})
        fault = Fault(root=str(self.deployment), at=at, code=code, **limits)
        return self.call(*COMMANDS[command], fault=asdict(fault), **more)

    def call(self, *args: str, **more: Any) -> Ended:
        """Run any command line."""
        environment = {"TMPDIR": str(self.temporary), "PARNET_CACHE": str(self.temporary / "none")}
        ended = self.zygote.ask(
            action="command", args=args, cwd=str(self.root), env=environment, **more
        )
        assert not ended.hung, ended
        assert not ended.orphans, ended
        return ended

    def finish(self, *commands: str) -> Ended:
        """Run commands to their ends; they succeed. How the last one ended."""
        for command in commands:
            ended = self.run(command)
            assert ended.status == 0, (command, ended)
        return ended

    def look(self, plans: Sequence[str] | None = None) -> dict[str, Any]:
        """The state of the deployment (``tests.chaos.state``), seen by a process of its own."""
        ended = self.zygote.ask(
            action="look", path=str(self.deployment), cwd=str(self.root), plans=plans
        )
        assert ended.status == 0, ended
        found: dict[str, Any] = json.loads(ended.out)
        return found

    @property
    def left(self) -> list[str]:
        """What commands have left behind for good."""
        return left_over(self.deployment, self.temporary)

    def remove(self) -> None:
        """Make room for the next."""
        shutil.rmtree(self.root)
