"""What differs between two deployments.

Compared is what a deployment holds and how it was made; not when. A copy is identical to its
original; a deployment that was made again from the same checkpoint usually is not, for its reports
and plans tell of the machine and the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..deployment import Deployment
from ..errors import DeploymentError
from .evidence import gather_evidence
from .precision import find_precision
from .weights import FUSED, BlockChange, compare_weights

Group = Literal[
    "network",
    "images",
    "checkpoint",
    "weights",
    "steps",
    "plans",
    "precision",
    "evidence",
    "files",
]
Change = Literal["added", "removed", "changed"]

_UNSEEN = object()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that is not the same. ``before`` or ``after`` is None where it is not there.

    A file is shown by its sha256, a block of weights too; ``detail`` says more where there is more
    to say.
    """

    group: Group
    name: str
    change: Change
    before: Any
    after: Any
    detail: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def compare_deployments(first: Deployment, second: Deployment) -> list[Difference]:
    """What is in the second that is not so in the first, the network first, files last.

    Files are compared by the hashes in the manifests: see ``Deployment.verify``.
    """
    return [
        *_compare("network", first.spec.to_json(), second.spec.to_json()),
        *_compare("images", _images(first), _images(second)),
        *_compare("checkpoint", first.source, second.source),
        *_weights(first, second),
        *_compare("steps", _steps(first), _steps(second)),
        *_compare("plans", _plans(first), _plans(second)),
        *_compare("precision", _precision(first), _precision(second)),
        *_compare("evidence", _evidence(first), _evidence(second)),
        *_compare("files", _files(first), _files(second)),
    ]


def _compare(
    group: Group, first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[Difference]:
    """Entries of one side only, or that differ; in the order of the first."""
    for name in dict.fromkeys((*first, *second)):
        before, after = first.get(name, _UNSEEN), second.get(name, _UNSEEN)
        if before == after and type(before) is type(after):
            continue
        change: Change = "changed"
        if before is _UNSEEN:
            change, before = "added", None
        elif after is _UNSEEN:
            change, after = "removed", None
        yield Difference(group=group, name=name, change=change, before=before, after=after)


def _images(deployment: Deployment) -> dict[str, Any]:
    """What goes in and how answers are named; labels one by one."""
    size, labels = deployment.input_size, deployment.labels
    found = {"input size": None if size is None else str(size)}
    found |= dict(deployment.preprocessing or {})
    return found | {f"label {i}": label for i, label in enumerate(labels or ())}


def _weights(first: Deployment, second: Deployment) -> Iterator[Difference]:
    records = [one.artifacts.get(FUSED, {}).get("sha256") for one in (first, second)]
    if records[0] == records[1] or None in records:  # one that is not there is a file's matter
        return
    try:
        changes = compare_weights(first, second)
    except DeploymentError as error:
        yield Difference(
            group="weights",
            name=FUSED,
            change="changed",
            before=records[0],
            after=records[1],
            detail=f"not compared: {error}",
        )
        return
    for found in changes:
        yield Difference(
            group="weights",
            name=found.block,
            change=_side(found),
            before=found.before,
            after=found.after,
            detail=_apart(found),
        )


def _side(found: BlockChange) -> Change:
    if found.before is None:
        return "added"
    return "removed" if found.after is None else "changed"


def _apart(found: BlockChange) -> str | None:
    """How far a block's weights are apart, in words."""
    if _side(found) != "changed":
        return None
    if found.change is None:
        return "other tensors or shapes"
    return f"by {found.change:.1e} of its largest weight"


def _steps(deployment: Deployment) -> dict[str, Any]:
    """How each step was made, not when. Keys stand for all that went in."""
    return {
        name: {what: step[what] for what in ("key", "options", "versions")}
        for name, step in deployment.steps.items()
    }


def _plans(deployment: Deployment) -> dict[str, Any]:
    """The summary of each plan without its date; its engines are among the files."""
    return {
        key: {what: value for what, value in plan.items() if what not in ("built", "step")}
        for key, plan in deployment.plans.items()
    }


def _precision(deployment: Deployment) -> dict[str, Any]:
    """Each layer of each plan in lower precision."""
    found = {}
    for key in deployment.plans:
        told = find_precision(deployment, key)
        for layer in told.layers if told is not None else ():
            found[f"{key} {layer.layer}"] = layer.precision
    return found


def _evidence(deployment: Deployment) -> dict[str, Any]:
    """Verdicts and figures without their dates."""
    found = {}
    for item in gather_evidence(deployment):
        words = (item.step.partition(":")[0], item.plan, item.what)
        found[" ".join(filter(None, words))] = {"passed": item.passed, **_flat(item.figures)}
    return found


def _flat(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures inside of figures under the words that lead to them."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        inside = _flat(value) if isinstance(value, Mapping) else None
        found |= {name: value} if inside is None else {f"{name} {k}": v for k, v in inside.items()}
    return found


def _files(deployment: Deployment) -> dict[str, Any]:
    return {name: about["sha256"] for name, about in sorted(deployment.artifacts.items())}
