"""The step ``quantize:<target>``: graphs in lower precision that passed the gates, and a report."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .. import __version__
from ..deployment import Deployment, step_key
from ..errors import DeploymentChangedError, InputError, SpecError
from ..machine.describe import describe_machine
from ..measure import alternate, compare_latency
from ..reference import Reference
from ..spec import LOGITS
from ..steps import Progress, StepResult, skipped, write_report
from .calibrate_step import Calibration, load_graphs, read_calibration
from .calibration_set import MIN_EVALUATED, LoadedSet, check_varied
from .chain import ChainOptions, PartChain
from .convert import KERNELS_HERE, Converter, Layer, list_layers
from .evaluate import Network, layer_sqnr, measure, reference_logits, sensitivity
from .gates import CLEAN, Measured, check_clipped, check_gates, require
from .options import QuantizeOptions, folder, report_name
from .qdq_cpu import weight_limit
from .report import build_report, draw_report
from .search import Found, Search
from .search_log import SearchLog
from .table import CalibrationTable, graphs_digest

QUANTIZE_VERSION = 1  # raise when the same table would give other graphs
SENSITIVITY_IMAGES = 64  # of the clean set: each layer is measured on them
TIMED_ROUNDS = 15


def quantize_to_deployment(
    directory: Path,
    sets: Mapping[str, LoadedSet],
    options: QuantizeOptions | None = None,
    *,
    calibration: Calibration | None = None,
    on_stage: Progress = lambda text: None,
) -> StepResult:
    """Make the target's graphs, hold them against the gates, and publish them with a report.

    A calibration that the deployment does not have yet is published with them.

    Args:
        directory: The deployment, exported.
        sets: Evaluation images: ``clean``, and ``noisy`` if there are any.
        options: Choices of the user.
        calibration: Ranges, from ``calibrate``; None: those that the deployment has.
        on_stage: Called with what is being done, for progress.

    Raises:
        CheckFailedError: A gate failed, after the search if there was one. Nothing was published.
        DeploymentError: There is no calibration, or it is another model's.
        SpecError: A layer to keep is not in the network.
    """
    options = options or QuantizeOptions()
    deployment = Deployment.open(directory)
    step = f"quantize:{options.target}"
    ranges = calibration or read_calibration(deployment)
    key = _step_key(deployment, sets, options, ranges.table)
    if deployment.is_current(step, key):
        return skipped(directory, report_name(options.target))
    _check_sets(sets)
    work = _Work.open(deployment, sets, options, ranges, on_stage)
    require((check_clipped(work.clipped, options.limits),), f"precision {options.target}")
    log = SearchLog.of(directory, options.target, key)
    if log.resumed:
        on_stage("going on with an interrupted search")
    found = work.search(log).run()
    lowered = work.converter.all(found.keep)
    on_stage("comparing layer by layer")
    report = work.report(found, lowered)
    html = draw_report(deployment.name, report)
    with Deployment.edit(directory) as txn:
        now = Deployment.open(directory)
        if graphs_digest(now) != ranges.table.model_sha256:
            raise DeploymentChangedError(
                f"deployment {directory}: other graphs were exported while these were quantized. "
                "Run: parnet-deploy calibrate."
            )
        if not now.is_current("calibrate", ranges.key) and not _others_use(now, options.target):
            replace(ranges, current=False).stage(txn)
        for name, model in lowered.items():
            data = model.SerializeToString(deterministic=True)
            txn.stage(f"{folder(options.target)}/{name}.onnx").write_bytes(data)
        stored = txn.stage(f"{folder(options.target)}/reference.npz")
        stored.write_bytes(work.reference(lowered).pack())
        write_report(txn.stage(report_name(options.target)), report)
        txn.stage(report_name(options.target, "html")).write_text(html, encoding="utf-8")
        txn.finish_step(
            step,
            key=key,
            options={"target": options.target, "gates": options.limits.to_json()},
            versions={"parnet_deploy": __version__, "onnx": onnx.__version__},
            made_from={"export"},  # not the table in the deployment: another may replace it
        )
    log.remove()
    return StepResult(path=directory, skipped=False, report=report)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Everything that one run of the step needs, loaded once."""

    deployment: Deployment
    options: QuantizeOptions
    sets: Mapping[str, LoadedSet]
    ranges: Calibration
    converter: Converter
    layers: tuple[Layer, ...]
    full: PartChain
    logits: Mapping[str, Any]
    clipped: float
    on_stage: Progress

    @classmethod
    def open(
        cls,
        deployment: Deployment,
        sets: Mapping[str, LoadedSet],
        options: QuantizeOptions,
        ranges: Calibration,
        on_stage: Progress,
    ) -> _Work:
        table = ranges.table.require(deployment)
        spec = deployment.spec
        graphs = load_graphs(deployment)
        size = sets[CLEAN].images.shape[2:]
        layers = list_layers(spec, (size[0], size[1]))
        unknown = sorted(set(options.keep) - {layer.name for layer in layers})
        if unknown:
            known = ", ".join(layer.name for layer in layers)
            raise SpecError(f"layer to keep: got {unknown[0]!r}, expected one of {known}.")
        full = PartChain(spec, graphs)
        on_stage("running float32")
        return cls(
            deployment=deployment,
            options=options,
            sets=sets,
            ranges=ranges,
            converter=Converter(graphs, table, options.target, weight_limit=_limit(options)),
            layers=layers,
            full=full,
            logits=reference_logits(full.logits, sets),
            clipped=table.clipped,
            on_stage=on_stage,
        )

    def search(self, log: SearchLog) -> Search:
        """The search for the fewest layers in float32; without one, only the first try."""
        return Search(
            layers=self.layers,
            fixed={*self.converter.unfit, *self.options.keep},
            evaluate=self._evaluate,
            judge=lambda measured: check_gates(measured, self.options.limits),
            sensitivity=self._sensitivity,
            log=log,
            min_share=self.options.min_share if self.options.search else 1.0,
            least=self.options.min_share,
            tell=self.on_stage,
        )

    def _evaluate(self, keep: Collection[str]) -> Measured:
        graphs = self.converter.all(keep)
        spec = self.deployment.spec
        here = self.options.target in KERNELS_HERE

        def shown(chain: PartChain, how: str) -> Network:
            def tell(done: int, total: int) -> None:
                self.on_stage(f"{how} {done} of {total}")

            return partial(chain.logits, on_batch=tell)

        return measure(
            self.sets,
            self.logits,
            emulated=shown(PartChain(spec, graphs, ChainOptions(emulate=True)), "emulated image"),
            kernel=shown(PartChain(spec, graphs), "image") if here else None,
            clipped=self.clipped,
        )

    def _some_images(self) -> Any:
        clean = self.sets[CLEAN]
        return clean.images[clean.spread(SENSITIVITY_IMAGES)]

    def _sensitivity(self, log: SearchLog) -> dict[str, float]:
        images = self._some_images()
        total = len(self.layers)

        def keep(layer: Layer, found: float) -> None:
            log.add_sensitivity(layer.name, found)
            self.on_stage(f"layer {len(log.sensitivity)} of {total}")

        only, known = self.converter.only, log.sensitivity
        return sensitivity(self.full, only, self.layers, images, known, keep)

    def report(self, found: Found, lowered: Mapping[str, onnx.ModelProto]) -> dict[str, Any]:
        """The report of what was found."""
        images = self._some_images()
        low = PartChain(self.deployment.spec, lowered)
        graphs = self.converter.graphs
        return build_report(
            target=self.options.target,
            found=found,
            layers=self.layers,
            reasons=self.converter.unfit,
            gates=self.options.limits.to_json(),
            weight_limit=_limit(self.options) if self.options.target != "fp16" else None,
            layer_sqnr=layer_sqnr(self.full, low, graphs, lowered, images),
            table=self.ranges.table,
            sizes=(_bytes(graphs), _bytes(lowered)),
            latency=self._latency(low, images[:1]),
            machine=describe_machine(),
            sets={name: len(found) for name, found in self.sets.items()},
            histograms=self.ranges.report["histograms"],
        )

    def _latency(self, low: PartChain, image: Any) -> dict[str, Any] | None:
        """Both part chains, alternated; None where the target's engines do not run here."""
        if self.options.target not in KERNELS_HERE:
            return None
        arms = {"float32": partial(self.full.run, image), "low": partial(low.run, image)}
        timed = alternate(arms, rounds=TIMED_ROUNDS)
        return {
            "float32_ms": timed["float32"].median_ms,
            "low_ms": timed["low"].median_ms,
            "ratio": compare_latency(timed["low"], timed["float32"]).to_json(),
        }

    def reference(self, lowered: Mapping[str, onnx.ModelProto]) -> Reference:
        """A real image and what these graphs, as they are written, answer to it.

        Engines are held against it: with a random image most values would be clipped, and the
        float32 logits are not what an INT8 engine must give.
        """
        image = self.sets[CLEAN].images[:1]
        chain = PartChain(self.deployment.spec, lowered, ChainOptions(emulate=True))
        return Reference(image=np.ascontiguousarray(image), logits=chain.run(image)[LOGITS])


