"""The page is one document that loads nothing else, and its script finds what it looks for."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from parnet_deploy.serve.page import page as page_module
from parnet_deploy.serve.page.page import SCRIPTS, load_page


class Document(HTMLParser):
    """Elements and the text of style and script."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {"style": "", "script": ""}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in self.inside:
            self.inside[self.elements[-1][0]] += data.rstrip("\n") if data.isspace() else data

    def all(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(name))]


@pytest.fixture(scope="module")
def document() -> Document:
    found = Document()
    found.feed(load_page().body.decode())
    return found


def policy() -> dict[str, str]:
    text = load_page().headers["content-security-policy"]
    return dict(rule.strip().split(" ", 1) for rule in text.split(";"))


def test_it_is_one_small_document() -> None:
    page = load_page()
    assert page.body.startswith(b"<!doctype html>")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert len(page.body) < 64_000
    assert b"/* script */" not in page.body
    assert b"/* page.css */" not in page.body
    assert load_page() is page


def test_policy_allows_the_style_and_the_script_that_are_inside_and_nothing_else(
    document: Document,
) -> None:
    rules = policy()
    assert rules["default-src"] == "'none'"
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(document.inside[tag].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert "unsafe" not in load_page().headers["content-security-policy"]
    assert rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["form-action"] == rules["base-uri"] == "'none'"


def test_nothing_is_loaded_from_elsewhere(document: Document) -> None:
    for name in ("src", "href", "action", "srcset", "data", "poster"):
        assert all(value.startswith("data:") for value in document.all(name)), name
    text = load_page().body.decode().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text)
    assert not re.search(r"@import|url\(", document.inside["style"])
    assert not re.search(
        r"\bimport\b|\beval\(|innerHTML|outerHTML|document\.write|insertAdjacent"
        r"|localStorage|sessionStorage|document\.cookie",
        document.inside["script"].replace("import json", ""),
    )


def test_no_inline_handlers_or_styles_that_the_policy_would_refuse(document: Document) -> None:
    for tag, attributes in document.elements:
        for name in attributes:
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag


def test_ids_are_unique_and_the_script_style_and_labels_use_only_those_that_exist(
    document: Document,
) -> None:
    ids = document.all("id")
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'\$\("([\w-]+)"\)', document.inside["script"]))
    assert len(used) > 20
    references = {*document.all("for"), *document.all("aria-labelledby")}
    references |= {*document.all("aria-controls"), *document.all("aria-describedby")}
    styled = set(re.findall(r"(?<![\w&])#([a-z][\w-]*)(?=[\s.,:>{[~+])", document.inside["style"]))
    assert (used | references | styled) - set(ids) == set()


def test_every_script_file_is_in_the_page(document: Document) -> None:
    folder = page_module.files("parnet_deploy.serve.page")
    beside = {file.name for file in folder.iterdir() if file.name.endswith(".js")}
    assert set(SCRIPTS) == beside
    for name in SCRIPTS:
        text = folder.joinpath(name).read_text(encoding="utf-8")
        assert text in document.inside["script"]
        assert text.startswith("// "), f"{name}: says what it is for"
        assert "</" not in text, f"{name}: would end the script element"
        assert text.count("\n") <= 350


def test_loading_it_needs_the_standard_library_only() -> None:
    code = (
        "import sys; from parnet_deploy.serve.page.page import load_page; load_page()\n"
        "print(*{'numpy', 'starlette', 'uvicorn', 'grpc', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
