"""TLS for both wires: the server's certificate and, if wanted, the clients' authority."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from ...errors import ServeError


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files. ``client_ca``: who must have signed a client's certificate; None: none is asked.

    Only TLS 1.2 and later are spoken.
    """

    certificate: Path  # with the chain, the server's own first
    key: Path
    client_ca: Path | None = None

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """Certificate, key and authority as they are now.

        Raises:
            ServeError: One cannot be read.
        """
        authority = None if self.client_ca is None else _read("client CA", self.client_ca)
        return _read("certificate", self.certificate), _read("key", self.key), authority

    def context(self) -> ssl.SSLContext:
        """What asyncio needs.

        Raises:
            ServeError: A file cannot be read or is not what it should be, or key and certificate do
                not belong together.
        """
        certificate, key, authority = self.read()
        _check_certificates("certificate", self.certificate, certificate)
        _check_key(self.key, key)
        if self.client_ca is not None and authority is not None:
            _check_certificates("client CA", self.client_ca, authority)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (ssl.SSLError, OSError) as error:
            raise ServeError(
                f"key {self.key}: got {_reason(error)}, expected the key of certificate "
                f"{self.certificate}. Check it: openssl pkey -in FILE -noout -check."
            ) from error
        return context


def _no_password() -> bytes:
    """Instead of the terminal prompt that OpenSSL would show."""
    return b""


def _check_certificates(what: str, path: Path, content: bytes) -> None:
    try:
        if b"CERTIFICATE-----" not in content:
            raise ssl.SSLError("no PEM certificate")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise ServeError(
            f"{what} {path}: got {_reason(error)}, expected certificates as PEM. Check it: openssl "
            "x509 -in FILE -noout -text."
        ) from error


def _check_key(path: Path, content: bytes) -> None:
    if b"PRIVATE KEY-----" not in content:
        raise ServeError(
            f"key {path}: got no PEM key, expected the certificate's private key. Name the right "
            "file."
        )
    if b"ENCRYPTED" in content:
        raise ServeError(
            f"key {path}: got one that is encrypted, expected one without a passphrase. Make one "
            f"that only you can read: (umask 077; openssl pkey -in {path} -out PLAIN.key)."
        )


def _read(what: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServeError(
            f"{what} {path}: got {error.strerror or error}, expected a PEM file that can be read. "
            "Name the right one."
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
