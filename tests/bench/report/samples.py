"""Reports made by hand, with figures as they could be. None of them was measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from parnet_deploy.bench.result import (
    OURS,
    SCHEMA,
    ArmResult,
    BenchReport,
    Check,
    Curve,
    CurvePoint,
    Interval,
    ModeResult,
    PartTime,
    Roofline,
    Split,
    SplitRow,
    Subject,
)
from parnet_deploy.bench.statistics import quantiles, ratio
from parnet_deploy.bench.timeline import Call, Span, Timeline
from parnet_deploy.bench.timeline_svg import draw_timeline
from parnet_deploy.runtime.program import Lane
from parnet_deploy.spec import RELEASED, ModelSpec

PLAN = "onnxruntime-fp32-auto"
SPEC = RELEASED["parnet-s"]
MODES = ("saturated", "paced")


def check(*, error: float = 3e-7, limit: float = 1e-4, what: str = "logits") -> Check:
    return Check(what=what, error=error, limit=limit, passed=error <= limit)


def samples(median_ms: float, count: int, seed: int) -> list[float]:
    """A plausible tail: most calls near the median, some a good deal longer."""
    generator = np.random.default_rng(seed)
    body = generator.lognormal(np.log(median_ms), 0.025, count)
    slow = generator.random(count) < 0.03
    found: list[float] = np.where(slow, body * generator.uniform(1.2, 2.2, count), body).tolist()
    return found


def mode_result(found: list[float], ours: list[float]) -> ModeResult:
    return ModeResult(
        samples_ms=found,
        quantiles_ms=quantiles(found, block=8),
        ratio_to_ours=ratio(found, ours, block=8),
        late=0,
    )


def arm(
    ours: dict[str, list[float]], median_ms: float | None = None, seed: int = 0, **changes: Any
) -> ArmResult:
    """An arm whose calls take so long; ours itself if no median is given."""
    modes = {}
    for number, (mode, own) in enumerate(ours.items()):
        taken = own if median_ms is None else samples(median_ms, len(own), 10 * seed + number)
        modes[mode] = mode_result(taken, own)
    found = ArmResult(
        note="as people run it",
        network="same",
        precision="fp32",
        facts={},
        import_ms=120.5,
        load_ms=210.0,
        first_ms=61.2,
        memory_mib=141.0,
        model_mib=73.6,
        parameters=18_400_000,
        macs=sum(SPEC.macs(224, 224).values()),
        check=check(),
        modes=modes,
    )
    return ArmResult(**{**found, **changes})  # type: ignore[typeddict-item]


def split(spec: ModelSpec = SPEC) -> Split:
    times = [4.1, 3.0, 2.6, 8.8, 11.8, 12.4, 1.6, 2.2, 4.4]
    macs = spec.macs(224, 224)
    critical = {"stem0", "stem1", "stem2", "stream2", "head"}
    parts = [
        PartTime(
            part=name,
            ms=ms,
            macs=count,
            bytes=2_000_000 + count // 90,
            gflops=2 * count / ms / 1e6,
            share_of_peak=min(2 * count / ms / 1e6 / 230, 1.0),
            critical=name in critical,
        )
        for (name, count), ms in zip(macs.items(), times, strict=True)
    ]
    rows: list[SplitRow] = [
        {"stage": "preprocess", "ms": 6.1, "how": "a JPEG of 640x480, decoded and resized"},
        {"stage": "copy in", "ms": 0.2, "how": "timed alone"},
        {"stage": "stems", "ms": 9.7, "how": "profile"},
        {"stage": "streams", "ms": 33.0, "how": "profile"},
        {"stage": "wait", "ms": 0.4, "how": "profile: between the nodes"},
        {"stage": "fusion", "ms": 3.8, "how": "profile"},
        {"stage": "head", "ms": 4.4, "how": "profile"},
        {"stage": "copy out", "ms": 0.1, "how": "timed alone"},
        {"stage": "other", "ms": 1.9, "how": "the remainder"},
    ]
    source = "ONNX Runtime's profile of the engine, 20 calls; profiling made them 2 % longer"
    return Split(source=source, whole_ms=59.6, plain_ms=53.7, rows=rows, parts=parts)


def roofline(**changes: Any) -> Roofline:
    found = Roofline(
        peak_gflops=230.0,
        bandwidth_gbs=18.0,
        how="The best of 5 matrix products and copies, by the same runtime on 2 threads.",
        intensity=58.0,
        gflops=186.0,
        share_of_peak=0.81,
        bound="arithmetic",
    )
    return Roofline(**{**found, **changes})  # type: ignore[typeddict-item]


def curves() -> list[Curve]:
    def point(value: str, ms: float) -> CurvePoint:
        found = Interval(value=ms, low=ms * 0.97, high=ms * 1.04)
        return CurvePoint(value=value, ms=found, note="")

    batch = [point("1", 53.7), point("2", 101.0), point("4", 199.0), point("8", 396.0)]
    threads = [point("1", 99.0), point("2", 53.7)]
    return [
        Curve(over="batch", points=batch, left_out={"16": "the plan takes 8 at most"}),
        Curve(over="threads", points=threads, left_out={}),
    ]


def environment() -> dict[str, Any]:
    return {
        "cpu": "A processor",
        "isa": ["avx", "avx2", "avx512f", "avx512_vnni"],
        "cores_usable": 2,
        "load_average": [0.6, 0.5, 0.4],
        "governor": None,
        "gpus": [],
        "packages": {"numpy": "2.4.6", "onnxruntime": "1.32.0"},
    }


def make_report(
    *,
    rivals: dict[str, float] | None = None,
    count: int = 240,
    modes: tuple[str, ...] = MODES,
    **changes: Any,
) -> BenchReport:
    """A report on ParNet-S at 224.

    Args:
        rivals: Medians of other arms in milliseconds.
        count: Samples of each arm in each mode.
        modes: That were run.
        changes: Entries to replace; those of ``subject`` are merged.
    """
    taken = {mode: samples(53.7 + 0.4 * i, count, i) for i, mode in enumerate(modes)}
    wanted = {"torch": 145.0, "onnxruntime": 59.6, "resnet34": 68.0} if rivals is None else rivals
    arms = {OURS: arm(taken, note=f"plan {PLAN}, placement one")}
    for number, (name, median_ms) in enumerate(wanted.items(), 1):
        network = "other" if name.startswith("resnet") else "same"
        arms[name] = arm(taken, median_ms, number, network=network)
    subject = Subject(
        name="parnet-s",
        digest="e2930b9dd3648604c3aae1c3f4418b2d5f248c855cb2d4049c074612ad26b0f4",
        plan=PLAN,
        placement="one",
        backend="onnxruntime",
        simulated=False,
        precision="fp32",
        batch=1,
        input_size=[224, 224],
        classes=1000,
        parameters=18_400_000,
        macs=sum(SPEC.macs(224, 224).values()),
    )
    report = BenchReport(
        schema=SCHEMA,
        written="2026-11-25T09:00:00+00:00",
        environment=environment(),
        subject=subject,
        rounds=dict.fromkeys(modes, count),
        rate_hz=30.0 if "paced" in modes else None,
        arms=arms,
        left_out={"openvino": "it needs the package openvino"},
        noise=[],
        split=split(),
        roofline=roofline(),
        curves=curves(),
        timeline=None,
        verdict=[],
    )
    merged = {**report, **changes, "subject": {**subject, **changes.get("subject", {})}}
    return BenchReport(**merged)  # type: ignore[typeddict-item]


def parity(what: str, error: float, tolerance: float = 1e-4, **more: Any) -> dict[str, Any]:
    return {
        "what": what,
        "error": error,
        "tolerance": tolerance,
        "passed": error <= tolerance,
        "top1_equal": None,
        **more,
    }


def precision_report(precision: str = "int8", *, passed: bool = True) -> dict[str, Any]:
    gate = {"passed": passed, "text": "clean agreement: got 99.33 %, expected at least 97.00 %"}
    score = {"images": 450, "sqnr_db": 29.2, "agreement": 448 / 450}
    clean = {**score, "accuracy": 447 / 450, "reference_accuracy": 448 / 450}
    layers = [{"layer": f"layer{i}", "precision": precision if i else "fp32"} for i in range(33)]
    return {
        "precision": precision,
        "checks": [gate],
        "measured": {"kernel": {"clean": clean, "noisy": score}, "emulated": None},
        "layers": layers,
        "low_share": 0.97,
        "bytes_before": 77_000_000,
        "bytes_after": 19_600_000,
        "latency": {"ratio": {"median": 0.42, "low": 0.41, "high": 0.43}},
    }


def make_evidence(**changes: Any) -> dict[str, Any]:
    """What the other steps left; ``changes`` replace entries, and None removes them."""
    images = parity("450 images against the training form", 2.1e-7, top1_equal=1.0)
    proof = {
        "float64": parity("fused logits, float64", 9.7e-16, 1e-10),
        "float32": parity("fused logits, float32", 3.6e-7, 1e-5),
    }
    step = {"finished": "2026-11-25T08:00:00+00:00", "key": "a" * 64, "options": {"size": "224"}}
    found: dict[str, Any] = {
        "fuse": {"proof": proof},
        "export": {"checks": [parity("the whole on ONNX Runtime", 2.9e-7)]},
        "build": {
            "made": {"checks": [parity("engine all, logits", 1.5e-7)]},
            "measured": {
                "candidates": [
                    {
                        "candidate": "one, all cores",
                        "precision": "fp32",
                        "median_ms": 53.9,
                        "ratio": {"median": 1.0, "low": 1.0, "high": 1.0},
                        "chosen": True,
                    }
                ]
            },
        },
        "verify": {"plans": {PLAN: [parity("engine all, logits", 1.5e-7), images]}},
        "manifest": {
            "spec": SPEC.to_json(),
            "source": {"path": "/home/me/parnet-s.pth.tar", "sha256": "6" * 64, "weights": "ema"},
            "steps": {"fuse": {**step, "versions": {"torch": "2.13.0"}}, "export": step},
        },
    }
    return {name: value for name, value in {**found, **changes}.items() if value is not None}


def make_timeline(*, simulated: bool = False) -> Timeline:
    """Three streams on three lanes: they wait for the stems and end in the head."""
    lanes = [Lane(0, i) for i in range(3)]
    plan = [("image in", 0, 0, 20), ("stem0", 0, 20, 140), ("stem1", 1, 150, 240)]
    plan += [("stream0", 0, 145, 500), ("stream1", 1, 245, 690), ("stem2", 2, 250, 330)]
    plan += [("stream2", 2, 335, 820), ("head", 2, 825, 930), ("logits out", 2, 932, 940)]
    spans = tuple(
        Span(
            step=i,
            kind="host" if " " in name else "engine",
            name=name,
            lane=lanes[lane],
            start_us=float(start),
            end_us=float(end),
        )
        for i, (name, lane, start, end) in enumerate(plan)
    )
    sources = {0: (), 1: (0,), 2: (1,), 3: (1,), 4: (2,), 5: (2,), 6: (5,), 7: (3, 4, 6), 8: (7,)}
    call = Call(spans=spans, sources=sources, lanes=tuple(lanes))
    return Timeline(calls=(call,), copy_lanes=(), simulated=simulated)


def make_full() -> tuple[BenchReport, dict[str, Any]]:
    """Everything that a report may have."""
    timeline = make_timeline()
    evidence = make_evidence(timeline_svg=draw_timeline(timeline, "parnet-s", "Traced."))
    evidence["precision-int8-cpu"] = precision_report()
    noise = [{"name": "load", "detail": "load average 2.9 on 2 cores"}]
    return make_report(timeline=timeline.to_json(), noise=noise), evidence
