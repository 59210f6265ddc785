"""What this machine can do at most, measured, and where a network stands under it.

The model is that of Williams, Waterman and Patterson, "Roofline" (CACM 52, 2009): arithmetic is
bound by the peak, or by bandwidth times operations for each byte moved.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ...runtime.onnxruntime.cpu import open_session
from ..result import Roofline, Split, Subject

SIDES = (512, 768, 1024)  # of the matrices that are multiplied; which is fastest is the cache's
LENGTH = 16 << 20  # of the vectors that are added: 64 MiB each, beyond any cache
BUDGET_S, LEAST = 0.5, 5
OPSET = 17


def measure_roofline(subject: Subject, split: Split, *, threads: int) -> Roofline:
    """Measure peak and bandwidth on as many cores as the plan uses, in about two seconds.

    The best of several runs counts: a limit is what was reached once. FLOPs are two for each
    multiply-accumulate of a direct convolution.

    Args:
        subject: What was measured.
        split: Its parts say how many bytes are moved.
        threads: Cores.
    """
    generator = np.random.default_rng(0)
    peak = 0.0
    for side in SIDES:
        square = generator.standard_normal((side, side), np.float32)
        peak = max(peak, 2 * side**3 / _best_s("MatMul", square, threads) / 1e9)
    peak = max(peak, *(part["gflops"] for part in split["parts"]))  # what was reached is possible
    vector = generator.standard_normal(LENGTH, np.float32)
    bandwidth = 3 * vector.nbytes / _best_s("Add", vector, threads) / 1e9
    flops = 2 * subject["macs"] * subject["batch"]
    gflops = flops / split["plain_ms"] / 1e6
    intensity = flops / max(1, sum(part["bytes"] for part in split["parts"]))
    return Roofline(
        peak_gflops=peak,
        bandwidth_gbs=bandwidth,
        how=f"Best of repeated float32 products of matrices of {SIDES} rows and sums of vectors of "
        f"{vector.nbytes >> 20} MiB, or a part of the network; ONNX Runtime, {threads} threads",
        intensity=intensity,
        gflops=gflops,
        share_of_peak=gflops / min(peak, intensity * bandwidth),
        bound="arithmetic" if intensity * bandwidth >= peak else "memory",
    )


def add_shares(split: Split, roofline: Roofline, *, batch: int) -> None:
    """Say of each part which share it reaches of what is possible at its own intensity."""
    for part in split["parts"]:
        intensity = 2 * part["macs"] * batch / max(1, part["bytes"])
        possible = min(roofline["peak_gflops"], intensity * roofline["bandwidth_gbs"])
        part["share_of_peak"] = part["gflops"] / possible if possible else None


def _best_s(kind: str, operand: Any, threads: int) -> float:
    """Seconds of the fastest run of one operation on two equal operands, in place."""
    info = helper.make_tensor_value_info
    left, right, result = (info(name, TensorProto.FLOAT, operand.shape) for name in "abc")
    node = helper.make_node(kind, ["a", "b"], ["c"])
    graph = helper.make_graph([node], kind, [left, right], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    session = open_session(model.SerializeToString(), threads=threads)
    binding = session.io_binding()
    second, output = operand.copy(), np.empty_like(operand)  # held here for as long as it runs
    for name, array in (("a", operand), ("b", second)):
        binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    binding.bind_output("c", "cpu", 0, np.float32, output.shape, output.ctypes.data)
    best, done, end = float("inf"), 0, time.perf_counter() + BUDGET_S
    while done < LEAST or time.perf_counter() < end:
        started = time.perf_counter_ns()
        session.run_with_iobinding(binding)
        best = min(best, (time.perf_counter_ns() - started) / 1e9)
        done += 1
    return best
