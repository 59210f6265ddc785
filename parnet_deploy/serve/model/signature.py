"""What a model takes and gives, held against a request before anything is allocated for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...input_size import InputSize
from ...preprocess import Preprocessing
from ...spec import IMAGE, LOGITS, ModelSpec
from ..protocol.refusal import RefusedError
from ..protocol.request import InferInput, InferRequest, WantedOutput

ENCODED = "encoded_image"
VERSION = "1"

Images = NDArray[np.float32]  # (N, C, H, W)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Inputs and outputs of a model.

    ``preprocessing`` is how an encoded image becomes the network's input; None: such images are
    not taken, for the reason ``tensors_only``. ``labels`` name the classes.
    """

    model: str
    spec: ModelSpec
    size: InputSize
    max_batch: int
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    tensors_only: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, of which a request gives exactly one."""
        return (IMAGE,) if self.preprocessing is None else (IMAGE, ENCODED)

    def check_inputs(self, request: InferRequest) -> Images | list[bytes]:
        """The images of a request: an array, or the encoded ones.

        Owns: what the request owns; an array may be a read-only, unaligned view of its body.

        Raises:
            RefusedError: invalid, with what is accepted.
        """
        if len(request.inputs) != 1 or request.inputs[0].name not in self.inputs:
            raise self._wrong_inputs(request.inputs)
        given = request.inputs[0]
        return self._check_encoded(given) if given.name == ENCODED else self._check_image(given)

    def check_outputs(self, request: InferRequest) -> tuple[WantedOutput, ...]:
        """The outputs that a request wants; all of them if it names none.

        Raises:
            RefusedError: invalid: an output that is not there, twice the same, a count below 0.
        """
        if not request.outputs:
            return (WantedOutput(name=LOGITS, binary=request.binary_default),)
        for wanted in request.outputs:
            if wanted.name != LOGITS:
                raise self._invalid(f"output {wanted.name[:100]!r}", LOGITS, "Correct the name")
            if wanted.classification < 0:
                raise self._invalid(
                    f"classification {wanted.classification}", "0 or more", "Correct the count"
                )
        if len(request.outputs) > 1:
            count = f"{len(request.outputs)} times the output {LOGITS}"
            raise self._invalid(count, "it once", "Ask again for the other form")
        return request.outputs

    def check_version(self, version: str) -> None:
        """Refuse a version that is not there; empty means whichever is.

        Raises:
            RefusedError: not-found.
        """
        if version not in ("", VERSION):
            raise RefusedError(
                "not-found",
                f"model {self.model}: got version {version[:100]!r}, expected {VERSION}. "
                "Leave the version out.",
            )

    def _check_image(self, given: InferInput) -> Images:
        if given.datatype != "FP32":
            raise self._invalid(
                f"input {IMAGE} of datatype {given.datatype[:20]}", "FP32", "Convert it"
            )
        shape = given.shape
        if len(shape) != 4 or shape[1] != self.spec.in_channels:
            expected = f"[N, {self.spec.in_channels}, H, W]"
            raise self._invalid(
                f"input {IMAGE} of shape {_shape_text(shape)}",
                expected,
                "Images stand channels first, with a batch axis",
            )
        self._check_batch(IMAGE, shape[0])
        self._check_size(shape[2], shape[3])
        return cast(Images, given.data)

    def _check_encoded(self, given: InferInput) -> list[bytes]:
        if given.datatype != "BYTES":
            raise self._invalid(
                f"input {ENCODED} of datatype {given.datatype[:20]}",
                "BYTES",
                "Send the content of a JPEG or PNG file",
            )
        if len(given.shape) not in (1, 2) or given.shape[1:] not in ((), (1,)):
            raise self._invalid(
                f"input {ENCODED} of shape {_shape_text(given.shape)}",
                "[N]",
                "Send one element for each image",
            )
        self._check_batch(ENCODED, given.shape[0])
        return cast("list[bytes]", given.data)

    def _check_batch(self, name: str, count: int) -> None:
        if not 1 <= count <= self.max_batch:
            expected = "1" if self.max_batch == 1 else f"1 to {self.max_batch}"
            raise self._invalid(f"{count} images in input {name}", expected, "Split the request")

    def _check_size(self, height: int, width: int) -> None:
        (low_h, low_w), (high_h, high_w) = self.size.low, self.size.high
        multiple = self.spec.size_multiple
        inside = low_h <= height <= high_h and low_w <= width <= high_w
        if not inside or height % multiple or width % multiple:
            step = "" if self.size.fixed else f", sides in multiples of {multiple}"
            raise self._invalid(
                f"images of {height}x{width} pixels", f"{self.size}{step}", "Resize the image"
            )

    def _wrong_inputs(self, given: tuple[InferInput, ...]) -> RefusedError:
        names = ", ".join(repr(one.name[:100]) for one in given[:4]) or "no input"
        more = f" and {len(given) - 4} more" if len(given) > 4 else ""
        step = "Correct the request"
        if self.tensors_only is not None and any(one.name == ENCODED for one in given):
            step = f"Send tensors; {ENCODED} is not taken: {self.tensors_only}"
        return self._invalid(
            f"{names}{more}",
            f"exactly one input, {' or '.join(self.inputs)}",
            step,
        )

    def _invalid(self, got: str, expected: str, hint: str) -> RefusedError:
        return RefusedError(
            "invalid", f"model {self.model}: got {got}, expected {expected}. {hint}."
        )


def _shape_text(shape: tuple[int, ...]) -> str:
    more = ", ..." if len(shape) > 8 else ""
    return f"[{', '.join(map(str, shape[:8]))}{more}]"
