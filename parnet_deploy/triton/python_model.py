"""The model that Triton's python backend runs: a copy of a deployment, answered by ``Runtime``.

``triton_python_backend_utils`` exists only inside Triton's process, so it is imported there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import (
    BackendError,
    DeviceLostError,
    InputError,
    MissingExtraError,
    OutOfMemoryError,
    ParnetDeployError,
    SpecError,
)
from ..machine.cores import usable_cores
from ..preprocess import Preprocessing, load_image
from ..runtime.session import Runtime
from ..signing.trust import open_trusted
from ..spec import IMAGE, LOGITS
from .answers import answer_all
from .config import ENCODED, PLAN_PARAMETER

_LOG = logging.getLogger(__name__)

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (InputError, "INVALID_ARG"),
    (SpecError, "INVALID_ARG"),
    (MissingExtraError, "UNSUPPORTED"),
    (DeviceLostError, "UNAVAILABLE"),
    (OutOfMemoryError, "UNAVAILABLE"),
)
"""Our errors as Triton's codes; any other is INTERNAL."""


class TritonPythonModel:
    """One instance, in a process of its own. Triton calls ``execute`` from one thread.

    Owns: the runtime, from ``initialize`` to ``finalize``.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the deployment; Triton reports what is raised as the reason not to be ready.

        Raises:
            ParnetDeployError: It cannot be opened here, or answers another contract than that of
                the configuration.
        """
        self._utils = import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"], args["model_version"], "deployment")
        plan = config.get("parameters", {}).get(PLAN_PARAMETER, {}).get("string_value")
        replicas = sum(int(group["count"]) for group in config["instance_group"])
        threads = max(1, usable_cores() // replicas) if replicas > 1 else None
        self._preprocessing = _preprocessing(path, config)
        self._runtime = Runtime.open(path, plan=plan, threads=threads, on_device_lost="replan")
        largest = int(config["max_batch_size"])
        if largest > self._runtime.max_batch:
            found = self._runtime.max_batch
            self._runtime.close()
            raise BackendError(
                f"model {args['model_name']}: got a plan for batches up to {found}, expected "
                f"{largest}, the max_batch_size of config.pbtxt. Export it again with --plan."
            )
        _LOG.info("%s answers with plan %s", args["model_name"], self._runtime.describe()["plan"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request, logits or an error."""
        images = [self._read(request) for request in requests]
        answers = answer_all(self._runtime, images, self._runtime.max_batch)
        return [self._respond(answer) for answer in answers]

    def finalize(self) -> None:
        """Free the runtime. Triton calls it once, also after a failed ``initialize``."""
        runtime = getattr(self, "_runtime", None)
        if runtime is not None:
            runtime.close()

    def _read(self, request: Any) -> NDArray[np.float32] | Exception:
        """The images of a request, or what is wrong with it."""
        try:
            given = {
                name: tensor
                for name in (IMAGE, ENCODED)
                if (tensor := self._utils.get_input_tensor_by_name(request, name)) is not None
            }
            if len(given) != 1:
                got = " and ".join(given) or "neither"
                raise InputError(
                    f"inputs: got {got}, expected exactly one of {IMAGE} and {ENCODED}. "
                    "Send one of them."
                )
            if IMAGE in given:
                found: NDArray[np.float32] = given[IMAGE].as_numpy()
                return found
            return self._decode(given[ENCODED].as_numpy())
        except Exception as error:  # a request never ends the process
            return error

    def _decode(self, files: NDArray[Any]) -> NDArray[np.float32]:
        if self._preprocessing is None:
            raise InputError(
                f"input {ENCODED}: got image files, expected {IMAGE}: the deployment does not say "
                "how an image is prepared. Send the tensor."
            )
        flat = [bytes(file) for file in files.reshape(-1)]
        if not flat:
            raise InputError(f"input {ENCODED}: got no file, expected one or more. Send some.")
        return np.stack([load_image(file, self._preprocessing) for file in flat])

    def _respond(self, answer: NDArray[np.float32] | Exception) -> Any:
        if not isinstance(answer, Exception):
            tensor = self._utils.Tensor(LOGITS, answer)
            return self._utils.InferenceResponse(output_tensors=[tensor])
        code = next((name for kind, name in _CODES if isinstance(answer, kind)), "INTERNAL")
        if isinstance(answer, ParnetDeployError):
            text = str(answer)
        else:  # a bug: the log gets all of it, the client no inside
            _LOG.error("request failed", exc_info=answer)
            text = f"model: internal error ({type(answer).__name__}). See the server's log."
        error = self._utils.TritonError(text, getattr(self._utils.TritonError, code))
        return self._utils.InferenceResponse(output_tensors=[], error=error)


def _preprocessing(path: Path, config: Mapping[str, Any]) -> Preprocessing | None:
    """How image files are prepared, if the configuration offers that; Pillow must be there."""
    if not any(entry["name"] == ENCODED for entry in config["input"]):
        return None
    try:
        import_module("PIL.Image")
    except ModuleNotFoundError as error:
        raise MissingExtraError("pillow", "images") from error
    about = open_trusted(path).preprocessing
    return None if about is None else Preprocessing.from_json(about)
