"""A world: a network, a placement, a simulated machine, a load and a fault, all from one number."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

from parnet_deploy import Runtime
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import Placement
from parnet_deploy.runtime.fake.backend import FakeBackend
from parnet_deploy.runtime.fake.options import FakeOptions, FaultPlan
from parnet_deploy.spec import ModelSpec
from tests.chaos.exact import segment_kernel
from tests.runtime.runtime_toys import PLACEMENTS, make_plan, random_placement

Kind = Literal["calm", "fails", "lost", "replans", "closes"]
KINDS: dict[Kind, int] = {"calm": 70, "fails": 9, "lost": 7, "replans": 7, "closes": 7}
"""What happens to a world, and how often in a hundred. Only the calm must answer every call."""

SPECS = (
    ModelSpec(planes=(1, 2, 4), num_blocks=(1, 1, 1), num_classes=3),
    ModelSpec(planes=(2, 4, 6), num_blocks=(2, 2, 1), num_classes=3),
    ModelSpec(planes=(2, 4, 2, 6), num_blocks=(2, 1, 3, 1), num_classes=4),
    ModelSpec(planes=(1, 2, 4, 3), num_blocks=(1, 2, 1, 1), num_classes=5),
    ModelSpec(planes=(2, 2, 4, 2, 6), num_blocks=(1, 2, 2, 1, 1), num_classes=5),
)
_SHARES = (4, 3, 3, 3, 1)  # networks with four streams take images of 64x64, which is slow
_MAX_OPERATIONS = 300


@dataclass(frozen=True, kw_only=True)
class World:
    """One runtime and how it is used. ``calls`` is for each of ``threads``."""

    seed: int
    kind: Kind
    spec: ModelSpec
    placement: Placement
    size: InputSize
    max_batch: int
    slots: int
    threads: int
    calls: int
    options: FakeOptions = field(repr=False)

    def open(self) -> Runtime:
        """The runtime on its machine."""
        return Runtime.from_plan(
            self.spec,
            make_plan(self.placement, self.size, self.max_batch, backend="fake"),
            {},
            backend=FakeBackend(self.options, segment_kernel(self.spec)),
            slots=self.slots,
            on_device_lost="replan" if self.kind == "replans" else "refuse",
        )


def make_world(seed: int) -> World:
    """The world of a number: always the same."""
    rng = random.Random(seed)
    (kind,) = rng.choices(list(KINDS), weights=list(KINDS.values()))
    (spec,) = rng.choices(SPECS, weights=_SHARES)
    placement = _placement(spec, rng)
    low = spec.size_multiple
    high = low * rng.choice((1, 1, 1, 1, 2)) if spec.streams < 4 else low
    return World(
        seed=seed,
        kind=kind,
        spec=spec,
        placement=placement,
        size=InputSize(low=(low, low), high=(high, high)),
        max_batch=rng.randint(1, 3),
        slots=rng.randint(1, 3),
        threads=rng.choice((1, 1, 1, 2, 4)),
        calls=rng.randint(20, 60),
        options=FakeOptions(
            seed=rng.getrandbits(32),
            jitter_us=rng.choice((0.0, 5.0, 50.0, 500.0)),
            launch_us=rng.choice((0.5, 5.0)),
            graphs=rng.random() < 0.5,
            faults=_faults(kind, placement, rng),
        ),
    )


def _placement(spec: ModelSpec, rng: random.Random) -> Placement:
    if rng.random() < 0.5:
        return rng.choice(list(PLACEMENTS.values()))(spec)
    again = rng.choice((0.0, 0.4))
    return random_placement(spec, rng, rng.randint(1, 4), rng.randint(1, 4), again)


def _faults(kind: Kind, placement: Placement, rng: random.Random) -> FaultPlan:
    names = [segment.name for segment in placement.segments]
    devices = list(placement.devices)
    slow = {rng.choice(names): rng.uniform(0, 1e4)} if rng.random() < 0.3 else {}
    if kind == "fails":
        some = rng.sample(names, rng.randint(1, min(3, len(names))))
        return FaultPlan(slow_us=slow, fail_once=frozenset(some))
    if kind not in ("lost", "replans"):
        return FaultPlan(slow_us=slow)
    what = rng.choice(("lose", "lose", "misplace", "cut")) if kind == "lost" else "lose"
    if what == "misplace":
        return FaultPlan(slow_us=slow, misplaced={rng.choice(names): 9})
    crossings = placement.crossings
    if what == "cut" and crossings:
        (_, source, target) = rng.choice(crossings)
        return FaultPlan(slow_us=slow, no_route=frozenset({(source, target)}))
    dying = rng.sample(devices, rng.randint(1, len(devices)))
    after = {device: rng.randint(0, _MAX_OPERATIONS) for device in dying}
    return FaultPlan(slow_us=slow, lose_device=after)
