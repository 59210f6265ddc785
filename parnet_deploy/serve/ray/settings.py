"""What each replica is told, as plain JSON: it passes through Ray, and through a file of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import SpecError


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A deployment directory, as every node finds it, and the plan that every replica runs.

    ``path`` may be relative: to the working directory that Ray gives the replica (a
    ``working_dir``). ``digest``: ``need.answer_digest`` of what was there when it was put on the
    cluster; a replica whose copy would answer otherwise does not start. None: any will do.
    """

    path: str
    plan: str
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReplicaSettings:
    """What a replica serves, and how. A token is never in it, only the file that each node has.

    ``token_file`` None: the variable of ``security.token``, if it is set; with ``need_token`` a
    replica that finds none does not start.
    """

    models: tuple[ModelSettings, ...]
    slots: int = 1
    threads: int = 1
    max_queue: int = 64
    max_delay_ms: float = 0.0
    deadline_ms: float = 10_000.0
    drain_s: float = 30.0
    body_bytes: int = 16 * 2**20
    max_image_pixels: int = 24_000_000
    token_file: str | None = None
    need_token: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``from_json`` reads it back."""
        return {**asdict(self), "models": [asdict(model) for model in self.models]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReplicaSettings:
        """Inverse of ``to_json``; keys with defaults may be missing.

        Raises:
            SpecError: A key is missing, unknown or of the wrong type.
        """
        try:
            models = tuple(ModelSettings(**model) for model in data["models"])
            found = cls(**{**data, "models": models})
            found._check()
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(
                f"replica settings: got {error}, expected what `parnet-deploy serve --ray "
                "--write-config` writes under args. Write the file anew."
            ) from error
        return found

    @property
    def token_path(self) -> Path | None:
        """Where the token is."""
        return None if self.token_file is None else Path(self.token_file)

    def _check(self) -> None:
        if type(self.max_queue) is not int or self.max_queue < 0:
            raise ValueError(f"max_queue {self.max_queue!r}")
        whole = {
            "slots": self.slots,
            "threads": self.threads,
            "body_bytes": self.body_bytes,
            "max_image_pixels": self.max_image_pixels,
        }
        for name, value in whole.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} {value!r}")
        for name in ("max_delay_ms", "deadline_ms", "drain_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ValueError(f"{name} {value!r}")
        texts = [self.token_file, *(model.digest for model in self.models)]
        texts += [text for model in self.models for text in (model.path, model.plan)]
        for text in texts:
            if not isinstance(text, str | None):
                raise TypeError(f"{text!r} for a text")
        if not self.models:
            raise ValueError("no model")
