"""Whom to trust: public keys, and the check that one of them has signed a deployment.

A signature says who made a deployment and that it was not changed since. It does not say that it
is the newest: an older one that was signed too is taken as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..deployment import Deployment
from ..errors import DeploymentChangedError, DeploymentUntrustedError, SigningError
from .keys import fingerprint, is_signature, read_public_key

VARIABLE = "PARNET_TRUSTED_KEYS"
"""Environment variable: PEM files, and directories of ``*.pem``, with ``os.pathsep`` between."""

KeyPaths = Iterable[str | Path]


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Public keys by their fingerprints. Each of them may have signed; one is enough."""

    keys: Mapping[str, bytes]

    def check(self, found: Deployment) -> str:
        """The fingerprint of the key that has signed the deployment as it was opened.

        Covers the manifest's statement, and so the sha256 of each file, against which the file is
        checked when it is read.

        Raises:
            DeploymentUntrustedError: It is not signed, by another key, or was changed since.
            DeploymentChangedError: Another command rewrote it since it was opened.
        """
        try:
            return self._check(found)
        except DeploymentUntrustedError:
            if Deployment.open(found.path).digest != found.digest:
                raise DeploymentChangedError(
                    f"deployment {found.path}: it was rewritten while its signature was checked. "
                    "Open the deployment again."
                ) from None
            raise

    def _check(self, found: Deployment) -> str:
        where = f"deployment {found.path}"
        signature = found.read_signature()
        names = ", ".join(sorted(self.keys))
        again = f"Sign it: parnet-deploy deployment sign {found.path} --key PRIVATE.pem."
        if signature is None:
            raise DeploymentUntrustedError(
                f"{where}: got no signature, expected one by {names}. {again}"
            )
        if signature.key not in self.keys:
            raise DeploymentUntrustedError(
                f"{where}: got a signature that names key {signature.key}, expected one by "
                f"{names}. Trust that key too if you know whose it is ({VARIABLE}), or sign with "
                "one of those."
            )
        if not is_signature(signature.value, found.statement, self.keys[signature.key]):
            raise DeploymentUntrustedError(
                f"{where}: got a signature that is not of this content, expected the deployment as "
                f"{signature.key} signed it. Restore it from a copy; do not sign what you do not "
                "know."
            )
        if found.uncovered:
            raise DeploymentUntrustedError(
                f"{where}: got {found.uncovered[0]}, which no signature covers, expected reports "
                "only where nothing is signed. Restore it from a copy."
            )
        return signature.key


def read_trust(paths: KeyPaths) -> Trust:
    """Trust the keys in these files, and in the ``*.pem`` of these directories.

    Raises:
        SigningError: There is no key at all, or one of the files is not a public key.
        MissingExtraError: ``cryptography`` is not installed.
    """
    files = [file for path in paths for file in _files(Path(path))]
    keys = {fingerprint(key): key for key in map(read_public_key, files)}
    if not keys:
        raise SigningError(
            "trusted keys: got none, expected one or more public keys as PEM. Name them in "
            f"{VARIABLE} or trusted_keys; if everything is to be run, leave both out."
        )
    return Trust(keys=keys)


def find_trust(paths: KeyPaths | None = None) -> Trust | None:
    """What these paths say, else the environment; None: nobody said, so nothing is checked.

    Raises:
        SigningError: See ``read_trust``; also where the variable is set to nothing.
        MissingExtraError: ``cryptography`` is not installed.
    """
    if paths is not None:
        return read_trust([paths] if isinstance(paths, str | Path) else paths)
    value = os.environ.get(VARIABLE)
    return None if value is None else read_trust(filter(None, value.split(os.pathsep)))


def open_trusted(path: str | Path, paths: KeyPaths | None = None) -> Deployment:
    """``Deployment.open``, for whoever runs it: refused if it should be signed and is not.

    Args:
        path: The directory.
        paths: Public keys to trust; None: those of the environment, if it says so.

    Raises:
        DeploymentUntrustedError: None of the keys has signed it.
        DeploymentError: See ``Deployment.open``.
    """
    trust = find_trust(paths)
    return Deployment.read(path, lambda found: admit(found, trust))


def admit(found: Deployment, trust: Trust | None) -> Deployment:
    """The deployment itself, once it has passed what is asked of it.

    Raises:
        DeploymentUntrustedError: None of the keys has signed it.
    """
    if trust is not None:
        trust.check(found)
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix == ".pem")
