"""What a deployment is like after a fault: whole or not, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parnet_deploy.deployment import Deployment
from parnet_deploy.reference import random_image
from parnet_deploy.runtime.session import Runtime
from parnet_deploy.storage import names

SIDE = 16
REPORTS = ("verify", "bench")


def look(path: str, plans: Sequence[str] | None = None) -> dict[str, Any]:
    """Open a deployment, check every file, and run every plan (or those); plain JSON.

    ``steps`` has the key of each step, which for a report is another after every change, so it is
    left out, and the keys that it was made from; ``answers`` the logits of each plan for one image.
    """
    root = Path(path)
    deployment = Deployment.open(root)
    integrity = deployment.verify()
    answers = {}
    for key in deployment.plans if plans is None else plans:
        with Runtime.open(root, plan=key) as runtime:
            answers[key] = runtime(random_image(deployment.spec, SIDE, SIDE)).tolist()
    return {
        "steps": {
            name: {
                "key": "" if name.startswith(REPORTS) else record["key"],
                "made_from": dict(record["made_from"]),
            }
            for name, record in deployment.steps.items()
        },
        "digest": deployment.digest,
        "model": deployment.source["sha256"],
        "broken": [*integrity.missing, *integrity.changed],
        "foreign": list(integrity.foreign),
        "plans": {key: plan["step"] for key, plan in deployment.plans.items()},
        "answers": answers,
    }


def left_over(path: Path, temporary: Path) -> list[str]:
    """What commands have left behind for good.

    In the deployment after the next writer: nothing but the log of a search that is to go on. Of
    temporary folders one for each purpose: the next of its kind removes it.
    """
    with Deployment.edit(path):
        pass
    own = (names.LOCK, names.SEARCH_PREFIX)
    hidden = [p.name for p in path.iterdir() if p.name.startswith(".")]
    left = [name for name in hidden if not name.startswith(own)]
    folders = sorted(p.name for p in temporary.iterdir())
    purposes = {name.rpartition("-")[0] for name in folders}
    return left if len(folders) == len(purposes) else [*left, *folders]
