"""Which graphs a build takes for a precision, and what its engines are held against.

An INT8 or float16 engine is proved against its own graph: the graph was held against the float32
network, on many images, when it was quantized. The canary at open is a real image with the answer
of that graph, so kernels that saturate on another machine are noticed there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..compare import ENGINE_TOLERANCE
from ..deployment import Deployment
from ..errors import DeploymentError, SpecError
from ..plan import PRECISIONS
from ..reference import REFERENCE

AUTO = "auto"
ASKED = (*PRECISIONS, AUTO)
TOLERANCES = {"fp32": ENGINE_TOLERANCE, "fp16": 2e-2, "bf16": 2e-2, "int8": 3e-2}
"""Of an engine against its own graph, relative to the largest value.

In lower precision a value that lies on the border of two codes may fall to either side, and does
so differently in other kernels. Measured for INT8 on ONNX Runtime: up to 8e-3 of the largest logit.
bfloat16 is no property of a graph but of kernels: those engines are held against float32.
"""
_INT8 = {
    "onnxruntime": "int8-cpu",
    "openvino": "int8-cpu",
    "mixed": "int8-cpu",
    "fake": "int8-cpu",
    "tensorrt": "int8-trt",
}
"""The form of INT8 that a backend wants; the others have no integer kernels for convolutions."""
_INT8_ASKED = ("onnxruntime", "openvino", "tensorrt")
_NO_FP16 = ("mnn", "ncnn")
"""Backends whose converters take float32 graphs alone."""
_BF16 = ("openvino",)
"""Backends that can be told to compute a float32 graph in bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Graphs of one precision in a deployment.

    ``folder`` has a graph for each part, ``reference`` is what engines must answer, ``step`` made
    both.
    """

    precision: str
    folder: str
    reference: str
    step: str

    @property
    def tolerance(self) -> float:
        """Largest error of an engine against these graphs."""
        return TOLERANCES[self.precision]

    def files(self, deployment: Deployment) -> list[str]:
        """Names of the graphs, one a part, and of the reference."""
        graphs = [f"{self.folder}/{part.name}.onnx" for part in deployment.spec.parts]
        return [*graphs, self.reference]


FLOAT32 = Source(precision="fp32", folder="onnx", reference=REFERENCE, step="export")


def find_sources(deployment: Deployment, backend: str, precision: str) -> tuple[Source, ...]:
    """What to build: one precision, or for "auto" float32 and every one that passed its gates.

    Raises:
        SpecError: There is no such precision, or the backend has no kernels for it.
        DeploymentError: The deployment has no such graphs: it must be calibrated first.
    """
    check_precision(precision)
    if precision == AUTO:
        lower = [_source(backend, name) for name in ("fp16", "int8")]
        there = [s for s in lower if s is not None and s.step in deployment.steps]
        if not there:
            raise _not_calibrated(deployment, "graphs in lower precision", "IMAGES")
        return (FLOAT32, *there)
    source = _source(backend, precision)
    if source is None:
        able, instead = {
            "bf16": (_BF16, "fp32"),
            "int8": (_INT8_ASKED, "fp32"),
            "fp16": (_INT8_ASKED, "fp32"),
        }[precision]
        raise SpecError(
            f"precision: got {precision} with backend {backend}, which has no kernels for it, "
            f"expected backend {' or '.join(able)}. Choose one, or use --precision {instead}."
        )
    if source.step != FLOAT32.step and source.step not in deployment.steps:
        target = source.folder.removeprefix("onnx-")
        raise _not_calibrated(deployment, source.folder, f"IMAGES --precision {target}")
    return (source,)


def source_of(backend: str, precision: str) -> Source:
    """The graphs that a plan was built from.

    Raises:
        SpecError: The backend has no such precision.
    """
    source = _source(backend, precision)
    if source is None:
        raise SpecError(f"precision: got {precision} with backend {backend}, expected fp32.")
    return source


def check_precision(precision: str) -> None:
    """Refuse what is no precision.

    Raises:
        SpecError: There is none of this name.
    """
    if precision not in ASKED:
        raise SpecError(f"precision: got {precision!r}, expected one of {', '.join(ASKED)}.")


def _source(backend: str, precision: str) -> Source | None:
    if precision == "fp32":
        return FLOAT32
    if precision == "bf16":
        return replace(FLOAT32, precision=precision) if backend in _BF16 else None
    target = _INT8.get(backend) if precision == "int8" else precision
    if target is None or (precision == "fp16" and backend in _NO_FP16):
        return None
    folder = f"onnx-{target}"
    return Source(
        precision=precision,
        folder=folder,
        reference=f"{folder}/reference.npz",
        step=f"quantize:{target}",
    )


def _not_calibrated(deployment: Deployment, wanted: str, arguments: str) -> DeploymentError:
    return DeploymentError(
        f"deployment {deployment.path}: got no {wanted}, expected some that passed their gates. "
        f"Run: parnet-deploy calibrate {arguments}."
    )
