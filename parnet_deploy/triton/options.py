"""What a user may choose for an export to Triton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..errors import SpecError

Kind = Literal["python", "onnxruntime", "tensorrt"]

KINDS: tuple[Kind, ...] = ("python", "onnxruntime", "tensorrt")
MAX_REPLICAS = 1024


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How the model is served.

    ``kind``: what runs it in Triton. "python" opens a copy of the deployment with our runtime: any
    placement and backend, and images as JPEG or PNG. The others hand one engine to Triton's own
    backend, which needs nothing of ours.
    ``plan``: the plan's key; None takes the best of those that can be had, and for "python" leaves
    it to the machine that serves.
    ``replicas``: model instances, on a GPU for each GPU.
    ``batching``: Triton's dynamic batcher, and with it the limits of its queue. None: from two
    replicas on, or if there is a delay. With one instance the batcher misses a wake-up now and then
    and the request waits half a second (``benchmarks/triton_batcher.py``), so by default one
    instance serves request by request.
    ``queue_delay_us``: how long a request may wait for others to be batched with it.
    ``queue_size`` and ``timeout_us``: a request beyond the one, or older than the other, is
    refused. 0 is no limit.
    ``cuda_graphs``: for "tensorrt", launch batches of 1 and of the maximum as CUDA graphs.
    """

    kind: Kind = "python"
    plan: str | None = None
    replicas: int = 1
    batching: bool | None = None
    queue_delay_us: int = 0
    queue_size: int = 64
    timeout_us: int = 10_000_000
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise _refused("kind", self.kind, f"one of {', '.join(KINDS)}")
        if not 1 <= self.replicas <= MAX_REPLICAS:
            raise _refused("replicas", self.replicas, f"1 to {MAX_REPLICAS}")
        for name in ("queue_delay_us", "queue_size", "timeout_us"):
            if not 0 <= getattr(self, name) < 2**31:
                raise _refused(name, getattr(self, name), f"0 to {2**31 - 1}")
        if self.queue_delay_us and not self.batched:
            raise _refused("queue_delay_us", self.queue_delay_us, "0 where nothing is batched")

    @property
    def batched(self) -> bool:
        """Whether Triton's batcher is used."""
        wanted = self.replicas > 1 or self.queue_delay_us > 0
        return wanted if self.batching is None else self.batching

    def to_json(self) -> Mapping[str, Any]:
        """What shapes the export, as plain JSON types."""
        return asdict(self)


def _refused(name: str, got: object, expected: str) -> SpecError:
    return SpecError(f"triton {name}: got {got!r}, expected {expected}. Correct the value.")
