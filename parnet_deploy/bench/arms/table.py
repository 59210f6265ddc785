"""The arms by name: where their code is, what installs them, and what they are for people."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...contest.arm import ArmSpec, Network
from ...errors import SpecError
from ...plan import PRECISIONS
from ...storage.names import MANIFEST
from ..result import OURS, YARDSTICK


@dataclass(frozen=True, kw_only=True)
class ArmEntry:
    """A way to answer images that can be asked for by name; see ``ArmSpec``.

    ``options`` go to the function beside those that all arms are given.
    """

    entry: str
    extra: str | None
    text: str
    network: Network = "same"
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str | None] = field(default_factory=dict)


# People run PyTorch with threads that spin while they wait, its default; without them it would be
# slower than it need be. No pool of compilers is left running beside timed calls.
_TORCH: Mapping[str, str | None] = {"OMP_WAIT_POLICY": None, "TORCHINDUCTOR_COMPILE_THREADS": "1"}

_HERE = "parnet_deploy.bench.arms"


def _resnet(name: str) -> ArmEntry:
    return ArmEntry(
        entry=f"{_HERE}.resnet_arm:open_resnet",
        extra="export",
        text=f"ResNet-{name.removeprefix('resnet')} with random weights, on ONNX Runtime",
        network="other",
        options={"network": name},
    )


def _plan_of(backend: str) -> ArmEntry:
    return ArmEntry(
        entry=f"{_HERE}.plans:open_newest",
        extra=backend,
        text=f"the deployment's newest plan for {backend}",
        options={"backend": backend},
    )


ARMS: dict[str, ArmEntry] = {
    OURS: ArmEntry(entry=f"{_HERE}.ours:open_ours", extra=None, text="the deployment"),
    "torch": ArmEntry(
        entry=f"{_HERE}.trained:open_torch",
        extra="export",
        text="the trained network in eager PyTorch",
        environment=_TORCH,
    ),
    "torch-compile": ArmEntry(
        entry=f"{_HERE}.trained:open_torch",
        extra="export",
        text="the trained network under torch.compile",
        options={"compiled": True},
        environment=_TORCH,
    ),
    "onnxruntime": ArmEntry(
        entry=f"{_HERE}.unfused:open_onnxruntime",
        extra="export",
        text="what torch.onnx.export makes of the trained network, on ONNX Runtime",
    ),
    "openvino": ArmEntry(
        entry=f"{_HERE}.openvino:open_openvino",
        extra="openvino",
        text="the fused network on OpenVINO",
    ),
    **{name: _plan_of(name) for name in ("mnn", "ncnn")},
    **{name: _resnet(name) for name in ("resnet18", "resnet34", "resnet50", "resnet101")},
    YARDSTICK: ArmEntry(
        entry=f"{_HERE}.yardstick:open_yardstick",
        extra="export",
        text="a fixed computation, which makes reports of different days comparable",
        network="other",
    ),
}
ALIASES = {"onnxruntime-unfused": "onnxruntime"}
_PLAN = ArmEntry(
    entry=f"{_HERE}.plans:open_plan", extra=None, text="another plan of the deployment"
)
_PLAN_KEY = re.compile(rf"[a-z-]+-({'|'.join(PRECISIONS)}|auto)-[a-z]+(-.+)?")
_OTHER = ArmEntry(
    entry=f"{_HERE}.ours:open_other", extra=None, text="another deployment", network="other"
)


def find_arm(name: str) -> str:
    """The name in the table; a plan's key, and the path of another deployment, as they are given.

    Whether the deployment has such a plan is seen when the arm is opened.

    Raises:
        SpecError: There is no such arm.
    """
    found = ALIASES.get(name, name)
    if found not in ARMS:
        if is_deployment(name) or _PLAN_KEY.fullmatch(name):
            return name
        near = difflib.get_close_matches(name, [*ARMS, *ALIASES], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise SpecError(
            f"arm: got {name!r}, expected one of {', '.join(ARMS)}, the key of a plan, or "
            f"the directory of a deployment.{hint}"
        )
    return found


def is_deployment(name: str) -> bool:
    """Whether this is the path of a deployment's directory."""
    return bool(name) and (Path(name) / MANIFEST).is_file()


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
        name: In the table, a plan's key, or the directory of another deployment.
        directory: The deployment.
        plan: Of ours, and what the others should be like.
        batch: Images in a call.
        size: (height, width) of an image.
        classes: Logits of an image.
        threads: Cores that the arm may use.

    Raises:
        SpecError: There is no such arm.
    """
    found = find_arm(name)
    entry = ARMS.get(found) or (_OTHER if is_deployment(found) else _PLAN)
    options = {
        **entry.options,
        "directory": str(directory.absolute()),
        "plan": plan,
        "batch": batch,
        "size": list(size),
        "classes": classes,
        "threads": threads,
    }
    if entry is _OTHER:
        options["deployment"] = str(Path(found).absolute())
    if entry is _PLAN:
        options["key"] = found
    return ArmSpec(
        name=found,
        entry=entry.entry,
        options=options,
        extra=entry.extra,
        network=entry.network,
        environment=entry.environment,
    )
