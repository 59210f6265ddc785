"""Kill commands at random moments, again and again on the same deployments, and count what is lost.

Run as ``python -m tests.chaos.kills``; ``CHAOS_KILLS`` (500) says how often. Two deployments are
worked on side by side. Each command is killed at any moment of its life, or at any moment after its
first change on the disk, as often the one as the other. After each kill the deployment must open,
every file must be the one that was written, its steps must be made from each other, and every plan
must give the answer that its key always gave. One command in three is then run again, to its end:
it must succeed, and leave nothing behind. Prints counts as JSON; exit code 1 if anything was lost.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tests.chaos.commands import COMMANDS, Ended, Place, Zygote

LANES = 2
TOLERANCE = 1e-4
RERUN = 1 / 3
RARE = {"bench": 0.25}
"""Commands that take longer come less often."""
NEEDS = {"build int8": {"quantize:int8-cpu"}}
"""Steps that a command does not run by itself."""


class Lane:
    """One deployment, its commands, and what is known of how it must be."""

    def __init__(self, place: Place, seed: int, commands: Sequence[str]) -> None:
        self.place, self.commands = place, commands
        self.counts: Counter[str] = Counter()
        self.lost: list[str] = []
        self._random = random.Random(seed)
        self._known: dict[tuple[str, ...], Any] = {}
        self._right: dict[str, Any] = {}
        self._usual: dict[str, Ended] = {}
        self._now: dict[str, Any] = {}

    def learn(self) -> None:
        """Run every command undisturbed on both networks: how long it takes, and what it makes."""
        for network in ("fuse a", "fuse b"):
            others = [name for name in self.commands if not name.startswith("fuse")]
            for command in (network, *others):
                self._usual[command] = self.place.finish(command)
                self._check()

    def kill(self) -> None:
        """One command, killed; one that was quicker than the kill does not count as one."""
        steps = self._now["steps"].keys()
        names = [name for name in self.commands if steps >= NEEDS.get(name, set())]
        command = self._random.choices(names, [RARE.get(name, 1.0) for name in names])[0]
        late = self._random.random() < 0.5
        usual = self._usual[command]
        moment_s = self._random.uniform(0, usual.writing_s if late else usual.seconds)
        before = self._now["digest"]
        ended = self.place.run(command, kill_s=moment_s, from_change=late)
        self.counts["killed" if ended.killed else "ended before"] += 1
        self.counts[f"killed: {command}"] += ended.killed
        try:
            self._check()
            self.counts["new" if self._now["digest"] != before else "old"] += ended.killed
            if self._random.random() < RERUN:
                self.place.finish(command)
                self.counts["run again"] += 1
                assert self.place.left == [], self.place.left
                self._check()
        except (AssertionError, KeyError) as error:
            self.lost.append(f"{command} after {moment_s:.4f} s, late {late}: {error!r}")

    def _check(self) -> None:
        """The state: whole, its steps made from each other, and what it always was."""
        self._now = found = self.place.look()
        steps = found["steps"]
        assert found["broken"] == found["foreign"] == [], found
        for step in steps.values():
            for source, key in step["made_from"].items():
                assert steps[source]["key"] == key, (step, steps[source])
        for name, content in _contents(found):
            assert self._known.setdefault(name, content) == content, (name, content)
        for plan, answer in found["answers"].items():
            if "fp32" in plan:
                right = self._right.setdefault(found["model"], answer)
                np.testing.assert_allclose(answer, right, atol=TOLERANCE * np.abs(right).max())


def _contents(found: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What the key of a step says: the network, what it was made from, what its plan answers."""
    steps = found["steps"]
    for name, step in steps.items():
        if step["key"]:
            yield ("step", name, step["key"]), [found["model"], step["made_from"]]
    for plan, step in found["plans"].items():
        yield ("answer", plan, steps[step]["key"]), found["answers"][plan]


def run(
    kills: int,
    root: Path,
    *,
    lanes: int = LANES,
    seed: int = 0,
    commands: Sequence[str] = tuple(COMMANDS),
) -> dict[str, Any]:
    """Counts of that many kills in all, and what was lost."""

    def lane(number: int) -> Lane:
        with Zygote() as zygote:
            place = Place.make(root / f"lane{number}", zygote)
            working = Lane(place, seed + number, commands)
            working.learn()
            share = kills // lanes + (number < kills % lanes)
            while working.counts["killed"] < share and not working.lost:
                working.kill()
            return working

    started = time.monotonic()
    with ThreadPoolExecutor(lanes) as pool:
        found = list(pool.map(lane, range(lanes)))
    counts = sum((working.counts for working in found), Counter())
    return {
        "kills": counts["killed"],
        "counts": dict(sorted(counts.items())),
        "lost": [text for working in found for text in working.lost],
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="parnet-chaos-") as folder:
        summary = run(int(os.environ.get("CHAOS_KILLS", "500")), Path(folder))
    print(json.dumps(summary, indent=1))
    sys.exit(bool(summary["lost"]))
