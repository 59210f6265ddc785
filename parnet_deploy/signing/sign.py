"""Signs a deployment, and says of one who has."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..deployment import Deployment
from ..errors import DeploymentCorruptError, DeploymentError, ParnetDeployError
from ..storage.signature import Signature
from .keys import PrivateKey
from .trust import VARIABLE, find_trust

State = Literal["unsigned", "unchecked", "trusted", "refused"]


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What is known of a deployment's signature. ``key``: the fingerprint that it names.

    "unchecked": nobody said whom to trust, or that could not be found out. ``required``: whether
    keys are trusted here, so that what none of them has signed is not run.
    """

    state: State
    key: str | None
    required: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def sign_deployment(directory: str | Path, key: PrivateKey) -> Signature:
    """Sign what is there; the signature that was there before goes.

    Waits for another writer. Every file is checked first: nothing damaged is signed.

    Raises:
        DeploymentCorruptError: A file is missing or was changed. Nothing was signed.
        DeploymentError: There is no deployment, or the directory cannot be written.
    """
    with Deployment.edit(directory) as txn:
        found = Deployment.open(directory)
        whole = found.verify()
        if not whole:
            bad = (whole.missing + whole.changed)[0]
            raise DeploymentCorruptError(
                f"deployment {directory}: got {bad}, which is missing or was changed, expected "
                "every file as it was written. Build it again, or restore it; then sign."
            )
        if found.uncovered:
            raise DeploymentError(
                f"deployment {directory}: got {found.uncovered[0]} of a step that only reports, "
                "expected it in reports/. Build it again: parnet-deploy fuse model.pt."
            )
        signature = Signature(key=key.fingerprint, value=key.sign(found.statement))
        txn.attach(signature)
    return signature


def examine_signature(found: Deployment) -> Signed:
    """Who has signed, and whether that holds, for people to read: never an error."""
    required = os.environ.get(VARIABLE) is not None

    def signed(state: State, detail: object) -> Signed:
        return Signed(state=state, key=key, required=required, detail=str(detail))

    key = None
    try:
        signature = found.read_signature()
    except DeploymentError as error:
        return signed("refused", error)
    key = None if signature is None else signature.key
    try:
        trust = find_trust()
        if trust is not None:
            return signed("trusted", f"by {trust.check(found)}")
    except DeploymentError as error:
        return signed("unsigned" if key is None else "refused", error)
    except ParnetDeployError as error:  # a key file, or a package that is missing
        return signed("unchecked", error)
    if key is None:
        return signed("unsigned", "no key is trusted, so none is asked for")
    return signed("unchecked", f"it names key {key}; no key is trusted")
