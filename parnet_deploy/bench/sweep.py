"""Scaling curves: how long a call takes over batch, threads, image size or variant.

All points of a curve are timed in turns, each in a process of its own: what slows the machine
slows them all, so a curve has no steps that are only weather.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..contest.arm import ArmSpec
from ..contest.contest import Contest
from ..contest.entrant import Question
from ..errors import ExecutionError, ParnetDeployError, SpecError
from ..machine.cores import usable_cores
from ..reference import random_image
from ..runtime.backend import on_host
from ..runtime.session import Runtime
from ..signing.trust import open_trusted
from ..steps import Progress, read_reference
from .arms.table import arm_spec
from .result import OURS, Curve, CurvePoint
from .statistics import block_length, interval

Over = Literal["batch", "threads", "size", "variant"]
AXES: tuple[Over, ...] = ("batch", "threads", "size", "variant")
_ANOTHER_SIZE = "parnet_deploy.bench.arms.ours:open_at_another_size"


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """``variants`` are directories of other deployments. ``budget_s`` is of each curve."""

    over: tuple[Over, ...] = AXES
    batches: tuple[int, ...] = (1, 2, 4, 8)
    threads: tuple[int, ...] = (1, 2)
    sizes: tuple[int, ...] = (192, 224, 256)
    variants: tuple[Path, ...] = ()
    plan: str | None = None
    backend: str | None = None
    budget_s: float = 10.0
    rounds: int | None = None

    def __post_init__(self) -> None:
        unknown = set(self.over) - set(AXES)
        if unknown:
            raise SpecError(f"sweep: got {', '.join(unknown)}, expected {', '.join(AXES)}.")
        if min((*self.batches, *self.threads, *self.sizes), default=1) < 1:
            raise SpecError("sweep: batches, threads and sizes must be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class _Points:
    """What there is to time on one curve, and what cannot be."""

    specs: list[ArmSpec] = field(default_factory=list)
    questions: dict[str, Question] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, value: str, spec: ArmSpec, question: Question) -> None:
        """A point is an arm that is named like its value."""
        self.specs.append(replace(spec, name=value))
        self.questions[value] = question


class _Subject:
    """The deployment whose curves are drawn: a plan of it, and how its points are opened."""

    def __init__(self, directory: Path, plan: str | None, backend: str | None) -> None:
        deployment = open_trusted(directory)
        reference = read_reference(deployment)
        self.directory, self.spec = directory, deployment.spec
        self.question = Question(image=reference.image, logits=reference.logits)
        with Runtime.open(directory, plan=plan, backend=backend) as runtime:
            about = runtime.describe()
            self.max_batch, self.input_size = runtime.max_batch, runtime.input_size
        self.plan, self.backend = about["plan"], about["backend"]
        self.threads = about["facts"].get("cores") or usable_cores()

    def arm(self, **changed: int) -> ArmSpec:
        """Our arm, with other threads if they are given."""
        return arm_spec(
            OURS,
            self.directory,
            plan=self.plan,
            batch=1,
            size=(self.question.image.shape[2], self.question.image.shape[3]),
            classes=self.spec.num_classes,
            threads=changed.get("threads", self.threads),
        )


def sweep(
    directory: Path,
    options: SweepOptions | None = None,
    *,
    on_stage: Progress = lambda text: None,
) -> list[Curve]:
    """Draw the curves that the options ask for.

    Args:
        directory: The deployment, built.
        options: Which curves, and how long each is timed.
        on_stage: Called with what is being done, for progress.

    Returns: One curve for each of ``options.over``. What cannot run here is in its ``left_out``.

    Raises:
        CheckFailedError: A point computes something else.
        BackendError: No plan of the deployment runs on this machine.
    """
    options = options or SweepOptions()
    subject = _Subject(directory, options.plan, options.backend)
    return [_curve(over, subject, options, on_stage) for over in options.over]


def _curve(over: Over, subject: _Subject, options: SweepOptions, on_stage: Progress) -> Curve:
    points = {
        "batch": lambda: _batches(subject, options.batches),
        "threads": lambda: _threads(subject, options.threads),
        "size": lambda: _sizes(subject, options.sizes),
        "variant": lambda: _variants(subject, options.variants, options.backend),
    }[over]()
    found: list[CurvePoint] = []
    if points.specs:
        image = subject.question.image
        contest = Contest(
            points.specs,
            image,
            None,
            questions=points.questions,
            required=(),
            on_stage=lambda text: on_stage(f"curve over {over}: {text}"),
        )
        with contest:
            contest.check()
            points.left_out.update(contest.left_out)
            samples: Mapping[str, Sequence[float]] = {}
            if contest.entrants:
                try:
                    samples = contest.rounds("saturated", options.rounds, options.budget_s)
                except ExecutionError as error:  # what else was measured stands without it
                    points.left_out.update(dict.fromkeys(contest.entrants, str(error)))
            notes = {name: entrant.note for name, entrant in contest.entrants.items()}
        found = list(_timed(over, samples, contest.calls, points.questions, notes))
    return Curve(over=over, points=found, left_out=points.left_out)


def _timed(
    over: Over,
    samples: Mapping[str, Sequence[float]],
    calls: int,
    questions: Mapping[str, Question],
    notes: Mapping[str, str],
) -> Iterator[CurvePoint]:
    for value, taken in samples.items():
        found = interval(taken, block=max(calls, block_length(taken)))
        images = len(questions[value].image)
        note = notes[value] if over == "variant" else ""
        if over == "batch":
            note = f"{found['value'] / images:.3g} ms an image"
        yield CurvePoint(value=value, ms=found, note=note)


def _batches(subject: _Subject, batches: Sequence[int]) -> _Points:
    points, one = _Points(), subject.question
    for batch in batches:
        if batch > subject.max_batch:
            points.left_out[str(batch)] = (
                f"the plan takes {subject.max_batch} at most; "
                f"run: parnet-deploy build --max-batch {batch}"
            )
            continue
        images, logits = one.image.repeat(batch, axis=0), one.logits
        repeated = None if logits is None else logits.repeat(batch, axis=0)
        points.add(str(batch), subject.arm(), Question(image=images, logits=repeated))
    return points


def _threads(subject: _Subject, counts: Sequence[int]) -> _Points:
    points, cores = _Points(), usable_cores()
    for count in counts:
        if not on_host(subject.backend):
            points.left_out[str(count)] = f"{subject.backend} does not run on CPU threads"
        elif count > cores:
            points.left_out[str(count)] = f"this process may use {cores} cores"
        else:
            points.add(str(count), subject.arm(threads=count), subject.question)
    return points


def _sizes(subject: _Subject, sizes: Sequence[int]) -> _Points:
    points, known = _Points(), subject.question
    for side in sizes:
        try:
            subject.input_size.check(subject.spec, side, side)
        except SpecError as error:
            points.left_out[str(side)] = str(error)
            continue
        if known.image.shape[2:] == (side, side):
            points.add(str(side), subject.arm(), known)
        else:
            image = random_image(subject.spec, side, side)
            spec = replace(subject.arm(), entry=_ANOTHER_SIZE, network="other")
            points.add(str(side), spec, Question(image=image, logits=None))
    return points


def _variants(subject: _Subject, directories: Sequence[Path], backend: str | None) -> _Points:
    points = _Points()
    points.add(subject.directory.name, subject.arm(), subject.question)
    for directory in directories:
        name = directory.name if directory.name not in points.questions else str(directory)
        try:
            other = _Subject(directory, None, backend)
        except ParnetDeployError as error:
            points.left_out[name] = str(error)
        else:
            points.add(name, other.arm(), other.question)
    return points
