"""The shape of ``reports/bench.json``: what ``bench`` writes, and reports and comparisons read.

Plain JSON types. Times are milliseconds unless the name says otherwise. A key that a run could not
fill is None, and ``left_out`` or ``noise`` says why.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from ..contest.arm import OURS as OURS
from ..contest.entrant import Check as Check
from ..contest.order import Mode as Mode

SCHEMA = 2
BENCH_REPORT = "reports/bench.json"
BENCH_PAGE = "reports/bench.html"
YARDSTICK = "yardstick"

QUANTILE_NAMES = ("p50", "p90", "p99", "p99.9")


class Interval(TypedDict):
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class ModeResult(TypedDict):
    """One arm in one mode. A quantile is None where there are too few samples to tell.

    ``samples_ms`` are in the order in which they were taken; sample i of every arm belongs to the
    same round, so ratios are paired (a round may have several samples of each arm: their number
    divided by ``rounds``). ``ratio_to_ours`` above 1: the arm takes longer than the deployment.
    ``late`` is how often a paced call was due while the one before still ran; it was left out then.
    """

    samples_ms: list[float]
    quantiles_ms: dict[str, Interval | None]
    ratio_to_ours: Interval
    late: int


class ArmResult(TypedDict):
    """One arm: what it is, what it costs to have, how fast it is.

    ``memory_mib`` is how much the resident memory of its process grew from before the imports until
    after the warm-up: libraries count, a GPU's memory does not.
    """

    note: str
    network: Literal["same", "other"]
    precision: str
    facts: dict[str, Any]
    import_ms: float | None
    load_ms: float | None
    first_ms: float
    memory_mib: float | None
    model_mib: float | None
    parameters: int | None
    macs: int | None
    check: Check
    modes: dict[str, ModeResult]


class Subject(TypedDict):
    """What was measured."""

    name: str
    digest: str
    plan: str
    placement: str
    backend: str
    simulated: bool
    precision: str
    batch: int
    input_size: list[int]
    classes: int
    parameters: int | None
    macs: int


class Noise(TypedDict):
    """Why figures should be taken with care."""

    name: str
    detail: str


class SplitRow(TypedDict):
    """One stage of a call on the way from image file to answer.

    "engine" is the time of engines of several stages that nothing looks into; it is there only if
    there are such.
    """

    stage: Literal[
        "preprocess",
        "copy in",
        "stems",
        "streams",
        "wait",
        "fusion",
        "head",
        "copy out",
        "engine",
        "other",
    ]
    ms: float
    how: str


class PartTime(TypedDict):
    """One part: its time in a call, and where it stands under the machine's roofline.

    ``share_of_peak`` is None where no peak is known that it could be compared with.
    """

    part: str
    ms: float
    macs: int
    bytes: int
    gflops: float
    share_of_peak: float | None
    critical: bool


class Split(TypedDict):
    """Where the time of a call goes. ``source`` says how it was measured.

    ``whole_ms`` is one call that was looked into, which takes longer; but for "preprocess" the rows
    add up to it. ``plain_ms`` is a call that was not, timed in turns with those that were.
    """

    source: str
    whole_ms: float
    plain_ms: float
    rows: list[SplitRow]
    parts: list[PartTime]


class Roofline(TypedDict):
    """What the machine can do at most, measured in the same run, and the network under it.

    ``share_of_peak`` is of what is possible at this intensity: of the arithmetic peak, or of the
    bandwidth times the intensity if that is less.
    """

    peak_gflops: float
    bandwidth_gbs: float
    how: str
    intensity: float
    gflops: float
    share_of_peak: float
    bound: Literal["arithmetic", "memory"]


class CurvePoint(TypedDict):
    """One point of a scaling curve; ``ms`` is for the whole batch."""

    value: str
    ms: Interval
    note: str


class Curve(TypedDict):
    """Latency over batch, threads, size or variant."""

    over: Literal["batch", "threads", "size", "variant"]
    points: list[CurvePoint]
    left_out: dict[str, str]


class BenchReport(TypedDict):
    """The whole report. ``arms`` begins with ours; ``YARDSTICK`` may be among them."""

    schema: int
    written: str
    environment: dict[str, Any]
    subject: Subject
    rounds: dict[str, int]
    rate_hz: float | None
    arms: dict[str, ArmResult]
    left_out: dict[str, str]
    noise: list[Noise]
    split: Split | None
    roofline: Roofline | None
    curves: list[Curve]
    timeline: dict[str, Any] | None
    verdict: list[str]
