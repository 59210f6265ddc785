"""The bearer token: from a file or the environment, never from the command line."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from ...errors import ServeError

VARIABLE = "PARNET_DEPLOY_TOKEN"
"""Environment variable that may hold the token."""

LEAST_LENGTH = 16
_LONGEST = 4096
_SCHEME = b"bearer "


class Token:
    """A secret that clients send as ``Authorization: Bearer ...``; it never shows itself.

    ``warning`` says what is wrong with where it came from, if anything.
    """

    def __init__(self, secret: str, *, warning: str | None = None) -> None:
        self._digest = _digest(secret.encode("ascii"))
        self.warning = warning

    def __repr__(self) -> str:
        return "Token(...)"

    def admits(self, authorization: bytes | None) -> bool:
        """Whether this is the header's value of one who knows it. Takes the same time if not."""
        given = authorization or b""
        known_scheme = given[: len(_SCHEME)].lower() == _SCHEME
        same = hmac.compare_digest(_digest(given[len(_SCHEME) :].strip()), self._digest)
        return known_scheme and same


def _digest(secret: bytes) -> bytes:
    """Of one length, so that comparing tells nothing of the secret's."""
    return hashlib.sha256(secret).digest()


def read_token(path: Path | None, environment: Mapping[str, str] = os.environ) -> Token | None:
    """The token of the file, else of the environment; None if there is neither.

    Raises:
        ServeError: The file cannot be read, or what is in it cannot be a token.
    """
    if path is None:
        secret = environment.get(VARIABLE)
        return None if secret is None else Token(_checked(secret, f"variable {VARIABLE}"))
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise ServeError(
            f"token file {path}: got {error.strerror or error}, expected a file that can be read. "
            "Make one: (umask 077; openssl rand -hex 32 > FILE)."
        ) from error
    secret = _checked(content.decode("ascii", "replace"), f"token file {path}")
    others = mode & (stat.S_IRGRP | stat.S_IROTH)
    warning = f"token file {path} can be read by others; chmod 600 {path}" if others else None
    return Token(secret, warning=warning)


def _checked(text: str, where: str) -> str:
    secret = text.strip()
    usable = secret.isascii() and secret.isprintable() and not any(c.isspace() for c in secret)
    if not usable or not LEAST_LENGTH <= len(secret) <= _LONGEST:
        raise ServeError(
            f"{where}: got {len(secret)} characters, expected one word of {LEAST_LENGTH} to "
            f"{_LONGEST} printable ASCII characters. Make one: openssl rand -hex 32."
        )
    return secret
