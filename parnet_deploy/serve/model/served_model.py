"""``ServedModel``: one deployment as it was when it was opened, ready to answer."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...deployment import Deployment
from ...errors import DeploymentChangedError, DeploymentCorruptError, SpecError
from ...preprocess import Preprocessing
from ...runtime.session import Runtime
from ...signing.trust import open_trusted
from .card import model_card
from .options import ModelOptions
from .signature import Signature

_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedModel:
    """Engines and what is known of them. Never changes: a new deployment is a new one.

    ``memory_bytes``: engine files and buffers, what two of them at once need twice.

    Owns: the runtime, until ``close``.
    """

    options: ModelOptions
    signature: Signature
    runtime: Runtime
    digest: str
    about: dict[str, Any]
    card: dict[str, Any]
    memory_bytes: int

    @classmethod
    def open(cls, options: ModelOptions) -> ServedModel:
        """Open a deployment and run its canary. Takes as long as that: not for an event loop.

        Raises:
            DeploymentError: There is none, it was changed, it is rewritten all the time, or keys
                are trusted and none of them has signed it.
            BackendError: No plan of it runs here.
            CheckFailedError: The canary gave other logits than when the plan was built.
        """
        for _ in range(_ATTEMPTS):
            found = open_trusted(options.path, options.trusted_keys)
            runtime = Runtime.open(
                options.path,
                backend=options.backend,
                plan=options.plan,
                slots=options.slots,
                threads=options.threads,
                on_device_lost=options.on_device_lost,
                packed_devices=options.packed_devices,
                trusted_keys=options.trusted_keys,
                timeout_s=options.timeout_s,
                check_finite=options.check_finite,
            )
            try:
                if Deployment.open(options.path).digest == found.digest:
                    return cls._describe(options, found, runtime)
            except BaseException:
                runtime.close()
                raise
            runtime.close()  # these engines need not be those of that manifest
        raise DeploymentChangedError(
            f"deployment {options.path}: it was rewritten {_ATTEMPTS} times while it was opened. "
            "Let the other command finish, then try again."
        )

    @property
    def name(self) -> str:
        """What clients call it."""
        return self.signature.model

    @property
    def backend(self) -> str:
        """What runs the engines."""
        return str(self.about["backend"])

    @property
    def devices(self) -> tuple[int, ...]:
        """Ordinals of the devices of the placement, ascending."""
        segments = self.about["placement"]["segments"]
        return tuple(sorted({int(segment["device"]) for segment in segments}))

    @property
    def warning(self) -> str | None:
        """What whoever serves it should know: that it says how images are prepared, in vain."""
        reason = self.signature.tensors_only
        if reason is None or self.card["preprocessing"] is None:
            return None
        return f"model {self.name}: it takes tensors, not images: {reason}"

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of a batch; see ``Runtime``."""
        return self.runtime(images)

    def prove(self) -> None:
        """Run the canary again; see ``Runtime.prove``. Takes as long as a run."""
        self.runtime.prove()

    @property
    def is_stuck(self) -> bool:
        """Whether no run can begin, because of engines that do not come back."""
        return self.runtime.stuck >= self.options.slots

    def close(self) -> None:
        """Wait for the runs in flight, then free the engines. Idempotent."""
        self.runtime.close()

    @classmethod
    def _describe(cls, options: ModelOptions, found: Deployment, runtime: Runtime) -> ServedModel:
        about = runtime.describe()
        preprocessing, tensors_only = _preprocessing(found, runtime)
        signature = Signature(
            model=options.name or found.name,
            spec=runtime.spec,
            size=runtime.input_size,
            max_batch=runtime.max_batch,
            preprocessing=preprocessing,
            labels=found.labels,
            tensors_only=tensors_only,
        )
        return cls(
            options=options,
            signature=signature,
            runtime=runtime,
            digest=found.digest,
            about=about,
            card=model_card(found, about, accepts=signature.inputs)
            | {"name": signature.model, "tensors_only": tensors_only},
            memory_bytes=_engine_bytes(found, about["plan"]) + about["program"]["buffer_bytes"],
        )


def _preprocessing(found: Deployment, runtime: Runtime) -> tuple[Preprocessing | None, str | None]:
    """How encoded images are prepared; or None, and why they cannot be taken."""
    if found.preprocessing is None:
        return None, "its deployment has no preprocessing"
    if importlib.util.find_spec("PIL") is None:
        return None, "pillow is not installed (pip install 'parnet-deploy[images]')"
    if runtime.spec.in_channels != 3:
        return None, f"its network sees {runtime.spec.in_channels} channels, not RGB"
    try:
        preprocessing = Preprocessing.from_json(found.preprocessing)
    except SpecError as error:
        raise DeploymentCorruptError(
            f"deployment {found.path}: {error} Build it again: parnet-deploy fuse model.pt."
        ) from error
    try:
        runtime.input_size.check(runtime.spec, preprocessing.height, preprocessing.width)
    except SpecError:
        size = f"{preprocessing.height}x{preprocessing.width}"
        return None, f"its preprocessing makes {size}, its plan takes {runtime.input_size}"
    return preprocessing, None


def _engine_bytes(found: Deployment, plan: str) -> int:
    folder = f"plans/{plan}/"
    return sum(a["bytes"] for name, a in found.artifacts.items() if name.startswith(folder))
