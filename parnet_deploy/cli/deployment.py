"""The verb ``deployment``: keys, signing, and the check of a signature."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from . import render
from .options import Common, deployment_argument, verb

_EPILOG = """\b
Examples:
  parnet-deploy deployment keygen --key private.pem --public public.pem
  parnet-deploy deployment sign digits --key private.pem
  parnet-deploy deployment verify digits --trusted-key public.pem

\b
Where PARNET_TRUSTED_KEYS names public keys (files, or directories of .pem files), whatever runs a
deployment refuses one that none of them has signed.
"""


@click.group(epilog=_EPILOG)
def command() -> None:
    """Say who made a deployment: sign it, or check who has."""


_KEYGEN_EPILOG = """\b
Example:
  parnet-deploy deployment keygen --key private.pem --public public.pem --encrypt

\b
The passphrase is asked for, or taken from PARNET_KEY_PASSPHRASE. Keep the private key where nothing
is served; give the public one to whoever is to trust it.

\b
JSON: private, public, key (the fingerprint).
"""


@command.command(epilog=_KEYGEN_EPILOG)
@click.option("--key", "private", required=True, metavar="FILE", help="The private key to make.")
@click.option("--public", required=True, metavar="FILE", help="The public key to make.")
@click.option("--encrypt", is_flag=True, help="Encrypt the private key with a passphrase.")
@verb
def keygen(common: Common, private: str, public: str, encrypt: bool) -> None:
    """Make a pair of Ed25519 keys."""
    from ..signing.keys import PASSPHRASE, generate_keys

    passphrase = None
    if encrypt:
        passphrase = os.environ.get(PASSPHRASE) or ask_passphrase(confirm=True)
        if not passphrase:
            raise click.UsageError(f"--encrypt needs a passphrase: a terminal, or {PASSPHRASE}.")
    key = generate_keys(Path(private), Path(public), passphrase=passphrase)
    document = {"private": private, "public": public, "key": key}
    common.output.result(
        document,
        render.facts([("key", key), ("private", private), ("public", public)]),
        "",
        render.next_step((f"parnet-deploy deployment sign --key {private}", "")),
    )


_SIGN_EPILOG = """\b
Example:
  parnet-deploy deployment sign digits --key private.pem

\b
Signed is all that shapes an answer. Reports of verify and bench may come later; whatever else is
changed is unsigned again.

\b
JSON: deployment, key (the fingerprint), signature.
"""


@command.command(epilog=_SIGN_EPILOG)
@deployment_argument
@click.option("--key", "private", required=True, metavar="FILE", help="Your private key.")
@verb
def sign(common: Common, deployment: str | None, private: str) -> None:
    """Sign a deployment, after a check of every file."""
    from ..signing.keys import read_private_key
    from ..signing.sign import sign_deployment

    directory = common.find(deployment)
    key = read_private_key(Path(private), ask_passphrase)
    signature = sign_deployment(directory, key)
    document = {
        "deployment": str(directory),
        "key": signature.key,
        "signature": signature.value.hex(),
    }
    common.output.result(
        document,
        render.heading(directory.name, f"signed, in {render.printable(directory)}"),
        render.facts([("key", signature.key)]),
    )


_VERIFY_EPILOG = """\b
Example:
  parnet-deploy deployment verify digits --trusted-key public.pem

\b
JSON: deployment, trusted, key (the fingerprint, or null), detail, integrity (ok, missing, changed,
foreign).

\b
Exit code 3 if no trusted key has signed it as it is, or a file is missing or was changed.
"""


@command.command(epilog=_VERIFY_EPILOG)
@deployment_argument
@click.option(
    "--trusted-key",
    "trusted",
    multiple=True,
    metavar="FILE",
    help="A public key, or a directory of .pem files.  [default: PARNET_TRUSTED_KEYS]",
)
@verb
def verify(common: Common, deployment: str | None, trusted: tuple[str, ...]) -> None:
    """Check who has signed a deployment, and every file in it."""
    from ..deployment import Deployment
    from ..errors import DeploymentUntrustedError
    from ..signing.trust import VARIABLE, find_trust

    trust = find_trust(trusted or None)
    if trust is None:
        raise click.UsageError(f"Name whom to trust: --trusted-key FILE, or {VARIABLE}.")
    directory = common.find(deployment)
    opened = Deployment.open(directory)
    key, detail = None, ""
    try:
        key = trust.check(opened)
    except DeploymentUntrustedError as error:
        detail = str(error)
    whole = opened.verify()
    good = key is not None and bool(whole)
    if key is not None and not whole:
        detail = f"missing or changed: {', '.join(whole.missing + whole.changed)}"
    document = {
        "deployment": str(directory),
        "trusted": good,
        "key": key,
        "detail": detail,
        "integrity": {"ok": bool(whole), **vars(whole)},
    }
    said = f"signed by {key}, {len(opened.artifacts)} files as they were signed"
    common.output.result(
        document,
        render.heading(directory.name, render.printable(directory)),
        *render.lines(
            render.OK if good else render.FAILED,
            "ok" if good else "bad",
            [said if good else detail],
        ),
    )
    if not good:
        raise click.exceptions.Exit(3)


def ask_passphrase(*, confirm: bool = False) -> str | None:
    """Ask the terminal for a passphrase; None if there is none to ask."""
    if not has_terminal():
        return None
    text: str = click.prompt(
        "Passphrase of the key", hide_input=True, confirmation_prompt=confirm, err=True
    )
    return text


def has_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()
