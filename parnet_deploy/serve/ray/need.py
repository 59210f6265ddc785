"""What a replica needs of a machine, from the plans that it will run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...deployment import Deployment, step_key
from ...errors import DeploymentError
from ...machine.cores import usable_cores
from ...plan import Plan
from ...runtime.backend import BACKENDS
from ...runtime.choose import order_plans, read_plan
from ...signing.trust import open_trusted
from .options import ScaleOptions

_GPU = "gpu"


@dataclass(frozen=True, kw_only=True)
class ModelNeed:
    """One model of a replica: the plan that every replica runs, so that all answer alike."""

    path: Path
    plan: str
    digest: str
    backend: str
    gpus: int
    threads: int | None
    max_batch: int


@dataclass(frozen=True, kw_only=True)
class Need:
    """What Ray sets aside for one replica. ``threads``: cores for the engines of each slot."""

    models: tuple[ModelNeed, ...]
    cpus: int
    gpus: int
    threads: int

    @property
    def max_batch(self) -> int:
        """Images that the largest engine takes at a time."""
        return max(model.max_batch for model in self.models)


def find_need(
    paths: Sequence[Path],
    scale: ScaleOptions,
    *,
    backend: str | None = None,
    plan: str | None = None,
    threads: int | None = None,
    slots: int = 1,
) -> Need:
    """Choose the plan of each model and count what it needs.

    A plan that was built on GPUs 1 and 2 needs two, whichever Ray then gives to the replica. All
    models of a replica share its GPUs and cores. The first plan in the order of ``Runtime.open`` is
    taken, for no machine of the cluster has been seen: with ``gpus=0`` the first for the CPU.

    Args:
        paths: Deployments, each of which becomes a model.
        scale: Its ``cpus`` and ``gpus`` override what the plans need.
        backend: Plans of this backend only.
        plan: The plan with this key.
        threads: Cores for the engines of each slot; None: what the plan says, else all that this
            machine has, shared by the slots.
        slots: Calls that run at the same time.

    Raises:
        DeploymentError: A model has no such plan, it needs more GPUs than were asked for, or keys
            are trusted here and none of them has signed it.
    """
    models = tuple(_find_model(path, scale.gpus, backend, plan) for path in paths)
    gpus = max((model.gpus for model in models), default=0) if scale.gpus is None else scale.gpus
    if threads is None and scale.cpus is not None:
        threads = max(1, scale.cpus // slots)
    if threads is None:
        said = [_threads(model, slots) for model in models]
        threads = max(said, default=1)
    cpus = scale.cpus if scale.cpus is not None else threads * slots
    return Need(models=models, cpus=cpus, gpus=gpus, threads=threads)


def _find_model(path: Path, gpus: int | None, backend: str | None, key: str | None) -> ModelNeed:
    found = open_trusted(path)
    too_many = []
    for name in order_plans(found, backend=backend, key=key):
        plan = read_plan(found, name).plan
        needed = _gpus(plan)
        if gpus is None or needed <= gpus:
            return ModelNeed(
                path=path.absolute(),
                plan=name,
                digest=answer_digest(found, name),
                backend=plan.backend,
                gpus=needed,
                threads=plan.threads,
                max_batch=plan.max_batch,
            )
        too_many.append(f"{name} ({needed} GPUs)")
    raise DeploymentError(
        f"deployment {path}: got {', '.join(too_many)}, expected a plan for {gpus} GPUs. "
        "Run: parnet-deploy build, or give each replica more with --gpus."
    )


def answer_digest(found: Deployment, key: str) -> str:
    """Sha256 of all that a plan's answers follow from: its files, the labels, the preprocessing.

    Reports are not in it, which a later ``verify`` or ``bench`` adds to the directory.
    """
    folder = f"plans/{key}/"
    files = {
        name: record["sha256"]
        for name, record in found.artifacts.items()
        if name.startswith(folder)
    }
    return step_key(files=files, labels=found.labels, preprocessing=found.preprocessing)


def _gpus(plan: Plan) -> int:
    entry = BACKENDS.get(plan.backend)
    return len(plan.placement.devices) if entry is not None and entry.extra == _GPU else 0


def _threads(model: ModelNeed, slots: int) -> int:
    """Cores for the engines of one slot; a thread that feeds a GPU takes one."""
    if model.gpus:
        return 1
    return model.threads or max(1, usable_cores() // slots)
