"""Where the figures come from: the machine, the weights, the steps, and how to repeat them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ...plan import asked_backend
from ...reading import entry, mapping
from ..result import OURS, YARDSTICK, BenchReport
from .evidence import Evidence
from .tables import Rows
from .words import number_text, size_text

_FOLDER = re.compile(r"(?<!\S)/(?:[^\s/,]+/)+")

_NO_RIVALS = (OURS, YARDSTICK, "split", "roofline")


def environment_rows(environment: Mapping[str, Any]) -> Rows:
    """The machine, as it was described; what is not known is left out."""
    rows = [
        (name.replace("_", " "), plain_text(value))
        for name, value in environment.items()
        if value not in (None, [], {})
    ]
    return Rows(caption="The machine", heads=("what", "value"), rows=tuple(rows))


def plain_text(value: object) -> str:
    """A value of a report as one line."""
    if isinstance(value, Mapping):
        pairs = (f"{k} {plain_text(v)}".replace("_", " ") for k, v in value.items())
        return ", ".join(pairs) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ("; " if any(isinstance(v, Mapping) for v in value) else ", ").join(
            map(plain_text, value)
        ) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not value.is_integer():
        return number_text(value)
    if isinstance(value, float):
        return f"{value:g}"
    return "not known" if value is None else without_folders(str(value))


def without_folders(text: str) -> str:
    """Without the folders of a machine: a report is sent to others."""
    return _FOLDER.sub("", text)


def origin_rows(report: BenchReport, evidence: Evidence) -> Rows:
    """What was measured, down to the weights."""
    subject, source = report["subject"], mapping(evidence, "manifest", "source")
    rounds = ", ".join(f"{count} {mode}" for mode, count in report["rounds"].items())
    rows = [
        ("deployment", subject["name"]),
        ("digest", subject["digest"]),
        ("plan", subject["plan"]),
        ("backend", f"{subject['backend']}, placement {subject['placement']}"),
        ("precision", subject["precision"]),
        ("input", f"batch {subject['batch']}, {size_text(subject['input_size'])}"),
        ("written", report["written"]),
        ("rounds", rounds),
        ("checkpoint", without_folders(str(source.get("path", "not known")))),
        ("its sha256", str(source.get("sha256", "not known"))),
        ("its weights", str(source.get("weights", "not known"))),
        ("activation", str(entry(source, "activation", "activation") or "not known")),
    ]
    return Rows(caption="What was measured", heads=("what", "value"), rows=tuple(rows))


def step_rows(evidence: Evidence) -> Rows:
    """Every step of the deployment: when, with what options, by which versions."""
    rows = [
        (
            name,
            str(entry(about, "finished") or ""),
            plain_text({k: v for k, v in mapping(about, "options").items() if v not in (None, [])}),
            plain_text(mapping(about, "versions")),
            str(entry(about, "key") or "")[:12],
        )
        for name, about in mapping(evidence, "manifest", "steps").items()
    ]
    return Rows(
        caption="The steps that made it",
        heads=("step", "finished", "options", "versions", "key"),
        rows=tuple(rows),
    )


def same_options(report: BenchReport) -> str:
    """The options of bench that ask the same question again, with a space in front."""
    names = [n for n in (*report["arms"], *report["left_out"]) if n not in _NO_RIVALS]
    mode = "both" if len(report["rounds"]) > 1 else next(iter(report["rounds"]), "both")
    batch = report["subject"]["batch"]
    return "".join(
        (
            f" --vs {shlex.quote(','.join(names) or 'none')}",
            f" --mode {mode}" if mode != "both" else "",
            f" --batch {batch}" if batch > 1 else "",
        )
    )


def commands(report: BenchReport, evidence: Evidence) -> list[str]:
    """Commands that make such a report again, from the checkpoint on."""
    subject = report["subject"]
    path = entry(evidence, "manifest", "source", "path")
    name = shlex.quote(subject["name"])
    source = shlex.quote(without_folders(str(path or "model.pt")))
    precision = "" if subject["precision"] == "fp32" else f" --precision {subject['precision']}"
    backend = asked_backend(subject["plan"], subject["backend"])
    bench = f"parnet-deploy bench {name} --plan {shlex.quote(subject['plan'])}"
    bench += same_options(report)
    return [
        f"parnet-deploy fuse {source} --name {name}",
        f"parnet-deploy build {name} --backend {shlex.quote(backend)}{precision}",
        bench,
    ]
