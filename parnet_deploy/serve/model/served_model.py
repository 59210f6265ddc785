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
            DeploymentError: There is none, it was changed, or it is rewritten all the time.
            BackendError: No plan of it runs here.
            CheckFailedError: The canary gave other logits than when the plan was built.
        """
        for _ in range(_ATTEMPTS):
            found = Deployment.open(options.path)
            runtime = Runtime.open(
                options.path,
                backend=options.backend,
                plan=options.plan,
                slots=options.slots,
                threads=options.threads,
                on_device_lost=options.on_device_lost,
                packed_devices=options.packed_devices,
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

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of a batch; see ``Runtime``."""
        return self.runtime(images)

    def close(self) -> None:
        """Wait for the runs in flight, then free the engines. Idempotent."""
        self.runtime.close()

    @classmethod
    def _describe(cls, options: ModelOptions, found: Deployment, runtime: Runtime) -> ServedModel:
        about = runtime.describe()
        signature = Signature(
            model=options.name or found.name,
            spec=runtime.spec,
            size=runtime.input_size,
            max_batch=runtime.max_batch,
            preprocessing=_preprocessing(found, runtime),
            labels=found.labels,
        )
        return cls(
            options=options,
            signature=signature,
            runtime=runtime,
            digest=found.digest,
            about=about,
            card=model_card(found, about, accepts=signature.inputs) | {"name": signature.model},
            memory_bytes=_engine_bytes(found, about["plan"]) + about["program"]["buffer_bytes"],
        )


def _preprocessing(found: Deployment, runtime: Runtime) -> Preprocessing | None:
    """How encoded images are prepared; None where they cannot be taken.

    That is: no Pillow, nothing said in the deployment, a network that does not see RGB, or a size
    that the plan does not accept.
    """
    if found.preprocessing is None or importlib.util.find_spec("PIL") is None:
        return None
    if runtime.spec.in_channels != 3:
        return None
    try:
        preprocessing = Preprocessing.from_json(found.preprocessing)
    except SpecError as error:
        raise DeploymentCorruptError(
            f"deployment {found.path}: {error} Build it again: parnet-deploy fuse model.pt."
        ) from error
    try:
        runtime.input_size.check(runtime.spec, preprocessing.height, preprocessing.width)
    except SpecError:
        return None
    return preprocessing


def _engine_bytes(found: Deployment, plan: str) -> int:
    folder = f"plans/{plan}/"
    return sum(a["bytes"] for name, a in found.artifacts.items() if name.startswith(folder))
