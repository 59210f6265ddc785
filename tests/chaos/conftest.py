"""Places for commands to be killed in, made once and copied for each test.

Layout: a fault has a module ``test_FAULT.py`` with its short form, and the long form marked
``chaos``, which only ``make chaos`` runs. What tests share is in modules without the prefix:
``faults`` (at the n-th change on the disk), ``zygote`` (forks of a process that has imported
everything), ``commands`` (what is run, and where), ``state`` (what a deployment is like after).
``kills`` is a program. The matrix of all faults is docs/reliability.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.commands import Place, Zygote

FULL = ("fuse a", "export", "calibrate", "build", "build int8", "verify", "bench")


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with Zygote() as running:
        yield running


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Place:
    """A deployment with every kind of artifact, two plans among them; not to be changed."""
    place = Place.make(tmp_path_factory.mktemp("full") / "place", zygote)
    place.finish(*FULL)
    return place


@pytest.fixture
def copy(full: Place, tmp_path: Path) -> Callable[[str], Place]:
    """Copies of it, by a name each."""
    return lambda name: full.copy(tmp_path / name)
