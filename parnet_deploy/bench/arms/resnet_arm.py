"""A ResNet of the deployment's classes and input size, as an arm: another network, same runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...compare import ENGINE_TOLERANCE, compare
from ...contest.arm import Array, OpenedArm, SelfCheck
from ...deployment import Deployment
from ...errors import BackendError
from ...extras import import_for
from ...reference import random_image
from ...runtime.choose import read_plan
from .elsewhere import make_elsewhere
from .resnet import resnet
from .session import caller, open_beside, place_text

_MAKE = "parnet_deploy.bench.arms.resnet_arm:make_answered"


def open_resnet(
    *,
    network: str,
    directory: str,
    plan: str,
    batch: int,
    size: Sequence[int],
    classes: int,
    threads: int,
    **others: Any,
) -> OpenedArm:
    """Make the network and open it on the plan's device.

    Its check of itself: on a random image, the timed session answers what the same graph gives on
    the CPU with all optimisations off.

    Raises:
        BackendError: The plan is in lower precision, which a ResNet here has not.
        DeviceUnavailableError: The plan's device is none that ONNX Runtime has here.
    """
    deployment = Deployment.open(directory)
    beside = read_plan(deployment, plan).plan
    if beside.precision != "fp32":
        raise BackendError(
            f"the plan is in {beside.precision} and {network} only in fp32: the figures would "
            "compare precisions. Take a plan in fp32 with --plan"
        )
    spec = deployment.spec
    made = resnet(network, classes=classes, in_channels=spec.in_channels)
    packed = make_elsewhere(
        _MAKE,
        network=network,
        classes=classes,
        directory=directory,
        batch=batch,
        size=list(size),
    )
    image = random_image(spec, *size).repeat(batch, axis=0)
    plain, model = unpack(packed, batch, classes)
    del packed
    session, load_ms = open_beside(model, beside, threads=threads)
    run = caller(session)
    what = "the same graph with all optimisations off"
    parity = compare(run(image), plain, tolerance=ENGINE_TOLERANCE, what=f"{network} and {what}")
    return OpenedArm(
        run=run,
        note=f"random weights, normalisation folded; {place_text(beside, threads)}",
        load_ms=load_ms,
        model_bytes=len(model),
        parameters=made.parameters(),
        macs=made.macs(*size),
        facts={"threads": threads},
        self_check=SelfCheck(what=what, error=parity.require().error, limit=parity.tolerance),
    )


def make_answered(
    *, network: str, classes: int, directory: str, batch: int, size: Sequence[int]
) -> bytes:
    """The logits of the random image with all optimisations off, float32, then the graph."""
    graphs = import_for("parnet_deploy.bench.arms.resnet_graph", "export")
    cpu = import_for("parnet_deploy.runtime.onnxruntime.cpu", "cpu")
    spec = Deployment.open(directory).spec
    model: bytes = graphs.make_model(
        network=network, classes=classes, in_channels=spec.in_channels, batch=batch, size=size
    )
    image = random_image(spec, *size).repeat(batch, axis=0)
    logits: bytes = cpu.run_once(model, {"image": image}, emulate=True)["logits"].tobytes()
    return logits + model


def unpack(packed: bytes, batch: int, classes: int) -> tuple[Array, bytes]:
    """Logits (N, K) and graph of ``make_answered``."""
    count = batch * classes
    logits = np.frombuffer(packed, np.float32, count).reshape(batch, classes).copy()
    return logits, packed[4 * count :]
