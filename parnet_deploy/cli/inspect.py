"""The verb ``inspect``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.text import Text

from ..errors import DeploymentCorruptError, SpecError
from ..storage.names import step_rank
from . import render
from .fuse import activation_text, images_text, network_text
from .options import Common, deployment_argument, verb

if TYPE_CHECKING:
    from ..deployment import Deployment, Integrity
    from ..preprocess import Preprocessing
    from ..spec import ModelSpec

_UNKNOWN = "unknown"

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
    preprocessing = read_preprocessing(opened)
    parts = _parts(opened, preprocessing)
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


def read_preprocessing(opened: Deployment) -> Preprocessing | None:
    """How images are prepared, checked; None if the deployment does not say.

    Raises:
        DeploymentCorruptError: It says something that cannot be.
    """
    from ..preprocess import Preprocessing

    if opened.preprocessing is None:
        return None
    try:
        return Preprocessing.from_json(opened.preprocessing)
    except SpecError as error:
        raise DeploymentCorruptError(
            f"deployment {opened.path}: {error} Build it again: parnet-deploy fuse model.pt."
        ) from error


def _parts(opened: Deployment, preprocessing: Preprocessing | None) -> dict[str, dict[str, Any]]:
    """What each part reads, writes and costs, for the largest accepted image."""
    spec = opened.spec
    if opened.input_size is not None:
        height, width = opened.input_size.high
    elif preprocessing is not None:
        height, width = preprocessing.height, preprocessing.width
    else:
        height = width = spec.size_multiple
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
    path, layout, sha256 = (source.get(key, _UNKNOWN) for key in ("path", "layout", "sha256"))
    about = opened.preprocessing
    labels = "none: classes are numbered" if opened.labels is None else _some(opened.labels)
    exported = "not exported yet" if opened.input_size is None else str(opened.input_size)
    rows: list[tuple[str, str | Text]] = [
        ("network", _network(opened)),
        ("checkpoint", f"{path} ({layout}, {sha256[:12]})"),
        ("weights", source.get("weights", _UNKNOWN)),
        ("activation", _activation(opened)),
        ("accepts", f"{exported}, {opened.spec.in_channels} channels"),
        ("images", _UNKNOWN if about is None else images_text(about)),
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


def _network(opened: Deployment) -> str:
    parameters = opened.source.get("parameters")
    if parameters is None:
        return network_text(opened.spec, 0).replace(" 0 parameters", " parameters unknown")
    return network_text(opened.spec, parameters)


def _activation(opened: Deployment) -> str:
    choice = opened.source.get("activation")
    return (
        f"{opened.spec.activation}, {_UNKNOWN} why" if choice is None else activation_text(choice)
    )


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
        share = f"{100 * part['macs'] / max(total, 1):.0f} %"
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

    columns = ("plan~", "placement", ">cores", ">devices", ">p50", "built", "")
    found = render.table(*columns)
    default = order_plans(opened)[0]
    for key in order_plans(opened, simulated=True):
        plan = opened.plans[key]
        on_gpu = plan.get("backend") in ("tensorrt", "onnxruntime-cuda")
        median, threads, built = plan.get("median_ms"), plan.get("threads"), plan.get("built")
        simulated = "simulated" if plan.get("backend") == "fake" else ""
        found.add_row(
            key,
            Text(render.printable(_placement(plan))),
            "" if on_gpu else "all" if threads is None else str(threads),
            ",".join(map(str, plan.get("devices", [_UNKNOWN]))),
            simulated if median is None else render.ms_text(median),
            Text(_UNKNOWN if built is None else _moment(built)),
            Text(render.OK if key == default else "", style="ok"),
        )
    note = f"{render.OK} runs where no plan is named: the newest of the best backend here"
    return [render.spaced(found), "", Text(note, style="key")]


def _placement(plan: Mapping[str, Any]) -> str:
    """The placement, and the precision where it is a lower one."""
    precision = plan.get("precision", "fp32")
    placement = str(plan.get("placement", _UNKNOWN))
    return placement if precision == "fp32" else f"{placement}, {precision}"


def _artifacts(opened: Deployment, *, files: bool) -> RenderableType:
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
        finished = _moment(step["finished"])
        found.add_row(name, count, size, Text(finished), Text(render.printable(step["key"])[:8]))
    return render.spaced(found)


def _moment(text: str) -> str:
    """Month, day and minute of an ISO time."""
    return render.printable(text)[5:16].replace("T", " ")
