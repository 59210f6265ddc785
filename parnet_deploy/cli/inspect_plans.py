"""The tables of ``inspect`` about plans: their engines, the precision of their layers, files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from ..storage.names import step_rank
from . import render

if TYPE_CHECKING:
    from ..deployment import Deployment
    from ..inspect.engines import Engine, PlanEngines
    from ..inspect.precision import PlanPrecision
    from ..spec import ModelSpec

_UNKNOWN = "unknown"
_GPU = ("tensorrt", "onnxruntime-cuda")


def draw_plans(opened: Deployment, plans: Mapping[str, PlanEngines]) -> list[RenderableType]:
    """One line a plan; which runs where none is named is marked, and which cannot is told."""
    if not opened.plans:
        return ["", Text("no plans: nothing was built yet", style="warn")]
    from ..runtime.choose import order_plans

    lacking = {key: needs for key, plan in plans.items() if (needs := _lacking(plan))}
    columns = ("plan~", "placement", ">cores", ">devices", ">p50", "built", "")
    found = render.table(*columns)
    default = next((key for key in order_plans(opened) if key not in lacking), None)
    for key in order_plans(opened, simulated=True):
        plan = opened.plans[key]
        on_gpu = plan.get("backend") in _GPU
        median, threads, built = plan.get("median_ms"), plan.get("threads"), plan.get("built")
        simulated = "simulated" if plan.get("backend") == "fake" else ""
        found.add_row(
            key,
            Text(render.printable(_placement(key, plan))),
            "" if on_gpu else "all" if threads is None else str(threads),
            ",".join(map(str, plan.get("devices", [_UNKNOWN]))),
            simulated if median is None else render.ms_text(median),
            Text(_UNKNOWN if built is None else render.moment(built)),
            Text(render.OK if key == default else "", style="ok"),
        )
    note = f"{render.OK} runs where no plan is named: the newest of the best backend here"
    out = [f"{key} is passed over: {text}" for key, text in lacking.items()]
    return [render.spaced(found), "", *render.lines("!", "warn", out), Text(note, style="key")]


def _placement(key: str, plan: Mapping[str, Any]) -> str:
    """The placement, the backend if the key does not tell it, and a lower precision."""
    words = [str(plan.get("placement", _UNKNOWN))]
    backend, precision = plan.get("backend"), plan.get("precision", "fp32")
    if backend is not None and not key.startswith(f"{backend}-"):
        words.append(str(backend))
    if precision != "fp32":
        words.append(str(precision))
    return ", ".join(words)


def _lacking(plan: PlanEngines) -> str:
    """Which packages of the CPU's backends a plan would need and has not here; empty if none."""
    from ..runtime.backend import BACKENDS, is_installed, on_host

    backends = sorted({engine.backend for engine in plan.engines})
    names = [name for name in backends if on_host(name) and not is_installed(name)]
    extras = ",".join(BACKENDS[name].extra for name in names)
    install = f"not installed; pip install 'parnet-deploy[{extras}]'"
    return f"{', '.join(names)} {install}" if names else ""


def draw_engines(spec: ModelSpec, plans: Mapping[str, PlanEngines]) -> list[RenderableType]:
    """The engines of every plan by device; what TensorRT made of them where it told."""
    every = tuple(part.name for part in spec.parts)
    drawn: list[RenderableType] = []
    for key, plan in plans.items():
        title = Text("engines of ", style="key").append(render.printable(key), style="bold")
        title.append(render.printable(_converters(plan)), style="key")
        drawn += ["", render.unfolded(title)]
        if plan.error is None:
            drawn.append(_engines(plan, every))
        else:
            drawn += render.lines(render.FAILED, "bad", [plan.error])
    return drawn


def _converters(plan: PlanEngines) -> str:
    """With what versions engines were converted, where they were."""
    told = [engine.converter for engine in plan.engines if engine.converter is not None]
    names = dict.fromkeys(
        f"{name.replace('_', ' ')} {str(value).partition('-')[0]}"
        for facts in told
        for name, value in facts.items()
    )
    return f", converted with {', '.join(names)}" if names else ""


