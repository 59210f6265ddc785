"""The verb ``inspect``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.text import Text

from ..storage.names import step_rank
from . import render
from .fuse import activation_text, images_text, network_text
from .options import Common, deployment_argument, verb

if TYPE_CHECKING:
    from ..deployment import Deployment, Integrity
    from ..spec import ModelSpec

_EPILOG = """\b
Examples:
  parnet-deploy inspect
  parnet-deploy inspect engines/digits --files

\b
JSON: deployment, name, written, digest, source, spec, input_size, preprocessing, labels, parts
(reads, writes, shape, blocks, macs), artifacts (bytes, sha256, step), plans, steps, integrity
(ok, missing, changed, foreign), missing_steps.

\b
Exit code 3 if a file is missing or was changed.
"""


@click.command(epilog=_EPILOG)
@deployment_argument
@click.option("--files", is_flag=True, help="List every file, not one line per step.")
@verb
def command(common: Common, deployment: str | None, files: bool) -> None:
    """Show what is in a deployment, and check every file against its hash."""
    from ..deployment import Deployment

    directory = common.find(deployment)
    opened = Deployment.open(directory)
    integrity = opened.verify()
    parts = _parts(opened)
    document = {
        "deployment": str(directory),
        "name": opened.name,
        "written": opened.written,
        "digest": opened.digest,
        "source": dict(opened.source),
        "spec": opened.spec.to_json(),
        "input_size": None if opened.input_size is None else opened.input_size.to_json(),
        "preprocessing": opened.preprocessing and dict(opened.preprocessing),
        "labels": opened.labels and list(opened.labels),
        "parts": parts,
        "artifacts": {name: dict(about) for name, about in opened.artifacts.items()},
        "plans": {name: dict(about) for name, about in opened.plans.items()},
        "steps": {name: dict(about) for name, about in opened.steps.items()},
        "integrity": {"ok": bool(integrity), **vars(integrity)},
        "missing_steps": _missing(opened),
    }
    common.output.result(document, *_draw(common, opened, integrity, parts, files=files))
    if not integrity:
        raise click.exceptions.Exit(3)


def _parts(opened: Deployment) -> dict[str, dict[str, Any]]:
    """What each part reads, writes and costs, for the largest accepted image."""
    spec = opened.spec
    if opened.input_size is not None:
        height, width = opened.input_size.high
    else:
        about = opened.preprocessing or {}
        side = spec.size_multiple
        height, width = int(about.get("height", side)), int(about.get("width", side))
    macs, tensors = spec.macs(height, width), spec.tensors
    return {
        part.name: {
            "reads": list(part.inputs),
            "writes": part.output,
            "shape": list(tensors[part.output].shape(height, width)),
            "blocks": len(part.blocks),
            "macs": macs[part.name],
        }
        for part in spec.parts
    }


def _missing(opened: Deployment) -> list[str]:
    kinds = {name.partition(":")[0] for name in opened.steps}
    return [kind for kind in ("fuse", "export", "build", "verify", "bench") if kind not in kinds]


def _draw(
    common: Common,
    opened: Deployment,
    integrity: Integrity,
    parts: Mapping[str, Mapping[str, Any]],
    *,
    files: bool,
) -> list[RenderableType]:
    source = opened.source
    total = sum(about["bytes"] for about in opened.artifacts.values())
    checkpoint = f"{source['path']} ({source['layout']}, {source['sha256'][:12]})"
    labels = "none: classes are numbered" if opened.labels is None else _some(opened.labels)
    exported = "not exported yet" if opened.input_size is None else str(opened.input_size)
    rows: list[tuple[str, str | Text]] = [
        ("network", network_text(opened.spec, source["parameters"])),
        ("checkpoint", checkpoint),
        ("weights", source["weights"]),
        ("activation", activation_text(source["activation"])),
        ("accepts", f"{exported}, {opened.spec.in_channels} channels"),
        ("images", images_text(opened.preprocessing or {})),
        ("labels", labels),
        ("integrity", _integrity(integrity, len(opened.artifacts), total)),
    ]
    missing = _missing(opened)
    if missing:
        rows.append(("not done", ", ".join(missing)))
    name = common.argument(opened.path)
    todo = missing[0] if missing else "bench"
    return [
        render.heading(
            opened.name,
            f"{render.printable(opened.path)}, written {opened.written[:19].replace('T', ' ')} UTC",
        ),
        render.facts(rows),
        "",
        _graph(opened.spec),
        _parts_table(parts),
        *_plans(opened),
        _artifacts(opened, files=files),
        "",
        render.next_step((f"parnet-deploy {todo} {name}", "")),
    ]


def _integrity(integrity: Integrity, count: int, total: int) -> Text:
    if integrity:
        text = f"{count} files, {render.bytes_text(total)}, all unchanged"
        found = Text.assemble((f"{render.OK} ", "ok"), text)
    else:
        bad = [f"missing {_some(integrity.missing)}"] if integrity.missing else []
        bad += [f"changed {_some(integrity.changed)}"] if integrity.changed else []
        found = Text.assemble((f"{render.FAILED} {'; '.join(bad)}", "bad"))
    if integrity.foreign:
        found.append(f"; not ours: {render.printable(_some(integrity.foreign))}", style="warn")
    return found


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def _graph(spec: ModelSpec) -> Text:
    """The parts as a picture; each stream on its own line, one stem's width further right."""
    last, step = spec.streams - 1, len("stem0 ─┬─ ")
    rows = []
    for i in range(spec.streams):
        start = "image ─ " if i == 0 else " " * (len("image ─ ") + step * i - 3) + "└─ "
        joint = "─┬─" if i < last else "───"
        end = f"fusion{i} " + "─" * (step - 5) + "┐" if i < last else "head ─ logits"
        rows.append(f"{start}stem{i} {joint} stream{i} ─ {end}")
    return Text("\n".join(rows), style="key", no_wrap=True, overflow="ignore")


