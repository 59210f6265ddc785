"""A deployment: one directory with everything about one model, checked whenever it is read.

Reading never changes the directory, except that opening it completes a commit whose writer died.
Nothing in it depends on where it lies: it can be copied whole to another machine.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import DeploymentChangedError, DeploymentCorruptError, DeploymentError
from .input_size import InputSize
from .spec import ModelSpec
from .storage import names
from .storage.document import canonical
from .storage.files import hash_file, open_plain
from .storage.journal import settle
from .storage.manifest import Manifest, load_manifest
from .storage.search import Found, find_deployment
from .storage.signature import Signature, load_signature
from .storage.statement import statement, uncovered
from .storage.transaction import Notify, Transaction

__all__ = ["Deployment", "Found", "Integrity", "Transaction", "find_deployment", "step_key"]

WRITER_WAIT_S = 10.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Integrity:
    """What ``verify`` found; true if every artifact is the one that was written.

    ``foreign`` files are in the directory without being artifacts; nothing of this package
    reads them.
    """

    missing: tuple[str, ...]
    changed: tuple[str, ...]
    foreign: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.missing and not self.changed


class Deployment:
    """A snapshot of a deployment as it was when it was opened; thread-safe, for it never changes.

    Owns: nothing is held open. Should another command rewrite an artifact later, reading that
    artifact raises ``DeploymentChangedError``; old and new are never mixed.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self._manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> Deployment:
        """Read and check the manifest; artifacts are checked when they are read.

        Raises:
            DeploymentNotFoundError: There is no deployment.
            DeploymentCorruptError: The manifest is not the one that was written.
            DeploymentError: Another schema version, or the directory cannot be read.
        """
        root = Path(path)
        try:
            settle(root)
        except OSError as error:
            raise DeploymentError(
                f"deployment {root}: cannot read it: got {error}, expected a readable directory. "
                "Check its permissions."
            ) from error
        return cls(root, load_manifest(root))

    @classmethod
    def read(cls, path: str | Path, load: Callable[[Deployment], T]) -> T:
        """Open and load; once more from the start if another command rewrote it meanwhile."""
        try:
            return load(cls.open(path))
        except DeploymentChangedError:
            return load(cls.open(path))

    @staticmethod
    def edit(
        path: str | Path,
        *,
        create: bool = False,
        wait_s: float = WRITER_WAIT_S,
        on_wait: Notify | None = None,
    ) -> Transaction:
        """Change a deployment: ``with Deployment.edit(path) as txn: ...``. Nothing happens before.

        Args:
            path: The directory.
            create: Make it if there is none.
            wait_s: How long to wait for another writer.
            on_wait: Called with one line of text if there is one; None: it is logged.
        """
        return Transaction(Path(path), create=create, wait_s=wait_s, on_wait=on_wait)

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.resolve().name

    @property
    def spec(self) -> ModelSpec:
        """The network."""
        return self._manifest.spec

    @property
    def input_size(self) -> InputSize | None:
        """Accepted image sizes; None before the export."""
        return self._manifest.input_size

    @property
    def preprocessing(self) -> Mapping[str, Any] | None:
        """How an image becomes the network's input."""
        return self._manifest.preprocessing

    @property
    def labels(self) -> tuple[str, ...] | None:
        """A name for every class."""
        return self._manifest.labels

    @property
    def source(self) -> Mapping[str, Any]:
        """Where the weights came from."""
        return self._manifest.source

    @property
    def steps(self) -> Mapping[str, Mapping[str, Any]]:
        """How each artifact was made: step -> key, options, versions, made_from, files."""
        return self._manifest.steps

    @property
    def plans(self) -> Mapping[str, Mapping[str, Any]]:
        """Built engines: plan key -> backend, placement, what was measured, step."""
        return self._manifest.plans

    @property
    def artifacts(self) -> Mapping[str, Mapping[str, Any]]:
        """Every file: relative path -> sha256, bytes, step."""
        return self._manifest.artifacts

    @property
    def written(self) -> str:
        """When it was last written (UTC, ISO 8601)."""
        return self._manifest.written

    @property
    def digest(self) -> str:
        """Sha256 of the manifest, hence of everything: equal digest, equal deployment."""
        return self._manifest.digest

    @property
    def statement(self) -> bytes:
        """What a signature covers: all that shapes an answer; see ``storage.statement``."""
        return statement(self._manifest)

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Artifacts that no signature covers though they are no reports; see the same."""
        return uncovered(self._manifest)

    def read_signature(self) -> Signature | None:
        """The signature that lies there now; None if there is none. It proves nothing unchecked.

        Raises:
            DeploymentUntrustedError: It is not one that this package wrote.
        """
        return load_signature(self.path)

    def read_bytes(self, name: str) -> bytes:
        """Content of an artifact; exactly these bytes were checked.

        Raises:
            DeploymentCorruptError: It is missing or not the one that was written.
            DeploymentChangedError: Another command rewrote it since this was opened.
            DeploymentError: There is no such artifact.
        """
        return self._checked(name, _read_bytes)

    def verified_path(self, name: str) -> Path:
        """Path of an artifact whose content was checked just now.

        For libraries that open the file themselves; who can write the directory can still swap
        it in between, so this protects against accidents.

        Raises:
            DeploymentCorruptError: See ``read_bytes``, as for the others.
        """
        return self._checked(name, _check_path)

    def verify(self) -> Integrity:
        """Check every artifact and list what is missing, changed or foreign."""
        missing, changed = [], []
        for name in sorted(self.artifacts):
            if not (self.path / name).is_file():
                missing.append(name)
                continue
            try:
                self.verified_path(name)
            except DeploymentCorruptError:
                changed.append(name)
        found = (p.relative_to(self.path) for p in self.path.rglob("*") if not p.is_dir())
        own = {names.MANIFEST, names.SIGNATURE, names.JOURNAL, names.LOCK, names.LOCK_HOLDER}
        foreign = sorted(
            path.as_posix()
            for path in found
            if path.as_posix() not in own | set(self.artifacts)
            and not names.is_staging(path.parts[0])
            and not path.parts[0].startswith(names.SEARCH_PREFIX)
        )
        return Integrity(missing=tuple(missing), changed=tuple(changed), foreign=tuple(foreign))

    def is_current(self, step: str, key: str) -> bool:
        """Whether the step was made with this key and all its files are there, unchanged."""
        record = self.steps.get(step)
        if record is None or record["key"] != key:
            return False
        try:
            for name in record["files"]:
                self.verified_path(name)
        except DeploymentError:
            return False
        return True

    def _checked(self, name: str, load: Callable[[Path, str, Mapping[str, Any]], T]) -> T:
        record = self.artifacts.get(name)
        if record is None:
            raise DeploymentError(
                f"deployment {self.path}: got no artifact {name}, expected it to be built. "
                "Run: parnet-deploy build."
            )
        try:
            return load(self.path, name, record)
        except DeploymentCorruptError:
            settle(self.path)  # a writer may be in the middle of its commit
            now = load_manifest(self.path)
            if now.artifacts.get(name) != record:
                raise DeploymentChangedError(
                    f"deployment {self.path}: {name} was rewritten at {now.written}, while it was "
                    "read. Open the deployment again."
                ) from None
        return load(self.path, name, record)


def step_key(**parts: Any) -> str:
    """Sha256 over everything that shapes a step's result; every field changes it.

    Args:
        parts: Plain JSON: options, hashes of what goes in, versions of what computes.
    """
    return hashlib.sha256(canonical(parts)).hexdigest()


def _read_bytes(root: Path, name: str, record: Mapping[str, Any]) -> bytes:
    _check_inside(root, name)
    try:
        with open_plain(root / name) as file:
            size = os.fstat(file.fileno()).st_size  # a manifest may claim any size
            data = file.read(min(record["bytes"], size) + 1)
    except OSError as error:
        raise _unreadable(root, name, record, error) from error
    _compare(root, name, record, hashlib.sha256(data).hexdigest(), len(data))
    return data


def _check_path(root: Path, name: str, record: Mapping[str, Any]) -> Path:
    _check_inside(root, name)
    path = root / name
    try:
        _compare(root, name, record, *hash_file(path))
    except OSError as error:
        raise _unreadable(root, name, record, error) from error
    return path


def _check_inside(root: Path, name: str) -> None:
    try:
        inside = names.is_inside(root, name)
    except (OSError, RuntimeError):  # RuntimeError: a loop of symbolic links
        inside = False
    if not inside:
        raise DeploymentCorruptError(
            f"artifact {name} in {root}: got a symbolic link that leads outside, expected a file. "
            "Replace the link by the file."
        )


def _compare(root: Path, name: str, record: Mapping[str, Any], sha256: str, size: int) -> None:
    if (sha256, size) != (record["sha256"], record["bytes"]):
        got = f"{size} bytes" if size < record["bytes"] else f"sha256 {sha256[:12]}"
        raise DeploymentCorruptError(
            f"artifact {name} in {root}: got {got}, expected {record['bytes']} bytes with sha256 "
            f"{record['sha256'][:12]} (it was changed or cut off). {_again(record)}"
        )


def _unreadable(
    root: Path, name: str, record: Mapping[str, Any], error: OSError
) -> DeploymentCorruptError:
    return DeploymentCorruptError(
        f"artifact {name} in {root}: got {error.strerror or error}, expected {record['bytes']} "
        f"bytes. {_again(record)}"
    )


def _again(record: Mapping[str, Any]) -> str:
    kind = str(record["step"]).partition(":")[0]
    command = "fuse model.pt" if kind == "fuse" else kind
    return f"Restore the file from a copy, or run: parnet-deploy {command}."
