"""Signs a deployment, and says of one who has."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..deployment import Deployment
from ..errors import DeploymentCorruptError, DeploymentError, ParnetDeployError
from ..storage.signature import Signature
from .keys import PrivateKey
from .trust import find_trust

State = Literal["unsigned", "unchecked", "trusted", "refused"]


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What is known of a deployment's signature. ``key``: the fingerprint that it names.

    "unchecked": there is one, and nobody said whom to trust (or it could not be found out).
    """

    state: State
    key: str | None
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
    try:
        signature = found.read_signature()
        key = None if signature is None else signature.key
    except DeploymentError as error:
        return Signed(state="refused", key=None, detail=str(error))
    try:
        trust = find_trust()
    except ParnetDeployError as error:
        return Signed(state="unchecked", key=key, detail=str(error))
    if trust is None:
        detail = "not signed" if key is None else f"names key {key}; nobody says whom to trust"
        return Signed(state="unsigned" if key is None else "unchecked", key=key, detail=detail)
    try:
        trust.check(found)
    except ParnetDeployError as error:
        state: State = "unsigned" if key is None else "refused"
        return Signed(state=state, key=key, detail=str(error))
    return Signed(state="trusted", key=key, detail=f"by {key}, which is trusted")