def _parts_table(parts: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    found = render.table("part", "reads", "writes", ">shape", ">blocks", ">MACs", ">share")
    total = sum(part["macs"] for part in parts.values())
    for name, part in parts.items():
        shape = "x".join(map(str, part["shape"]))
        share = f"{100 * part['macs'] / total:.0f} %"
        reads, blocks = ", ".join(part["reads"]), str(part["blocks"])
        found.add_row(name, reads, part["writes"], shape, blocks, f"{part['macs']:,}", share)
    found.add_section()
    count = str(sum(part["blocks"] for part in parts.values()))
    found.add_row("whole", "image", "logits", "", count, f"{total:,}", "")
    return render.spaced(found)


def _plans(opened: Deployment) -> list[RenderableType]:
    if not opened.plans:
        return ["", Text("no plans: nothing was built yet", style="warn")]
    from ..runtime.choose import order_plans

    found = render.table("plan~", "placement", ">cores", ">devices", ">p50", "built")
    for key in order_plans(opened, simulated=True):  # the first is what runs by default
        plan = opened.plans[key]
        median = plan["median_ms"]
        simulated = "simulated" if plan["backend"] == "fake" else ""
        found.add_row(
            key,
            plan["placement"],
            "all" if plan["threads"] is None else str(plan["threads"]),
            ",".join(map(str, plan["devices"])),
            simulated if median is None else render.ms_text(median),
            _moment(plan["built"]),
        )
    return [render.spaced(found)]


def _artifacts(opened: Deployment, *, files: bool) -> RenderableType:
    if files:
        found = render.table("file~", ">size", "sha256")
        for name, about in sorted(opened.artifacts.items()):
            found.add_row(name, render.bytes_text(about["bytes"]), about["sha256"][:12])
        return render.spaced(found)
    found = render.table("step~", ">files", ">size", "finished", "key")
    for name in sorted(opened.steps, key=lambda name: (step_rank(name) or 0, name)):
        step = opened.steps[name]
        size = render.bytes_text(sum(opened.artifacts[file]["bytes"] for file in step["files"]))
        finished = _moment(step["finished"])
        found.add_row(name, str(len(step["files"])), size, finished, step["key"][:8])
    return render.spaced(found)


def _moment(text: str) -> str:
    """Month, day and minute of an ISO time."""
    return text[5:16].replace("T", " ")
