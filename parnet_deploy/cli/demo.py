"""The verb ``demo``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType

from ..errors import CheckFailedError, DeploymentError, DeploymentNotFoundError, InputError
from . import render
from .bench import load_arms
from .chain import needs
from .options import Common, verb
from .verify import load_images, load_trained

if TYPE_CHECKING:
    from ..builder.verify_step import Images, Network

NAME = "digits"
_CHECKPOINT = Path("examples/digits/digits.pth.tar")
_LABELS = Path("examples/digits/labels.txt")
_EVAL = Path("calibration/digits/eval")
_NOISY = Path("calibration/digits/noisy")
_BATCH = 50  # of the training form, which is only asked for its answers here
_BUDGET_S = 6.0
_STEPS = 7

_EPILOG = """\b
Examples:
  parnet-deploy demo
  parnet-deploy demo --data ~/parnet_deploy --root /tmp/engines

\b
JSON: deployment, passed, seconds, steps (step, what, result, passed, kept, seconds,
details).

\b
Exit code 3 if the deployment answers anything else than the trained network.
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One step of the demo.

    ``passed`` None: nothing that could fail, a figure only. ``kept``: done by an earlier demo.
    """

    step: str
    what: str
    result: str
    passed: bool | None
    kept: bool = False
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


@click.command(epilog=_EPILOG)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="A checkout of the repository, which holds the checkpoint and the images.",
)
@verb
def command(common: Common, data: Path | None) -> None:
    """Show the whole job on real input: a small trained ParNet and 1,800 real images.

    Fuses, exports, builds and verifies it in ROOT/digits, classifies the images with the trained
    network and with the engines, which must agree on every one, and times both.
    """
    place = find_data(data)
    directory = common.root / NAME
    _check_free(directory, place / _CHECKPOINT)
    started = time.perf_counter()
    rows: list[Row] = []
    with common.output.progress("demo") as report:
        report("loading PyTorch")
        with needs("export"):
            steps = _steps(directory, place, report)
        for number, (name, step) in enumerate(steps.items(), 1):
            report(name)
            began = time.perf_counter()
            row = step()
            seconds = time.perf_counter() - began
            rows.append(Row(**{**vars(row), "seconds": seconds}))
            common.output.milestone(f"{number}/{_STEPS} {name}, {seconds:.1f} s")
    seconds = time.perf_counter() - started
    failed = [row.step for row in rows if row.passed is False]
    document = {
        "deployment": str(directory),
        "passed": not failed,
        "seconds": seconds,
        "steps": [asdict(row) for row in rows],
    }
    common.output.result(document, *_draw(common, directory, rows, seconds))
    if failed:
        raise CheckFailedError(
            f"demo: {', '.join(failed)}: the engines answer otherwise than the trained network."
        )


def find_data(given: Path | None) -> Path:
    """Where the checkpoint and the images are.

    Raises:
        InputError: They are not there; the wheel does not hold them.
    """
    places = [given] if given is not None else [Path(__file__).parents[2], Path.cwd()]
    for place in places:
        if all((place / path).exists() for path in (_CHECKPOINT, _LABELS, _EVAL, _NOISY)):
            return place
    raise InputError(
        f"demo data: got no {_CHECKPOINT} or {_EVAL} in {places[0]}, expected a checkout of the "
        "parnet_deploy repository (an installed package does not hold them). Clone it, and run: "
        "parnet-deploy demo --data DIR."
    )


def _check_free(directory: Path, checkpoint: Path) -> None:
    """Never take over somebody's own deployment that happens to have the demo's name."""
    from ..deployment import Deployment
    from ..storage.files import hash_file

    try:
        there = Deployment.open(directory).source.get("sha256")
    except DeploymentNotFoundError:
        return
    if there != hash_file(checkpoint)[0]:
        raise DeploymentError(
            f"demo: {directory}: got a deployment of another checkpoint, expected none or the "
            "demo's. Run: parnet-deploy demo --root DIR."
        )


def _steps(
    directory: Path, place: Path, report: Callable[[str], None]
) -> dict[str, Callable[[], Row]]:
    """The steps in order, each a call that does it and says how it went."""
    from ..builder.build import BuildOptions, build_to_deployment
    from ..builder.verify_step import verify_to_deployment
    from ..export.export_step import export_to_deployment
    from ..export.fuse_step import FuseOptions, fuse_to_deployment
    from ..preprocess import read_labels

    clean: dict[str, Images] = {}
    trained: dict[str, Network] = {}

    def fuse() -> Row:
        options = FuseOptions(labels=read_labels(place / _LABELS))
        result = fuse_to_deployment(
            place / _CHECKPOINT, directory, options, on_block=lambda b: report(f"fuse: proved {b}")
        )
        before, after = (result.report["totals"][when] for when in ("before", "after"))
        norms, convs = (
            render.change(before[kind], after[kind]) for kind in ("batch_norms", "convolutions")
        )
        error = result.report["proof"]["float64"]["error"]
        what = f"{norms} BatchNorms, {convs} convolutions"
        return _step("fuse", what, f"error {render.error_text(error)}", result.skipped)

    def export() -> Row:
        result = export_to_deployment(directory, on_part=lambda p: report(f"export: proved {p}"))
        error = result.report["checks"][-1]["error"]
        what = f"{len(result.report['parts'])} ONNX graphs, one per part"
        return _step("export", what, f"error {render.error_text(error)}", result.skipped)

    def build() -> Row:
        result = build_to_deployment(
            directory, BuildOptions(), on_stage=lambda text: report(f"build: {text}")
        )
        measured = result.report["measured"]
        names = {"one": "one engine", "streams": "engine per stream"}
        best = names[result.report["placement"]["name"]]
        count = len(measured["candidates"])
        what = f"{best} wins of {count} placements" if count > 1 else best
        return _step("build", what, render.ms_text(measured["median_ms"]), result.skipped)

    def verify() -> Row:
        network, why = load_trained(directory)
        images = load_images(directory, [place / _EVAL])
        if network is None or images is None:
            raise CheckFailedError(f"demo: no trained network to compare with: {why}.")
        trained["network"], clean["images"] = network, images
        result = verify_to_deployment(
            directory, images=images, trained=network, on_stage=lambda t: report(f"verify: {t}")
        )
        checks = [check for plan in result.report["plans"].values() for check in plan]
        worst = max(check["error"] for check in checks)
        what = f"{len(images)} images against the training form"
        return _step("verify", what, f"error {render.error_text(worst)}", False)

    def run() -> Row:
        return _compare_answers("run", directory, place / _EVAL, clean["images"], trained)

    def noisy() -> Row:
        images = load_images(directory, [place / _NOISY])
        assert images is not None  # a folder was given
        return _compare_answers("noisy", directory, place / _NOISY, images, trained)

    def bench() -> Row:
        return _bench(directory, report)

    return {
        "fuse": fuse,
        "export": export,
        "build": build,
        "verify": verify,
        "run": run,
        "noisy": noisy,
        "bench": bench,
    }


def _step(name: str, what: str, result: str, skipped: bool) -> Row:
    """A step that passed, for it would have raised otherwise."""
    return Row(step=name, what=what, result=result, passed=True, kept=skipped)


def _compare_answers(
    step: str, directory: Path, folder: Path, images: Images, trained: Mapping[str, Network]
) -> Row:
    """The trained network in PyTorch against the engines: accuracy of both, and every answer."""
    import numpy as np

    from ..preprocess import find_images
    from ..runtime.session import Runtime

    truth = np.array([int(path.parent.name) for path in find_images([folder])])
    network = trained["network"]
    before = np.concatenate(
        [network(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
    ).argmax(1)
    with Runtime.open(directory) as runtime:
        after = np.concatenate([runtime(image[np.newaxis]) for image in images]).argmax(1)
    right = [int((answers == truth).sum()) for answers in (before, after)]
    same = int((before == after).sum())
    accuracy = render.change(*(render.percent_text(count / len(truth)) for count in right))
    agreed = "all the same" if same == len(truth) else f"{len(truth) - same} DIFFER"
    return Row(
        step=step,
        what=f"{len(truth)} images: {accuracy} right",
        result=agreed,
        passed=same == len(truth),
        details={"total": len(truth), "right": right, "same": same},
    )


def _bench(directory: Path, report: Callable[[str], None]) -> Row:
    from ..bench.bench_step import OURS, BenchOptions, bench_to_deployment

    wanted = ("torch", "onnxruntime-unfused")
    report("bench: loading what it is compared with")
    arms, left_out = load_arms(directory, wanted, batch=1)
    result = bench_to_deployment(
        directory,
        BenchOptions(budget_s=_BUDGET_S),
        arms=arms,
        left_out=left_out,
        on_stage=lambda text: report(f"bench: {text}"),
    )
    found = result.report["arms"]
    ours = found[OURS]["p50_ms"]
    titles = {"torch": "PyTorch", "onnxruntime-unfused": "unfused ONNX"}
    others = [
        f"{titles[name]} {render.ms_text(found[name]['p50_ms'])}"
        for name in wanted
        if name in found
    ]
    return Row(
        step="bench",
        what=", ".join(others) or "nothing to compare with here",
        result=f"ours {render.ms_text(ours)}",
        passed=None,
        details={name: arm["p50_ms"] for name, arm in found.items()},
    )


def _draw(common: Common, directory: Path, rows: list[Row], seconds: float) -> list[RenderableType]:
    found = render.table("step", "what~", "result", "", ">s")
    for row in rows:
        mark = render.Text(render.NEUTRAL) if row.passed is None else render.verdict(row.passed)
        spent = "kept" if row.kept else f"{row.seconds:.1f}"
        found.add_row(row.step, row.what, row.result, mark, spent)
    name = common.argument(directory)
    if all(row.passed is not False for row in rows):
        text = f"Fused, built and proved in {seconds:.0f} s: every answer is the same."
        ending = render.Text(text, style="ok")
    else:
        ending = render.Text("The engines do not answer as the trained network does.", style="bad")
    where = render.printable(directory)
    kept = any(row.kept for row in rows)
    note = [render.Text("kept: nothing has changed since the last demo", style="key")]
    return [
        render.heading("demo", f"a trained ParNet on real handwritten digits, in {where}"),
        render.spaced(found),
        *(note if kept else []),
        "",
        ending,
        "",
        render.next_step(
            (f"parnet-deploy inspect {name}", "what is in it"),
            (f"parnet-deploy bench {name}", "the figures in full"),
            ("parnet-deploy fuse model.pt", "the same with your checkpoint"),
        ),
    ]
