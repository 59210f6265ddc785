"""The stored reference of a deployment: an image and the float32 logits every engine must give."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import DeploymentCorruptError
from .spec import ModelSpec

REFERENCE = "reference.npz"


def random_image(spec: ModelSpec, height: int, width: int) -> NDArray[np.float32]:
    """The same standard normal image every time, borders included: (1, C, H, W)."""
    shape = (1, spec.in_channels, height, width)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """``image`` (N, C, H, W) and ``logits`` (N, K), both float32."""

    image: NDArray[np.float32]
    logits: NDArray[np.float32]

    def pack(self) -> bytes:
        """As the bytes of an npz file; ``unpack`` reads them back."""
        buffer = io.BytesIO()
        np.savez(buffer, x=self.image, logits=self.logits)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, data: bytes, where: str) -> Reference:
        """Inverse of ``pack``; no pickle is ever loaded.

        Raises:
            DeploymentCorruptError: The data is not a reference.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                return cls(image=stored["x"], logits=stored["logits"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DeploymentCorruptError(
                f"reference {where}: got {error!r}, expected x and logits. "
                "Run: parnet-deploy export, then parnet-deploy build."
            ) from error
