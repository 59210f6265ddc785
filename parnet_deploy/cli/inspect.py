"""The verb ``inspect``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.text import Text

from ..errors import DeploymentCorruptError, SpecError
from . import render
from .fuse import activation_text, images_text, network_text
from .inspect_diff import show_differences
from .inspect_evidence import draw_evidence
from .inspect_plans import draw_engines, draw_files, draw_plans, draw_precision
from .options import Common, deployment_argument, verb

if TYPE_CHECKING:
    from ..deployment import Deployment, Integrity
    from ..preprocess import Preprocessing
    from ..signing.sign import Signed
    from ..spec import ModelSpec

_UNKNOWN = "unknown"

_EPILOG = """\b
Examples:
  parnet-deploy inspect
  parnet-deploy inspect engines/digits --files --layers
  parnet-deploy inspect digits --diff digits-finetuned

\b
JSON: deployment, name, written, digest, source, spec, input_size, preprocessing, labels, parts
(reads, writes, shape, blocks, macs), artifacts (bytes, sha256, step), plans, engines (per plan:
backend, threads, max_batch, error, engines: segment, backend, parts, device, lane, file, bytes,
sha256, layers, converter), precision (per plan: null in float32, or precision, target, low_share,
counts, layers), evidence (step, what, kind, passed, finished, plan, figures), steps, integrity (ok,
missing, changed, foreign), signature (state: unsigned, unchecked, trusted or refused; key,
required, detail), missing_steps.

\b
JSON with --diff: first, second (deployment, name, written, digest, integrity), identical,
differences (group, name, change: added, removed or changed, before, after, detail).

\b
Exit code 3 if a file is missing or was changed; with --diff of either deployment. That two
deployments differ is no failure: the exit code is 0, and "identical" in the JSON says it.
"""


@click.command(epilog=_EPILOG)
@deployment_argument
@click.option("--files", is_flag=True, help="List every file (or difference), not a summary.")
@click.option("--layers", is_flag=True, help="List the precision of every layer.")
@click.option(
    "--diff",
    "other",
    metavar="OTHER",
    help="Show what differs in this deployment: a name in the root, or a path.",
)
@verb
def command(
    common: Common, deployment: str | None, files: bool, layers: bool, other: str | None
) -> None:
    """Show what is in a deployment, and check every file against its hash.

    With --diff show instead what another deployment has more, less or otherwise: network,
    images, checkpoint, weights of each block, steps, plans, precision of each layer, evidence,
    files. When something was done is not compared.
    """
    from ..deployment import Deployment
    from ..inspect.engines import find_engines
    from ..inspect.evidence import gather_evidence
    from ..inspect.parts import describe_parts, missing_steps
    from ..inspect.precision import find_precision
    from ..signing.sign import examine_signature

    directory = common.find(deployment)
    opened = Deployment.open(directory)
    if other is not None:
        if layers:
            raise click.UsageError("--layers does not go with --diff, which compares them anyway.")
        show_differences(common, opened, Deployment.open(common.find(other)), whole=files)
        return
    integrity, signed = opened.verify(), examine_signature(opened)
    preprocessing = read_preprocessing(opened)
    parts = describe_parts(opened, preprocessing)
    engines = {key: find_engines(opened, key) for key in opened.plans}
    precision = {key: find_precision(opened, key) for key in opened.plans}
    evidence = gather_evidence(opened)
    missing = missing_steps(opened)
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
        "engines": {key: found.to_json() for key, found in engines.items()},
        "precision": {key: found and found.to_json() for key, found in precision.items()},
        "evidence": [found.to_json() for found in evidence],
        "steps": {name: dict(about) for name, about in opened.steps.items()},
        "integrity": {"ok": bool(integrity), **vars(integrity)},
        "signature": signed.to_json(),
        "missing_steps": missing,
    }
    name = common.argument(opened.path)
    items = [
        *_facts(opened, integrity, signed, missing),
        _graph(opened.spec),
        _parts_table(parts),
        *draw_plans(opened, engines),
        *draw_engines(opened.spec, engines),
        *draw_precision(precision, every=layers),
        *draw_evidence(evidence),
        draw_files(opened, files=files),
        "",
        render.next_step((f"parnet-deploy {missing[0] if missing else 'bench'} {name}", "")),
    ]
    common.output.result(document, *items)
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


def _facts(
    opened: Deployment, integrity: Integrity, signed: Signed, missing: Sequence[str]
) -> list[RenderableType]:
    """What it is, where it comes from and whether it is whole."""
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
        ("signature", signature_text(signed)),
    ]
    if missing:
        rows.append(("not done", ", ".join(missing)))
    written = opened.written[:19].replace("T", " ")
    where = f"{render.printable(opened.path)}, written {written} UTC"
    return [render.heading(opened.name, where), render.facts(rows), ""]


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


def signature_text(signed: Signed) -> Text:
    """Who has signed, and whether that holds."""
    style = {"trusted": "ok", "refused": "bad", "unchecked": "warn", "unsigned": ""}[signed.state]
    mark = {"trusted": f"{render.OK} ", "refused": f"{render.FAILED} "}.get(signed.state, "")
    text = render.printable(" ".join(signed.detail.split()))
    return Text.assemble((f"{mark}{signed.state}", style), f": {text}")


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
