"""Ways in which a file of a deployment is no longer the one that was written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

Damage = Callable[[Path, Path], object]
"""Does it to a file; the second is another file of the deployment."""


def flip(path: Path, where: float, mask: int) -> None:
    """Change some bits of one byte."""
    data = bytearray(path.read_bytes())
    data[round(where * (len(data) - 1))] ^= mask
    path.write_bytes(data)


def cut(path: Path, where: float) -> None:
    """Leave the beginning."""
    data = path.read_bytes()
    path.write_bytes(data[: int(where * (len(data) - 1))])


def extend(path: Path, tail: bytes) -> None:
    """Write behind the end."""
    path.write_bytes(path.read_bytes() + tail)


def swap(path: Path, other: Path) -> None:
    """Exchange the two files."""
    away = path.with_name("away")
    path.rename(away)
    other.rename(path)
    away.rename(other)


def _instead(make: Callable[[Path, Path], object]) -> Damage:
    """Something else where the file was."""

    def damage(path: Path, other: Path) -> None:
        path.unlink()
        make(path, other)

    return damage


def _full_directory(path: Path, other: Path) -> None:
    path.mkdir()
    shutil.copy(other, path)


INSTEAD: dict[str, Damage] = {
    "nothing": _instead(lambda path, other: None),
    "an empty file": _instead(lambda path, other: path.touch()),
    "a link to another": _instead(lambda path, other: path.symlink_to(other.absolute())),
    "a link to itself": _instead(lambda path, other: path.symlink_to(path.name)),
    "a link to nothing": _instead(lambda path, other: path.symlink_to("gone")),
    "a link outside": _instead(lambda path, other: path.symlink_to("/dev/zero")),
    "a directory": _instead(lambda path, other: path.mkdir()),
    "a full directory": _instead(_full_directory),
    "a pipe": _instead(lambda path, other: os.mkfifo(path)),
    "another": swap,
}
"""What may stand where the file was."""

WHERE = st.floats(0, 1)


@dataclass(frozen=True)
class Done:
    """A damage with a name that a failing test shows."""

    name: str
    do: Damage

    def __repr__(self) -> str:
        return self.name


def damages() -> st.SearchStrategy[Done]:
    """Any damage, to be done to a file that is not empty."""
    flips = st.tuples(WHERE, st.integers(1, 255)).map(
        lambda at: Done(f"flipped {at}", lambda path, other: flip(path, *at))
    )
    cuts = WHERE.map(lambda at: Done(f"cut {at}", lambda path, other: cut(path, at)))
    tails = st.binary(min_size=1, max_size=64).map(
        lambda tail: Done(f"longer by {tail!r}", lambda path, other: extend(path, tail))
    )
    instead = st.sampled_from([Done(name, do) for name, do in INSTEAD.items()])
    return flips | cuts | tails | instead


def repair(root: Path, intact: Path, *names: str) -> None:
    """Put files back as they were."""
    for name in names:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            path.unlink()
        shutil.copy(intact / name, path)
