"""Ed25519 keys in PEM files. ``cryptography`` is imported when a key is used, not before."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import SigningError
from ..extras import import_for

PASSPHRASE = "PARNET_KEY_PASSPHRASE"
"""Environment variable that may hold the passphrase of a private key."""

MAX_KEY_BYTES = 64 * 1024
FINGERPRINT_DIGITS = 32

_MAKE = "Make a pair: parnet-deploy deployment keygen --key PRIVATE.pem."
_EXTRA = "sign"

AskPassphrase = Callable[[], str | None]


def fingerprint(public: bytes) -> str:
    """What a key is called: the first 32 hex digits of the sha256 of its 32 raw bytes."""
    return hashlib.sha256(public).hexdigest()[:FINGERPRINT_DIGITS]


def generate_keys(private: Path, public: Path, *, passphrase: str | None = None) -> str:
    """Make a pair of key files; nothing is ever overwritten.

    Args:
        private: The private key's file, PKCS 8, for its owner's eyes only.
        public: The public key's file, to be given to those who are to trust it.
        passphrase: Encrypts the private key; None: it lies there in the clear.

    Returns: The fingerprint.

    Raises:
        SigningError: A file is there already, or cannot be written.
        MissingExtraError: ``cryptography`` is not installed.
    """
    serialization, ed25519 = _serialization(), _ed25519()
    key = ed25519.Ed25519PrivateKey.generate()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    cipher = (
        serialization.NoEncryption()
        if passphrase is None
        else serialization.BestAvailableEncryption(passphrase.encode())
    )
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    _write_new(private, key.private_bytes(pem, form, cipher), mode=0o600)
    try:
        _write_new(public, key.public_key().public_bytes(pem, spki), mode=0o644)
    except SigningError:
        private.unlink()  # half a pair is of no use
        raise
    return fingerprint(_raw(key.public_key()))


class PrivateKey:
    """Signs statements; it never shows itself. ``fingerprint`` is that of its public key."""

    def __init__(self, key: Any) -> None:
        self._key = key
        self.fingerprint = fingerprint(_raw(key.public_key()))

    def __repr__(self) -> str:
        return f"PrivateKey({self.fingerprint})"

    def sign(self, data: bytes) -> bytes:
        """64 bytes; the same for the same data."""
        value: bytes = self._key.sign(data)
        return value


def read_private_key(path: Path, ask: AskPassphrase = lambda: None) -> PrivateKey:
    """Read a private key that nobody but its owner can.

    Args:
        path: A PEM file.
        ask: Called for the passphrase if the key is encrypted; None: there is nobody to ask.

    Raises:
        SigningError: It is no such key, others can read it, or the passphrase is wrong.
        MissingExtraError: ``cryptography`` is not installed.
    """
    where = f"private key {path}"
    content, mode = _read(path, where)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SigningError(
            f"{where}: got a file with mode {stat.S_IMODE(mode):04o}, expected one that nobody but "
            f"its owner can use. Run: chmod 600 {path}; and make a new key if others have been in."
        )
    passphrase = _passphrase(where, ask) if b"ENCRYPTED" in content else None
    try:
        key = _serialization().load_pem_private_key(content, password=passphrase)
    except (ValueError, TypeError, _unsupported()) as error:
        wrong = "another passphrase" if passphrase is not None else "something else"
        raise SigningError(
            f"{where}: got {wrong}, expected an Ed25519 key as PEM that opens. {_MAKE}"
        ) from error
    if not isinstance(key, _ed25519().Ed25519PrivateKey):
        raise SigningError(f"{where}: got another kind of key, expected Ed25519. {_MAKE}")
    return PrivateKey(key)


def read_public_key(path: Path) -> bytes:
    """The 32 raw bytes of the one public key in a PEM file.

    Raises:
        SigningError: It is no such key; above all not a private one, which must not lie around.
        MissingExtraError: ``cryptography`` is not installed.
    """
    where = f"public key {path}"
    content, _ = _read(path, where)
    if b"PRIVATE KEY-----" in content:
        raise SigningError(
            f"{where}: got a private key, expected the public one of the pair. Move it away from "
            "where keys are trusted, and name the other file."
        )
    if content.count(b"-----BEGIN") != 1:
        raise SigningError(
            f"{where}: got {content.count(b'-----BEGIN')} PEM blocks, expected one public key. "
            "Put each key in a file of its own."
        )
    try:
        key = _serialization().load_pem_public_key(content)
    except (ValueError, TypeError, _unsupported()) as error:
        raise SigningError(
            f"{where}: got something else, expected an Ed25519 public key as PEM. {_MAKE}"
        ) from error
    if not isinstance(key, _ed25519().Ed25519PublicKey):
        raise SigningError(f"{where}: got another kind of key, expected Ed25519. {_MAKE}")
    return _raw(key)


def is_signature(value: bytes, data: bytes, public: bytes) -> bool:
    """Whether ``value`` is the signature over ``data`` by the key with these 32 bytes."""
    invalid = import_for("cryptography.exceptions", _EXTRA).InvalidSignature
    try:
        _ed25519().Ed25519PublicKey.from_public_bytes(public).verify(value, data)
    except invalid:
        return False
    return True


def _passphrase(where: str, ask: AskPassphrase) -> bytes:
    given = os.environ.get(PASSPHRASE) or ask()
    if not given:
        raise SigningError(
            f"{where}: got no passphrase, expected one, for it is encrypted. Run it in a terminal, "
            f"or set {PASSPHRASE}."
        )
    return given.encode()


def _read(path: Path, where: str) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
    except (OSError, ValueError) as error:  # ValueError: no file name
        reason = getattr(error, "strerror", None) or error
        raise SigningError(
            f"{where}: got {reason}, expected a PEM file that can be read. {_MAKE}"
        ) from error
    if len(content) > MAX_KEY_BYTES:
        raise SigningError(f"{where}: got more than {MAX_KEY_BYTES} bytes, expected a key. {_MAKE}")
    return content, mode


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except OSError as error:
        raise SigningError(
            f"key file {path}: got {error.strerror or error}, expected a new file in a directory "
            "that can be written. Choose another name; a key is never overwritten."
        ) from error


def _raw(public: Any) -> bytes:
    raw: bytes = public.public_bytes_raw()
    return raw


def _ed25519() -> Any:
    return import_for("cryptography.hazmat.primitives.asymmetric.ed25519", _EXTRA)


def _serialization() -> Any:
    return import_for("cryptography.hazmat.primitives.serialization", _EXTRA)


def _unsupported() -> Any:
    return import_for("cryptography.exceptions", _EXTRA).UnsupportedAlgorithm
