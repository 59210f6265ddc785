"""What next? Rules, the most urgent first."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ...plan import AUTO, asked_backend
from ...reading import entry, listing
from ..result import BenchReport
from .answer import NextStep
from .evidence import Evidence, is_verified, own_precision, precisions
from .fast import comparisons, main_mode, standing, tells_apart
from .provenance import same_options
from .why import split_shares
from .words import arm_title

MOST = 2
_WAITING = 0.15
_NOTES = frozenset({"governor"})  # noise that another run does not mend
_LIBRARIES = ("openvino", "mnn", "ncnn")  # arms that are backends too
_USUAL = ("torch", "onnxruntime", "resnet34")


def next_steps(report: BenchReport, evidence: Evidence) -> tuple[NextStep, ...]:
    """The first rules that apply, ``MOST`` of them; never none."""
    found: dict[str, NextStep] = {}
    for step in _rules(report, evidence):
        found.setdefault(step.command, step)
        if len(found) == MOST:
            break
    return tuple(found.values())


def _rules(report: BenchReport, evidence: Evidence) -> Iterator[NextStep]:
    subject = report["subject"]
    name = shlex.quote(subject["name"])
    named = name if not subject["name"].startswith("-") else f"-d {name}"
    if not all(arm["check"]["passed"] for arm in report["arms"].values()):
        yield NextStep(
            command=f"parnet-deploy build {named} --rebuild", why="engines that answer right"
        )
    if subject["simulated"]:
        yield NextStep(
            command=f"parnet-deploy build {named}", why="engines for a device that is really there"
        )
        return
    if any(noise["name"] not in _NOTES for noise in report["noise"]):
        yield NextStep(
            command=f"parnet-deploy bench {named}{same_options(report)}",
            why="again, when nothing else runs here",
        )
    if not is_verified(evidence, subject["plan"]):
        yield NextStep(
            command=f"parnet-deploy verify {named} --images photos/",
            why="hold every engine against the trained network, on your images",
        )
    yield from _about_rivals(report, named)
    yield from _about_precision(report, evidence, name, named)
    split = report["split"]
    shares = {} if split is None else split_shares(split)
    if shares.get("wait", 0.0) > _WAITING and report["timeline"] is None:
        yield NextStep(
            command=f"parnet-deploy bench {named} --timeline", why="see what waits for what"
        )
    yield NextStep(command=f"parnet-deploy serve {named}", why="answer requests with it")


def _about_rivals(report: BenchReport, named: str) -> Iterator[NextStep]:
    mode = main_mode(report)
    rivals = comparisons(report, mode)
    ahead = [
        name
        for name, ratio in rivals.items()
        if tells_apart(report, mode)
        and standing(ratio) == "slower"
        and report["arms"][name]["network"] == "same"
    ]
    if ahead:
        auto = asked_backend(report["subject"]["plan"], report["subject"]["backend"]) == AUTO
        if ahead[0] in _LIBRARIES and not auto:
            command, what = f"parnet-deploy build {named} --backend auto", "the fastest library"
        else:
            backend = " --backend auto" if auto else ""
            command = f"parnet-deploy build {named}{backend} --rebuild"
            what = "measure the placements again"
        yield NextStep(command=command, why=f"{what}: {arm_title(ahead[0])} is faster")
    if not rivals:
        yield NextStep(
            command=f"parnet-deploy bench {named} --vs {','.join(_USUAL)}",
            why="time it beside others",
        )


def _about_precision(
    report: BenchReport, evidence: Evidence, name: str, named: str
) -> Iterator[NextStep]:
    if report["subject"]["precision"] == "bf16":  # nothing that calibrate makes
        return
    if report["subject"]["precision"] != "fp32":
        if own_precision(evidence, report["subject"]) is None:
            yield NextStep(
                command=f"parnet-deploy calibrate -d {name} photos/",
                why="find out what lower precision costs in accuracy",
            )
        return
    passed = [
        target
        for target, about in precisions(evidence, report["subject"]["backend"]).items()
        if all(entry(check, "passed") is True for check in listing(about, "checks"))
    ]
    if passed:
        yield NextStep(
            command=f"parnet-deploy build {named} --precision auto",
            why=f"{passed[0]} passed its gates: engines in the fastest precision",
        )
    else:
        yield NextStep(
            command=f"parnet-deploy calibrate -d {name} photos/",
            why="lower precision is faster; it is kept only if the answers stay right",
        )
