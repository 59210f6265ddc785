"""The ways to run one network that ``gpu.py`` compares, by name; the rivals in PyTorch stand here.

An arm has three faces: ``enqueue`` lets the device work from its static input to its static output
and returns, ``read`` gives that output, ``answer`` goes from an array on the host to one on the
host and waits. All three use the clock's stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from gpu_clock import Clock
from gpu_networks import FusedParNet
from numpy.typing import NDArray

from parnet_deploy.export.fuse import FusedNetwork
from parnet_deploy.export.model import ParNet

Array = NDArray[np.float32]

FP32, FP16 = "fp32", "fp16"
TOLERANCE = {FP32: 1e-4, FP16: 3e-2}
"""Of the largest logit, against float32 on the CPU. Half precision rounds each layer to 11 bits."""

_DTYPES = {FP32: torch.float32, FP16: torch.float16}
_WARM_UP = 3


class Unavailable(Exception):  # noqa: N818 (no error: the table keeps the row)
    """This arm cannot run here; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """What all arms of one model share. ``folder`` is for engines."""

    name: str
    model: ParNet
    fused: FusedNetwork
    side: int
    image: Array  # (1, 3, side, side)
    clock: Clock
    folder: Path
    devices: int


@dataclass(frozen=True, kw_only=True)
class GpuArm:
    """See the module. ``close`` frees what it holds on the device.

    Owns: ``keeps``, the memory whose addresses the calls know.
    """

    enqueue: Callable[[], object]
    read: Callable[[], Array]
    answer: Callable[[Array], Array]
    note: str
    close: Callable[[], None] = field(default=lambda: None)
    keeps: tuple[object, ...] = ()


Maker = Callable[[Network], GpuArm]


def torch_arms() -> dict[tuple[str, str], Maker]:
    """Arms by (name, precision), those that are quick to make first."""
    arms: dict[tuple[str, str], Maker] = {}
    for precision in (FP32, FP16):
        arms["training form, eager", precision] = _eager("training", precision)
        arms["fused, eager", precision] = _eager("fused", precision)
        arms["fused, eager, channels last", precision] = _eager("fused", precision, last=True)
        arms["fused, CUDA graph", precision] = _graph(precision)
        arms["fused, CUDA graph, channels last", precision] = _graph(precision, last=True)
    for precision in (FP32, FP16):
        arms["fused, compile reduce-overhead", precision] = _compiled(precision)
        arms["fused, compile max-autotune, CUDA graph", precision] = _autotuned(precision)
    return arms


class _TorchArm:
    """A module with its static input (float32, as every arm's) and the output of the last run."""

    def __init__(self, network: Network, module: torch.nn.Module, precision: str) -> None:
        self.clock, self.module, self.dtype = network.clock, module, _DTYPES[precision]
        host = torch.from_numpy(network.image)
        pinned = self.clock.name == "cuda"
        self.staging = host.clone().pin_memory() if pinned else host.clone()
        self.input = host.to(self.clock.device, copy=True)
        self.output = torch.empty(0)
        self.step: Callable[[], None] = lambda: None

    def compute(self) -> torch.Tensor:
        """Input to logits, both float32."""
        return self.module(self.input.to(self.dtype)).float()

    def run(self) -> None:
        with torch.inference_mode():
            self.step()
            self.output = self.compute()

    def read(self) -> Array:
        self.clock.synchronize()
        return self.output.cpu().numpy()

    def answer(self, image: Array) -> Array:
        self.staging.numpy()[...] = image
        self.input.copy_(self.staging, non_blocking=True)
        self.run()
        return self.output.cpu().numpy()

    def as_arm(self, note: str) -> GpuArm:
        return GpuArm(enqueue=self.run, read=self.read, answer=self.answer, note=note)


class _GraphArm(_TorchArm):
    """The same work, captured once and replayed."""

    def __init__(self, network: Network, module: torch.nn.Module, precision: str) -> None:
        super().__init__(network, module, precision)
        with torch.inference_mode():
            for _ in range(_WARM_UP):
                self.compute()
            self.clock.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.clock.stream):
                self.output = self.compute()
        self.clock.synchronize()

    def run(self) -> None:
        self.graph.replay()


def _module(network: Network, form: str, precision: str, *, last: bool = False) -> torch.nn.Module:
    module: torch.nn.Module
    if form == "training":
        module = ParNet(network.model.spec)
        module.load_state_dict(network.model.state_dict())
    else:
        module = FusedParNet(network.fused, network.side)
    module = module.to(network.clock.device, _DTYPES[precision])
    return module.to(memory_format=torch.channels_last) if last else module


def _eager(form: str, precision: str, *, last: bool = False) -> Maker:
    def make(network: Network) -> GpuArm:
        module = _module(network, form, precision, last=last)
        return _TorchArm(network, module, precision).as_arm("PyTorch, operator by operator")

    return make


def _graph(precision: str, *, last: bool = False) -> Maker:
    def make(network: Network) -> GpuArm:
        _needs_cuda(network)
        module = _module(network, "fused", precision, last=last)
        return _GraphArm(network, module, precision).as_arm("eager work captured in one CUDA graph")

    return make


def _compiled(precision: str) -> Maker:
    def make(network: Network) -> GpuArm:
        module = _module(network, "fused", precision, last=network.clock.name == "cuda")
        mode = "reduce-overhead"
        arm = _TorchArm(network, torch.compile(module, mode=mode, fullgraph=True), precision)
        arm.step = torch.compiler.cudagraph_mark_step_begin
        with _quiet():
            for _ in range(_WARM_UP):
                arm.run()
        return arm.as_arm(f"torch.compile(mode={mode!r}), which makes CUDA graphs of its own")

    return make


def _autotuned(precision: str) -> Maker:
    def make(network: Network) -> GpuArm:
        _needs_cuda(network)
        module = _module(network, "fused", precision, last=True)
        mode = "max-autotune-no-cudagraphs"
        with _quiet():
            arm = _GraphArm(network, torch.compile(module, mode=mode, fullgraph=True), precision)
        return arm.as_arm(f"torch.compile(mode={mode!r}), captured in one CUDA graph")

    return make


def _needs_cuda(network: Network) -> None:
    if network.clock.name != "cuda":
        raise Unavailable("CUDA graphs need a GPU")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The compiler warns of its own internals."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
