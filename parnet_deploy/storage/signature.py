"""The file ``deployment.sig`` beside the manifest: who signed it. No cryptography here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeploymentError, DeploymentUntrustedError
from . import names
from .document import seal, unseal
from .files import fsync_path

SIGNATURE_SCHEMA = 1
ALGORITHM = "ed25519"
MAX_SIGNATURE_BYTES = 4096

_KEY = re.compile(r"[0-9a-f]{32}\Z")
_SIGNATURE = re.compile(r"[0-9a-f]{128}\Z")
_AGAIN = "Sign it again: parnet-deploy deployment sign NAME --key PRIVATE.pem."


@dataclass(frozen=True, kw_only=True)
class Signature:
    """``key``: fingerprint of the public key that checks it. ``value``: 64 bytes, over a statement.

    The fingerprint only tells which key to try; what it says proves nothing.
    """

    key: str
    value: bytes

    def render(self) -> bytes:
        """The file's bytes; ``parse`` reads them back."""
        return seal(
            {
                "schema_version": SIGNATURE_SCHEMA,
                "algorithm": ALGORITHM,
                "key": self.key,
                "signature": self.value.hex(),
            }
        )

    @classmethod
    def parse(cls, raw: bytes, where: str) -> Signature:
        """Inverse of ``render``.

        Raises:
            DeploymentUntrustedError: These are not bytes that ``render`` gives.
        """
        try:
            data = unseal(raw, where, schema_version=SIGNATURE_SCHEMA)
        except DeploymentError as error:
            raise DeploymentUntrustedError(
                f"{where}: got one that was edited, damaged or cut off, or is of another version, "
                f"expected it as it was written. {_AGAIN}"
            ) from error
        key, value = data.get("key"), data.get("signature")
        known = set(data) == {"schema_version", "algorithm", "key", "signature", "sha256"}
        if (
            not known
            or data["algorithm"] != ALGORITHM
            or not (isinstance(key, str) and _KEY.match(key))
            or not (isinstance(value, str) and _SIGNATURE.match(value))
        ):
            raise DeploymentUntrustedError(
                f"{where}: got {sorted(data)} with algorithm {data.get('algorithm')!r}, expected a "
                f"signature by an {ALGORITHM} key. {_AGAIN}"
            )
        return cls(key=key, value=bytes.fromhex(value))


def load_signature(root: Path) -> Signature | None:
    """The signature that lies beside the manifest; None if there is none.

    Raises:
        DeploymentUntrustedError: It is not one that this package wrote, or cannot be read.
    """
    path = root / names.SIGNATURE
    where = f"signature {path}"
    if not os.path.lexists(path):
        return None
    try:
        if path.is_symlink():
            raise DeploymentUntrustedError(
                f"{where}: got a symbolic link, expected a file. Copy the deployment as a whole "
                "directory."
            )
        with path.open("rb") as file:
            raw = file.read(MAX_SIGNATURE_BYTES + 1)
    except OSError as error:
        raise DeploymentUntrustedError(
            f"{where}: got {error.strerror or error}, expected a readable file. {_AGAIN}"
        ) from error
    return Signature.parse(raw[:MAX_SIGNATURE_BYTES], where)


def place_signature(draft: Path, root: Path, signature: Signature) -> None:
    """Write the signature by way of a draft on the same file system: the old one or the new.

    Raises:
        OSError: It could not be written; the old one is still there.
    """
    draft.write_bytes(signature.render())
    fsync_path(draft)
    os.replace(draft, root / names.SIGNATURE)
    fsync_path(root)
