"""Key files: made for their owner's eyes, and refused where they are not what they should be."""

from __future__ import annotations

import builtins
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parnet_deploy.errors import MissingExtraError, SigningError
from parnet_deploy.signing.keys import (
    PASSPHRASE,
    fingerprint,
    generate_keys,
    is_signature,
    read_private_key,
    read_public_key,
)
from tests.signing.keys import make_pair

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")


def test_a_pair_signs_and_checks(tmp_path: Path) -> None:
    pair, other = make_pair(tmp_path, "one"), make_pair(tmp_path, "two")
    public = read_public_key(pair.public)
    value = pair.key.sign(b"data")
    assert len(public) == 32
    assert len(value) == 64
    assert value == pair.key.sign(b"data")
    assert fingerprint(public) == pair.fingerprint == pair.key.fingerprint != other.fingerprint
    assert is_signature(value, b"data", public)
    assert not is_signature(value, b"Data", public)
    assert not is_signature(value[:-1] + bytes([value[-1] ^ 1]), b"data", public)
    assert not is_signature(value, b"data", read_public_key(other.public))


def test_the_vector_of_the_standard() -> None:
    """RFC 8032, section 7.1, test 2: others can check what we sign, and we what they do."""
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    value = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert is_signature(value, b"\x72", public)
    assert not is_signature(value, b"\x73", public)


def test_openssl_reads_them(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    command = ["openssl", "pkey", "-pubin", "-in", str(pair.public), "-noout", "-text"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("needs the program openssl")
    assert "ED25519" in done.stdout.upper()


def test_only_the_owner_can_read_the_private_key(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    assert stat.S_IMODE(pair.private.stat().st_mode) == 0o600
    for mode in (0o640, 0o604, 0o660, 0o644, 0o610):
        pair.private.chmod(mode)
        with pytest.raises(SigningError, match=f"mode {mode:04o}.+chmod 600"):
            read_private_key(pair.private)
    pair.private.chmod(0o400)
    assert pair.key.fingerprint == pair.fingerprint


def test_nothing_is_overwritten_and_no_half_pair_stays(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    before = pair.private.read_bytes(), pair.public.read_bytes()
    with pytest.raises(SigningError, match=r"File exists.+never overwritten"):
        make_pair(tmp_path)
    assert before == (pair.private.read_bytes(), pair.public.read_bytes())
    with pytest.raises(SigningError, match="File exists"):
        generate_keys(tmp_path / "new.key", pair.public)
    assert not (tmp_path / "new.key").exists()


def test_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSPHRASE, raising=False)
    pair = make_pair(tmp_path, passphrase="correct horse")
    assert b"ENCRYPTED" in pair.private.read_bytes()
    with pytest.raises(SigningError, match="got no passphrase"):
        read_private_key(pair.private)
    with pytest.raises(SigningError, match="got another passphrase") as caught:
        read_private_key(pair.private, lambda: "battery staple")
    assert "battery" not in str(caught.value)
    assert read_private_key(pair.private, lambda: "correct horse").fingerprint == pair.fingerprint
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    asked: list[str] = []
    read_private_key(pair.private, lambda: asked.append("asked") or None)
    assert asked == []


def test_a_key_shows_nothing_of_itself(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    assert repr(pair.key) == f"PrivateKey({pair.fingerprint})"
    with pytest.raises(TypeError):
        __import__("pickle").dumps(pair.key)


def other_kind(place: Path) -> tuple[Path, Path]:
    """A pair of X25519 keys, whose files look the same."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (place / "x.key").write_bytes(private)
    (place / "x.key").chmod(0o600)
    (place / "x.pem").write_bytes(public)
    return place / "x.key", place / "x.pem"


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    private, public = other_kind(tmp_path)
    with pytest.raises(SigningError, match="another kind of key, expected Ed25519"):
        read_private_key(private)
    with pytest.raises(SigningError, match="another kind of key, expected Ed25519"):
        read_public_key(public)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got 0 PEM blocks"),
        (b"hello", "got 0 PEM blocks"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "got something else"),
        (b"\0" * 100_000, "got more than 65536 bytes"),
    ],
)
def test_no_key_at_all_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SigningError, match=message):
        read_public_key(path)
    with pytest.raises(SigningError, match=r"expected"):
        read_private_key(path)


def test_a_private_key_is_not_trusted_and_several_in_a_file_are_not_either(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    with pytest.raises(SigningError, match="got a private key, expected the public one"):
        read_public_key(pair.private)
    pair.public.chmod(0o600)
    with pytest.raises(SigningError, match="expected an Ed25519 key"):
        read_private_key(pair.public)
    pair.public.write_bytes(pair.public.read_bytes() * 2)
    with pytest.raises(SigningError, match="got 2 PEM blocks"):
        read_public_key(pair.public)


def test_missing_files(tmp_path: Path) -> None:
    for read in (read_public_key, read_private_key):
        with pytest.raises(SigningError, match=r"No such file.+deployment keygen"):
            read(tmp_path / "none")
        with pytest.raises(SigningError, match="null"):
            read(Path("\0"))
    with pytest.raises(SigningError, match="No such file"):
        generate_keys(tmp_path / "none" / "a", tmp_path / "none" / "b")


def test_without_the_extra_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "cryptography":
            raise ModuleNotFoundError("no", name=name)
        return genuine(name, *args, **more)

    pair = make_pair(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)  # import then raises ModuleNotFoundError
    monkeypatch.setattr(builtins, "__import__", without)
    for use in (lambda: read_public_key(pair.public), lambda: read_private_key(pair.private)):
        with pytest.raises(MissingExtraError, match=r"pip install 'parnet-deploy\[sign\]'"):
            use()
