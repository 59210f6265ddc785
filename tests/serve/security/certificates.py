"""Certificates made for one test by openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def openssl(*arguments: str | Path) -> None:
    """Run openssl; skip the test if there is none."""
    command = shutil.which("openssl")
    if command is None:
        pytest.skip("needs the openssl command (Debian: apt install openssl)")
    subprocess.run([command, *map(str, arguments)], check=True, capture_output=True)


def make_authority(folder: Path, name: str) -> Path:
    """An authority's certificate; its key is beside it."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-keyout", key, "-out", certificate, "-subj", f"/CN={name}"),
        *("-addext", "basicConstraints=critical,CA:TRUE"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    return certificate


def make_certificate(folder: Path, name: str, authority: Path) -> tuple[Path, Path]:
    """A certificate for localhost that an authority signed, and its key."""
    key, certificate, wish = (folder / f"{name}.{end}" for end in ("key", "pem", "csr"))
    openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", wish),
        *("-subj", f"/CN={name}"),
    )
    extensions = folder / f"{name}.ext"
    extensions.write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
        "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    openssl(
        *("x509", "-req", "-in", wish, "-CA", authority, "-CAkey", authority.with_suffix(".key")),
        *("-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate),
    )
    return certificate, key
