"""One inference request and its answer, whatever wire they came over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Parameter = bool | int | float | str
"""Value of a protocol parameter."""

Elements = NDArray[Any] | list[bytes]
"""A tensor's data: an array of its shape, or the elements of a BYTES tensor in row-major order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferInput:
    """A tensor of the request, already held against its own shape and datatype.

    ``data`` may be a read-only, unaligned view of the request's body: copy before you keep it.
    """

    name: str
    datatype: str  # the protocol's: FP32, BYTES, ...
    shape: tuple[int, ...]
    data: Elements


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedOutput:
    """An output that the client asks for.

    ``classification``: so many best classes as strings "value:index:label" instead of the values;
    0: the values. ``binary``: raw after the JSON, not in it (REST only; gRPC is always raw).
    """

    name: str
    classification: int = 0
    binary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """What a client asks for.

    ``outputs`` is empty if it names none: it gets all, raw if ``binary_default``. ``priority``: 0
    is what the server takes for normal, 1 the most urgent, larger is later. ``timeout_us``: how
    long it may take from arrival to answer; 0: the server's own limit. ``parameters`` are the rest.
    """

    model: str
    version: str = ""  # empty: whichever is there
    id: str = ""
    inputs: tuple[InferInput, ...] = ()
    outputs: tuple[WantedOutput, ...] = ()
    binary_default: bool = False
    priority: int = 0
    timeout_us: int = 0
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of one request went, in seconds. ``batch``: images that shared its engine run.

    ``prepare``: images decoded and scaled. ``queue``: waiting for the engine. ``infer``: the engine
    run, copies included.
    """

    prepare_s: float = 0.0
    queue_s: float = 0.0
    infer_s: float = 0.0
    batch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTensor:
    """A tensor of the answer. ``binary`` as in ``WantedOutput``."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: NDArray[np.float32] | list[bytes]
    binary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InferResponse:
    """The answer to one request; ``id`` is the request's own."""

    model: str
    version: str
    id: str = ""
    outputs: tuple[OutputTensor, ...] = ()
    timings: Timings = field(default_factory=Timings)
