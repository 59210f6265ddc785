"""Keys for tests, and a small deployment to sign."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parnet_deploy.signing.keys import PrivateKey, generate_keys, read_private_key


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two key files and the key's fingerprint."""

    private: Path
    public: Path
    fingerprint: str

    @property
    def key(self) -> PrivateKey:
        """Read anew."""
        return read_private_key(self.private)


def make_pair(place: Path, name: str = "own", passphrase: str | None = None) -> Pair:
    """A pair in files ``NAME.key`` and ``NAME.pem``."""
    place.mkdir(parents=True, exist_ok=True)
    private, public = place / f"{name}.key", place / f"{name}.pem"
    key = generate_keys(private, public, passphrase=passphrase)
    return Pair(private=private, public=public, fingerprint=key)
