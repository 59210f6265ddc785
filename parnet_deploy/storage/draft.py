"""What a deployment is going to be: steps, artifacts and plans in memory, no disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from .. import __version__
from ..input_size import InputSize
from ..spec import ModelSpec
from . import names
from .document import plain
from .manifest import Manifest


class Draft:
    """The next content of the manifest, and which step owns which staged file.

    A mistake of the calling code is a ``ValueError``: it is a bug, not a bad deployment.
    """

    def __init__(self) -> None:
        self._base: Manifest | None = None
        self._staged: dict[str, str | None] = {}  # artifact -> step, None until one is finished
        self._steps: dict[str, Mapping[str, Any]] = {}
        self._plans: dict[str, Mapping[str, Any]] = {}
        self._artifacts: dict[str, Mapping[str, Any]] = {}
        self._finished: set[str] = set()
        self._dropped: set[str] = set()
        self._about: dict[str, Any] = {}
        self._changed = False

    def describe(
        self,
        *,
        spec: ModelSpec | None = None,
        source: Mapping[str, Any] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        labels: Collection[str] | None = None,
        input_size: InputSize | None = None,
    ) -> None:
        """Set what is given and leave the rest. Finishing "fuse" forgets what is not given again.

        The input size belongs to "export" in the same way.
        """
        given = {
            "spec": spec,
            "source": None if source is None else plain(source, "source"),
            "preprocessing": None if preprocessing is None else plain(preprocessing),
            "labels": None if labels is None else tuple(labels),
            "input_size": input_size,
        }
        self._about.update({key: value for key, value in given.items() if value is not None})
        self._changed = True

    def finish_step(
        self,
        step: str,
        *,
        key: str,
        options: Mapping[str, Any] | None = None,
        versions: Mapping[str, str] | None = None,
        made_from: Collection[str] | None = None,
        plans: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Record a step and give it all files staged since the last one.

        Everything that the same step left before goes, and everything that a later step made
        from it.

        Args:
            step: A kind of ``STEP_KINDS``, or ``kind:variant`` where several stand side by side.
            key: From ``step_key``; what ``is_current`` compares.
            options: What the user asked for, as plain JSON.
            versions: Packages that shaped the result.
            made_from: Earlier steps that went into it; all of an earlier kind if None.
            plans: Plans made by this step: key -> backend, placement and what was measured.
        """
        rank = names.step_rank(step)
        if rank is None:
            raise ValueError(f"step {step!r}: expected a kind of {names.STEP_KINDS}")
        self._drop(step)
        earlier = {name for name in self._steps if (names.step_rank(name) or 0) < rank}
        sources = earlier if made_from is None else set(made_from)
        if not sources <= earlier:
            raise ValueError(f"step {step}: {sorted(sources - earlier)} are no earlier steps")
        self._steps[step] = {
            "key": key,
            "options": plain(options or {}, "options"),
            "versions": plain(versions or {}, "versions"),
            "made_from": {name: self._steps[name]["key"] for name in sorted(sources)},
            "files": self._own_staged(step),
            "finished": self._now(),
        }
        for name, plan in (plans or {}).items():
            owner = self._plans.get(name, {}).get("step", step)
            if owner != step:
                raise ValueError(f"step {step}: plan {name} belongs to step {owner}")
            self._plans[name] = {**plain(plan, f"plan {name}"), "step": step}
        self._finished.add(step)
        self._changed = True

    def drop_step(self, step: str) -> None:
        """Remove a step with its files and plans, and everything that was made from it."""
        if step not in self._steps:
            raise ValueError(f"step {step}: the deployment has none of this name")
        self._drop(step)
        self._changed = True

    def _load(self, base: Manifest) -> None:
        """Start from what is there."""
        self._base = base
        self._steps = dict(base.steps)
        self._plans = dict(base.plans)
        self._artifacts = dict(base.artifacts)

    def _own_staged(self, step: str) -> list[str]:
        files = sorted(name for name, owner in self._staged.items() if owner is None)
        for name in files:
            owner = self._artifacts.get(name, {}).get("step", step)
            if owner != step:
                raise ValueError(f"step {step}: {name} belongs to step {owner}")
            self._staged[name] = step
        return files

    def _drop(self, step: str) -> None:
        gone = {step}
        while True:  # what was made from it, what was made from that, ...
            more = {name for name, rec in self._steps.items() if gone & set(rec["made_from"])}
            if more <= gone:
                break
            gone |= more
        late = gone & self._finished
        if late:
            raise ValueError(f"step {step}: {sorted(late)} were finished before it; wrong order")
        self._dropped |= gone
        self._steps = {k: record for k, record in self._steps.items() if k not in gone}
        self._plans = {k: plan for k, plan in self._plans.items() if plan["step"] not in gone}
        self._artifacts = {k: a for k, a in self._artifacts.items() if a["step"] not in gone}

    def _now(self) -> str:
        """The time, but later than what was written last, for a clock may be set back."""
        now = datetime.now(timezone.utc)
        if self._base is not None:
            with suppress(ValueError, TypeError, OverflowError):  # a time that nobody can read
                last = datetime.fromisoformat(self._base.written)
                now = max(now, last + timedelta(microseconds=1))
        return now.isoformat(timespec="microseconds")

    def _manifest(self) -> Manifest:
        fields: dict[str, Any] = dict.fromkeys(("preprocessing", "labels", "input_size"))
        fields["source"] = {}
        base = self._base
        if base is not None:
            fields["spec"] = base.spec
            if "fuse" not in self._dropped:
                fields["preprocessing"] = base.preprocessing
                fields["labels"] = base.labels
                fields["source"] = base.source
            if not {"fuse", "export"} & self._dropped:
                fields["input_size"] = base.input_size
        fields.update(self._about)
        if "spec" not in fields:
            raise ValueError("a deployment needs its network: describe(spec=...)")
        return Manifest(
            **fields,
            steps=self._steps,
            plans=self._plans,
            artifacts=self._artifacts,
            written=self._now(),
            writer=f"parnet-deploy {__version__}",
        )
