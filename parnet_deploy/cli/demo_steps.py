"""What the demo does, step by step, and a line about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckFailedError
from . import render
from .verify import load_images, load_trained

if TYPE_CHECKING:
    from ..builder.verify_step import Images, Network

CHECKPOINT = Path("examples/digits/digits.pth.tar")
LABELS = Path("examples/digits/labels.txt")
EVAL = Path("calibration/digits/eval")
NOISY = Path("calibration/digits/noisy")

_BATCH = 50  # of the training form, which is only asked for its answers here
_BUDGET_S = 6.0
_VS = ("torch", "onnxruntime")


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


def list_steps(
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
        options = FuseOptions(labels=read_labels(place / LABELS))
        result = fuse_to_deployment(
            place / CHECKPOINT, directory, options, on_block=lambda b: report(f"fuse: proved {b}")
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
        names = {
            "one": "one engine",
            "streams": "engine per stream",
            "recompute": "engine per stream with its own stems",
        }
        best = names[result.report["placement"]["name"]]
        count = len(measured["candidates"])
        what = f"{best} wins of {count} placements" if count > 1 else best
        return _step("build", what, render.ms_text(measured["median_ms"]), result.skipped)

    def verify() -> Row:
        network, why = load_trained(directory)
        images = load_images(directory, [place / EVAL])
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
        return _compare_answers("run", directory, place / EVAL, clean["images"], trained)

    def noisy() -> Row:
        images = load_images(directory, [place / NOISY])
        assert images is not None  # a folder was given
        return _compare_answers("noisy", directory, place / NOISY, images, trained)

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
    from ..bench.bench_step import BenchOptions, bench_to_deployment
    from ..bench.result import OURS

    options = BenchOptions(vs=_VS, mode="saturated", budget_s=_BUDGET_S)
    result = bench_to_deployment(directory, options, on_stage=lambda text: report(f"bench: {text}"))
    found = {
        name: arm["modes"]["saturated"]["quantiles_ms"]["p50"]["value"]
        for name, arm in result.report["arms"].items()
    }
    titles = {"torch": "PyTorch", "onnxruntime": "unfused ONNX"}
    others = [
        f"{title} {render.ms_text(found[name])}" for name, title in titles.items() if name in found
    ]
    return Row(
        step="bench",
        what=", ".join(others) or "nothing to compare with here",
        result=f"ours {render.ms_text(found[OURS])}",
        passed=None,
        details=found,
    )