def _others_use(deployment: Deployment, target: str) -> bool:
    """Whether float16, which needs no ranges, would replace those that made INT8 graphs."""
    return target == "fp16" and any(step.startswith("quantize:int8") for step in deployment.steps)


def _check_sets(sets: Mapping[str, LoadedSet]) -> None:
    """Refuse sets that prove nothing.

    Raises:
        InputError: Too few images, or all of them the same.
    """
    for name, found in sets.items():
        if len(found) < MIN_EVALUATED:
            raise InputError(
                f"{name} images to evaluate on: got {len(found)}, expected at least "
                f"{MIN_EVALUATED}. Give more images, or name others by --eval."
            )
        check_varied(found, f"{name} images to evaluate on")


def _limit(options: QuantizeOptions) -> int:
    return options.weight_limit or weight_limit(describe_machine()["isa"])


def _bytes(graphs: Mapping[str, onnx.ModelProto]) -> int:
    return sum(model.ByteSize() for model in graphs.values())


def _step_key(
    deployment: Deployment,
    sets: Mapping[str, LoadedSet],
    options: QuantizeOptions,
    table: CalibrationTable,
) -> str:
    return step_key(
        version=QUANTIZE_VERSION,
        graphs=graphs_digest(deployment),
        table=table.to_json(),
        target=options.target,
        gates=options.limits.to_json(),
        search=options.search,
        min_share=options.min_share,
        keep=sorted(options.keep),
        weight_limit=_limit(options) if options.target == "int8-cpu" else None,
        sets={name: found.sha256 for name, found in sets.items()},
    )
