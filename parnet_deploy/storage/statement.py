"""What a signature of a deployment covers: all that shapes an answer, no report written later."""

from __future__ import annotations

from . import names
from .document import canonical
from .manifest import SCHEMA_VERSION, Manifest

LATER_KINDS = ("verify", "bench")
"""Kinds of steps that only report, so that they may follow a signature."""

REPORTS = "reports/"
"""Where such a step may leave files. Nothing that shapes an answer is read from there."""

_DOMAIN = b"parnet-deploy deployment statement 1\n"


def statement(manifest: Manifest) -> bytes:
    """The bytes that are signed: the same for two manifests only if both answer alike.

    Network, sizes, preprocessing, labels, checkpoint, steps, plans, and of each file its name, size
    and sha256. Not in it: what steps of ``LATER_KINDS`` wrote, when and by which release the
    manifest was written last. The first line keeps a signature from being one of anything else.
    """
    later = _later_steps(manifest)
    size = manifest.input_size
    covered = {
        "schema_version": SCHEMA_VERSION,
        "spec": manifest.spec.to_json(),
        "input_size": None if size is None else size.to_json(),
        "preprocessing": manifest.preprocessing,
        "labels": manifest.labels,
        "source": manifest.source,
        "steps": {step: about for step, about in manifest.steps.items() if step not in later},
        "plans": manifest.plans,
        "artifacts": {
            name: about for name, about in manifest.artifacts.items() if about["step"] not in later
        },
    }
    return _DOMAIN + canonical(covered)


def uncovered(manifest: Manifest) -> tuple[str, ...]:
    """Files that no signature covers and that are no reports: nobody of ours writes such."""
    later = _later_steps(manifest)
    return tuple(
        name
        for name, about in sorted(manifest.artifacts.items())
        if about["step"] in later and not name.startswith(REPORTS)
    )


def _later_steps(manifest: Manifest) -> set[str]:
    return {step for step in manifest.steps if names.step_kind(step) in LATER_KINDS}
