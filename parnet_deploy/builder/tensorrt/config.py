"""What differs between TensorRT 8.6, 10 and 11 when an engine is built, found by its features.

Precision lives in the graph: 11 always, and 10 if asked, take the types from there; 8.6 is weakly
typed and is asked by flags. What running needs is in ``runtime.tensorrt.compat``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import EngineBuildError
from ...runtime.tensorrt.compat import start
from ...runtime.tensorrt.log import failure, log_position

EXTERNAL_LIBRARIES = {
    "CUBLAS": ("libcublas.so.12", "libcublas.so.11"),
    "CUBLAS_LT": ("libcublasLt.so.12", "libcublasLt.so.11"),
    "CUDNN": ("libcudnn.so.8",),
}
"""What the tactic sources of 8.6 load when they are used."""

OWN_SOURCES = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
HARDWARE = ("none", "ampere_plus", "same_compute_capability")

Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""Least, usual and greatest shape of each input."""


def make_builder(trt: Any) -> Any:
    """A Builder with the process's logger.

    Raises:
        EngineBuildError: This is the lean or dispatch runtime, or the builder does not start.
    """
    if not hasattr(trt, "Builder"):
        raise EngineBuildError(
            f"package {trt.__name__} {trt.__version__}: got a runtime that cannot build, expected "
            "the full TensorRT. Run: pip install 'parnet-deploy[gpu]'."
        )
    return start(trt, "Builder", EngineBuildError)


def weakly_typed(trt: Any) -> bool:
    """Whether precision must be asked for by flags (8.6); later it comes from the graph alone."""
    return "STRONGLY_TYPED" not in trt.NetworkDefinitionCreationFlag.__members__


def network_flags(trt: Any) -> tuple[str, ...]:
    """Names of flags: EXPLICIT_BATCH on 8.6, STRONGLY_TYPED on 10, none on 11 (always so)."""
    if weakly_typed(trt):
        return ("EXPLICIT_BATCH",)
    return ("STRONGLY_TYPED",) if "FP16" in trt.BuilderFlag.__members__ else ()


def make_network(trt: Any, builder: Any) -> Any:
    """An empty network of the kind that takes its precision from the graph where that exists."""
    members = trt.NetworkDefinitionCreationFlag.__members__
    return builder.create_network(sum(1 << int(members[name]) for name in network_flags(trt)))


def precision_flags(trt: Any, *, half: bool, quantized: bool) -> tuple[str, ...]:
    """Builder flags that a graph with FLOAT16 tensors or Q/DQ nodes needs; none from 10 on."""
    if not weakly_typed(trt):
        return ()
    flags = ("FP16", "OBEY_PRECISION_CONSTRAINTS") if half else ()
    return (*flags, "INT8") if quantized else flags


def set_flag(
    trt: Any, config: Any, name: str, enable: bool = True, *, required: bool = False
) -> bool:
    """Set or clear a builder flag by name; False if this version has no such flag.

    Raises:
        EngineBuildError: It has not, and ``required``.
    """
    flag = trt.BuilderFlag.__members__.get(name)
    if flag is None:
        if required:
            raise EngineBuildError(
                f"TensorRT {trt.__version__}: got no builder flag {name}, expected it. "
                "Leave the option out, or install a version that has it."
            )
        return False
    (config.set_flag if enable else config.clear_flag)(flag)
    return True


def set_previews(trt: Any, config: Any, wanted: Mapping[str, bool]) -> dict[str, bool]:
    """Switch preview features; returns those that this version has."""
    members = trt.PreviewFeature.__members__
    known = {name: enable for name, enable in wanted.items() if name in members}
    for name, enable in known.items():
        config.set_preview_feature(members[name], enable)
    return known


def missing_libraries(trt: Any) -> tuple[str, ...]:
    """Tactic sources that 8.6 would use by default and whose library is not installed."""
    if not weakly_typed(trt):
        return ()
    sources = trt.TacticSource.__members__
    return tuple(
        name
        for name, files in EXTERNAL_LIBRARIES.items()
        if name in sources and not any(map(_loads, files))
    )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def restrict_sources(trt: Any, config: Any) -> tuple[str, ...]:
    """Use only TensorRT's own tactics; returns their names.

    Raises:
        EngineBuildError: This version refuses the selection.
    """
    members = trt.TacticSource.__members__
    names = tuple(name for name in OWN_SOURCES if name in members)
    if not config.set_tactic_sources(sum(1 << int(members[name]) for name in names)):
        what = f"tactic sources {', '.join(names)}: got a refusal, expected them to be set"
        raise failure(EngineBuildError, what, "Report this with the version of TensorRT.")
    set_previews(trt, config, {"DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805": True})
    return names


def set_hardware(trt: Any, config: Any, name: str) -> None:
    """Let the plan run on other GPUs too, at some cost in speed.

    Raises:
        EngineBuildError: This version has no such level.
    """
    members = trt.HardwareCompatibilityLevel.__members__
    if name.upper() not in members:
        raise EngineBuildError(
            f"hardware compatibility with TensorRT {trt.__version__}: got {name!r}, expected one "
            f"of {', '.join(sorted(member.lower() for member in members))}."
        )
    config.hardware_compatibility_level = members[name.upper()]


def add_profile(builder: Any, config: Any, shapes: Shapes) -> int:
    """Add an optimisation profile; returns its index.

    Raises:
        EngineBuildError: TensorRT refuses the shapes.
    """
    since = log_position()
    profile = builder.create_optimization_profile()
    for name, (least, usual, greatest) in shapes.items():
        profile.set_shape(name, least, usual, greatest)
    index = int(config.add_optimization_profile(profile))
    if index < 0:
        what = f"optimisation profile {dict(shapes)}: got a refusal, expected valid shapes"
        cure = "Report this with the version of TensorRT."
        raise failure(EngineBuildError, what, cure, since=since)
    return index


def parser_errors(parser: Any) -> list[dict[str, Any]]:
    """All errors of an OnnxParser: ``node`` (name or index), ``operator``, ``code``, ``text``."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name = _call(error, "node_name")
        found.append(
            {
                "node": name or f"number {int(error.node())}",
                "operator": _call(error, "node_operator") or "",
                "code": str(error.code()).rpartition(".")[2],  # its name is a method on 8.6
                "text": error.desc(),
            }
        )
    return found


def _call(target: Any, method: str) -> Any:
    found = getattr(target, method, None)
    return None if found is None else found()


def watch_build(trt: Any, config: Any, on_step: Callable[[str, int, int], bool]) -> Any:
    """Let a build report each step: phase, steps done, steps in all; False from it cancels.

    Returns: the monitor, which the caller keeps alive until the config is gone; None on 8.6.
    """
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # the bindings demand this spelling
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            return on_step(phase_name, step + 1, self.steps.get(phase_name, step + 1))

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    config.progress_monitor = monitor = Monitor()
    return monitor
