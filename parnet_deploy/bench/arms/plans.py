"""Other plans of the deployment, as arms: what a user would run who took them."""

from __future__ import annotations

from typing import Any

from ...contest.arm import OpenedArm
from ...deployment import Deployment
from ...errors import DeploymentError
from ...runtime.choose import order_plans, read_plan
from .ours import open_ours
from .session import check_cpu


def open_newest(*, directory: str, plan: str, backend: str, **others: Any) -> OpenedArm:
    """Open the newest plan of a backend of the CPU, as ``run --backend`` does.

    Raises:
        DeploymentError: There is none, or it is the one that is measured.
        DeviceUnavailableError: The measured plan runs on a GPU.
    """
    deployment = Deployment.open(directory)
    check_cpu(read_plan(deployment, plan).plan, backend)
    keys = [key for key, about in deployment.plans.items() if about.get("backend") == backend]
    if not keys:
        raise DeploymentError(
            f"no plan of the deployment runs on {backend}. "
            f"Run: parnet-deploy build {deployment.name} --backend {backend}"
        )
    return open_plan(
        directory=directory, plan=plan, key=order_plans(deployment, backend=backend)[0]
    )


def open_plan(*, directory: str, plan: str, key: str, **others: Any) -> OpenedArm:
    """Open a plan by its key, on as many cores as it was built for.

    Raises:
        DeploymentError: There is no such plan, or it is the one that is measured.
    """
    if key == plan:
        raise DeploymentError(f"{key} is the plan that is measured, under the name parnet-deploy")
    order_plans(Deployment.open(directory), key=key)  # the error says which there are
    return open_ours(directory=directory, plan=key)
