"""The page at /, put together from the files beside this one, with the headers it is sent with.

It is one document with its style and script inside: no other file, no address outside the server
that it came from. Its content security policy names them by hash, so the browser runs nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

SCRIPTS = ("protocol.js", "picture.js", "answer.js", "card.js", "snippets.js", "main.js")
"""The script's files in order; together they are one module."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The document and its HTTP headers; ``etag`` is among them."""

    body: bytes
    headers: Mapping[str, str]

    @property
    def etag(self) -> str:
        """Changes with the content; quoted, as If-None-Match has it."""
        return self.headers["etag"]


@cache
def load_page() -> Page:
    """Read and put together the page: once in a process."""
    style = _read("page.css")
    script = "".join(map(_read, SCRIPTS))
    body = _read("page.html").replace("/* page.css */", style).replace("/* script */", script)
    content = body.encode()
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": _policy(style, script),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-cache",
        "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    }
    return Page(body=content, headers=headers)


def _policy(style: str, script: str) -> str:
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "img-src": "blob: data:",  # the picture that was picked; the icon
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",  # no text becomes markup
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
