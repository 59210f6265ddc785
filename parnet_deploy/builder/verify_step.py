"""The step ``verify``: hold the built plans of a deployment against the trained network again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compare import ENGINE_TOLERANCE, Parity, compare
from ..deployment import Deployment, step_key
from ..errors import BackendError, CheckFailedError, DeploymentError, MissingExtraError
from ..runtime.choose import order_plans, read_plan
from ..runtime.session import Runtime
from ..signing.trust import open_trusted
from ..steps import Progress, StepResult, read_reference, write_report
from .precisions import FLOAT32, source_of
from .verify import part_values, verify_engines, verify_whole

VERIFY_REPORT = "reports/verify.json"
Images = NDArray[np.float32]  # (N, C, H, W)
Network = Callable[[Images], NDArray[np.float32]]


def verify_to_deployment(
    directory: Path,
    *,
    plans: Sequence[str] | None = None,
    images: Images | None = None,
    trained: Network | None = None,
    on_stage: Progress = lambda text: None,
) -> StepResult:
    """Verify plans on the stored reference, and on more images where the trained network is there.

    Each plan gets a canary check when opened, a check of each engine alone, of the whole at batch
    1 and inside a batch, and of every given image against ``trained`` with equal top-1. Plans in
    lower precision are held against their own graphs, which passed the gates; their answers to
    single images may differ from the trained network's.

    Args:
        directory: The deployment, built.
        plans: Keys of the plans; None: all.
        images: More inputs, preprocessed, of one accepted size.
        trained: The training form, from images to logits (``export.trained.training_form``).
        on_stage: Called with what is being done, for progress.

    Raises:
        CheckFailedError: A comparison failed; the report was not published.
        DeploymentError: There is no such plan, or the deployment is damaged, or not signed by a
            trusted key.
    """
    deployment = open_trusted(directory)
    integrity = deployment.verify()
    if not integrity:
        bad = ", ".join(integrity.missing + integrity.changed)
        raise DeploymentError(
            f"deployment {directory}: missing or changed: {bad}. Restore the files from a copy, "
            "or run the step again that makes them."
        )
    report: dict[str, Any] = {"artifacts": len(deployment.artifacts), "plans": {}}
    not_compared = report["not_compared"] = []  # with the given images
    for key in plans if plans is not None else order_plans(deployment, simulated=True):
        on_stage(f"verifying plan {key}")
        files = read_plan(deployment, key)
        source = source_of(files.plan.backend, files.plan.precision)
        limit = source.tolerance
        reference = read_reference(deployment, source.reference)
        values = part_values(deployment, reference.image, source)
        try:
            checks = verify_engines(
                deployment.spec, files.plan, files.engines, values, tolerance=limit
            )
        except MissingExtraError as error:
            raise BackendError(
                f"plan {key}: {error} Or leave it out: parnet-deploy verify --plan NAME."
            ) from error
        _require(checks, key)
        with Runtime.open(directory, plan=key) as runtime:
            image, logits, batch = reference.image, reference.logits, runtime.max_batch
            checks += verify_whole(runtime, image, logits, max_batch=batch, tolerance=limit)
            if images is not None and source is not FLOAT32:
                not_compared.append(key)
            elif images is not None and trained is not None:
                checks.append(_verify_images(runtime, images, trained))
        report["plans"][key] = [check.to_json() for check in checks]
        _require(checks, key)
    with Deployment.edit(directory) as txn:
        write_report(txn.stage(VERIFY_REPORT), report)
        made_from = {f"build:{key}" for key in report["plans"]}
        txn.finish_step("verify", key=step_key(digest=deployment.digest), made_from=made_from)
    return StepResult(path=directory, skipped=False, report=report)


def _verify_images(runtime: Runtime, images: Images, trained: Network) -> Parity:
    """All images one by one, as they come in real life, against the trained network."""
    got = np.concatenate([runtime(images[i : i + 1]) for i in range(len(images))])
    expected = np.concatenate([trained(images[i : i + 1]) for i in range(len(images))])
    what = f"{len(images)} images against the training form"
    return compare(got, expected, tolerance=ENGINE_TOLERANCE, what=what)


def _require(checks: Sequence[Parity], key: str) -> None:
    for check in checks:
        if not check:
            raise CheckFailedError(
                f"parity: plan {key}, {check}. Where it begins: parnet-deploy verify --bisect."
            )
        if check.top1_equal is not None and check.top1_equal < 1:
            raise CheckFailedError(
                f"parity: plan {key}, {check.what}: top-1 differs for "
                f"{1 - check.top1_equal:.2%} of the images, expected none."
            )
