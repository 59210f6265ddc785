"""Which images a calibration works with: to calibrate on, to evaluate on, and a noisy set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..deployment import Deployment
from ..errors import SpecError
from ..steps import Progress
from .calibrate_step import DEFAULT_SAMPLES, read_preprocessing
from .calibration_set import ImageSet, LoadedSet, find_image_set, load_set
from .gates import CLEAN, NOISY

HELD_OUT_EVERY = 4  # of the given images, if there are no others to evaluate on
NOISE_SIGMA = 0.25  # of a noisy set that is made, in normalised units


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Where a set comes from: files and folders, or a CSV of files and labels."""

    paths: tuple[Path, ...] = ()
    table: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.paths) or self.table is not None


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Images of a calibration. ``samples`` are calibrated on, ``eval_samples`` evaluated on.

    Without ``evaluation`` every fourth of the calibration images is held out for it; without
    ``noisy`` the evaluation images get Gaussian noise of ``noise`` (0: no noisy set).
    """

    calibration: ImageSource
    evaluation: ImageSource = field(default_factory=ImageSource)
    noisy: ImageSource = field(default_factory=ImageSource)
    samples: int = DEFAULT_SAMPLES
    eval_samples: int = 2000
    noise: float = NOISE_SIGMA

    def __post_init__(self) -> None:
        for name in ("samples", "eval_samples"):
            if getattr(self, name) < 1:
                what = name.replace("_", "-")
                raise SpecError(f"--{what}: got {getattr(self, name)}, expected 1 or more.")
        if not 0 <= self.noise <= 100:
            raise SpecError(f"--noise: got {self.noise}, expected 0 to 100.")


@dataclass(frozen=True, kw_only=True)
class Data:
    """What was loaded: calibration images, and the evaluation sets by name."""

    calibration: LoadedSet
    sets: Mapping[str, LoadedSet]


def load_data(
    directory: Path, options: DataOptions, *, on_stage: Progress = lambda text: None
) -> Data:
    """Find, read and prepare all images.

    Raises:
        InputError: A file is missing, unreadable, of another shape or NaN, or there are too few.
        DeploymentError: The deployment does not say how images are prepared.
    """
    deployment = Deployment.open(directory)
    labels = deployment.labels or tuple(map(str, range(deployment.spec.num_classes)))
    preprocessing = read_preprocessing(deployment)

    def find(name: str, source: ImageSource) -> ImageSet:
        return find_image_set(name, source.paths, labels=labels, table=source.table)

    def load(images: ImageSet, count: int) -> LoadedSet:
        return load_set(
            images.spread(count),
            preprocessing,
            deployment.spec,
            on_image=lambda done, total: on_stage(f"{images.name} {done} of {total}"),
        )

    calibration = find("calibration", options.calibration)
    if options.evaluation:
        evaluation = find("evaluation", options.evaluation)
    else:
        calibration, evaluation = calibration.split(HELD_OUT_EVERY)
    clean = load(evaluation, options.eval_samples)
    sets = {CLEAN: clean}
    if options.noisy:
        sets[NOISY] = load(find("noisy", options.noisy), options.eval_samples)
    elif options.noise:
        sets[NOISY] = clean.with_noise(options.noise)
    return Data(calibration=load(calibration, options.samples), sets=sets)


def resolve_targets(asked: Sequence[str], *, gpu: bool) -> tuple[str, ...]:
    """Targets by the names a user gives: "int8" is what engines of this machine take.

    Args:
        asked: Names; none at all means everything that is of use here.
        gpu: Whether the machine has one.

    Raises:
        SpecError: There is no such precision.
    """
    every = ("fp16", "int8-cpu", "int8-trt")
    usual = every if gpu else ("int8-cpu",)
    int8 = tuple(name for name in usual if name.startswith("int8"))
    groups = {"": usual, "all": every, "int8": int8, **{name: (name,) for name in every}}
    found: list[str] = []
    for name in asked or ("",):
        if name not in groups:
            expected = ", ".join(key for key in groups if key)
            raise SpecError(f"precision: got {name!r}, expected one of {expected}.")
        found += groups[name]
    return tuple(dict.fromkeys(found))
