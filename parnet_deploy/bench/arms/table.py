"""The arms by name: where their code is, what installs them, and what they are for people."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from ...errors import SpecError
from ..result import OURS, YARDSTICK
from .arm import ArmSpec, Network


@dataclass(frozen=True, kw_only=True)
class ArmEntry:
    """A way to answer images that can be asked for by name; see ``ArmSpec``."""

    entry: str
    extra: str | None
    text: str
    network: Network = "same"


ARMS: dict[str, ArmEntry] = {
    OURS: ArmEntry(
        entry="parnet_deploy.bench.arms.ours:open_ours", extra=None, text="the deployment"
    ),
    "torch": ArmEntry(
        entry="parnet_deploy.bench.arms.trained:open_torch",
        extra="export",
        text="the trained network in eager PyTorch",
    ),
    "onnxruntime": ArmEntry(
        entry="parnet_deploy.bench.arms.trained:open_onnxruntime",
        extra="export",
        text="what torch.onnx.export makes of the trained network, on ONNX Runtime",
    ),
    YARDSTICK: ArmEntry(
        entry="parnet_deploy.bench.arms.yardstick:open_yardstick",
        extra="export",
        text="a fixed computation, which makes reports of different days comparable",
        network="other",
    ),
}
ALIASES = {"onnxruntime-unfused": "onnxruntime"}


def find_arm(name: str) -> str:
    """The name in the table.

    Raises:
        SpecError: There is no such arm.
    """
    found = ALIASES.get(name, name)
    if found not in ARMS:
        near = difflib.get_close_matches(name, [*ARMS, *ALIASES], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise SpecError(f"arm: got {name!r}, expected one of {', '.join(ARMS)}.{hint}")
    return found


def arm_spec(
    name: str,
    directory: Path,
    *,
    plan: str,
    batch: int,
    size: tuple[int, int],
    classes: int,
    threads: int,
) -> ArmSpec:
    """The arm as a fresh process opens it.

    Args:
        name: In the table.
        directory: The deployment.
        plan: Of ours, and what the others should be like.
        batch: Images in a call.
        size: (height, width) of an image.
        classes: Logits of an image.
        threads: Cores that the arm may use.

    Raises:
        SpecError: There is no such arm.
    """
    entry = ARMS[find_arm(name)]
    options = {
        "directory": str(directory.absolute()),
        "plan": plan,
        "batch": batch,
        "size": list(size),
        "classes": classes,
        "threads": threads,
    }
    return ArmSpec(
        name=find_arm(name),
        entry=entry.entry,
        options=options,
        extra=entry.extra,
        network=entry.network,
    )
