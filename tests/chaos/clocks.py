"""A clock that tests set, for processes that are started with it; the C is in ``clock.c``."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.stubs.compiled import compile_library

YEAR_S = 365 * 24 * 3600
SLOTS = 8
JUMPS = (0, 30, -30, 1, -1, 200, -56, 0)
"""Years: what a clock that jumps at every reading shows, from 1970 on."""


class Clock:
    """The time that processes see which have ``environment``, now and while they run."""

    def __init__(self, folder: Path) -> None:
        library = compile_library(Path(__file__).with_name("clock.c"), folder / "clock.so")
        self._file = folder / "shifts"
        self._file.write_bytes(bytes(8 * SLOTS))
        self.environment = {"LD_PRELOAD": str(library), "PARNET_CLOCK": str(self._file)}

    def set_back(self, years: int) -> None:
        """So many years behind, or ahead if negative; steady."""
        self._write([-years] * SLOTS)

    def jump(self) -> None:
        """By years at every reading."""
        self._write(list(JUMPS))

    def _write(self, years: list[int]) -> None:
        with self._file.open("r+b") as file:  # in place: it is mapped
            file.write(struct.pack(f"{SLOTS}q", *(YEAR_S * n for n in years)))
