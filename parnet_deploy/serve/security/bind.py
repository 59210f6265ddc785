"""Where the server may listen: the machine itself, or anywhere if it is protected."""

from __future__ import annotations

import ipaddress
import socket

from ...errors import ServeError


def resolve_host(host: str) -> str:
    """The address to listen at, as numbers: names are looked up once, here, and never again.

    Of a name with several addresses, a loopback one comes first and IPv4 before IPv6, so that
    "localhost" is 127.0.0.1.

    Raises:
        ServeError: The name is not known, or there is none.
    """
    bare = host.strip().removeprefix("[").removesuffix("]")
    if not bare:
        raise ServeError(
            f"host: got {host!r}, expected an address or name. For every interface: --host 0.0.0.0."
        )
    try:
        found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ServeError(
            f"host {host}: got a name that is not known ({error}), expected an address of this "
            "machine. Use 127.0.0.1, or an address that `ip address` lists."
        ) from error
    addresses = [str(entry[4][0]) for entry in found]
    return min(addresses, key=lambda text: (not is_loopback(text), ":" in text))


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def check_exposure(host: str, address: str, *, protected: bool, insecure: bool) -> None:
    """Hold the bind rule.

    Args:
        host: As the user wrote it.
        address: What it was resolved to.
        protected: There is a token, or TLS.
        insecure: The user says that it is protected otherwise.

    Raises:
        ServeError: Other machines could ask, and nothing protects it.
    """
    if is_loopback(address) or protected or insecure:
        return
    raise ServeError(
        f"host {host}: got {address}, which other machines can reach, and neither a token nor TLS, "
        "expected one of them. Add --token-file, or --tls-cert and --tls-key, or --insecure if "
        "something in front of it protects it."
    )