def _engines(plan: PlanEngines, every: tuple[str, ...]) -> RenderableType:
    more = ("layers by precision~",) if any(engine.layers for engine in plan.engines) else ()
    mixed = len({engine.backend for engine in plan.engines}) > 1
    home = ("backend",) if mixed else ()
    found = render.table("device", "engine", *home, "parts~", *more, ">size", "sha256")
    for i, engine in enumerate(plan.engines):
        new = i == 0 or engine.device != plan.engines[i - 1].device
        found.add_row(
            _device(plan, engine) if new else "",
            Text(render.printable(engine.segment)),
            *((Text(render.printable(engine.backend)),) if mixed else ()),
            "all" if engine.parts == every else Text(render.printable(", ".join(engine.parts))),
            *((_layers(engine),) if more else ()),
            _UNKNOWN if engine.bytes is None else render.bytes_text(engine.bytes),
            _UNKNOWN if engine.sha256 is None else engine.sha256[:8],
        )
    return found


def _device(plan: PlanEngines, engine: Engine) -> str:
    if plan.backend in _GPU:
        return f"gpu {engine.device}"
    if plan.backend == "fake":
        return f"simulated {engine.device}"
    cores = "all" if plan.threads is None else str(plan.threads)
    return f"cpu, {cores} core{'' if cores == '1' else 's'}"


def _layers(engine: Engine) -> str:
    counts = (f"{count} {name}" for name, count in (engine.layers or {}).items())
    return render.printable(", ".join(counts))


def draw_precision(
    plans: Mapping[str, PlanPrecision | None], *, every: bool
) -> list[RenderableType]:
    """Of plans in lower precision how many layers are in it; every layer if asked for."""
    lower = {key: found for key, found in plans.items() if found is not None}
    if not lower:
        note = Text("every layer of every plan is in float32", style="key")
        return ["", note] if every and plans else []
    table = render.table("plan~", "graphs", "layers~", ">work", "in float32~")
    for key, found in lower.items():
        counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
        share = "" if found.low_share is None else render.percent_text(found.low_share)
        kept = ", ".join(found.kept) or "none"
        table.add_row(
            key,
            found.target or _UNKNOWN,
            Text(render.printable(counts or _no_counts(found))),
            share,
            Text(render.printable(kept if found.layers else _UNKNOWN)),
        )
    drawn: list[RenderableType] = [render.spaced(table)]
    if every:
        targets = {found.target or key: found for key, found in lower.items() if found.layers}
        drawn += [render.spaced(_every_layer(name, found)) for name, found in targets.items()]
    return drawn


def _no_counts(found: PlanPrecision) -> str:
    if found.target == "fp32":
        return f"products in {found.precision}, where the backend has them"
    return f"{_UNKNOWN}: no report"


def _every_layer(target: str, found: PlanPrecision) -> RenderableType:
    table = render.table(f"layer of {target}~", "part", "precision", ">MACs", "why~")
    for layer in found.layers:
        macs = _UNKNOWN if layer.macs is None else f"{layer.macs:,}"
        cells = (layer.layer, layer.part, layer.precision, macs, layer.reason or "")
        table.add_row(*(Text(render.printable(cell)) for cell in cells))
    return table


def draw_files(opened: Deployment, *, files: bool) -> RenderableType:
    """Files by step, or one by one."""
    if files:
        found = render.table("file~", ">size", "sha256")
        for name, about in sorted(opened.artifacts.items()):
            found.add_row(name, render.bytes_text(about["bytes"]), about["sha256"][:12])
        return render.spaced(found)
    found = render.table("step~", ">files", ">size", "finished", "key")
    for name in sorted(opened.steps, key=lambda name: (step_rank(name) or 0, name)):
        step = opened.steps[name]
        sizes = [opened.artifacts[f]["bytes"] for f in step["files"] if f in opened.artifacts]
        whole = len(step["files"])  # of which some may have been removed since
        count = str(whole) if len(sizes) == whole else f"{len(sizes)} of {whole}"
        size = render.bytes_text(sum(sizes))
        finished = render.moment(step["finished"])
        found.add_row(name, count, size, Text(finished), Text(render.printable(step["key"])[:8]))
    return render.spaced(found)
