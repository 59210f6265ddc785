"""What a user may choose for a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import SpecError
from .precisions import check_precision
from .tensorrt.job import TensorRtOptions

AUTO_BACKEND = "auto"
"""The fastest backend of the CPU that is installed, or a mix where that is faster."""
CPU_BACKENDS = ("onnxruntime", "openvino", "mnn", "ncnn")
"""Those that run on the CPU; the first always works."""
AUX_PLACEMENTS = ("auto", "one-aux")
AUX_BACKENDS = ("tensorrt", "fake")
TENSORRT_ONLY = ("optimization_level", "workspace_mib", "hardware_compatibility")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What the user may choose. ``threads`` None means every usable core.

    ``aux_streams`` is for one engine that has some (None: one less than the network's streams).
    ``optimization_level``, ``workspace_mib`` and ``hardware_compatibility`` are TensorRT's; None is
    the default of ``TensorRtOptions``. ``rebuild``: build and measure again though nothing changed.
    """

    backend: str | None = None
    placement: str = "auto"
    gpus: tuple[int, ...] = ()
    threads: int | None = None
    max_batch: int = 8
    aux_streams: int | None = None
    optimization_level: int | None = None
    workspace_mib: int | None = None
    hardware_compatibility: str | None = None
    rebuild: bool = False
    precision: str = "fp32"

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if self.max_batch < 1:
            raise SpecError(f"max batch: got {self.max_batch}, expected 1 or more.")
        if self.threads is not None and self.threads < 1:
            raise SpecError(f"threads: got {self.threads}, expected 1 or more.")
        if self.aux_streams is not None and self.placement not in AUX_PLACEMENTS:
            raise SpecError(
                f"aux streams: got {self.aux_streams} with placement {self.placement}, expected "
                f"placement {' or '.join(AUX_PLACEMENTS)}. Leave one of the two out."
            )
        self.tensorrt(self.aux_streams or 0)

    @property
    def devices(self) -> tuple[int, ...]:
        """Ordinals of the GPUs to use; the first GPU where none was named."""
        return self.gpus or (0,)

    @property
    def plan_key(self) -> str:
        """Name of the plan that these options give: a new build replaces it."""
        where = "-gpus" + "+".join(map(str, self.gpus)) if self.gpus else ""
        cores = f"-{self.threads}threads" if self.threads else ""
        return f"{self.backend}-{self.precision}-{self.placement}{where}{cores}"

    def tensorrt(self, aux_streams: int) -> TensorRtOptions:
        """The options of one TensorRT engine.

        Raises:
            SpecError: One of them cannot be.
        """
        asked = {name: getattr(self, name) for name in TENSORRT_ONLY}
        given = {name: value for name, value in asked.items() if value is not None}
        return TensorRtOptions(aux_streams=aux_streams, **given)

    def check_backend(self) -> None:
        """Refuse options that the chosen backend would not heed.

        Raises:
            SpecError: With what to leave out.
        """
        heed: dict[str, tuple[str, ...]] = dict.fromkeys(TENSORRT_ONLY, ("tensorrt",))
        heed["aux_streams"] = AUX_BACKENDS
        heed["threads"] = (AUTO_BACKEND, *CPU_BACKENDS, "fake")
        for name, backends in heed.items():
            value = getattr(self, name)
            if value is not None and self.backend not in backends:
                raise SpecError(
                    f"{name.replace('_', ' ')}: got {value} with backend {self.backend}, expected "
                    f"backend {' or '.join(backends)}. Leave out --{name.replace('_', '-')}."
                )

    def to_json(self) -> Mapping[str, Any]:
        """What shapes the plan, as plain JSON types."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "rebuild"}
        return found | {"gpus": list(self.gpus)}
