"""The yardstick: a fixed computation, so that runs of different days can be compared by ratio.

A machine is slower on some days than on others: other guests, heat, clocks. What slows the
deployment slows this too, so the ratio of both stays where the times do not. It depends on no
deployment: 3x3 and 1x1 convolutions in the shapes of ParNet-S, on ONNX Runtime as our CPU backend
opens it. Nothing of it may change without a new ``VERSION``, for then old reports mean nothing.

On a busy machine short calls slip through where long ones are interrupted, so a call of the
yardstick should take about as long as one of the deployment: it repeats itself.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...contest.arm import Array, OpenedArm, SelfCheck
from ...extras import import_for
from ...machine.cores import usable_cores
from ..result import YARDSTICK

VERSION = 1
NAME = f"{YARDSTICK} {VERSION}"
MACS = 1_098_155_008  # of one time
MAX_REPEATS = 16
LIMIT = 1e-4  # of the largest number; kernels of other instruction sets add in another order
ANSWER = (
    *(-3.57383954, 1.17467019, -6.82136745, 12.5552573),
    *(-14.8617545, 8.20712214, -4.71909375, -12.2261944),
)
"""Computed once with numpy in float64, as the test does again."""

_SIDE, _LEVELS, _OUTPUTS = 56, (92, 192, 384), 8
_OPSET, _IR_VERSION = 17, 8


def yardstick_repeats(macs: int) -> int:
    """How many times it should run in a call, beside a deployment of so many multiply-accumulates.

    Args:
        macs: Of a call, so of all images of a batch.
    """
    return max(1, min(MAX_REPEATS, round(macs / MACS)))


def open_yardstick(*, threads: int | None = None, repeats: int = 1, **others: Any) -> OpenedArm:
    """Make the graph and open it. The answer is the same for every image, and compared with ours.

    Args:
        threads: Of its pool; None: every usable core.
        repeats: How many times it runs in a call; see ``yardstick_repeats``.
        others: What other arms are opened with; nothing of it matters here.

    Raises:
        MissingExtraError: ONNX or ONNX Runtime is not installed.
        EngineLoadError: ONNX Runtime cannot open the graph.
    """
    cpu = import_for("parnet_deploy.runtime.onnxruntime.cpu", "cpu")
    model = yardstick_model()
    started = time.perf_counter_ns()
    session = cpu.open_session(model, threads=threads or usable_cores())
    load_ms = (time.perf_counter_ns() - started) / 1e6
    feed = {"x": yardstick_input()}

    def run(image: Array) -> Array:
        for _ in range(repeats):
            answer: Array = session.run(None, feed)[0]
        return answer.repeat(len(image), axis=0)

    error = yardstick_error(session.run(None, feed)[0])
    return OpenedArm(
        run=run,
        note=f"{NAME}: a fixed computation, {repeats}x, by which reports of different days compare",
        load_ms=load_ms,
        model_bytes=len(model),
        parameters=sum(weight.size for weight in yardstick_weights().values()),
        macs=repeats * MACS,
        facts={"version": VERSION, "threads": threads or usable_cores(), "repeats": repeats},
        self_check=SelfCheck(what=f"the stored answer of {NAME}", error=error, limit=LIMIT),
    )


def yardstick_error(answer: Array) -> float:
    """How far an answer (1, K) is from the stored one, in units of its largest number."""
    want = np.array(ANSWER)
    return float(np.abs(answer[0] - want).max() / np.abs(want).max())


def yardstick_input() -> Array:
    """What it is asked: (1, C, H, W)."""
    return _numbers("x", (1, _LEVELS[0], _SIDE, _SIDE), 1.0)


def yardstick_layers() -> list[tuple[str, int, int, int, int]]:
    """Its convolutions: name, channels in, channels out, kernel, stride.

    Each is followed by SiLU, but for the last, which stands behind a global average.
    """
    layers = []
    for level, channels in enumerate(_LEVELS):
        if level:
            layers.append((f"down{level}", _LEVELS[level - 1], channels, 3, 2))
        layers.append((f"wide{level}", channels, channels, 3, 1))
        layers.append((f"narrow{level}", channels, channels, 1, 1))
    return [*layers, ("head", _LEVELS[-1], _OUTPUTS, 1, 1)]


def yardstick_model() -> bytes:
    """The graph, weights included, as an ONNX file."""
    onnx = import_for("onnx", "export")
    make, nodes, flow = onnx.helper, [], "x"
    for name, _, _, kernel, stride in yardstick_layers():
        if name == "head":
            nodes.append(make.make_node("GlobalAveragePool", [flow], ["mean"]))
            flow = "mean"
        pads = [kernel // 2] * 4
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads}
        nodes.append(make.make_node("Conv", [flow, name], [f"{name}.sum"], **attributes))
        flow = f"{name}.sum"
        if name != "head":
            nodes.append(make.make_node("Sigmoid", [flow], [f"{name}.gate"]))
            nodes.append(make.make_node("Mul", [flow, f"{name}.gate"], [f"{name}.out"]))
            flow = f"{name}.out"
    nodes.append(make.make_node("Flatten", [flow], ["answer"]))
    number = onnx.TensorProto.FLOAT
    graph = make.make_graph(
        nodes,
        YARDSTICK,
        [make.make_tensor_value_info("x", number, list(yardstick_input().shape))],
        [make.make_tensor_value_info("answer", number, [1, _OUTPUTS])],
        [onnx.numpy_helper.from_array(value, name) for name, value in yardstick_weights().items()],
    )
    opset = [make.make_opsetid("", _OPSET)]
    model = make.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def yardstick_weights() -> dict[str, Array]:
    """Of each convolution (outputs, inputs, k, k), in a range that keeps what flows at size."""
    return {
        name: _numbers(name, (outputs, inputs, kernel, kernel), (12 / (inputs * kernel**2)) ** 0.5)
        for name, inputs, outputs, kernel, _ in yardstick_layers()
    }


def _numbers(name: str, shape: tuple[int, ...], size: float) -> Array:
    """Even numbers from -size to size, the same with every version of numpy: splitmix64.

    Source: S. Vigna's splitmix64 (public domain), the counter begun at the name.
    """
    begin = int.from_bytes(name.encode().ljust(8, b"\0"), "little")
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z: NDArray[np.uint64] = np.arange(1, count + 1, dtype=np.uint64)
        z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(begin)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    unit = (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1  # 24 bits: exact in float32
    numbers: Array = (size * unit).astype(np.float32).reshape(shape)
    return numbers
