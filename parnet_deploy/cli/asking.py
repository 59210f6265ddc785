"""How to ask a server that has just started: a command that works when it is pasted."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..serve.server.options import ServerOptions

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # addresses to listen at, none to connect to


def curl_command(
    options: ServerOptions, address: str, port: int, model: str, token_file: Path | None
) -> str:
    """Curl on this machine, for the card of a model.

    Args:
        options: As the server was started.
        address: Where it listens, as numbers.
        port: Of REST.
        model: Its name.
        token_file: Where the token is, if there is one; None: in the variable.
    """
    from ..serve.security.token import VARIABLE

    parts = ["curl"]
    host = _EVERYWHERE.get(address, address)
    tls = options.tls
    if tls is not None:
        host = "localhost" if host != address else options.host  # a name is in the certificate
        parts += ["--cacert", shlex.quote(str(tls.certificate))]
        if tls.client_ca is not None:
            parts += ["--cert", "CLIENT.pem", "--key", "CLIENT.key"]
    if options.token is not None:
        secret = f"${VARIABLE}" if token_file is None else f"$(cat {shlex.quote(str(token_file))})"
        parts += ["-H", f'"Authorization: Bearer {secret}"']
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    scheme = "http" if tls is None else "https"
    return " ".join([*parts, f"{scheme}://{host}:{port}/v2/models/{model}"])
