"""An arm: one way to answer images, described so that a fresh process can open it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Network = Literal["same", "other"]

OURS = "parnet-deploy"
"""The name of the arm that is the deployment itself."""


@dataclass(frozen=True, kw_only=True)
class ArmSpec:
    """What to open, and where the code for it is.

    Pickles: plain data only. ``entry`` is "module:function"; the function takes the options as
    keyword arguments and returns an ``OpenedArm``. ``extra`` installs what it needs. ``network``
    is "same" where the answer must equal the deployment's reference, "other" for a network of
    another kind (a ResNet), which is checked by what its ``self_check`` says. ``environment`` is
    what its process has otherwise than this one; None takes a variable away.
    """

    name: str
    entry: str
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: str | None = None
    network: Network = "same"
    environment: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """How an arm of another network was found to compute what it claims; ``error`` <= ``limit``."""

    what: str
    error: float
    limit: float


@dataclass(frozen=True, kw_only=True)
class OpenedArm:
    """An arm that is ready: ``run`` takes images (N, C, H, W) and returns logits (N, K).

    ``load_ms`` is how long opening took without imports, ``model_bytes`` what its model takes on
    disk, ``parameters`` and ``macs`` (of one image) are None where nobody counted. ``close`` frees
    what it owns.
    """

    run: Callable[[Array], Array]
    note: str
    precision: str = "fp32"
    load_ms: float | None = None
    model_bytes: int | None = None
    parameters: int | None = None
    macs: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    self_check: SelfCheck | None = None
    close: Callable[[], None] = lambda: None
